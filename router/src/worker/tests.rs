//! The worker against a real folder and a simulated Kafka, driven step by step: what is lost, repeated or misnumbered shows in what was stored.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Write,
    os::fd::BorrowedFd,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use fairlead_contract::record::Record;
use fairlead_service_kit::admin::Liveness;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::produce::{
    Failure, FailureKind, ProduceError, SendResult, TopicState,
    fake::{FakeSink, FakeTopics},
};

const POD: &str = "payments_api-7d9f4-x2x_0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f";
const TIME: &str = "2026-11-20T10:00:00.123456789Z";

/// The sink that both the test and the worker hold.
struct Shared(Rc<RefCell<FakeSink>>);

impl Sink for Shared {
    fn send(&mut self, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult {
        self.0.borrow_mut().send(topic, partition, key, value, slot)
    }
    fn poll(&mut self, wait: Duration) {
        self.0.borrow_mut().poll(wait);
    }
    fn failures(&mut self, into: &mut Vec<Failure>) {
        self.0.borrow_mut().failures(into);
    }
    fn in_flight(&self) -> usize {
        self.0.borrow().in_flight()
    }
    fn fatal(&mut self) -> Option<String> {
        self.0.borrow_mut().fatal()
    }
    fn renew(&mut self) -> Result<(), ProduceError> {
        self.0.borrow_mut().renew()
    }
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A node: its folders, what Kafka has, and a router that may be killed.
struct Node {
    folder: TempDir,
    settings: Settings,
    topics: Arc<FakeTopics>,
    sink: Rc<RefCell<FakeSink>>,
    worker: Option<Worker>,
    /// What Kafka has of all routers so far.
    stored: Vec<Vec<u8>>,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            node_name: "node-3".to_owned(),
            pods_dir: folder.path().join("pods"),
            state_dir: folder.path().join("state"),
            topics: TopicMap::default(),
            skip_existing: false,
            limits: Limits { record_bytes_max: 128 << 10, partial_flush: Duration::from_secs(30) },
            rescan_interval: Duration::from_secs(3_600),
            store_interval: Duration::from_millis(1),
            in_flight_bytes_max: 32 << 20,
            drain_max: Duration::from_secs(5),
        };
        fs::create_dir_all(&settings.pods_dir).unwrap();
        let sink = Rc::new(RefCell::new(FakeSink::new(Arc::new(Pending::new(1)))));
        Self { folder, settings, topics: Arc::default(), sink, worker: None, stored: Vec::new() }
    }

    fn dir(&self) -> PathBuf {
        self.settings.pods_dir.join(POD).join("api")
    }

    fn start(&mut self) {
        ignore();
        let pending = Arc::new(Pending::new(Pending::SLOTS));
        self.sink = Rc::new(RefCell::new(FakeSink::new(Arc::clone(&pending))));
        let parts = Parts {
            sink: Box::new(Shared(Rc::clone(&self.sink))),
            pending,
            destinations: Arc::clone(&self.topics) as Arc<dyn Destinations>,
            broker_down: Box::new(|_| None),
            metrics: Metrics::new().0,
            readiness: Readiness::new(),
            heartbeat: Liveness::new().heartbeat("worker", Duration::from_secs(60)),
        };
        self.worker = Some(Worker::start(self.settings.clone(), parts).unwrap());
    }

    /// As `kill -9`: nothing is drained; Kafka has some of what was on its way.
    fn kill(&mut self, arrived: usize) {
        if self.worker.take().is_some() {
            let mut sink = self.sink.borrow_mut();
            sink.store_unreported(arrived);
            let stored = sink.stored.drain(..).map(|sent| sent.value);
            self.stored.extend(stored);
        }
    }

