//! The sink that is Kafka: idempotent librdkafka producers that never give up by themselves, one a lane.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairlead_service_kit::kafka_client::KafkaSettings;
use fairlead_service_kit::telemetry::field;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::producer::{Handle, Live, lock};
use super::settings::{batch_bytes, producer_config};
use super::wake::Event;
use super::{DeadLetter, Failure, FailureKind, Lane, Pending, ProduceError, Refusal, SendResult, Sink, Slot, refusal};

/// How long a renewal waits for the reports of what the old producer still had.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(5);
/// The wait between the first two renewals in a row; it doubles up to the second.
const RENEW_WAIT_MIN: Duration = Duration::from_secs(1);
const RENEW_WAIT_MAX: Duration = Duration::from_secs(30);
/// A producer that lived for so long was well.
const RENEW_CALM: Duration = Duration::from_secs(60);
/// How long a topic's refresh may wait for its answer.
const REFRESH_WAIT_MAX: Duration = Duration::from_secs(2);

/// Produces to Kafka. See [`Sink`].
pub struct KafkaSink {
    config: ClientConfig,
    /// `batch.size` of a lane that no topic bounds.
    batch_bytes_max: u64,
    pending: Arc<Pending>,
    failures: Arc<Mutex<Vec<Failure>>>,
    /// By lane; dropped before `event`, which they raise.
    producers: [Option<Live>; Lane::COUNT],
    /// Through which lane a slot's records went, by slot.
    lane_of_slot: Box<[Lane]>,
    event: Arc<Event>,
    /// The producers' handles, for [`Refresher`].
    current: Arc<Mutex<Vec<Handle>>>,
}

impl KafkaSink {
    /// Makes the producer of [`Lane::FIRST`]; it connects by itself. `in_flight_bytes_max` is the worker's own bound:
    /// librdkafka's are set above it, unless the operator set them.
    ///
    /// # Errors
    /// If librdkafka or the system refuses.
    pub fn new(
        settings: &KafkaSettings,
        in_flight_bytes_max: u64,
        pending: Arc<Pending>,
    ) -> Result<KafkaSink, ProduceError> {
        let mut sink = KafkaSink {
            config: producer_config(settings, in_flight_bytes_max),
            batch_bytes_max: batch_bytes(settings),
            lane_of_slot: vec![Lane::FIRST; pending.slots()].into(),
            pending,
            failures: Arc::new(Mutex::new(Vec::new())),
            producers: [const { None }; Lane::COUNT],
            event: Arc::new(Event::new().map_err(|source| ProduceError::Wake { source })?),
            current: Arc::new(Mutex::new(Vec::new())),
        };
        sink.open(u64::MAX)?;
        Ok(sink)
    }

    /// What makes the producers look at a topic anew, for the thread that looks up topics.
    pub fn refresher(&self) -> Refresher {
        Refresher { current: Arc::clone(&self.current) }
    }

    fn start(&self, batch_bytes_max: u64) -> Result<Live, ProduceError> {
        Live::start(&self.config, batch_bytes_max, &self.event, &self.pending, &self.failures)
    }

    fn live(&self) -> impl Iterator<Item = &Live> {
        self.producers.iter().flatten()
    }

    /// Serves every producer; gives the number of events.
    fn serve(&self) -> usize {
        self.event.clear();
        let (mut events, mut more) = (0, false);
        for producer in self.live() {
            let (served, left) = producer.serve();
            events += served;
            more |= left;
        }
        if more {
            self.event.raise(); // librdkafka tells only of the first event in an empty queue
        }
        events
    }

    fn tell_refresher(&self) {
        *lock(&self.current) = self.live().map(|live| Arc::clone(&live.handle)).collect();
    }

    /// Ends a producer. What it still has is reported as a failure to be sent again.
    fn retire(&self, lane: Lane, old: Live) {
        old.handle.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + PURGE_WAIT_MAX;
        while old.unreported() > 0 && Instant::now() < deadline {
            self.event.wait(Duration::from_millis(20));
            self.event.clear();
            old.serve();
        }
        self.event.raise(); // what other producers told meanwhile
        // From here on, reports of the old producer must not touch slots that are used anew.
        old.mute();
        let is_its = |slot: Slot| self.lane_of_slot[slot.0 as usize] == lane;
        lock(&self.failures).extend(self.pending.fail_outstanding(is_its).map(|(slot, records)| Failure {
            slot,
            kind: FailureKind::Retry,
            error: "the producer was replaced".to_owned(),
            records,
        }));
        // Closing waits for connections; the worker need not.
        let closing = std::thread::Builder::new().name("producer-close".to_owned()).spawn(move || drop(old));
        if let Err(error) = closing {
            tracing::warn!({ field::ERROR } = %error, "old producer closed in the worker");
        }
    }
}

/// Makes the producers look at a topic anew. Each remembers that a topic was refused until it asks for it again, which
/// by itself it does every five minutes.
#[derive(Clone)]
pub struct Refresher {
    current: Arc<Mutex<Vec<Handle>>>,
}

