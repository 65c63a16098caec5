//! The router's settings, from raw to validated. `docs/configuration.md` lists every key; a test compares it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::enrich::Kubernetes;
use crate::hold::{Budget, FreeMin, Reach, reach};
use crate::pipeline::TooLong;
use fairlead_contract::namespace::Namespace;
use fairlead_contract::topic::TopicMap;
use fairlead_service_kit::config_source::{self, Faults, Reader, Source, os_words};
use fairlead_service_kit::kafka_client::{KafkaSettings, Role};
use fairlead_service_kit::telemetry::{self, LogSettings};
use fairlead_service_kit::topics::{self, CreateTopics, TopicSettings};
use fairlead_service_kit::units::{show_bytes, show_duration};
use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Environment variables of the router begin with this and two underscores.
pub const PREFIX: &str = "FAIRLEAD_ROUTER";

const STATE_DIR: &str = "/var/log/fairlead";
const PODS_DIR: &str = "/var/log/pods";
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9598);
const RECORD_BYTES: u64 = 128 << 10;
const PARTIAL_FLUSH: Duration = Duration::from_secs(30);
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
const STORE_INTERVAL: Duration = Duration::from_millis(500);
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);
const HELD_BYTES: u64 = 10 << 30;
/// Above the kubelet's own eviction threshold, `nodefs.available<10%`.
const FREE_MIN: FreeMin = FreeMin::Percent(15);
const IN_FLIGHT_BYTES: u64 = 32 << 20;
/// librdkafka's `message.max.bytes` unless set.
const MESSAGE_BYTES: u64 = 1_000_000;
/// What JSON makes of the worst byte: `\u0000`.
const ESCAPED_BYTES_PER_BYTE: u64 = 6;
/// Room for what stands before and behind the line in a record, and for Kafka's own framing.
const RECORD_HEAD_BYTES: u64 = 64 << 10;

/// What is done with files that are there when a router without state starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They are read from their beginning, rotated ones too.
    Read,
    /// They are passed over: reading begins at their end.
    Skip,
}

/// The `logs` block.
#[derive(Debug, Clone)]
pub struct Logs {
    /// Where the kubelet keeps container logs.
    pub pods_dir: PathBuf,
    /// Where Docker keeps its containers' files: the one folder that links among log files may lead to.
    pub docker_containers_dir: Option<PathBuf>,
    /// What is done with files that are there at the first start.
    pub existing: Existing,
    /// A longer line is cut into chunks of so many bytes of content.
    pub record_bytes_max: usize,
    /// What becomes of a longer line.
    pub too_long: TooLong,
    /// A line's fragments are sent as they are after this time without another.
    pub partial_flush: Duration,
    /// How often the whole directory is walked besides being watched.
    pub rescan_interval: Duration,
}

/// The router's settings, validated: what can be run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name, `host` in every record.
    pub node_name: String,
    /// Where positions and held files are kept; see [`Config::make_state_dir`].
    pub state_dir: PathBuf,
    /// The `logs` block.
    pub logs: Logs,
    /// The bound on bytes that only the router keeps.
    pub budget: Budget,
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// Bytes handed to the producer and not reported yet, at most.
    pub in_flight_bytes_max: u64,
    /// Namespace to topic.
    pub topics: TopicMap,
    /// The same for people, one line a rule.
    pub topic_lines: Vec<String>,
    /// The namespaces that rules name one by one.
    pub named: Vec<Namespace>,
    /// How missing topics are made.
    pub create: CreateTopics,
    /// The `kubernetes` block.
    pub kubernetes: Kubernetes,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin_listen: SocketAddr,
    /// The `log` block.
    pub log: LogSettings,
    /// How often positions are stored.
    pub store_interval: Duration,
    /// How long draining may take after SIGTERM.
    pub shutdown_deadline: Duration,
    /// What is not wrong, but probably not meant.
    pub warnings: Vec<String>,
}

/// What a command needs that reads topics and no files: the `kafka` and `topics` blocks, wherever it runs.
#[derive(Debug, Clone)]
pub struct TopicsOnly {
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// Namespace to topic.
    pub topics: TopicMap,
}

