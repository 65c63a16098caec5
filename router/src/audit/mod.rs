//! `fairlead-router audit`: proves from the data in Kafka alone that no line is missing. Input: topics. Output: a verdict for each source, and an
//! exit code.
//!
//! Flow: `read` gives records partition by partition, `topic` parses them and finds their source, `source` notes ranges of numbers and compares
//! repeats (`compare`, `text`), `verdict` judges, `report` and `table` say it. Memory is bounded by sources, separate ranges and remembered
//! fingerprints, never by lines. A line's content is never printed.

mod compare;
mod explain;
mod ranges;
mod read;
mod report;
mod source;
mod table;
mod text;
mod topic;
mod verdict;

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use fairlead_contract::{
    namespace::Namespace,
    topic::{Route, TopicMap, TopicName},
};
use fairlead_service_kit::telemetry;
use rdkafka::error::KafkaError;

use self::{
    explain::Explanation,
    read::{Reader, Span},
    report::{Report, RowReport, Summary, TopicReport},
    topic::TopicAudit,
};
use crate::config::TopicsOnly;

pub use verdict::Verdict;

/// Nothing is wrong.
const WELL: u8 = 0;
/// Holes or faults.
const WRONG: u8 = 1;
/// It could not be told.
const NOT_AUDITED: u8 = 2;

const PROGRESS_EVERY: Duration = Duration::from_millis(500);
const RECORDS_PER_LOOK: u64 = 1_024;

/// What `--help` says behind the options.
pub const HELP: &str = "\
For each source (one numbered run of lines of one container) the ranges that its records cover, leave out and announce as lost are joined:
  complete  no hole from 0 to its end
  open      no hole so far; it has not ended, or not said so
  head      the topic's log begins later than the source (retention)
  hole      lines are missing
What comes twice is counted and compared. Reads the topics up to the end that they have now; joins no consumer group, changes nothing.
Needs the right to read the topics. Of the configuration only `kafka` and `topics` matter.

Memory: about 1 KiB for each source, 120 bytes for each separate range of numbers, 200 bytes for each record that is remembered.

Exit code: 0 nothing is wrong; 1 there are holes or faults; 2 it could not be told (no broker, no such topic, no right, wrong usage).";

/// The options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The YAML file; environment variables FAIRLEAD_ROUTER__… win over it, and can do without it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A topic to audit; may be given several times.
    #[arg(long, value_name = "TOPIC", required_unless_present = "namespace")]
    topic: Vec<String>,
    /// A namespace whose topic is to be audited; may be given several times.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Vec<String>,
    /// Tells the run of one container: a source, or what it begins with, such as POD_UID/CONTAINER.
    #[arg(long, value_name = "SOURCE")]
    explain: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Lists every source, however many there are.
    #[arg(long)]
    all: bool,
    /// The topics were deleted and made anew: what is missing at a source's beginning was in the old one.
    #[arg(long)]
    made_anew: bool,
    /// How many records are remembered to compare what comes again with.
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000_000)]
    remember: usize,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No client can be made.
    #[error("cannot make a Kafka client")]
    Client(#[source] KafkaError),
    /// A text is no topic name.
    #[error("`{0}` is no topic name")]
    NoTopicName(String),
    /// A text is no namespace name.
    #[error("`{0}` is no namespace name")]
    NoNamespace(String),
    /// A namespace's lines go nowhere.
    #[error("namespace {0} is excluded by a rule: it has no topic")]
    Excluded(Namespace),
    /// There is no such topic.
    #[error("topic {topic} does not exist")]
    Missing {
        /// The topic.
        topic: TopicName,
    },
    /// No answer about a topic.
    #[error("cannot ask Kafka about topic {topic}")]
    Ask {
        /// The topic.
        topic: TopicName,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
    /// Reading failed.
    #[error("cannot read topic {topic}")]
    Read {
        /// The topic.
        topic: TopicName,
        /// What the client says.
        #[source]
        source: KafkaError,
    },
    /// Nothing came for too long.
    #[error("topic {topic} gives nothing any more")]
    Silent {
        /// The topic.
        topic: TopicName,
    },
    /// Retention took records that were still to be read.
    #[error("the beginning of topic {topic} was removed while it was read; try again")]
    Moved {
        /// The topic.
        topic: TopicName,
    },
    /// More than is kept.
    #[error("topic {topic} has more than {max} {what}: too much to audit")]
    TooMuch {
        /// The topic.
        topic: TopicName,
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// No source has such a name.
    #[error("no source in these topics begins with `{0}`")]
    NoSuchSource(String),
    /// Several containers have.
    #[error("`{wanted}` means several containers: {}", .containers.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The first few of them.
        containers: Vec<String>,
    },
}

/// Audits, prints, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    let config = match TopicsOnly::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => {
            say(&mut std::io::stderr(), &format!("{faults}\n"));
            return NOT_AUDITED;
        }
    };
    match audit(arguments, &config) {
        Ok((text, wrong)) => {
            say(&mut std::io::stdout(), &text);
            if wrong { WRONG } else { WELL }
        }
        Err(error) => {
            say(&mut std::io::stderr(), &format!("fairlead-router: {}\n", telemetry::chain(&error)));
            NOT_AUDITED
        }
    }
}

