//! What is counted of the API server.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Standing;

/// Metrics of what is asked of the API server. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct KubernetesMetrics {
    requests: Family<OfRequest, Counter>,
    /// Bytes of its answers.
    pub received_bytes: Counter,
    errors: Family<OfReason, Counter>,
    standing: Family<OfStanding, Gauge>,
    pods: Family<OfState, Gauge>,
    /// Namespaces whose UID is known.
    pub namespaces: Gauge,
    /// Pods of whose labels, annotations or containers something was left out.
    pub pods_cut: Counter,
    /// Pods that are there and were dropped, as there were too many.
    pub pods_forgotten: Counter,
}

impl KubernetesMetrics {
    /// A request was answered, or was not.
    pub fn requested(&self, verb: &'static str, resource: &'static str, result: &'static str) {
        self.requests.get_or_create(&OfRequest { verb, resource, result }).inc();
    }

    /// Something went wrong.
    pub fn error(&self, reason: &'static str) {
        self.errors.get_or_create(&OfReason { reason }).inc();
    }

    /// How it stands now.
    pub fn stand(&self, standing: Standing) {
        for (state, name) in [(Standing::Starting, "starting"), (Standing::Known, "known"), (Standing::Away, "away")] {
            self.standing.get_or_create(&OfStanding { standing: name }).set(i64::from(state == standing));
        }
    }

    /// How many pods are known.
    pub fn pods(&self, live: usize, gone: usize) {
        for (state, count) in [("live", live), ("gone", gone)] {
            self.pods.get_or_create(&OfState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("kubernetes");
        registry.register("requests", "Requests to the API server", self.requests.clone());
        registry.register("received_bytes", "Bytes of its answers", self.received_bytes.clone());
        registry.register("errors", "What went wrong with it", self.errors.clone());
        registry.register("standing", "1 for how the watch of pods stands", self.standing.clone());
        registry.register("pods", "Pods of this node that are known", self.pods.clone());
        registry.register("namespaces", "Namespaces whose UID is known", self.namespaces.clone());
        registry.register("pods_cut", "Pods of which something was left out", self.pods_cut.clone());
        registry.register("pods_forgotten", "Pods dropped because there were too many", self.pods_forgotten.clone());
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    verb: &'static str,
    resource: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStanding {
    standing: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}