impl TopicsOnly {
    /// Reads defaults, file and environment.
    ///
    /// # Errors
    /// All faults of these blocks at once; those of others are of no matter here.
    pub fn load(file: Option<&Path>) -> Result<TopicsOnly, Faults> {
        let mut source = config_source::load(PREFIX, file)?;
        source.include(topics::FILE_KEY, topics::KEY);
        let mut reader = source.reader();
        // Makes the other keys known; whether they are well does not matter.
        let _ = Config::take(&mut reader);
        let (kafka, topics) = (KafkaSettings::read(&mut reader, Role::Producer), topics::read(&mut reader));
        let mut faults = reader.finish().err().map_or_else(Vec::new, |faults| faults.0);
        let matters =
            |key: &str| [topics::KEY, topics::FILE_KEY, "kafka"].contains(&key.split(['.', '[']).next().unwrap_or(key));
        faults.retain(|fault| matters(&fault.key));
        match (kafka, topics) {
            (Some(kafka), Some(topics)) if faults.is_empty() => Ok(TopicsOnly { kafka, topics: topics.map }),
            _ => Err(Faults(faults)),
        }
    }
}

impl Config {
    /// Reads defaults, file and environment. Nothing is made or written.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load(file: Option<&Path>) -> Result<Config, Faults> {
        Config::read(config_source::load(PREFIX, file)?)
    }

    /// As [`Config::load`], from a source that is loaded already.
    ///
    /// # Errors
    /// All faults at once.
    pub fn read(mut source: Source) -> Result<Config, Faults> {
        source.include(topics::FILE_KEY, topics::KEY);
        let mut reader = source.reader();
        let config = Config::take(&mut reader);
        reader.finish()?;
        Ok(config.expect("a setting that is not there without being a fault"))
    }

    /// Makes `state_dir` where it is missing, and writes and removes a file to try it.
    ///
    /// # Errors
    /// The problem in words.
    pub fn make_state_dir(&self) -> Result<(), String> {
        let folder = &self.state_dir;
        let failed =
            |what: &str, error: &io::Error| format!("state_dir = {}: {what}: {}", folder.display(), os_words(error));
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("cannot be made", &error)),
            _ => {}
        }
        let trial = folder.join(format!(".writable.{}", std::process::id()));
        fs::write(&trial, b"")
            .and_then(|()| fs::remove_file(&trial))
            .map_err(|error| failed("cannot be written", &error))
    }

    /// What this configuration amounts to, for people; one line a matter.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let logs = &self.logs;
        let mut line = |name: &str, value: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name:<12}{value}");
        };
        line("node", self.node_name.clone());
        line("reads", format!("{} (existing files: {:?})", logs.pods_dir.display(), logs.existing).to_lowercase());
        line("keeps", format!("{}, stored every {}", self.state_dir.display(), show_duration(self.store_interval)));
        let budget = &self.budget;
        let free = match budget.free_min {
            FreeMin::Percent(percent) => format!("{percent}%"),
            FreeMin::Bytes(bytes) => show_bytes(bytes),
        };
        let (all, one) = (show_bytes(budget.bytes_max), show_bytes(budget.namespace_bytes_max));
        line(
            "holds",
            format!("at most {all} that only it keeps, {one} a namespace, while {free} of the disk stay free"),
        );
        line("produces to", self.kafka.bootstrap_servers().to_owned());
        let create = &self.create;
        let made = if create.enabled {
            format!("made if missing, {} partition(s)", create.partitions)
        } else {
            "never made".to_owned()
        };
        line("topics", made);
        for topic in &self.topic_lines {
            line("", topic.clone());
        }
        line("kubernetes", self.kubernetes.summary(&self.node_name));
        line("in flight", format!("at most {}", show_bytes(self.in_flight_bytes_max)));
        line("admin", format!("http://{}", self.admin_listen));
        text
    }

    /// Takes every key; nothing is given only if the reader has a fault.
    fn take(reader: &mut Reader) -> Option<Config> {
        let node_name = read_node_name(reader);
        let state_dir = read_state_dir(reader);
        let logs = read_logs(reader);
        if let Some(state_dir) = &state_dir {
            check_links_reach(reader, state_dir, &logs.pods_dir);
        }
        let budget = read_budget(reader);
        let kafka = KafkaSettings::read(reader, Role::Producer);
        let in_flight_bytes_max =
            reader.bytes("kafka.in_flight_bytes_max", 1 << 20..=1 << 30).unwrap_or(IN_FLIGHT_BYTES);
        if let Some(kafka) = &kafka {
            check_record_fits(reader, kafka, logs.record_bytes_max as u64);
        }
        let topics = topics::read(reader);
        let kubernetes = Kubernetes::read(reader, node_name.as_deref());
        let admin_listen = reader.address("admin.listen").unwrap_or(ADMIN_LISTEN);
        let log = telemetry::read(reader);
        let milliseconds = Duration::from_millis;
        let store_interval =
            reader.duration("store_interval", milliseconds(10)..=milliseconds(1_000)).unwrap_or(STORE_INTERVAL);
        let shutdown_deadline =
            reader.duration("shutdown_deadline", milliseconds(1_000)..=minutes(60)).unwrap_or(SHUTDOWN_DEADLINE);
        let topics = topics?;
        Some(Config {
            node_name: node_name?,
            state_dir: state_dir?,
            logs,
            budget,
            kafka: kafka?,
            in_flight_bytes_max,
            topic_lines: topics.lines(),
            named: named(&topics),
            topics: topics.map,
            create: topics.create,
            kubernetes,
            admin_listen,
            log,
            store_interval,
            shutdown_deadline,
            warnings: reader.warnings(),
        })
    }
}

