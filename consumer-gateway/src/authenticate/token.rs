//! A token before anything in it is believed: compact JWS -> header and claims, read strictly.
//!
//! Input: the text after `Bearer `. Output: [`Unverified`], which tells only which authority and which key to ask. Nothing here is proof of
//! anything; the signature is checked by [`super::issuer`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{AuthenticateError, strict_json};

/// Longest token that is looked at, in bytes. Header blocks of common servers end at 8 KiB too.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Longest text of a header or claim that is used as a name (key id, subject, group), in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// Seconds since 1970 of 10000-01-01: no date of a token may lie behind it.
const DATE_END: f64 = 253_402_300_800.0;

/// What a token says about itself. `jku`, `x5u`, `jwk` and `x5c` of the header are not here: keys come from configuration alone.
#[derive(Debug)]
pub(super) struct Unverified {
    pub algorithm: String,
    pub key_id: Option<String>,
    pub issuer: String,
    pub claims: Map<String, Value>,
}

impl Unverified {
    /// Reads a compact JWS strictly: three non-empty parts of canonical base64url, JSON objects without repeated members, `alg` and `iss`
    /// texts, no `crit`, and a `typ` that is absent, `JWT` or `at+jwt` (RFC 9068), with or without `application/`.
    pub(super) fn read(token: &str) -> Result<Unverified, AuthenticateError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthenticateError::TooLong { bytes: token.len() });
        }
        let parts: Vec<&str> = token.split('.').collect();
        let &[header, claims, signature] = parts.as_slice() else {
            return Err(AuthenticateError::Malformed { part: "token" });
        };
        if signature.is_empty() {
            return Err(AuthenticateError::Malformed { part: "signature" });
        }
        let header = object(header, "header")?;
        let claims = object(claims, "claims")?;

        if header.contains_key("crit") {
            return Err(AuthenticateError::CriticalHeader);
        }
        if let Some(kind) = header.get("typ") {
            check_type(kind)?;
        }
        let Some(Value::String(algorithm)) = header.get("alg") else {
            return Err(AuthenticateError::Malformed { part: "header" });
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= NAME_BYTES_MAX => Some(id.clone()),
            Some(_) => return Err(AuthenticateError::Malformed { part: "header" }),
        };
        let issuer = match claims.get("iss") {
            Some(Value::String(issuer)) => issuer.clone(),
            Some(_) => return Err(AuthenticateError::ClaimInvalid { claim: "iss".into() }),
            None => return Err(AuthenticateError::ClaimMissing { claim: "iss".into() }),
        };
        Ok(Unverified { algorithm: algorithm.clone(), key_id, issuer, claims })
    }

    /// The date in `claim`, in seconds since 1970; fractions are allowed (RFC 7519 §2), texts, negative and far dates are not.
    pub(super) fn date(&self, claim: &str) -> Result<Option<f64>, AuthenticateError> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        match value.as_f64() {
            Some(seconds) if (0.0..DATE_END).contains(&seconds) => Ok(Some(seconds)),
            _ => Err(AuthenticateError::ClaimInvalid { claim: claim.to_owned() }),
        }
    }

    /// The name in `claim`: a text of 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    pub(super) fn name(&self, claim: &str) -> Result<String, AuthenticateError> {
        match self.claims.get(claim) {
            Some(Value::String(text)) if is_name(text) => Ok(text.clone()),
            Some(_) => Err(AuthenticateError::ClaimInvalid { claim: claim.to_owned() }),
            None => Err(AuthenticateError::ClaimMissing { claim: claim.to_owned() }),
        }
    }

    /// The names in `claim`: absent is none; one text is one name; anything but texts refuses the token.
    pub(super) fn names(&self, claim: &str) -> Result<Vec<String>, AuthenticateError> {
        let invalid = || AuthenticateError::ClaimInvalid { claim: claim.to_owned() };
        match self.claims.get(claim) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) if is_name(text) => Ok(vec![text.clone()]),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::String(text) if is_name(text) => Ok(text.clone()),
                    _ => Err(invalid()),
                })
                .collect(),
            Some(_) => Err(invalid()),
        }
    }
}

fn object(part: &str, name: &'static str) -> Result<Map<String, Value>, AuthenticateError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthenticateError::Malformed { part: name })?;
    strict_json::from_slice(&bytes).map_err(|_| AuthenticateError::Malformed { part: name })
}

fn check_type(kind: &Value) -> Result<(), AuthenticateError> {
    let refused = || AuthenticateError::TypeRefused;
    let kind = kind.as_str().ok_or_else(refused)?.to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "jwt" | "at+jwt" => Ok(()),
        _ => Err(refused()),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}
