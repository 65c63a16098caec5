//! What Kubernetes knows of pods: when it is waited for, what records say of it, and what it never changes.

use super::*;
use crate::enrich::{ContainerFacts, Owner, PodFacts, Standing};

pub(super) const UID: &str = "0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f";
const SHOP: &str = "shop_web-0_uid-2/web";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// All that can be known of the node's pod.
pub(super) fn facts() -> PodFacts {
    let api = ContainerFacts {
        image: Some("registry.example/pay/api:1.9".to_owned()),
        ids: [(0, "f3a9d1c04be27785a1c6d9e0f2b34c5d6e7f8091a2b3c4d5e6f708192a3b4c5d".to_owned())].into(),
    };
    PodFacts {
        namespace: "payments".to_owned(),
        namespace_id: Some("5c0d2b1e-7a43-4d0f-8e55-2b6d1f0a9c77".to_owned()),
        labels: map(&[("app", "api"), ("app.kubernetes.io/version", "1.9"), ("pod-template-hash", "7d9f4")]),
        annotations: map(&[("example.com/on-call", "team \"pay\"\nroom 7")]),
        namespace_labels: map(&[("team", "pay")]),
        node_labels: map(&[("topology.kubernetes.io/zone", "b")]),
        owner: Some(Owner { kind: "Deployment".to_owned(), name: "api".to_owned() }),
        containers: [("api".to_owned(), api)].into(),
        ..PodFacts::default()
    }
}

/// What is known before the namespace was asked and the kubelet has told of the container.
pub(super) fn partial_facts() -> PodFacts {
    let mut facts = facts();
    facts.containers.values_mut().for_each(|container| container.ids.clear());
    PodFacts {
        namespace_id: None,
        annotations: BTreeMap::new(),
        namespace_labels: BTreeMap::new(),
        node_labels: BTreeMap::new(),
        ..facts
    }
}

/// A node that asks the API server, and waits as long as it may.
fn asking(standing: Standing) -> Node {
    let mut node = Node::new();
    node.settings.metadata_wait = Duration::from_secs(3_600);
    node.pods.stand(standing);
    node
}

fn write_to(node: &Node, folder: &str, text: &str) {
    let folder = node.settings.pods_dir.join(folder);
    fs::create_dir_all(&folder).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("0.log")).unwrap();
    file.write_all(format!("{TIME} stdout F {text}\n").as_bytes()).unwrap();
}

/// Topics of what was handed over, in order.
fn topics(node: &Node) -> Vec<String> {
    let sink = node.sink.borrow();
    sink.stored.iter().chain(&sink.queue).map(|sent| sent.topic.clone()).collect()
}

/// As if what waits had waited as long as it may.
fn time_is_over(node: &mut Node) {
    let worker = node.worker.as_mut().unwrap();
    worker.settings.metadata_wait = Duration::ZERO;
    worker.again.values_mut().for_each(|at| *at = Instant::now());
    worker.again_at = Instant::now();
}

/// `metadata`, the label `app` and the number of each record.
fn marks(stored: &[Vec<u8>]) -> Vec<(Option<String>, Option<String>, u64)> {
    let of = |value: &Vec<u8>| {
        let record = Record::parse(value).unwrap();
        let label = record.kubernetes.labels.and_then(|labels| labels.get("app").cloned());
        (record.fairlead.metadata.map(|metadata| metadata.into_owned()), label, record.fairlead.seq)
    };
    records(stored).iter().map(of).collect()
}

fn complete(label: &str, seq: u64) -> (Option<String>, Option<String>, u64) {
    (None, Some(label.to_owned()), seq)
}

fn stored_pods(node: &Node) -> Vec<String> {
    Store::open(&node.settings.state_dir).unwrap().pods.into_keys().collect()
}

#[test]
fn a_new_container_waits_for_its_pod_by_not_being_read_and_nobody_else_waits() {
    let mut node = asking(Standing::Known);
    node.pods.set("uid-2", PodFacts { namespace: "shop".to_owned(), gone: true, ..PodFacts::default() });
    node.lines("0.log", 0, 3);
    node.start();
    write_to(&node, SHOP, "from shop");
    node.rounds(20);
    assert_eq!(topics(&node), ["logs.shop"]);
    let worker = node.worker.as_mut().unwrap();
    let waiting = worker.instances.values().find(|instance| !instance.begun).unwrap();
    assert_eq!(waiting.epochs[0].cursor, crate::tail::Place::default(), "it is held, and not read");
    assert_eq!((worker.pods.is_waited_for(), node.held()), (true, 2));
    node.pods.set(UID, facts());
    let stored = node.finish();
    assert_eq!(marks(&stored)[1..], [complete("api", 0), complete("api", 1), complete("api", 2)]);
}

