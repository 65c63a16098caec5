//! The questions to the brokers: is the topic there, with how many partitions, and can it be made.

use std::collections::HashMap;
use std::time::Duration;

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::kafka_client::KafkaSettings;
use fairlead_service_kit::telemetry::field;
use fairlead_service_kit::topics::CreateTopics;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::super::{ProduceError, Refusal, TopicState, refusal};
use crate::plan::{Harm, Needs, TopicConfig, hurts};

const CLIENT_ID: &str = "fairlead-router-topics";
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
const CREATE_WAIT_MAX: Duration = Duration::from_secs(15);
/// Asked for where nothing else is to be asked; `fairlead.*` belongs to no namespace, and it need not exist.
const PROBE_TOPIC: &str = "fairlead.control";

/// What a broker says of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Ready or failing.
    State(TopicState),
    /// It does not exist, but may be made.
    Missing,
    /// No broker answered; why, in words.
    NoAnswer(String),
}

/// A client that asks. It produces nothing.
pub(super) struct Lookup {
    client: BaseProducer<Quiet>,
    config: ClientConfig,
    create: CreateTopics,
    servers: String,
    runtime: tokio::runtime::Runtime,
}

impl Lookup {
    pub(super) fn new(settings: &KafkaSettings, create: CreateTopics) -> Result<Lookup, ProduceError> {
        let mut config = settings.client_config(CLIENT_ID);
        config.set("allow.auto.create.topics", "false").set("enable.metrics.push", "false");
        // The producer tells of connections; twice is too often. And nobody polls the admin client's log.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let client = config.create_with_context(Quiet).map_err(|source| ProduceError::Client { source })?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(|source| ProduceError::Thread { source })?;
        let servers = settings.bootstrap_servers().to_owned();
        Ok(Lookup { client, config, create, servers, runtime })
    }

    /// Takes what librdkafka has to say out of its queue.
    pub(super) fn serve_log(&self) {
        self.client.poll(Duration::from_millis(1));
    }

    /// Whether any broker answers; if not, why, in words.
    pub(super) fn probe(&self) -> Result<(), String> {
        match self.client.client().fetch_metadata(Some(PROBE_TOPIC), ANSWER_WAIT_MAX) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    /// Asks for one topic.
    pub(super) fn find(&self, topic: &str) -> Found {
        let metadata = match self.client.client().fetch_metadata(Some(topic), ANSWER_WAIT_MAX) {
            Ok(metadata) => metadata,
            Err(error) => return Found::NoAnswer(self.no_answer(&error)),
        };
        let Some(told) = metadata.topics().iter().find(|told| told.name() == topic) else {
            return Found::State(failing(Refusal::Unavailable, "the broker said nothing of the topic".to_owned()));
        };
        match told.error().map(Code::from) {
            None if told.partitions().is_empty() => {
                Found::State(failing(Refusal::Unavailable, "the topic has no partitions yet".to_owned()))
            }
            None => match i32::try_from(told.partitions().len()) {
                Ok(partitions) => Found::State(TopicState::Ready { partitions }),
                Err(_) => Found::State(failing(Refusal::Other, "the topic has too many partitions".to_owned())),
            },
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) if self.create.enabled => Found::Missing,
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Found::State(failing(
                Refusal::TopicMissing,
                "the topic does not exist, and topics.create.enabled is false".to_owned(),
            )),
            Some(code) => Found::State(refused(code, "cannot be looked up")),
        }
    }

    /// How the topics are set, as far as the brokers tell: the right to describe may be missing, or the request unknown.
    pub(super) fn settings(&self, topics: &[TopicName]) -> HashMap<TopicName, TopicConfig> {
        if topics.is_empty() {
            return HashMap::new();
        }
        // As below: one that lives only for this request.
        let admin: AdminClient<Quiet> = match self.config.create_with_context(Quiet) {
            Ok(admin) => admin,
            Err(error) => {
                tracing::debug!({ field::ERROR } = %error, "the settings of topics are not looked up");
                return HashMap::new();
            }
        };
        let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic.as_str())).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WAIT_MAX));
        match self.runtime.block_on(admin.describe_configs(&wanted, &options)) {
            Ok(results) => results.into_iter().filter_map(|result| config_of(&result.ok()?)).collect(),
            Err(error) => {
                tracing::debug!({ field::ERROR } = %error, "the settings of topics are not told");
                HashMap::new()
            }
        }
    }

    /// Makes topics, in one request; a result for each.
    pub(super) fn create(&self, topics: &[TopicName]) -> Vec<Result<(), TopicState>> {
        let all = |error: &KafkaError| {
            let state = match error {
                KafkaError::AdminOp(code) => refused(*code, "cannot be created"),
                error => failing(Refusal::Unavailable, format!("cannot be created: {error}")),
            };
            topics.iter().map(|_| Err(state.clone())).collect()
        };
        // One that lives only for this request: its log queue has no reader.
        let admin: AdminClient<Quiet> = match self.config.create_with_context(Quiet) {
            Ok(admin) => admin,
            Err(error) => return all(&error),
        };
        let wanted: Vec<NewTopic<'_>> = topics.iter().map(|topic| self.new_topic(topic.as_str())).collect();
        let options =
            AdminOptions::new().request_timeout(Some(CREATE_WAIT_MAX)).operation_timeout(Some(ANSWER_WAIT_MAX));
        match self.runtime.block_on(admin.create_topics(&wanted, &options)) {
            Err(error) => all(&error),
            Ok(results) => topics.iter().map(|topic| outcome(&results, topic.as_str())).collect(),
        }
    }

    fn no_answer(&self, error: &KafkaError) -> String {
        let why = error.rdkafka_error_code().map_or_else(|| error.to_string(), in_words);
        format!("no broker answers at {}: {why}", self.servers)
    }

    fn new_topic<'a>(&'a self, name: &'a str) -> NewTopic<'a> {
        let replication = TopicReplication::Fixed(self.create.replication_factor);
        let topic = NewTopic::new(name, self.create.partitions, replication);
        self.create.config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    }
}

