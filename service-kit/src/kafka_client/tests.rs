use std::path::Path;

use super::*;
use crate::config_source::Source;

fn read(yaml: &str, role: Role) -> Result<KafkaSettings, String> {
    read_in(Path::new("router.yaml"), yaml, role)
}

fn read_in(file: &Path, yaml: &str, role: Role) -> Result<KafkaSettings, String> {
    let mut reader = Source::from_parts("P", file, yaml, []).unwrap().reader();
    let settings = KafkaSettings::read(&mut reader, role);
    match reader.finish() {
        Ok(()) => Ok(settings.expect("no fault, so there are settings")),
        Err(faults) => Err(faults.to_string()),
    }
}

fn with_property(name: &str, value: &str, role: Role) -> Result<KafkaSettings, String> {
    read(&format!("kafka: {{bootstrap_servers: 'k:9092', properties: {{{name}: '{value}'}}}}"), role)
}

#[test]
fn what_would_break_a_promise_is_refused_by_name() {
    let refused = [
        ("message.timeout.ms", "3000"),
        ("delivery.timeout.ms", "3000"),
        ("acks", "1"),
        ("request.required.acks", "0"),
        ("enable.idempotence", "false"),
        ("allow.auto.create.topics", "true"),
        ("message.send.max.retries", "3"),
        ("retries", "3"),
        ("enable.gapless.guarantee", "true"),
        ("partitioner", "random"),
        ("dr_msg_cb", "x"),
        ("dr_cb", "x"),
        ("plugin.library.paths", "/tmp/x.so"),
        ("transactional.id", "t"),
        ("delivery.report.only.error", "true"),
        ("sasl.password", "hunter2"),
        ("ssl.key.password", "hunter2"),
        ("ssl.key.pem", "hunter2"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
        ("bootstrap.servers", "x:1"),
        ("max.in.flight", "6"),
        ("max.in.flight.requests.per.connection", "6"),
        ("linger.ms", "20000"),
        ("queue.buffering.max.ms", "20000"),
        ("queue.buffering.max.kbytes", "1"),
        ("batch.size", "2000000"),
        ("test.mock.num.brokers", "3"),
        ("no.such.property", "1"),
        ("linger.ms", "soon"),
    ];
    for (name, value) in refused {
        let faults = with_property(name, value, Role::Producer).unwrap_err();
        assert!(faults.starts_with(&format!("kafka.properties.{name}")), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    for name in ["queue.buffering.max.ms", "linger.ms", "max.in.flight", "max.in.flight.requests.per.connection"] {
        let faults = with_property(name, "soon", Role::Producer).unwrap_err();
        assert_eq!(faults.matches(name).count(), 2, "{faults}");
        assert!(faults.contains(&format!("\"{name}\"")), "{faults}");
    }
    for name in ["group.id", "enable.auto.commit", "auto.offset.reset"] {
        let faults = with_property(name, "x", Role::Consumer).unwrap_err();
        assert!(faults.starts_with(&format!("kafka.properties.{name} = x: is refused")), "{faults}");
    }
}

#[test]
fn everything_else_passes_through() {
    for (name, value) in [
        ("compression.type", "zstd"),
        ("linger.ms", "50"),
        ("client.rack", "a"),
        ("queue.buffering.max.messages", "0"),
        ("socket.keepalive.enable", "true"),
        ("ssl.ca.location", "/nowhere"), // not used without TLS
    ] {
        let settings = with_property(name, value, Role::Producer).unwrap();
        assert_eq!(settings.client_config("c").get(name), Some(value));
        assert_eq!(settings.property(name), Some(value));
    }
    let settings = with_property("compression.codec", "gzip", Role::Producer).unwrap();
    assert_eq!(settings.property("compression.type"), Some("gzip"), "an alias is resolved");
    assert_eq!(settings.client_config("c").get("client.id"), Some("c"));
    with_property("fetch.wait.max.ms", "50", Role::Consumer).unwrap();
    let both = "kafka: {bootstrap_servers: 'k:1', properties: {linger.ms: 5, queue.buffering.max.ms: 5}}";
    assert!(read(both, Role::Producer).unwrap_err().contains("another name of linger.ms"));
}

#[test]
fn all_faults_come_at_once() {
    let yaml =
        "kafka: {properties: {acks: 1, no.such: 2, sasl.password: x}, tls: {ca_file: /none}, sasl: {username: u}}";
    let faults = read(yaml, Role::Producer).unwrap_err();
    for key in [
        "kafka.bootstrap_servers",
        "kafka.properties.acks",
        "kafka.properties.no.such",
        "kafka.properties.sasl.password",
        "kafka.sasl.mechanism",
        "kafka.sasl.password_file",
        "kafka.tls.ca_file",
    ] {
        assert!(faults.lines().any(|line| line.starts_with(key)), "{key} in {faults}");
    }
}

#[test]
fn servers_are_hosts_and_ports() {
    let servers_of = |servers: &str| read(&format!("kafka: {{bootstrap_servers: '{servers}'}}"), Role::Producer);
    let well = |servers: &str, expected: &str| {
        assert_eq!(servers_of(servers).unwrap().bootstrap_servers(), expected, "{servers}");
    };
    well("127.0.0.1:9092", "127.0.0.1:9092");
    well("a:9092, b-1.kafka.svc:9093 ", "a:9092,b-1.kafka.svc:9093");
    well("[::1]:9092", "[::1]:9092");
    let faulty = |servers: &str, problem: &str| {
        let faults = servers_of(servers).unwrap_err();
        assert!(faults.contains(problem) && faults.starts_with("kafka.bootstrap_servers"), "{servers}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    };
    faulty("", "must not be empty");
    faulty("kafka", "`kafka` has no port; it must be host:port, several of them separated by commas");
    faulty("a:9092,", "an entry is empty");
    faulty("a:port", "`a:port` has no port from 1 to 65535");
    faulty("a:0", "no port from 1 to 65535");
    faulty("a:+1", "no port from 1 to 65535");
    faulty("a:65536", "no port from 1 to 65535");
    faulty("a:1, b", "`b` has no port");
    faulty("a b:9092", "`a b:9092` has no host");
    faulty("a:1;b:2", "has no host");
    faulty(":9092", "`:9092` has no host");
    faulty("[::1]", "`[::1]` has no port");
    faulty("[nowhere]:9092", "has no host");
    faulty("::1:9092", "an IPv6 address stands in brackets");
    faulty("SASL_SSL://kafka:9092", "begins with SASL_SSL://, which kafka.tls and kafka.sasl say");
}

#[test]
fn security_is_read_from_files_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    let file = folder.path().join("router.yaml");
    let yaml = "kafka: {bootstrap_servers: 'k:1', tls: {enabled: true}, \
                sasl: {mechanism: SCRAM-SHA-512, username: router, password_file: password}}";
    let settings = read_in(&file, yaml, Role::Producer).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let config = settings.client_config("c");
    assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
    assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
    assert_eq!(config.get("sasl.password"), Some("hunter2"));

    let conflict =
        "kafka: {bootstrap_servers: 'k:1', tls: {enabled: true}, properties: {security.protocol: plaintext}}";
    assert!(read_in(&file, conflict, Role::Producer).unwrap_err().contains("kafka.tls say it already"));
    let half = "kafka: {bootstrap_servers: 'k:1', tls: {certificate_file: password}}";
    assert!(read_in(&file, half, Role::Producer).unwrap_err().starts_with("kafka.tls.key_file: is required"));
    let bad = "kafka: {bootstrap_servers: 'k:1', tls: {ca_file: password}}";
    let faults = read_in(&file, bad, Role::Producer).unwrap_err();
    assert!(faults.starts_with("kafka: librdkafka refuses these settings: "), "{faults}");
    assert!(faults.contains("kafka.tls.ca_file") && !faults.contains("ssl.ca.location"), "{faults}");
}
