use std::time::Duration;

use super::*;

const PREFIX: &str = "FAIRLEAD_ROUTER";

fn source(yaml: &str, variables: &[(&str, &str)]) -> Source {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Source::from_parts(PREFIX, Path::new("router.yaml"), yaml, variables).unwrap()
}

/// Reads a few keys of every kind, as a program does, and gives the faults as they are printed.
fn faults_of(yaml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut reader = source(yaml, variables).reader();
    reader.required_text("node_name");
    reader.bool("kubernetes.enabled");
    reader.duration("kafka.linger", Duration::ZERO..=Duration::from_secs(60));
    reader.bytes("kafka.in_flight_bytes_max", 1 << 20..=1 << 30);
    reader.integer("topics.partitions", 1..=1000);
    reader.choice("log.format", &[("human", 1), ("json", 2)]);
    reader.texts("logs.skip");
    reader.scalars("kafka.properties");
    reader.address("admin.listen");
    for name in reader.names("tenants") {
        reader.texts(&format!("tenants.{name}.namespaces"));
    }
    for index in 0..reader.len("auth.issuers") {
        reader.text(&format!("auth.issuers[{index}].issuer"));
    }
    match reader.finish() {
        Ok(()) => Vec::new(),
        Err(Faults(faults)) => faults.iter().map(Fault::to_string).collect(),
    }
}

#[test]
fn each_fault_names_its_key_value_and_origin() {
    let check = |yaml: &str, variables: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(faults_of(yaml, variables), expected, "{yaml}");
    };
    let ok = "node_name: n\n";
    check(ok, &[], &[]);
    check("", &[("FAIRLEAD_ROUTER__NODE_NAME", "n")], &[]);
    check("", &[], &["node_name: is required (router.yaml or env FAIRLEAD_ROUTER__NODE_NAME)"]);
    check("node_name: 007", &[], &["node_name = 7: must be a text: put it in quotes (router.yaml)"]);
    check("node_name: ''", &[], &["node_name: must not be empty (router.yaml)"]);
    check(
        "node_name: n\nkafka: {linger: 30}",
        &[],
        &["kafka.linger = 30: needs its unit, such as 30s, 250ms or 1h30m (router.yaml)"],
    );
    check(
        ok,
        &[("FAIRLEAD_ROUTER__KAFKA__LINGER", "90s")],
        &["kafka.linger = 90s: at most 1m (env FAIRLEAD_ROUTER__KAFKA__LINGER)"],
    );
    check(
        "node_name: n\nkafka: {in_flight_bytes_max: 1KiB, linger: [1]}",
        &[],
        &[
            "kafka.in_flight_bytes_max = 1KiB: at least 1MiB (router.yaml)",
            "kafka.linger: must be a duration such as 30s (router.yaml)",
        ],
    );
    check(
        "node_name: n\ntopics: {partitions: 0}\nkubernetes: {enabled: maybe}\nlog: {format: xml}",
        &[],
        &[
            "kubernetes.enabled = maybe: must be true or false (router.yaml)",
            "log.format = xml: must be one of human, json (router.yaml)",
            "topics.partitions = 0: at least 1 (router.yaml)",
        ],
    );
    check(
        "node_name: n\nadmin: {listen: localhost}",
        &[],
        &["admin.listen = localhost: must be ADDRESS:PORT, such as 127.0.0.1:9598 (router.yaml)"],
    );
    check(
        "node_name: n\nadmin: {listen: 9598}",
        &[],
        &["admin.listen = 9598: must be ADDRESS:PORT, such as 127.0.0.1:9598 (router.yaml)"],
    );
    check(
        ok,
        &[("fairlead_router__Kafka__linger", "90s")],
        &["kafka.linger = 90s: at most 1m (env fairlead_router__Kafka__linger)"],
    );
    check(
        ok,
        &[("FAIRLEAD_ROUTER__LOGS__SKIP", "a,b")],
        &["logs.skip = a,b: is a list: only the file can set it (env FAIRLEAD_ROUTER__LOGS__SKIP)"],
    );
}