#[test]
fn what_does_not_come_in_time_is_said_by_the_mark() {
    let check = |pods: Standing, namespaces: Standing, known: Option<PodFacts>, waits: bool, mark: Option<&str>| {
        let what = format!("{pods:?}, {namespaces:?}, {known:?}");
        let mut node = asking(pods);
        node.pods.namespaces_stand(namespaces);
        known.into_iter().for_each(|facts| node.pods.set(UID, facts));
        node.lines("0.log", 0, 1);
        node.start();
        node.rounds(5);
        assert_eq!(topics(&node).is_empty(), waits, "{what}");
        time_is_over(&mut node);
        let stored = node.finish();
        assert_eq!(Record::parse(&stored[0]).unwrap().fairlead.metadata.as_deref(), mark, "{what}");
    };
    use Standing::{Away, Known, Off, Starting};
    let without_id = || {
        let mut facts = facts();
        facts.containers.values_mut().for_each(|container| container.ids.clear());
        facts
    };
    let without_namespace = || PodFacts { namespace_id: None, ..facts() };
    check(Off, Off, None, false, Some("path"));
    check(Away, Away, None, false, Some("path"));
    check(Starting, Starting, None, true, Some("path"));
    check(Known, Known, None, true, Some("partial"));
    check(Known, Known, Some(without_id()), true, Some("partial"));
    check(Known, Known, Some(without_namespace()), true, Some("partial"));
    check(Known, Away, Some(without_namespace()), false, Some("partial"));
    check(Known, Known, Some(PodFacts { gone: true, ..without_id() }), false, Some("partial"));
    check(Known, Known, Some(PodFacts { cut: true, ..facts() }), false, Some("partial"));
    check(Known, Away, Some(facts()), false, None);
    check(Starting, Starting, Some(facts()), false, None);
}

#[test]
fn what_changes_is_said_from_then_on_under_the_same_numbers() {
    let mut node = asking(Standing::Known);
    node.pods.set(UID, facts());
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    let writes = |node: &Node| node.worker.as_ref().unwrap().parts.metrics.store_writes.get();
    let before = writes(&node);
    // The same once more, as most news of a pod are for us.
    node.pods.set(UID, facts());
    node.settle();
    assert_eq!(writes(&node), before, "what says nothing new is not stored");
    node.pods.set(UID, PodFacts { labels: map(&[("app", "other")]), ..facts() });
    node.lines("0.log", 2, 2);
    node.settle();
    node.pods.forget(UID);
    node.pods.stand(Standing::Away);
    node.lines("0.log", 4, 1);
    let stored = node.finish();
    let expected =
        [complete("api", 0), complete("api", 1), complete("other", 2), complete("other", 3), complete("other", 4)];
    assert_eq!(marks(&stored), expected);
    let sources: BTreeSet<_> =
        stored.iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect();
    assert_eq!(sources.len(), 1);
}

#[test]
fn facts_are_kept_for_the_lines_of_a_pod_that_is_gone_and_no_longer() {
    let mut node = asking(Standing::Known);
    node.topics.set("logs.payments", TopicState::Unknown);
    node.pods.set(UID, facts());
    node.lines("0.log", 0, 2);
    node.start();
    node.rounds(3);
    node.worker.as_mut().unwrap().commit();
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(3);
    node.kill(0);
    node.pods.forget(UID);
    node.pods.stand(Standing::Away);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    assert_eq!(stored_pods(&node), [POD]);
    node.start();
    let stored = node.finish();
    assert_eq!(marks(&stored), [complete("api", 0), complete("api", 1)]);
    assert!(stored_pods(&node).is_empty(), "forgotten with the last of its lines");
}

#[test]
fn what_was_known_is_forgotten_when_nobody_asks_any_more() {
    let mut node = asking(Standing::Known);
    node.pods.set(UID, facts());
    node.lines("0.log", 0, 1);
    node.start();
    node.settle();
    node.stop();
    assert_eq!(stored_pods(&node), [POD]);
    node.pods = Arc::default();
    node.lines("0.log", 1, 1);
    node.start();
    let stored = node.finish();
    assert_eq!(marks(&stored), [complete("api", 0), (Some("path".to_owned()), None, 1)]);
    assert!(stored_pods(&node).is_empty());
}

