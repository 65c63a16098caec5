//! The public keys of one issuer: a JWK set (RFC 7517) -> usable keys, each with the algorithms it may verify.
//!
//! A key that cannot be used is left out and named with its reason, as RFC 7517 §5 asks, so that one odd key does not cost the others.
//! A set that holds a secret (a private or a symmetric key) is refused whole: it should never have been in that file.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AuthenticateError, strict_json};

/// Largest JWK set that is read, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 1024 * 1024;

/// Most keys that a set may hold.
pub const KEYS_MAX: usize = 256;

/// Algorithms that an issuer may be configured with: those that a public key verifies.
pub const PUBLIC_KEY_ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Why a key set cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The text is longer than [`KEY_SET_BYTES_MAX`].
    #[error("the key set has {bytes} bytes; at most {KEY_SET_BYTES_MAX}")]
    TooLong {
        /// Length that was found.
        bytes: usize,
    },
    /// The text is no JSON object with a list `keys`, or a member stands twice.
    #[error("not a JWK set")]
    Malformed(#[source] serde_json::Error),
    /// The list is longer than [`KEYS_MAX`].
    #[error("the key set has {keys} keys; at most {KEYS_MAX}")]
    TooMany {
        /// Number that was found.
        keys: usize,
    },
    /// A private or symmetric key is in the set.
    #[error("{key} is secret (private or symmetric); this file must hold public keys only")]
    Secret {
        /// Which one: its position and `kid`.
        key: String,
    },
    /// Nothing in it can verify a token.
    #[error("no key can be used: {}", if .reasons.is_empty() { "the list is empty".to_owned() } else { .reasons.join("; ") })]
    Empty {
        /// One text for each key.
        reasons: Vec<String>,
    },
}

/// The usable keys of one issuer.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    left_out: Vec<String>,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set and keeps the keys that can verify one of `allowed`.
    ///
    /// # Errors
    /// See [`KeySetError`]; a set without one usable key is an error.
    pub fn parse(text: &[u8], allowed: &[Algorithm]) -> Result<KeySet, KeySetError> {
        #[derive(Deserialize)]
        struct Raw {
            keys: Vec<Map<String, Value>>,
        }
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(KeySetError::TooLong { bytes: text.len() });
        }
        let raw: Raw = strict_json::from_slice(text).map_err(KeySetError::Malformed)?;
        if raw.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany { keys: raw.keys.len() });
        }
        let mut set = KeySet { keys: Vec::new(), left_out: Vec::new() };
        for (index, raw_key) in raw.keys.into_iter().enumerate() {
            let name = match raw_key.get("kid").and_then(Value::as_str) {
                Some(id) => format!("keys[{index}] (kid {id:?})"),
                None => format!("keys[{index}]"),
            };
            if raw_key.contains_key("d") || raw_key.contains_key("k") {
                return Err(KeySetError::Secret { key: name });
            }
            match Key::read(raw_key, allowed) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.left_out.push(format!("{name}: {reason}")),
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::Empty { reasons: set.left_out });
        }
        Ok(set)
    }

    /// The keys of local tokens, by their ids.
    pub(super) fn of_ed25519(keys: impl IntoIterator<Item = (String, DecodingKey)>) -> KeySet {
        let keys =
            keys.into_iter().map(|(id, key)| Key { id: Some(id), algorithms: vec![Algorithm::EdDSA], key }).collect();
        KeySet { keys, left_out: Vec::new() }
    }

    /// Finds the one key that a token's `kid` and `alg` name. Without a `kid` the set must have one usable key in all.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, AuthenticateError> {
        if id.is_none() && self.keys.len() > 1 {
            return Err(AuthenticateError::KeyNotNamed);
        }
        let named = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
        let mut fitting = named.filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.key),
            (Some(_), Some(_)) => Err(AuthenticateError::KeyAmbiguous),
            (None, _) => Err(AuthenticateError::KeyUnknown),
        }
    }

    /// Number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that were left out, each with its reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl Key {
    fn read(raw: Map<String, Value>, allowed: &[Algorithm]) -> Result<Key, String> {
        let jwk: Jwk = serde_json::from_value(Value::Object(raw)).map_err(|e| format!("not understood: {e}"))?;
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return Err("its `use` is not `sig`".to_owned());
        }
        if jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
            return Err("its `key_ops` does not hold `verify`".to_owned());
        }
        let fitting = fitting_algorithms(&jwk.algorithm)?;
        let own = match jwk.common.key_algorithm {
            None => fitting.to_vec(),
            Some(named) => fitting.iter().copied().filter(|a| KeyAlgorithm::from(*a) == named).collect(),
        };
        if own.is_empty() {
            return Err("its `alg` does not fit its `kty` or is not supported".to_owned());
        }
        let algorithms: Vec<Algorithm> = own.into_iter().filter(|a| allowed.contains(a)).collect();
        if algorithms.is_empty() {
            return Err("it verifies none of the algorithms that are allowed for this issuer".to_owned());
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|e| format!("not understood: {e}"))?;
        Ok(Key { id: jwk.common.key_id, algorithms, key })
    }
}

