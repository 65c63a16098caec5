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
        worker.keep_budget();
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
fn a_gap_whose_delivery_fails_while_later_lines_arrive_is_told_all_the_same() {
    let mut node = Node::new();
    node.settings.budget.bytes_max = 8 << 10;
    outage(&mut node, 2, 100);
    keep(&mut node);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.sink.borrow().in_flight() < 2 {
        assert!(Instant::now() < deadline, "nothing is sent");
        node.rounds(1);
    }
    // The notice was sent first; what is behind it arrives.
    node.sink.borrow_mut().fail(1, FailureKind::Retry, false);
    node.sink.borrow_mut().acknowledge(usize::MAX);
    node.settle();
    even(&node, "the gap was sent again");
    let stored = node.finish_all();
    let gap = (NoticeKind::Gap, "1".to_owned(), 0, Some(100), Some(LossReason::Budget));
    assert!(said(&notices(&stored)).contains(&gap), "{:?}", said(&notices(&stored)));
    assert_eq!(logs(&stored).len(), 100);
}

#[test]
fn a_release_before_a_restart_leaves_the_account_even() {
    let mut node = Node::new();
    node.settings.budget.bytes_max = 8 << 10;
    outage(&mut node, 2, 100);
    keep(&mut node);
    node.kill(0);
    node.start();
    even(&node, "owed since the last router");
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    even(&node, "told");
}

#[test]
fn a_run_that_breaks_behind_which_another_goes_on_leaves_that_alone() {
    let mut node = Node::new();
    node.topics.set("logs.payments", TopicState::Unknown);
    node.lines("0.log", 0, 100);
    node.start();
    node.rotate("T1");
    node.lines("0.log", 100, 100);
    node.rounds(2);
    node.kill(0);
    // Two rotations while it was away, the first of them gone.
    node.rotate("T2");
    fs::remove_file(node.dir().join("0.log.T1")).unwrap();
    fs::remove_file(node.dir().join("0.log.T2")).unwrap();
    node.lines("0.log", 300, 1);
    node.rotate("T3");
    node.lines("0.log", 400, 1);
    node.start();
    node.rounds(2);
    let held = node.settings.state_dir.join("held").join(POD).join("api/0.0");
    fs::remove_file(held).unwrap();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    node.lines("0.log", 401, 1);
    let stored = node.finish_all();
    let logs = logs(&stored);
    let last: Vec<_> = logs.iter().rev().take(2).cloned().collect();
    assert_eq!(last, ["line 401", "line 400"], "the live file is read on: {logs:?}");
    let place = |line: &str| logs.iter().position(|log| log == line).unwrap();
    assert!(place("line 199") < place("line 400"), "what was left of the broken run comes before");
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
