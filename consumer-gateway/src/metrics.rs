//! What the gateway counts. Names and labels are listed in `docs/metrics.md`.

use std::sync::atomic::AtomicU64;

use fairlead_contract::namespace::Namespace;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::read::{event::EndReason, shape::Counts};

/// Upper bounds in seconds.
const DURATION_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A namespace. Only namespaces that a caller was allowed to read get a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NamespaceLabel {
    namespace: String,
}

/// A route and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    route: &'static str,
    status: u16,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    route: &'static str,
}

/// What kind of stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    kind: &'static str,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    result: &'static str,
}

/// Counts something open for as long as it lives, however it ends.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    /// Counts one more.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All metrics of the gateway.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_duration: Family<RouteLabel, Histogram>,
    tokens_refused: Family<ReasonLabel, Counter>,
    key_files: Family<ResultLabel, Counter>,
    streams: Family<KindLabel, Gauge>,
    streams_ended: Family<ReasonLabel, Counter>,
    lines: Family<NamespaceLabel, Counter>,
    bytes: Family<NamespaceLabel, Counter>,
    records: Family<NamespaceLabel, Counter>,
    repeats: Family<NamespaceLabel, Counter>,
    unreadable: Family<NamespaceLabel, Counter>,
    isolation_violations: Family<NamespaceLabel, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// History readers at work.
    pub readers: Gauge,
    /// Topics that a shared fetcher reads.
    pub fetchers: Gauge,
    /// Followers that were too slow for their queue and read what they missed by themselves.
    pub followers_behind: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            tokens_refused: Family::default(),
            key_files: Family::default(),
            streams: Family::default(),
            streams_ended: Family::default(),
            lines: Family::default(),
            bytes: Family::default(),
            records: Family::default(),
            repeats: Family::default(),
            unreadable: Family::default(),
            isolation_violations: Family::default(),
            connections: Gauge::default(),
            readers: Gauge::default(),
            fetchers: Gauge::default(),
            followers_behind: Counter::<u64, AtomicU64>::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("fairlead_gateway");
        registry.register("build", "The version that runs", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_duration_seconds",
            "From the request's head to the response's head",
            self.request_duration.clone(),
        );
        registry.register("tokens_refused", "Tokens that were not believed", self.tokens_refused.clone());
        registry.register(
            "key_files_read",
            "Key files that were read, and whether they could be used",
            self.key_files.clone(),
        );
        registry.register("streams_open", "Open responses with lines", self.streams.clone());
        registry.register(
            "streams_ended",
            "Responses with lines that ended with an end event",
            self.streams_ended.clone(),
        );
        registry.register("lines_sent", "Lines sent", self.lines.clone());
        registry.register("bytes_sent", "Bytes of responses with lines", self.bytes.clone());
        registry.register("records_read", "Records looked at for a stream", self.records.clone());
        registry.register("repeats_withheld", "Records that cover only lines sent before", self.repeats.clone());
        registry.register(
            "records_unreadable",
            "Values in a namespace's topic that are no records",
            self.unreadable.clone(),
        );
        registry.register(
            "isolation_violations",
            "Records of another namespace in a namespace's own topic; withheld",
            self.isolation_violations.clone(),
        );
        registry.register("connections_open", "Open connections", self.connections.clone());
        registry.register("readers_open", "History readers at work", self.readers.clone());
        registry.register("topics_fetched", "Topics that a shared fetcher reads", self.fetchers.clone());
        registry.register(
            "followers_behind",
            "Followers that were too slow for their queue",
            self.followers_behind.clone(),
        );
    }

    /// Counts an answered request.
    pub fn answered(&self, route: &'static str, status: u16, seconds: f64) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.request_duration.get_or_create(&RouteLabel { route }).observe(seconds);
    }

    /// Counts a token that was not believed, for a reason of the closed set in `docs/metrics.md`.
    pub fn refuse_token(&self, reason: &'static str) {
        self.tokens_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a key file that was read.
    pub fn key_file(&self, usable: bool) {
        self.key_files.get_or_create(&ResultLabel { result: if usable { "used" } else { "refused" } }).inc();
    }

    /// The gauge of open streams of a kind, `follow` or `range`.
    pub fn streams(&self, kind: &'static str) -> Gauge {
        self.streams.get_or_create_owned(&KindLabel { kind })
    }

    /// Counts a stream that ended.
    pub fn ended(&self, reason: EndReason) {
        self.streams_ended.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// The counter of bytes sent of a namespace.
    pub fn bytes(&self, namespace: &Namespace) -> Counter {
        self.bytes.get_or_create_owned(&NamespaceLabel { namespace: namespace.to_string() })
    }

    /// Adds what a stream counted between two moments.
    pub fn shown(&self, namespace: &str, before: &Counts, now: &Counts) {
        let label = NamespaceLabel { namespace: namespace.to_owned() };
        let add = |family: &Family<NamespaceLabel, Counter>, before: u64, now: u64| {
            if now > before {
                family.get_or_create(&label).inc_by(now - before);
            }
        };
        add(&self.lines, before.lines, now.lines);
        add(&self.records, before.scanned, now.scanned);
        add(&self.repeats, before.withheld.repeats, now.withheld.repeats);
        add(&self.unreadable, before.withheld.unreadable, now.withheld.unreadable);
        add(&self.isolation_violations, before.withheld.foreign, now.withheld.foreign);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::read::event::Withheld;

    /// Name, type and labels of everything that is shown once each metric was used.
    fn shown() -> BTreeSet<String> {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let withheld = Withheld { repeats: 1, unreadable: 2, foreign: 3 };
        let payments = Namespace::parse("payments").unwrap();
        metrics.shown("payments", &Counts::default(), &Counts { lines: 5, scanned: 11, withheld });
        metrics.bytes(&payments).inc();
        metrics.answered("/v1/me", 200, 0.004);
        metrics.streams("follow").inc();
        metrics.ended(EndReason::Limit);
        metrics.refuse_token("expired");
        metrics.key_file(true);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let types: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let sample = |line: &str| {
            let (sample, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let name = name
                .strip_suffix("_bucket")
                .or(name.strip_suffix("_sum"))
                .or(name.strip_suffix("_count"))
                .unwrap_or(name);
            let base = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
            let labels: Vec<&str> = labels
                .split(',')
                .filter_map(|label| label.split_once('='))
                .map(|label| label.0)
                .filter(|label| *label != "le")
                .collect();
            format!("{name} {} {}", types[base], labels.join(", "))
        };
        text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let page = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<String> = page
            .lines()
            .filter(|line| line.starts_with("| `fairlead_gateway_"))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                format!("{} {} {}", cells[1].trim_matches('`'), cells[2], cells[3].replace('`', ""))
            })
            .collect();
        assert_eq!(shown(), documented);
    }
}
