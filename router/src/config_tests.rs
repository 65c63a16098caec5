use std::collections::BTreeSet;

use tempfile::TempDir;

use super::*;

fn read(folder: &TempDir, yaml: &str) -> Result<Config, Vec<String>> {
    let source = Source::from_parts(PREFIX, &folder.path().join("router.yaml"), yaml, []);
    source.and_then(Config::read).map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
}

const LEAST: &str = "node_name: node-1\nstate_dir: state\nkafka: {bootstrap_servers: 'k:9092'}\n";

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let folder = TempDir::new().unwrap();
    let config = read(&folder, LEAST).unwrap();
    assert_eq!(config.node_name, "node-1");
    assert_eq!(config.state_dir, folder.path().join("state"));
    assert!(!config.state_dir.exists(), "reading makes nothing");
    config.make_state_dir().unwrap();
    config.make_state_dir().unwrap();
    assert_eq!(std::fs::read_dir(&config.state_dir).unwrap().count(), 0);
    assert_eq!(config.logs.pods_dir, Path::new("/var/log/pods"));
    assert_eq!(config.logs.existing, Existing::Read);
    assert_eq!(config.logs.record_bytes_max, 131_072);
    assert_eq!(config.logs.partial_flush, Duration::from_secs(30));
    assert_eq!(config.logs.rescan_interval, Duration::from_secs(30));
    assert_eq!(config.in_flight_bytes_max, 32 << 20);
    assert_eq!(config.admin_listen, "127.0.0.1:9598".parse().unwrap());
    assert_eq!(config.store_interval, Duration::from_millis(500));
    assert_eq!(config.shutdown_deadline, Duration::from_secs(20));
    assert!(config.create.enabled);
    assert!(config.summary().contains("k:9092"));
}

#[test]
fn the_documented_example_is_taken_whole() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("pods")).unwrap();
    let config = read(
        &folder,
        "
node_name: node-1
state_dir: fairlead
logs: {pods_dir: pods, existing: skip, record_bytes_max: 16KiB, partial_flush: 1s, rescan_interval: 5s}
kafka:
  bootstrap_servers: 127.0.0.1:9092
  in_flight_bytes_max: 8MiB
  properties: {compression.type: lz4}
topics:
  template: 'logs.{namespace}'
  rules:
    - {namespaces: [kube-system, 'kube-*'], topic: 'infra.{namespace}'}
    - {regex: '^scratch-', exclude: true}
  create: {enabled: true, partitions: 1, replication_factor: 1, config: {retention.ms: '604800000'}}
kubernetes: {enabled: false}
admin: {listen: '127.0.0.1:9598'}
log: {format: json, filter: info}
store_interval: 100ms
shutdown_deadline: 5s
",
    )
    .unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!((config.logs.existing, config.logs.record_bytes_max), (Existing::Skip, 16_384));
    assert_eq!(config.create.config.get("retention.ms").map(String::as_str), Some("604800000"));
}

#[test]
fn every_fault_is_told_at_once() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let faults = read(
        &folder,
        "
state_dir: file
logs: {existing: maybe, record_bytes_max: 1MB, partial_flush: 30}
kafka: {bootstrap_servers: 'k:9092', properties: {acks: 1}}
topics: {template: logs}
kubernetes: {enabled: true}
admin: {listen: everywhere}
store_interval: 2s
nonsense: 1
",
    )
    .unwrap_err();
    for start in [
        "node_name: is required",
        "state_dir = file: ",
        "logs.existing = maybe: must be one of read, skip",
        "logs.partial_flush = 30: needs its unit",
        "kafka.properties.acks: is refused",
        "topics.template = logs: ",
        "kubernetes.enabled = true: ",
        "admin.listen = everywhere: ",
        "store_interval = 2s: at most 1s",
        "nonsense: unknown key",
    ] {
        let start = start.replace("acks: is", "acks = 1: is");
        assert!(faults.iter().any(|fault| fault.starts_with(&start)), "{start} in {faults:#?}");
    }
    assert_eq!(faults.len(), 10, "{faults:#?}");
}

#[test]
fn a_state_folder_that_cannot_be_used_is_a_fault() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let file = folder.path().join("router.yaml").display().to_string();
    let check = |state_dir: &str, expected: &str| {
        let yaml = LEAST.replace("state_dir: state", &format!("state_dir: {state_dir}"));
        let faults = read(&folder, &yaml).unwrap_err();
        assert_eq!(faults, [format!("state_dir = {state_dir}: {expected} ({file})")]);
    };
    check("no/parent", &format!("its parent {}/no is not there", folder.path().display()));
    check("/a/b/c", "its parent /a/b is not there");
    check("file", "is not a folder");
    check("file/below", "cannot be used: Not a directory");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is made");

    let config = read(&folder, LEAST).unwrap();
    std::fs::write(folder.path().join("state"), "").unwrap();
    let problem = config.make_state_dir().unwrap_err();
    assert!(problem.ends_with("state: cannot be written: Not a directory"), "{problem}");
}