/// What is printed, and whether anything is wrong.
fn audit(arguments: &Arguments, config: &TopicsOnly) -> Result<(String, bool), AuditError> {
    let topics = topics(arguments, &config.topics)?;
    let mut explanation = arguments.explain.as_deref().map(Explanation::new);
    let reader = Reader::new(&config.kafka)?;
    let (mut reports, mut summary) = (Vec::new(), Summary::default());
    for topic in topics {
        let report = audit_topic(arguments, &config.topics, &reader, topic, &mut explanation)?;
        summary.add(&report.summary);
        reports.push(report);
    }
    let text = match explanation {
        None => {
            let report = Report { topics: reports, summary: summary.clone() };
            match arguments.format {
                Format::Table => table::report(&report, arguments.all),
                Format::Json => json(&report),
            }
        }
        Some(explanation) => explain(arguments, explanation, &reports)?,
    };
    Ok((text, summary.is_wrong()))
}

fn topics(arguments: &Arguments, map: &TopicMap) -> Result<BTreeSet<TopicName>, AuditError> {
    let mut topics = BTreeSet::new();
    for text in &arguments.topic {
        topics.insert(TopicName::parse(text).map_err(|_| AuditError::NoTopicName(text.clone()))?);
    }
    for text in &arguments.namespace {
        let namespace = Namespace::parse(text).map_err(|_| AuditError::NoNamespace(text.clone()))?;
        match map.route(&namespace) {
            Route::Topic { topic, .. } => topics.insert(topic),
            Route::Excluded => return Err(AuditError::Excluded(namespace)),
        };
    }
    Ok(topics)
}

fn audit_topic(
    arguments: &Arguments,
    map: &TopicMap,
    reader: &Reader,
    topic: TopicName,
    explanation: &mut Option<Explanation>,
) -> Result<TopicReport, AuditError> {
    let spans = reader.spans(&topic)?;
    let mut progress = Progress::new(&topic, &spans);
    let mut audit = TopicAudit::new(topic.clone(), map, arguments.remember);
    reader.read(&topic, &spans, &mut |raw| {
        audit.take(raw, &mut |state, spot, event| {
            if let Some(explanation) = explanation {
                explanation.take(state, spot, event);
            }
        })?;
        progress.step();
        Ok(())
    })?;
    progress.end();
    Ok(TopicReport::new(&audit, &spans, arguments.made_anew))
}

fn explain(arguments: &Arguments, explanation: Explanation, topics: &[TopicReport]) -> Result<String, AuditError> {
    let wanted = arguments.explain.clone().unwrap_or_default();
    let containers: Vec<String> = explanation.containers().iter().cloned().collect();
    let container = match containers.as_slice() {
        [] => return Err(AuditError::NoSuchSource(wanted)),
        [container] => container.clone(),
        _ => return Err(AuditError::Ambiguous { wanted, containers }),
    };
    let is_cut = explanation.is_cut;
    let rows: Vec<RowReport> = explanation.rows().iter().map(RowReport::new).collect();
    Ok(match arguments.format {
        Format::Table => table::explanation(&container, &rows, topics, is_cut),
        Format::Json => {
            let prefix = format!("{container}/");
            let sources: Vec<_> = topics
                .iter()
                .flat_map(|topic| &topic.sources)
                .filter(|source| source.source.starts_with(&prefix))
                .collect();
            json(&serde_json::json!({"container": container, "rows": rows, "cut": is_cut, "sources": sources}))
        }
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain data is written to memory") + "\n"
}

/// Writes; nobody is left to hear that it failed.
fn say(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// How far the reading is, told on a terminal.
struct Progress {
    topic: String,
    total: u64,
    records: u64,
    told: Option<Instant>,
    ever: bool,
}

impl Progress {
    fn new(topic: &TopicName, spans: &[Span]) -> Self {
        let total = spans.iter().map(|span| span.to.abs_diff(span.from)).sum();
        let told = std::io::stderr().is_terminal().then(Instant::now);
        Self { topic: topic.to_string(), total, records: 0, told, ever: false }
    }

    fn step(&mut self) {
        self.records += 1;
        if self.records % RECORDS_PER_LOOK == 0
            && let Some(told) = self.told.filter(|told| told.elapsed() >= PROGRESS_EVERY)
        {
            let percent = self.records * 100 / self.total.max(1);
            say(&mut std::io::stderr(), &format!("\r{}: {} records, {percent} %", self.topic, self.records));
            self.told = Some(told + PROGRESS_EVERY);
            self.ever = true;
        }
    }

    fn end(&mut self) {
        if self.ever {
            // Back to the beginning of the line, and clear it.
            say(&mut std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests;
