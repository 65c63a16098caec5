//! What the router counts. `docs/metrics.md` lists every metric; a test compares it with this file.
//!
//! Labels are the namespace and reasons from closed sets, never a pod, a path or a line. Counters are taken once per
//! source and raised once per chunk of lines.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use fairlead_contract::{namespace::Namespace, record::Metadata};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::enrich::KubernetesMetrics;
use crate::tail::Count;

const PREFIX: &str = "fairlead_router";

/// All metrics of the router. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    lines_read: Family<OfNamespace, Counter>,
    bytes_read: Family<OfNamespace, Counter>,
    records_acknowledged: Family<OfNamespace, Counter>,
    lines_acknowledged: Family<OfNamespace, Counter>,
    bytes_acknowledged: Family<OfNamespace, Counter>,
    lines_left_out: Family<OfReason, Counter>,
    bytes_left_out: Family<OfReason, Counter>,
    lines_lost: Family<OfReason, Counter>,
    bytes_lost: Family<OfReason, Counter>,
    lines_in_hand: Family<OfNamespace, Gauge>,
    bytes_in_hand: Family<OfNamespace, Gauge>,
    bytes_waiting: Family<OfNamespace, Gauge>,
    gaps_announced: Family<OfReason, Counter>,
    dead_letters: Family<OfReason, Counter>,
    parse_errors: Family<OfNamespace, Counter>,
    invalid_utf8: Family<OfNamespace, Counter>,
    epochs_started: Family<OfReason, Counter>,
    delivery_failures: Family<OfReason, Counter>,
    parked_namespaces: Family<OfReason, Gauge>,
    first_reads: Family<OfMetadata, Counter>,
    json_records: Family<OfReason, Counter>,
    annotations_refused: Family<OfNamespace, Counter>,
    /// The reasons that stand beside each namespace in any of these.
    reasons: Arc<Mutex<HashMap<Namespace, BTreeSet<&'static str>>>>,
    /// Container instances whose first read waits for what Kubernetes knows of their pod.
    pub waiting_for_metadata: Gauge,
    /// Pods of which nothing is sent, because the API server has them in another namespace than their path.
    pub pods_elsewhere: Gauge,
    /// Beginnings of records that were made without what is known of the pod, for want of room in the topic.
    pub metadata_left_out: Counter,
    /// Held files.
    pub held_files: Gauge,
    /// Bytes of held files that only the router keeps: the kubelet's name is gone.
    pub held_bytes: Gauge,
    /// The bound on them.
    pub held_bytes_max: Gauge,
    /// Files that open descriptors hold because they cannot be linked.
    pub held_by_descriptor: Gauge,
    /// Links among log files that are not followed.
    pub unfollowed_links: Gauge,
    /// Bytes handed to the producer and not reported yet.
    pub in_flight_bytes: Gauge,
    /// Open log files.
    pub open_files: Gauge,
    /// Watched directories.
    pub watched_directories: Gauge,
    /// Folders that could not be watched or read when everything was last looked at.
    pub unwatched_directories: Gauge,
    /// Overflows of the event queue of directory watches; each is followed by a rescan.
    pub watch_overflows: Counter,
    /// Walks over the whole log directory.
    pub rescans: Counter,
    /// Writes of positions to disk.
    pub store_writes: Counter,
    /// Writes of positions that failed.
    pub store_errors: Counter,
    /// 1 while the disk has no room for positions but what was taken beforehand.
    pub store_tight: Gauge,
    /// Producers made anew after a fatal error.
    pub producer_renewals: Counter,
    /// What is asked of the API server.
    pub kubernetes: KubernetesMetrics,
}

/// The counters of one namespace, to be kept by whoever raises them often.
#[derive(Debug, Clone)]
pub struct NamespaceMetrics {
    lines_read: Counter,
    bytes_read: Counter,
    /// Records that Kafka acknowledged.
    pub records_acknowledged: Counter,
    lines_acknowledged: Counter,
    bytes_acknowledged: Counter,
    lines_in_hand: Gauge,
    bytes_in_hand: Gauge,
    /// Bytes in log files that are not read yet.
    pub bytes_waiting: Gauge,
    lines_throttled: Counter,
    bytes_throttled: Counter,
    lines_unparsable: Counter,
    bytes_unparsable: Counter,
    /// Lines that the grammar does not take.
    pub parse_errors: Counter,
    /// Byte sequences that were no UTF-8 and became U+FFFD.
    pub invalid_utf8: Counter,
}

/// The equation of the router's account: read = acknowledged + left out + lost + in hand, in lines and in bytes. Whatever moves a line from one
/// side to another goes through these.
impl NamespaceMetrics {
    /// Lines were read for the first time.
    pub fn take_in_hand(&self, read: Count) {
        self.lines_read.inc_by(read.lines);
        self.bytes_read.inc_by(read.bytes);
        self.lines_in_hand.inc_by(read.lines as i64);
        self.bytes_in_hand.inc_by(read.bytes as i64);
    }