#[test]
fn unknown_keys_are_faults_wherever_they_are() {
    let check = |yaml: &str, variables: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(faults_of(yaml, variables), expected, "{yaml}");
    };
    check(
        "node_name: n\nkafak: {linger: 1s, password: hunter2}\nkafka: {lingre: 1s}",
        &[],
        &["kafak: unknown key (router.yaml)", "kafka.lingre: unknown key (router.yaml)"],
    );
    check(
        "node_name: n",
        &[("FAIRLEAD_ROUTER__KAFKA__LINGRE", "1s"), ("FAIRLEAD_ROUTER__NOPE", "x"), ("FAIRLEAD_ROUTERS__X", "y")],
        &[
            "kafka.lingre: unknown key (env FAIRLEAD_ROUTER__KAFKA__LINGRE)",
            "nope: unknown key (env FAIRLEAD_ROUTER__NOPE)",
        ],
    );
    check(
        "node_name: n",
        &[("FAIRLEAD_ROUTER_KAFKA__LINGER", "1s"), ("FAIRLEAD_ROUTER_SERVICE_HOST", "10.0.0.1")],
        &["FAIRLEAD_ROUTER_KAFKA__LINGER: unknown variable: two underscores stand between levels: \
            FAIRLEAD_ROUTER__KAFKA__LINGER (env FAIRLEAD_ROUTER_KAFKA__LINGER)"],
    );
    check(
        "",
        &[("FAIRLEAD_ROUTER_NODE_NAME", "n"), ("FAIRLEAD_ROUTER_NOPE", "x")],
        &[
            "FAIRLEAD_ROUTER_NODE_NAME: unknown variable: two underscores stand between levels: \
             FAIRLEAD_ROUTER__NODE_NAME (env FAIRLEAD_ROUTER_NODE_NAME)",
            "FAIRLEAD_ROUTER_NOPE: unknown variable: two underscores follow FAIRLEAD_ROUTER (env FAIRLEAD_ROUTER_NOPE)",
            "node_name: is required (router.yaml or env FAIRLEAD_ROUTER__NODE_NAME)",
        ],
    );
    check(
        "node_name: n",
        &[("FAIRLEAD_ROUTER__KAFKA_LINGER", "1s")],
        &["kafka_linger: unknown key: two underscores stand between levels: FAIRLEAD_ROUTER__KAFKA__LINGER \
            (env FAIRLEAD_ROUTER__KAFKA_LINGER)"],
    );
    check(
        "node_name: n\ntenants: {a.b: {namespaces: [x], rihgts: []}}\nauth: {issuers: [{issuer: i, isuer: j}]}",
        &[],
        &["auth.issuers[0].isuer: unknown key (router.yaml)", "tenants.a.b.rihgts: unknown key (router.yaml)"],
    );
    check("node_name: n\nkafka: 5", &[], &["kafka = 5: must be a mapping of keys (router.yaml)"]);
    check(
        "node_name: n",
        &[("FAIRLEAD_ROUTER__KAFKA", "x"), ("FAIRLEAD_ROUTER__KAFKA__LINGER", "1s")],
        &[
            "kafka = x: must be a mapping of keys (env FAIRLEAD_ROUTER__KAFKA)",
            "kafka.linger: has keys below it, but a value is set by env FAIRLEAD_ROUTER__KAFKA \
             (env FAIRLEAD_ROUTER__KAFKA__LINGER)",
        ],
    );
}

