//! Logs: how they are set up, what their fields are called, and how repeats are kept rare.
//!
//! They go to standard error, as lines for people or as JSON objects. A message is a lowercase fragment; numbers carry
//! their unit in the field's name; no field ever holds a log line's content or a token. The router reads its own log,
//! so that a message which may repeat passes a [`Throttle`] or [`ThrottleBy`].

mod throttle;

pub use self::throttle::{Throttle, ThrottleBy};

use tracing_subscriber::EnvFilter;

use crate::config_source::Reader;

/// What is logged unless configured otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// What is never logged unless the filter names its target: the Kubernetes client's own lines. They are not throttled, and may show what an answer
/// contains; whoever uses it says what is wrong.
const QUIET: [&str; 2] = ["kube_client", "kube_runtime"];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The `log` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `log.format`, default human.
    pub format: LogFormat,
    /// `log.filter`, a level or a list of `target=level`; default [`DEFAULT_FILTER`].
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { format: LogFormat::Human, filter: DEFAULT_FILTER.to_owned() }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {filter:?} does not parse")]
    Filter {
        /// What was configured.
        filter: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging is set up already.
    #[error("logging is set up already")]
    Twice {
        /// What the subscriber says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads the `log` block.
pub fn read(reader: &mut Reader) -> LogSettings {
    let default = LogSettings::default();
    let format = reader.choice("log.format", &[("human", LogFormat::Human), ("json", LogFormat::Json)]);
    let filter = reader.text("log.filter");
    // The parser takes no spaces.
    let filter = filter.map(|filter| filter.split(',').map(str::trim).collect::<Vec<_>>().join(","));
    if let Some(problem) = filter.as_deref().and_then(fault_of_filter) {
        reader.fault("log.filter", problem);
    }
    LogSettings { format: format.unwrap_or(default.format), filter: filter.unwrap_or(default.filter) }
}

/// What is wrong with a filter; none if nothing is. A bare word that is no level would be a target to [`EnvFilter`], and
/// silence everything else.
fn fault_of_filter(filter: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in filter.split(',').map(str::trim) {
        let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let target_is_well = target.is_none_or(|target| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || "_-:.".contains(c))
        });
        if !target_is_well || !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            let levels = LEVELS.join(", ");
            return Some(format!("`{part}` is neither a level ({levels}) nor target=level"));
        }
    }
    EnvFilter::try_new(filter).err().map(|error| error.to_string())
}

