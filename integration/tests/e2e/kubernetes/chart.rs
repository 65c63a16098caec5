//! What the chart renders is what an API server takes: by its own validation, field by field.

use std::collections::BTreeSet;
use std::path::Path;

use fairlead_integration::component::Component;
use fairlead_integration::folders::repository;
use fairlead_integration::helm;
use fairlead_integration::kubernetes::Cluster;
use serde_json::{Value, json};

/// Kinds of these groups are others' to define.
const FOREIGN: [&str; 3] = ["gateway.networking.k8s.io", "kafka.strimzi.io", "monitoring.coreos.com"];

#[test]
fn gives_objects_that_the_api_server_accepts() {
    // Both are named if both are missing.
    let cluster = Component::KubeApiServer.usable();
    if !Component::Helm.usable() || !cluster {
        return;
    }
    let cluster = Cluster::started().unwrap();
    let file = |path: &str| vec!["--values".to_owned(), repository().join(path).display().to_string()];
    let values = "integration/tests/deploy/values";
    let mut sets: Vec<Vec<String>> = std::fs::read_dir(repository().join(values))
        .unwrap()
        .map(|entry| file(&format!("{values}/{}", entry.unwrap().file_name().to_string_lossy())))
        .collect();
    sets.extend([Vec::new(), file("deploy/examples/values-strimzi.yaml"), super::values()]);
    let mut kinds = BTreeSet::new();
    for set in sets {
        let objects = helm::objects(&set).unwrap();
        kinds.extend(accepted(&cluster, &format!("{set:?}"), &objects));
    }
    for folder in ["deploy/manifests", "deploy/examples"] {
        for path in yaml_files(&repository().join(folder)) {
            let objects = helm::documents(&std::fs::read_to_string(&path).unwrap()).unwrap();
            if objects.iter().all(|object| object["kind"].is_string()) {
                kinds.extend(accepted(&cluster, &path.display().to_string(), &objects));
            }
        }
    }
    for kind in ["ClusterRole", "DaemonSet", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    // It does find what is wrong.
    let mut wrong = helm::objects(&[]).unwrap().into_iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    wrong["spec"]["template"]["spec"]["containers"][0]["no_such_field"] = true.into();
    assert!(format!("{:#}", cluster.would_apply(&wrong).unwrap_err()).contains("no_such_field"));
}

/// Namespaces are made, everything else is only asked for. Gives the kinds that were accepted.
fn accepted(cluster: &Cluster, what: &str, objects: &[Value]) -> BTreeSet<String> {
    let group =
        |object: &Value| object["apiVersion"].as_str().unwrap().split_once('/').map(|(group, _)| group.to_owned());
    let (namespaces, others): (Vec<&Value>, Vec<&Value>) = objects
        .iter()
        .filter(|object| !group(object).is_some_and(|group| FOREIGN.contains(&group.as_str())))
        .partition(|object| object["kind"] == "Namespace");
    // What the set makes itself has its own labels; the rest is there before, as the release's own is.
    let named: BTreeSet<&str> = others.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
    let made =
        named.into_iter().map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    for namespace in made.chain(namespaces.into_iter().cloned()) {
        cluster.apply(&namespace).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
    // Pods too: what their namespace enforces is not asked of a template.
    for object in others.iter().copied().cloned().chain(others.iter().copied().filter_map(pod_of)) {
        cluster.would_apply(&object).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
    others.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
}

/// A pod of a workload's template.
fn pod_of(workload: &Value) -> Option<Value> {
    let template = workload["spec"].get("template")?;
    let metadata = json!({"name": "one", "namespace": workload["metadata"]["namespace"], "labels": template["metadata"]["labels"]});
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}))
}

fn yaml_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let listed = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    listed.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}
