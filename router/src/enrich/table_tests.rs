use super::*;
use crate::enrich::ContainerFacts;

/// A pod `uid` of `namespace`, made in that second; its name is `name-UID`.
fn pod(uid: &str, namespace: &str, second: i64) -> Pruned {
    Pruned {
        uid: uid.to_owned(),
        name: format!("name-{uid}"),
        created: Some(Timestamp::from_second(second).unwrap()),
        mirror: None,
        facts: PodFacts { namespace: namespace.to_owned(), ..PodFacts::default() },
    }
}

fn labelled(mut pod: Pruned, value: &str) -> Pruned {
    pod.facts.labels.insert("app".to_owned(), value.to_owned());
    pod
}

fn answer(uid: &str, second: i64) -> Answer {
    Answer { uid: uid.to_owned(), created: Some(Timestamp::from_second(second).unwrap()), labels: BTreeMap::new() }
}

fn find(table: &Table, uid: &str) -> Option<Arc<PodFacts>> {
    table.find(PodPath { namespace: "ns", pod: "pod", uid })
}

/// The namespace's UID that a pod is known to be in.
fn namespace_of(table: &Table, uid: &str) -> Option<String> {
    find(table, uid).unwrap().namespace_id.clone()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_pod_is_known_by_its_uid_and_a_change_is_told_once() {
    let (mut table, now) = (Table::default(), Instant::now());
    assert!(table.apply(labelled(pod("1", "a", 10), "x")).facts);
    assert!(!table.apply(labelled(pod("1", "a", 10), "x")).facts, "nothing is new");
    let before = find(&table, "1").unwrap();
    assert!(table.apply(labelled(pod("1", "a", 10), "y")).facts);
    assert_eq!((&before.labels["app"], &find(&table, "1").unwrap().labels["app"]), (&"x".to_owned(), &"y".to_owned()));
    assert!(find(&table, "2").is_none());
    assert_eq!(table.counts(), (1, 0));
    assert!(!find(&table, "1").unwrap().gone);
    assert!(table.delete(labelled(pod("1", "a", 10), "y"), now).facts, "it is gone, which is news");
    assert!(table.delete(labelled(pod("1", "a", 10), "z"), now).facts);
    assert!(!table.delete(labelled(pod("1", "a", 10), "z"), now).facts);
    let facts = find(&table, "1").unwrap();
    assert_eq!((facts.labels["app"].as_str(), facts.gone, table.counts()), ("z", true, (0, 1)));
}

#[test]
fn a_pod_that_is_gone_stays_for_a_while() {
    let (mut table, start) = (Table::default(), Instant::now());
    table.apply(pod("1", "a", 10));
    table.delete(pod("1", "a", 10), start);
    table.delete(pod("never-seen", "a", 10), start + seconds(60));
    assert_eq!(table.forget_gone(start + seconds(60)), (false, Some(start + GONE_AGE_MAX)));
    assert!(find(&table, "1").is_some() && find(&table, "never-seen").is_some());
    let later = start + GONE_AGE_MAX;
    assert_eq!(table.forget_gone(later), (true, Some(later + seconds(60))));
    assert!(find(&table, "1").is_none() && find(&table, "never-seen").is_some());
    assert_eq!(table.forget_gone(later + seconds(60)), (true, None));
    assert_eq!((table.counts(), table.bytes), ((0, 0), 0));
}

#[test]
fn a_pod_that_comes_back_from_an_older_list_is_there_again() {
    let (mut table, start) = (Table::default(), Instant::now());
    table.apply(pod("1", "a", 10));
    table.delete(pod("1", "a", 10), start);
    table.begin_list();
    table.listed(pod("1", "a", 10));
    table.end_list(start);
    assert_eq!((table.counts(), find(&table, "1").unwrap().gone), ((1, 0), false));
    assert_eq!(table.forget_gone(start + GONE_AGE_MAX), (false, None));
    table.delete(pod("1", "a", 10), start + seconds(1));
    assert_eq!((table.counts(), find(&table, "1").is_some()), ((0, 1), true));
}

#[test]
fn who_is_not_in_a_new_list_is_gone() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.begin_list();
    for uid in ["1", "2"] {
        assert!(table.listed(pod(uid, "a", 10)).facts, "the first list is told as it comes");
        assert!(find(&table, uid).is_some());
    }
    table.end_list(now);
    table.begin_list();
    table.listed(pod("2", "a", 10));
    table.listed(pod("3", "a", 10));
    assert!(find(&table, "3").is_none() && table.counts() == (2, 0), "not before the list is whole");
    // It broke off, and began anew.
    table.begin_list();
    table.listed(pod("2", "a", 10));
    table.listed(pod("4", "a", 10));
    assert!(table.end_list(now).facts);
    assert_eq!((find(&table, "3").is_some(), find(&table, "4").is_some(), table.counts()), (false, true, (2, 1)));
    assert!(find(&table, "1").unwrap().gone, "its lines may still come");
    table.forget_gone(now + GONE_AGE_MAX);
    assert!(find(&table, "1").is_none());
}