/// Sends log lines of this process to standard error from now on; librdkafka's lines come along.
///
/// # Errors
/// If the filter does not parse or logging is set up already.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(quietened(&settings.filter))
        .map_err(|source| TelemetryError::Filter { filter: settings.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match settings.format {
        LogFormat::Human => lines.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    result.map_err(|source| TelemetryError::Twice { source })
}

/// The filter, with what is quiet unless it says otherwise.
fn quietened(filter: &str) -> String {
    let mut filter = filter.to_owned();
    for target in QUIET.into_iter().filter(|target| !filter.contains(target)).collect::<Vec<_>>() {
        filter.push_str(&format!(",{target}=off"));
    }
    filter
}

/// An error and its sources on one line: `cannot store positions: no space left on device`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// Names of log fields: OpenTelemetry's where it has one. Used as `info!({ field::REASON } = "…", "message")`.
pub mod field {
    /// The Kubernetes namespace.
    pub const K8S_NAMESPACE_NAME: &str = "k8s.namespace.name";
    /// The pod's name.
    pub const K8S_POD_NAME: &str = "k8s.pod.name";
    /// The pod's uid.
    pub const K8S_POD_UID: &str = "k8s.pod.uid";
    /// The container's name.
    pub const K8S_CONTAINER_NAME: &str = "k8s.container.name";
    /// The container's restart count.
    pub const K8S_CONTAINER_RESTART_COUNT: &str = "k8s.container.restart_count";
    /// The node's name.
    pub const K8S_NODE_NAME: &str = "k8s.node.name";
    /// A file, by OpenTelemetry\'s general name: the subscriber takes names that begin with `log.` for its own and leaves them out.    pub const FILE_PATH: &str = "file.path";
    /// The record's source: pod uid, container, restart count, epoch, stream.
    pub const SOURCE: &str = "fairlead.source";
    /// The topic.
    pub const DESTINATION: &str = "messaging.destination.name";
    /// The partition of the topic.
    pub const PARTITION: &str = "messaging.destination.partition.id";
    /// The offset in the partition.
    pub const OFFSET: &str = "messaging.kafka.offset";
    /// A file's path, other than of a log file.
    pub const FILE_PATH: &str = "file.path";
    /// What went wrong.
    pub const ERROR: &str = "error.message";
    /// The kind of what went wrong, from a closed set.
    pub const ERROR_TYPE: &str = "error.type";
    /// Why something was done, from a closed set.
    pub const REASON: &str = "reason";
    /// How many equal messages were left out since the last one.
    pub const LEFT_OUT: &str = "left_out";
    /// The HTTP request's method.
    pub const HTTP_METHOD: &str = "http.request.method";
    /// The HTTP route's pattern.
    pub const HTTP_ROUTE: &str = "http.route";
    /// The HTTP answer's status.
    pub const HTTP_STATUS: &str = "http.response.status_code";
    /// The address of the peer.
    pub const CLIENT_ADDRESS: &str = "client.address";
    /// The address that is listened on.
    pub const SERVER_ADDRESS: &str = "server.address";
    /// The tenant.
    pub const TENANT: &str = "fairlead.tenant";
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config_source::Source;

    #[test]
    fn the_block_is_read_and_judged() {
        let check = |yaml: &str, expected: Result<LogSettings, &str>| {
            let mut reader = Source::from_parts("P", Path::new("p.yaml"), yaml, []).unwrap().reader();
            let settings = read(&mut reader);
            match (reader.finish(), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(settings, expected),
                (Err(faults), Err(part)) => assert!(faults.to_string().contains(part), "{faults}"),
                (got, expected) => panic!("{yaml}: {got:?}, not {expected:?}"),
            }
        };
        check("{}", Ok(LogSettings::default()));
        check(
            "log: {format: json, filter: 'info,librdkafka=warn'}",
            Ok(LogSettings { format: LogFormat::Json, filter: "info,librdkafka=warn".to_owned() }),
        );
        check("log: {format: xml}", Err("log.format = xml: must be one of human, json"));
        for well in ["info", "WARN", "off", "info,librdkafka=off", "warn,fairlead_router::worker=trace"] {
            let filter = well.to_owned();
            check(&format!("log: {{filter: '{well}'}}"), Ok(LogSettings { filter, ..LogSettings::default() }));
        }
        let filter = "info,librdkafka=off".to_owned();
        check("log: {filter: ' info, librdkafka=off'}", Ok(LogSettings { filter, ..LogSettings::default() }));
        check(
            "log: {filter: inf0}",
            Err("log.filter = inf0: `inf0` is neither a level (error, warn, info, debug, trace, off)"),
        );
        for faulty in ["a=b=c=d", "librdkafka", "info,", "=info", "librdkafka=loud", "librdkafka=", "info debug"] {
            check(&format!("log: {{filter: '{faulty}'}}"), Err(&format!("log.filter = {faulty}: `")));
        }
        check("log: {filter: ''}", Err("log.filter: `` is neither a level"));
    }

    #[test]
    fn the_kubernetes_client_is_quiet_unless_it_is_named() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let logged = |filter: &str| {
            let written = Shared::default();
            let writer = written.clone();
            let filter = EnvFilter::try_new(quietened(filter)).unwrap();
            let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
            tracing::subscriber::with_default(lines.with_writer(move || writer.clone()).finish(), || {
                tracing::warn!(target: "kube_client::client", "its answer");
                tracing::warn!(target: "kube_runtime::watcher", "its error");
                tracing::warn!("ours");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            ["its answer", "its error", "ours"].map(|line| text.contains(line))
        };
        assert_eq!(logged("info"), [false, false, true]);
        assert_eq!(logged("debug,librdkafka=off"), [false, false, true]);
        assert_eq!(logged("warn,kube_client=debug"), [true, false, true]);
        assert_eq!(logged("off,kube_runtime=warn"), [false, true, false]);
    }

    #[test]
    fn field_constants_name_the_fields() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let written = Shared::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!({ field::FILE_PATH } = "/var/log/x", wait_ms = 5, "cannot read log file");
        });
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(line.contains(r#""file.path":"/var/log/x""#) && line.contains(r#""wait_ms":5"#), "{line}");
    }
}
