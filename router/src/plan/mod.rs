//! `fairlead-router plan`: which namespaces and pods of this node go to which topic, and what that topic would do to their lines. Asks the live
//! brokers, and changes nothing.
//!
//! `node` lists pods, `ask` asks (`describe` is the question that librdkafka's wrapper does not have), `hurts` judges, `table` prints.

mod ask;
mod describe;
mod hurts;
mod node;
mod table;

pub use hurts::{Harm, Needs, TopicConfig, Warning, hurts};

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use fairlead_contract::{
    namespace::Namespace,
    topic::{Route, TopicName},
};
use fairlead_service_kit::{telemetry, units::parse_duration};
use rdkafka::error::KafkaError;
use serde::Serialize;

use self::ask::{Asker, State};
use crate::{audit::Format, config::Config};

/// Nothing would be refused.
const WELL: u8 = 0;
/// Something would be refused.
const REFUSED: u8 = 1;
/// It could not be told.
const NOT_PLANNED: u8 = 2;

/// What `--help` says behind the options.
pub const HELP: &str = "\
Asks the brokers and changes nothing: topics that are missing are made by nobody, their making is only tried out.

Exit code: 0 every namespace's lines would be taken (there may be warnings); 1 something would be refused; 2 it could not be told (no broker, a
faulty configuration, wrong usage).";

/// The options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The YAML file; environment variables FAIRLEAD_ROUTER__… win over it, and can do without it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long readers may be away: a topic that keeps lines for a shorter time is warned of.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    outage: Duration,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No client can be made.
    #[error("cannot make a Kafka client")]
    Client(#[source] KafkaError),
    /// No runtime can be made.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The folder of pods cannot be read.
    #[error("cannot read logs.pods_dir {folder}")]
    Pods {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No broker answers.
    #[error("no broker answers at {servers}")]
    NoAnswer {
        /// The brokers that were asked.
        servers: String,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
}

/// The whole plan.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Rules for people, in the order in which they decide.
    pub rules: Vec<String>,
    /// Namespaces of this node, and those that rules name.
    pub namespaces: Vec<NamespacePlan>,
    /// Their topics.
    pub topics: Vec<TopicPlan>,
    /// Whether anything would be refused.
    pub refused: bool,
}

/// One namespace.
#[derive(Debug, Serialize)]
pub struct NamespacePlan {
    /// Its name.
    pub namespace: String,
    /// Its topic; none where a rule excludes it.
    pub topic: Option<String>,
    /// Whether other namespaces may write there.
    pub shared: bool,
    /// Its pods on this node.
    pub pods: Vec<PodPlan>,
}

/// One pod.
#[derive(Debug, Serialize)]
pub struct PodPlan {
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its containers with a folder.
    pub containers: usize,
}

/// One topic.
#[derive(Debug, Serialize)]
pub struct TopicPlan {
    /// Its name.
    pub topic: String,
    /// `there`, `would be made`, `missing`, `cannot be made`, `not known`.
    pub state: &'static str,
    /// Whether the router may write; none where it is not known.
    pub may_write: Option<bool>,
    /// Partitions, or how many it would get.
    pub partitions: Option<u64>,
    /// The fewest replicas of a partition.
    pub replicas: Option<u64>,
    /// The fewest replicas in sync of a partition.
    pub in_sync: Option<u64>,
    /// `min.insync.replicas`.
    pub min_in_sync: Option<u64>,
    /// `max.message.bytes`.
    pub message_bytes_max: Option<u64>,
    /// `retention.ms`.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`.
    pub retention_bytes: Option<i64>,
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// `message.timestamp.type`.
    pub timestamp_type: Option<String>,
    /// What would hurt lines, worst first.
    pub remarks: Vec<Remark>,
}

/// Something to know of a topic.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Whether lines would not be taken.
    pub refused: bool,
    /// What it is.
    pub text: String,
}

