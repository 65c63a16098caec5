//! Tokens of an identity provider that lives in the test: keys, their published set, and tokens good and bad.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// An issuer with one RSA key.
pub struct Issuer {
    /// What its tokens say in `iss`.
    pub name: String,
    key_id: String,
    signing: EncodingKey,
    modulus: String,
    exponent: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer with a new key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str, key_id: &str) -> Result<Issuer> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|error| anyhow!("an RSA key: {error}"))?;
        let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|error| anyhow!("PKCS#8: {error}"))?;
        let pem = pem("PRIVATE KEY", private.as_ref());
        let signing = EncodingKey::from_rsa_pem(pem.as_bytes()).context("the signing key")?;
        let public = pair.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Ok(Issuer {
            name: name.to_owned(),
            key_id: key_id.to_owned(),
            signing,
            modulus: number(public.modulus().big_endian_without_leading_zero()),
            exponent: number(public.exponent().big_endian_without_leading_zero()),
        })
    }

    /// Publishes the key set (JWKS).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, file: &Path) -> Result<()> {
        let key = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id, "n": self.modulus, "e": self.exponent});
        std::fs::write(file, json!({"keys": [key]}).to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// Claims of a caller as the issuer would state them, good for ten minutes.
    pub fn claims(&self, subject: &str, groups: &[&str]) -> Value {
        let now = seconds_now();
        json!({"iss": self.name, "sub": subject, "aud": "fairlead", "groups": groups, "iat": now, "nbf": now - 5, "exp": now + 600})
    }

    /// Signs claims.
    ///
    /// # Errors
    /// When the token library refuses.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.signing).context("sign")
    }

    /// The same claims with `alg: none` and no signature.
    pub fn unsigned(&self, claims: &Value) -> String {
        let header = json!({"alg": "none", "typ": "JWT", "kid": self.key_id});
        format!("{}.{}.", encoded(&header), encoded(claims))
    }

    /// The same claims signed by HMAC with the *public* key as the secret: a verifier that lets the token choose the
    /// algorithm takes it.
    ///
    /// # Errors
    /// When the token library refuses.
    pub fn confused(&self, claims: &Value) -> Result<String> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(self.modulus.as_bytes())).context("sign")
    }
}

/// Seconds since 1970.
pub fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Claims or header as a token carries them.
pub fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// DER as PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