    fn stop(&mut self) {
        self.sink.borrow_mut().acknowledge_all = true;
        let drained = self.worker.take().unwrap().run(&|| true);
        assert_eq!(drained, Drained { records_left: 0, stored: true });
        let stored = self.sink.borrow_mut().stored.drain(..).map(|sent| sent.value).collect::<Vec<_>>();
        self.stored.extend(stored);
    }

    fn rounds(&mut self, count: usize) {
        let worker = self.worker.as_mut().unwrap();
        for _ in 0..count {
            worker.round();
            if worker.urgent {
                worker.commit();
            }
        }
    }

    /// Works until nothing is left to do.
    fn settle(&mut self) {
        self.sink.borrow_mut().acknowledge_all = true;
        let worker = self.worker.as_mut().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut quiet = 0;
        while quiet < 8 {
            assert!(Instant::now() < deadline, "the worker does not come to rest: {:?}", worker.instances);
            let read = worker.round();
            let busy = read
                || !worker.again.is_empty()
                || !worker.dirty.is_empty()
                || !worker.flying.is_empty()
                || !worker.ready.is_empty();
            quiet = if busy { 0 } else { quiet + 1 };
            worker.watcher.wait(None, Duration::from_millis(3));
        }
    }

    fn finish(&mut self) -> Vec<Vec<u8>> {
        self.settle();
        self.stop();
        std::mem::take(&mut self.stored)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.dir()).unwrap();
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir().join(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn lines(&self, name: &str, from: usize, count: usize) {
        let lines: String = (from..from + count).map(|n| format!("{TIME} stdout F line {n}\n")).collect();
        self.write(name, lines.as_bytes());
    }

    fn rotate(&self, suffix: &str) {
        fs::rename(self.dir().join("0.log"), self.dir().join(format!("0.log.{suffix}"))).unwrap();
        File::create(self.dir().join("0.log")).unwrap();
    }

    fn held(&self) -> usize {
        HeldFolder::open(&self.settings.state_dir).unwrap().list().unwrap().len()
    }
}

fn ignore() {
    crate::hold::ignore_lease_breaks().unwrap();
}

fn logs(stored: &[Vec<u8>]) -> Vec<String> {
    stored.iter().map(|value| Record::parse(value).unwrap().log.into_owned()).collect()
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("line {n}")).collect()
}

#[test]
fn the_golden_files_become_the_golden_records() {
    for name in ["plain", "bytes", "fragments"] {
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contract/examples/v1");
        let mut node = Node::new();
        node.write("0.log", &fs::read(examples.join(format!("{name}.cri"))).unwrap());
        node.start();
        let stored = node.finish();
        let text = fs::read_to_string(examples.join(format!("{name}.ndjson"))).unwrap();
        let got: Vec<_> = stored.iter().map(|value| String::from_utf8(value.clone()).unwrap()).collect();
        let epoch = got[0].split("/api/0/").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let got: Vec<_> = got.iter().map(|value| value.replace(&epoch, "k3v9")).collect();
        assert_eq!(got, text.lines().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn rotation_compression_and_deletion_lose_nothing_and_hold_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 10);
    node.start();
    for round in 1..6 {
        node.rotate(&format!("T{round}"));
        node.lines("0.log", round * 10, 10);
        if round % 2 == 0 {
            node.rounds(3);
        }
        if round > 2 {
            // As the kubelet compresses: the raw file goes.
            let _ = fs::remove_file(node.dir().join(format!("0.log.T{}", round - 1)));
        }
        node.rounds(1);
    }
    node.settle();
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.settle();
    assert_eq!(node.held(), 0);
    assert!(!node.settings.state_dir.join("held").join(POD).exists());
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(60));
    let sources: BTreeSet<_> =
        stored.iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect();
    assert_eq!(sources.len(), 1, "one epoch: every rotation was shown to follow");
}

