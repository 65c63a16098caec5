//! What a team is told of its lines: gaps, bad lines, lines cut short, ends; and that the router's account is even.

use fairlead_contract::topic::{Delivery, TopicRule};
use prometheus_client::encoding::text::encode;

use super::*;

/// Kind, last part of the source, seq, lines, reason.
pub(super) type Said = (NoticeKind, String, u64, Option<u64>, Option<LossReason>);

pub(super) fn said(notices: &[Notice<'_>]) -> Vec<Said> {
    let fd = |notice: &Notice<'_>| notice.source.rsplit('/').next().unwrap().to_owned();
    notices.iter().map(|notice| (notice.kind, fd(notice), notice.seq, notice.lines, notice.reason)).collect()
}

fn end(fd: &str, lines: u64) -> Said {
    (NoticeKind::EndOfStream, fd.to_owned(), lines, Some(lines), None)
}

fn gap(fd: &str, seq: u64, lines: Option<u64>, reason: LossReason) -> Said {
    (NoticeKind::Gap, fd.to_owned(), seq, lines, Some(reason))
}

/// A gap of unknown size: it may be of either stream.
fn both(seq: u64, reason: LossReason) -> [Said; 2] {
    [gap("1", seq, None, reason), gap("2", 0, None, reason)]
}

fn remove_pod(node: &Node) {
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
}

#[test]
fn a_stream_that_ended_says_how_much_it_was() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.write("0.log", format!("{TIME} stderr F one\n").as_bytes());
    node.start();
    node.rotate("T1");
    node.lines("0.log", 3, 2);
    node.settle();
    remove_pod(&node);
    let stored = node.finish_all();
    assert_eq!(said(&notices(&stored)), [end("1", 5), end("2", 1)]);
    let bytes: Vec<_> = notices(&stored).iter().map(|notice| notice.bytes.unwrap()).collect();
    let line = |text: &str| (TIME.len() + text.len() + " stdout F \n".len()) as u64;
    assert_eq!(bytes, [5 * line("line 0"), line("one")]);
    assert_eq!(node.held(), 0, "a notice that is acknowledged holds nothing");
}

#[test]
fn lines_that_cannot_be_parsed_are_announced_run_by_run() {
    let mut node = Node::new();
    node.lines("0.log", 0, 1);
    node.write("0.log", b"half a li\nnonsense\n");
    node.lines("0.log", 1, 1);
    node.write("0.log", b"again\n");
    node.lines("0.log", 2, 1);
    node.write("0.log", b"torn");
    node.start();
    node.settle();
    node.write("1.log", b"");
    let stored = node.finish_all();
    let bad = |seq: u64, lines: u64| (NoticeKind::ParseErrors, "0".to_owned(), seq, Some(lines), None);
    assert_eq!(said(&notices(&stored)), [bad(0, 2), bad(2, 1), bad(3, 1), end("0", 4), end("1", 3)]);
    assert_eq!(logs(&stored), expected(3));
}

#[test]
fn a_notice_that_was_not_delivered_is_owed_after_a_crash() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.write("0.log", b"nonsense\n");
    node.lines("0.log", 2, 1);
    node.start();
    node.rounds(4);
    node.kill(0);
    node.start();
    remove_pod(&node);
    node.rounds(6);
    node.kill(3);
    node.start();
    let stored = node.finish_all();
    let distinct: BTreeSet<_> = said(&notices(&stored)).into_iter().map(|said| (said.0, said.1, said.2)).collect();
    let expected_notices = [
        (NoticeKind::ParseErrors, "0".to_owned(), 0),
        (NoticeKind::EndOfStream, "0".to_owned(), 1),
        (NoticeKind::EndOfStream, "1".to_owned(), 3),
    ];
    assert_eq!(distinct, expected_notices.into_iter().collect());
    assert_eq!(logs(&stored).into_iter().collect::<BTreeSet<_>>(), expected(3).into_iter().collect());
}