/// Plans, prints, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => {
            say(&mut io::stderr(), &format!("{faults}\n"));
            return NOT_PLANNED;
        }
    };
    match plan(&config, arguments.outage) {
        Ok(plan) => {
            let text = match arguments.format {
                Format::Table => table::plan(&plan),
                Format::Json => serde_json::to_string_pretty(&plan).expect("plain data is written to memory") + "\n",
            };
            say(&mut io::stdout(), &text);
            if plan.refused { REFUSED } else { WELL }
        }
        Err(error) => {
            say(&mut io::stderr(), &format!("fairlead-router: {}\n", telemetry::chain(&error)));
            NOT_PLANNED
        }
    }
}

fn plan(config: &Config, outage: Duration) -> Result<Plan, PlanError> {
    let folder = &config.logs.pods_dir;
    let fail = |source| PlanError::Pods { folder: folder.display().to_string(), source };
    let mut by_namespace: BTreeMap<Namespace, Vec<PodPlan>> =
        config.named.iter().map(|namespace| (namespace.clone(), Vec::new())).collect();
    for pod in node::pods(folder).map_err(fail)? {
        let plan = PodPlan { pod: pod.name, uid: pod.uid, containers: pod.containers };
        by_namespace.entry(pod.namespace).or_default().push(plan);
    }
    let mut names: Vec<TopicName> = Vec::new();
    let mut namespaces = Vec::new();
    for (namespace, pods) in by_namespace {
        let (topic, shared) = match config.topics.route(&namespace) {
            Route::Excluded => (None, false),
            Route::Topic { topic, shared } => (Some(topic), shared),
        };
        names.extend(topic.clone());
        let topic = topic.map(|topic| topic.to_string());
        namespaces.push(NamespacePlan { namespace: namespace.to_string(), topic, shared, pods });
    }
    names.sort();
    names.dedup();
    let needs = Needs { record_bytes_max: config.logs.record_bytes_max as u64, outage };
    let states = Asker::new(&config.kafka)?.states(&names, &config.create)?;
    let topics: Vec<TopicPlan> = names
        .iter()
        .zip(states)
        .map(|(name, (state, settings))| TopicPlan::new(name, state, settings, &needs))
        .collect();
    let refused = topics.iter().any(|topic| topic.remarks.iter().any(|remark| remark.refused));
    Ok(Plan { rules: config.topic_lines.clone(), namespaces, topics, refused })
}

impl TopicPlan {
    fn new(name: &TopicName, state: State, settings: TopicConfig, needs: &Needs) -> Self {
        let mut remarks: Vec<Remark> = hurts(&settings, needs)
            .into_iter()
            .map(|warning| Remark { refused: warning.harm.refuses(), text: warning.text })
            .collect();
        let mut refuse = |text: String| remarks.insert(0, Remark { refused: true, text });
        let (state, partitions, may_write) = match state {
            State::There { partitions, leaderless, may_write } => {
                if leaderless > 0 {
                    refuse(format!(
                        "{leaderless} of {partitions} partitions have no leader: nothing is taken there now"
                    ));
                }
                if may_write == Some(false) {
                    refuse("the router may not write to it".to_owned());
                }
                ("there", Some(partitions), may_write)
            }
            State::WouldBeMade { partitions } => ("would be made", Some(partitions), None),
            State::CannotBeMade(why) => {
                refuse(format!("it does not exist, and cannot be made: {why}"));
                ("cannot be made", None, None)
            }
            State::Missing => {
                refuse("it does not exist, and topics.create.enabled is false".to_owned());
                ("missing", None, None)
            }
            State::NotSaid(why) => {
                refuse(format!("the broker does not describe it: {why}"));
                ("not known", None, None)
            }
        };
        Self {
            topic: name.to_string(),
            state,
            may_write,
            partitions,
            replicas: settings.replicas_min,
            in_sync: settings.in_sync_min,
            min_in_sync: settings.min_in_sync,
            message_bytes_max: settings.message_bytes_max,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            cleanup_policy: settings.cleanup_policy,
            timestamp_type: settings.timestamp_type,
            remarks,
        }
    }
}

/// Writes; nobody is left to hear that it failed.
fn say(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