#[test]
fn a_pod_of_another_namespace_is_held_back_and_told_of() {
    let elsewhere = || PodFacts { namespace: "shop".to_owned(), ..facts() };
    let mut node = asking(Standing::Known);
    node.pods.set(UID, elsewhere());
    node.lines("0.log", 0, 2);
    node.start();
    node.rounds(20);
    assert!(topics(&node).is_empty(), "neither to its path's team nor to the other one");
    let worker = node.worker.as_mut().unwrap();
    worker.report();
    assert_eq!(worker.parts.metrics.pods_elsewhere.get(), 1);
    let report = worker.parts.readiness.report();
    assert!(report.contains(POD), "{report}");
    worker.commit();
    // It is known after a restart too, whoever can be asked then.
    node.kill(0);
    node.pods.stand(Standing::Away);
    node.pods.forget(UID);
    node.start();
    node.rounds(20);
    assert!(topics(&node).is_empty());
    node.pods.set(UID, facts());
    node.settle();
    assert_eq!(logs(&node.sink.borrow().stored.iter().map(|sent| sent.value.clone()).collect::<Vec<_>>()).len(), 2);
    // And while lines flow.
    node.pods.set(UID, elsewhere());
    node.rounds(1);
    node.lines("0.log", 2, 1);
    node.rounds(10);
    assert_eq!(topics(&node).len(), 2);
    node.pods.set(UID, facts());
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn labels_that_leave_no_room_are_left_out_and_park_nobody() {
    let mut node = asking(Standing::Known);
    let long = "x".repeat(3_000);
    node.pods.set(UID, PodFacts { annotations: map(&[("example.com/long", &long)]), ..facts() });
    node.topics.limit("logs.payments", 4_096);
    node.lines("0.log", 0, 3);
    node.write("0.log", b"what notices speak of\n");
    node.start();
    node.settle();
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    let stored = node.finish_all();
    assert!(stored.iter().all(|value| value.len() <= 4_096));
    assert_eq!(logs(&stored), expected(3));
    assert!(notices(&stored).len() >= 2);
    let partial = |seq| (Some("partial".to_owned()), None, seq);
    assert_eq!(marks(&stored), [partial(0), partial(1), partial(2)]);
}

/// Annotations of ours, without their prefix.
fn wishing(wishes: &[(&str, &str)]) -> PodFacts {
    PodFacts { wishes: map(wishes), ..facts() }
}

/// The texts that records have once more as objects.
fn processed(stored: &[Vec<u8>]) -> Vec<Option<String>> {
    let of = |value: &Vec<u8>| Record::parse(value).unwrap().log_processed.map(|object| object.get().to_owned());
    records(stored).iter().map(of).collect()
}

#[test]
fn json_is_parsed_where_it_is_asked_for_and_as_long_as_it_is() {
    let object = |n: usize| format!(r#"{{"n":{n}}}"#);
    let write = |node: &Node, n: usize| {
        for stream in ["stdout", "stderr"] {
            node.write("0.log", format!("{TIME} {stream} F {}\n", object(n)).as_bytes());
        }
    };
    let mut node = asking(Standing::Known);
    node.pods.set(UID, wishing(&[("parse-json", "other,api:stderr")]));
    write(&node, 0);
    node.start();
    node.settle();
    node.pods.set(UID, wishing(&[("parse-json", "true")]));
    node.rounds(1);
    write(&node, 1);
    node.settle();
    node.pods.set(UID, wishing(&[]));
    node.rounds(1);
    write(&node, 2);
    let stored = node.finish();
    let (zero, one) = (Some(object(0)), Some(object(1)));
    assert_eq!(processed(&stored), [None, zero, one.clone(), one, None, None]);
    let numbers: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(numbers, [0, 0, 1, 1, 2, 2], "and no number depends on it");
}

#[test]
fn what_is_no_whole_object_goes_without_and_is_counted() {
    let mut node = asking(Standing::Known);
    node.pods.set(UID, wishing(&[("parse-json", "*:stdout")]));
    node.settings.limits.record_bytes_max = 256;
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(400));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    for text in ["text", &long, &deep, r#"{"a":1}"#] {
        node.write("0.log", format!("{TIME} stdout F {text}\n").as_bytes());
    }
    node.write("0.log", format!("{TIME} stdout P {{\"joined\":\n{TIME} stdout F 1}}\n").as_bytes());
    node.start();
    node.settle();
    let namespace = Namespace::parse("payments").unwrap();
    let metrics = node.worker.as_ref().unwrap().parts.metrics.clone();
    let counted =
        ["no_object", "too_long", "too_deep", "processed"].map(|result| metrics.json_records(&namespace, result).get());
    assert_eq!(counted, [1, 1, 1, 2]);
    let texts: Vec<_> = processed(&node.finish()).into_iter().flatten().collect();
    assert_eq!(texts, [r#"{"a":1}"#, r#"{"joined":1}"#]);
}

#[test]
fn an_annotation_that_nobody_understands_counts_as_absent_and_its_pods_readers_are_told() {
    let told = |stored: &[Vec<u8>]| -> Vec<(Vec<String>, u64)> {
        let of_settings = notices(stored).into_iter().filter(|notice| notice.kind == NoticeKind::Settings);
        of_settings.map(|notice| (notice.annotations, notice.seq)).collect()
    };
    let mut node = asking(Standing::Known);
    node.pods.set(UID, wishing(&[("exclude", "yes please"), ("parse-json", "true")]));
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.kill(0);
    // A restart tells nothing anew; a change does, and a container that comes later has its own readers.
    node.start();
    node.settle();
    node.pods.set(UID, wishing(&[("exclud", "true")]));
    node.lines("0.log", 2, 1);
    node.settle();
    node.write("1.log", format!("{TIME} stdout F again\n").as_bytes());
    time_is_over(&mut node);
    let stored = node.finish_all();
    assert_eq!(logs(&stored).len(), 4, "all lines are there");
    let exclude = vec!["fairlead.dev/exclude".to_owned()];
    let other = vec!["fairlead.dev/exclud".to_owned()];
    assert_eq!(told(&stored), [(exclude, 0), (other.clone(), 2), (other, 0)]);
    let sentence = stored.iter().find(|value| is_notice(value)).unwrap();
    assert!(Record::parse(sentence).unwrap().log.contains("fairlead.dev/exclude"));
}
