//! The chart as a whole: Helm finds nothing wrong with it, and what it renders hangs together.

use std::collections::BTreeSet;

use fairlead_integration::component::Component;
use fairlead_integration::helm;
use serde_json::{Value, json};

use super::{Rendered, SETS, arguments, title};

/// Kinds of objects that lie in no namespace.
const IN_NO_NAMESPACE: [&str; 3] = ["Namespace", "ClusterRole", "ClusterRoleBinding"];

#[test]
fn helm_finds_nothing_wrong() {
    if !Component::Helm.usable() {
        return;
    }
    for (set, file) in SETS {
        let output = helm::lint(&arguments(file)).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(", 0 chart(s) failed"), "{set}: {said}");
        for bad in ["[WARNING]", "[ERROR]"] {
            assert!(!said.contains(bad), "{set}: {said}");
        }
    }
}

#[test]
fn every_object_says_where_it_lies_and_whose_it_is() {
    if !Component::Helm.usable() {
        return;
    }
    for rendered in Rendered::all() {
        assert!(rendered.objects.len() >= 7, "{}: {}", rendered.set, rendered.objects.len());
        let mut names = BTreeSet::new();
        for object in &rendered.objects {
            let (what, metadata) = (format!("{}: {}", rendered.set, title(object)), &object["metadata"]);
            let everywhere = IN_NO_NAMESPACE.contains(&object["kind"].as_str().unwrap());
            assert_eq!(metadata["namespace"].is_string(), !everywhere, "{what}");
            for label in ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/part-of"] {
                assert!(metadata["labels"][label].is_string(), "{what}: {label}");
            }
            let name = (title(object), metadata["namespace"].clone().to_string());
            assert!(names.insert(name), "{what} is there twice");
        }
    }
}

#[test]
fn selectors_find_the_pods_and_ports_that_they_name() {
    if !Component::Helm.usable() {
        return;
    }
    for rendered in Rendered::all() {
        for program in ["router", "gateway"] {
            let pod = rendered.pod(program);
            let (labels, ports) = (&pod["metadata"]["labels"], &pod["spec"]["containers"][0]["ports"]);
            let port_is_there = |port: &Value| ports.as_array().unwrap().iter().any(|known| known["name"] == *port);
            let of_program = |object: &&Value| {
                object["metadata"]["labels"]["app.kubernetes.io/name"] == format!("fairlead-{program}")
            };
            for object in rendered.objects.iter().filter(of_program) {
                let (what, spec) = (format!("{}: {}", rendered.set, title(object)), &object["spec"]);
                let wanted = match object["kind"].as_str().unwrap() {
                    "DaemonSet" | "Deployment" | "PodDisruptionBudget" | "PodMonitor" => {
                        &spec["selector"]["matchLabels"]
                    }
                    "NetworkPolicy" => &spec["podSelector"]["matchLabels"],
                    "Service" => &spec["selector"],
                    "ServiceMonitor" => {
                        let service = rendered.one("Service", program);
                        let port = &spec["endpoints"][0]["port"];
                        let known = service["spec"]["ports"].as_array().unwrap();
                        assert!(known.iter().any(|known| known["name"] == *port), "{what}: {port}");
                        assert!(holds(&service["metadata"]["labels"], &spec["selector"]["matchLabels"]), "{what}");
                        continue;
                    }
                    _ => continue,
                };
                assert!(holds(labels, wanted), "{what}: {wanted} does not select {labels}");
                let named = [
                    spec.pointer("/podMetricsEndpoints/0/port"),
                    spec.pointer("/ports/0/targetPort"),
                    spec.pointer("/ingress/0/ports/0/port"),
                    spec.pointer("/ingress/1/ports/0/port"),
                ];
                for port in named.into_iter().flatten() {
                    assert!(port_is_there(port), "{what}: no port {port} in {ports}");
                }
            }
        }
    }
}

#[test]
fn rights_are_the_least_that_what_is_asked_needs() {
    if !Component::Helm.usable() {
        return;
    }
    let asked = |more: &[&str]| {
        let set = |text: &&str| ["--set-json".to_owned(), (*text).to_owned()];
        Rendered { set: "kubernetes", objects: helm::objects(&more.iter().flat_map(set).collect::<Vec<_>>()).unwrap() }
    };
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]});
    let namespaces = json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]});

    let nodes = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]});

    let off = asked(&["router.config.kubernetes.enabled=false"]);
    let on = asked(&[]);
    let labels = asked(&["router.config.kubernetes.node_labels=[\"topology.kubernetes.io/zone\"]"]);
    assert!(off.find("ClusterRole", "").is_none() && off.find("ClusterRoleBinding", "").is_none());
    assert_eq!(on.one("ClusterRole", "router")["rules"], json!([pods, namespaces]));
    assert_eq!(labels.one("ClusterRole", "router")["rules"], json!([pods, namespaces, nodes]));
    for (rendered, mounted) in [(&off, false), (&on, true), (&labels, true)] {
        assert_eq!(rendered.pod("router")["spec"]["automountServiceAccountToken"], mounted);
        assert_eq!(rendered.pod("gateway")["spec"]["automountServiceAccountToken"], false);
        let accounts: Vec<&Value> =
            rendered.objects.iter().filter(|object| object["kind"] == "ServiceAccount").collect();
        assert_eq!(accounts.len(), 2);
        assert!(accounts.iter().all(|account| account["automountServiceAccountToken"] == false));
        for kind in ["Role", "RoleBinding"] {
            assert!(rendered.find(kind, "").is_none(), "{kind}");
        }
        let bound = rendered.objects.iter().filter(|object| object["kind"] == "ClusterRoleBinding");
        for binding in bound {
            let account = rendered.one("ServiceAccount", "router");
            let expected = json!([{"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": account["metadata"]["namespace"]}]);
            assert_eq!(binding["subjects"], expected, "the gateway has no rights");
        }
    }
}

/// Whether a map has all of another.
fn holds(labels: &Value, wanted: &Value) -> bool {
    wanted
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value))
}
