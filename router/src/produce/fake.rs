//! Stands in for Kafka in tests of the worker: records what is sent and acknowledges, fails or loses it on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_contract::topic::TopicName;

use super::{Destinations, Failure, FailureKind, Pending, ProduceError, Refusal, SendResult, Sink, Slot, TopicState};

/// A record as it was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
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
    /// Why the producer is dead.
    pub dead: Option<String>,
    /// How often it was renewed.
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
            dead: None,
            renewals: 0,
            failures: Vec::new(),
        }
    }

    /// Stores and acknowledges up to `records` of the queue, oldest first.
    pub fn acknowledge(&mut self, records: usize) {
        for sent in self.queue.drain(..records.min(self.queue.len())) {
            self.pending.acknowledge(sent.slot);
            self.stored.push(sent);
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
    fn send(&mut self, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult {
        if self.dead.is_some() {
            return SendResult::Fatal;
        }
        if let Some(refusal) = self.refuse.get(topic) {
            return SendResult::Refused(*refusal);
        }
        if self.queue.len() >= self.capacity {
            return SendResult::Full;
        }
        let (key, value) = (key.to_vec(), value.to_vec());
        self.queue.push_back(Sent { topic: topic.to_owned(), partition, key, value, slot });
        SendResult::Queued
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

    fn fatal(&mut self) -> Option<String> {
        self.dead.clone()
    }

    fn renew(&mut self) -> Result<(), ProduceError> {
        self.fail(usize::MAX, FailureKind::Retry, false);
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

    fn version(&self) -> u64 {
        self.book.lock().unwrap().version
    }
}
