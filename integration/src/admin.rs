//! Topics made, removed and asked for, by a plain client of the broker under test.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

const ANSWER: Duration = Duration::from_secs(10);

/// A client for administration of the broker at `bootstrap`.
///
/// # Errors
/// When librdkafka refuses the settings.
pub fn client(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "3");
    config.create().context("an admin client")
}

/// Makes a topic of one replica; one that exists is left as it is.
///
/// # Errors
/// When the broker refuses or does not answer.
pub fn create_topic(bootstrap: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        wanted = wanted.set(key, value);
    }
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let answers = futures::executor::block_on(client(bootstrap)?.create_topics([&wanted], &options))?;
    match answers.into_iter().next().context("an answer for the topic")? {
        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
        Err((topic, code)) => anyhow::bail!("create {topic}: {code}"),
    }
}

/// Removes topics; one that is not there is no fault.
///
/// # Errors
/// When the broker refuses or does not answer.
pub fn delete_topics(bootstrap: &str, topics: &[&str]) -> Result<()> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let answers = futures::executor::block_on(client(bootstrap)?.delete_topics(topics, &options))?;
    for answer in answers {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((topic, code)) => anyhow::bail!("delete {topic}: {code}"),
        }
    }
    Ok(())
}

/// The names of all topics.
///
/// # Errors
/// When the broker does not answer.
pub fn topics(bootstrap: &str) -> Result<Vec<String>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "3");
    let consumer: BaseConsumer = config.create().context("a consumer")?;
    let metadata = consumer.fetch_metadata(None, ANSWER).context("metadata")?;
    Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
}

/// Sends plain records, each partition, key and value, and waits until all are acknowledged.
///
/// # Errors
/// When a record is refused or not acknowledged in time.
pub fn produce(bootstrap: &str, topic: &str, records: impl IntoIterator<Item = (i32, String, String)>) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("log_level", "2");
    let producer: BaseProducer = config.create().context("a producer")?;
    for (partition, key, value) in records {
        let record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).with_context(|| format!("send to {topic}"))?;
    }
    producer.flush(ANSWER).context("all records acknowledged")
}

/// Does the broker really take records? Makes a topic and has one record acknowledged by an idempotent producer, so
/// that what a broker loads lazily after its start is loaded.
///
/// # Errors
/// When `within` passes without an acknowledgement.
pub fn prove_ready(bootstrap: &str, within: Duration) -> Result<()> {
    const TOPIC: &str = "harness.ready";
    crate::wait::wait_for("the broker's metadata", within, || topics(bootstrap).ok())?;
    crate::wait::wait_for("a first topic", within, || create_topic(bootstrap, TOPIC, 1, &[]).ok())?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("log_level", "2");
    config.set("message.timeout.ms", within.as_millis().to_string());
    let producer: BaseProducer = config.create().context("a producer")?;
    producer.send(BaseRecord::<str, str>::to(TOPIC).payload("ready")).map_err(|(error, _)| error)?;
    producer.flush(within).context("the first record acknowledged")
}
