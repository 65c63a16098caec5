//! How much lies in log files and is not read yet: what comes late when Kafka or the node is too slow.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Instance, Worker};

/// How often it is measured; each time costs a look at every held file of the instances that have something to read.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

impl Worker {
    /// Measures, if it is time to.
    pub(super) fn measure_waiting_if_due(&mut self, now: Instant) {
        if now.duration_since(self.waiting_measured_at) >= MEASURE_EVERY {
            self.waiting_measured_at = now;
            self.measure_waiting();
        }
    }

    /// Tells metrics how many bytes of each namespace wait to be read. An instance that nothing is awaited of costs no look at a file.
    pub(super) fn measure_waiting(&self) {
        let mut by_namespace = BTreeMap::new();
        for (key, instance) in &self.instances {
            let waits = instance.queued || self.again.contains_key(key);
            let bytes = if waits { self.unread_bytes(instance) } else { 0 };
            by_namespace.entry(&instance.identity.namespace).or_insert((&instance.counters, 0)).1 += bytes;
        }
        for (counters, bytes) in by_namespace.into_values() {
            counters.bytes_waiting.set(bytes.cast_signed());
        }
        for namespace in self.gone.keys() {
            self.parts.metrics.namespace(namespace).bytes_waiting.set(0);
        }
    }

    fn unread_bytes(&self, instance: &Instance) -> u64 {
        let bytes_of = |link| self.held.stat(&instance.key, link).map_or(0, |stat| stat.bytes);
        let unplaced: u64 = instance.unplaced.iter().map(|link| bytes_of(*link)).sum();
        unplaced + instance.epochs.iter().map(|epoch| epoch.unread_bytes(bytes_of)).sum::<u64>()
    }
}