/// The algorithms that a key's type and curve can verify.
fn fitting_algorithms(parameters: &AlgorithmParameters) -> Result<&'static [Algorithm], String> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "its numbers are not base64url".to_owned());
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = bytes(&rsa.n)?;
            bytes(&rsa.e)?;
            let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
            match significant {
                256..=1024 => Ok(&[RS256, RS384, RS512, PS256, PS384, PS512]),
                _ => Err(format!("an RSA key of {} bits; 2048 to 8192 are accepted", significant * 8)),
            }
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let (size, algorithms): (usize, &'static [Algorithm]) = match ec.curve {
                EllipticCurve::P256 => (32, &[ES256]),
                EllipticCurve::P384 => (48, &[ES384]),
                _ => return Err("its curve is not P-256 or P-384".to_owned()),
            };
            if bytes(&ec.x)?.len() != size || bytes(&ec.y)?.len() != size {
                return Err("its coordinates have the wrong length".to_owned());
            }
            Ok(algorithms)
        }
        AlgorithmParameters::OctetKeyPair(okp) => match okp.curve {
            EllipticCurve::Ed25519 if bytes(&okp.x)?.len() == 32 => Ok(&[EdDSA]),
            _ => Err("not an Ed25519 key".to_owned()),
        },
        _ => Err("its `kty` is not RSA, EC or OKP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn parse(keys: &[String], allowed: &[Algorithm]) -> Result<KeySet, KeySetError> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), allowed)
    }

    #[test]
    fn keeps_what_can_be_used_and_names_the_rest() {
        let check = |key: String, expected: Result<(), &str>| {
            let good = format!(r#"{ED},"kid":"good"}}"#);
            let set = parse(&[good, key.clone()], &[Algorithm::EdDSA, Algorithm::ES256]).unwrap();
            match expected {
                Ok(()) => assert_eq!((set.len(), set.left_out()), (2, &[] as &[String]), "{key}"),
                Err(reason) => {
                    assert_eq!(set.len(), 1, "{key}");
                    assert!(set.left_out()[0].contains(reason), "{key}: {:?}", set.left_out());
                }
            }
        };
        check(format!("{ED}}}"), Ok(()));
        check(format!(r#"{ED},"use":"sig","alg":"EdDSA","key_ops":["verify"]}}"#), Ok(()));
        check(format!("{EC}}}"), Ok(()));
        check(format!(r#"{EC},"alg":"ES256"}}"#), Ok(()));
        check(format!(r#"{ED},"use":"enc"}}"#), Err("`use`"));
        check(format!(r#"{ED},"key_ops":["sign"]}}"#), Err("`key_ops`"));
        check(format!(r#"{ED},"alg":"RS256"}}"#), Err("does not fit"));
        check(format!(r#"{EC},"alg":"HS256"}}"#), Err("does not fit"));
        check(format!(r#"{EC},"alg":"ES384"}}"#), Err("does not fit"));
        check(format!(r#"{EC},"alg":"none"}}"#), Err("does not fit"));
        check(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(), Err("24 bits"));
        check(r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.to_owned(), Err("curve"));
        check(r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.to_owned(), Err("wrong length"));
        check(r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.to_owned(), Err("not an Ed25519"));
        check(r#"{"kty":"quantum"}"#.to_owned(), Err("`kty`"));
        check(r#"{"kty":"OKP","crv":"Ed25519","x":"é"}"#.to_owned(), Err("base64url"));
    }

    #[test]
    fn refuses_whole_sets() {
        let check = |text: &str, expected: &str| {
            let error = KeySet::parse(text.as_bytes(), &[Algorithm::EdDSA]).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "not a JWK set");
        check("{}", "not a JWK set");
        check(r#"{"keys":{}}"#, "not a JWK set");
        check(r#"{"keys":[],"keys":[]}"#, "not a JWK set");
        check(r#"{"keys":[]}"#, "the list is empty");
        check(&format!(r#"{{"keys":[{ED},"d":"AA","kid":"k1"}}]}}"#), r#"keys[0] (kid "k1") is secret"#);
        check(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, "keys[0] is secret");
        check(&format!(r#"{{"keys":[{EC}}}]}}"#), "none of the algorithms");
        check(&format!(r#"{{"keys":[{}]}}"#, vec!["{}"; KEYS_MAX + 1].join(",")), "257 keys");
        check(&" ".repeat(KEY_SET_BYTES_MAX + 1), "at most 1048576");
    }

    #[test]
    fn finds_by_exact_id_and_algorithm() {
        let keys = [
            format!(r#"{ED},"kid":"a"}}"#),
            format!(r#"{EC},"kid":"a"}}"#),
            format!(r#"{ED},"kid":"b"}}"#),
            format!(r#"{ED},"kid":"b","use":"sig"}}"#),
        ];
        let set = parse(&keys, &[Algorithm::EdDSA, Algorithm::ES256]).unwrap();
        let check = |id: Option<&str>, algorithm, expected: &str| {
            let found = set.find(id, algorithm).map_or_else(|e| e.reason(), |_| "found");
            assert_eq!(found, expected, "{id:?} {algorithm:?}");
        };
        check(Some("a"), Algorithm::EdDSA, "found");
        check(Some("a"), Algorithm::ES256, "found");
        check(Some("a"), Algorithm::RS256, "key_unknown");
        check(Some("A"), Algorithm::EdDSA, "key_unknown");
        check(Some(""), Algorithm::EdDSA, "key_unknown");
        check(Some("../a"), Algorithm::EdDSA, "key_unknown");
        check(Some("a' OR '1'='1"), Algorithm::EdDSA, "key_unknown");
        check(Some("b"), Algorithm::EdDSA, "key_ambiguous");
        check(None, Algorithm::EdDSA, "key_not_named");

        let one = parse(&keys[..1], &[Algorithm::EdDSA, Algorithm::ES256]).unwrap();
        assert!(one.find(None, Algorithm::EdDSA).is_ok());
        assert_eq!(one.find(None, Algorithm::ES256).unwrap_err().reason(), "key_unknown");
    }
}
