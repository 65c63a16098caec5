//! Reads a whole topic: every partition from its first offset to the end that it had when the reading began. No consumer group is joined.

use std::time::{Duration, Instant};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::kafka_client::KafkaSettings;
use rdkafka::{
    Message, Offset, Timestamp, TopicPartitionList,
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{AuditError, topic::Raw};

/// librdkafka assigns nothing without a group's name; no group of this name is ever joined or written to.
const GROUP: &str = "fairlead-router-audit";
/// How long a question may take, and how long no record may come although there should be some.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const POLL_WAIT: Duration = Duration::from_millis(200);

/// What of a partition is read: `from` to before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// Where its log begins.
    pub from: i64,
    /// Where it ended when the reading began.
    pub to: i64,
}

/// A client that reads topics.
pub struct Reader {
    consumer: BaseConsumer<Quiet>,
    silence_max: Duration,
}

/// Says nothing: what matters comes as an error.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// A partition while it is read.
struct Lane {
    span: Span,
    next: i64,
    done: bool,
    /// Where the end of the partition was told before the end of the span.
    told_at: Option<i64>,
}

impl Lane {
    /// Whether an end that is told now is believed. Before the end of the span, what is missing was compacted or taken back, or a replica that
    /// lags has told it: it is believed when it is told twice at one place, and the leader did not deny it in between.
    fn believes_end(&self) -> bool {
        self.next >= self.span.to || self.told_at == Some(self.next)
    }

    /// Its leader says where it ends. If that is before the end of the span, records are gone that were there, or the leader is new and does
    /// not know of them yet.
    fn doubt(&mut self, leader_end: i64) {
        self.told_at = (leader_end >= self.span.to).then_some(self.next);
    }
}

impl Reader {
    /// Makes the client; it connects by itself.
    ///
    /// # Errors
    /// [`AuditError::Client`] when librdkafka refuses.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, AuditError> {
        let mut config = kafka.client_config("fairlead-router-audit");
        config
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "50")
            .set("queued.max.messages.kbytes", "16384")
            // By default a second passes before a queue that was full is filled again.
            .set("fetch.queue.backoff.ms", "10")
            .set("enable.metrics.push", "false");
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
            .create_with_context(Quiet)
            .map(|consumer| Self { consumer, silence_max: SILENCE_MAX })
            .map_err(AuditError::Client)
    }

    /// What there is to read of a topic.
    ///
    /// # Errors
    /// [`AuditError`] when the topic is missing, may not be read, or no broker answers.
    pub fn spans(&self, topic: &TopicName) -> Result<Vec<Span>, AuditError> {
        let fail = |source| AuditError::Ask { topic: topic.clone(), source };
        let name = topic.as_str();
        let metadata = self.consumer.fetch_metadata(Some(name), ANSWER_WAIT_MAX).map_err(fail)?;
        let told = metadata.topics().iter().find(|told| told.name() == name);
        let partitions = match told.map(|told| (told.error().map(Code::from), told.partitions())) {
            None | Some((Some(Code::UnknownTopicOrPartition | Code::UnknownTopic), _)) => {
                return Err(AuditError::Missing { topic: topic.clone() });
            }
            Some((Some(code), _)) => return Err(fail(KafkaError::MetadataFetch(code))),
            Some((None, partitions)) => partitions.iter().map(rdkafka::metadata::MetadataPartition::id),
        };
        let mut spans = Vec::new();
        for partition in partitions {
            let (from, to) = self.consumer.fetch_watermarks(name, partition, ANSWER_WAIT_MAX).map_err(fail)?;
            spans.push(Span { partition, from, to });
        }
        spans.sort_by_key(|span| span.partition);
        Ok(spans)
    }

    /// Reads all of the spans; each partition in its order.
    ///
    /// # Errors
    /// [`AuditError`] when Kafka refuses, is silent for too long, or takes records away that were still to be read; and what the visitor says.
    pub fn read(
        &self,
        topic: &TopicName,
        spans: &[Span],
        visit: &mut dyn FnMut(&Raw<'_>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let fail = |source| AuditError::Read { topic: topic.clone(), source };
        let lane = |span: &Span| Lane { span: *span, next: span.from, done: span.from >= span.to, told_at: None };
        let mut lanes: Vec<Lane> = spans.iter().map(lane).collect();
        let mut assignment = TopicPartitionList::new();
        for lane in lanes.iter().filter(|lane| !lane.done) {
            let (partition, from) = (lane.span.partition, Offset::Offset(lane.span.from));
            assignment.add_partition_offset(topic.as_str(), partition, from).map_err(fail)?;
        }
        self.consumer.assign(&assignment).map_err(fail)?;
        let mut heard = Instant::now();
        while lanes.iter().any(|lane| !lane.done) {
            if heard.elapsed() > self.silence_max {
                return Err(AuditError::Silent { topic: topic.clone() });
            }
            match self.consumer.poll(POLL_WAIT) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(lane) = lanes.iter_mut().find(|lane| lane.span.partition == partition) else { continue };
                    if lane.done || message.topic() != topic.as_str() || offset < lane.next {
                        continue;
                    }
                    if offset < lane.span.to {
                        let sent_ms = match message.timestamp() {
                            Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at) => at,
                            Timestamp::NotAvailable => 0,
                        };
                        let (key, value) = (message.key().unwrap_or_default(), message.payload());
                        visit(&Raw { partition, offset, sent_ms, key, value })?;
                    }
                    lane.next = offset.saturating_add(1);
                    self.finish(topic, lane, lane.next >= lane.span.to);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(lane) = lanes.iter_mut().find(|lane| lane.span.partition == partition && !lane.done) {
                        self.told_end(topic, lane).map_err(fail)?;
                    }
                }
                Some(Err(error)) => check(topic, error)?,
                None => {}
            }
        }
        self.consumer.unassign().map_err(fail)
    }

    /// A partition is told to end: if that is doubted, its leader is asked, and it is read again from there.
    fn told_end(&self, topic: &TopicName, lane: &mut Lane) -> Result<(), KafkaError> {
        let believed = lane.believes_end();
        if !believed {
            let (_, to) = self.consumer.fetch_watermarks(topic.as_str(), lane.span.partition, ANSWER_WAIT_MAX)?;
            lane.doubt(to);
            self.consumer.seek(topic.as_str(), lane.span.partition, Offset::Offset(lane.next), ANSWER_WAIT_MAX)?;
        }
        self.finish(topic, lane, believed);
        Ok(())
    }

    fn finish(&self, topic: &TopicName, lane: &mut Lane, done: bool) {
        if done && !lane.done {
            lane.done = true;
            let mut over = TopicPartitionList::new();
            over.add_partition(topic.as_str(), lane.span.partition);
            // What still comes of it is passed over.
            let _ = self.consumer.pause(&over);
        }
    }
}

/// Tells an error that the client outlives by itself from one that ends the reading.
fn check(topic: &TopicName, source: KafkaError) -> Result<(), AuditError> {
    match source.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(AuditError::Moved { topic: topic.clone() }),
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::Fatal,
        ) => Err(AuditError::Read { topic: topic.clone(), source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
