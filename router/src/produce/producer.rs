//! One running librdkafka producer: its handle, its queue of reports, and what it reports into.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_service_kit::telemetry::{ThrottleBy, field};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::wake::{Event, Wake};
use super::{Failure, Pending, ProduceError, Slot, refusal};

/// Events served in one poll before the worker gets its turn again; a batch's reports are one event.
const EVENTS_PER_POLL_MAX: usize = 1_024;
/// One message of a kind in this time.
const REPEAT_EVERY: Duration = Duration::from_secs(10);

/// A producer that other threads may ask for metadata; only the worker polls it.
pub(super) type Handle = Arc<BaseProducer<Reports>>;

/// A running producer. The order of the fields is the order in which they are dropped.
pub(super) struct Live {
    wake: Wake,
    pub(super) handle: Handle,
    /// Bytes of a batch at most.
    pub(super) batch_bytes_max: u64,
    /// When its predecessor was replaced, and how long its own replacement waits after that.
    pub(super) renewed: Option<(Instant, Duration)>,
}

impl Live {
    /// Makes a producer; it connects by itself. Its reports raise `event`.
    pub(super) fn start(
        config: &ClientConfig,
        batch_bytes_max: u64,
        event: &Arc<Event>,
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
        let mut config = config.clone();
        config.set("batch.size", batch_bytes_max.to_string());
        let handle: BaseProducer<Reports> =
            config.create_with_context(reports).map_err(|source| ProduceError::Client { source })?;
        let wake = Wake::attach(handle.client(), event);
        Ok(Live { wake, handle: Arc::new(handle), batch_bytes_max, renewed: None })
    }

    /// Records without a report yet. librdkafka's count takes events that wait to be served for records.
    pub(super) fn unreported(&self) -> usize {
        let waiting = self.wake.waiting();
        usize::try_from(self.handle.in_flight_count()).unwrap_or(0).saturating_sub(waiting)
    }

    /// Serves what waits, up to a bound. Gives the number of events, and whether more is waiting.
    pub(super) fn serve(&self) -> (usize, bool) {
        let mut served = 0;
        while self.wake.waiting() > 0 {
            if served == EVENTS_PER_POLL_MAX {
                return (served, true);
            }
            self.handle.poll(Duration::ZERO); // one event
            served += 1;
        }
        (served, false)
    }

    /// Whether a connection failed since the last call.
    pub(super) fn trouble(&self) -> bool {
        self.handle.context().trouble.swap(false, Ordering::Relaxed)
    }

    /// Why it is dead, if it is.
    pub(super) fn fatal(&self) -> Option<String> {
        let (code, reason) = self.handle.client().fatal_error()?;
        Some(format!("{code}: {reason}"))
    }

    /// From here on, its reports touch no slot.
    pub(super) fn mute(&self) {
        self.handle.context().muted.store(true, Ordering::Relaxed);
    }
}

/// Receives what librdkafka reports, on the thread that polls.
pub(super) struct Reports {
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