#[test]
fn state_and_logs_should_be_on_one_file_system() {
    let folder = TempDir::new().unwrap();
    for state in ["state", "."] {
        let yaml = LEAST.replace("state_dir: state", &format!("state_dir: {state}\nlogs: {{pods_dir: /proc}}"));
        let warnings = read(&folder, &yaml).unwrap().warnings;
        let expected = format!("state_dir = {state}: is not on the file system of logs.pods_dir /proc, ");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{warnings:?}");
        assert!(warnings[0].contains("such as /var/log/fairlead"), "{warnings:?}");
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let faults = read(&folder, &format!("{LEAST}logs: {{pods_dir: file}}\n")).unwrap_err();
    assert!(faults.len() == 1 && faults[0].starts_with("logs.pods_dir = file: is not a folder ("), "{faults:?}");
}

#[test]
fn a_line_must_fit_a_message() {
    let folder = TempDir::new().unwrap();
    let with = |record: &str, property: &str| {
        let kafka = format!("kafka: {{bootstrap_servers: 'k:1', properties: {{{property}}}}}\n");
        let yaml = format!("node_name: n\nstate_dir: state\n{kafka}logs: {{record_bytes_max: {record}}}\n");
        read(&folder, &yaml).map(drop)
    };
    assert_eq!(with("128KiB", ""), Ok(()));
    assert!(with("256KiB", "").unwrap_err()[0].starts_with("logs.record_bytes_max = 256KiB: a line of"));
    assert_eq!(with("256KiB", "message.max.bytes: 2000000"), Ok(()));
    let small = with("128KiB", "message.max.bytes: 100000").unwrap_err();
    assert!(small[0].starts_with("kafka.properties.message.max.bytes = 100000: "), "{small:?}");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let folder = TempDir::new().unwrap();
    let yaml = format!("{LEAST}logs: {{pods_dir: none, docker_containers_dir: /nowhere/containers}}\n");
    let warnings = read(&folder, &yaml).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("logs.pods_dir = none: there is no such folder yet ("), "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.ends_with("router.yaml)")), "{warnings:?}");
    assert!(
        warnings[1].starts_with("logs.docker_containers_dir = /nowhere/containers: cannot be used yet: "),
        "{warnings:?}"
    );
    let summary =
        read(&folder, &format!("{LEAST}topics: {{rules: [{{regex: '^x-', exclude: true}}]}}\n")).unwrap().summary();
    assert!(
        summary.contains("/^x-/ -> left out\n") && summary.contains("all others -> logs.{namespace}\n"),
        "{summary}"
    );
}

/// Every key of the page's router table is taken, and what is not on it is unknown.
#[test]
fn the_documentation_lists_every_key() {
    let page = include_str!("../../docs/configuration.md");
    let router =
        page.split("\n## ").find(|part| part.starts_with("Router")).expect("the page has a part on the router");
    let shared = page.split("\n## ").find(|part| part.starts_with("Both")).expect("the page has a part on both");
    let documented: BTreeSet<String> = [router, shared]
        .iter()
        .flat_map(|part| part.lines())
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.replace("[]", "[0]").replace(".*", ".a"))
        .collect();

    let folder = TempDir::new().unwrap();
    let mut source = Source::from_parts(PREFIX, &folder.path().join("router.yaml"), LEAST, []).unwrap();
    source.include(topics::FILE_KEY, topics::KEY);
    let mut reader = source.reader();
    let yaml = "topics: {rules: [{namespaces: [x], topic: x}]}";
    let mut with_rule = Source::from_parts(PREFIX, Path::new("router.yaml"), yaml, []).unwrap().reader();
    Config::take(&mut reader);
    Config::take(&mut with_rule);
    let mut asked: BTreeSet<String> = reader.known().into_iter().chain(with_rule.known()).collect();
    // Lists and mappings are documented by their members' table or as a whole; elements of lists of texts are not keys.
    asked.retain(|key| !key.ends_with(']') && key != "topics.rules");
    let documented: BTreeSet<String> =
        documented.into_iter().filter(|key| key != "kafka.properties.a" && key != "topics.create.config.a").collect();
    assert_eq!(asked, documented);
}
