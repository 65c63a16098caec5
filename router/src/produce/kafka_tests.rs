use std::path::Path;

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::config_source::Source;
use fairlead_service_kit::kafka_client::Role;
use fairlead_service_kit::topics::CreateTopics;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::produce::{Destinations, TopicState, Topics};

/// The bound of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    settings: KafkaSettings,
    cluster: MockCluster<'static, DefaultProducerContext>,
    pending: Arc<Pending>,
    sink: KafkaSink,
}

impl Bench {
    fn new(properties: &str) -> Bench {
        Bench::on(MockCluster::new(1).unwrap(), properties)
    }

    fn on(cluster: MockCluster<'static, DefaultProducerContext>, properties: &str) -> Bench {
        cluster.create_topic("logs.a", 2, 1).unwrap();
        let yaml =
            format!("kafka: {{bootstrap_servers: '{}', properties: {{{properties}}}}}", cluster.bootstrap_servers());
        let mut reader = Source::from_parts("P", Path::new("p.yaml"), &yaml, []).unwrap().reader();
        let settings = KafkaSettings::read(&mut reader, Role::Producer).unwrap();
        let pending = Arc::new(Pending::new(16));
        let sink = KafkaSink::new(&settings, 1 << 20, Arc::clone(&pending)).unwrap();
        Bench { settings, cluster, pending, sink }
    }

    fn send(&mut self, topic: &str, partition: i32, slot: Slot) -> SendResult {
        let result = self.sink.send(Lane::FIRST, topic, partition, b"a/pod/c", br#"{"log":"x"}"#, slot);
        if result == SendResult::Queued {
            self.pending.add(slot, 1);
        }
        result
    }

    fn poll_until(&mut self, what: &str, mut done: impl FnMut(&mut Bench) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not come");
            self.sink.poll(Duration::from_millis(100));
        }
    }

    fn failures(&mut self) -> Vec<Failure> {
        let mut failures = Vec::new();
        self.sink.failures(&mut failures);
        failures
    }
}

#[test]
fn acknowledged_records_leave_their_slots() {
    let mut bench = Bench::new("");
    for n in 0..200 {
        assert_eq!(bench.send("logs.a", n % 2, Slot(u32::from(n % 2 == 0))), SendResult::Queued);
    }
    assert!(!bench.pending.is_acknowledged(Slot(0)) && bench.sink.in_flight() > 0);
    bench.poll_until("the acknowledgement", |b| {
        b.pending.is_acknowledged(Slot(0)) && b.pending.is_acknowledged(Slot(1))
    });
    assert_eq!(bench.sink.in_flight(), 0);
    assert_eq!(bench.failures(), []);
    assert_eq!(bench.sink.fatal(), None);
}

#[test]
fn the_descriptor_wakes_whoever_waits() {
    let mut bench = Bench::new("");
    assert_eq!(bench.send("logs.a", 0, Slot(3)), SendResult::Queued);
    let start = Instant::now();
    while !bench.pending.is_acknowledged(Slot(3)) && start.elapsed() < PATIENCE {
        bench.sink.poll(PATIENCE); // ends when something comes, or not before the test has failed
    }
    assert!(bench.pending.is_acknowledged(Slot(3)) && start.elapsed() < PATIENCE / 2);
}

#[test]
fn a_refused_batch_is_told_with_its_reason() {
    let mut bench = Bench::new("");
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &refused);
    for _ in 0..3 {
        assert_eq!(bench.send("logs.a", 0, Slot(7)), SendResult::Queued);
    }
    bench.poll_until("the report", |b| b.pending.outstanding(Slot(7)) == 0);
    assert!(bench.pending.has_failed(Slot(7)) && !bench.pending.is_acknowledged(Slot(7)));
    let failures = bench.failures();
    assert!(failures.iter().any(|f| f.kind == FailureKind::Refused(Refusal::NotAuthorized)), "{failures:?}");
    assert!(failures.iter().all(|f| f.slot == Slot(7)));
    // The producer goes on refusing by itself, until the topic was found ready anew.
    assert_eq!(bench.send("logs.a", 0, Slot(7)), SendResult::Refused(Refusal::NotAuthorized));
    let topics = Topics::start(&bench.settings, CreateTopics::default(), Some(bench.sink.refresher())).unwrap();
    let topic = TopicName::parse("logs.a").unwrap();
    topics.forget(&topic);
    bench.poll_until("the topic", |_| topics.state(&topic) == TopicState::Ready { partitions: 2 });
    bench.pending.reset(Slot(7));
    assert_eq!(bench.send("logs.a", 0, Slot(7)), SendResult::Queued);
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(7)));
}

