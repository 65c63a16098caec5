//! Topics made, removed and asked for, by a plain client of the broker under test.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
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
    create(bootstrap, NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), settings)
}

/// Makes a topic of one partition with its replicas on these brokers, the first its leader; one that exists is left as
/// it is.
///
/// # Errors
/// When the broker refuses or does not answer.
pub fn create_topic_on(bootstrap: &str, topic: &str, replicas: &[i32], settings: &[(&str, &str)]) -> Result<()> {
    create(bootstrap, NewTopic::new(topic, 1, TopicReplication::Variable(&[replicas])), settings)
}

fn create<'a>(bootstrap: &str, mut wanted: NewTopic<'a>, settings: &[(&'a str, &'a str)]) -> Result<()> {
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

/// Changes one setting of a topic and leaves its others as they are.
///
/// # Errors
/// When the broker refuses or does not answer.
pub fn alter_topic(bootstrap: &str, topic: &str, key: &str, value: &str) -> Result<()> {
    let client = client(bootstrap)?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let named = ResourceSpecifier::Topic(topic);
    let described = futures::executor::block_on(client.describe_configs([&named], &options))?;
    let described = described.into_iter().next().context("an answer for the topic")?;
    let described = described.map_err(|code| anyhow::anyhow!("describe {topic}: {code}"))?;
    // The request replaces all that was set on the topic.
    let mut wanted = AlterConfig::new(named).set(key, value);
    for entry in &described.entries {
        if matches!(entry.source, ConfigSource::DynamicTopic) && entry.name != key {
            wanted = wanted.set(&entry.name, entry.value.as_deref().unwrap_or_default());
        }
    }
    let answers = futures::executor::block_on(client.alter_configs([&wanted], &options))?;
    match answers.into_iter().next().context("an answer for the topic")? {
        Ok(_) => Ok(()),
        Err((_, code)) => anyhow::bail!("alter {topic}: {code}"),
    }
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

/// Sends as many records in a transaction and takes it back: they take up offsets and are read by nobody.
///
/// # Errors
/// When the broker refuses or does not answer in time.
pub fn produce_and_abort(bootstrap: &str, topic: &str, records: usize) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("transactional.id", topic).set("log_level", "2");
    let producer: BaseProducer = config.create().context("a producer")?;
    producer.init_transactions(ANSWER).context("begin with transactions")?;
    producer.begin_transaction().context("begin a transaction")?;
    for _ in 0..records {
        let record = BaseRecord::<str, str>::to(topic).partition(0).payload("taken back");
        producer.send(record).map_err(|(error, _)| error).with_context(|| format!("send to {topic}"))?;
    }
    producer.flush(ANSWER).context("all records acknowledged")?;
    producer.abort_transaction(ANSWER).context("take a transaction back")
}

/// Do all brokers really take records? Makes a topic with a partition on each and has one record in each acknowledged by
/// an idempotent producer, so that what a broker loads lazily after its start is loaded.
///
/// # Errors
/// When `within` passes without all acknowledgements.
pub fn prove_ready(bootstrap: &str, brokers: u32, within: Duration) -> Result<()> {
    const TOPIC: &str = "harness.ready";
    let count = brokers as usize;
    crate::wait::wait_until("the brokers' metadata", within, || {
        brokers_known(bootstrap).is_ok_and(|known| known >= count)
    })?;
    let ids: Vec<i32> = (1..=brokers.cast_signed()).collect();
    let places: Vec<[i32; 1]> = ids.iter().map(|&id| [id]).collect();
    let places: Vec<&[i32]> = places.iter().map(<[i32; 1]>::as_slice).collect();
    crate::wait::wait_for("a first topic", within, || {
        let spread = TopicReplication::Variable(&places);
        let single = TopicReplication::Fixed(1);
        let wanted = NewTopic::new(TOPIC, brokers.cast_signed(), if brokers > 1 { spread } else { single });
        create(bootstrap, wanted, &[]).ok()
    })?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("log_level", "2");
    config.set("message.timeout.ms", within.as_millis().to_string());
    let producer: BaseProducer = config.create().context("a producer")?;
    for partition in 0..brokers.cast_signed() {
        let record = BaseRecord::<str, str>::to(TOPIC).partition(partition).payload("ready");
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(within).context("the first records acknowledged")
}

fn brokers_known(bootstrap: &str) -> Result<usize> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "3");
    let consumer: BaseConsumer = config.create().context("a consumer")?;
    Ok(consumer.fetch_metadata(None, ANSWER).context("metadata")?.brokers().len())
}