#[test]
fn a_pod_that_is_gone_before_it_is_read_is_read_from_its_link() {
    let mut node = Node::new();
    node.sink.borrow_mut().acknowledge_all = false;
    node.topics.set("logs.payments", TopicState::Unknown);
    node.start();
    node.lines("0.log", 0, 3);
    node.rounds(2);
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(2);
    node.kill(0);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 3 });
    node.start();
    node.settle();
    assert_eq!(node.held(), 0);
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn lost_positions_are_read_again_under_another_epoch_and_marked() {
    let mut node = Node::new();
    node.lines("0.log", 0, 4);
    node.start();
    node.settle();
    node.stop();
    fs::write(node.settings.state_dir.join("positions"), b"00000000 garbage\n").unwrap();
    node.start();
    node.lines("0.log", 4, 2);
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let epochs: BTreeSet<_> = records.iter().map(|record| record.fairlead.source.as_ref()).collect();
    assert_eq!((records.len(), epochs.len()), (10, 2));
    let marks: Vec<_> = records.iter().map(|record| record.fairlead.again).collect();
    assert_eq!(marks, [false, false, false, false, true, true, true, true, false, false]);
}

#[test]
fn after_a_clean_stop_nothing_is_sent_again() {
    let mut node = Node::new();
    node.lines("0.log", 0, 4);
    node.start();
    node.settle();
    node.stop();
    node.lines("0.log", 4, 4);
    node.rotate("T1");
    node.lines("0.log", 8, 4);
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(12));
    assert!(stored.iter().all(|value| !Record::parse(value).unwrap().fairlead.again));
}

#[test]
fn a_rotation_that_was_missed_begins_a_new_epoch() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.rotate("T2");
    node.lines("0.log", 4, 2);
    // The middle file is gone, as if it were compressed already.
    fs::remove_file(node.dir().join("0.log.T2")).unwrap();
    fs::write(node.dir().join("0.log.T2.gz"), b"").unwrap();
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), ["line 0", "line 1", "line 4", "line 5"]);
    let seqs: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, [0, 1, 0, 1], "what cannot be shown to follow is not numbered on");
}

#[test]
fn truncation_and_another_file_under_the_same_link_begin_a_new_epoch() {
    let mut node = Node::new();
    node.lines("0.log", 0, 5);
    node.start();
    node.settle();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 5, 2);
    node.settle();
    node.stop();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 7, 9);
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(16));
    let seqs: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_truncated_file_is_never_read_under_its_old_numbers() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.write("0.log", format!("{TIME} stderr P waits\n").as_bytes());
    node.start();
    node.rounds(4);
    let truncate =
        |node: &Node| OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    truncate(&node);
    node.lines("0.log", 3, 1);
    node.rounds(4);
    // What was on its way fails: it cannot be read again, and nothing else may take its numbers.
    node.sink.borrow_mut().fail(3, FailureKind::Retry, false);
    node.settle();
    node.kill(0);
    truncate(&node);
    node.lines("0.log", 4, 1);
    node.start();
    let stored = node.finish();
    let seen: BTreeSet<_> = stored
        .iter()
        .map(|value| Record::parse(value).unwrap())
        .map(|record| (record.fairlead.source.to_string(), record.fairlead.seq, record.log.to_string()))
        .collect();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen.iter().map(|(source, _, _)| source).collect::<BTreeSet<_>>().len(), 3, "{seen:?}");
    assert!(seen.iter().any(|(_, seq, log)| (*seq, log.as_str()) == (0, "waits")), "{seen:?}");
}

#[test]
fn a_topic_made_again_with_fewer_partitions_is_written_to_again() {
    let mut node = Node::new();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 64 });
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    let before = node.sink.borrow().stored[0].partition;
    assert_ne!(before, 0);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.lines("0.log", 2, 2);
    node.settle();
    let partitions: Vec<_> = node.sink.borrow().stored.iter().map(|sent| sent.partition).collect();
    assert_eq!(partitions, [before, before, 0, 0]);
    assert_eq!(logs(&node.finish()), expected(4));
}

