//! Who is asking: a bearer token -> [`Caller`], or a refusal whose reason stays in our log.
//!
//! Two kinds of authority: OIDC issuers whose public keys are in a file, and this gateway's own tokens ([`local`]). Which one a token claims
//! to come from decides which keys, algorithms and audiences it is held against; nothing else in the token does. What it may read is not
//! decided here.

mod error;
mod issuer;
mod key_set;
pub mod local;
mod strict_json;
mod token;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_contract::tenant::{Authority, Identity};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio_util::sync::CancellationToken;

use self::error::cause_of;
pub use self::error::{AuthenticateError, KeyFileError, KeyFileErrors};
use self::issuer::{Issuer, Refreshed};
pub use self::key_set::{KEY_SET_BYTES_MAX, KEYS_MAX, KeySet, KeySetError, PUBLIC_KEY_ALGORITHMS};
use self::token::Unverified;
pub use self::token::{NAME_BYTES_MAX, TOKEN_BYTES_MAX};

/// How far an authority's clock may be off: `exp` counts this much later, `nbf` this much earlier.
pub const LEEWAY: Duration = Duration::from_secs(10);

/// How often key files are looked at.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// One OIDC issuer, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Compared with `iss` byte by byte.
    pub issuer: String,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    /// A token must be signed with one of these; each is one of [`PUBLIC_KEY_ALGORITHMS`].
    pub algorithms: Vec<Algorithm>,
    /// JWK set.
    pub jwks_file: PathBuf,
    /// The claim that names the caller.
    pub subject_claim: String,
    /// The claim that lists the caller's groups.
    pub groups_claim: String,
}

/// Everything that tokens are held against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// OIDC issuers, each name once.
    pub issuers: Vec<IssuerSettings>,
    /// Public keys of local tokens; none means that no local token is believed.
    pub local_public_key_files: Vec<PathBuf>,
}

/// Who is asking, proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Which authority says so, and what it says.
    pub identity: Identity,
    /// When the proof ends; open streams end with it. Includes [`LEEWAY`], so that what opens is not closed at once.
    pub expires: Option<SystemTime>,
    /// The token's `jti`, if it has one.
    pub token_id: Option<String>,
}

/// Judges a JWK set file for an issuer with these algorithms.
///
/// # Errors
/// It cannot be read, or no key in it can be used.
pub fn check_key_set(path: &Path, algorithms: &[Algorithm]) -> Result<(), KeyFileError> {
    issuer::read_key_set(path, algorithms).map(drop)
}

/// Judges the file of a local token's public key, and gives the key's id.
///
/// # Errors
/// It cannot be read, or is no Ed25519 public key.
pub fn check_local_key(path: &Path) -> Result<String, KeyFileError> {
    read_local_key(path).map(|(id, _)| id)
}

/// Told of every look at a key file that found a change: the issuer's name, and whether the new keys are in use. For metrics.
pub type KeyFileHook = Arc<dyn Fn(&str, Result<usize, ()>) + Send + Sync>;

/// Believes or refuses tokens. One for the process, shared by all requests.
pub struct Authenticator {
    issuers: BTreeMap<String, Issuer>,
    hook: KeyFileHook,
}

impl Authenticator {
    /// Reads all key files.
    ///
    /// # Errors
    /// A [`KeyFileError`] for each file that cannot be used.
    pub fn new(settings: &Settings, hook: KeyFileHook) -> Result<Authenticator, KeyFileErrors> {
        choose_cryptography();
        let mut issuers = BTreeMap::new();
        let mut errors = Vec::new();
        for issuer in &settings.issuers {
            match Issuer::from_file(issuer) {
                Ok(read) => {
                    announce(&issuer.issuer, &read.keys());
                    hook(&issuer.issuer, Ok(read.keys().len()));
                    issuers.insert(issuer.issuer.clone(), read);
                }
                Err(error) => errors.push(error),
            }
        }
        let mut local_keys: BTreeMap<String, DecodingKey> = BTreeMap::new();
        for path in &settings.local_public_key_files {
            match read_local_key(path) {
                Ok((id, key)) => drop(local_keys.insert(id, key)),
                Err(error) => errors.push(error),
            }
        }
        if !local_keys.is_empty() {
            issuers.insert(local::ISSUER.to_owned(), Issuer::local(KeySet::of_ed25519(local_keys)));
        }
        if errors.is_empty() { Ok(Authenticator { issuers, hook }) } else { Err(KeyFileErrors(errors)) }
    }

    /// Believes `bearer`, the text after `Bearer `, or says why not.
    ///
    /// Synchronous and without I/O: one signature check, 50 to 200 microseconds.
    ///
    /// # Errors
    /// [`AuthenticateError`]; its text belongs in the log, never in an answer.
    pub fn authenticate(&self, bearer: &str) -> Result<Caller, AuthenticateError> {
        let unverified = Unverified::read(bearer)?;
        let issuer = self
            .issuers
            .get(&unverified.issuer)
            .ok_or_else(|| AuthenticateError::IssuerUnknown { issuer: shorten(&unverified.issuer) })?;
        issuer.verify(bearer, &unverified)
    }

    /// Reads changed key files again. A broken file changes nothing but the log and the hook: the last good keys stay.
    pub fn refresh(&self) {
        for (name, issuer) in &self.issuers {
            match issuer.refresh() {
                Refreshed::Unchanged => {}
                Refreshed::Loaded(keys) => {
                    announce(name, &keys);
                    (self.hook)(name, Ok(keys.len()));
                }
                Refreshed::Failed(error) => {
                    tracing::error!(issuer = ?name, error = format!("{error}{}", cause_of(&error)), "key file is broken; the last good keys stay in use");
                    (self.hook)(name, Err(()));
                }
            }
        }
    }

    /// Calls [`Self::refresh`] every [`REFRESH_INTERVAL`] until `stop` is cancelled. File reads happen on a blocking thread.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let this = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || this.refresh()).await.is_err() {
                tracing::error!("the look at key files failed");
            }
        }
    }
}

impl Caller {
    /// The caller for a log line: authority and subject, escaped.
    pub fn describe(&self) -> String {
        match &self.identity.authority {
            Authority::Local => format!("local {:?}", self.identity.subject),
            Authority::Issuer(issuer) => format!("{issuer} {:?}", self.identity.subject),
        }
    }
}

/// `jsonwebtoken` chooses by its compiled features, and panics if another crate of the process has turned on a second one.
fn choose_cryptography() {
    // Fails only if it was chosen before, here.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

fn read_local_key(path: &Path) -> Result<(String, DecodingKey), KeyFileError> {
    let text = std::fs::read(path).map_err(|source| KeyFileError::Unreadable { path: path.to_owned(), source })?;
    local::public_key_from_pem(&text).map_err(|source| KeyFileError::LocalKey { path: path.to_owned(), source })
}

fn announce(issuer: &str, keys: &KeySet) {
    tracing::info!(issuer = ?issuer, keys = keys.len(), "keys read");
    for reason in keys.left_out() {
        tracing::warn!(issuer = ?issuer, reason, "key left out");
    }
}

/// A text from a token, short enough for a log line.
fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}
