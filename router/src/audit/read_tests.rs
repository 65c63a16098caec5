//! Against a cluster of librdkafka's own, whose partitions keep 5 MB.

use std::path::Path;

use fairlead_service_kit::{config_source::Source, kafka_client::Role};
use rdkafka::{
    config::ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};

use super::*;

const TOPIC: &str = "logs.a";

struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    reader: Reader,
    topic: TopicName,
}

impl Bench {
    fn new() -> Bench {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 2, 1).unwrap();
        let yaml = format!("kafka: {{bootstrap_servers: '{}'}}", cluster.bootstrap_servers());
        let mut source = Source::from_parts("P", Path::new("p.yaml"), &yaml, []).unwrap().reader();
        let mut reader = Reader::new(&KafkaSettings::read(&mut source, Role::Consumer).unwrap()).unwrap();
        reader.silence_max = Duration::from_secs(2);
        Bench { cluster, reader, topic: TopicName::parse(TOPIC).unwrap() }
    }

    /// Sends records of so many bytes, each in a batch of its own.
    fn produce(&self, partition: i32, records: usize, bytes: usize) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.cluster.bootstrap_servers()).set("batch.num.messages", "1");
        let producer: BaseProducer = config.create().unwrap();
        for _ in 0..records {
            let value = vec![b'x'; bytes];
            producer.send(BaseRecord::to(TOPIC).partition(partition).key("k").payload(&value)).unwrap();
        }
        producer.flush(ANSWER_WAIT_MAX).unwrap();
    }

    /// The places of what is read, and how the reading ended.
    fn read(&self, spans: &[Span]) -> (Vec<(i32, i64)>, Result<(), AuditError>) {
        let mut read = Vec::new();
        let result = self.reader.read(&self.topic, spans, &mut |raw| {
            read.push((raw.partition, raw.offset));
            Ok(())
        });
        read.sort_unstable();
        (read, result)
    }
}

#[test]
fn each_partition_is_read_to_the_end_that_it_had() {
    let bench = Bench::new();
    bench.produce(0, 3, 10);
    bench.produce(1, 2, 10);
    let spans = bench.reader.spans(&bench.topic).unwrap();
    bench.produce(0, 4, 10);
    let (read, result) = bench.read(&spans);
    result.unwrap();
    assert_eq!(read, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
}

#[test]
fn an_end_that_the_leader_denies_is_none() {
    let bench = Bench::new();
    bench.produce(0, 3, 10);
    // As if two more had been there: an election took them away, or the topic was made anew.
    let (read, result) = bench.read(&[Span { partition: 0, from: 0, to: 5 }]);
    assert_eq!(read.len(), 3);
    assert!(matches!(result, Err(AuditError::Silent { .. })), "{result:?}");
}

#[test]
fn an_end_is_believed_when_it_is_told_twice_and_not_denied() {
    let told = |told_at, next| Lane { span: Span { partition: 0, from: 0, to: 10 }, next, done: false, told_at };
    let check = |lane: Lane, expected| assert_eq!(lane.believes_end(), expected, "{:?} at {}", lane.told_at, lane.next);
    check(told(None, 10), true);
    check(told(None, 7), false);
    check(told(Some(7), 7), true);
    check(told(Some(6), 7), false);
    for (leader_end, believed) in [(9, false), (10, true), (12, true)] {
        let mut lane = told(Some(7), 7);
        lane.doubt(leader_end);
        check(lane, believed);
    }
}

#[test]
fn what_is_removed_while_it_is_read_is_told_and_never_passed_over() {
    let bench = Bench::new();
    bench.produce(0, 3, 10);
    let spans = bench.reader.spans(&bench.topic).unwrap();
    bench.produce(0, 8, 900_000);
    let now = bench.reader.spans(&bench.topic).unwrap();
    assert!(now[0].from > 0, "the log begins later now: {now:?}");
    let (read, result) = bench.read(&spans);
    assert!(read.is_empty() && matches!(result, Err(AuditError::Moved { .. })), "{read:?} {result:?}");
}
