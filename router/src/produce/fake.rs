//! Stands in for Kafka in tests of the worker: records what is sent and acknowledges, fails or loses it on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_contract::topic::TopicName;

use super::{
    DeadLetter, Destinations, Failure, FailureKind, Lane, Pending, ProduceError, Refusal, SendResult, Sink, Slot,
    TopicState,
};

/// Bytes of a batch on a lane that no topic bounds.
const BATCH_BYTES: u64 = 1_000_000;

/// A record as it was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The lane.
    pub lane: Lane,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The slot.
    pub slot: Slot,
}

impl Sent {
    /// What Kafka gets in one batch here: all that waits on a lane for a partition.
    fn batch(&self) -> (Lane, String, i32) {
        (self.lane, self.topic.clone(), self.partition)
    }
}

/// A sink under the test's control. Nothing is acknowledged before the test says so, unless `acknowledge_all`.
#[derive(Debug)]
pub struct FakeSink {
    pending: Arc<Pending>,
    /// Handed over, not reported yet, oldest first.
    pub queue: VecDeque<Sent>,
    /// What Kafka has, in its order, repeats included: records stored here survive whatever the router does.
    pub stored: Vec<Sent>,
    /// Every poll acknowledges all.
    pub acknowledge_all: bool,
    /// `Full` from so many records in the queue on.
    pub capacity: usize,
    /// Topics that are refused before anything is queued.
    pub refuse: BTreeMap<String, Refusal>,
    /// Topics that take no record with this text, nor any other in its batch.
    pub poison: BTreeMap<String, String>,
    /// Records that went to topics of dead letters, with reason and the topic that refused them.
    pub dead_letters: Vec<(String, String, String)>,
    /// Topics that take no record larger than so many bytes.
    pub takes: BTreeMap<String, usize>,
    /// Topics that nothing is acknowledged of, nor of what was sent behind it on the same lane.
    pub frozen: BTreeSet<String>,
    /// The lanes that are open, with the bound of their batches.
    pub open: [Option<u64>; Lane::COUNT],
    /// Why the producer of the first lane is dead.
    pub dead: Option<String>,
    /// How often a producer was renewed.
    pub renewals: usize,
    failures: Vec<Failure>,
}

impl FakeSink {
    /// An empty sink.
    pub fn new(pending: Arc<Pending>) -> FakeSink {
        FakeSink {
            pending,
            queue: VecDeque::new(),
            stored: Vec::new(),
            acknowledge_all: false,
            capacity: usize::MAX,
            refuse: BTreeMap::new(),
            poison: BTreeMap::new(),
            dead_letters: Vec::new(),
            takes: BTreeMap::new(),
            frozen: BTreeSet::new(),
            open: [Some(BATCH_BYTES), None, None],
            dead: None,
            renewals: 0,
            failures: Vec::new(),
        }
    }

    /// Stores and acknowledges up to `records` of the queue, oldest first.
    pub fn acknowledge(&mut self, records: usize) {
        let poisoned: BTreeSet<_> = self.queue.iter().filter(|sent| self.is_poison(sent)).map(Sent::batch).collect();
        let mut blocked = BTreeSet::new();
        let mut left = records;
        for sent in std::mem::take(&mut self.queue) {
            if self.frozen.contains(&sent.topic) {
                blocked.insert(sent.lane);
            }
            if left == 0 || blocked.contains(&sent.lane) {
                self.queue.push_back(sent);
            } else if poisoned.contains(&sent.batch()) {
                self.pending.fail(sent.slot);
                let (kind, error) = (FailureKind::Refused(Refusal::InvalidRecord), "invalid".to_owned());
                self.failures.push(Failure { slot: sent.slot, kind, error, records: 1 });
            } else if self.takes.get(&sent.topic).is_some_and(|takes| sent.value.len() > *takes) {
                self.pending.fail(sent.slot);
                let (kind, error) = (FailureKind::Refused(Refusal::TooLarge), "too large".to_owned());
                self.failures.push(Failure { slot: sent.slot, kind, error, records: 1 });
            } else {
                left -= 1;
                self.pending.acknowledge(sent.slot);
                self.stored.push(sent);
            }
        }
    }

    /// Fails up to `records` of the queue, oldest first; `stored` says whether Kafka has them all the same.
    pub fn fail(&mut self, records: usize, kind: FailureKind, stored: bool) {
        for sent in self.queue.drain(..records.min(self.queue.len())) {
            self.pending.fail(sent.slot);
            self.failures.push(Failure { slot: sent.slot, kind, error: "as the test says".to_owned(), records: 1 });
            if stored {
                self.stored.push(sent);
            }
        }
    }