#[test]
fn a_rotation_that_was_missed_is_a_gap_of_unknown_size() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.rotate("T2");
    node.lines("0.log", 4, 2);
    fs::remove_file(node.dir().join("0.log.T2")).unwrap();
    fs::write(node.dir().join("0.log.T2.gz"), b"").unwrap();
    node.start();
    let stored = node.finish_all();
    let notices = notices(&stored);
    assert_eq!(said(&notices), both(2, LossReason::CannotFollow));
    let next = notices[0].next_source.as_deref().unwrap();
    let sources: Vec<_> =
        stored.iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect();
    assert!(sources.iter().any(|source| source == next), "{next} is the run that goes on: {sources:?}");
}

#[test]
fn a_file_that_was_cut_short_is_a_gap() {
    let mut node = Node::new();
    node.lines("0.log", 0, 5);
    node.start();
    node.settle();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 5, 2);
    node.settle();
    let payments = Namespace::parse("payments").unwrap();
    let counted = node.worker.as_ref().unwrap().parts.metrics.gaps_announced(&payments, "truncated").get();
    assert_eq!(counted, 2, "one for each stream");
    let stored = node.finish_all();
    assert_eq!(said(&notices(&stored)), both(5, LossReason::Truncated));
    assert_eq!(logs(&stored), expected(7));
}

#[test]
fn a_gap_that_was_not_delivered_before_a_crash_is_told_after_it() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.rounds(4);
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 2, 1);
    node.rounds(4);
    node.kill(1);
    node.start();
    let stored = node.finish_all();
    assert_eq!(said(&notices(&stored)), both(0, LossReason::Truncated));
}

#[test]
fn records_of_a_truncated_file_that_fail_are_announced_and_counted() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.rounds(4);
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.rounds(4);
    node.sink.borrow_mut().fail(usize::MAX, FailureKind::Retry, false);
    node.lines("0.log", 3, 1);
    node.settle();
    even(&node, "truncated");
    let stored = node.finish_all();
    assert_eq!(said(&notices(&stored)), both(0, LossReason::Truncated));
    assert_eq!(logs(&stored), ["line 3"]);
}

#[test]
fn lost_positions_are_told() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    fs::remove_file(node.settings.state_dir.join("positions")).unwrap();
    node.start();
    let stored = node.finish_all();
    assert_eq!(said(&notices(&stored)), [gap("1", 0, None, LossReason::StateLost)]);
}

#[test]
fn another_topic_is_told_where_the_run_came_from() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.settings.topics = TopicMap::new("all.{namespace}", &[]).unwrap();
    node.lines("0.log", 2, 1);
    node.start();
    let stored = node.finish_all();
    assert_eq!(said(&notices(&stored)), [gap("1", 2, Some(0), LossReason::TopicChanged)]);
    assert_eq!(logs(&stored), expected(3));
}

#[test]
fn a_line_that_is_cut_off_says_so() {
    let mut node = Node::new();
    node.settings.limits.record_bytes_max = 10;
    node.settings.limits.too_long = TooLong::Truncate;
    node.write("0.log", format!("{TIME} stdout P 0123456\n{TIME} stdout F 789abc\n{TIME} stdout F short\n").as_bytes());
    node.start();
    let stored = node.finish_all();
    assert_eq!(logs(&stored), ["0123456789", "short"]);
    let notices = notices(&stored);
    assert_eq!(said(&notices), [(NoticeKind::Truncated, "1".to_owned(), 0, None, None)]);
    assert_eq!(notices[0].bytes, Some(3));
    let seqs: Vec<_> = records(&stored).iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, [0, 2]);
}

/// A node whose namespace has a rate of 64 KiB a second.
fn with_rate(delivery: Delivery) -> Node {
    let mut node = Node::new();
    let rule = TopicRule {
        namespaces: vec!["payments".to_owned()],
        topic: Some("logs.{namespace}".to_owned()),
        rate_bytes_per_second: Some(64 << 10),
        delivery,
        ..TopicRule::default()
    };
    node.settings.topics = TopicMap::new("logs.{namespace}", &[rule]).unwrap();
    node
}

