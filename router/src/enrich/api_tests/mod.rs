//! The thread against a small API server over real sockets.

mod server;

use std::{fmt::Write as _, fs, time::Instant as Clock};

use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::server::{FakeApi, Streaming};
use super::*;

const NODE: &str = "node-1";

/// Times that a busy machine does not run into.
const PATIENT: Timing = Timing {
    start_spread: Duration::ZERO,
    away_after: Duration::from_secs(20),
    answer_max: Duration::from_secs(20),
    silence_max: Duration::from_secs(60),
    progress_max: Duration::from_secs(20),
};

/// Times as short as a test can bear that waits for them.
const SHORT: Timing = Timing {
    away_after: Duration::from_millis(1_500),
    answer_max: Duration::from_millis(1_500),
    progress_max: Duration::from_millis(1_500),
    ..PATIENT
};

/// A router's side of the API server.
struct Side {
    folder: TempDir,
    registry: Registry,
    readiness: Readiness,
    pods: ApiPods,
}

impl Side {
    fn start(api: &FakeApi) -> Side {
        Side::start_with(api, |_| {})
    }

    fn start_short(api: &FakeApi) -> Side {
        Side::start_at(&format!("http://{}", api.address), SHORT, |_| {})
    }

    fn start_with(api: &FakeApi, change: impl FnOnce(&mut Kubernetes)) -> Side {
        Side::start_at(&format!("http://{}", api.address), PATIENT, change)
    }

    fn start_at(server: &str, timing: Timing, change: impl FnOnce(&mut Kubernetes)) -> Side {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(&path, config.to_string()).unwrap();
        fs::write(folder.path().join("token"), "first").unwrap();
        let mut settings = Kubernetes {
            access: Some(Access::Kubeconfig(path)),
            metadata_wait: Duration::from_secs(1),
            annotations: Names::default(),
            namespace_labels: Names::default(),
            node_labels: Names::default(),
        };
        change(&mut settings);
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (metrics, readiness) = (KubernetesMetrics::default(), Readiness::new());
        readiness.clear("start");
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let access = settings.access.clone().unwrap();
        let pods = ApiPods::start_with(access, &settings, NODE, metrics, readiness.clone(), timing).unwrap();
        Side { folder, registry, readiness, pods }
    }

    fn pod(&self, uid: &str) -> Option<Arc<PodFacts>> {
        self.pods.pod(PodPath { namespace: "payments", pod: "api", uid })
    }

    fn label(&self, uid: &str) -> Option<String> {
        self.pod(uid)?.labels.get("app").cloned()
    }

    fn namespace(&self, uid: &str) -> Option<String> {
        self.pod(uid)?.namespace_id.clone()
    }

    fn wait_known(&self) {
        self.wait("known", || self.pods.standing() == Standing::Known);
    }

    fn wait_away(&self) {
        self.wait("away", || self.pods.standing() == Standing::Away);
    }

