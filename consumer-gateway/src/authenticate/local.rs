//! Tokens for teams without an issuer: minted by `fairlead-gateway token mint`, believed by `serve`.
//!
//! A private Ed25519 key signs; `serve` holds only public keys. A token names its tenant, so it needs no group or member entry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::Serialize;
use uuid::Uuid;

/// The `iss` of every local token. No configured issuer may have this name.
pub const ISSUER: &str = "urn:fairlead:local";

/// The `aud` of every local token.
pub const AUDIENCE: &str = "fairlead";

/// The fixed head of an Ed25519 public key in SubjectPublicKeyInfo form (RFC 8410 §4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key text is not usable. Never carries key material.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum LocalKeyError {
    /// The text is no PEM block `PRIVATE KEY` with an Ed25519 key.
    #[error("not an Ed25519 private key in PKCS#8 PEM")]
    Private,
    /// The text is no PEM block `PUBLIC KEY` with an Ed25519 key.
    #[error("not an Ed25519 public key in PEM (SubjectPublicKeyInfo)")]
    Public,
    /// The library could not make, write or use a key.
    #[error("the cryptographic library failed")]
    Library,
}

/// Whom a token is for.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// The tenant whose rights it carries.
    pub tenant: &'a str,
    /// Who holds it; shown in logs and by `/v1/me`.
    pub subject: &'a str,
    /// How long it is good.
    pub lifetime: Duration,
}

/// The private half: makes tokens.
pub struct Signer {
    pair: Ed25519KeyPair,
    key: EncodingKey,
}

impl Signer {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`LocalKeyError::Library`] if the system gives no randomness.
    pub fn generate() -> Result<Signer, LocalKeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| LocalKeyError::Library)?;
        Signer::new(pair)
    }

    /// Reads a PKCS#8 PEM text, as `keys init` and `openssl genpkey -algorithm ed25519` write it.
    ///
    /// # Errors
    /// [`LocalKeyError::Private`] if it is anything else.
    pub fn from_pem(text: &[u8]) -> Result<Signer, LocalKeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| LocalKeyError::Private)?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| LocalKeyError::Private)?;
        Signer::new(pair)
    }

    fn new(pair: Ed25519KeyPair) -> Result<Signer, LocalKeyError> {
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| LocalKeyError::Library)?;
        let key = EncodingKey::from_ed_der(der.as_ref());
        Ok(Signer { pair, key })
    }

    /// The private key as PKCS#8 PEM.
    pub fn private_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.as_bytes())
    }

    /// The public key as SubjectPublicKeyInfo PEM.
    ///
    /// # Errors
    /// [`LocalKeyError::Library`] if the library cannot encode it.
    pub fn public_pem(&self) -> Result<String, LocalKeyError> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| LocalKeyError::Library)?;
        Ok(pem("PUBLIC KEY", der.as_ref()))
    }

    /// The id that this key's tokens carry.
    pub fn key_id(&self) -> String {
        key_id(self.pair.public_key().as_ref())
    }

    /// Makes a token that is good from `now` on.
    ///
    /// # Errors
    /// [`LocalKeyError::Library`] if signing fails.
    pub fn mint(&self, grant: &Grant<'_>, now: SystemTime) -> Result<String, LocalKeyError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'a str,
            sub: &'a str,
            tenant: &'a str,
            iat: u64,
            nbf: u64,
            exp: u64,
            jti: String,
        }
        super::choose_cryptography();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = Header { kid: Some(self.key_id()), ..Header::new(Algorithm::EdDSA) };
        let claims = Claims {
            iss: ISSUER,
            aud: AUDIENCE,
            sub: grant.subject,
            tenant: grant.tenant,
            iat: now,
            nbf: now,
            exp: now.saturating_add(grant.lifetime.as_secs()),
            jti: Uuid::new_v4().to_string(),
        };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| LocalKeyError::Library)
    }
}

/// Reads a public key from PEM: its id and the key that verifies.
///
/// # Errors
/// [`LocalKeyError::Public`] if the text is anything else, a private key among them.
pub fn public_key_from_pem(text: &[u8]) -> Result<(String, DecodingKey), LocalKeyError> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(text).map_err(|_| LocalKeyError::Public)?;
    match der.as_ref().strip_prefix(&SPKI_HEAD) {
        Some(point) if point.len() == 32 => Ok((key_id(point), DecodingKey::from_ed_der(point))),
        _ => Err(LocalKeyError::Public),
    }
}

/// The JWK thumbprint (RFC 7638, RFC 8037 appendix A.3) of an Ed25519 public key.
fn key_id(point: &[u8]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(point));
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes()))
}

/// RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = next;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_id_is_the_published_thumbprint() {
        // RFC 8037 appendix A.3
        let point = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(key_id(&point), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn keys_survive_their_files() {
        let made = Signer::generate().unwrap();
        let read = Signer::from_pem(made.private_pem().as_bytes()).unwrap();
        assert_eq!(read.key_id(), made.key_id());
        assert_eq!(read.private_pem(), made.private_pem());
        let (id, _) = public_key_from_pem(made.public_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(id, made.key_id());
        assert!(made.private_pem().lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn reads_what_openssl_writes() {
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert_eq!(Signer::from_pem(private.as_bytes()).unwrap().public_pem().unwrap(), public);
    }

    #[test]
    fn refuses_other_texts() {
        let signer = Signer::generate().unwrap();
        for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &signer.private_pem()] {
            assert_eq!(public_key_from_pem(text.as_bytes()).unwrap_err(), LocalKeyError::Public);
        }
        for text in ["", "x", &signer.public_pem().unwrap()] {
            assert_eq!(Signer::from_pem(text.as_bytes()).err(), Some(LocalKeyError::Private));
        }
    }
}
