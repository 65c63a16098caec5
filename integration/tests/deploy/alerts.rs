//! The alert rules: promtool takes them and its unit tests of them pass, each alert has a case for and against it, and each is explained.

use std::collections::BTreeMap;

use fairlead_integration::component::Component;
use fairlead_integration::folders::repository;
use fairlead_integration::helm::documents;
use fairlead_integration::prometheus::promtool;
use serde_json::Value;

use super::deploy;

/// The rules of `deploy/alerts/fairlead.yaml`.
pub fn rules() -> Vec<Value> {
    let groups = documents(&std::fs::read_to_string(deploy("alerts/fairlead.yaml")).unwrap()).unwrap().remove(0);
    let rules =
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

fn name(rule: &Value) -> &str {
    rule["alert"].as_str().unwrap()
}

#[test]
fn promtool_takes_the_rules_and_its_tests_of_them_pass() {
    if !Component::Prometheus.usable() {
        return;
    }
    for words in [["check", "rules", "fairlead.yaml"], ["test", "rules", "tests.yaml"]] {
        let output = promtool(&deploy("alerts"), &words).unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.contains("SUCCESS"), "promtool {}: {said}", words.join(" "));
    }
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests = documents(&std::fs::read_to_string(deploy("alerts/tests.yaml")).unwrap()).unwrap().remove(0);
    let mut cases: BTreeMap<String, [bool; 2]> = BTreeMap::new();
    for group in tests["tests"].as_array().unwrap() {
        for case in group["alert_rule_test"].as_array().unwrap() {
            let fires = case["exp_alerts"].as_array().unwrap();
            let seen = cases.entry(case["alertname"].as_str().unwrap().to_owned()).or_default();
            seen[usize::from(!fires.is_empty())] = true;
            // Of several that could fire, only some do: that is a case against it too.
            let series = group["input_series"].as_array().unwrap().len();
            seen[0] |= !fires.is_empty() && fires.len() < series;
        }
    }
    for rule in rules() {
        assert_eq!(cases.get(name(&rule)), Some(&[true, true]), "{}: does not fire, fires", name(&rule));
    }
    assert_eq!(cases.len(), rules().len());
}

#[test]
fn each_alert_says_what_it_means_and_what_to_do() {
    let operations = std::fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    for rule in rules() {
        for part in ["summary", "description", "action"] {
            assert!(rule["annotations"][part].as_str().is_some_and(|text| text.len() > 20), "{}: {part}", name(&rule));
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{}", name(&rule));
        assert!(operations.contains(&format!("\n### {}\n", name(&rule))), "docs/operations.md: no ### {}", name(&rule));
    }
    let known: Vec<String> = rules().iter().map(|rule| name(rule).to_owned()).collect();
    for title in operations.lines().filter_map(|line| line.strip_prefix("### Fairlead")) {
        assert!(
            known.contains(&format!("Fairlead{title}")),
            "docs/operations.md explains Fairlead{title}, which is no alert"
        );
    }
}
