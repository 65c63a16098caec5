//! One fetcher for each followed topic, however many follow it. Input: followers that join. Output: batches of records, to all of them.
//!
//! A fetcher is a thread with a consumer of its own. It begins at the topic's end when the first follower joins, waits for a topic that is not
//! there, and ends some time after the last follower left. A follower says nothing back: one whose queue is full is let go, reads what it
//! missed by itself, and joins again.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fairlead_contract::topic::TopicName;
use fairlead_service_kit::telemetry::{Throttle, field};
use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, message::BorrowedMessage};
use tokio::sync::{mpsc, oneshot};

use super::{
    Settings,
    cursor::TopicMark,
    kafka::{Kafka, KafkaConsumer, ReadError, TopicState},
    range,
    scan::key_hash,
    shape::RawRecord,
};
use crate::metrics::{Metrics, Open};

/// The most batches that wait for one follower, however small they are.
const QUEUE_BATCHES: usize = 1024;
/// How many bytes of values one batch gathers, and how many records.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_RECORDS: usize = 2048;
/// How long a fetcher waits for records before it looks at who joined.
const WAIT: Duration = Duration::from_millis(20);
/// How long a fetcher outlives its last follower.
const LINGER: Duration = Duration::from_secs(15);
/// How often a fetcher looks whether its topic is still the same and has as many partitions.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a fetcher waits before it asks again for a topic that is not there, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The fetchers.
pub struct Hub {
    kafka: Arc<Kafka>,
    queue_bytes: usize,
    metrics: Arc<Metrics>,
    fetchers: Mutex<HashMap<TopicName, Sender<Join>>>,
}

/// Records as they came, in one piece of memory.
#[derive(Debug)]
pub struct Batch {
    values: Bytes,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    partition: i32,
    offset: i64,
    sent: i64,
    key_hash: u64,
    value: Range<usize>,
}

/// A place among the followers of a topic.
#[derive(Debug)]
pub struct Follower {
    /// The topic as the fetcher knows it.
    pub topic: TopicMark,
    /// The first offset of each partition that this follower is sent.
    pub next: Vec<i64>,
    batches: mpsc::Receiver<Arc<Batch>>,
    waiting: Arc<AtomicUsize>,
}

/// The fetcher's end of a follower's queue.
#[derive(Debug)]
struct Queue {
    batches: mpsc::Sender<Arc<Batch>>,
    /// How many bytes wait in it.
    waiting: Arc<AtomicUsize>,
}

/// A queue's answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Taken,
    Full,
    Closed,
}

struct Join {
    reply: oneshot::Sender<Follower>,
}

impl Batch {
    /// The records in order, from the one of this number on.
    pub fn records_from(&self, first: usize) -> impl Iterator<Item = RawRecord<'_>> {
        self.entries.get(first..).unwrap_or_default().iter().map(|entry| RawRecord {
            partition: entry.partition,
            offset: entry.offset,
            sent: entry.sent,
            key_hash: entry.key_hash,
            value: &self.values[entry.value.clone()],
        })
    }
}

impl Batch {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        self.values.len() + self.entries.len() * size_of::<Entry>()
    }
}

impl Follower {
    fn new(topic: TopicMark, next: Vec<i64>) -> (Queue, Self) {
        let (sender, batches) = mpsc::channel(QUEUE_BATCHES);
        let waiting = Arc::<AtomicUsize>::default();
        (Queue { batches: sender, waiting: waiting.clone() }, Self { topic, next, batches, waiting })
    }

    /// What comes next. `None` when the follower was too slow or the fetcher begins anew: join again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Option<Arc<Batch>> {
        let batch = self.batches.recv().await?;
        self.waiting.fetch_sub(batch.bytes(), Ordering::Relaxed);
        Some(batch)
    }

    /// What is at hand.
    pub fn try_recv(&mut self) -> Option<Arc<Batch>> {
        let batch = self.batches.try_recv().ok()?;
        self.waiting.fetch_sub(batch.bytes(), Ordering::Relaxed);
        Some(batch)
    }
}

impl Queue {
    /// Takes a batch unless more than `max` bytes would wait. One is always taken by an empty queue.
    fn offer(&self, batch: &Arc<Batch>, max: usize) -> Offered {
        let bytes = batch.bytes();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > max {
            return Offered::Full;
        }
        match self.batches.try_send(batch.clone()) {
            Ok(()) => Offered::Taken,
            Err(mpsc::error::TrySendError::Full(_)) => Offered::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Offered::Closed,
        }
    }
}