#[test]
fn more_partitions_do_not_move_a_source() {
    let mut node = Node::new();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 64 });
    node.lines("0.log", 2, 2);
    node.start();
    node.settle();
    assert!(node.sink.borrow().stored.iter().all(|sent| sent.partition == 0));
    assert_eq!(logs(&node.finish()), expected(4));
}

#[test]
fn a_file_beside_the_live_one_closes_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.write("0.log.bak", format!("{TIME} stdout F copied\n").as_bytes());
    node.settle();
    node.lines("0.log", 2, 2);
    node.settle();
    node.rotate("T1");
    node.lines("0.log", 4, 1);
    let stored = node.finish();
    assert_eq!(logs(&stored), ["line 0", "line 1", "copied", "line 2", "line 3", "line 4"]);
    assert_eq!(Record::parse(&stored[5]).unwrap().fairlead.seq, 4);
}

#[test]
fn a_held_file_that_somebody_removes_ends_its_epoch_alone() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.topics.set("logs.payments", TopicState::Unknown);
    node.start();
    node.rounds(2);
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.rounds(2);
    fs::remove_file(node.settings.state_dir.join("held").join(POD).join("api/0.0")).unwrap();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    let stored = node.finish();
    // The kubelet still has the first file: it is found beside the live one, and read as what it is.
    let logs: BTreeSet<_> = logs(&stored).into_iter().collect();
    assert!(logs.is_superset(&["line 2".to_owned(), "line 3".to_owned()].into()), "{logs:?}");
}

#[test]
fn a_restart_of_the_container_in_the_same_look_as_a_rotation_breaks_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.write("1.log", format!("{TIME} stdout F next instance\n").as_bytes());
    node.start();
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let seen: Vec<_> = records.iter().map(|record| (record.log.as_ref(), record.fairlead.seq)).collect();
    assert_eq!(seen, [("line 0", 0), ("line 1", 1), ("line 2", 2), ("line 3", 3), ("next instance", 0)]);
}

#[test]
fn a_state_folder_that_vanishes_is_made_anew_and_costs_repeats_alone() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    fs::remove_dir_all(&node.settings.state_dir).unwrap();
    node.lines("0.log", 2, 2);
    let stored = node.finish();
    let logs: BTreeSet<_> = logs(&stored).into_iter().collect();
    assert_eq!(logs, expected(4).into_iter().collect());
    assert!(node.settings.state_dir.join("positions").exists());
}

#[test]
fn one_state_folder_has_one_router() {
    let mut node = Node::new();
    node.start();
    let second = lock(&node.settings.state_dir);
    assert!(matches!(second, Err(WorkerError::InUse(_))), "{second:?}");
    node.stop();
    assert!(lock(&node.settings.state_dir).is_ok());
}

#[test]
fn bytes_that_come_late_are_a_source_of_their_own() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.settle();
    node.lines("0.log.T1", 100, 1);
    fs::remove_file(node.dir().join("0.log.T1")).unwrap();
    node.settle();
    node.lines("0.log", 4, 1);
    let stored = node.finish();
    assert_eq!(logs(&stored), ["line 0", "line 1", "line 2", "line 3", "line 100", "line 4"]);
    let last = Record::parse(&stored[5]).unwrap().fairlead.seq;
    assert_eq!(last, 4, "the successor stays in its epoch");
}

#[test]
fn a_refused_topic_parks_its_namespace_and_no_other() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    let other = node.settings.pods_dir.join("shop_web_uid-2/web");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("0.log"), format!("{TIME} stdout F from shop\n")).unwrap();
    node.start();
    node.sink.borrow_mut().refuse.insert("logs.payments".to_owned(), Refusal::TooLarge);
    for _ in 0..20 {
        node.sink.borrow_mut().acknowledge_all = true;
        node.rounds(1);
    }
    let arrived: Vec<_> = node.sink.borrow().stored.iter().map(|sent| sent.topic.clone()).collect();
    assert_eq!(arrived, ["logs.shop"]);
    let worker = node.worker.as_mut().unwrap();
    worker.report();
    assert!(worker.parts.readiness.report().contains("payments"), "{}", worker.parts.readiness.report());
    node.sink.borrow_mut().refuse.clear();
    let stored = node.finish();
    assert_eq!(logs(&stored), ["from shop", "line 0", "line 1", "line 2"]);
}

