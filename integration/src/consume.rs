//! Reads a topic whole, as it lies in Kafka, without a consumer group.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fairlead_contract::record::{Chunk, Notice, Record};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::generator::cri::Stream;
use crate::wait::wait_for;

const ANSWER: Duration = Duration::from_secs(10);

/// A record as it lies in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970: when it was sent, or with `LogAppendTime` when it came.
    pub at_ms: i64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers, with text in them.
    pub headers: Vec<(String, String)>,
}

/// What an audit looks at in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its key.
    pub key: String,
    /// `kubernetes.namespace_name`.
    pub namespace: String,
    /// `kubernetes.pod_id`.
    pub pod_uid: String,
    /// `kubernetes.container_name`.
    pub container: String,
    /// `fairlead.source`.
    pub source: String,
    /// `fairlead.seq`.
    pub seq: u64,
    /// `fairlead.lines`.
    pub lines: u64,
    /// `fairlead.left_out`.
    pub left_out: u64,
    /// `fairlead.again`.
    pub again: bool,
    /// `fairlead.chunk`.
    pub chunk: Option<Chunk>,
    /// `fairlead.notice`, where it is one.
    pub notice: Option<Notice<'static>>,
    /// `time`.
    pub time: String,
    /// `stream`.
    pub stream: String,
    /// `log`.
    pub log: String,
}

impl Line {
    /// Reads one stored record.
    ///
    /// # Errors
    /// When the value is not a record.
    pub fn parse(stored: &Stored) -> Result<Line> {
        let record = Record::parse(&stored.value)
            .with_context(|| format!("partition {} offset {}", stored.partition, stored.offset))?;
        let notice = record.fairlead.notice.map(|json| serde_json::from_str(json.get())).transpose();
        let notice: Option<Notice<'_>> = notice.context("a notice of a known kind")?;
        Ok(Line {
            partition: stored.partition,
            offset: stored.offset,
            key: String::from_utf8_lossy(&stored.key).into_owned(),
            namespace: record.kubernetes.namespace_name.into_owned(),
            pod_uid: record.kubernetes.pod_id.into_owned(),
            container: record.kubernetes.container_name.into_owned(),
            source: record.fairlead.source.into_owned(),
            seq: record.fairlead.seq,
            lines: record.fairlead.lines,
            left_out: record.fairlead.left_out,
            again: record.fairlead.again,
            chunk: record.fairlead.chunk,
            notice: notice.map(owned),
            time: record.time.into_owned(),
            stream: record.stream.into_owned(),
            log: record.log.into_owned(),
        })
    }

    /// The stream it came from; none for a notice.
    pub fn written_to(&self) -> Option<Stream> {
        [Stream::Stdout, Stream::Stderr].into_iter().find(|stream| stream.as_str() == self.stream)
    }
}

fn owned(notice: Notice<'_>) -> Notice<'static> {
    Notice {
        source: notice.source.into_owned().into(),
        next_source: notice.next_source.map(|source| source.into_owned().into()),
        ..notice
    }
}

/// All records of a topic up to its end offsets of now, by partition and offset. A topic that is not there is empty.
///
/// # Errors
/// When the broker does not answer.
pub fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<Stored>> {
    let consumer = consumer(bootstrap)?;
    let ends = ends(&consumer, topic)?;
    let mut wanted = TopicPartitionList::new();
    for &(partition, low, high) in &ends {
        if high > low {
            wanted.add_partition_offset(topic, partition, Offset::Offset(low))?;
        }
    }
    let mut unread: BTreeSet<i32> = ends.iter().filter(|(_, low, high)| high > low).map(|end| end.0).collect();
    let mut stored = Vec::new();
    if unread.is_empty() {
        return Ok(stored);
    }
    let high = |partition| ends.iter().find(|end| end.0 == partition).map_or(0, |end| end.2);
    consumer.assign(&wanted).context("assign")?;
    while !unread.is_empty() {
        match consumer.poll(ANSWER) {
            None => bail!("{topic}: no record for {ANSWER:?}, partitions {unread:?} not read to their end"),
            // The end of a partition as the broker sees it: control records may lie before the end offset.
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = unread.remove(&partition),
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure))) => {}
            Some(Err(error)) => return Err(error).with_context(|| format!("read {topic}")),
            Some(Ok(message)) => {
                // Where somebody goes on writing the end is never seen.
                if message.offset() + 1 >= high(message.partition()) {
                    unread.remove(&message.partition());
                }
                stored.push(Stored {
                    partition: message.partition(),
                    offset: message.offset(),
                    at_ms: message.timestamp().to_millis().unwrap_or_default(),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                    headers: message.headers().map_or_else(Vec::new, |headers| headers.iter().map(text_of).collect()),
                });
            }
        }
    }
    stored.retain(|record| record.offset < high(record.partition));
    stored.sort_by_key(|record| (record.partition, record.offset));
    Ok(stored)
}

fn text_of(header: Header<'_, &[u8]>) -> (String, String) {
    (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
}

/// [`read_topic`], parsed.
///
/// # Errors
/// When the broker does not answer or a value is not a record.
pub fn read_lines(bootstrap: &str, topic: &str) -> Result<Vec<Line>> {
    read_topic(bootstrap, topic)?.iter().map(Line::parse).collect()
}

/// Waits until the topic holds at least so many physical lines, repeats left out, and gives all of it.
///
/// # Errors
/// When `within` passes; the message says how many there were.
pub fn wait_for_lines(bootstrap: &str, topic: &str, lines: u64, within: Duration) -> Result<Vec<Line>> {
    let mut seen = 0;
    let mut count_then = -1;
    let found = wait_for(&format!("{lines} lines in {topic}"), within, || {
        // Reading a topic costs; looking at its end offsets does not.
        let count = record_count(bootstrap, topic).ok()?;
        if count == count_then {
            return None;
        }
        count_then = count;
        let read = read_lines(bootstrap, topic).ok()?;
        seen = crate::audit::distinct_lines(&read);
        (seen >= lines).then_some(read)
    });
    found.with_context(|| format!("{seen} of {lines} lines came"))
}

/// Records between a topic's first and end offsets, all partitions.
///
/// # Errors
/// When the broker does not answer.
pub fn record_count(bootstrap: &str, topic: &str) -> Result<i64> {
    OffsetWatch::new(bootstrap)?.count(topic)
}

/// Asks for end offsets again and again over one connection.
pub struct OffsetWatch(BaseConsumer);

impl OffsetWatch {
    /// Connects when first asked.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(bootstrap: &str) -> Result<OffsetWatch> {
        Ok(OffsetWatch(consumer(bootstrap)?))
    }

    /// Records between a topic's first and end offsets, all partitions.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn count(&self, topic: &str) -> Result<i64> {
        Ok(ends(&self.0, topic)?.iter().map(|(_, low, high)| high - low).sum())
    }
}

fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "harness").set("log_level", "2");
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("fetch.wait.max.ms", "50");
    config.create().context("a consumer")
}

/// First and end offset of each partition.
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64, i64)>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).context("metadata")?;
    let described = metadata.topics().first().context("the topic in the metadata")?;
    let mut found = Vec::new();
    for partition in described.partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), ANSWER).context("end offsets")?;
        found.push((partition.id(), low, high));
    }
    Ok(found)
}
