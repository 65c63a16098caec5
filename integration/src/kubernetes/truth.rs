//! Judges what records say of their pods against what the API server was told.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::consume::Stored;

/// Faults kept of each pod.
const FAULTS_MAX: usize = 5;

/// What is true of a pod.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Its namespace.
    pub namespace: String,
    /// Its namespace's UID.
    pub namespace_id: String,
    /// Its name.
    pub pod: String,
    /// Its UID, as the pods folder has it.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What they were before.
    pub labels_before: Vec<BTreeMap<String, String>>,
    /// Kind and name of the workload that it belongs to.
    pub workload: Option<(String, String)>,
    /// The image of each container.
    pub images: BTreeMap<String, String>,
    /// The runtime's id of each container's runs.
    pub ids: BTreeMap<(String, usize), String>,
}

/// What a topic's records say of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Records of lines.
    pub records: u64,
    /// Of these, with all that there is to know.
    pub complete: u64,
    /// Of these, with the pod's labels.
    pub labelled: u64,
    /// Of these, with nothing but what the path says.
    pub path: u64,
    /// The longest that one took from its line's stamp until it was sent, in milliseconds.
    pub late_ms: i64,
    /// What must not be, in words.
    pub faults: Vec<String>,
}

impl Told {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Told) -> Told {
        self.records += other.records;
        self.complete += other.complete;
        self.labelled += other.labelled;
        self.path += other.path;
        self.late_ms = self.late_ms.max(other.late_ms);
        self.faults.extend(other.faults.iter().cloned());
        self
    }
}

/// Compares each record with the truth about its pod; pods by UID. Every record must have namespace, pod, UID, container
/// and node, and whatever else it has must be true; only one that says so may lack something.
///
/// # Errors
/// When a value is no JSON, or is of a pod that there never was.
pub fn judge(stored: &[Stored], truths: &[Truth]) -> Result<BTreeMap<String, Told>> {
    let truths: BTreeMap<&str, &Truth> = truths.iter().map(|truth| (truth.uid.as_str(), truth)).collect();
    let mut told: BTreeMap<String, Told> = truths.keys().map(|uid| ((*uid).to_owned(), Told::default())).collect();
    for record in stored {
        let value: Value = serde_json::from_slice(&record.value).context("a record")?;
        let uid = value.pointer("/kubernetes/pod_id").and_then(Value::as_str).unwrap_or_default();
        let truth = truths.get(uid).with_context(|| format!("a record of nobody: {value:.400}"))?;
        let pod = told.get_mut(uid).context("a pod with a truth")?;
        pod.hear(record.at_ms, &value, truth);
    }
    Ok(told)
}

