//! One authority that this gateway believes: its name, its pinned algorithms and audiences, and its keys.
//!
//! Input: a token whose `iss` named this authority. Output: the [`Caller`], after signature, audience and dates were checked by
//! `jsonwebtoken` and the shape of every claim that we use by [`super::token`].

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use fairlead_contract::tenant::{Authority, Identity};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::key_set::{KEY_SET_BYTES_MAX, KeySet};
use super::token::Unverified;
use super::{AuthenticateError, Caller, IssuerSettings, KeyFileError, LEEWAY, local, shorten};

/// An authority and its keys. The keys can be replaced while tokens are being checked.
pub(super) struct Issuer {
    authority: Authority,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    subject_claim: String,
    groups_claim: Option<String>,
    keys: ArcSwap<KeySet>,
    file: Option<WatchedFile>,
}

/// What became of a look at an issuer's key file.
pub(super) enum Refreshed {
    Unchanged,
    Loaded(Arc<KeySet>),
    Failed(KeyFileError),
}

impl Issuer {
    /// An OIDC issuer whose keys are in a file.
    pub(super) fn from_file(settings: &IssuerSettings) -> Result<Issuer, KeyFileError> {
        let (keys, stamp) = read_key_set(&settings.jwks_file, &settings.algorithms)?;
        Ok(Issuer {
            authority: Authority::Issuer(settings.issuer.clone()),
            algorithms: settings.algorithms.clone(),
            validation: validation(&settings.issuer, &settings.audiences),
            subject_claim: settings.subject_claim.clone(),
            groups_claim: Some(settings.groups_claim.clone()),
            keys: ArcSwap::from_pointee(keys),
            file: Some(WatchedFile { path: settings.jwks_file.clone(), seen: Mutex::new(Some(stamp)) }),
        })
    }

    /// The authority of locally minted tokens.
    pub(super) fn local(keys: KeySet) -> Issuer {
        Issuer {
            authority: Authority::Local,
            algorithms: vec![Algorithm::EdDSA],
            validation: validation(local::ISSUER, &[local::AUDIENCE.to_owned()]),
            subject_claim: "sub".to_owned(),
            groups_claim: None,
            keys: ArcSwap::from_pointee(keys),
            file: None,
        }
    }

    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// Believes the token or says why not. `unverified` was read from the same `token`.
    pub(super) fn verify(&self, token: &str, unverified: &Unverified) -> Result<Caller, AuthenticateError> {
        let algorithm = Algorithm::from_str(&unverified.algorithm)
            .ok()
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or_else(|| AuthenticateError::AlgorithmRefused { algorithm: shorten(&unverified.algorithm) })?;
        let keys = self.keys.load();
        let key = keys.find(unverified.key_id.as_deref(), algorithm)?;
        let validation = Validation { algorithms: vec![algorithm], ..self.validation.clone() };
        jsonwebtoken::decode::<IgnoredAny>(token, key, &validation).map_err(|error| refusal(error.into_kind()))?;

        let expires = unverified.date("exp")?.ok_or_else(|| AuthenticateError::ClaimMissing { claim: "exp".into() })?;
        unverified.date("nbf")?;
        unverified.date("iat")?;
        let subject = unverified.name(&self.subject_claim)?;
        if self.subject_claim == "email"
            && unverified.claims.get("email_verified").is_some_and(|v| v != &Value::Bool(true))
        {
            return Err(AuthenticateError::ClaimInvalid { claim: "email_verified".into() });
        }
        let groups = match &self.groups_claim {
            Some(claim) => unverified.names(claim)?,
            None => Vec::new(),
        };
        let (tenant, token_id) = match self.authority {
            Authority::Local => (Some(unverified.name("tenant")?), Some(unverified.name("jti")?)),
            Authority::Issuer(_) => (None, unverified.name("jti").ok()),
        };
        Ok(Caller {
            identity: Identity { authority: self.authority.clone(), subject, groups, tenant },
            expires: Some(UNIX_EPOCH + Duration::from_secs_f64(expires) + LEEWAY),
            token_id,
        })
    }

    /// Reads the key file again if it is another one than last time; what was good stays in use when the new text is not.
    pub(super) fn refresh(&self) -> Refreshed {
        let Some(file) = &self.file else { return Refreshed::Unchanged };
        let mut seen = file.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::fs::metadata(&file.path).ok().map(|metadata| Stamp::of(&metadata));
        if *seen == now {
            return Refreshed::Unchanged;
        }
        *seen = now;
        match read_key_set(&file.path, &self.algorithms) {
            Ok((keys, stamp)) => {
                *seen = Some(stamp);
                let keys = Arc::new(keys);
                self.keys.store(Arc::clone(&keys));
                Refreshed::Loaded(keys)
            }
            Err(error) => Refreshed::Failed(error),
        }
    }
}

/// A key file and what it was when it was last read; `None` when it was not there.
struct WatchedFile {
    path: PathBuf,
    seen: Mutex<Option<Stamp>>,
}

/// Which file is at a path, and in which state. A mounted ConfigMap changes by exchanging a link, so the inode counts too.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

pub(super) fn read_key_set(path: &Path, algorithms: &[Algorithm]) -> Result<(KeySet, Stamp), KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
    let mut text = Vec::new();
    file.take(KEY_SET_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    match KeySet::parse(&text, algorithms) {
        Ok(keys) => Ok((keys, stamp)),
        Err(source) => Err(KeyFileError::KeySet { path: path.to_owned(), source }),
    }
}

fn validation(issuer: &str, audiences: &[String]) -> Validation {
    let mut validation = Validation::default();
    validation.algorithms.clear();
    validation.leeway = LEEWAY.as_secs();
    validation.validate_exp = true;
    validation.validate_nbf = true;
    validation.validate_aud = true;
    validation.set_audience(audiences);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation
}

fn refusal(kind: ErrorKind) -> AuthenticateError {
    match kind {
        ErrorKind::InvalidSignature => AuthenticateError::SignatureWrong,
        ErrorKind::ExpiredSignature => AuthenticateError::Expired,
        ErrorKind::ImmatureSignature => AuthenticateError::NotYetValid,
        ErrorKind::InvalidAudience => AuthenticateError::AudienceRefused,
        ErrorKind::InvalidAlgorithm => AuthenticateError::SignatureWrong,
        ErrorKind::MissingRequiredClaim(claim) => AuthenticateError::ClaimMissing { claim },
        ErrorKind::InvalidClaimFormat(claim) => AuthenticateError::ClaimInvalid { claim },
        _ => AuthenticateError::Malformed { part: "token" },
    }
}
