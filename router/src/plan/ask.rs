//! The plan's questions to the brokers. Nothing is changed: topics are described, and the making of missing ones is only tried out.

use std::{collections::HashMap, time::Duration};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::{kafka_client::KafkaSettings, topics::CreateTopics};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    metadata::MetadataPartition,
    types::RDKafkaErrorCode as Code,
};

use super::{
    PlanError,
    describe::{Described, describe},
    hurts::TopicConfig,
};

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the full question may take: brokers that do not know it may never answer it.
const DESCRIBE_WAIT_MAX: Duration = Duration::from_secs(4);
/// Topics in one question.
const TOPICS_PER_QUESTION: usize = 200;

/// What there is of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    There {
        /// Partitions.
        partitions: u64,
        /// Partitions without a leader.
        leaderless: u64,
        /// Whether the router may write; none where the broker does not say.
        may_write: Option<bool>,
    },
    /// It is not there, and the router would make it.
    WouldBeMade {
        /// With so many partitions.
        partitions: u64,
    },
    /// It is not there, and the router may or could not make it.
    CannotBeMade(String),
    /// It is not there, and the router does not make topics.
    Missing,
    /// The broker does not say.
    NotSaid(String),
}

/// Asks about topics.
pub struct Asker {
    admin: AdminClient<Quiet>,
    runtime: tokio::runtime::Runtime,
    servers: String,
}

