use serde_json::{Value, json};

use super::*;

fn pruned(object: Value, annotations: &[&str]) -> Result<Pruned, Unfit> {
    let names = Names::parse(annotations.iter().map(ToString::to_string).collect()).unwrap();
    prune(serde_json::from_value(object).unwrap(), "node-1", &names)
}

fn pod(changes: Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "api-7d9f4-x2x", "namespace": "payments", "uid": "0b1f", "resourceVersion": "7",
            "creationTimestamp": "2026-11-20T10:00:00Z"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "api", "image": "registry/api:1"}]},
    });
    merge(&mut object, changes);
    object
}

fn merge(object: &mut Value, changes: Value) {
    match (object, changes) {
        (Value::Object(object), Value::Object(changes)) => {
            changes.into_iter().for_each(|(name, value)| merge(object.entry(name).or_insert(Value::Null), value));
        }
        (object, changes) => *object = changes,
    }
}

#[test]
fn what_is_taken() {
    let object = pod(json!({
        "metadata": {
            "labels": {"app": "api", "pod-template-hash": "7d9f4"},
            "annotations": {"example.com/team": "blue", "other": "x", "fairlead.dev/exclude": "true", "fairlead.dev/": "x"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "api-7d9f4", "controller": true}],
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}],
        },
        "spec": {
            "initContainers": [{"name": "init", "image": "i:1"}, {"name": "side", "image": "s:1", "restartPolicy": "Always"}],
            "ephemeralContainers": [{"name": "debug", "image": "d:1", "targetContainerName": "api"}],
            "volumes": [{"name": "v"}],
        },
        "status": {
            "containerStatuses": [{"name": "api", "restartCount": 1, "containerID": "containerd://b",
                "lastState": {"terminated": {"containerID": "containerd://a"}}}],
            "initContainerStatuses": [{"name": "init", "restartCount": 0, "containerID": "containerd://c"}],
            "ephemeralContainerStatuses": [{"name": "debug", "restartCount": 0, "containerID": "containerd://d"},
                {"name": "stranger", "restartCount": 0, "containerID": "containerd://e"}],
        },
    }));
    let pod = pruned(object, &["example.com/*"]).unwrap();
    let pairs = |map: &BTreeMap<String, String>| -> Vec<String> {
        map.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    let facts = &pod.facts;
    assert_eq!((pod.uid.as_str(), pod.name.as_str(), pod.mirror), ("0b1f", "api-7d9f4-x2x", None));
    assert_eq!(pod.created.unwrap().to_string(), "2026-11-20T10:00:00Z");
    assert_eq!((facts.namespace.as_str(), facts.cut), ("payments", false));
    assert_eq!(pairs(&facts.labels), ["app=api", "pod-template-hash=7d9f4"]);
    assert_eq!(pairs(&facts.annotations), ["example.com/team=blue"]);
    assert_eq!(pairs(&facts.wishes), ["exclude=true"]);
    assert_eq!(facts.owner, Some(Owner { kind: "Deployment".to_owned(), name: "api".to_owned() }));
    let ids = |container, restart| facts.container_id(container, restart);
    assert_eq!([ids("api", 1), ids("api", 0), ids("api", 2)], [Some("b"), Some("a"), None]);
    assert_eq!(
        [ids("init", 0), ids("debug", 0), ids("side", 0), ids("stranger", 0)],
        [Some("c"), Some("d"), None, None]
    );
    let images: Vec<_> =
        facts.containers.iter().map(|(name, it)| format!("{name} {}", it.image.as_deref().unwrap())).collect();
    assert_eq!(images, ["api registry/api:1", "debug d:1", "init i:1", "side s:1"]);
}

#[test]
fn who_owns_a_pod() {
    let check = |kind: &str, name: &str, hash: Value, expected: &str| {
        let owners = json!([{"kind": kind, "name": name, "controller": true}]);
        let metadata = json!({"ownerReferences": owners, "labels": {"pod-template-hash": hash}});
        let owner = pruned(pod(json!({"metadata": metadata})), &[]).unwrap().facts.owner;
        assert_eq!(owner.map_or_else(String::new, |owner| format!("{} {}", owner.kind, owner.name)), expected);
    };
    check("ReplicaSet", "api-7d9f4", json!("7d9f4"), "Deployment api");
    check("ReplicaSet", "api-v2-7d9f4", json!("7d9f4"), "Deployment api-v2");
    check("ReplicaSet", "api-7d9f4", json!("other"), "ReplicaSet api-7d9f4");
    check("ReplicaSet", "api7d9f4", json!("7d9f4"), "ReplicaSet api7d9f4");
    check("ReplicaSet", "-7d9f4", json!("7d9f4"), "ReplicaSet -7d9f4");
    check("ReplicaSet", "api", json!(""), "ReplicaSet api");
    check("StatefulSet", "db", json!("db"), "StatefulSet db");
    check("Job", "backup-29000000", json!("x"), "Job backup-29000000");
    check("Node", "node-1", json!("x"), "Node node-1");
    check("", "x", json!("x"), "");
    check("A\nB", "x", json!("x"), "");
    check(&"K".repeat(300), "x", json!("x"), "");
}