#[test]
fn what_kubernetes_makes_of_services_is_a_warning() {
    let check = |name: &str, value: &str, warned: bool| {
        let reader = source("", &[(name, value)]).reader();
        assert_eq!(reader.warnings().len(), usize::from(warned), "{name}");
        assert_eq!(reader.finish().is_ok(), warned || value.is_empty(), "{name}");
    };
    check("FAIRLEAD_ROUTER_SERVICE_HOST", "10.0.0.1", true);
    check("FAIRLEAD_ROUTER_SERVICE_PORT", "80", true);
    check("FAIRLEAD_ROUTER_SERVICE_PORT_HTTP", "80", true);
    check("FAIRLEAD_ROUTER_METRICS_SERVICE_HOST", "10.0.0.1", true);
    check("FAIRLEAD_ROUTER_PORT", "tcp://10.0.0.1:80", true);
    check("FAIRLEAD_ROUTER_PORT_80_TCP", "tcp://10.0.0.1:80", true);
    check("FAIRLEAD_ROUTER_PORT_80_TCP_ADDR", "10.0.0.1", true);
    check("FAIRLEAD_ROUTER_PORT", "80", false);
    check("FAIRLEAD_ROUTER_NODE_NAME", "n", false);
    check("FAIRLEAD_ROUTER_NODE_NAME", "", false);
}

#[test]
fn faults_of_mappings_and_lists_suggest_no_variable_and_those_of_defaults_say_so() {
    let mut reader = source("a: {x: 1}\nd: set", &[]).reader();
    reader.names("tenants");
    reader.texts("names");
    reader.text("auth.local");
    for key in ["tenants", "names", "auth"] {
        reader.fault(key, "is required");
    }
    assert!(!reader.is_faulty("a", &["x"]) && reader.is_faulty("a", &[]) && reader.is_faulty("auth", &[]));
    reader.text("a.x");
    reader.text("d");
    reader.fault_of("c", "/var", "is not there");
    reader.warn("d", "unset", "is odd");
    assert_eq!(reader.warnings(), ["d = set: is odd (router.yaml)"]);
    let faults = reader.finish().unwrap_err().to_string();
    let expected = "a.x = 1: must be a text: put it in quotes (router.yaml)\nauth: is required (router.yaml)\n\
                    c = /var: is not there (default)\nnames: is required (router.yaml)\ntenants: is required (router.yaml)";
    assert_eq!(faults, expected);
}