fn config_of(told: &ConfigResource) -> Option<(TopicName, TopicConfig)> {
    let OwnedResourceSpecifier::Topic(name) = &told.specifier else { return None };
    let mut config = TopicConfig::default();
    for entry in &told.entries {
        if let Some(value) = &entry.value {
            config.set(&entry.name, value);
        }
    }
    Some((TopicName::parse(name).ok()?, config))
}

/// Why a topic must not be produced to although it is there; none if it may.
pub(super) fn harmful(config: &TopicConfig) -> Option<TopicState> {
    let needs = Needs { record_bytes_max: 0, outage: Duration::ZERO };
    let eaten = hurts(config, &needs).into_iter().find(|warning| warning.harm == Harm::Compacted)?;
    Some(failing(Refusal::Policy, eaten.text))
}

/// What became of one topic of a request.
fn outcome(results: &[Result<String, (String, Code)>], topic: &str) -> Result<(), TopicState> {
    let told = results.iter().find(|result| match result {
        Ok(name) | Err((name, _)) => name == topic,
    });
    match told {
        Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(refused(*code, "cannot be created")),
        None => Err(failing(Refusal::Other, "cannot be created: the broker said nothing of it".to_owned())),
    }
}

fn refused(code: Code, what: &str) -> TopicState {
    failing(refusal::refusal(code).unwrap_or(Refusal::Unavailable), format!("the topic {what}: {}", in_words(code)))
}

fn failing(refusal: Refusal, reason: String) -> TopicState {
    TopicState::Failing { refusal, reason, permanent: refusal != Refusal::Unavailable }
}

/// What a code means, without librdkafka's names for it: `Topic authorization failed`.
fn in_words(code: Code) -> String {
    let text = code.to_string();
    let inner = text.split_once('(').map_or(text.as_str(), |(_, inner)| inner.trim_end_matches(')'));
    inner.trim_start_matches("Broker: ").trim_start_matches("Local: ").to_owned()
}

/// Says nothing: the producer's log tells of the same brokers.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_put_in_words() {
        assert_eq!(in_words(Code::TopicAuthorizationFailed), "Topic authorization failed");
        assert_eq!(in_words(Code::BrokerTransportFailure), "Broker transport failure");
        assert_eq!(in_words(Code::OperationTimedOut), "Timed out");
    }

    #[test]
    fn a_topic_that_eats_lines_is_not_produced_to() {
        let with = |policy: &str| {
            let mut config = TopicConfig::default();
            config.set("cleanup.policy", policy);
            harmful(&config)
        };
        assert!(matches!(with("compact,delete"), Some(TopicState::Failing { refusal: Refusal::Policy, .. })));
        assert_eq!(with("delete"), None);
    }

    #[test]
    fn each_topic_has_the_result_that_names_it() {
        let results = [
            Ok("a".to_owned()),
            Err(("b".to_owned(), Code::TopicAlreadyExists)),
            Err(("c".to_owned(), Code::PolicyViolation)),
            Err(("d".to_owned(), Code::RequestTimedOut)),
        ];
        assert_eq!(outcome(&results, "a"), Ok(()));
        assert_eq!(outcome(&results, "b"), Ok(()));
        let refusal_of = |topic: &str| match outcome(&results, topic) {
            Err(TopicState::Failing { refusal, permanent, .. }) => (refusal, permanent),
            other => panic!("{topic}: {other:?}"),
        };
        assert_eq!(refusal_of("c"), (Refusal::Policy, true));
        assert_eq!(refusal_of("d"), (Refusal::Unavailable, false));
        assert_eq!(refusal_of("e"), (Refusal::Other, true));
    }
}
