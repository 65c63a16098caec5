//! Two issuers with their keys, a local signer, and tokens made by hand.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{hmac, rsa::KeySize};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{Authenticator, IssuerSettings, Settings, local};
use super::{ISSUER, OTHER};

pub(super) struct World {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    pub(super) folder: TempDir,
    pub(super) local: local::Signer,
}

impl World {
    pub(super) fn new() -> World {
        let local = local::Signer::generate().unwrap();
        let world = World {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            local,
        };
        world.write(
            "jwks.json",
            &json!({"keys": [world.rsa_jwk("one"), world.ec_jwk("two"), world.rsa_jwk_with("ps", "PS256")]}),
        );
        world.write("other.json", &json!({"keys": [world.ed_jwk("one")]}));
        std::fs::write(world.folder.path().join("local.pub"), world.local.public_pem().unwrap()).unwrap();
        world
    }

    pub(super) fn write(&self, name: &str, content: &Value) {
        std::fs::write(self.folder.path().join(name), content.to_string()).unwrap();
    }

    pub(super) fn settings(&self) -> Settings {
        let issuer = |issuer: &str, file: &str, algorithms: &[Algorithm]| IssuerSettings {
            issuer: issuer.to_owned(),
            audiences: vec!["fairlead".to_owned(), "logs".to_owned()],
            algorithms: algorithms.to_vec(),
            jwks_file: self.folder.path().join(file),
            subject_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
        };
        Settings {
            issuers: vec![
                issuer(ISSUER, "jwks.json", &[Algorithm::RS256, Algorithm::PS256, Algorithm::ES256]),
                issuer(OTHER, "other.json", &[Algorithm::EdDSA]),
            ],
            local_public_key_files: vec![self.folder.path().join("local.pub")],
        }
    }

    pub(super) fn authenticator(&self) -> Authenticator {
        Authenticator::new(&self.settings(), Arc::new(|_, _| {})).unwrap()
    }

    pub(super) fn rsa_jwk(&self, id: &str) -> Value {
        let key = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        json!({"kty": "RSA", "kid": id, "alg": "RS256", "use": "sig", "n": encode(key.n), "e": encode(key.e)})
    }

    pub(super) fn rsa_jwk_with(&self, id: &str, algorithm: &str) -> Value {
        let mut jwk = self.rsa_jwk(id);
        jwk["alg"] = algorithm.into();
        jwk
    }

    pub(super) fn ec_jwk(&self, id: &str) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(&point[1..33]), "y": encode(&point[33..])})
    }

    pub(super) fn ed_jwk(&self, id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(self.ed.public_key().as_ref())})
    }

    pub(super) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        match algorithm {
            "ES256" => self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "HS256" => {
                let secret = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key()).n;
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message).as_ref().to_vec()
            }
            _ => rsa(&RSA_PKCS1_SHA256),
        }
    }

    /// A token whose signature is right for `signed_as`, whatever its header says.
    pub(super) fn token(&self, header: &Value, claims: &Value, signed_as: &str) -> String {
        self.token_of_text(&header.to_string(), &claims.to_string(), signed_as)
    }

    pub(super) fn token_of_text(&self, header: &str, claims: &str, signed_as: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = encode(self.sign(signed_as, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
