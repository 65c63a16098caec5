//! `values.yaml` and its schema: every value is described, none is taken that is not there, and the programs' own keys
//! are those of `docs/configuration.md`.

use std::collections::BTreeSet;

use fairlead_integration::component::Component;
use fairlead_integration::folders::repository;
use fairlead_integration::helm;
use regex::Regex;
use serde_json::Value;

/// Keys that the chart knows by itself, and those that have no place in a pod's file.
const NOT_VALUES: [&str; 12] = [
    "admin.listen",
    "auth.local.private_key_file",
    "kubernetes.kubeconfig_file",
    "listen",
    "logs.docker_containers_dir",
    "logs.pods_dir",
    "node_name",
    "shutdown_deadline",
    "state_dir",
    "tenants_file",
    "tls",
    "topics_file",
];

#[test]
fn unknown_and_malformed_values_are_refused_by_name() {
    if !Component::Helm.usable() {
        return;
    }
    let check = |value: &str, named: &str| {
        let output = helm::template(&["--set-json".to_owned(), value.to_owned()]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{value} is taken");
        assert!(said.contains(named), "{value}: {said}");
    };
    check("rooter={}", "'rooter'");
    check("router.imgae={}", "'imgae'");
    check("router.config.node_name=\"x\"", "'node_name'");
    check("router.config.kafka.bootstrap_server=\"x\"", "'bootstrap_server'");
    check("config.topics.create.partition=1", "'partition'");
    check("gateway.config.auth.local.private_key_file=\"/k\"", "'private_key_file'");
    check("gateway.config.tenants.a={\"namespaces\":[\"a\"],\"right\":[]}", "'right'");
    check("monitoring.monitor=true", "'monitor'");
    check("router.config.hold.bytes_max=\"10\"", "bytes_max");
    check("gateway.config.read.stall=\"1 minute\"", "stall");
    check("router.config.hold.bytes_max=10", "bytes_max");
    check("router.files=[{\"folder\":\"a\"}]", "files");
    check("router.terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds");
    check("router.stateDir=\"/var/lib/fairlead\"", "router.stateDir");
    check("router.stateDir=\"/var/log/pods/fairlead\"", "router.podLogsDir");
    check("router.namespace.name=\"fairlead\"", "router.namespace");
}

#[test]
fn every_value_has_its_comment() {
    let text = std::fs::read_to_string(helm::chart().join("values.yaml")).unwrap();
    let key = Regex::new(r"^ *[A-Za-z_]+:").unwrap();
    // Of a value over several lines, the comment stands above the first.
    let inner = ["    requests:", "    limits:"];
    let (mut before, mut faults, mut values) = ("", Vec::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let has_value =
            key.is_match(line) && !line.ends_with(':') && !inner.iter().any(|start| line.starts_with(start));
        if has_value && !before.trim_start().starts_with('#') {
            faults.push(format!("{}: {line}", number + 1));
        }
        values += usize::from(has_value);
        before = line;
    }
    assert!(faults.is_empty() && values > 80, "{values} values: {faults:#?}");
}

#[test]
fn defaults_are_all_there_and_the_schema_is_closed() {
    let schema = schema();
    let values =
        helm::documents(&std::fs::read_to_string(helm::chart().join("values.yaml")).unwrap()).unwrap().remove(0);
    let mut faults = Vec::new();
    for part in ["router", "gateway", "networkPolicy", "monitoring", "config"] {
        let known = schema["properties"][part]["properties"].as_object().unwrap();
        for key in known.keys().filter(|key| values[part].get(key).is_none()) {
            // The programs have defaults of their own.
            if part != "config" {
                faults.push(format!("{part}.{key} is not in values.yaml"));
            }
        }
    }
    open_places(&schema, "", &mut faults);
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Objects of the schema that name properties and take others too.
fn open_places(schema: &Value, at: &str, faults: &mut Vec<String>) {
    let named = schema["type"] == "object" && schema.get("properties").is_some();
    if named && schema["additionalProperties"] != false {
        faults.push(format!("{at} takes anything"));
    }
    let inner = schema.as_object().into_iter().flatten().filter(|(_, value)| value.is_object());
    inner.for_each(|(key, value)| open_places(value, &format!("{at}/{key}"), faults));
}

#[test]
fn the_programs_keys_are_those_of_the_documentation() {
    let schema = schema();
    let documented = documented();
    for (program, more) in [("router", "Router"), ("gateway", "Gateway")] {
        let known = keys(&schema, &schema["properties"][program]["properties"]["config"], "");
        let expected: BTreeSet<String> = documented
            .iter()
            .filter(|(section, key)| {
                (section == "Both programs" || section == more) && !NOT_VALUES.contains(&key.as_str())
            })
            .map(|(_, key)| key.clone())
            .collect();
        let missing: Vec<_> = expected.difference(&known).collect();
        let strange: Vec<_> = known.difference(&expected).collect();
        assert!(
            missing.is_empty() && strange.is_empty(),
            "{program}: not in values.schema.json: {missing:?}; not in docs/configuration.md: {strange:?}"
        );
    }
    let common = keys(&schema, &schema["properties"]["config"], "");
    let both: BTreeSet<String> =
        documented.into_iter().filter(|(section, _)| section == "Both programs").map(|(_, key)| key).collect();
    assert!(common.is_subset(&both), "{:?}", common.difference(&both));
}

/// Every key in a table of docs/configuration.md, with the section that it stands in.
fn documented() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let Some(cell) = line.strip_prefix("| `").and_then(|rest| rest.split(" | ").next()) else { continue };
        let mut first = String::new();
        for name in format!("`{cell}").split(", ").map(|name| name.trim_matches('`').to_owned()) {
            // `a.b`, `.c` stands for a.b and a.c
            let whole = match name.strip_prefix('.') {
                Some(last) => format!("{}.{last}", first.rsplit_once('.').unwrap().0),
                None => name,
            };
            first.clone_from(&whole);
            found.push((section.clone(), whole));
        }
    }
    // Those that stand for what is below them.
    found.retain(|(_, key)| key != "tenants.NAME");
    assert!(found.len() > 60, "{found:?}");
    found
}

/// The leaves below an object of the schema, as the documentation writes them.
fn keys(schema: &Value, at: &Value, path: &str) -> BTreeSet<String> {
    let at = match at["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => at,
    };
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    if let Some(properties) = at["properties"].as_object() {
        return properties.iter().flat_map(|(key, inner)| keys(schema, inner, &join(key))).collect();
    }
    if let Some(items) = at.get("items").filter(|items| items.get("properties").is_some()) {
        return keys(schema, items, &format!("{path}[]"));
    }
    match at.get("additionalProperties").filter(|inner| inner.get("properties").is_some()) {
        Some(named) => keys(schema, named, &join("NAME")),
        None => BTreeSet::from([path.to_owned()]),
    }
}

fn schema() -> Value {
    serde_json::from_str(&std::fs::read_to_string(helm::chart().join("values.schema.json")).unwrap()).unwrap()
}