#[test]
fn the_environment_wins_over_the_file_and_empty_variables_are_unset() {
    let mut reader = source(
        "kafka: {linger: 1s, properties: {linger.ms: 5, a: true}}\nlog: {filter: info}",
        &[
            ("FAIRLEAD_ROUTER__KAFKA__LINGER", "2s"),
            ("FAIRLEAD_ROUTER__LOG__FILTER", ""),
            ("FAIRLEAD_ROUTER__KAFKA__PROPERTIES__LINGER__MS", "7"),
        ],
    )
    .reader();
    assert_eq!(reader.duration("kafka.linger", Duration::ZERO..=Duration::MAX), Some(Duration::from_secs(2)));
    assert_eq!(reader.text("log.filter").as_deref(), Some("info"));
    let properties = reader.scalars("kafka.properties");
    assert_eq!(properties.get("linger.ms").map(String::as_str), Some("7"));
    assert_eq!(properties.get("a").map(String::as_str), Some("true"));
    reader.finish().unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_one_clear_fault() {
    let check = |yaml: &str, expected: &str| {
        let Err(Faults(faults)) = Source::from_parts(PREFIX, Path::new("router.yaml"), yaml, []) else {
            panic!("{yaml} was taken")
        };
        assert_eq!(faults.len(), 1, "{faults:?}");
        let shown = faults[0].to_string();
        assert!(shown.contains(expected) && shown.ends_with("(router.yaml)"), "{shown}");
    };
    check("a: b: c\n", "is not valid YAML: line 1, column 5: ");
    check("a: 1\na: 2\n", "duplicate");
    check("- a\n- b\n", "must be a mapping of keys");
    check("--- \na: 1\n---\nb: 2\n", "documents");

    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.yaml");
    let Faults(faults) = load("FAIRLEAD_KIT_TEST", Some(&missing)).unwrap_err();
    assert!(faults[0].to_string().contains("cannot be read: No such file or directory ("), "{}", faults[0]);
}

#[test]
fn paths_start_at_the_folder_of_the_file_that_says_them() {
    let check = |yaml: &str, variables: &[(&str, &str)], expected: &str| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let source = Source::from_parts(PREFIX, Path::new("/etc/fairlead/router.yaml"), yaml, variables).unwrap();
        assert_eq!(source.reader().path("key_file"), Some(PathBuf::from(expected)));
    };
    check("key_file: local.key", &[], "/etc/fairlead/local.key");
    check("key_file: /run/local.key", &[], "/run/local.key");
    check("", &[("FAIRLEAD_ROUTER__KEY_FILE", "local.key")], "local.key");
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\r\n").unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    let file = folder.path().join("router.yaml");
    let read = |name: &str| {
        let mut reader = Source::from_parts(PREFIX, &file, &format!("password_file: {name}"), []).unwrap().reader();
        let secret = reader.secret_file("password_file");
        (secret, reader.finish())
    };
    let (secret, finished) = read("password");
    let secret = secret.unwrap();
    assert_eq!((secret.expose(), format!("{secret:?}").as_str()), ("hunter2", "Secret"));
    finished.unwrap();
    assert!(read("empty").1.unwrap_err().to_string().contains("names an empty file"));
    assert!(read("missing").1.unwrap_err().to_string().contains("cannot be read"));

    let mut reader = source("password: hunter2", &[]).reader();
    assert_eq!(reader.secret_file("password_file"), None);
    let shown = reader.finish().unwrap_err().to_string();
    assert_eq!(shown, "password: unknown key: a secret comes from a file, named by password_file (router.yaml)");
}

#[test]
fn an_included_file_stands_where_its_key_would() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plain.yaml"), "template: a\n").unwrap();
    std::fs::write(folder.path().join("wrapped.yaml"), "topics: {template: a, nope: 1}\n").unwrap();
    std::fs::write(folder.path().join("broken.yaml"), "a: b: c\n").unwrap();
    let file = folder.path().join("router.yaml");
    let read = |yaml: &str| {
        let mut source = Source::from_parts(PREFIX, &file, yaml, []).unwrap();
        source.include("topics_file", "topics");
        let mut reader = source.reader();
        reader.text("topics_file");
        let template = reader.text("topics.template");
        (template, reader.finish().err().map(|faults| faults.to_string()).unwrap_or_default())
    };
    assert_eq!(read("topics_file: plain.yaml"), (Some("a".to_owned()), String::new()));
    let (template, faults) = read("topics_file: wrapped.yaml");
    assert_eq!(template.as_deref(), Some("a"));
    assert!(faults.starts_with("topics.nope: unknown key") && faults.ends_with("wrapped.yaml)"), "{faults}");
    assert!(read("topics_file: broken.yaml").1.contains("is not valid YAML"));
    assert!(read("topics_file: none.yaml").1.contains("cannot be read"));
    assert!(read("topics_file: plain.yaml\ntopics: {template: b}").1.contains("only one of both"));
}

#[test]
fn serde_takes_whole_blocks_and_reports_what_it_does_not_know() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Claims {
        subject: String,
    }
    let mut reader = source("claims: {subject: sub, extra: 1}\nother: {subject: [1]}", &[]).reader();
    assert_eq!(reader.deserialize::<Claims>("claims"), Some(Claims { subject: "sub".to_owned() }));
    assert_eq!(reader.deserialize::<Claims>("other"), None);
    let faults = reader.finish().unwrap_err();
    assert_eq!(faults.0.len(), 2, "{faults}");
    assert_eq!(faults.0[0].to_string(), "claims.extra: unknown key (router.yaml)");
}