#[test]
fn a_missing_topic_or_partition_is_refused() {
    let mut bench = Bench::new("topic.metadata.propagation.max.ms: 100, topic.metadata.refresh.interval.ms: 100");
    assert_eq!(bench.send("logs.none", 0, Slot(1)), SendResult::Queued);
    bench.poll_until("the report", |b| b.pending.outstanding(Slot(1)) == 0);
    let kinds: Vec<FailureKind> = bench.failures().iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [FailureKind::Refused(Refusal::TopicMissing)]);

    assert_eq!(bench.send("logs.a", 0, Slot(2)), SendResult::Queued);
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(2)));
    assert_eq!(bench.send("logs.a", 99, Slot(3)), SendResult::Refused(Refusal::TopicMissing));
    assert!(bench.pending.is_acknowledged(Slot(3)));
}

#[test]
fn a_record_larger_than_the_producer_takes_is_refused_at_once() {
    let mut bench = Bench::new("message.max.bytes: 1000");
    let result = bench.sink.send(Lane::FIRST, "logs.a", 0, b"k", &[b'x'; 2_000], Slot(0));
    assert_eq!(result, SendResult::Refused(Refusal::TooLarge));
}

#[test]
fn a_full_queue_says_so_and_recovers() {
    let mut bench = Bench::new("queue.buffering.max.messages: 10000");
    let mut queued = 0;
    let full = loop {
        match bench.send("logs.a", 0, Slot(0)) {
            SendResult::Queued => queued += 1,
            other => break other,
        }
        assert!(queued <= 10_000);
    };
    assert_eq!(full, SendResult::Full);
    bench.poll_until("room", |b| b.sink.in_flight() == 0);
    assert_eq!(bench.send("logs.a", 0, Slot(0)), SendResult::Queued);
}

#[test]
fn after_a_fatal_error_a_new_producer_takes_over() {
    let cluster = MockCluster::new(1).unwrap();
    let fatal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED];
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &fatal);
    let mut bench = Bench::on(cluster, "");
    let first = bench.send("logs.a", 0, Slot(5));
    assert!(matches!(first, SendResult::Queued | SendResult::Fatal));
    bench.poll_until("the fatal error", |b| b.sink.fatal().is_some());
    assert_eq!(bench.send("logs.a", 0, Slot(5)), SendResult::Fatal);
    bench.poll_until("the trouble", |b| b.sink.trouble());

    bench.sink.renew(Lane::FIRST).unwrap();
    assert_eq!(bench.pending.outstanding(Slot(5)), 0);
    if first == SendResult::Queued {
        assert!(bench.pending.has_failed(Slot(5)));
        assert!(!bench.failures().is_empty());
    }
    bench.pending.reset(Slot(5));
    assert_eq!(bench.sink.fatal(), None);
    assert_eq!(bench.send("logs.a", 0, Slot(5)), SendResult::Queued);
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(5)));
}

#[test]
fn a_renewal_gives_back_what_was_in_flight() {
    let mut bench = Bench::new("");
    bench.cluster.broker_down(-1).unwrap();
    for slot in 0..3 {
        assert_eq!(bench.send("logs.a", 0, Slot(slot)), SendResult::Queued);
    }
    bench.sink.renew(Lane::FIRST).unwrap();
    assert_eq!(bench.sink.in_flight(), 0);
    let failures = bench.failures();
    assert_eq!(failures.iter().map(|f| f.records).sum::<u32>(), 3, "{failures:?}");
    assert!(failures.iter().all(|f| f.kind == FailureKind::Retry));
    for slot in 0..3 {
        assert!(bench.pending.has_failed(Slot(slot)) && bench.pending.outstanding(Slot(slot)) == 0);
    }
}

#[test]
fn a_broker_that_goes_and_comes_loses_nothing() {
    let mut bench = Bench::new("reconnect.backoff.max.ms: 200");
    assert_eq!(bench.send("logs.a", 0, Slot(0)), SendResult::Queued);
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(0)));
    bench.cluster.broker_down(-1).unwrap();
    bench.poll_until("the trouble", |b| b.sink.trouble());
    assert_eq!(bench.send("logs.a", 0, Slot(1)), SendResult::Queued);
    bench.cluster.broker_up(-1).unwrap();
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(1)));
    assert_eq!(bench.failures(), []);
}