#[test]
fn a_namespace_is_asked_about_once_and_its_uid_is_on_all_its_pods() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.apply(pod("1", "a", 10));
    table.apply(pod("2", "a", 20));
    let ask = table.tenures().ask(now).unwrap();
    assert_eq!((&*ask.namespace, table.tenures().ask(now)), ("a", None));
    assert!(table.answer(&ask, answer("u", 5), None));
    table.apply(pod("3", "a", 30));
    assert_eq!(table.tenures().ask(now), None);
    for uid in ["1", "2", "3"] {
        assert_eq!(namespace_of(&table, uid).as_deref(), Some("u"));
    }
    assert!(!table.answer(&ask, answer("u", 5), None), "nothing is new");
    let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    assert!(table.answer(&ask, Answer { labels: labels.clone(), ..answer("u", 5) }, None));
    assert_eq!(find(&table, "1").unwrap().namespace_labels, labels);
    assert!(!table.apply(pod("1", "a", 10)).facts, "a pod that is told again keeps them");
}

#[test]
fn a_namespace_made_again_never_gives_its_uid_to_the_pods_of_the_old_one() {
    let (mut table, now) = (Table::default(), Instant::now());
    // The answer comes when the pod is gone and the namespace was made again, as another.
    table.apply(pod("1", "a", 10));
    let ask = table.tenures().ask(now).unwrap();
    table.delete(pod("1", "a", 10), now);
    table.apply(pod("2", "a", 10));
    assert!(!table.answer(&ask, answer("new", 10), None));
    assert_eq!([namespace_of(&table, "1"), namespace_of(&table, "2")], [None, None]);
    // The answer to the question of the old pod was given before the namespace went.
    assert!(table.answer(&ask, answer("old", 9), None));
    assert_eq!(namespace_of(&table, "1").as_deref(), Some("old"));
    assert_eq!(namespace_of(&table, "2"), None, "it was asked before this one came");
    let ask = table.tenures().ask(now).unwrap();
    assert!(table.answer(&ask, answer("new", 10), None));
    assert_eq!([namespace_of(&table, "1"), namespace_of(&table, "2")].map(Option::unwrap), ["old", "new"]);
    // Whoever is told of the new one under the old pods' question keeps what it has.
    table.apply(pod("2", "a", 10));
    assert!(!table.answer(&ask, answer("third", 9), None));
    assert_eq!(namespace_of(&table, "2").as_deref(), Some("new"));
}

#[test]
fn a_list_after_an_outage_tells_the_namespaces_apart() {
    let (mut table, now) = (Table::default(), Instant::now());
    for (uid, namespace) in [("1", "a"), ("stays", "b")] {
        table.apply(pod(uid, namespace, 10));
        let ask = table.tenures().ask(now).unwrap();
        table.answer(&ask, answer(&format!("old-{namespace}"), 5), None);
    }
    // Meanwhile the pod went, the namespace was made again, and another pod is there.
    table.begin_list();
    table.listed(pod("2", "a", 30));
    table.listed(pod("3", "b", 30));
    table.listed(pod("stays", "b", 10));
    table.end_list(now);
    assert_eq!(namespace_of(&table, "2"), None);
    assert_eq!(namespace_of(&table, "3").as_deref(), Some("old-b"), "a pod of it was there all the time");
    let ask = table.tenures().ask(now).unwrap();
    table.answer(&ask, answer("new-a", 20), None);
    assert_eq!(namespace_of(&table, "2").as_deref(), Some("new-a"));
    assert_eq!(namespace_of(&table, "1").as_deref(), Some("old-a"));
}

#[test]
fn a_pod_that_was_gone_before_its_namespace_was_asked_about_gets_its_uid() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.apply(pod("1", "a", 10));
    table.delete(pod("1", "a", 10), now);
    let ask = table.tenures().ask(now).unwrap();
    assert!(table.answer(&ask, answer("u", 9), None));
    assert_eq!(namespace_of(&table, "1").as_deref(), Some("u"));
}

