//! The commands on real folders, and what they make held against what `serve` believes.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::authenticate::{Authenticator, local::Signer};

const CONFIG: &str = "
kafka: {bootstrap_servers: 127.0.0.1:9092}
auth: {local: {private_key_file: local.key, public_key_files: [local.pub], ttl_max: 48h}}
cursors: {key_files: [cursor.key, old.key]}
tenants:
  payments: {namespaces: [payments]}
  shop: {namespaces: [shop]}
";

struct Folder(TempDir);

impl Folder {
    fn new(config: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("gateway.yaml", config);
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.at(name)).unwrap().permissions().mode() & 0o777
    }

    fn init(&self) -> Result<String, String> {
        said(|out| keys::init(&self.at("gateway.yaml"), out))
    }

    fn mint(&self, tenant: &str, ttl: &str, subject: Option<&str>) -> Result<String, String> {
        let mint = token::Mint {
            config: self.at("gateway.yaml"),
            tenant: tenant.to_owned(),
            ttl: ttl.to_owned(),
            subject: subject.map(str::to_owned),
        };
        said(|out| token::mint(&mint, out))
    }

    fn check(&self) -> Result<String, String> {
        said(|out| check_to(&self.at("gateway.yaml"), out))
    }
}

fn said(command: impl FnOnce(&mut Vec<u8>) -> Result<(), CliError>) -> Result<String, String> {
    let mut out = Vec::new();
    command(&mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn init_makes_what_is_missing_and_nothing_else() {
    let folder = Folder::new(CONFIG);
    let made = folder.init().unwrap();
    assert_eq!(made.lines().filter(|line| line.starts_with("made ")).count(), 4, "{made}");
    for (name, mode) in [("local.key", 0o600), ("local.pub", 0o644), ("cursor.key", 0o600), ("old.key", 0o600)] {
        assert_eq!(folder.mode(name), mode, "{name}");
    }
    assert_ne!(folder.read("cursor.key"), folder.read("old.key"));
    folder.check().unwrap();

    let before: Vec<String> = ["local.key", "local.pub", "cursor.key"].map(|name| folder.read(name)).to_vec();
    let again = folder.init().unwrap();
    assert!(again.lines().all(|line| line.starts_with("kept ")), "{again}");
    std::fs::remove_file(folder.at("local.pub")).unwrap();
    folder.init().unwrap();
    let after: Vec<String> = ["local.key", "local.pub", "cursor.key"].map(|name| folder.read(name)).to_vec();
    assert_eq!(before, after);
}

#[test]
fn init_makes_missing_folders_for_the_owner_alone() {
    let folder = Folder::new(&CONFIG.replace("local.key", "keys/private/local.key"));
    folder.init().unwrap();
    assert_eq!([folder.mode("keys"), folder.mode("keys/private")], [0o700, 0o700]);
    assert_eq!(folder.mode("keys/private/local.key"), 0o600);
}

#[test]
fn a_private_key_that_others_can_read_is_told() {
    let folder = Folder::new(CONFIG);
    folder.init().unwrap();
    let key = folder.at("local.key");
    assert_eq!(exposed(&key), None);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let told = exposed(&key).unwrap();
    assert!(told.contains("can be read by others (mode 0644): chmod 600 "), "{told}");
}

#[test]
fn a_file_that_appears_meanwhile_is_not_touched() {
    let folder = Folder::new(CONFIG);
    folder.write("local.key", "someone else's");
    assert!(keys::create(&folder.at("local.key"), 0o600, "ours").is_err());
    assert_eq!(folder.read("local.key"), "someone else's");
}

#[test]
fn init_refuses_what_would_not_belong_together() {
    let check = |config: &str, present: &[(&str, &str)], expected: &str| {
        let folder = Folder::new(config);
        for (name, text) in present {
            folder.write(name, text);
        }
        let error = folder.init().unwrap_err();
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        for (name, text) in present {
            assert_eq!(folder.read(name), *text);
        }
    };
    let public = Signer::generate().unwrap().public_pem().unwrap();
    check(CONFIG, &[("local.pub", &public)], "would not belong to it");
    check(CONFIG, &[("local.key", "not a key")], "not an Ed25519 private key");
    check(&CONFIG.replace("[local.pub]", "[local.pub, other.pub]"), &[], "cannot be made");
    check(&CONFIG.replace("local.key", "gateway.yaml/local.key"), &[], "Not a directory");
}

#[test]
fn minted_tokens_are_believed() {
    let folder = Folder::new(CONFIG);
    folder.init().unwrap();
    let config = Config::load(&folder.at("gateway.yaml")).unwrap();
    let authenticator = Authenticator::new(&config.auth.settings, Arc::new(|_, _| {})).unwrap();
    let check = |subject: Option<&str>, expected: &str| {
        let out = folder.mint("payments", "24h", subject).unwrap();
        let token = out.strip_suffix('\n').unwrap();
        assert!(!token.contains(char::is_whitespace), "the token stands alone");
        let caller = authenticator.authenticate(token).unwrap();
        assert_eq!((caller.identity.tenant.as_deref(), caller.identity.subject.as_str()), (Some("payments"), expected));
    };
    check(None, "payments");
    check(Some("ci of team A"), "ci of team A");
}

#[test]
fn mint_says_in_one_line_why_not() {
    let folder = Folder::new(CONFIG);
    let check = |tenant: &str, ttl: &str, subject: Option<&str>, expected: &str| {
        let error = folder.mint(tenant, ttl, subject).unwrap_err();
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    };
    check("payments", "24h", None, "keys init");
    folder.init().unwrap();
    folder.mint("payments", "48h", None).unwrap();
    check("nobody", "24h", None, "payments, shop");
    check("", "24h", None, "no tenant");
    check("payments", "0s", None, "at least 1s");
    check("payments", "48h1s", None, "auth.local.ttl_max");
    check("payments", "24", None, "--ttl 24:");
    check("payments", "-1h", None, "--ttl -1h:");
    check("payments", "soon", None, "--ttl soon:");
    check("payments", "24h", Some(""), "--subject");
    check("payments", "24h", Some("a\nb"), "--subject");
    folder.write("local.pub", &Signer::generate().unwrap().public_pem().unwrap());
    check("payments", "24h", None, "would not believe");
    folder.write("local.key", "x");
    check("payments", "24h", None, "not an Ed25519 private key");
    folder.write("gateway.yaml", &CONFIG.replace("private_key_file: local.key, ", ""));
    check("payments", "24h", None, "private_key_file is not set");
}

#[test]
fn check_judges_key_files_too() {
    let folder = Folder::new(CONFIG);
    let error = folder.check().unwrap_err();
    for key in ["auth.local.public_key_files[0]", "cursors.key_files[0]", "cursors.key_files[1]"] {
        let hint = format!("; fairlead-gateway keys init --config {} makes it (", folder.at("gateway.yaml").display());
        let well = |line: &str| line.starts_with(key) && line.contains(&format!("No such file or directory{hint}"));
        assert!(error.lines().any(well), "{key}: {error}");
    }
    folder.init().unwrap();
    let summary = folder.check().unwrap();
    assert!(summary.ends_with("the configuration is well\n"), "{summary}");
    for part in ["127.0.0.1:8080", "127.0.0.1:9092", "local tokens of 1 key(s)", "payments: payments", "shop: shop"] {
        assert!(summary.contains(part), "{part} in {summary}");
    }
    folder.write("cursor.key", "c2hvcnQ=");
    folder.write("local.pub", &folder.read("local.key"));
    let error = folder.check().unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(error.contains("cursors.key_files[0]") && error.contains("not an Ed25519 public key"), "{error}");
    assert!(!error.contains("c2hvcnQ="), "{error}");
}

#[test]
fn check_judges_key_sets_whatever_else_is_wrong() {
    let check = |issuer: &str, key_set: Option<&str>, expected: &[&str]| {
        let issuers = format!("auth: {{issuers: [{{issuer: i, audiences: [a], {issuer}, jwks_file: jwks.json}}], ");
        let folder = Folder::new(&CONFIG.replace("auth: {", &issuers));
        if let Some(text) = key_set {
            folder.write("jwks.json", text);
        }
        let error = folder.check().unwrap_err();
        for key in expected {
            assert!(error.contains(key), "{key}: {error}");
        }
    };
    check("algorithms: [RS256]", None, &["auth.issuers[0].jwks_file = jwks.json: cannot be read"]);
    check("algorithms: [HS256]", None, &["auth.issuers[0].algorithms[0]", "auth.issuers[0].jwks_file"]);
    check("algorithms: [RS256]", Some("[]"), &["auth.issuers[0].jwks_file = jwks.json: not a JWK set"]);
    check("algorithms: [RS256]", Some(r#"{"keys":[]}"#), &["the list is empty"]);
    check("algorithms: [RS256]", Some(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#), &["keys[0] is secret"]);
}
