//! The baseline of the router's CPU figure: librdkafka alone sends records that lie in memory, as the router's producer
//! is set, and waits until all are acknowledged. Prints CPU seconds and seconds by the clock of that part alone.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use fairlead_integration::child::own_cpu_seconds;
use fairlead_integration::measure::capture::Capture;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

#[derive(Parser)]
struct Arguments {
    /// The broker.
    #[arg(long)]
    bootstrap: String,
    /// The captured records.
    #[arg(long)]
    records: PathBuf,
    /// The topics, in the order of their numbers in the file.
    #[arg(long = "topic")]
    topics: Vec<String>,
    /// `key=value` for librdkafka.
    #[arg(long = "property")]
    properties: Vec<String>,
}

/// Counts what is acknowledged.
#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _: usize) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let capture = Capture::load(&arguments.records)?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &arguments.bootstrap).set("enable.idempotence", "true").set("acks", "all");
    for property in &arguments.properties {
        let (key, value) = property.split_once('=').context("--property key=value")?;
        config.set(key, value);
    }
    let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
    // Connected before the measurement begins, as it is to a service that has long been running.
    producer.client().fetch_metadata(None, Duration::from_secs(10)).context("metadata")?;

    let (cpu, began) = (own_cpu_seconds()?, Instant::now());
    send_all(&producer, &capture, &arguments.topics)?;
    producer.flush(Duration::from_secs(120)).context("all records acknowledged")?;
    let (cpu, seconds) = (own_cpu_seconds()? - cpu, began.elapsed().as_secs_f64());

    let deliveries = producer.context();
    let acknowledged = deliveries.acknowledged.load(Ordering::Relaxed);
    ensure!(deliveries.failed.load(Ordering::Relaxed) == 0, "some records failed");
    ensure!(acknowledged == capture.places().len() as u64, "{acknowledged} of {} acknowledged", capture.places().len());
    println!("{cpu} {seconds}");
    Ok(())
}

fn send_all(producer: &BaseProducer<Deliveries>, capture: &Capture, topics: &[String]) -> Result<()> {
    for (number, &place) in capture.places().iter().enumerate() {
        let (key, value) = capture.record(place);
        let topic = topics.get(place.topic).context("a topic for every number")?;
        let mut record = BaseRecord::with_opaque_to(topic, number).partition(place.partition).key(key).payload(value);
        while let Err((error, back)) = producer.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    producer.poll(Duration::from_millis(50));
                    record = back;
                }
                error => bail!("send: {error}"),
            }
        }
        if number % 1024 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    Ok(())
}
