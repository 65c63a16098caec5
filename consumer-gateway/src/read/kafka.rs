//! Questions to Kafka, and the consumers that read. Everything here blocks: call it on threads that may.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::{kafka_client::KafkaSettings, telemetry::Throttle};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::{
    Settings,
    readers::{Reader, Readers},
    topic_id::{TopicId, topic_id},
};

/// Named in every consumer because librdkafka assigns nothing without it; no group of this name is ever joined or written to.
const GROUP: &str = "fairlead-gateway";

/// How long the question for a topic's id may take, and how long it is left alone after it was not answered: some brokers never do.
const ID_TIME: Duration = Duration::from_secs(1);
const ID_PAUSE: Duration = Duration::from_secs(60);

/// A consumer of this gateway.
pub type KafkaConsumer = BaseConsumer<Context>;

/// Asks Kafka about topics, and makes consumers.
pub struct Kafka {
    config: ClientConfig,
    timeout: Duration,
    fetch_wait: Duration,
    questions: KafkaConsumer,
    readers: Readers,
    /// Until when no topic's id is asked for.
    ids_pause: Mutex<Option<Instant>>,
}

/// A topic as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// The id that Kafka gave it, where the broker tells.
    pub id: Option<[u8; 16]>,
    /// Its partitions 0, 1, 2 …
    pub partitions: Vec<Watermarks>,
}

/// The ends of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that is there.
    pub low: i64,
    /// The offset that the next record gets.
    pub high: i64,
}

/// Why Kafka's answer is missing. `Display` names the topic; the log prints the rest.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A question was not answered, or with an error.
    #[error("cannot ask Kafka about {object}")]
    Ask {
        /// The topic, or "topics".
        object: String,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
    /// A client could not be made.
    #[error("cannot make a Kafka client")]
    Client(#[source] KafkaError),
    /// Reading failed.
    #[error("cannot read topic {topic}")]
    Read {
        /// The topic.
        topic: TopicName,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
    /// A partition gave nothing for too long.
    #[error("topic {topic} gives nothing")]
    Silent {
        /// The topic.
        topic: TopicName,
    },
    /// The offset that was to be read is not there any more.
    #[error("partition {partition} of topic {topic} does not hold the asked offset")]
    OffsetGone {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: i32,
    },
}

/// Passes librdkafka's complaints on to the log, a few at a time: while a broker is away each client repeats them.
pub struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        static ERRORS: Throttle = Throttle::new(Duration::from_secs(10));
        match level {
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, "librdkafka: {message}")
            }
            _ => {
                if let Some(left_out) = ERRORS.allow() {
                    tracing::warn!(facility, left_out, "librdkafka: {message}");
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        static ERRORS: Throttle = Throttle::new(Duration::from_secs(10));
        if let Some(left_out) = ERRORS.allow() {
            tracing::warn!(error = %error, left_out, "kafka client: {reason}");
        }
    }
}

impl ConsumerContext for Context {}

impl ReadError {
    /// Whether the same question may be answered later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Ask { .. } | Self::Read { .. } | Self::Silent { .. } | Self::OffsetGone { .. } => true,
            Self::Client(_) => false,
        }
    }
}

impl TopicState {
    /// The first offsets that are there.
    pub fn lows(&self) -> Vec<i64> {
        self.partitions.iter().map(|partition| partition.low).collect()
    }

    /// The offsets that the next records get.
    pub fn highs(&self) -> Vec<i64> {
        self.partitions.iter().map(|partition| partition.high).collect()
    }

    /// Partition numbers with their ends.
    pub fn numbered(&self) -> impl Iterator<Item = (i32, Watermarks)> + '_ {
        (0..).zip(self.partitions.iter().copied())
    }
}

impl Kafka {
    /// Makes the client that asks. It connects in the background; a broker that is not there is no error.
    ///
    /// # Errors
    /// [`ReadError::Client`] when the settings make no client.
    pub fn new(settings: &KafkaSettings, read: &Settings) -> Result<Self, ReadError> {
        let mut config = settings.client_config("fairlead-gateway");
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("check.crcs", "true")
            .set("fetch.queue.backoff.ms", "5")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("queued.max.messages.kbytes", (read.queue_bytes_max / 1024).max(64).to_string())
            .set("fetch.max.bytes", (read.queue_bytes_max.max(1 << 20)).to_string())
            .set("message.max.bytes", (read.queue_bytes_max.clamp(1000, 1 << 20)).to_string());
        let questions = config.create_with_context(Context).map_err(ReadError::Client)?;
        Ok(Self {
            config,
            timeout: read.kafka_timeout,
            fetch_wait: read.fetch_wait,
            questions,
            readers: Readers::default(),
            ids_pause: Mutex::default(),
        })
    }

    /// Whether any broker answers.
    ///
    /// # Errors
    /// [`ReadError::Ask`] when none does within `timeout`.
    pub fn probe(&self, timeout: Duration) -> Result<(), ReadError> {
        self.drain();
        // A topic that is nobody's: asking for all of them is heavy where there are thousands.
        let answer = self.questions.fetch_metadata(Some("fairlead.control"), timeout);
        answer.map(|_| ()).map_err(|source| ReadError::Ask { object: "brokers".into(), source })
    }

