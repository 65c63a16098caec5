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

/// A kubeconfig in the folder, and what is wrong with it as the block's one fault, without key and file.
fn kubeconfig_fault(folder: &TempDir, kubeconfig: &str) -> Option<String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
    let yaml = format!("{LEAST}kubernetes: {{enabled: true, kubeconfig_file: kubeconfig}}\n");
    let faults = read(folder, &yaml).map(drop).err()?;
    let [fault] = faults.as_slice() else { panic!("{faults:#?}") };
    let problem = fault.strip_prefix("kubernetes.kubeconfig_file = kubeconfig: ").expect("the key and what it names");
    Some(problem.rsplit_once(" (").unwrap().0.replace(&folder.path().display().to_string(), "FOLDER"))
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_a_fault_that_shows_no_secret() {
    let folder = TempDir::new().unwrap();
    let with = |cluster: &str, user: &str| {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{{cluster}}}}}], users: [{{name: u, user: {{{user}}}}}]}}"
        )
    };
    let server = "server: 'https://10.0.0.1:6443'";
    std::fs::write(folder.path().join("well"), "a-token").unwrap();
    std::fs::write(folder.path().join("newline"), "a-token\n").unwrap();
    std::fs::write(folder.path().join("ca"), "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n")
        .unwrap();
    let check = |kubeconfig: String, expected: Option<&str>| {
        let fault = kubeconfig_fault(&folder, &kubeconfig);
        match (&fault, expected) {
            (None, None) => {}
            (Some(fault), Some(part)) => assert!(fault.contains(part), "{kubeconfig}: {fault}"),
            _ => panic!("{kubeconfig}: {fault:?}, not {expected:?}"),
        }
        assert!(!fault.is_some_and(|fault| fault.contains("s3cr3t")), "{kubeconfig}");
    };
    check(with(server, "token: s3cr3t"), None);
    check(with(server, "tokenFile: well"), None);
    check(with(server, ""), None);
    check(with(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-program}"), None);
    check(with(server, "tokenFile: nowhere"), Some("FOLDER/nowhere: No such file or directory"));
    check(
        with(server, "tokenFile: newline"),
        Some("FOLDER/newline holds more than a token, or none: a newline at its end"),
    );
    check(with("", "token: s3cr3t"), Some("cluster url is missing"));
    check(with("server: 'not an address'", ""), Some("failed to parse cluster url"));
    check(with("server: /relative", ""), Some("names /relative as the server, which is no address"));
    check(with(&format!("{server}, proxy-url: 'http://p:1'"), ""), Some("says proxy-url"));
    check(with(&format!("{server}, certificate-authority: nowhere"), ""), Some("FOLDER/nowhere"));
    check(with(&format!("{server}, certificate-authority: ca"), ""), Some("root certificate"));
    check(with(server, "client-certificate: nowhere, client-key: nowhere"), Some("FOLDER/nowhere"));
    check("{apiVersion: v1, kind: Config}".to_owned(), Some("current context"));
    check("{current-context: c}".to_owned(), Some("context: c"));
    check("token: s3cr3t: broken: [".to_owned(), Some("is no kubeconfig: its YAML cannot be used"));
    check("users: {s3cr3t: s3cr3t}".to_owned(), Some("is no kubeconfig"));
    check(String::new(), Some(""));
    check("x".repeat(2 << 20), Some("has more than 1MiB"));
}

#[test]
fn the_kubernetes_block_is_judged() {
    let folder = TempDir::new().unwrap();
    let check = |block: &str, expected: &[&str]| {
        let faults = read(&folder, &format!("{LEAST}kubernetes: {{{block}}}\n")).map(drop).err().unwrap_or_default();
        let fits = |(fault, start): (&String, &&str)| fault.starts_with(start);
        assert!(faults.len() == expected.len() && faults.iter().zip(expected).all(fits), "{block}: {faults:#?}");
    };
    check("", &[]);
    check("enabled: false, kubeconfig_file: nowhere", &[]);
    check(
        "enabled: true, kubeconfig_file: nowhere",
        &["kubernetes.kubeconfig_file = nowhere: cannot be read: No such file"],
    );
    check("enabled: true, kubeconfig_file: .", &["kubernetes.kubeconfig_file = .: is no file"]);
    check("enabled: true, kubeconfig_file: ''", &["kubernetes.kubeconfig_file: must not be empty"]);
    check("enabled: 1", &["kubernetes.enabled = 1: must be true or false"]);
    check("metadata_wait: 2m", &["kubernetes.metadata_wait = 2m: at most 1m"]);
    check("metadata_wait: 0s", &[]);
    check(
        "annotations: ['a b']",
        &["kubernetes.annotations[0] = a b: is neither a label's or annotation's name nor a glob"],
    );
    check("namespace_labels: [ok, 'a[']", &["kubernetes.namespace_labels[1] = a[: "]);
    check("node_labels: zone", &["kubernetes.node_labels = zone: must be a list"]);
    check("labels: [app]", &["kubernetes.labels: unknown key"]);
    // Whoever runs these tests may be in a pod.
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        let problem = "kubernetes.enabled = true: needs kubernetes.kubeconfig_file, or a pod with a service account: \
                       KUBERNETES_SERVICE_HOST is not in the environment";
        check("enabled: true", &[problem]);
    }
}

#[test]
fn a_node_that_no_cluster_can_have_is_a_fault_where_the_cluster_is_asked() {
    let folder = TempDir::new().unwrap();
    let kubeconfig = "{current-context: c, contexts: [{name: c, context: {cluster: c}}], \
                      clusters: [{name: c, cluster: {server: 'http://k:1'}}]}";
    assert_eq!(kubeconfig_fault(&folder, kubeconfig), None);
    let block = "kubernetes: {enabled: true, kubeconfig_file: kubeconfig, metadata_wait: 2s, annotations: [a/*], node_labels: [zone]}\n";
    let config = read(&folder, &format!("{LEAST}{block}")).unwrap();
    let path = folder.path().join("kubeconfig").display().to_string();
    let expected = format!(
        "kubernetes  pods of node-1, from http://k:1/ by {path}; a new container waits for at most 2s; annotations a/*; node labels zone\n"
    );
    assert!(config.summary().contains(&expected), "{}", config.summary());
    let elsewhere = LEAST.replace("node-1", "Node_1");
    assert!(read(&folder, &elsewhere).unwrap().summary().contains("kubernetes  not asked: "));
    let faults = read(&folder, &format!("{elsewhere}{block}")).unwrap_err();
    assert!(
        faults.len() == 1 && faults[0].starts_with("node_name = Node_1: is no name of a node in a cluster"),
        "{faults:?}"
    );
}