    /// Positions moved over unparsable and over other lines, `left_out` of which got no record; Kafka has the records and the notices.
    pub fn delivered(&self, [unparsable, others]: [Count; 2], left_out: Count) {
        let records = others.less(left_out);
        self.lines_acknowledged.inc_by(records.lines);
        self.bytes_acknowledged.inc_by(records.bytes);
        self.lines_throttled.inc_by(left_out.lines);
        self.bytes_throttled.inc_by(left_out.bytes);
        self.lines_unparsable.inc_by(unparsable.lines);
        self.bytes_unparsable.inc_by(unparsable.bytes);
        self.take_from_hand(unparsable);
        self.take_from_hand(others);
    }

    /// Lines are in hand no more, and are counted elsewhere.
    pub fn take_from_hand(&self, count: Count) {
        self.lines_in_hand.dec_by(count.lines as i64);
        self.bytes_in_hand.dec_by(count.bytes as i64);
    }
}

impl Metrics {
    /// Makes the metrics and the registry that shows them.
    pub fn new() -> (Metrics, Registry) {
        let metrics = Metrics::default();
        let registry = metrics.registry();
        (metrics, registry)
    }

    /// A registry that shows these metrics.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        self.register(&mut registry);
        registry
    }

    /// The counters of a namespace; they exist from now on, at zero.
    pub fn namespace(&self, namespace: &Namespace) -> NamespaceMetrics {
        let label = OfNamespace { namespace: Label(namespace.clone()) };
        NamespaceMetrics {
            lines_read: self.lines_read.get_or_create_owned(&label),
            bytes_read: self.bytes_read.get_or_create_owned(&label),
            records_acknowledged: self.records_acknowledged.get_or_create_owned(&label),
            lines_acknowledged: self.lines_acknowledged.get_or_create_owned(&label),
            bytes_acknowledged: self.bytes_acknowledged.get_or_create_owned(&label),
            lines_in_hand: self.lines_in_hand.get_or_create_owned(&label),
            bytes_in_hand: self.bytes_in_hand.get_or_create_owned(&label),
            bytes_waiting: self.bytes_waiting.get_or_create_owned(&label),
            lines_throttled: self.lines_left_out.get_or_create_owned(&self.of_reason(namespace, "throttled")),
            bytes_throttled: self.bytes_left_out.get_or_create_owned(&self.of_reason(namespace, "throttled")),
            lines_unparsable: self.lines_lost.get_or_create_owned(&self.of_reason(namespace, "parse_errors")),
            bytes_unparsable: self.bytes_lost.get_or_create_owned(&self.of_reason(namespace, "parse_errors")),
            parse_errors: self.parse_errors.get_or_create_owned(&label),
            invalid_utf8: self.invalid_utf8.get_or_create_owned(&label),
        }
    }

    /// Epochs begun, by reason.
    pub fn epochs_started(&self, namespace: &Namespace, reason: &'static str) -> Counter {
        self.epochs_started.get_or_create_owned(&self.of_reason(namespace, reason))
    }

    /// Lines are lost, and Kafka has the notice that says so.
    pub fn lost(&self, namespace: &Namespace, reason: &'static str, lost: Count) {
        let label = self.of_reason(namespace, reason);
        self.lines_lost.get_or_create(&label).inc_by(lost.lines);
        self.bytes_lost.get_or_create(&label).inc_by(lost.bytes);
    }

    /// Records refused for good, by whether the topic of dead letters took them.
    pub fn dead_letters(&self, namespace: &Namespace, reason: &'static str) -> Counter {
        self.dead_letters.get_or_create_owned(&self.of_reason(namespace, reason))
    }

    /// Gaps announced, by reason.
    pub fn gaps_announced(&self, namespace: &Namespace, reason: &'static str) -> Counter {
        self.gaps_announced.get_or_create_owned(&self.of_reason(namespace, reason))
    }

    /// Records that were not delivered at the first attempt, by reason.
    pub fn delivery_failures(&self, namespace: &Namespace, reason: &'static str) -> Counter {
        self.delivery_failures.get_or_create_owned(&self.of_reason(namespace, reason))
    }

    /// Container instances whose reading began, by how much was known of their pod then.
    pub fn first_read(&self, metadata: Metadata) -> Counter {
        let metadata = match metadata {
            Metadata::Complete => "complete",
            Metadata::Partial => "partial",
            Metadata::Path => "path",
        };
        self.first_reads.get_or_create_owned(&OfMetadata { metadata })
    }

    /// Records of streams whose pod asks for JSON objects to be parsed, by what was found.
    pub fn json_records(&self, namespace: &Namespace, reason: &'static str) -> Counter {
        self.json_records.get_or_create_owned(&self.of_reason(namespace, reason))
    }

    /// Container instances whose readers were told that annotations of their pod are not understood.
    pub fn annotations_refused(&self, namespace: &Namespace) -> Counter {
        self.annotations_refused.get_or_create_owned(&OfNamespace { namespace: Label(namespace.clone()) })
    }

    /// Says that a namespace is parked for a reason, or no longer.
    pub fn parked(&self, namespace: &Namespace, reason: &'static str, parked: bool) {
        let label = OfReason::new(namespace, reason);
        if parked {
            self.parked_namespaces.get_or_create(&label).set(1);
        } else {
            self.parked_namespaces.remove(&label);
        }
    }

    /// Drops every series of a namespace that is gone.
    pub fn forget(&self, namespace: &Namespace) {
        let label = OfNamespace { namespace: Label(namespace.clone()) };
        for family in [
            &self.lines_read,
            &self.bytes_read,
            &self.records_acknowledged,
            &self.lines_acknowledged,
            &self.bytes_acknowledged,
            &self.parse_errors,
            &self.invalid_utf8,
            &self.annotations_refused,
        ] {
            family.remove(&label);
        }
        for family in [&self.lines_in_hand, &self.bytes_in_hand, &self.bytes_waiting] {
            family.remove(&label);
        }
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace);
        for reason in reasons.into_iter().flatten() {
            let label = OfReason::new(namespace, reason);
            self.epochs_started.remove(&label);
            for family in [
                &self.lines_left_out,
                &self.bytes_left_out,
                &self.lines_lost,
                &self.bytes_lost,
                &self.gaps_announced,
                &self.dead_letters,
                &self.json_records,
            ] {
                family.remove(&label);
            }
            self.delivery_failures.remove(&label);
        }
    }

    fn of_reason(&self, namespace: &Namespace, reason: &'static str) -> OfReason {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.entry(namespace.clone()).or_default().insert(reason);
        OfReason::new(namespace, reason)
    }

    fn register(&self, registry: &mut Registry) {
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let mut add = Adder(registry);
        add.metric("lines_read", "Physical lines read", &self.lines_read);
        add.metric("bytes_read", "Bytes read", &self.bytes_read);
        add.metric("records_acknowledged", "Records that Kafka acknowledged", &self.records_acknowledged);
        add.metric("lines_acknowledged", "Physical lines that acknowledged records cover", &self.lines_acknowledged);
        add.metric("bytes_acknowledged", "Bytes of those lines in their files", &self.bytes_acknowledged);
        add.metric("lines_left_out", "Physical lines that policy left out, announced", &self.lines_left_out);
        add.metric("bytes_left_out", "Bytes of those lines in their files", &self.bytes_left_out);
        add.metric("lines_lost", "Physical lines that are lost, announced", &self.lines_lost);
        add.metric("bytes_lost", "Bytes of those lines in their files", &self.bytes_lost);
        add.metric("lines_in_hand", "Physical lines read and not yet accounted for", &self.lines_in_hand);
        add.metric("bytes_in_hand", "Bytes of those lines in their files", &self.bytes_in_hand);
        add.metric("bytes_waiting", "Bytes in log files that are not read yet", &self.bytes_waiting);
        add.metric("dead_letters", "Records that their topic refused for good", &self.dead_letters);
        add.metric("gaps_announced", "Notices of lines that are lost or may be missing", &self.gaps_announced);
        add.metric("parse_errors", "Lines that the grammar does not take", &self.parse_errors);
        add.metric("invalid_utf8", "Byte sequences that became U+FFFD", &self.invalid_utf8);
        add.metric("epochs_started", "Epochs begun", &self.epochs_started);
        add.metric("delivery_failures", "Records not delivered at the first attempt", &self.delivery_failures);
        add.metric("parked_namespaces", "1 for each namespace that waits for its topic", &self.parked_namespaces);
        add.metric("json_records", "Records looked at for a JSON object", &self.json_records);
        add.metric("annotations_refused", "Instances of pods with faulty annotations", &self.annotations_refused);
        add.metric("first_reads", "Container instances whose reading began", &self.first_reads);
        add.metric("waiting_for_metadata", "Instances whose first read waits", &self.waiting_for_metadata);
        add.metric("pods_elsewhere", "Pods that belong to another namespace than their path", &self.pods_elsewhere);
        add.metric("metadata_left_out", "Heads without metadata for want of room", &self.metadata_left_out);
        add.metric("held_files", "Held files", &self.held_files);
        add.metric("held_bytes", "Bytes of held files that only the router keeps", &self.held_bytes);
        add.metric("held_bytes_max", "The bound on them", &self.held_bytes_max);
        add.metric("held_by_descriptor", "Files held by descriptors", &self.held_by_descriptor);
        add.metric("unfollowed_links", "Links among log files that are not followed", &self.unfollowed_links);
        add.metric("in_flight_bytes", "Bytes handed to the producer and not reported yet", &self.in_flight_bytes);
        add.metric("open_files", "Open log files", &self.open_files);
        add.metric("watched_directories", "Watched directories", &self.watched_directories);
        add.metric("unwatched_directories", "Directories that cannot be watched", &self.unwatched_directories);
        add.metric("watch_overflows", "Overflows of the queue of file events", &self.watch_overflows);
        add.metric("rescans", "Walks over the whole log directory", &self.rescans);
        add.metric("store_writes", "Writes of positions to disk", &self.store_writes);
        add.metric("store_errors", "Writes of positions that failed", &self.store_errors);
        add.metric("store_tight", "1 while positions are stored in room taken beforehand", &self.store_tight);
        add.metric("producer_renewals", "Producers made anew after a fatal error", &self.producer_renewals);
        self.kubernetes.register(registry);
    }
}

