//! The sink that is Kafka: an idempotent librdkafka producer that never gives up by itself.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_service_kit::kafka_client::KafkaSettings;
use fairlead_service_kit::telemetry::{ThrottleBy, field};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::wake::Wake;
use super::{Failure, FailureKind, Pending, ProduceError, Refusal, SendResult, Sink, Slot, refusal};

const CLIENT_ID: &str = "fairlead-router";
/// Properties with a better default than librdkafka's; the operator's value wins.
const DEFAULTS: [(&str, &str); 4] =
    [("linger.ms", "5"), ("compression.type", "lz4"), ("max.in.flight", "5"), ("enable.metrics.push", "false")];
/// Events served in one poll before the worker gets its turn again; a batch's reports are one event.
const EVENTS_PER_POLL_MAX: usize = 1_024;
/// How long a renewal waits for the reports of what the old producer still had.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(5);
/// The wait between the first two renewals in a row; it doubles up to the second.
const RENEW_WAIT_MIN: Duration = Duration::from_secs(1);
const RENEW_WAIT_MAX: Duration = Duration::from_secs(30);
/// A producer that lived for so long was well.
const RENEW_CALM: Duration = Duration::from_secs(60);
/// How long a topic's refresh may wait for its answer.
const REFRESH_WAIT_MAX: Duration = Duration::from_secs(2);
/// One message of a kind in this time.
const REPEAT_EVERY: Duration = Duration::from_secs(10);

/// Produces to Kafka. See [`Sink`].
pub struct KafkaSink {
    config: ClientConfig,
    pending: Arc<Pending>,
    failures: Arc<Mutex<Vec<Failure>>>,
    producer: Live,
    /// The producer's handle, for [`Refresher`].
    current: Arc<Mutex<Handle>>,
    /// When the producer was replaced last, and how long the next replacement waits after that.
    renewed: Option<(Instant, Duration)>,
}

/// A producer that other threads may ask for metadata; only the worker polls it.
type Handle = Arc<BaseProducer<Reports>>;

impl KafkaSink {
    /// Makes the producer; it connects by itself. `in_flight_bytes_max` is the worker's own bound: librdkafka's are set
    /// above it, unless the operator set them.
    ///
    /// # Errors
    /// If librdkafka or the system refuses.
    pub fn new(
        settings: &KafkaSettings,
        in_flight_bytes_max: u64,
        pending: Arc<Pending>,
    ) -> Result<KafkaSink, ProduceError> {
        let config = producer_config(settings, in_flight_bytes_max);
        let failures = Arc::new(Mutex::new(Vec::new()));
        let producer = Live::start(&config, &pending, &failures)?;
        let current = Arc::new(Mutex::new(Arc::clone(&producer.handle)));
        Ok(KafkaSink { config, pending, failures, producer, current, renewed: None })
    }

    /// What makes the producer look at a topic anew, for the thread that looks up topics.
    pub fn refresher(&self) -> Refresher {
        Refresher { current: Arc::clone(&self.current) }
    }
}

/// Makes the producer look at a topic anew. It remembers that a topic was refused until it asks for it again, which by
/// itself it does every five minutes.
#[derive(Clone)]
pub struct Refresher {
    current: Arc<Mutex<Handle>>,
}

impl Refresher {
    /// Asks for the topic through the producer's own connections. Blocks until it is answered, but not for long.
    pub(super) fn refresh(&self, topic: &str) {
        let handle = Arc::clone(&lock(&self.current));
        if let Err(error) = handle.client().fetch_metadata(Some(topic), REFRESH_WAIT_MAX) {
            tracing::debug!({ field::DESTINATION } = topic, { field::ERROR } = %error, "producer not refreshed");
        }
    }
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refresher")
    }
}

