//! The chart's objects before a real API server: those of others' kinds by their definitions, pods by the levels of pod security, and the accounts'
//! rights as the API server itself sums them up.

use std::collections::BTreeSet;
use std::time::Duration;

use fairlead_integration::component::Component;
use fairlead_integration::custom_resources;
use fairlead_integration::folders::scratch;
use fairlead_integration::helm;
use fairlead_integration::kubernetes::{Account, Cluster, answer, connect};
use fairlead_integration::wait::wait_until;
use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::Rendered;

const WITHIN: Duration = Duration::from_secs(30);

fn usable() -> bool {
    // Both are named if both are missing.
    let (cluster, helm) = (Component::KubeApiServer.usable(), Component::Helm.usable());
    cluster && helm
}

#[test]
fn objects_of_others_kinds_hold_to_their_definitions() {
    if !(usable() && Component::CustomResources.usable()) {
        return;
    }
    let cluster = Cluster::started().unwrap();
    for definition in custom_resources::definitions().unwrap() {
        cluster.apply(&definition).unwrap();
    }
    let of_others = |object: &&Value| {
        let version = object["apiVersion"].as_str().unwrap();
        version.starts_with("monitoring.coreos.com/") || version.starts_with("gateway.networking.k8s.io/")
    };
    let mut kinds = BTreeSet::new();
    let plain = helm::manifests().unwrap().into_iter().map(|(_, text)| helm::documents(&text).unwrap());
    let sets = Rendered::all().into_iter().map(|rendered| rendered.objects).chain(plain);
    for object in sets.flat_map(|objects| objects.iter().filter(of_others).cloned().collect::<Vec<_>>()) {
        namespace(&cluster, object["metadata"]["namespace"].as_str().unwrap(), None);
        // A definition takes effect a moment after it was made.
        let mut said = String::new();
        let taken = wait_until("the API server to take it", WITHIN, || {
            let taken = cluster.would_apply(&object);
            said = taken.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            taken.is_ok() || !said.contains("404")
        });
        assert!(taken.is_ok() && said.is_empty(), "{}: {said}", super::title(&object));
        let mut wrong = object.clone();
        wrong["spec"]["noSuchField"] = json!(1);
        assert!(cluster.would_apply(&wrong).is_err(), "{}: anything is taken", super::title(&object));
        kinds.insert(object["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"].map(str::to_owned).into());
}

#[test]
fn levels_of_pod_security_are_the_lowest_that_take_the_pods() {
    if !usable() {
        return;
    }
    let cluster = Cluster::started().unwrap();
    for level in ["privileged", "baseline", "restricted"] {
        namespace(&cluster, level, Some(level));
    }
    for rendered in Rendered::all() {
        let said = |program: &str, level: &str| {
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": level}});
            pod["spec"] = rendered.pod(program)["spec"].clone();
            cluster.would_apply(&pod).err().map(|error| format!("{error:#}"))
        };
        assert_eq!(said("gateway", "restricted"), None, "{}", rendered.set);
        assert_eq!(said("router", "privileged"), None, "{}", rendered.set);
        let refused = said("router", "baseline").expect("a folder of the node is refused");
        // Nothing but that folder keeps it from the level below.
        assert!(
            refused.contains("hostPath volumes") && !refused.contains("capabilities"),
            "{}: {refused}",
            rendered.set
        );
        let labels =
            |kind: &str, name: &str| rendered.find(kind, name).map(|object| object["metadata"]["labels"].clone());
        if let Some(labels) = labels("Namespace", "router") {
            assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
        }
    }
}

#[test]
fn accounts_may_what_they_ask_and_nothing_else() {
    if !usable() {
        return;
    }
    let cluster = Cluster::started().unwrap();
    let rendered = Rendered { set: "default", objects: helm::objects(&[]).unwrap() };
    for object in &rendered.objects {
        if let Some(name) = object["metadata"]["namespace"].as_str() {
            namespace(&cluster, name, None);
        }
        let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
        if kinds.contains(&object["kind"].as_str().unwrap()) {
            cluster.apply(object).unwrap();
        }
    }
    let right =
        |resource: &str, verbs: &[&str]| (resource.to_owned(), verbs.iter().map(|&verb| verb.to_owned()).collect());
    let router: BTreeSet<(String, BTreeSet<String>)> =
        [right("pods", &["list", "watch"]), right("namespaces", &["get"])].into();
    assert_eq!(rights(&cluster, &rendered, "router"), router);
    assert_eq!(rights(&cluster, &rendered, "gateway"), BTreeSet::new());
}

/// What the API server says that an account may, but for what everybody may: to ask about itself.
fn rights(cluster: &Cluster, rendered: &Rendered, program: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let object = rendered.one("ServiceAccount", program);
    let text = |key: &str| object["metadata"][key].as_str().unwrap().to_owned();
    let account = Account { namespace: text("namespace"), name: text("name") };
    let folder = scratch("account").unwrap();
    let file = folder.path().join("kubeconfig");
    cluster.kubeconfig(&file, cluster.address(), &cluster.token(&account, &[]).unwrap()).unwrap();
    let review: SelfSubjectRulesReview =
        serde_json::from_value(json!({"spec": {"namespace": account.namespace}})).unwrap();
    let asked = Api::<SelfSubjectRulesReview>::all(connect(&file).unwrap());
    let review = answer("its own rights", asked.create(&PostParams::default(), &review)).unwrap();
    let status = review.status.unwrap();
    assert!(!status.incomplete);
    let others = ["authorization.k8s.io", "authentication.k8s.io"].map(str::to_owned);
    let rules = status.resource_rules.into_iter();
    let own = rules.filter(|rule| {
        !rule.api_groups.as_ref().is_some_and(|groups| groups.iter().all(|group| others.contains(group)))
    });
    own.flat_map(|rule| {
        assert_eq!(rule.api_groups, Some(vec![String::new()]));
        let verbs: BTreeSet<String> = rule.verbs.into_iter().collect();
        rule.resources
            .unwrap_or_default()
            .into_iter()
            .map(move |resource| (resource, verbs.clone()))
            .collect::<Vec<_>>()
    })
    .collect()
}

fn namespace(cluster: &Cluster, name: &str, level: Option<&str>) {
    let labels = level.map_or(json!({}), |level| json!({"pod-security.kubernetes.io/enforce": level}));
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    cluster.apply(&object).unwrap();
}
