//! How the producers are configured: the operator's settings, our defaults, and what must hold.

use fairlead_service_kit::kafka_client::KafkaSettings;
use rdkafka::config::ClientConfig;

const CLIENT_ID: &str = "fairlead-router";
/// Properties with a better default than librdkafka's; the operator's value wins.
const DEFAULTS: [(&str, &str); 6] = [
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    ("max.in.flight", "5"),
    ("enable.metrics.push", "false"),
    // A broker answers one connection in order: a topic that is not answered holds up all others on it for so long.
    ("request.timeout.ms", "1000"),
    // For so long after a topic appeared, brokers that do not know it are not believed, so that a new one may reach them all. With librdkafka's
    // 30 s the records of a young topic that is deleted wait as long without a report, though somebody may have made it anew. A topic that is given
    // up too early parks its namespaces until it is found ready: nothing is final.
    ("topic.metadata.propagation.max.ms", "3000"),
];
/// librdkafka's `batch.size` unless set.
const BATCH_BYTES: u64 = 1_000_000;

/// Bytes of a batch at most, as the operator or librdkafka has it.
pub(super) fn batch_bytes(settings: &KafkaSettings) -> u64 {
    settings.property("batch.size").and_then(|value| value.parse().ok()).unwrap_or(BATCH_BYTES)
}

/// The operator's settings, our defaults where nothing is set, and what must hold.
pub(super) fn producer_config(settings: &KafkaSettings, in_flight_bytes_max: u64) -> ClientConfig {
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
