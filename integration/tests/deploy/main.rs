//! What `deploy/` gives: the chart and what it renders, the alerts and the dashboard against the programs' real metrics,
//! the compose file and the images.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alerts;
mod chart;
mod cluster;
mod compose;
mod configuration;
mod manifests;
mod metrics;
mod pods;
mod size;
mod values;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fairlead_integration::folders::repository;
use fairlead_integration::helm;
use serde_json::Value;

/// The sets of values that everything is rendered with, by name.
const SETS: [(&str, Option<&str>); 4] = [
    ("default", None),
    ("strimzi", Some("deploy/examples/values-strimzi.yaml")),
    ("everything", Some("integration/tests/deploy/values/everything.yaml")),
    ("little", Some("integration/tests/deploy/values/little.yaml")),
];

/// What one set of values renders to.
struct Rendered {
    set: &'static str,
    objects: Vec<Value>,
}

impl Rendered {
    /// All sets.
    fn all() -> Vec<Rendered> {
        SETS.map(|(set, file)| Rendered { set, objects: helm::objects(&arguments(file)).unwrap() }).into()
    }

    /// The one object of a kind whose name ends so.
    fn one(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("{}: no {kind} {name}", self.set))
    }

    fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"].as_str().unwrap().ends_with(name))
    }

    /// The pod template of one of the two programs.
    fn pod(&self, program: &str) -> &Value {
        let kind = if program == "router" { "DaemonSet" } else { "Deployment" };
        &self.one(kind, program)["spec"]["template"]
    }
}

/// One scenario at a time: each starts several processes.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn arguments(values: Option<&str>) -> Vec<String> {
    values.map(|file| vec!["--values".to_owned(), repository().join(file).display().to_string()]).unwrap_or_default()
}

fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// How an object is named in a message.
fn title(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or("?"), object["metadata"]["name"].as_str().unwrap_or("?"))
}