    fn is_poison(&self, sent: &Sent) -> bool {
        let text = self.poison.get(&sent.topic);
        text.is_some_and(|text| sent.value.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    /// Fails everything on a lane, to be sent again.
    fn fail_lane(&mut self, lane: Lane) {
        for sent in std::mem::take(&mut self.queue) {
            if sent.lane == lane {
                self.pending.fail(sent.slot);
                let error = "the producer was replaced".to_owned();
                self.failures.push(Failure { slot: sent.slot, kind: FailureKind::Retry, error, records: 1 });
            } else {
                self.queue.push_back(sent);
            }
        }
    }

    /// Stores up to `records` of the queue without a report ever coming, as when the router is killed.
    pub fn store_unreported(&mut self, records: usize) {
        self.stored.extend(self.queue.drain(..records.min(self.queue.len())));
    }

    /// Loses the queue without a report ever coming, as when the router is killed.
    pub fn lose(&mut self) {
        self.queue.clear();
    }
}

impl Sink for FakeSink {
    fn send(&mut self, lane: Lane, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult {
        assert!(self.open[lane.index()].is_some(), "{lane:?} is not open");
        if self.open.iter().flatten().count() > 1 {
            let mut same = self.queue.iter().filter(|sent| sent.topic == topic && sent.partition == partition);
            assert!(same.all(|sent| sent.lane == lane), "{topic}/{partition} is in flight on two lanes");
        }
        if self.dead.is_some() && lane == Lane::FIRST {
            return SendResult::Fatal;
        }
        if let Some(refusal) = self.refuse.get(topic) {
            return SendResult::Refused(*refusal);
        }
        if self.queue.len() >= self.capacity {
            return SendResult::Full;
        }
        let (key, value) = (key.to_vec(), value.to_vec());
        self.queue.push_back(Sent { lane, topic: topic.to_owned(), partition, key, value, slot });
        SendResult::Queued
    }

    fn send_dead(&mut self, lane: Lane, letter: &DeadLetter<'_>, slot: Slot) -> SendResult {
        let sent = self.send(lane, letter.topic, letter.partition, letter.key, letter.value, slot);
        if sent == SendResult::Queued {
            let letter = [letter.topic, letter.reason, letter.refused_by].map(str::to_owned);
            self.dead_letters.push(letter.into());
        }
        sent
    }

    fn poll(&mut self, _: Duration) {
        if self.acknowledge_all {
            self.acknowledge(usize::MAX);
        }
    }

    fn failures(&mut self, into: &mut Vec<Failure>) {
        into.append(&mut self.failures);
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn open(&mut self, batch_bytes_max: u64) -> Result<Lane, ProduceError> {
        let lane = Lane::all().find(|lane| self.open[lane.index()].is_none()).ok_or(ProduceError::TooManyLanes)?;
        self.open[lane.index()] = Some(batch_bytes_max.min(BATCH_BYTES));
        Ok(lane)
    }

    fn close(&mut self, lane: Lane) {
        self.fail_lane(lane);
        self.open[lane.index()] = None;
    }

    fn batch_bytes_max(&self, lane: Lane) -> u64 {
        self.open[lane.index()].unwrap_or(BATCH_BYTES)
    }

    fn fatal(&mut self) -> Option<(Lane, String)> {
        self.dead.clone().map(|reason| (Lane::FIRST, reason))
    }

    fn renew(&mut self, lane: Lane) -> Result<(), ProduceError> {
        self.fail_lane(lane);
        self.dead = None;
        self.renewals += 1;
        Ok(())
    }
}

/// Topics under the test's control: ready with one partition unless the test says otherwise.
#[derive(Debug, Default)]
pub struct FakeTopics {
    book: Mutex<FakeBook>,
}

#[derive(Debug, Default)]
struct FakeBook {
    states: BTreeMap<String, TopicState>,
    message_bytes_max: BTreeMap<String, u64>,
    wanted: Vec<String>,
    version: u64,
}

impl FakeTopics {
    /// Sets what is known of a topic.
    pub fn set(&self, topic: &str, state: TopicState) {
        let mut book = self.book.lock().unwrap();
        book.states.insert(topic.to_owned(), state);
        book.version += 1;
    }

    /// Sets how large a batch a topic takes.
    pub fn limit(&self, topic: &str, message_bytes_max: u64) {
        self.book.lock().unwrap().message_bytes_max.insert(topic.to_owned(), message_bytes_max);
    }

    /// The topics asked for, in the order of the first question.
    pub fn wanted(&self) -> Vec<String> {
        self.book.lock().unwrap().wanted.clone()
    }
}

impl Destinations for FakeTopics {
    fn want(&self, topic: &TopicName) {
        let mut book = self.book.lock().unwrap();
        if !book.wanted.iter().any(|wanted| wanted == topic.as_str()) {
            book.wanted.push(topic.as_str().to_owned());
        }
    }

    fn state(&self, topic: &TopicName) -> TopicState {
        let book = self.book.lock().unwrap();
        book.states.get(topic.as_str()).cloned().unwrap_or(TopicState::Ready { partitions: 1 })
    }

    fn forget(&self, _: &TopicName) {
        self.book.lock().unwrap().version += 1;
    }

    fn message_bytes_max(&self, topic: &TopicName) -> Option<u64> {
        self.book.lock().unwrap().message_bytes_max.get(topic.as_str()).copied()
    }

    fn release(&self, topic: &TopicName) {
        self.book.lock().unwrap().wanted.retain(|wanted| wanted != topic.as_str());
    }

    fn version(&self) -> u64 {
        self.book.lock().unwrap().version
    }
}
