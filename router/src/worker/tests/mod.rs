//! The worker against a real folder and a simulated Kafka, driven step by step: what is lost, repeated or misnumbered shows in what was stored.

mod budget;
mod delivery;
mod descriptor;
mod disk;
mod docker;
mod files;
mod guilty;
mod gzip;
mod lessons;
mod model;
mod mounts;
mod notices;
mod pods;
mod rules;
mod scale;

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

use fairlead_contract::record::{LossReason, Notice, NoticeKind, Record};
use fairlead_service_kit::admin::Liveness;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    enrich::{Pods, fake::FakePods},
    hold::FreeMin,
    pipeline::TooLong,
    produce::{
        DeadLetter, Failure, FailureKind, Lane, ProduceError, SendResult, TopicState,
        fake::{FakeSink, FakeTopics, Sent},
    },
};

const POD: &str = "payments_api-7d9f4-x2x_0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f";
const TIME: &str = "2026-11-20T10:00:00.123456789Z";

/// The sink that both the test and the worker hold.
struct Shared(Rc<RefCell<FakeSink>>);

impl Sink for Shared {
    fn send(&mut self, lane: Lane, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult {
        self.0.borrow_mut().send(lane, topic, partition, key, value, slot)
    }
    fn send_dead(&mut self, lane: Lane, letter: &DeadLetter<'_>, slot: Slot) -> SendResult {
        self.0.borrow_mut().send_dead(lane, letter, slot)
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
    fn open(&mut self, batch_bytes_max: u64) -> Result<Lane, ProduceError> {
        self.0.borrow_mut().open(batch_bytes_max)
    }
    fn close(&mut self, lane: Lane) {
        self.0.borrow_mut().close(lane);
    }
    fn batch_bytes_max(&self, lane: Lane) -> u64 {
        self.0.borrow().batch_bytes_max(lane)
    }
    fn fatal(&mut self) -> Option<(Lane, String)> {
        self.0.borrow_mut().fatal()
    }
    fn renew(&mut self, lane: Lane) -> Result<(), ProduceError> {
        self.0.borrow_mut().renew(lane)
    }
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A node: its folders, what Kafka has, and a router that may be killed.
struct Node {
    _folder: TempDir,
    settings: Settings,
    topics: Arc<FakeTopics>,
    pods: Arc<FakePods>,
    sink: Rc<RefCell<FakeSink>>,
    worker: Option<Worker>,
    /// What Kafka has of all routers so far.
    stored: Vec<Vec<u8>>,
    /// The same with everything that was said of it, for as long as the node is there.
    arrived: Vec<Sent>,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            node_name: "node-3".to_owned(),
            pods_dir: folder.path().join("pods"),
            docker_containers_dir: None,
            state_dir: folder.path().join("state"),
            topics: TopicMap::default(),
            skip_existing: false,
            limits: Limits {
                record_bytes_max: 128 << 10,
                partial_flush: Duration::from_secs(30),
                too_long: TooLong::Chunk,
            },
            budget: Budget { bytes_max: u64::MAX, namespace_bytes_max: u64::MAX, free_min: FreeMin::Bytes(0) },
            rescan_interval: Duration::from_secs(3_600),
            store_interval: Duration::from_millis(1),
            in_flight_bytes_max: 32 << 20,
            drain_max: Duration::from_secs(5),
            metadata_wait: Duration::ZERO,
        };
        fs::create_dir_all(&settings.pods_dir).unwrap();
        let sink = Rc::new(RefCell::new(FakeSink::new(Arc::new(Pending::new(1)))));
        Self {
            _folder: folder,
            settings,
            topics: Arc::default(),
            pods: Arc::default(),
            sink,
            worker: None,
            stored: Vec::new(),
            arrived: Vec::new(),
        }
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
            pods: Arc::clone(&self.pods) as Arc<dyn Pods>,
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
            let stored = std::mem::take(&mut sink.stored);
            drop(sink);
            self.keep(stored);
        }
    }

    fn stop(&mut self) {
        self.sink.borrow_mut().acknowledge_all = true;
        let drained = self.worker.take().unwrap().run(&|| true);
        assert_eq!(drained, Drained { records_left: 0, stored: true });
        let stored = std::mem::take(&mut self.sink.borrow_mut().stored);
        self.keep(stored);
    }

    fn keep(&mut self, stored: Vec<Sent>) {
        self.stored.extend(stored.iter().map(|sent| sent.value.clone()));
        self.arrived.extend(stored);
    }

    fn rounds(&mut self, count: usize) {
        let worker = self.worker.as_mut().unwrap();
        for _ in 0..count {
            worker.take_news();
            worker.round();
            if worker.urgent {
                worker.commit();
            }
        }
    }

    /// Works until nothing is left to do.
    fn settle(&mut self) {
        self.settle_for(8, Duration::from_millis(3), false);
    }

    /// Works until so many rounds in a row had nothing to do, with a wait between them; in a hurry, what is due later is due now.
    fn settle_for(&mut self, quiet_rounds: usize, wait: Duration, hurry: bool) {
        self.sink.borrow_mut().acknowledge_all = true;
        let worker = self.worker.as_mut().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut quiet = 0;
        while quiet < quiet_rounds {
            assert!(Instant::now() < deadline, "the worker does not come to rest: {:?}", worker.instances);
            worker.take_news();
            let read = worker.round();
            let busy = read
                || worker.pods.is_dirty()
                || !worker.again.is_empty()
                || !worker.dirty.is_empty()
                || !worker.flying.is_empty()
                || worker.instances.values().any(|instance| instance.is_moving)
                || !worker.fair.is_quiet();
            quiet = if busy { 0 } else { quiet + 1 };
            worker.watcher.wait(None, wait);
            if hurry {
                // What waits for a time waited long enough.
                worker.again.values_mut().for_each(|at| *at = Instant::now());
                worker.again_at = Instant::now();
                worker.commit();
            }
        }
    }

    /// Works until nothing is left, and gives what Kafka has but notices.
    fn finish(&mut self) -> Vec<Vec<u8>> {
        records(&self.finish_all())
    }

    /// Works until nothing is left, and gives what Kafka has.
    fn finish_all(&mut self) -> Vec<Vec<u8>> {
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
    records(stored).iter().map(|value| Record::parse(value).unwrap().log.into_owned()).collect()
}

fn is_notice(value: &[u8]) -> bool {
    Record::parse(value).unwrap().fairlead.notice.is_some()
}

/// What is no notice.
fn records(stored: &[Vec<u8>]) -> Vec<Vec<u8>> {
    stored.iter().filter(|value| !is_notice(value)).cloned().collect()
}

/// The notices, with their sentences.
fn notices(stored: &[Vec<u8>]) -> Vec<Notice<'static>> {
    let parsed = stored.iter().map(|value| Record::parse(value).unwrap());
    parsed.filter_map(|record| Notice::parse(record.fairlead.notice?.get())).collect()
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("line {n}")).collect()
}