#[test]
fn what_is_not_this_nodes_or_no_pod_is_not_stored() {
    let check = |changes: Value, expected: Unfit| {
        assert_eq!(pruned(pod(changes.clone()), &[]).unwrap_err(), expected, "{changes}");
    };
    check(json!({"spec": {"nodeName": "node-2"}}), Unfit::OtherNode);
    check(json!({"spec": {"nodeName": null}}), Unfit::OtherNode);
    check(json!({"metadata": {"uid": null}}), Unfit::Odd);
    check(json!({"metadata": {"uid": "a b"}}), Unfit::Odd);
    check(json!({"metadata": {"name": ""}}), Unfit::Odd);
    check(json!({"metadata": {"namespace": "../kube-system"}}), Unfit::Odd);
    check(json!({"metadata": {"namespace": "Payments"}}), Unfit::Odd);
}

#[test]
fn too_many_texts_lose_the_largest() {
    let many = |count: usize| {
        (0..count).map(|index| (format!("l{index:04}"), json!("v".repeat(20)))).collect::<serde_json::Map<_, _>>()
    };
    let big = "b".repeat(9_000);
    let with = |labels: Value, annotations: Value| {
        pruned(pod(json!({"metadata": {"labels": labels, "annotations": annotations}})), &["*"]).unwrap().facts
    };
    let facts = with(json!(many(100)), json!({"big": big}));
    assert_eq!((facts.labels.len(), facts.annotations.len(), facts.cut), (100, 1, false));
    let facts = with(json!(many(100)), json!({"big": big, "bigger": big.clone() + "b"}));
    assert_eq!((facts.labels.len(), facts.annotations.contains_key("big"), facts.cut), (100, true, true));
    // As many as fit an object of 1.5 MB.
    let facts = with(json!(many(30_000)), json!({}));
    let size = serde_json::to_string(&facts.labels).unwrap().len();
    assert!(facts.cut && size <= TEXTS_BYTES_MAX && size > TEXTS_BYTES_MAX - 100, "{size}");
    // Each byte of these takes six.
    let facts = with(json!({}), json!({"a": "\u{1}".repeat(3_000)}));
    assert!(facts.cut && facts.annotations.is_empty());
    let facts = with(json!({}), json!({"a": "x".repeat(20_000)}));
    assert!(facts.cut && facts.annotations.is_empty());
    let facts = pruned(pod(json!({"metadata": {"annotations": {"a": "x".repeat(20_000)}}})), &[]).unwrap().facts;
    assert!(!facts.cut, "it was not wanted");
}

#[test]
fn too_many_containers_and_wishes_are_left_out() {
    let containers: Vec<Value> = (0..5_000).map(|index| json!({"name": format!("c{index}"), "image": "i"})).collect();
    let facts = pruned(pod(json!({"spec": {"containers": containers}})), &[]).unwrap().facts;
    assert_eq!((facts.containers.len(), facts.cut), (CONTAINERS_MAX, true));
    let images = json!([{"name": "api", "image": "i".repeat(2_000)}, {"name": "b\u{7}", "image": "i"}]);
    let facts = pruned(pod(json!({"spec": {"containers": images}})), &[]).unwrap().facts;
    assert_eq!((facts.containers.len(), facts.containers["api"].image.as_deref()), (1, None));
    let wishes: serde_json::Map<_, _> = (0..100).map(|index| (format!("fairlead.dev/w{index}"), json!("x"))).collect();
    let facts = pruned(pod(json!({"metadata": {"annotations": wishes}})), &[]).unwrap().facts;
    assert_eq!((facts.wishes.len(), facts.cut), (WISHES_MAX, true));
    for long in [5_000, 20_000] {
        let wish = json!({"fairlead.dev/exclude": "ä".repeat(long / 2)});
        let facts = pruned(pod(json!({"metadata": {"annotations": wish}})), &[]).unwrap().facts;
        assert!(facts.wishes["exclude"].ends_with(CUT_SIGN), "nobody takes it for well");
        assert!(facts.wishes["exclude"].len() <= WISH_BYTES_MAX + CUT_SIGN.len());
    }
}

#[test]
fn ids_are_remembered_while_the_status_goes_on_and_back() {
    let at = |restart: u32, id: &str, last: Option<&str>| {
        let mut status = json!({"name": "api", "restartCount": restart, "containerID": format!("x://{id}")});
        if let Some(last) = last {
            status["lastState"] = json!({"terminated": {"containerID": format!("x://{last}")}});
        }
        pruned(pod(json!({"status": {"containerStatuses": [status]}})), &[]).unwrap().facts
    };
    let mut known = at(0, "a", None);
    let mut then = |mut next: PodFacts| {
        remember_ids(&mut next, &known);
        known = next;
        let ids: Vec<String> =
            known.containers["api"].ids.iter().map(|(restart, id)| format!("{restart}{id}")).collect();
        ids.join(" ")
    };
    assert_eq!(then(at(0, "a", Some("a"))), "0a", "it waits for its next start");
    assert_eq!(then(at(1, "b", Some("a"))), "0a 1b");
    assert_eq!(then(at(0, "a", None)), "0a 1b", "an older status says nothing against a newer one");
    assert_eq!(then(at(2, "c", Some("b"))), "0a 1b 2c");
    // The runtime lost its state, and the count went on from the names of files.
    assert_eq!(then(at(7, "d", Some("c"))), "0a 1b 2c 7d");
    assert_eq!(then(at(8, "e", Some("d"))), "0a 1b 2c 7d 8e");
    assert_eq!(then(at(9, "f", Some("e"))), "1b 2c 7d 8e 9f", "the latest");
    assert_eq!(then(at(9, "g", None)), "1b 2c 7d 8e 9g", "what is told now is so");
}