#[test]
fn a_failed_delivery_goes_back_and_marks_what_it_sends_again() {
    let mut node = Node::new();
    node.lines("0.log", 0, 6);
    node.start();
    node.rounds(6);
    {
        let mut sink = node.sink.borrow_mut();
        assert_eq!(sink.in_flight(), 6);
        sink.fail(2, FailureKind::Retry, true);
        sink.acknowledge(4);
    }
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let seen: Vec<_> = records.iter().map(|record| (record.fairlead.seq, record.fairlead.again)).collect();
    assert_eq!(seen, (0..6).map(|n| (n, false)).chain((0..6).map(|n| (n, true))).collect::<Vec<_>>());
}

#[test]
fn a_dead_producer_is_made_anew() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.rounds(6);
    node.sink.borrow_mut().dead = Some("fenced".to_owned());
    node.rounds(3);
    assert_eq!(node.sink.borrow().renewals, 1);
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn fragments_join_across_rotation_and_are_flushed_when_the_container_ends() {
    let mut node = Node::new();
    node.write("0.log", format!("{TIME} stdout P one \n{TIME} stderr F between\n").as_bytes());
    node.start();
    node.settle();
    node.rotate("T1");
    node.write("0.log", format!("{TIME} stdout F two\n{TIME} stdout P never ended\n").as_bytes());
    node.settle();
    node.write("1.log", format!("{TIME} stdout F next instance\n").as_bytes());
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let seen: Vec<_> =
        records.iter().map(|record| (record.log.as_ref(), record.fairlead.seq, record.fairlead.lines)).collect();
    assert_eq!(seen, [("between", 0, 1), ("one two", 0, 2), ("never ended", 2, 1), ("next instance", 0, 1)]);
}

#[test]
fn a_line_longer_than_the_read_buffer_goes_in_chunks_and_a_torn_one_is_bad() {
    let mut node = Node::new();
    node.settings.limits.record_bytes_max = 50_000;
    let long: String = (0..90_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect::<String>().repeat(8);
    node.write(
        "0.log",
        format!("{TIME} stdout F {long}\n{}\n{TIME} stderr F after\n", "bad ".repeat(100_000)).as_bytes(),
    );
    node.write("0.log", format!("{TIME} stdout F torn").as_bytes());
    node.start();
    node.settle();
    fs::create_dir_all(node.dir()).unwrap();
    node.write("1.log", b"");
    let stored = node.finish();
    let mut joined = String::new();
    for value in &stored[..stored.len() - 1] {
        let record = Record::parse(value).unwrap();
        let chunk = record.fairlead.chunk.unwrap();
        assert_eq!((chunk.offset as usize, record.fairlead.seq), (joined.len(), 0));
        assert_eq!(record.fairlead.lines, u64::from(chunk.last));
        joined.push_str(&record.log);
    }
    assert_eq!(joined, long);
    assert_eq!(logs(&stored[stored.len() - 1..]), ["after"]);
}

#[test]
fn existing_files_are_passed_over_when_told_so() {
    let mut node = Node::new();
    node.settings.skip_existing = true;
    node.lines("0.log", 0, 3);
    node.rotate("T1");
    node.lines("0.log", 3, 3);
    node.start();
    node.settle();
    node.lines("0.log", 6, 2);
    assert_eq!(logs(&node.finish()), ["line 6", "line 7"]);
}

/// What happens to a node.
#[derive(Clone, Debug)]
enum Act {
    Write { lines: usize, fragments: bool, stderr: bool },
    WriteHalf,
    Rotate,
    Compress,
    Rounds(usize),
    Acknowledge(usize),
    FailSome(usize),
    Kill { arrived: usize },
    Stop,
    LosePositions,
    TearPositions(usize),
    OtherLimits(usize),
    FlushFragments,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1_usize..6, any::<bool>(), any::<bool>()).prop_map(|(lines, fragments, stderr)| Act::Write { lines, fragments, stderr }),
        1 => Just(Act::WriteHalf),
        3 => Just(Act::Rotate),
        2 => Just(Act::Compress),
        6 => (1_usize..4).prop_map(Act::Rounds),
        4 => (1_usize..20).prop_map(Act::Acknowledge),
        1 => (1_usize..4).prop_map(Act::FailSome),
        2 => (0_usize..20).prop_map(|arrived| Act::Kill { arrived }),
        1 => Just(Act::Stop),
        1 => Just(Act::LosePositions),
        1 => (1_usize..200).prop_map(Act::TearPositions),
        1 => (8_usize..40).prop_map(Act::OtherLimits),
        2 => Just(Act::Restart),
        1 => Just(Act::FlushFragments),
    ]
}