    #[track_caller]
    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Clock::now();
        while !condition() {
            let readiness = self.readiness.report();
            assert!(begun.elapsed() < Duration::from_secs(30), "{what} in vain: {readiness}\n{}", self.shown());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn shown(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    /// The sum of all series whose text contains these.
    fn count(&self, parts: &[&str]) -> f64 {
        let shown = self.shown();
        let fitting =
            shown.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
        fitting.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

fn pod(uid: &str, namespace: &str, app: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": format!("pod-{uid}"), "namespace": namespace, "uid": uid, "labels": {"app": app},
            "annotations": {"example.com/team": "blue"}, "creationTimestamp": "2026-11-20T10:00:10Z",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:conditions": {}}}}]},
        "spec": {"nodeName": NODE, "containers": [{"name": "api", "image": "registry/api:1"}]},
        "status": {"containerStatuses": [{"name": "api", "restartCount": 0, "containerID": format!("containerd://id-{uid}")}]},
    })
}

fn world() -> FakeApi {
    let api = FakeApi::start();
    for namespace in ["payments", "shop"] {
        api.namespace(
            namespace,
            &format!("uid-of-{namespace}"),
            "2026-11-20T09:00:00Z",
            json!({"team": "blue", "other": "x"}),
        );
    }
    api.put(pod("1", "payments", "api"));
    api.put(pod("2", "payments", "db"));
    api.put(pod("3", "shop", "web"));
    api
}

/// Cases wait for most of their time: side by side.
fn at_once<Case: Send>(cases: impl IntoIterator<Item = Case>, check: impl Fn(Case) + Sync) {
    thread::scope(|scope| cases.into_iter().for_each(|case| drop(scope.spawn(|| check(case)))));
}

#[test]
fn one_streamed_list_and_one_question_for_each_namespace_is_all_that_is_asked() {
    let api = world();
    let mut other = pod("elsewhere", "payments", "x");
    other["spec"]["nodeName"] = json!("node-2");
    api.put(other);
    let side = Side::start(&api);
    assert_eq!((side.pods.standing(), side.pods.namespaces()), (Standing::Starting, Standing::Starting));
    side.wait_known();
    side.wait("namespaces", || ["1", "2", "3"].iter().all(|uid| side.namespace(uid).is_some()));
    assert_eq!(side.pods.namespaces(), Standing::Known);
    let facts = side.pod("1").unwrap();
    assert_eq!((facts.namespace.as_str(), facts.labels["app"].as_str(), facts.cut), ("payments", "api", false));
    assert_eq!(facts.container_id("api", 0), Some("id-1"));
    assert_eq!(side.namespace("3").as_deref(), Some("uid-of-shop"));
    assert!(facts.annotations.is_empty() && facts.namespace_labels.is_empty() && facts.node_labels.is_empty());
    assert!(side.pod("elsewhere").is_none());

    // What happens is told as it happens.
    let version = side.pods.version();
    api.put(pod("4", "shop", "new"));
    side.wait("a new pod", || side.namespace("4").is_some());
    assert!(side.pods.version() > version);
    let version = side.pods.version();
    api.put(pod("1", "payments", "changed"));
    side.wait("a change", || side.label("1").as_deref() == Some("changed"));
    assert!(side.pods.version() > version);
    api.delete("1");
    side.wait("a deletion", || side.count(&["kubernetes_pods{", "gone"]) == 1.0);
    let facts = side.pod("1").unwrap();
    assert!(facts.gone && facts.labels["app"] == "changed", "its lines may still come");

    let requests = api.world().requests.clone();
    let watch = "watch /api/v1/pods?allowWatchBookmarks=true&fieldSelector=spec.nodeName=node-1&resourceVersion=0&\
                 resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=";
    assert!(requests[0].starts_with(watch), "{requests:?}");
    let mut rest = requests[1..].to_vec();
    rest.sort();
    assert_eq!(rest, ["get /api/v1/namespaces/payments?", "get /api/v1/namespaces/shop?"]);
    assert_eq!(side.count(&["requests_total", "result=\"ok\""]), 3.0);
    assert_eq!(side.count(&["errors_total"]), 0.0);
    assert!(side.count(&["received_bytes_total"]) > 1_000.0);
    assert_eq!(side.count(&["kubernetes_pods{", "live"]), 3.0);
    assert_eq!(side.count(&["standing=\"known\""]), 1.0);
    assert_eq!(side.readiness.report(), "ready\n");
}

#[test]
fn where_lists_are_not_streamed_they_are_asked_for_from_the_servers_memory() {
    let check = |streaming: Streaming| {
        let api = world();
        api.faults(|faults| faults.streaming = streaming);
        let side = Side::start_short(&api);
        side.wait_known();
        side.wait("namespaces", || side.namespace("3").is_some());
        let list =
            "list /api/v1/pods?fieldSelector=spec.nodeName=node-1&resourceVersion=0&resourceVersionMatch=NotOlderThan";
        let requests = api.world().requests.clone();
        assert_eq!(requests.iter().filter(|request| *request == list).count(), 1, "{streaming:?}: {requests:#?}");
        api.put(pod("4", "shop", "new"));
        side.wait("a new pod", || side.label("4").is_some());
        assert_eq!(api.asked(&["watch"]), 2, "{streaming:?}");
        // It is remembered: nothing is tried in vain again.
        api.expire();
        side.wait("another list", || api.asked(&["list"]) == 2);
        assert_eq!(api.asked(&["sendInitialEvents"]), 1, "{streaming:?}");
    };
    at_once([Streaming::Invalid, Streaming::OldEtcd, Streaming::OldEtcdEvent, Streaming::Unknown], check);
}

#[test]
fn a_watch_that_is_too_old_lists_again_and_nobody_is_kept_waiting() {
    let api = world();
    let side = Side::start(&api);
    side.wait("namespaces", || side.namespace("3").is_some());
    let mut standings = Vec::new();
    api.lose("2");
    api.put(pod("4", "shop", "new"));
    api.expire();
    side.wait("another list", || {
        standings.push(side.pods.standing());
        api.asked(&["sendInitialEvents"]) == 2 && side.count(&["kubernetes_pods{", "gone"]) == 1.0
    });
    assert!(standings.iter().all(|standing| *standing == Standing::Known));
    assert_eq!((side.label("4").as_deref(), side.label("2").as_deref()), (Some("new"), Some("db")));
    assert_eq!(side.count(&["errors_total", "expired"]), 1.0);
    assert_eq!(api.asked(&["get"]), 2, "namespaces with a pod that stayed are not asked about again");
}

#[test]
fn each_right_that_is_missing_is_named_and_used_when_it_is_given() {
    type Case = (&'static [(&'static str, &'static str)], Streaming, &'static str, &'static str);
    let check = |(forbidden, streaming, condition, rights): Case| {
        let api = world();
        api.faults(|faults| (faults.forbidden, faults.streaming) = (forbidden.to_vec(), streaming));
        let side = Side::start_with(&api, |settings| {
            settings.node_labels = Names::parse(vec!["zone".to_owned()]).unwrap();
        });
        api.world().node_labels.insert("zone".to_owned(), "z1".to_owned());
        let begun = Clock::now();
        side.wait("a note", || side.readiness.report().contains(rights));
        assert!(begun.elapsed() < Duration::from_secs(10), "what needs somebody is not waited out");
        let report = side.readiness.report();
        let (verb, resource) = forbidden[0];
        let named = format!("cannot {verb} resource \"{resource}\"");
        assert!(report.starts_with("ready\n") && report.contains(condition) && report.contains(&named), "{report}");
        assert!(side.count(&["requests_total", verb, resource, "forbidden"]) >= 1.0, "{}", side.shown());
        api.faults(|faults| faults.forbidden.clear());
        side.wait("all", || {
            let facts = side.pod("3");
            facts.is_some_and(|facts| facts.namespace_id.is_some() && facts.node_labels.len() == 1)
        });
        side.wait_known();
        assert_eq!((side.pods.namespaces(), side.readiness.report().as_str()), (Standing::Known, "ready\n"));
    };
    let (told, invalid) = (Streaming::Told, Streaming::Invalid);
    let cases: [Case; 5] = [
        (&[("watch", "pods")], told, "kubernetes pods", "list and watch on pods"),
        (&[("list", "pods")], invalid, "kubernetes pods", "list and watch on pods"),
        (&[("watch", "pods"), ("list", "pods")], told, "kubernetes pods", "list and watch on pods"),
        (&[("get", "namespaces")], told, "kubernetes namespaces", "get on namespaces"),
        (&[("get", "nodes")], told, "kubernetes node", "get on nodes"),
    ];
    at_once(cases, check);
}

#[test]
fn without_the_right_to_namespaces_pods_are_known_and_nobody_waits_for_the_rest() {
    let api = world();
    api.faults(|faults| faults.forbidden = vec![("get", "namespaces")]);
    let side = Side::start(&api);
    side.wait("away", || side.pods.namespaces() == Standing::Away);
    side.wait_known();
    assert_eq!((side.label("1").as_deref(), side.namespace("1")), (Some("api"), None));
    // A right that is missing is not asked for again and again for each namespace.
    assert!(api.asked(&["get"]) <= 4, "{:?}", api.world().requests);
}

#[test]
fn a_server_that_goes_and_comes_is_waited_out_or_missed() {
    let mut api = world();
    let side = Side::start_short(&api);
    side.wait("namespaces", || side.namespace("3").is_some());
    api.go();
    side.wait_away();
    let report = side.readiness.report();
    assert!(report.starts_with("ready\nnote: kubernetes pods: ") && report.contains("unreachable"), "{report}");
    assert_eq!((side.label("1").as_deref(), side.namespace("1").as_deref()), (Some("api"), Some("uid-of-payments")));
    assert_eq!(side.count(&["standing=\"away\""]), 1.0);
    let version = side.pods.version();
    // Meanwhile one pod went and one came; the namespace was made again.
    api.delete("1");
    api.delete("2");
    api.namespace("payments", "uid-of-another", "2026-11-20T10:00:10Z", json!({}));
    api.put(pod("4", "payments", "new"));
    api.come();
    side.wait_known();
    side.wait("the new pod", || side.namespace("4").as_deref() == Some("uid-of-another"));
    assert!(side.pods.version() > version);
    assert_eq!((side.label("1").as_deref(), side.namespace("1").as_deref()), (Some("api"), Some("uid-of-payments")));
    assert_eq!(side.readiness.report(), "ready\n");
}

#[test]
fn a_server_that_is_not_there_at_the_start_is_used_when_it_comes() {
    let mut api = world();
    api.go();
    let side = Side::start_short(&api);
    side.wait_away();
    assert!(side.pod("1").is_none());
    assert!(side.count(&["requests_total", "watch", "unreachable"]) >= 1.0);
    api.come();
    side.wait_known();
    assert_eq!(side.label("1").as_deref(), Some("api"));
}

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up() {
    let check = |watches_alone: bool| {
        let api = world();
        api.faults(|faults| (faults.silent, faults.silent_watches) = (!watches_alone, watches_alone));
        let side = Side::start_short(&api);
        if !watches_alone {
            side.wait_away();
            side.wait("an error", || side.count(&["errors_total", "timeout"]) >= 1.0);
            assert!(side.readiness.report().contains("the API server does not tell"), "{}", side.readiness.report());
        } else {
            side.wait("an ordinary list", || api.asked(&["list"]) >= 1);
        }
        api.faults(|faults| (faults.silent, faults.silent_watches) = (false, false));
        side.wait_known();
        side.wait("namespaces", || side.namespace("3").is_some());
    };
    at_once([false, true], check);
}

#[test]
fn a_watch_that_is_silent_for_too_long_is_opened_again() {
    let api = world();
    let timing = Timing { silence_max: Duration::from_secs(2), ..PATIENT };
    let side = Side::start_at(&format!("http://{}", api.address), timing, |_| {});
    side.wait_known();
    // Its connection stays, and what happens is not told.
    api.faults(|faults| faults.deaf = true);
    api.put(pod("4", "shop", "new"));
    side.wait("another watch", || api.asked(&["watch"]) == 2);
    assert_eq!((side.label("4"), side.pods.standing()), (None, Standing::Known));
    api.faults(|faults| faults.deaf = false);
    api.put(pod("5", "shop", "new"));
    side.wait("what was not told", || side.label("4").is_some() && side.label("5").is_some());
    assert_eq!((api.asked(&["sendInitialEvents"]), api.asked(&["list"])), (1, 0), "it went on from where it was");
    assert_eq!(side.count(&["errors_total"]), 0.0);
}

#[test]
fn what_is_wrong_with_tls_is_a_matter_of_settings() {
    let api = world();
    let side = Side::start_at(&format!("https://{}", api.address), PATIENT, |_| {});
    side.wait_away();
    let report = side.readiness.report();
    assert!(report.contains("settings: TLS: "), "{report}");
    let file = side.folder.path().join("kubeconfig");
    let plain = fs::read_to_string(&file).unwrap().replace("https:", "http:");
    fs::write(&file, plain).unwrap();
    side.wait_known();
}

#[test]
fn garbage_is_no_answer() {
    let check = |garbage: &'static str| {
        let api = world();
        api.faults(|faults| faults.garbage = Some(garbage));
        let side = Side::start_short(&api);
        side.wait_away();
        side.wait("an error", || side.count(&["errors_total", "garbage"]) >= 1.0);
        assert!(side.pod("1").is_none(), "{garbage}");
        api.faults(|faults| faults.garbage = None);
        side.wait_known();
        assert_eq!(side.label("1").as_deref(), Some("api"), "{garbage}");
    };
    let list = r#"{"kind":"PodList","items":[7]}"#;
    at_once(["<html>sign in</html>", "{}", r#"{"type":"ADDED"}"#, "\u{feff}", list], check);
}

#[test]
fn an_event_that_is_garbage_hides_no_other() {
    let api = world();
    let side = Side::start(&api);
    side.wait_known();
    api.faults(|faults| faults.garbage_line = Some("}{"));
    // The line comes with the watches that begin from now on; where all pods are told, it makes that an ordinary list.
    api.expire();
    side.wait("another watch", || api.asked(&["list"]) == 1 && api.asked(&["watch"]) == 3);
    for uid in ["5", "6"] {
        api.put(pod(uid, "shop", uid));
        side.wait("a pod", || side.label(uid).is_some());
    }
    assert!(side.count(&["errors_total", "garbage"]) >= 2.0, "{}", side.shown());
    assert_eq!(side.pods.standing(), Standing::Known);
}

#[test]
fn watches_that_are_closed_at_once_are_not_opened_without_end() {
    let api = world();
    api.faults(|faults| faults.hang_up = true);
    let side = Side::start(&api);
    side.wait("some", || api.asked(&["watch"]) >= 3);
    let (begun, before) = (Clock::now(), api.world().requests.len());
    side.wait("time", || begun.elapsed() > Duration::from_secs(4));
    let more = api.world().requests.len() - before;
    assert!(more <= 6, "{more} requests in {:?}", begun.elapsed());
    api.faults(|faults| faults.hang_up = false);
    side.wait_known();
}

#[test]
fn a_server_that_has_too_much_to_do_is_left_in_peace_for_as_long_as_it_says() {
    let api = world();
    api.faults(|faults| faults.throttle = Some(3));
    let side = Side::start(&api);
    side.wait("a refusal", || side.count(&["requests_total", "throttled"]) == 1.0);
    let begun = Clock::now();
    api.faults(|faults| faults.throttle = None);
    side.wait_known();
    assert!(begun.elapsed() > Duration::from_millis(2_500), "{:?}", begun.elapsed());
    assert_eq!(api.asked(&["pods"]), 2);
}

#[test]
fn a_token_that_was_replaced_is_read_again() {
    let api = world();
    api.faults(|faults| faults.token = Some("first".to_owned()));
    let side = Side::start(&api);
    side.wait_known();
    api.faults(|faults| faults.token = Some("second".to_owned()));
    api.expire();
    side.wait("a refusal", || side.count(&["requests_total", "unauthorized"]) >= 1.0);
    side.wait_away();
    assert!(side.readiness.report().contains("unauthorized"), "{}", side.readiness.report());
    fs::write(side.folder.path().join("token"), "second").unwrap();
    side.wait_known();
}

#[test]
fn what_is_missing_after_the_start_is_named_and_used_when_it_is_there() {
    let api = world();
    let side = Side::start(&api);
    side.wait_known();
    let file = side.folder.path().join("kubeconfig");
    let content = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    api.faults(|faults| faults.token = Some("second".to_owned()));
    api.expire();
    side.wait("a note", || side.readiness.report().contains("settings: "));
    assert_eq!(side.label("1").as_deref(), Some("api"), "what is known stays");
    fs::write(side.folder.path().join("token"), "second").unwrap();
    fs::write(&file, content).unwrap();
    side.wait_known();
}

#[test]
fn pods_of_other_nodes_are_never_kept_whatever_the_server_tells() {
    let api = world();
    api.faults(|faults| faults.all_nodes = true);
    let mut other = pod("elsewhere", "payments", "x");
    other["spec"]["nodeName"] = json!("node-2");
    api.put(other);
    let side = Side::start(&api);
    side.wait_known();
    assert!(side.pod("elsewhere").is_none() && side.pod("1").is_some());
    assert_eq!(side.count(&["errors_total", "other_node"]), 1.0);
}

#[test]
fn labels_of_namespaces_and_of_the_node_come_where_they_are_wanted() {
    let api = world();
    api.world()
        .node_labels
        .extend([("zone", "z1"), ("arch", "x")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let names = |text: &str| Names::parse(vec![text.to_owned()]).unwrap();
    let side = Side::start_with(&api, |settings| {
        (settings.namespace_labels, settings.node_labels) = (names("te*"), names("zone"));
        settings.annotations = names("example.com/*");
    });
    side.wait("labels", || {
        side.pod("1").is_some_and(|facts| facts.namespace_id.is_some() && !facts.node_labels.is_empty())
    });
    let facts = side.pod("1").unwrap();
    let pair = |name: &str, value: &str| std::collections::BTreeMap::from([(name.to_owned(), value.to_owned())]);
    assert_eq!(facts.namespace_labels, pair("team", "blue"));
    assert_eq!(facts.node_labels, pair("zone", "z1"));
    assert_eq!(facts.annotations, pair("example.com/team", "blue"));
    assert_eq!(api.asked(&["get /api/v1/nodes/node-1"]), 1);
}

#[test]
fn a_pod_of_hostile_size_costs_little_and_hides_nobody() {
    let api = world();
    let mut huge = pod("huge", "shop", "huge");
    for index in 0..20_000 {
        huge["metadata"]["labels"][format!("label-{index}")] = json!("v".repeat(60));
    }
    huge["metadata"]["annotations"]["large"] = json!("x".repeat(200_000));
    api.put(huge.clone());
    let side = Side::start(&api);
    side.wait_known();
    let facts = side.pod("huge").unwrap();
    assert!(facts.cut && serde_json::to_string(&facts.labels).unwrap().len() <= 16 << 10);
    assert_eq!(side.count(&["pods_cut_total"]), 1.0);
    api.put(huge);
    api.put(pod("4", "shop", "next"));
    side.wait("the next", || side.label("4").is_some());
    assert_eq!(side.count(&["pods_cut_total"]), 1.0, "counted once");
}

#[test]
fn the_thread_ends_with_what_started_it() {
    let api = world();
    let mut states = Vec::new();
    for silent in [false, true] {
        api.faults(|faults| faults.silent = silent);
        let side = Side::start(&api);
        if !silent {
            side.wait_known();
        }
        let shared = Arc::downgrade(&side.pods.shared);
        drop(side);
        let begun = Clock::now();
        while shared.upgrade().is_some() && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        let mut state = String::new();
        write!(state, "{silent} {}", shared.upgrade().is_none()).unwrap();
        states.push(state);
    }
    assert_eq!(states, ["false true", "true true"]);
}
