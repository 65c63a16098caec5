//! The budget of held bytes: what goes first, what is said of it, and that nothing else is lost.

use super::notices::{even, said};
use super::*;

const OTHER: &str = "shop_web_uid-2";

/// A node whose Kafka is away, with rotated files that only the router keeps: `files` of `lines` lines each, for each of the pods.
fn outage(node: &mut Node, files: usize, lines: usize) {
    node.topics.set("logs.payments", TopicState::Unknown);
    node.lines("0.log", 0, lines);
    node.start();
    for file in 1..files {
        node.rotate(&format!("T{file}"));
        node.lines("0.log", file * lines, lines);
        node.rounds(2);
    }
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(2);
}

/// Reports, which keeps the budget, and stores what follows.
fn keep(node: &mut Node) {
    for _ in 0..3 {
        let worker = node.worker.as_mut().unwrap();
        worker.report();
        worker.commit();
    }
}

fn back(node: &mut Node) -> Vec<Vec<u8>> {
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.finish_all()
}

#[test]
fn beyond_the_budget_the_oldest_files_go_whole_and_exactly_that_is_announced() {
    let mut node = Node::new();
    // A file of 100 lines fills two blocks of 4 KiB on disk.
    node.settings.budget.bytes_max = 24 << 10;
    outage(&mut node, 6, 100);
    keep(&mut node);
    assert_eq!(node.held(), 3);
    even(&node, "released");
    node.kill(0);
    node.start();
    assert_eq!(node.held(), 3, "a release is durable");
    let stored = back(&mut node);
    let lines: Vec<_> = logs(&stored);
    assert_eq!(lines, (300..600).map(|n| format!("line {n}")).collect::<Vec<_>>());
    let notices = notices(&stored);
    let gap = (NoticeKind::Gap, "1".to_owned(), 0, Some(300), Some(LossReason::Budget));
    let end = (NoticeKind::EndOfStream, "1".to_owned(), 600, Some(600), None);
    assert_eq!(said(&notices), [gap, end]);
    let seqs: Vec<_> = records(&stored).iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, (300..600).collect::<Vec<_>>(), "the numbers go on behind what is announced");
}

#[test]
fn the_namespace_that_holds_most_pays() {
    let mut node = Node::new();
    node.settings.budget.bytes_max = 20 << 10;
    node.topics.set("logs.shop", TopicState::Unknown);
    let dir = node.settings.pods_dir.join(OTHER).join("web");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("0.log"), format!("{TIME} stdout F from shop\n")).unwrap();
    outage(&mut node, 4, 100);
    fs::remove_dir_all(node.settings.pods_dir.join(OTHER)).unwrap();
    node.rounds(2);
    keep(&mut node);
    node.topics.set("logs.shop", TopicState::Ready { partitions: 1 });
    let stored = back(&mut node);
    let logs = logs(&stored);
    assert!(logs.contains(&"from shop".to_owned()), "the small one lost nothing: {:?}", said(&notices(&stored)));
    assert_eq!(logs.len(), 201, "two files of the large one went");
}

#[test]
fn room_on_the_disk_is_kept_and_the_last_file_of_a_pod_that_is_gone_may_go() {
    let mut node = Node::new();
    outage(&mut node, 2, 100);
    node.worker.as_mut().unwrap().settings.budget.free_min = FreeMin::Bytes(u64::MAX);
    keep(&mut node);
    assert_eq!(node.held(), 0);
    let stored = back(&mut node);
    let gap = (NoticeKind::Gap, "1".to_owned(), 0, Some(200), Some(LossReason::Budget));
    let end = (NoticeKind::EndOfStream, "1".to_owned(), 200, Some(200), None);
    assert_eq!(said(&notices(&stored)), [gap, end]);
}

#[test]
fn what_was_on_its_way_and_arrives_is_not_announced_as_lost() {
    let mut node = Node::new();
    node.lines("0.log", 0, 100);
    node.start();
    node.rounds(6);
    assert_eq!(node.sink.borrow().in_flight(), 100);
    node.rotate("T1");
    node.lines("0.log", 100, 100);
    node.rounds(2);
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(1);
    node.worker.as_mut().unwrap().settings.budget.free_min = FreeMin::Bytes(u64::MAX);
    keep(&mut node);
    assert_eq!(node.held(), 0);
    node.settle();
    even(&node, "arrived after all");
    let stored = node.finish_all();
    let announced: u64 =
        notices(&stored).iter().filter(|notice| notice.kind == NoticeKind::Gap).filter_map(|notice| notice.lines).sum();
    assert_eq!(logs(&stored).len() as u64 + announced, 200, "{:?}", said(&notices(&stored)));
}

#[test]
fn what_the_kubelet_still_names_costs_nothing_and_stays() {
    let mut node = Node::new();
    node.topics.set("logs.payments", TopicState::Unknown);
    node.lines("0.log", 0, 100);
    node.start();
    node.rotate("T1");
    node.lines("0.log", 100, 100);
    node.rounds(2);
    node.worker.as_mut().unwrap().settings.budget =
        Budget { bytes_max: 0, namespace_bytes_max: 0, free_min: FreeMin::Bytes(u64::MAX) };
    keep(&mut node);
    assert_eq!(node.held(), 2);
    assert_eq!(logs(&back(&mut node)), expected(200));
}