/// What was written, by stream: the joined lines with their fragments.
#[derive(Default)]
struct Written {
    next: usize,
    half: String,
    /// Physical line contents in order, by stream name.
    physical: BTreeMap<&'static str, Vec<String>>,
}

impl Written {
    fn line(&mut self, stream: &'static str, fragments: bool) -> String {
        let mut text = std::mem::take(&mut self.half);
        let pieces = if fragments { 3 } else { 1 };
        for piece in 0..pieces {
            let content = format!("<{stream} {} {piece}>", self.next);
            let full = piece + 1 == pieces;
            text.push_str(&format!("{TIME} {stream} {} {content}\n", if full { "F" } else { "P" }));
            self.physical.entry(stream).or_default().push(content);
        }
        self.next += 1;
        text
    }
}

/// A place in a run: source, number, offset in the joined line.
type Number = (String, u64, u64);

/// Checks what Kafka has against what was written.
fn judge(written: &Written, stored: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let mut by_number: BTreeMap<Number, String> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for value in stored {
        let record = Record::parse(value).unwrap();
        let (source, seq, chunk) = (record.fairlead.source.to_string(), record.fairlead.seq, record.fairlead.chunk);
        if chunk.is_none_or(|chunk| chunk.last) {
            ended.insert((source.clone(), seq));
        }
        let number = (source, seq, chunk.map_or(0, |chunk| chunk.offset));
        if let Some(first) = by_number.get_mut(&number) {
            // The same place of the same run: one text is the beginning of the other, and the later one is marked.
            prop_assert!(
                first.starts_with(&*record.log) || record.log.starts_with(first.as_str()),
                "{first:?} and {:?} share {number:?}",
                record.log
            );
            prop_assert!(record.fairlead.again, "an unmarked repeat: {:?} at {number:?}", record.log);
            if record.log.len() > first.len() {
                *first = record.log.to_string();
            }
        } else {
            by_number.insert(number, record.log.to_string());
        }
    }
    let joined = join_chunks(&by_number);
    for (stream, contents) in &written.physical {
        let fd = if *stream == "stdout" { "/1" } else { "/2" };
        for content in contents {
            let found =
                joined.iter().any(|((source, _), text)| source.ends_with(fd) && text.contains(content.as_str()));
            prop_assert!(found, "{stream}: {content:?} is lost");
        }
    }
    // No record joins what does not belong together; a line whose last chunk never came may end anywhere.
    for ((source, seq), text) in &joined {
        let stream = if source.ends_with("/1") { "stdout" } else { "stderr" };
        let whole = text.rsplit_once('>').map_or("", |(whole, _)| whole);
        let numbers: BTreeSet<_> =
            whole.split('>').filter(|piece| !piece.is_empty()).map(|piece| piece.split(' ').nth(1)).collect();
        let is_ended = ended.contains(&(source.clone(), *seq));
        let is_whole = !is_ended || (text.ends_with('>') && text.starts_with(&format!("<{stream} ")));
        prop_assert!(numbers.len() <= 1 && is_whole, "{source}: garbage {text:?}");
    }
    Ok(())
}

