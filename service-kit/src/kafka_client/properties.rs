//! `kafka.properties`: what passes through to librdkafka, what is refused and why.

use std::collections::BTreeMap;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::Role;
use crate::config_source::{Reader, names_a_secret};

const KEY: &str = "kafka.properties";

/// Other names that librdkafka has for a property, and the one that is used here.
const ALIASES: [(&str, &str); 5] = [
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("max.in.flight.requests.per.connection", "max.in.flight"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
];

const EVERYWHERE: [(&str, &str); 12] = [
    ("bootstrap.servers", "use kafka.bootstrap_servers"),
    ("metadata.broker.list", "use kafka.bootstrap_servers"),
    ("sasl.username", "use kafka.sasl.username"),
    ("plugin.library.paths", "would load foreign code into the process"),
    ("ssl.engine.location", "would load foreign code into the process"),
    ("interceptors", "would load foreign code into the process"),
    ("allow.auto.create.topics", "topics are made as topics.create says, never by accident"),
    ("enabled_events", "is set by the program"),
    ("log.queue", "is set by the program"),
    ("opaque", "is set by the program"),
    ("default_topic_conf", "is set by the program"),
    ("topic.blacklist", "topics are chosen by topics.rules"),
];

const PRODUCER: [(&str, &str); 17] = [
    ("message.timeout.ms", "a line is kept until Kafka acknowledges it: there is no time-out"),
    ("delivery.timeout.ms", "a line is kept until Kafka acknowledges it: there is no time-out"),
    ("acks", "a line counts as delivered only when all in-sync replicas have it"),
    ("request.required.acks", "a line counts as delivered only when all in-sync replicas have it"),
    ("enable.idempotence", "is always on: it keeps lines in order and unrepeated"),
    ("enable.gapless.guarantee", "the program rewinds by itself"),
    ("message.send.max.retries", "delivery is retried without end"),
    ("retries", "delivery is retried without end"),
    ("partitioner", "the partition is worked out once and kept for the life of a source"),
    ("partitioner_cb", "the partition is worked out once and kept for the life of a source"),
    ("msg_order_cmp", "lines keep their order"),
    ("queuing.strategy", "lines keep their order"),
    ("transactional.id", "transactions are not used"),
    ("transaction.timeout.ms", "transactions are not used"),
    ("delivery.report.only.error", "positions move on acknowledgements"),
    ("produce.offset.report", "is set by the program"),
    ("message.copy.max.bytes", "is set by the program"),
];

const CONSUMER: [(&str, &str); 14] = [
    ("group.id", "partitions are assigned, never by a consumer group"),
    ("group.instance.id", "partitions are assigned, never by a consumer group"),
    ("group.protocol", "partitions are assigned, never by a consumer group"),
    ("group.protocol.type", "partitions are assigned, never by a consumer group"),
    ("group.remote.assignor", "partitions are assigned, never by a consumer group"),
    ("partition.assignment.strategy", "partitions are assigned, never by a consumer group"),
    ("enable.auto.commit", "a cursor is the only position"),
    ("auto.commit.enable", "a cursor is the only position"),
    ("enable.auto.offset.store", "a cursor is the only position"),
    ("offset.store.method", "a cursor is the only position"),
    ("auto.offset.reset", "what retention removed is announced, never skipped"),
    ("enable.partition.eof", "is set by the program"),
    ("isolation.level", "is set by the program"),
    ("fetch.error.backoff.ms", "is set by the program"),
];

/// Bounds of properties that may be set, but not to anything: lowest, highest and why.
const PRODUCER_BOUNDS: [(&str, i64, i64, &str); 6] = [
    ("linger.ms", 0, 10_000, "lines must not wait for longer"),
    ("max.in.flight", 1, 5, "more lose the order of lines"),
    ("request.timeout.ms", 1, 1_000, "a topic that is not answered holds up the others on its connection for so long"),
    ("queue.buffering.max.messages", 10_000, i32::MAX as i64, "below kafka.in_flight_bytes_max"),
    ("queue.buffering.max.kbytes", 1_024, i32::MAX as i64, "below kafka.in_flight_bytes_max"),
    ("batch.size", 1, 1_000_000, "Kafka refuses whole batches above a topic's max.message.bytes"),
];

/// Reads the mapping; nothing is given if any property is refused. `sasl` and `tls`: whether those blocks are there.
pub(super) fn read(reader: &mut Reader, role: Role, sasl: bool, tls: bool) -> Option<BTreeMap<String, String>> {
    let mut accepted = BTreeMap::new();
    let mut well = true;
    for (written, value) in reader.scalars(KEY) {
        let name = ALIASES.iter().find(|(alias, _)| *alias == written).map_or(written.as_str(), |(_, name)| name);
        if let Some(problem) = refusal(role, &written, name, &value, sasl, tls) {
            reader.fault(&format!("{KEY}.{written}"), problem);
            well = false;
        } else if accepted.insert(name.to_owned(), value).is_some() {
            reader.fault(&format!("{KEY}.{written}"), format!("is set twice: it is another name of {name}"));
            well = false;
        }
    }
    well.then_some(accepted)
}

/// librdkafka's words on a property, under the name that was written instead of any other that it has.
fn as_written(said: &str, name: &str, written: &str) -> String {
    let others = ALIASES.iter().filter(|(_, usual)| *usual == name).flat_map(|(alias, usual)| [*alias, *usual]);
    others.fold(said.to_owned(), |said, other| said.replace(&format!("\"{other}\""), &format!("\"{written}\"")))
}

/// Why a property is refused; none if it is not.
fn refusal(role: Role, written: &str, name: &str, value: &str, sasl: bool, tls: bool) -> Option<String> {
    let own: &[(&str, &str)] = match role {
        Role::Producer => &PRODUCER,
        Role::Consumer => &CONSUMER,
        Role::Admin => &[],
    };
    if let Some((_, why)) = EVERYWHERE.iter().chain(own).find(|(refused, _)| *refused == written) {
        return Some(format!("is refused: {why}"));
    }
    if names_a_secret(written) || written.ends_with(".pem") || written == "ssl_key" {
        return Some(
            "is refused: a secret comes from a file (kafka.sasl.password_file, kafka.tls.key_password_file, \
             kafka.tls.key_file)"
                .to_owned(),
        );
    }
    if written.ends_with("_cb") || written.ends_with("_callback_data") || written.starts_with("test.") {
        return Some("is refused: it is set by the program".to_owned());
    }
    if (name == "security.protocol" && (sasl || tls)) || (name == "sasl.mechanism" && sasl) {
        return Some("is refused: kafka.sasl and kafka.tls say it already".to_owned());
    }
    if tls && matches!(name, "ssl.ca.location" | "ssl.certificate.location" | "ssl.key.location") {
        return Some("is refused: kafka.tls says it already".to_owned());
    }
    if let Err(error) = ClientConfig::new().set(name, value).create_native_config() {
        return Some(match error {
            KafkaError::ClientConfig(_, description, _, _) => as_written(description.trim(), name, written),
            other => other.to_string(),
        });
    }
    if role != Role::Producer {
        return None;
    }
    let (_, lowest, highest, why) = PRODUCER_BOUNDS.iter().find(|(bounded, ..)| *bounded == name)?;
    let number: i64 = value.trim().parse().ok()?;
    if name == "queue.buffering.max.messages" && number == 0 {
        return None; // no limit
    }
    if number < *lowest {
        Some(format!("at least {lowest}: {why}"))
    } else if number > *highest {
        Some(format!("at most {highest}: {why}"))
    } else {
        None
    }
}
