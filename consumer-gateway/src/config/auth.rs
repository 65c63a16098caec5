//! The block `auth`: which authorities are believed.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use fairlead_service_kit::config_source::Reader;
use jsonwebtoken::Algorithm;

use super::KeyFiles;
use crate::authenticate::{self, IssuerSettings, PUBLIC_KEY_ALGORITHMS, local};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Who is believed, and how local tokens are made.
#[derive(Debug, Clone)]
pub struct Auth {
    /// What `serve` holds tokens against.
    pub settings: authenticate::Settings,
    /// What `keys init` and `token mint` work with.
    pub local: LocalTokens,
}

/// How local tokens are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTokens {
    /// Signs; opened by `keys init` and `token mint` only.
    pub private_key_file: Option<PathBuf>,
    /// The longest life of a token that `token mint` makes.
    pub ttl_max: Duration,
}

/// Also gives the names of all issuers, those with other faults too, for membership to be held against.
pub(super) fn read(reader: &mut Reader, key_files: KeyFiles) -> (Auth, Vec<String>) {
    let count = reader.len("auth.issuers");
    let mut names: Vec<String> = Vec::new();
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    for index in 0..count {
        let key = format!("auth.issuers[{index}]");
        let name_key = format!("{key}.issuer");
        let name = reader.required_text(&name_key);
        if name.as_deref() == Some(local::ISSUER) {
            reader.fault(&name_key, "is the name of local tokens");
        } else if name.as_ref().is_some_and(|name| names.contains(name)) {
            reader.fault(&name_key, "is there twice");
        }
        issuers.extend(issuer(reader, &key, name.clone(), key_files));
        names.extend(name);
    }

    let private_key_file = reader.path("auth.local.private_key_file");
    let ttl_max = reader.duration("auth.local.ttl_max", Duration::from_secs(60)..=DAY * 3660).unwrap_or(DAY * 30);
    let keys = "auth.local.public_key_files";
    let count_local = reader.len(keys);
    let local_public_key_files = reader.paths(keys);
    if private_key_file.is_some() && count_local == 0 {
        reader.fault(keys, "must name a file: without it `serve` believes none of the tokens that are minted");
    }
    if count == 0 && count_local == 0 && private_key_file.is_none() {
        reader.fault("auth", "names no authority, so nobody could ever read: set auth.issuers or auth.local");
    }
    if key_files == KeyFiles::Judged {
        for index in 0..count_local {
            let key = format!("{keys}[{index}]");
            let Some(path) = reader.path(&key) else { continue };
            if let Err(error) = authenticate::check_local_key(&path) {
                let can_be_made = private_key_file.is_some() && !path.exists();
                let hint = if can_be_made { super::how_to_make_it(reader) } else { String::new() };
                reader.fault(&key, format!("{}{hint}", error.problem()));
            }
        }
    }
    let auth = Auth {
        settings: authenticate::Settings { issuers, local_public_key_files },
        local: LocalTokens { private_key_file, ttl_max },
    };
    (auth, names)
}

fn issuer(reader: &mut Reader, key: &str, name: Option<String>, key_files: KeyFiles) -> Option<IssuerSettings> {
    let audiences_key = format!("{key}.audiences");
    let audiences = reader.texts(&audiences_key).unwrap_or_default();
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        reader
            .fault(&audiences_key, "must name at least one audience: a token for any other service would do otherwise");
    }
    let algorithms = algorithms(reader, &format!("{key}.algorithms"));
    let subject_claim = claim(reader, &format!("{key}.claims.subject"), "sub");
    let groups_claim = claim(reader, &format!("{key}.claims.groups"), "groups");
    for later in ["jwks_url", "discovery"] {
        let later = format!("{key}.{later}");
        if reader.deserialize::<serde_json::Value>(&later).is_some() {
            reader.fault(&later, "is not available yet: use jwks_file");
        }
    }
    let file_key = format!("{key}.jwks_file");
    reader.required_text(&file_key)?;
    let jwks_file = reader.path(&file_key)?;
    // Where the algorithms are faulty too, the file is still judged, against all that could stand there.
    let judged_against = algorithms.as_deref().unwrap_or(&PUBLIC_KEY_ALGORITHMS);
    if key_files == KeyFiles::Judged
        && let Err(error) = authenticate::check_key_set(&jwks_file, judged_against)
    {
        reader.fault(&file_key, error.problem());
    }
    Some(IssuerSettings { issuer: name?, audiences, algorithms: algorithms?, jwks_file, subject_claim, groups_claim })
}

/// Absent: RS256, which OpenID Connect makes the default.
fn algorithms(reader: &mut Reader, key: &str) -> Option<Vec<Algorithm>> {
    let Some(names) = reader.texts(key) else { return Some(vec![Algorithm::RS256]) };
    if names.is_empty() {
        reader.fault(key, "is empty");
        return None;
    }
    let mut algorithms = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match Algorithm::from_str(name) {
            Ok(algorithm) if PUBLIC_KEY_ALGORITHMS.contains(&algorithm) => algorithms.push(algorithm),
            Ok(_) => reader.fault(
                &format!("{key}[{index}]"),
                "needs a shared secret; only algorithms with public keys are believed",
            ),
            Err(_) => {
                let known: Vec<String> = PUBLIC_KEY_ALGORITHMS.iter().map(|known| format!("{known:?}")).collect();
                reader.fault(&format!("{key}[{index}]"), format!("must be one of {}", known.join(", ")));
            }
        }
    }
    (algorithms.len() == names.len()).then_some(algorithms)
}

fn claim(reader: &mut Reader, key: &str, default: &str) -> String {
    match reader.text(key) {
        Some(name) if name.is_empty() => {
            reader.fault(key, "must not be empty");
            default.to_owned()
        }
        Some(name) => name,
        None => default.to_owned(),
    }
}