impl Hub {
    /// Begins without a fetcher.
    pub fn new(kafka: Arc<Kafka>, settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { kafka, queue_bytes: settings.queue_bytes_max, metrics, fetchers: Mutex::default() })
    }

    /// Asks for a place among a topic's followers. The answer comes once the topic is there.
    ///
    /// # Cancel safety
    /// Dropping the receiver takes the request back.
    pub fn join(self: &Arc<Self>, topic: &TopicName) -> oneshot::Receiver<Follower> {
        let (reply, answer) = oneshot::channel();
        let mut join = Join { reply };
        let mut fetchers = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetcher) = fetchers.get(topic) {
            match fetcher.send(join) {
                Ok(()) => return answer,
                Err(lost) => join = lost.0,
            }
        }
        let (requests, inbox) = std::sync::mpsc::channel();
        if requests.send(join).is_ok() {
            let fetcher = Fetcher {
                hub: self.clone(),
                topic: topic.clone(),
                inbox,
                waiting: Vec::new(),
                followers: Vec::new(),
                idle_since: Instant::now(),
                retired: false,
            };
            let named = std::thread::Builder::new().name("tail".into());
            match named.spawn(move || fetcher.run()) {
                Ok(_) => drop(fetchers.insert(topic.clone(), requests)),
                Err(error) => tracing::error!(error = %error, "cannot start a fetcher"),
            }
        }
        answer
    }
}

struct Fetcher {
    hub: Arc<Hub>,
    topic: TopicName,
    inbox: Receiver<Join>,
    waiting: Vec<Join>,
    followers: Vec<Queue>,
    idle_since: Instant,
    /// Nobody can reach this fetcher any more; another may have its place.
    retired: bool,
}

/// What a fetcher reads with.
struct Fetch {
    consumer: KafkaConsumer,
    mark: TopicMark,
    id: Option<[u8; 16]>,
    next: Vec<i64>,
    looked: Instant,
    look: Option<Receiver<Result<Option<TopicState>, ReadError>>>,
}

impl Fetcher {
    fn run(mut self) {
        tracing::debug!({ field::DESTINATION } = self.topic.as_str(), "a fetcher starts");
        let _open = Open::new(&self.hub.metrics.fetchers);
        let mut retry = RETRY_MIN;
        while self.wanted() {
            match self.begin() {
                Ok(Some(fetch)) => {
                    retry = RETRY_MIN;
                    if let Err(error) = self.fetch(fetch) {
                        self.complain(&error);
                    }
                    // Whoever followed reads up to what it got and joins again.
                    self.followers.clear();
                }
                Ok(None) => {}
                Err(error) => self.complain(&error),
            }
            std::thread::sleep(retry);
            retry = (retry * 2).min(RETRY_MAX);
        }
        tracing::debug!({ field::DESTINATION } = self.topic.as_str(), "a fetcher ends");
    }

    /// Whether anyone follows or lately did. When it says no, nobody can reach this fetcher any more.
    fn wanted(&mut self) -> bool {
        if self.retired {
            return false;
        }
        self.receive();
        self.waiting.retain(|join| !join.reply.is_closed());
        if !self.waiting.is_empty() || !self.followers.is_empty() {
            self.idle_since = Instant::now();
        }
        if self.idle_since.elapsed() < LINGER {
            return true;
        }
        let hub = self.hub.clone();
        let mut fetchers = hub.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        self.receive();
        if self.waiting.is_empty() {
            fetchers.remove(&self.topic);
            self.retired = true;
            return false;
        }
        true
    }