#[test]
fn lanes_share_one_descriptor_and_one_table() {
    let mut bench = Bench::new("batch.size: 5000");
    let lanes = [Lane::FIRST, bench.sink.open(1_000).unwrap(), bench.sink.open(u64::MAX).unwrap()];
    assert_eq!(lanes.map(|lane| bench.sink.batch_bytes_max(lane)), [5_000, 1_000, 5_000]);
    assert!(matches!(bench.sink.open(u64::MAX), Err(ProduceError::TooManyLanes)));
    for (slot, lane) in (0..).map(Slot).zip(lanes) {
        assert_eq!(bench.sink.send(lane, "logs.a", 0, b"k", b"{}", slot), SendResult::Queued);
        bench.pending.add(slot, 1);
    }
    for slot in 0..3 {
        bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(slot)));
    }
    assert_eq!(bench.sink.in_flight(), 0);
    bench.sink.close(lanes[1]);
    assert_eq!(bench.sink.open(7).unwrap(), lanes[1]);
    assert_eq!(bench.failures(), []);
}

#[test]
fn closing_or_renewing_a_lane_leaves_the_others_alone() {
    let mut bench = Bench::new("reconnect.backoff.max.ms: 200");
    let lanes = [Lane::FIRST, bench.sink.open(u64::MAX).unwrap(), bench.sink.open(u64::MAX).unwrap()];
    bench.cluster.broker_down(-1).unwrap();
    for (slot, lane) in (0..).map(Slot).zip(lanes) {
        assert_eq!(bench.sink.send(lane, "logs.a", 0, b"k", b"{}", slot), SendResult::Queued);
        bench.pending.add(slot, 1);
    }
    bench.sink.renew(lanes[0]).unwrap();
    bench.sink.close(lanes[1]);
    let failed: Vec<Slot> = bench.failures().iter().map(|failure| failure.slot).collect();
    assert_eq!(failed, [Slot(0), Slot(1)]);
    assert_eq!(bench.pending.outstanding(Slot(2)), 1);
    bench.cluster.broker_up(-1).unwrap();
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(2)));
    assert_eq!(bench.send("logs.a", 0, Slot(5)), SendResult::Queued);
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(5)));
}

#[test]
fn a_dead_letter_is_a_record_with_headers() {
    let mut bench = Bench::new("");
    let letter = DeadLetter {
        topic: "logs.a",
        partition: 1,
        key: b"a/pod/c",
        value: b"{}",
        reason: "invalid_record",
        refused_by: "logs.b",
    };
    assert_eq!(bench.sink.send_dead(Lane::FIRST, &letter, Slot(4)), SendResult::Queued);
    bench.pending.add(Slot(4), 1);
    bench.poll_until("the acknowledgement", |b| b.pending.is_acknowledged(Slot(4)));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bench.cluster.bootstrap_servers())
        .set("group.id", "dead-letters")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("logs.a", 1, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let record = consumer.poll(PATIENCE).expect("the record").unwrap();
    let headers = record.headers().unwrap();
    let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value.unwrap())).collect();
    assert_eq!(headers, [("fairlead.reason", b"invalid_record".as_slice()), ("fairlead.topic", b"logs.b")]);
    assert_eq!((record.key(), record.payload()), (Some(letter.key), Some(letter.value)));
}

#[test]
fn renewals_in_a_row_wait_longer_and_longer() {
    let start = Instant::now();
    let mut last = None;
    let waits: Vec<u64> = (0..7)
        .map(|_| {
            let wait = next_wait(last, start);
            last = Some((start, wait));
            wait.as_secs()
        })
        .collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(next_wait(last, start + RENEW_CALM), RENEW_WAIT_MIN);
}

#[test]
fn what_must_hold_is_set_and_what_the_operator_says_wins_elsewhere() {
    let mut settings = Vec::new();
    for yaml in [
        "kafka: {bootstrap_servers: 'k:1'}",
        "kafka: {bootstrap_servers: 'k:1', properties: {compression.codec: zstd, linger.ms: 50, max.in.flight: 1, topic.metadata.propagation.max.ms: 9}}",
    ] {
        let mut reader = Source::from_parts("P", Path::new("p.yaml"), yaml, []).unwrap().reader();
        settings.push(producer_config(&KafkaSettings::read(&mut reader, Role::Producer).unwrap(), 32 << 20));
    }
    for config in &settings {
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
            ("allow.auto.create.topics", "false"),
            ("queue.buffering.max.messages", "0"),
            ("queue.buffering.max.kbytes", "131072"),
            ("request.timeout.ms", "1000"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }
    let of = |name: &str| [settings[0].get(name), settings[1].get(name)];
    assert_eq!(of("compression.type"), [Some("lz4"), Some("zstd")]);
    assert_eq!(of("linger.ms"), [Some("5"), Some("50")]);
    assert_eq!(of("max.in.flight"), [Some("5"), Some("1")]);
    assert_eq!(of("topic.metadata.propagation.max.ms"), [Some("3000"), Some("9")]);
}