    /// The names of all topics that this gateway may see.
    ///
    /// # Errors
    /// [`ReadError::Ask`] when Kafka does not answer in time.
    pub fn topics(&self) -> Result<Vec<String>, ReadError> {
        self.drain();
        let metadata = self
            .questions
            .fetch_metadata(None, self.timeout)
            .map_err(|source| ReadError::Ask { object: "topics".into(), source })?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| topic.name().to_owned())
            .collect())
    }

    /// A topic's id, partitions and their ends; `None` when there is no such topic.
    ///
    /// # Errors
    /// [`ReadError::Ask`] when Kafka does not answer in time, refuses, or a partition has no leader.
    pub fn topic(&self, topic: &TopicName) -> Result<Option<TopicState>, ReadError> {
        let Some(partitions) = self.ends(topic)? else { return Ok(None) };
        Ok(Some(TopicState { id: self.topic_id(topic), partitions }))
    }

    /// The ends of a topic's partitions; `None` when there is no such topic.
    ///
    /// # Errors
    /// As [`Self::topic`].
    pub fn ends(&self, topic: &TopicName) -> Result<Option<Vec<Watermarks>>, ReadError> {
        self.drain();
        let fail = |source| ReadError::Ask { object: format!("topic {topic}"), source };
        let deadline = Instant::now() + self.timeout;
        let Some(partitions) = self.partitions(topic).map_err(fail)? else { return Ok(None) };
        let mut ends = Vec::with_capacity(partitions);
        for partition in 0..partitions {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            let partition = i32::try_from(partition).expect("partitions are numbered by i32");
            let (low, high) = self.questions.fetch_watermarks(topic.as_str(), partition, left).map_err(fail)?;
            ends.push(Watermarks { low, high: high.max(low) });
        }
        Ok(Some(ends))
    }

    /// For each partition, the first offset whose record was sent at `sent` (milliseconds since 1970) or later; its end if there is none.
    ///
    /// A broker may answer the beginning for a time past the end, so whoever reads from there looks at the record's time too
    /// ([`super::range::Span::sent_from`]).
    ///
    /// # Errors
    /// [`ReadError::Ask`] when Kafka does not answer in time.
    pub fn offsets_at(&self, topic: &TopicName, state: &TopicState, sent: i64) -> Result<Vec<i64>, ReadError> {
        let fail = |source| ReadError::Ask { object: format!("topic {topic}"), source };
        let mut asked = TopicPartitionList::with_capacity(state.partitions.len());
        for (partition, _) in state.numbered() {
            asked.add_partition_offset(topic.as_str(), partition, Offset::Offset(sent.max(0))).map_err(fail)?;
        }
        let answer = self.questions.offsets_for_times(asked, self.timeout).map_err(fail)?;
        let offset = |(partition, ends): (i32, Watermarks)| {
            let element = answer.find_partition(topic.as_str(), partition);
            if let Some(element) = &element {
                element.error().map_err(fail)?;
            }
            Ok(match element.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset.clamp(ends.low, ends.high),
                _ => ends.high,
            })
        };
        state.numbered().map(offset).collect()
    }

    /// A consumer for a range that ends: fetches ahead, and tells where a partition ends.
    ///
    /// # Errors
    /// [`ReadError::Client`] when it cannot be made.
    pub fn reader(&self) -> Result<Reader<'_>, ReadError> {
        self.readers.take(|| {
            let mut config = self.config.clone();
            // A fetch that waits at the end of a partition would keep the next reader of this connection waiting.
            config.set("group.id", GROUP).set("enable.partition.eof", "true").set("fetch.wait.max.ms", "5");
            config.create_with_context(Context).map_err(ReadError::Client)
        })
    }

    /// Closes readers that wait for the next range: one of them was at odds with the broker.
    pub fn forget_readers(&self) {
        self.readers.clear();
    }

    /// A consumer that looks at single records of many partitions and fetches little of each.
    ///
    /// # Errors
    /// [`ReadError::Client`] when it cannot be made.
    pub fn peek_consumer(&self) -> Result<KafkaConsumer, ReadError> {
        let mut config = self.config.clone();
        config.set("group.id", GROUP).set("fetch.wait.max.ms", "100").set("fetch.message.max.bytes", "16384");
        config.create_with_context(Context).map_err(ReadError::Client)
    }

    /// A consumer that waits for what comes.
    ///
    /// # Errors
    /// [`ReadError::Client`] when it cannot be made.
    pub fn tail_consumer(&self) -> Result<KafkaConsumer, ReadError> {
        let mut config = self.config.clone();
        config.set("group.id", GROUP).set("fetch.wait.max.ms", self.fetch_wait.as_millis().max(1).to_string());
        config.create_with_context(Context).map_err(ReadError::Client)
    }

    /// How long one question may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn topic_id(&self, topic: &TopicName) -> Option<[u8; 16]> {
        if self.ids_pause.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match topic_id(self.questions.client(), topic.as_str(), ID_TIME.min(self.timeout)) {
            TopicId::Known(id) => Some(id),
            TopicId::Unknown => None,
            TopicId::NoAnswer => {
                *self.ids_pause.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + ID_PAUSE);
                None
            }
        }
    }

    /// How many partitions; `None` when there is no such topic.
    fn partitions(&self, topic: &TopicName) -> KafkaResult<Option<usize>> {
        let metadata = self.questions.fetch_metadata(Some(topic.as_str()), self.timeout)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic.as_str()) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(Some(found.partitions().len()).filter(|partitions| *partitions > 0)),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
    }

    /// Takes what waits in the asking client's queue: errors that its context has logged.
    fn drain(&self) {
        while self.questions.poll(Duration::ZERO).is_some() {}
    }
}