#[test]
fn a_static_pod_is_known_by_its_hash_and_its_mirrors_uid() {
    let mirror = |uid: &str, namespace: &str, name: &str, hash: &str| Pruned {
        name: name.to_owned(),
        mirror: Some(hash.to_owned()),
        ..labelled(pod(uid, namespace, 10), uid)
    };
    let (mut table, now) = (Table::default(), Instant::now());
    let find = |table: &Table, namespace, pod, uid| {
        table.find(PodPath { namespace, pod, uid }).map(|facts| facts.labels["app"].clone())
    };
    // Whoever may make a pod may write the annotation. The hash, and the UID of another pod.
    table.apply(mirror("evil-1", "evil", "etcd-node-1", "hash"));
    table.apply(mirror("evil-2", "evil", "x", "victim"));
    assert_eq!(find(&table, "kube-system", "etcd-node-1", "hash"), None);
    table.apply(mirror("true", "kube-system", "etcd-node-1", "hash"));
    table.apply(mirror("evil-3", "evil", "etcd-node-1", "hash"));
    table.apply(labelled(pod("victim", "payments", 10), "victim"));
    assert_eq!(find(&table, "kube-system", "etcd-node-1", "hash").as_deref(), Some("true"));
    assert_eq!(find(&table, "kube-system", "etcd-node-1", "true").as_deref(), Some("true"));
    assert_eq!(find(&table, "payments", "name-victim", "victim").as_deref(), Some("victim"));
    // Its manifest did not change, but the mirror was deleted and made again.
    table.delete(mirror("true", "kube-system", "etcd-node-1", "hash"), now);
    assert_eq!(
        find(&table, "kube-system", "etcd-node-1", "hash").as_deref(),
        Some("true"),
        "gone, and known for a while"
    );
    table.apply(mirror("again", "kube-system", "etcd-node-1", "hash"));
    table.apply(mirror("true", "kube-system", "etcd-node-1", "hash"));
    table.delete(mirror("true", "kube-system", "etcd-node-1", "hash"), now);
    assert_eq!(find(&table, "kube-system", "etcd-node-1", "hash").as_deref(), Some("again"), "the one that is there");
    // The manifest changed: another hash, the old one is known for as long as its mirror is.
    table.apply(mirror("again", "kube-system", "etcd-node-1", "hash-2"));
    assert_eq!(find(&table, "kube-system", "etcd-node-1", "hash-2").as_deref(), Some("again"));
    table.forget_gone(now + GONE_AGE_MAX);
    assert_eq!(find(&table, "kube-system", "etcd-node-1", "hash"), None);
    assert_eq!(table.mirrors.len(), 3, "nothing is left of what is gone: {:?}", table.mirrors);
}

#[test]
fn the_nodes_labels_are_on_pods_that_are_there() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.apply(pod("1", "a", 10));
    table.apply(pod("2", "a", 10));
    table.delete(pod("2", "a", 10), now);
    let labels = BTreeMap::from([("zone".to_owned(), "z1".to_owned())]);
    assert!(table.label_node(labels.clone()) && !table.label_node(labels.clone()));
    table.apply(pod("3", "a", 10));
    let of = |table: &Table, uid| find(table, uid).unwrap().node_labels.len();
    assert_eq!([of(&table, "1"), of(&table, "2"), of(&table, "3")], [1, 0, 1]);
    table.delete(pod("3", "a", 10), now);
    table.label_node(BTreeMap::new());
    assert_eq!([of(&table, "1"), of(&table, "3")], [0, 1], "as it was when it went");
}

#[test]
fn pods_are_bounded_and_one_namespace_pays_for_its_own() {
    let (mut table, now) = (Table::default(), Instant::now());
    table.apply(pod("quiet", "quiet", 10));
    table.apply(pod("gone", "quiet", 10));
    table.delete(pod("gone", "quiet", 10), now);
    let mut forgotten = 0;
    let flood = PODS_MAX + 200;
    for index in 0..flood {
        forgotten += table.apply(pod(&format!("flood-{index}"), "flood", 10)).forgotten;
    }
    assert_eq!((table.counts(), forgotten), ((PODS_MAX, 0), flood + 1 - PODS_MAX));
    assert!(find(&table, "quiet").is_some() && find(&table, "gone").is_none());
    // Fewer and larger ones.
    let mut table = Table::default();
    table.apply(pod("quiet", "quiet", 10));
    for index in 0..200 {
        let mut large = pod(&format!("large-{index}"), "flood", 10);
        for container in 0..256 {
            let image = Some("i".repeat(1_000));
            let container_facts = ContainerFacts { image, ..ContainerFacts::default() };
            large.facts.containers.insert(format!("c{container}"), container_facts);
        }
        table.apply(large);
    }
    assert!(table.bytes <= BYTES_MAX && table.counts().0 < 60, "{} bytes, {:?}", table.bytes, table.counts());
    assert!(find(&table, "quiet").is_some());
    // Those that are gone are bounded too.
    let mut table = Table::default();
    for index in 0..2 * GONE_MAX {
        table.apply(pod(&index.to_string(), "a", 10));
        table.delete(pod(&index.to_string(), "a", 10), now);
        table.forget_gone(now);
    }
    assert_eq!(table.counts(), (0, GONE_MAX));
}
