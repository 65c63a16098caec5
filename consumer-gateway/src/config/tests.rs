//! Tables of configurations: what is accepted, and which key each fault names.

use std::path::Path;

use fairlead_contract::namespace::Namespace;
use fairlead_contract::tenant::{Authority, Decision, Identity, Right};
use jsonwebtoken::Algorithm;

use super::*;

const FULL: &str = r#"
listen: 127.0.0.1:8081
public_url: https://logs.example/fairlead
kafka: {bootstrap_servers: 127.0.0.1:9092}
topics:
  template: "logs.{namespace}"
  rules: [{namespaces: [kube-system, "kube-*"], topic: "infra.{namespace}"}]
auth:
  issuers:
    - issuer: https://issuer.example
      audiences: [fairlead]
      algorithms: [RS256, ES256]
      jwks_file: jwks.json
      claims: {subject: email, groups: roles}
    - {issuer: https://other.example, audiences: [fairlead], jwks_file: /keys/other.json}
  local: {private_key_file: local.key, public_key_files: [local.pub], ttl_max: 12h}
cursors: {key_files: [cursor.key]}
tenants:
  payments:
    namespaces: [payments, "payments-*"]
    members:
      - {from: https://issuer.example, groups: [team-payments], subjects: [alice]}
    rights: [read]
    limits: {streams: 20, bytes_per_second: 50MiB}
admin: {listen: "127.0.0.1:9600"}
read: {limit: 500, window: 2h, queue_bytes_max: 1MiB}
log: {format: json}
"#;

const SMALL: &str = "
kafka: {bootstrap_servers: 127.0.0.1:9092}
auth: {issuers: [{issuer: https://issuer.example, audiences: [fairlead], jwks_file: jwks.json}]}
tenants: {payments: {namespaces: [payments], members: [{groups: [g]}]}}
";

fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, Faults> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_source(
        Source::from_parts(ENVIRONMENT_PREFIX, Path::new("/etc/fairlead/gateway.yaml"), yaml, variables)?,
        KeyFiles::Untouched,
    )
}

fn keys(yaml: &str) -> Vec<String> {
    load(yaml, &[]).map_or_else(|faults| faults.0.into_iter().map(|fault| fault.key).collect(), |_| vec![])
}

#[test]
fn reads_every_key() {
    let config = load(FULL, &[]).unwrap();
    assert_eq!(config.listen.port(), 8081);
    assert_eq!(config.admin_listen.port(), 9600);
    assert_eq!(config.public_url.as_str(), "https://logs.example/fairlead");
    let [first, second] = config.auth.settings.issuers.as_slice() else { panic!("two issuers") };
    assert_eq!(first.algorithms, [Algorithm::RS256, Algorithm::ES256]);
    assert_eq!((first.subject_claim.as_str(), first.groups_claim.as_str()), ("email", "roles"));
    assert_eq!(first.jwks_file, Path::new("/etc/fairlead/jwks.json"));
    assert_eq!(second.algorithms, [Algorithm::RS256]);
    assert_eq!((second.subject_claim.as_str(), second.groups_claim.as_str()), ("sub", "groups"));
    assert_eq!(second.jwks_file, Path::new("/keys/other.json"));
    assert_eq!(config.auth.local.private_key_file.as_deref(), Some(Path::new("/etc/fairlead/local.key")));
    assert_eq!(config.auth.local.ttl_max.as_secs(), 12 * 3600);
    assert_eq!(config.cursor_key_files, [Path::new("/etc/fairlead/cursor.key")]);
    assert_eq!(config.tenant_limits["payments"], AccountLimits { streams: Some(20), bytes_per_second: Some(50 << 20) });
    assert_eq!((config.read.limit, config.read.window.as_secs(), config.read.queue_bytes_max), (500, 7200, 1 << 20));
    let alice = Identity {
        authority: Authority::Issuer("https://issuer.example".to_owned()),
        subject: "alice".to_owned(),
        groups: vec![],
        tenant: None,
    };
    let decide = |right, name: &str| config.tenants.decide(&alice, right, &Namespace::parse(name).unwrap());
    assert_eq!(decide(Right::Read, "payments-eu"), Decision::Allowed { tenant: "payments", pattern: "payments-*" });
    assert_eq!(decide(Right::Write, "payments"), Decision::Hidden);
}

#[test]
fn little_is_enough() {
    let config = load(SMALL, &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9599");
    assert_eq!(config.public_url.as_str(), "http://127.0.0.1:8080/");
    assert_eq!(
        config.auth.local,
        LocalTokens { private_key_file: None, ttl_max: std::time::Duration::from_secs(30 * 86400) }
    );
    assert!(config.cursor_key_files.is_empty());
    assert!(
        config.warnings.len() == 1 && config.warnings[0].starts_with("cursors.key_files: "),
        "{:?}",
        config.warnings
    );
    assert_eq!(load(FULL, &[]).unwrap().warnings, Vec::<String>::new());
    assert_eq!(config.tenant_limits["payments"], AccountLimits::default());
}

#[test]
fn a_small_maximum_lowers_the_default() {
    let config = load(&format!("{SMALL}\nread: {{limit_max: 5}}"), &[]).unwrap();
    assert_eq!((config.read.limit, config.read.limit_max), (5, 5));
}

#[test]
fn the_environment_wins() {
    let config =
        load(SMALL, &[("FAIRLEAD_GATEWAY__LISTEN", "127.0.0.1:1"), ("FAIRLEAD_GATEWAY__READ__LIMIT", "7")]).unwrap();
    assert_eq!((config.listen.port(), config.read.limit), (1, 7));
    let faults = load(SMALL, &[("FAIRLEAD_GATEWAY__LISTEN", "here")]).unwrap_err();
    assert!(faults.to_string().contains("env FAIRLEAD_GATEWAY__LISTEN"), "{faults}");
}

#[test]
fn each_fault_names_its_key() {
    let check = |from: &str, to: &str, expected: &[&str]| {
        assert!(FULL.contains(from), "{from}");
        assert_eq!(keys(&FULL.replacen(from, to, 1)), expected, "{from} -> {to}");
    };
    check("listen: 127.0.0.1:8081", "listen: somewhere", &["listen"]);
    check("listen: 127.0.0.1:8081", "tls: {cert_file: a.pem}", &["tls"]);
    check("listen: 127.0.0.1:8081", "listen: 127.0.0.1:9600", &["admin.listen"]);
    check("https://logs.example/fairlead", "ftp://logs.example", &["public_url"]);
    check("https://logs.example/fairlead", "https://a:b@logs.example", &["public_url"]);
    check("https://logs.example/fairlead", "https://logs.example/?x", &["public_url"]);
    check("https://logs.example/fairlead", "logs.example", &["public_url"]);
    check("listen: 127.0.0.1:8081", "listen: 8081", &["listen"]);
    check("{bootstrap_servers: 127.0.0.1:9092}", "{}", &["kafka.bootstrap_servers"]);
    check("logs.{namespace}", "logs", &["topics.template"]);
    check(
        "issuer: https://issuer.example\n",
        "issuer: urn:fairlead:local\n",
        &["auth.issuers[0].issuer", "tenants.payments.members[0].from"],
    );
    check("{issuer: https://other.example", "{issuer: https://issuer.example", &["auth.issuers[1].issuer"]);
    check("{issuer: https://other.example, ", "{", &["auth.issuers[1].issuer"]);
    check("roles}", "roles}\n      client_id: x", &["auth.issuers[0].client_id"]);
    check("audiences: [fairlead]\n", "audiences: []\n", &["auth.issuers[0].audiences"]);
    check("audiences: [fairlead], ", "", &["auth.issuers[1].audiences"]);
    check("[RS256, ES256]", "[RS256, HS256]", &["auth.issuers[0].algorithms[1]"]);
    check("[RS256, ES256]", "[none]", &["auth.issuers[0].algorithms[0]"]);
    check("[RS256, ES256]", "[]", &["auth.issuers[0].algorithms"]);
    check(
        "jwks_file: jwks.json",
        "jwks_url: https://issuer.example/keys",
        &["auth.issuers[0].jwks_file", "auth.issuers[0].jwks_url"],
    );
    check("jwks_file: jwks.json", "discovery: true", &["auth.issuers[0].discovery", "auth.issuers[0].jwks_file"]);
    check("subject: email", "subject: ''", &["auth.issuers[0].claims.subject"]);
    check("subject: email", "name: email", &["auth.issuers[0].claims.name"]);
    check("public_key_files: [local.pub], ", "", &["auth.local.public_key_files"]);
    check("ttl_max: 12h", "ttl_max: 12", &["auth.local.ttl_max"]);
    check("ttl_max: 12h", "ttl_max: 0s", &["auth.local.ttl_max"]);
    check("ttl_max: 12h", "public: x", &["auth.local.public"]);
    check("from: https://issuer.example", "from: https://issuer.example/", &["tenants.payments.members[0].from"]);
    check("from: https://issuer.example, ", "", &["tenants.payments.members[0].from"]);
    check("rights: [read]", "rights: [reed]", &["tenants.payments.rights[0]"]);
    check("rights: [read]", "rights: []", &["tenants.payments.rights"]);
    check("streams: 20", "streams: 0", &["tenants.payments.limits.streams"]);
    check("50MiB", "50", &["tenants.payments.limits.bytes_per_second"]);
    check("  payments:\n", "  'pay ments':\n", &["tenants.pay ments"]);
    check("limit: 500", "limit: 2000000", &["read.limit"]);
    check("window: 2h", "windows: 2h", &["read.windows"]);
    check("format: json", "format: xml", &["log.format"]);
}

#[test]
fn faults_come_all_at_once() {
    let yaml = FULL
        .replace("listen: 127.0.0.1:8081", "listen: x")
        .replace("[RS256, ES256]", "[HS512]")
        .replace("ttl_max: 12h", "ttl_max: 1")
        .replace("rights: [read]", "rights: [admin]")
        .replace("read: {", "reed: {}\nread: {");
    assert_eq!(
        keys(&yaml),
        ["auth.issuers[0].algorithms[0]", "auth.local.ttl_max", "listen", "reed", "tenants.payments.rights[0]"]
    );
}

#[test]
fn nobody_could_read() {
    assert_eq!(keys("kafka: {bootstrap_servers: a:1}"), ["auth", "tenants"]);
    assert_eq!(keys(&SMALL.replace("[{groups: [g]}]", "[{}]")), ["tenants.payments.members[0]"]);
}