impl Sink for KafkaSink {
    fn send(&mut self, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult {
        let record = BaseRecord::with_opaque_to(topic, slot.0 as usize).partition(partition).key(key).payload(value);
        match self.producer.handle.send(record) {
            Ok(()) => SendResult::Queued,
            Err((KafkaError::MessageProduction(code), _)) => match code {
                Code::QueueFull => SendResult::Full,
                Code::Fatal => SendResult::Fatal,
                code => SendResult::Refused(refusal::refusal(code).unwrap_or(Refusal::Other)),
            },
            // A topic with a zero byte: a `TopicName` has none.
            Err(_) => SendResult::Refused(Refusal::InvalidTopic),
        }
    }

    fn poll(&mut self, wait: Duration) {
        if self.producer.serve() == 0 && !wait.is_zero() {
            self.producer.wake.wait(wait);
            self.producer.serve();
        }
    }

    fn failures(&mut self, into: &mut Vec<Failure>) {
        into.append(&mut lock(&self.failures));
    }

    fn in_flight(&self) -> usize {
        self.producer.unreported()
    }

    fn fatal(&mut self) -> Option<String> {
        let (code, reason) = self.producer.handle.client().fatal_error()?;
        if self.renewed.is_some_and(|(at, wait)| at.elapsed() < wait) {
            return None;
        }
        Some(format!("{code}: {reason}"))
    }

    fn renew(&mut self) -> Result<(), ProduceError> {
        let fresh = Live::start(&self.config, &self.pending, &self.failures)?;
        self.renewed = Some((Instant::now(), next_wait(self.renewed, Instant::now())));
        *lock(&self.current) = Arc::clone(&fresh.handle);
        let old = std::mem::replace(&mut self.producer, fresh);
        old.handle.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + PURGE_WAIT_MAX;
        while old.unreported() > 0 && Instant::now() < deadline {
            old.wake.wait(Duration::from_millis(20));
            old.serve();
        }
        // From here on, reports of the old producer must not touch slots that are used anew.
        old.handle.context().muted.store(true, Ordering::Relaxed);
        let mut failures = lock(&self.failures);
        failures.extend(self.pending.fail_outstanding().map(|(slot, records)| Failure {
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
        Ok(())
    }

    fn trouble(&mut self) -> bool {
        self.producer.handle.context().trouble.swap(false, Ordering::Relaxed)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.producer.wake.as_fd())
    }
}

/// A running producer. The order of the fields is the order in which they are dropped.
struct Live {
    wake: Wake,
    handle: Handle,
}

impl Live {
    fn start(
        config: &ClientConfig,
        pending: &Arc<Pending>,
        failures: &Arc<Mutex<Vec<Failure>>>,
    ) -> Result<Live, ProduceError> {
        let reports = Reports {
            pending: Arc::clone(pending),
            failures: Arc::clone(failures),
            trouble: AtomicBool::new(false),
            muted: AtomicBool::new(false),
            repeats: Mutex::new(ThrottleBy::new(REPEAT_EVERY, 64)),
        };
        let handle: BaseProducer<Reports> =
            config.create_with_context(reports).map_err(|source| ProduceError::Client { source })?;
        let wake = Wake::attach(handle.client()).map_err(|source| ProduceError::Wake { source })?;
        Ok(Live { wake, handle: Arc::new(handle) })
    }

    /// Records without a report yet. librdkafka's count takes events that wait to be served for records.
    fn unreported(&self) -> usize {
        let waiting = self.wake.waiting();
        usize::try_from(self.handle.in_flight_count()).unwrap_or(0).saturating_sub(waiting)
    }

    /// Serves what waits and gives the number of events.
    fn serve(&self) -> usize {
        self.wake.clear();
        let mut served = 0;
        while self.wake.waiting() > 0 {
            if served == EVENTS_PER_POLL_MAX {
                self.wake.raise(); // librdkafka tells only of the first event in an empty queue
                break;
            }
            self.handle.poll(Duration::ZERO); // one event
            served += 1;
        }
        served
    }
}

/// Receives what librdkafka reports, on the thread that polls.
struct Reports {
    pending: Arc<Pending>,
    failures: Arc<Mutex<Vec<Failure>>>,
    trouble: AtomicBool,
    /// Set when the producer was replaced: its slots may have been reset.
    muted: AtomicBool,
    repeats: Mutex<ThrottleBy<String>>,
}

impl Reports {
    /// Notes a failed record. Reports come batch by batch, so that equal ones follow each other.
    fn failed(&self, slot: Slot, code: Code) {
        self.pending.fail(slot);
        let kind = refusal::of_delivery(code);
        let mut failures = lock(&self.failures);
        match failures.last_mut() {
            Some(last) if last.slot == slot && last.kind == kind => last.records += 1,
            _ => failures.push(Failure { slot, kind, error: code.to_string(), records: 1 }),
        }
    }

    /// Whether a message of this kind may be logged now, and how many were left out.
    fn may_repeat(&self, kind: &str) -> Option<u64> {
        lock(&self.repeats).allow(&kind.to_owned())
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        if self.muted.load(Ordering::Relaxed) {
            return;
        }
        let slot = Slot(u32::try_from(opaque).expect("an opaque is a slot's number"));
        match result {
            Ok(_) => self.pending.acknowledge(slot),
            Err((KafkaError::MessageProduction(code), _)) => self.failed(slot, *code),
            Err((error, _)) => self.failed(slot, error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::info!(facility, "librdkafka: {message}"),
            _ => {
                if let Some(left_out) = self.may_repeat(facility) {
                    tracing::warn!(facility, { field::LEFT_OUT } = left_out, "librdkafka: {message}");
                }
            }
        }
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.store(true, Ordering::Relaxed);
        let kind = error.rdkafka_error_code().map_or_else(|| "error".to_owned(), |code| format!("{code:?}"));
        match error.rdkafka_error_code() {
            // librdkafka's log says so already, and the thread that looks up topics says when nobody answers.
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve) => {
                tracing::debug!(
                    { field::ERROR_TYPE } = kind,
                    { field::ERROR } = reason,
                    "connection to a broker failed"
                );
            }
            _ => {
                if let Some(left_out) = self.may_repeat(&kind) {
                    tracing::warn!(
                        { field::ERROR_TYPE } = kind,
                        { field::ERROR } = reason,
                        { field::LEFT_OUT } = left_out,
                        "the Kafka producer has trouble"
                    );
                }
            }
        }
    }
}

/// How long the renewal after this one waits: a right that is missing makes every new producer die at once.
fn next_wait(last: Option<(Instant, Duration)>, now: Instant) -> Duration {
    match last {
        Some((at, wait)) if now.duration_since(at) < RENEW_CALM => (wait * 2).min(RENEW_WAIT_MAX),
        _ => RENEW_WAIT_MIN,
    }
}

/// The operator's settings, our defaults where nothing is set, and what must hold.
fn producer_config(settings: &KafkaSettings, in_flight_bytes_max: u64) -> ClientConfig {
    let mut config = settings.client_config(CLIENT_ID);
    for (name, value) in DEFAULTS {
        if settings.property(name).is_none() {
            config.set(name, value);
        }
    }
    if settings.property("queue.buffering.max.messages").is_none() {
        config.set("queue.buffering.max.messages", "0"); // no limit but that of bytes
    }
    if settings.property("queue.buffering.max.kbytes").is_none() {
        // Keys count too, and so does what is sent anew after a rewind while the old is being reported.
        let kilobytes = (in_flight_bytes_max / 1024 * 4).clamp(64 * 1024, i32::MAX as u64);
        config.set("queue.buffering.max.kbytes", kilobytes.to_string());
    }
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("allow.auto.create.topics", "false");
    config
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