impl Told {
    fn hear(&mut self, at_ms: i64, value: &Value, truth: &Truth) {
        let said = &value["kubernetes"];
        let mut faults = Vec::new();
        let mut check = |name: &str, expected: Value| match said.get(name) {
            None | Some(Value::Null) => false,
            Some(found) => {
                if *found != expected {
                    faults.push(format!("{name} is {found}, not {expected}"));
                }
                true
            }
        };
        let container = said["container_name"].as_str().unwrap_or_default();
        let run = value.pointer("/fairlead/source").and_then(Value::as_str).and_then(|source| source.split('/').nth(2));
        let run = (container.to_owned(), run.and_then(|run| run.parse().ok()).unwrap_or_default());
        let always = [
            check("namespace_name", json!(truth.namespace)),
            check("pod_name", json!(truth.pod)),
            check("pod_id", json!(truth.uid)),
            !container.is_empty() && said["host"].is_string(),
        ];
        // What it was told last, or what was true before.
        let before = truth.labels_before.iter().map(|labels| json!(labels)).find(|labels| *labels == said["labels"]);
        let labels = check("labels", before.unwrap_or_else(|| json!(truth.labels))) || truth.labels.is_empty();
        let more = [
            check("namespace_id", json!(truth.namespace_id)),
            check("docker_id", json!(truth.ids.get(&run))),
            check("container_image", json!(truth.images.get(container))),
            truth.workload.is_none()
                || check(
                    "owner",
                    json!(truth.workload.as_ref().map(|(kind, name)| json!({"kind": kind, "name": name}))),
                ),
        ];
        let metadata = value.pointer("/fairlead/metadata").and_then(Value::as_str);
        let whole = labels && more.iter().all(|&known| known);
        let nothing = ["namespace_id", "docker_id", "container_image", "labels", "annotations", "owner"];
        if always.contains(&false) {
            faults.push("it lacks what it must always have".to_owned());
        }
        match metadata {
            None if !whole => faults.push("it lacks something and does not say so".to_owned()),
            Some("path") if nothing.iter().any(|name| said.get(name).is_some()) => {
                faults.push("it says `path` and has more".to_owned());
            }
            None | Some("partial" | "path") => {}
            Some(other) => faults.push(format!("metadata is {other}")),
        }
        let line = value.pointer("/fairlead/notice").is_none();
        if line {
            self.records += 1;
            self.complete += u64::from(metadata.is_none());
            self.labelled += u64::from(labels);
            self.path += u64::from(metadata == Some("path"));
            let written: Option<Timestamp> = value["time"].as_str().and_then(|time| time.parse().ok());
            self.late_ms = self.late_ms.max(written.map_or(0, |written| at_ms - written.as_millisecond()));
        }
        let room = FAULTS_MAX.saturating_sub(self.faults.len());
        self.faults.extend(faults.iter().take(room).map(|fault| format!("{fault}: {value:.600}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> Truth {
        Truth {
            namespace: "shop".to_owned(),
            namespace_id: "n1".to_owned(),
            pod: "web-1".to_owned(),
            uid: "u1".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            labels_before: vec![[("app".to_owned(), "old".to_owned())].into()],
            workload: Some(("Deployment".to_owned(), "web".to_owned())),
            images: [("app".to_owned(), "web:1".to_owned())].into(),
            ids: [(("app".to_owned(), 1), "c1".to_owned())].into(),
        }
    }

    fn record(change: impl FnOnce(&mut Value)) -> Stored {
        let mut value = json!({
            "kubernetes": {
                "namespace_name": "shop", "namespace_id": "n1", "pod_name": "web-1", "pod_id": "u1",
                "container_name": "app", "host": "node-1", "docker_id": "c1", "container_image": "web:1",
                "labels": {"app": "web"}, "owner": {"kind": "Deployment", "name": "web"},
            },
            "fairlead": {"source": "u1/app/1/e/1", "seq": 0},
            "time": "2026-11-20T10:00:00.5Z", "stream": "stdout", "log": "a line",
        });
        change(&mut value);
        let at_ms = "2026-11-20T10:00:02Z".parse::<Timestamp>().unwrap().as_millisecond();
        Stored {
            partition: 0,
            offset: 0,
            at_ms,
            key: Vec::new(),
            value: value.to_string().into_bytes(),
            headers: Vec::new(),
        }
    }

    fn without(value: &mut Value, names: &[&str]) {
        for name in names {
            value["kubernetes"].as_object_mut().unwrap().remove(*name);
        }
    }

    #[test]
    fn only_what_is_true_and_what_says_that_it_lacks_something_passes() {
        let check = |change: &dyn Fn(&mut Value), expected: (u64, u64, u64, usize)| {
            let told = judge(&[record(change)], &[truth()]).unwrap();
            let told = &told["u1"];
            assert_eq!((told.complete, told.labelled, told.path, told.faults.len()), expected, "{told:?}");
        };
        let decoration = ["namespace_id", "docker_id", "container_image", "labels", "owner"];
        check(&|_| {}, (1, 1, 0, 0));
        check(&|value| without(value, &["docker_id"]), (1, 1, 0, 1));
        check(
            &|value| {
                without(value, &["docker_id"]);
                value["fairlead"]["metadata"] = json!("partial");
            },
            (0, 1, 0, 0),
        );
        check(
            &|value| {
                without(value, &decoration);
                value["fairlead"]["metadata"] = json!("path");
            },
            (0, 0, 1, 0),
        );
        check(&|value| value["fairlead"]["metadata"] = json!("path"), (0, 1, 1, 1));
        check(&|value| value["kubernetes"]["labels"]["app"] = json!("api"), (1, 1, 0, 1));
        check(&|value| value["kubernetes"]["labels"]["app"] = json!("old"), (1, 1, 0, 0));
        check(&|value| value["fairlead"]["source"] = json!("u1/app/0/e/1"), (1, 1, 0, 1));
        check(&|value| without(value, &["host"]), (1, 1, 0, 1));
        check(&|value| value["fairlead"]["notice"] = json!({"kind": "gap"}), (0, 0, 0, 0));
        assert_eq!(judge(&[record(|_| {})], &[truth()]).unwrap()["u1"].late_ms, 1_500);
        assert!(judge(&[record(|value| value["kubernetes"]["pod_id"] = json!("u2"))], &[truth()]).is_err());
    }
}
