use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr;

use super::*;

/// The bound of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn start(create: bool) -> (Cluster, Topics) {
    let cluster = MockCluster::new(1).unwrap();
    let settings = KafkaSettings::plaintext(&cluster.bootstrap_servers());
    let create = CreateTopics { enabled: create, ..CreateTopics::default() };
    let topics = Topics::start(&settings, create, None).unwrap();
    (cluster, topics)
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

fn wait_until_known(topics: &Topics, name: &str) -> TopicState {
    wait_for(name, || Some(topics.state(&topic(name))).filter(|state| *state != TopicState::Unknown))
}

#[test]
fn a_topic_that_is_there_becomes_ready() {
    let (cluster, topics) = start(false);
    cluster.create_topic("logs.a", 3, 1).unwrap();
    assert_eq!(topics.state(&topic("logs.a")), TopicState::Unknown);
    let before = topics.version();
    topics.want(&topic("logs.a"));
    assert_eq!(wait_until_known(&topics, "logs.a"), TopicState::Ready { partitions: 3 });
    assert!(topics.version() > before);
    // The topic is told before the broker that answered is.
    wait_for("the connection", || (topics.connection() == Connection::Up).then_some(()));
}

#[test]
fn a_missing_topic_fails_until_somebody_makes_it() {
    let (cluster, topics) = start(false);
    topics.want(&topic("logs.b"));
    let TopicState::Failing { refusal, reason, permanent } = wait_until_known(&topics, "logs.b") else {
        panic!("a topic that is not there is ready")
    };
    assert_eq!((refusal, permanent), (Refusal::TopicMissing, true));
    assert!(reason.contains("topics.create.enabled is false"), "{reason}");
    cluster.create_topic("logs.b", 1, 1).unwrap();
    wait_for("the topic", || (topics.state(&topic("logs.b")) == TopicState::Ready { partitions: 1 }).then_some(()));
}

#[test]
fn a_refusal_is_told_and_looked_up_again() {
    let (cluster, topics) = start(false);
    cluster.create_topic("logs.c", 1, 1).unwrap();
    cluster.topic_error("logs.c", RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    topics.want(&topic("logs.c"));
    let TopicState::Failing { refusal, permanent, .. } = wait_until_known(&topics, "logs.c") else {
        panic!("a refused topic is ready")
    };
    assert_eq!((refusal, permanent), (Refusal::NotAuthorized, true));
    cluster.topic_error("logs.c", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    topics.forget(&topic("logs.c"));
    assert_eq!(wait_until_known(&topics, "logs.c"), TopicState::Ready { partitions: 1 });
}

#[test]
fn brokers_that_do_not_answer_are_told_and_probed() {
    let (cluster, topics) = start(true);
    cluster.create_topic("logs.d", 1, 1).unwrap();
    cluster.broker_down(-1).unwrap();
    topics.want(&topic("logs.d"));
    topics.doubt();
    wait_for("the outage", || matches!(topics.connection(), Connection::Down { .. }).then_some(()));
    cluster.broker_up(-1).unwrap();
    wait_for("the topic", || (topics.state(&topic("logs.d")) == TopicState::Ready { partitions: 1 }).then_some(()));
    wait_for("the connection", || (topics.connection() == Connection::Up).then_some(()));
}

#[test]
fn waits_grow_and_are_bounded() {
    let name = topic("logs.e");
    let mut book = Book {
        entries: HashMap::from([(name.clone(), Entry::new(false))]),
        connection: Connection::Unknown,
        probe_at: Instant::now(),
        version: 0,
        stopping: false,
    };
    for _ in 0..20 {
        book.note(&name, unavailable("no answer"), None);
    }
    assert_eq!((book.entries[&name].backoff, book.version), (BACKOFF_MAX, 1));
    assert!(book.due(Instant::now()).is_empty() && book.due(Instant::now() + BACKOFF_MAX) == [name.clone()]);
    book.note(&name, TopicState::Ready { partitions: 1 }, None);
    // It is looked at again, but not soon.
    assert!(book.due(Instant::now() + BACKOFF_PERMANENT_MAX).is_empty() && book.version == 2);
    assert_eq!(book.due(Instant::now() + REFRESH_EVERY), [name.clone()]);
    assert!(book.stays_ready(&name) && book.entries[&name].backoff == BACKOFF_MIN);
}