/// Says nothing: what matters comes as an answer.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl Asker {
    /// Makes the client and waits for a first answer.
    ///
    /// # Errors
    /// [`PlanError`] when no client can be made, or no broker answers.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, PlanError> {
        let mut config = kafka.client_config("fairlead-router-plan");
        config.set("allow.auto.create.topics", "false").set("enable.metrics.push", "false");
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let admin: AdminClient<Quiet> = config.create_with_context(Quiet).map_err(PlanError::Client)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PlanError::Start)?;
        let asker = Self { admin, runtime, servers: kafka.bootstrap_servers().to_owned() };
        // A question about no topic that anybody has: whether anybody answers.
        let answer = asker.admin.inner().fetch_metadata(Some("fairlead.control"), ANSWER_WAIT_MAX);
        answer.map(|_| ()).map_err(|source| asker.no_answer(source))?;
        Ok(asker)
    }

    /// What there is of each topic, and its settings as far as the broker says them.
    ///
    /// # Errors
    /// [`PlanError::NoAnswer`] when no broker answers any more.
    pub fn states(&self, topics: &[TopicName], create: &CreateTopics) -> Result<Vec<(State, TopicConfig)>, PlanError> {
        let mut states = Vec::new();
        for some in topics.chunks(TOPICS_PER_QUESTION) {
            let names: Vec<&str> = some.iter().map(TopicName::as_str).collect();
            let told = match describe(self.admin.inner(), &names, DESCRIBE_WAIT_MAX) {
                Some(told) => told,
                None => self.describe_by_metadata(&names)?,
            };
            let told: HashMap<String, Described> = told.into_iter().collect();
            let there: Vec<&str> =
                names.iter().copied().filter(|name| matches!(told.get(*name), Some(Described::There { .. }))).collect();
            let mut configs = self.configs(&there);
            let missing = |name: &&&str| matches!(told.get(**name), Some(Described::Not(code)) if is_missing(*code));
            let made = self.try_to_make(&names.iter().filter(missing).copied().collect::<Vec<_>>(), create);
            for name in names {
                let mut config = configs.remove(name).unwrap_or_default();
                let state = match told.get(name) {
                    Some(&Described::There { partitions, leaderless, replicas_min, in_sync_min, may_write }) => {
                        if partitions > 0 {
                            (config.replicas_min, config.in_sync_min) = (Some(replicas_min), Some(in_sync_min));
                        }
                        State::There { partitions, leaderless, may_write }
                    }
                    Some(Described::Not(code)) if is_missing(*code) => {
                        for (key, value) in &create.config {
                            config.set(key, value);
                        }
                        config.replicas_min = u64::try_from(create.replication_factor).ok();
                        match made.get(name) {
                            _ if !create.enabled => State::Missing,
                            Some(Some(problem)) => State::CannotBeMade(problem.clone()),
                            _ => State::WouldBeMade { partitions: create.partitions.unsigned_abs().into() },
                        }
                    }
                    Some(Described::Not(code)) => State::NotSaid(in_words(*code)),
                    None => State::NotSaid("the broker said nothing of it".to_owned()),
                };
                states.push((state, config));
            }
        }
        Ok(states)
    }

    /// The same without what this client may do, from the answer that every broker gives.
    fn describe_by_metadata(&self, topics: &[&str]) -> Result<Vec<(String, Described)>, PlanError> {
        let describe = |topic: &&str| {
            let client = self.admin.inner();
            let metadata =
                client.fetch_metadata(Some(*topic), ANSWER_WAIT_MAX).map_err(|source| self.no_answer(source))?;
            let Some(told) = metadata.topics().iter().find(|told| told.name() == *topic) else {
                return Ok(((*topic).to_owned(), Described::Not(Code::UnknownTopicOrPartition)));
            };
            let fewest = |count: fn(&MetadataPartition) -> usize| {
                told.partitions().iter().map(|partition| count(partition) as u64).min().unwrap_or(0)
            };
            let described = match told.error() {
                Some(error) => Described::Not(error.into()),
                None => Described::There {
                    partitions: told.partitions().len() as u64,
                    leaderless: told.partitions().iter().filter(|partition| partition.leader() < 0).count() as u64,
                    replicas_min: fewest(|partition| partition.replicas().len()),
                    in_sync_min: fewest(|partition| partition.isr().len()),
                    may_write: None,
                },
            };
            Ok(((*topic).to_owned(), described))
        };
        topics.iter().map(describe).collect()
    }

    /// The settings of topics, as far as the broker says them.
    fn configs(&self, topics: &[&str]) -> HashMap<String, TopicConfig> {
        let mut found = HashMap::new();
        if topics.is_empty() {
            return found;
        }
        let wanted: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answer = self.runtime.block_on(self.admin.describe_configs(&wanted, &options()));
        for resource in answer.into_iter().flatten().flatten() {
            let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = resource.specifier else { continue };
            let mut config = TopicConfig::default();
            for entry in &resource.entries {
                if let Some(value) = &entry.value {
                    config.set(&entry.name, value);
                }
            }
            found.insert(name, config);
        }
        found
    }

    /// What would keep topics from being made, if anything.
    fn try_to_make(&self, topics: &[&str], create: &CreateTopics) -> HashMap<String, Option<String>> {
        if topics.is_empty() || !create.enabled {
            return HashMap::new();
        }
        let names: Vec<String> = topics.iter().map(|name| (*name).to_owned()).collect();
        let wanted: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                let topic = NewTopic::new(name, create.partitions, TopicReplication::Fixed(create.replication_factor));
                create.config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let answer = self.runtime.block_on(self.admin.create_topics(&wanted, &options().validate_only(true)));
        match answer {
            Ok(results) => results
                .into_iter()
                .map(|result| match result {
                    Ok(name) | Err((name, Code::TopicAlreadyExists)) => (name, None),
                    Err((name, code)) => (name, Some(in_words(code))),
                })
                .collect(),
            Err(error) => {
                let why = error.rdkafka_error_code().map_or_else(|| error.to_string(), in_words);
                names.into_iter().map(|name| (name, Some(why.clone()))).collect()
            }
        }
    }

    fn no_answer(&self, source: KafkaError) -> PlanError {
        PlanError::NoAnswer { servers: self.servers.clone(), source }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WAIT_MAX)).operation_timeout(Some(ANSWER_WAIT_MAX))
}

fn is_missing(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic)
}

/// What a code means, without librdkafka's names for it: `Topic authorization failed`.
fn in_words(code: Code) -> String {
    let text = code.to_string();
    let inner = text.split_once('(').map_or(text.as_str(), |(_, inner)| inner.trim_end_matches(')'));
    inner.trim_start_matches("Broker: ").trim_start_matches("Local: ").to_owned()
}