/// Names in rules that are namespaces, and no globs.
fn named(topics: &TopicSettings) -> Vec<Namespace> {
    topics.rules.iter().flat_map(|rule| &rule.namespaces).filter_map(|name| Namespace::parse(name).ok()).collect()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

fn read_node_name(reader: &mut Reader) -> Option<String> {
    const KEY: &str = "node_name";
    let name = reader.required_text(KEY)?;
    if name.len() > 253 || name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        reader.fault(KEY, "must be a node's name: at most 253 characters, no spaces");
        return None;
    }
    Some(name)
}

fn read_state_dir(reader: &mut Reader) -> Option<PathBuf> {
    const KEY: &str = "state_dir";
    let folder = match reader.path(KEY) {
        Some(folder) => folder,
        None if reader.has(KEY) => return None,
        None => PathBuf::from(STATE_DIR),
    };
    match fault_of_state_dir(&folder) {
        None => Some(folder),
        Some(problem) => {
            reader.fault_of(KEY, STATE_DIR, problem);
            None
        }
    }
}

/// What keeps a folder from being used, or made, for state; none if nothing does. Leaves no trace.
fn fault_of_state_dir(folder: &Path) -> Option<String> {
    let may_write = |folder: &Path| accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    match fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => return Some("is not a folder".to_owned()),
        Ok(_) => return may_write(folder).err().map(|error| format!("cannot be written: {}", os_words(&error.into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Some(format!("cannot be used: {}", os_words(&error))),
    }
    let parent = parent(folder);
    match fs::metadata(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("its parent {} is not there", parent.display()))
        }
        Err(error) => Some(format!("its parent {} cannot be used: {}", parent.display(), os_words(&error))),
        Ok(metadata) if !metadata.is_dir() => Some(format!("its parent {} is not a folder", parent.display())),
        Ok(_) => may_write(parent)
            .err()
            .map(|error| format!("cannot be made in {}: {}", parent.display(), os_words(&error.into()))),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Log files are held by hard links, which stay within a mount.
fn check_links_reach(reader: &mut Reader, state_dir: &Path, pods_dir: &Path) {
    let there = if state_dir.exists() { state_dir } else { parent(state_dir) };
    let what = match reach(there, pods_dir) {
        Reach::Same => return,
        Reach::OtherFileSystem => "file system",
        Reach::OtherMount => "mount",
    };
    if pods_dir.is_dir() {
        let problem = format!(
            "is not on the {what} of logs.pods_dir {}, so no hard link can hold a log file: open descriptors do, and what \
             is rotated while the router is away may be lost; put it on the mount of the logs, such as /var/log/fairlead",
            pods_dir.display()
        );
        reader.warn("state_dir", STATE_DIR, problem);
    }
}

fn read_logs(reader: &mut Reader) -> Logs {
    const KEY: &str = "logs.pods_dir";
    let pods_dir = reader.path(KEY).unwrap_or_else(|| PathBuf::from(PODS_DIR));
    match fs::metadata(&pods_dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => reader.fault_of(KEY, PODS_DIR, "is not a folder"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            reader.warn(KEY, PODS_DIR, "there is no such folder yet");
        }
        Err(error) => reader.warn(KEY, PODS_DIR, format!("cannot be used yet: {}", os_words(&error))),
    }
    let words = [("read", Existing::Read), ("skip", Existing::Skip)];
    let existing = reader.choice("logs.existing", &words).unwrap_or(Existing::Read);
    let record_bytes_max = reader.bytes("logs.record_bytes_max", 256..=16 << 20).unwrap_or(RECORD_BYTES);
    let milliseconds = Duration::from_millis;
    let words = [("chunk", TooLong::Chunk), ("truncate", TooLong::Truncate)];
    Logs {
        docker_containers_dir: read_docker_dir(reader),
        too_long: reader.choice("logs.too_long", &words).unwrap_or_default(),
        pods_dir,
        existing,
        record_bytes_max: usize::try_from(record_bytes_max).expect("16 MiB is a size"),
        partial_flush: reader.duration("logs.partial_flush", milliseconds(100)..=minutes(60)).unwrap_or(PARTIAL_FLUSH),
        rescan_interval: reader
            .duration("logs.rescan_interval", milliseconds(100)..=minutes(60))
            .unwrap_or(RESCAN_INTERVAL),
    }
}

fn read_docker_dir(reader: &mut Reader) -> Option<PathBuf> {
    const KEY: &str = "logs.docker_containers_dir";
    let path = reader.path(KEY)?;
    if !path.is_absolute() {
        reader.fault(KEY, "must begin with /, as the links to Docker's log files do");
    } else if path.components().any(|component| component == Component::ParentDir) {
        reader.fault(KEY, "must not have .. in it: it is compared with the links to Docker's log files");
    } else if let Err(error) = fs::read_dir(&path) {
        reader.warn(KEY, "", format!("cannot be used yet: {}", os_words(&error)));
    }
    Some(path)
}

fn read_budget(reader: &mut Reader) -> Budget {
    const KEY: &str = "hold.namespace_bytes_max";
    let sizes = 1 << 20..=1 << 50;
    let bytes_max = reader.bytes("hold.bytes_max", sizes.clone()).unwrap_or(HELD_BYTES);
    let namespace_bytes_max = reader.bytes(KEY, sizes).unwrap_or(bytes_max);
    if namespace_bytes_max > bytes_max {
        reader.fault(KEY, format!("is more than hold.bytes_max, {}", show_bytes(bytes_max)));
    }
    let free_min = reader.parsed("hold.free_min").unwrap_or(FREE_MIN);
    Budget { bytes_max, namespace_bytes_max, free_min }
}

/// A line of the allowed length must fit the producer's own bound, however it is escaped.
fn check_record_fits(reader: &mut Reader, kafka: &KafkaSettings, record_bytes_max: u64) {
    let needed = record_bytes_max * ESCAPED_BYTES_PER_BYTE + RECORD_HEAD_BYTES;
    let written = kafka.property("message.max.bytes");
    let allowed = written.and_then(|value| value.parse().ok()).unwrap_or(MESSAGE_BYTES);
    if needed <= allowed {
        return;
    }
    let key = if written.is_some() { "kafka.properties.message.max.bytes" } else { "logs.record_bytes_max" };
    reader.fault(
        key,
        format!(
            "a line of {} can need {needed} bytes: kafka.properties.message.max.bytes, and max.message.bytes of the \
             topics, must be at least that",
            show_bytes(record_bytes_max)
        ),
    );
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