impl Refresher {
    /// Asks for the topic through the producers' own connections. Blocks until it is answered, but not for long.
    pub(super) fn refresh(&self, topic: &str) {
        let handles = lock(&self.current).clone();
        for handle in handles {
            if let Err(error) = handle.client().fetch_metadata(Some(topic), REFRESH_WAIT_MAX) {
                tracing::debug!({ field::DESTINATION } = topic, { field::ERROR } = %error, "producer not refreshed");
            }
        }
    }
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refresher")
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, lane: Lane, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult {
        let Some(producer) = &self.producers[lane.index()] else { return SendResult::Full };
        self.lane_of_slot[slot.0 as usize] = lane;
        let record = BaseRecord::with_opaque_to(topic, slot.0 as usize).partition(partition).key(key).payload(value);
        match producer.handle.send(record) {
            Ok(()) => SendResult::Queued,
            Err((error, _)) => not_queued(&error),
        }
    }

    fn send_dead(&mut self, lane: Lane, letter: &DeadLetter<'_>, slot: Slot) -> SendResult {
        let Some(producer) = &self.producers[lane.index()] else { return SendResult::Full };
        self.lane_of_slot[slot.0 as usize] = lane;
        let headers = OwnedHeaders::new()
            .insert(Header { key: "fairlead.reason", value: Some(letter.reason) })
            .insert(Header { key: "fairlead.topic", value: Some(letter.refused_by) });
        let record = BaseRecord::with_opaque_to(letter.topic, slot.0 as usize)
            .partition(letter.partition)
            .key(letter.key)
            .payload(letter.value)
            .headers(headers);
        match producer.handle.send(record) {
            Ok(()) => SendResult::Queued,
            Err((error, _)) => not_queued(&error),
        }
    }

    fn poll(&mut self, wait: Duration) {
        if self.serve() == 0 && !wait.is_zero() {
            self.event.wait(wait);
            self.serve();
        }
    }

    fn failures(&mut self, into: &mut Vec<Failure>) {
        into.append(&mut lock(&self.failures));
    }

    fn in_flight(&self) -> usize {
        self.live().map(Live::unreported).sum()
    }

    fn open(&mut self, batch_bytes_max: u64) -> Result<Lane, ProduceError> {
        let Some(lane) = Lane::all().find(|lane| self.producers[lane.index()].is_none()) else {
            return Err(ProduceError::TooManyLanes);
        };
        self.producers[lane.index()] = Some(self.start(batch_bytes_max.min(self.batch_bytes_max))?);
        self.tell_refresher();
        Ok(lane)
    }

    fn close(&mut self, lane: Lane) {
        if let Some(old) = self.producers[lane.index()].take() {
            self.tell_refresher();
            self.retire(lane, old);
        }
    }

    fn batch_bytes_max(&self, lane: Lane) -> u64 {
        self.producers[lane.index()].as_ref().map_or(self.batch_bytes_max, |live| live.batch_bytes_max)
    }

    fn fatal(&mut self) -> Option<(Lane, String)> {
        Lane::all().find_map(|lane| {
            let producer = self.producers[lane.index()].as_ref()?;
            let reason = producer.fatal()?;
            let too_soon = producer.renewed.is_some_and(|(at, wait)| at.elapsed() < wait);
            (!too_soon).then_some((lane, reason))
        })
    }

    fn renew(&mut self, lane: Lane) -> Result<(), ProduceError> {
        let Some(old) = &self.producers[lane.index()] else { return Ok(()) };
        let mut fresh = self.start(old.batch_bytes_max)?;
        fresh.renewed = Some((Instant::now(), next_wait(old.renewed, Instant::now())));
        if let Some(old) = self.producers[lane.index()].replace(fresh) {
            self.tell_refresher();
            self.retire(lane, old);
        }
        Ok(())
    }

    fn trouble(&mut self) -> bool {
        // Each is asked: all must forget.
        self.live().filter(|live| live.trouble()).count() > 0
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
    }
}

/// Why the producer did not queue a record.
fn not_queued(error: &KafkaError) -> SendResult {
    match error {
        KafkaError::MessageProduction(Code::QueueFull) => SendResult::Full,
        KafkaError::MessageProduction(Code::Fatal) => SendResult::Fatal,
        KafkaError::MessageProduction(code) => SendResult::Refused(refusal::refusal(*code).unwrap_or(Refusal::Other)),
        // A topic with a zero byte: a `TopicName` has none.
        _ => SendResult::Refused(Refusal::InvalidTopic),
    }
}

/// How long the renewal after this one waits: a right that is missing makes every new producer die at once.
fn next_wait(last: Option<(Instant, Duration)>, now: Instant) -> Duration {
    match last {
        Some((at, wait)) if now.duration_since(at) < RENEW_CALM => (wait * 2).min(RENEW_WAIT_MAX),
        _ => RENEW_WAIT_MIN,
    }
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