/// Chunks cut at other places on another try overlap; by offset they still make the whole.
fn join_chunks(by_number: &BTreeMap<Number, String>) -> BTreeMap<(String, u64), String> {
    let mut joined: BTreeMap<(String, u64), String> = BTreeMap::new();
    for ((source, seq, offset), log) in by_number {
        let text = joined.entry((source.clone(), *seq)).or_default();
        let offset = *offset as usize;
        if offset <= text.len() && offset + log.len() > text.len() {
            text.push_str(&log[text.len() - offset..]);
        }
    }
    joined
}

fn play(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut node = Node::new();
    let mut written = Written::default();
    let mut rotations = 0;
    fs::create_dir_all(node.dir()).unwrap();
    File::create(node.dir().join("0.log")).unwrap();
    node.start();
    for act in acts {
        let running = node.worker.is_some();
        match act {
            Act::Write { lines, fragments, stderr } => {
                for _ in 0..*lines {
                    let text = written.line(if *stderr { "stderr" } else { "stdout" }, *fragments);
                    node.write("0.log", text.as_bytes());
                }
            }
            Act::WriteHalf => {
                // The rest of this line is the beginning of the next write.
                let line = written.line("stdout", false);
                let (now, later) = line.split_at(line.len() / 2);
                node.write("0.log", now.as_bytes());
                written.half = later.to_owned();
            }
            Act::Rotate if written.half.is_empty() => {
                rotations += 1;
                node.rotate(&format!("T{rotations:04}"));
            }
            // The router has seen it and it is held, or it is there when a router starts: only then may it go.
            Act::Compress if running && rotations > 1 => {
                node.rounds(1);
                let _ = fs::remove_file(node.dir().join(format!("0.log.T{:04}", rotations - 1)));
            }
            Act::Rounds(count) if running => node.rounds(*count),
            Act::Acknowledge(records) if running => node.sink.borrow_mut().acknowledge(*records),
            Act::FailSome(records) if running => node.sink.borrow_mut().fail(*records, FailureKind::Retry, true),
            Act::Kill { arrived } if running => node.kill(*arrived),
            Act::Stop if running => node.stop(),
            Act::LosePositions if !running => _ = fs::remove_file(node.settings.state_dir.join("positions")),
            Act::TearPositions(bytes) if !running => {
                let path = node.settings.state_dir.join("positions");
                if let Ok(metadata) = fs::metadata(&path) {
                    let size = metadata.len().saturating_sub(*bytes as u64);
                    OpenOptions::new().write(true).open(&path).unwrap().set_len(size).unwrap();
                }
            }
            Act::OtherLimits(bytes) if !running => node.settings.limits.record_bytes_max = *bytes,
            Act::Restart if !running => node.start(),
            // As another `logs.partial_flush`: every fragment that waits has waited long enough.
            Act::FlushFragments if running => {
                node.worker.as_mut().unwrap().flush_overdue(Instant::now() + Duration::from_secs(3_600))
            }
            _ => {}
        }
    }
    if node.worker.is_none() {
        node.start();
    }
    if !written.half.is_empty() {
        node.write("0.log", std::mem::take(&mut written.half).as_bytes());
    }
    let stored = node.finish();
    drop(node.folder);
    judge(&written, &stored)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(120), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_line_is_lost_and_no_number_is_given_twice(acts in proptest::collection::vec(act(), 1..60)) {
        play(&acts)?;
    }
}