/// Registers clones, one a line.
struct Adder<'a>(&'a mut Registry);

impl Adder<'_> {
    fn metric<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.0.register(name, help, metric.clone());
    }
}

/// A namespace as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Label(Namespace);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNamespace {
    namespace: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMetadata {
    metadata: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    namespace: Label,
    reason: &'static str,
}

impl OfReason {
    fn new(namespace: &Namespace, reason: &'static str) -> OfReason {
        OfReason { namespace: Label(namespace.clone()), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::enrich::Standing;

    /// `name{labels} type` of every metric, as a scrape shows them.
    fn shown() -> BTreeSet<String> {
        let (metrics, registry) = Metrics::new();
        let namespace = Namespace::parse("payments").unwrap();
        metrics.namespace(&namespace);
        metrics.epochs_started(&namespace, "r");
        metrics.lost(&namespace, "r", Count::default());
        metrics.gaps_announced(&namespace, "r");
        metrics.dead_letters(&namespace, "r");
        metrics.delivery_failures(&namespace, "r");
        metrics.parked(&namespace, "r", true);
        metrics.first_read(Metadata::Complete);
        metrics.kubernetes.requested("v", "r", "r");
        metrics.kubernetes.error("r");
        metrics.kubernetes.stand(Standing::Known);
        metrics.kubernetes.pods(0, 0);
        metrics.json_records(&namespace, "r");
        metrics.annotations_refused(&namespace);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let kind_of = |sample: &str| {
            let name = sample.strip_suffix("_total").or_else(|| sample.strip_suffix("_info")).unwrap_or(sample);
            let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            let mut found = types.filter_map(|line| line.split_once(' ')).filter(|(typed, _)| *typed == name);
            found.next().unwrap_or_else(|| panic!("{sample} has no type")).1.to_owned()
        };
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (sample, _) = line.rsplit_once(' ').unwrap();
                let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
                let labels: Vec<&str> =
                    labels.trim_end_matches('}').split(',').filter_map(|l| l.split_once('=')).map(|l| l.0).collect();
                format!("{name} {} {}", kind_of(name), labels.join(", "))
            })
            .collect()
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let page = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<String> = page
            .lines()
            .filter(|line| line.starts_with("| `fairlead_router_"))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                format!("{} {} {}", cells[1].trim_matches('`'), cells[2], cells[3].replace('`', ""))
            })
            .collect();
        assert_eq!(shown(), documented);
    }

    #[test]
    fn a_namespace_that_is_gone_leaves_no_series() {
        let (metrics, registry) = Metrics::new();
        let [gone, stays] = ["gone", "stays"].map(|name| Namespace::parse(name).unwrap());
        for namespace in [&gone, &stays] {
            metrics.namespace(namespace).lines_read.inc();
            metrics.epochs_started(namespace, "first_seen").inc();
            metrics.delivery_failures(namespace, "retry").inc();
        }
        metrics.forget(&gone);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(!text.contains(r#""gone""#) && text.contains(r#"namespace="stays""#), "{text}");
    }

    #[test]
    fn a_namespace_that_is_no_longer_parked_is_not_shown() {
        let (metrics, registry) = Metrics::new();
        let namespace = Namespace::parse("payments").unwrap();
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        metrics.parked(&namespace, "topic_missing", true);
        let line = r#"fairlead_router_parked_namespaces{namespace="payments",reason="topic_missing"} 1"#;
        assert!(text().contains(line));
        metrics.parked(&namespace, "topic_missing", false);
        assert!(!text().contains(line));
    }
}
