//! Why a token is not believed, and why a key file cannot be used. The texts are for our log.

use std::fmt;
use std::path::PathBuf;

use fairlead_service_kit::config_source::os_words;

use super::key_set::KeySetError;
use super::local::LocalKeyError;
use super::token::TOKEN_BYTES_MAX;

/// Why a token is not believed. The texts are for our log; a caller learns only that authentication failed.
///
/// No variant holds a token or a signature. Texts that come from a token are shown escaped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticateError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("token of {bytes} bytes; at most {TOKEN_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a compact JWS with JSON objects, or a member stands twice.
    #[error("token's {part} cannot be read")]
    Malformed {
        /// Which part of it.
        part: &'static str,
    },
    /// `crit` asks for extensions; none is known here.
    #[error("token's header has `crit`")]
    CriticalHeader,
    /// `typ` names something that is not an identity or access token.
    #[error("token's `typ` is not JWT or at+jwt")]
    TypeRefused,
    /// `iss` is no configured authority.
    #[error("unknown issuer {issuer:?}")]
    IssuerUnknown {
        /// What it says, shortened.
        issuer: String,
    },
    /// `alg` is not allowed for this authority.
    #[error("algorithm {algorithm:?} is not allowed for this issuer")]
    AlgorithmRefused {
        /// What it says, shortened.
        algorithm: String,
    },
    /// No key has this `kid` and verifies this `alg`.
    #[error("no key of this issuer has this `kid` and `alg`")]
    KeyUnknown,
    /// Several keys have this `kid` and verify this `alg`.
    #[error("several keys of this issuer have this `kid` and `alg`")]
    KeyAmbiguous,
    /// No `kid`, and the authority has several keys.
    #[error("token has no `kid`, and its issuer has several keys")]
    KeyNotNamed,
    /// The signature is not that key's.
    #[error("signature does not verify")]
    SignatureWrong,
    /// `exp` has passed.
    #[error("token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("token is not valid yet")]
    NotYetValid,
    /// `aud` names none of ours.
    #[error("token is for another audience")]
    AudienceRefused,
    /// A claim that we need is not there.
    #[error("claim `{claim}` is missing")]
    ClaimMissing {
        /// Its name.
        claim: String,
    },
    /// A claim has a value that cannot be what it should be.
    #[error("claim `{claim}` has an impossible value")]
    ClaimInvalid {
        /// Its name.
        claim: String,
    },
}

impl AuthenticateError {
    /// A short name from a closed set, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            AuthenticateError::TooLong { .. } => "too_long",
            AuthenticateError::Malformed { .. } => "malformed",
            AuthenticateError::CriticalHeader => "critical_header",
            AuthenticateError::TypeRefused => "type_refused",
            AuthenticateError::IssuerUnknown { .. } => "issuer_unknown",
            AuthenticateError::AlgorithmRefused { .. } => "algorithm_refused",
            AuthenticateError::KeyUnknown => "key_unknown",
            AuthenticateError::KeyAmbiguous => "key_ambiguous",
            AuthenticateError::KeyNotNamed => "key_not_named",
            AuthenticateError::SignatureWrong => "signature_wrong",
            AuthenticateError::Expired => "expired",
            AuthenticateError::NotYetValid => "not_yet_valid",
            AuthenticateError::AudienceRefused => "audience_refused",
            AuthenticateError::ClaimMissing { .. } => "claim_missing",
            AuthenticateError::ClaimInvalid { .. } => "claim_invalid",
        }
    }
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no usable JWK set.
    #[error("cannot use {}", .path.display())]
    KeySet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeySetError,
    },
    /// The file is no Ed25519 key.
    #[error("cannot use {}", .path.display())]
    LocalKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: LocalKeyError,
    },
}

impl KeyFileError {
    /// What is wrong, without the path, for a place that shows the path itself.
    pub fn problem(&self) -> String {
        match self {
            KeyFileError::Unreadable { source, .. } => format!("cannot be read: {}", os_words(source)),
            KeyFileError::KeySet { source, .. } => format!("{source}{}", cause_of(source)),
            KeyFileError::LocalKey { source, .. } => source.to_string(),
        }
    }
}

/// All key files that cannot be used, one a line, each with its cause.
#[derive(Debug)]
pub struct KeyFileErrors(pub Vec<KeyFileError>);

impl std::error::Error for KeyFileErrors {}

impl fmt::Display for KeyFileErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_break}{error}{}", cause_of(error))?;
        }
        Ok(())
    }
}

/// The chain of causes behind an error, each after a colon.
pub(super) fn cause_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.map(|cause| format!(": {cause}")).collect()
}