    fn receive(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(join) => self.waiting.push(join),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Starts at the topic's end; `None` while there is no such topic.
    fn begin(&self) -> Result<Option<Fetch>, ReadError> {
        let Some(state) = self.hub.kafka.topic(&self.topic)? else { return Ok(None) };
        let consumer = self.hub.kafka.tail_consumer()?;
        let next = state.highs();
        let assignment = self.assignment((0..).zip(next.iter().map(|offset| Offset::Offset(*offset))))?;
        consumer.assign(&assignment).map_err(|source| self.failed(source))?;
        let mark = TopicMark::new(&self.topic, state.id);
        Ok(Some(Fetch { consumer, mark, id: state.id, next, looked: Instant::now(), look: None }))
    }

    /// Reads until nobody wants it, the topic is another one, or reading fails.
    fn fetch(&mut self, mut fetch: Fetch) -> Result<(), ReadError> {
        loop {
            self.admit(&fetch);
            let polled = fetch.consumer.poll(WAIT);
            match polled {
                Some(Ok(first)) => {
                    let batch = self.gather(&fetch.consumer, &mut fetch.next, first)?;
                    self.send(&Arc::new(batch));
                }
                Some(Err(error)) => range::check(&self.topic, error)?,
                None => self.followers.retain(|follower| !follower.batches.is_closed()),
            }
            if !self.look(&mut fetch)? {
                return Ok(());
            }
            if self.followers.is_empty() && !self.wanted() {
                return Ok(());
            }
        }
    }

    fn admit(&mut self, fetch: &Fetch) {
        self.receive();
        for join in std::mem::take(&mut self.waiting) {
            let (queue, follower) = Follower::new(fetch.mark, fetch.next.clone());
            if join.reply.send(follower).is_ok() {
                self.followers.push(queue);
                self.idle_since = Instant::now();
            }
        }
    }

    /// Takes all that is at hand, up to a batch.
    fn gather(
        &self,
        consumer: &KafkaConsumer,
        next: &mut Vec<i64>,
        first: BorrowedMessage<'_>,
    ) -> Result<Batch, ReadError> {
        let mut values = Vec::with_capacity(first.payload_len() + 1024);
        let mut entries = Vec::new();
        let mut message = first;
        loop {
            self.push(&message, next, &mut values, &mut entries);
            if values.len() >= BATCH_BYTES || entries.len() >= BATCH_RECORDS {
                break;
            }
            match consumer.poll(Duration::ZERO) {
                Some(Ok(another)) => message = another,
                Some(Err(error)) => {
                    range::check(&self.topic, error)?;
                    break;
                }
                None => break,
            }
        }
        Ok(Batch { values: values.into(), entries })
    }

    fn push(&self, message: &BorrowedMessage<'_>, next: &mut Vec<i64>, values: &mut Vec<u8>, entries: &mut Vec<Entry>) {
        let (partition, offset) = (message.partition(), message.offset());
        let Ok(index) = usize::try_from(partition) else { return };
        if index >= next.len() {
            next.resize(index + 1, 0);
        }
        if message.topic() != self.topic.as_str() || offset < next[index] {
            return;
        }
        next[index] = offset + 1;
        let start = values.len();
        values.extend_from_slice(message.payload().unwrap_or_default());
        let (key_hash, sent) = (key_hash(message.key()), range::sent(message));
        entries.push(Entry { partition, offset, sent, key_hash, value: start..values.len() });
    }

    fn send(&mut self, batch: &Arc<Batch>) {
        let Hub { metrics, queue_bytes, .. } = &*self.hub;
        self.followers.retain(|follower| match follower.offer(batch, *queue_bytes) {
            Offered::Taken => true,
            Offered::Full => {
                metrics.followers_behind.inc();
                false
            }
            Offered::Closed => false,
        });
    }

    /// Whether the topic is still the same, as far as is known; takes up partitions that were added. The question is asked beside the reading,
    /// so that no line waits for it.
    fn look(&self, fetch: &mut Fetch) -> Result<bool, ReadError> {
        if let Some(look) = &fetch.look {
            let answer = match look.try_recv() {
                Err(TryRecvError::Empty) => return Ok(true),
                answer => answer,
            };
            (fetch.look, fetch.looked) = (None, Instant::now());
            return match answer {
                Ok(Ok(Some(state))) => self.compare(fetch, &state),
                Ok(Ok(None)) => Ok(false),
                // A broker that does not answer is no reason to leave: the consumer comes back by itself.
                _ => Ok(true),
            };
        }
        if fetch.looked.elapsed() >= LOOK_EVERY {
            let (told, look) = std::sync::mpsc::channel();
            let (kafka, topic) = (self.hub.kafka.clone(), self.topic.clone());
            let asking = std::thread::Builder::new().name("look".into()).spawn(move || told.send(kafka.topic(&topic)));
            fetch.look = asking.is_ok().then_some(look);
            fetch.looked = Instant::now();
        }
        Ok(true)
    }

    fn compare(&self, fetch: &mut Fetch, state: &TopicState) -> Result<bool, ReadError> {
        let same = fetch.id.is_none() || state.id.is_none() || fetch.id == state.id;
        if !same || shrank(&fetch.next, state) {
            return Ok(false);
        }
        let known = fetch.next.len();
        if state.partitions.len() > known {
            let added = state.numbered().skip(known);
            let assignment = self.assignment(added.map(|(partition, ends)| (partition, Offset::Offset(ends.low))))?;
            fetch.consumer.incremental_assign(&assignment).map_err(|source| self.failed(source))?;
            fetch.next.extend(state.partitions[known..].iter().map(|ends| ends.low));
        }
        Ok(true)
    }

    fn assignment(&self, partitions: impl Iterator<Item = (i32, Offset)>) -> Result<TopicPartitionList, ReadError> {
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in partitions {
            assignment
                .add_partition_offset(self.topic.as_str(), partition, offset)
                .map_err(|source| self.failed(source))?;
        }
        Ok(assignment)
    }

    fn failed(&self, source: rdkafka::error::KafkaError) -> ReadError {
        ReadError::Read { topic: self.topic.clone(), source }
    }

    fn complain(&self, error: &ReadError) {
        static FAILURES: Throttle = Throttle::new(Duration::from_secs(10));
        if let Some(left_out) = FAILURES.allow() {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!({ field::DESTINATION } = self.topic.as_str(), error = %error, cause, left_out, "a fetcher begins anew");
        }
    }
}

/// Whether a partition ends before what was read of it: the topic was made anew, or lost records.
fn shrank(next: &[i64], state: &TopicState) -> bool {
    state.partitions.len() < next.len() || next.iter().zip(&state.partitions).any(|(next, ends)| *next > ends.high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::kafka::Watermarks;

    #[test]
    fn a_topic_that_shrank_is_another() {
        let state =
            TopicState { id: None, partitions: vec![Watermarks { low: 0, high: 5 }, Watermarks { low: 2, high: 2 }] };
        for (next, expected) in [(&[5, 2][..], false), (&[6, 2], true), (&[3], false), (&[0, 0, 0], true), (&[], false)]
        {
            assert_eq!(shrank(next, &state), expected, "{next:?}");
        }
    }

    #[test]
    fn a_batch_gives_back_what_was_put_in() {
        let entry = |partition, offset, value| Entry { partition, offset, sent: 7, key_hash: 1, value };
        let batch =
            Batch { values: Bytes::from_static(b"onetwo"), entries: vec![entry(0, 4, 0..3), entry(1, 9, 3..6)] };
        let records = |first| -> Vec<_> {
            batch.records_from(first).map(|record| (record.partition, record.offset, record.value)).collect()
        };
        assert_eq!(records(0), [(0, 4, b"one".as_slice()), (1, 9, b"two")]);
        assert_eq!(records(1), [(1, 9, b"two".as_slice())]);
        assert!(records(2).is_empty() && records(3).is_empty());
    }

    #[tokio::test]
    async fn a_followers_queue_is_bounded_by_bytes() {
        let batch = |bytes: usize| Arc::new(Batch { values: vec![0; bytes].into(), entries: Vec::new() });
        let mark = TopicMark::new(&TopicName::parse("logs.a").unwrap(), None);
        let (queue, mut follower) = Follower::new(mark, Vec::new());
        assert_eq!(queue.offer(&batch(1000), 100), Offered::Taken, "a large one alone");
        assert_eq!(follower.recv().await.map(|batch| batch.bytes()), Some(1000));
        for _ in 0..10 {
            assert_eq!(queue.offer(&batch(10), 100), Offered::Taken);
        }
        assert!(follower.try_recv().is_some());
        assert_eq!(queue.offer(&batch(10), 100), Offered::Taken);
        assert_eq!(queue.offer(&batch(10), 100), Offered::Full);
        drop(follower);
        let (queue, follower) = Follower::new(mark, Vec::new());
        drop(follower);
        assert_eq!(queue.offer(&batch(10), 100), Offered::Closed);
    }
}