#[test]
fn a_rate_leaves_out_the_oldest_lines_only_where_it_may_and_says_which() {
    let mut node = with_rate(Delivery::BestEffort);
    let line = format!("{TIME} stdout F {}\n", "x".repeat(1_000));
    node.write("0.log", line.repeat(2_000).as_bytes());
    node.start();
    node.sink.borrow_mut().acknowledge_all = true;
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.sink.borrow().stored.iter().filter(|sent| is_notice(&sent.value)).count() == 0 {
        assert!(Instant::now() < deadline, "nothing is left out");
        node.rounds(1);
    }
    even(&node, "throttled");
    let stored: Vec<_> = node.sink.borrow().stored.iter().map(|sent| sent.value.clone()).collect();
    let notices = notices(&stored);
    let left_out: u64 = notices.iter().map(|notice| notice.lines.unwrap()).sum();
    assert!(notices.iter().all(|notice| notice.kind == NoticeKind::Throttled), "{notices:?}");
    // Ten seconds of the rate may wait: 655,360 bytes of 2,064,000, and a read more or less.
    assert!((1_000..1_700).contains(&left_out), "{left_out}");
    let covered: BTreeSet<_> =
        records(&stored).iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    let announced: BTreeSet<_> =
        notices.iter().flat_map(|notice| notice.seq..notice.seq + notice.lines.unwrap()).collect();
    let highest = covered.iter().chain(&announced).max().unwrap();
    assert_eq!(covered.union(&announced).count() as u64, highest + 1, "covered and announced join without a hole");
    assert!(covered.is_disjoint(&announced));
}

#[test]
fn a_rate_alone_delays_and_loses_nothing() {
    let mut node = with_rate(Delivery::AtLeastOnce);
    node.write("0.log", format!("{TIME} stdout F {}\n", "x".repeat(1_000)).repeat(400).as_bytes());
    node.start();
    node.sink.borrow_mut().acknowledge_all = true;
    node.rounds(40);
    let early = node.sink.borrow().stored.len();
    assert!(early < 400, "the rest waits: {early}");
    let stored = node.finish_all();
    assert_eq!((records(&stored).len(), notices(&stored).len()), (400, 0));
}

/// The account of one namespace as a scrape shows it: read = acknowledged + left out + lost + in hand.
pub(super) fn even(node: &Node, case: &str) {
    let text = {
        let metrics = &node.worker.as_ref().unwrap().parts.metrics;
        let mut text = String::new();
        encode(&mut text, &metrics.registry()).unwrap();
        text
    };
    let sum = |name: &str| -> i64 {
        let name = format!("fairlead_router_{name}{{");
        text.lines()
            .filter(|line| line.starts_with(&name))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap())
            .sum()
    };
    for what in ["lines", "bytes"] {
        let [read, acknowledged, left_out, lost] =
            ["read", "acknowledged", "left_out", "lost"].map(|side| sum(&format!("{what}_{side}_total")));
        let in_hand = sum(&format!("{what}_in_hand"));
        assert_eq!(read, acknowledged + left_out + lost + in_hand, "{case}: {what}: {text}");
    }
    let worker = node.worker.as_ref().unwrap();
    let in_hand: u64 = worker.epochs().map(|epoch| epoch.pipeline.in_hand(&epoch.acknowledged).lines).sum();
    assert!(sum("lines_in_hand") >= in_hand as i64, "{case}: what epochs have in hand is in hand");
}

#[test]
fn the_account_is_even_at_every_step() {
    let mut node = Node::new();
    node.lines("0.log", 0, 7);
    node.write("0.log", b"nonsense\n");
    node.start();
    even(&node, "nothing read");
    node.rounds(4);
    even(&node, "in flight");
    node.sink.borrow_mut().acknowledge(3);
    node.rounds(2);
    even(&node, "partly acknowledged");
    node.sink.borrow_mut().fail(2, FailureKind::Retry, true);
    node.sink.borrow_mut().acknowledge(usize::MAX);
    node.rounds(2);
    even(&node, "failed");
    node.settle();
    even(&node, "sent again");
    remove_pod(&node);
    node.settle();
    even(&node, "ended");
}
