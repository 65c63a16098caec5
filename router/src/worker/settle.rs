//! Acknowledgements move positions; failures take epochs back; what is durably done with is let go.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use fairlead_contract::{namespace::Namespace, record::LossReason, topic::TopicName};
use fairlead_service_kit::telemetry::field;
use tracing::{debug, error, info, warn};

use super::{Hold, IDLE_WAIT, Instance, Worker, place::Reason, recover::late_epoch};
use crate::{
    checkpoint::InstanceKey,
    hold::{Writers, writers},
    pipeline::ends,
    produce::{Failure, FailureKind, Lane, Refusal, Slot},
    tail::{Count, Positions, is_gzip},
};

/// How long a namespace without instances is remembered: its last figures are seen by then.
const KEEP_GONE: Duration = Duration::from_secs(600);

/// What lies between two positions: lines that could not be parsed, and others.
fn moved(from: &Positions, to: &Positions) -> [Count; 2] {
    let (before, after) = (from.counts(), to.counts());
    let mut moved = [after[0].less(before[0]), after[1].less(before[1])];
    moved[1] += after[2].less(before[2]);
    moved
}

impl Worker {
    /// Takes in what became of records.
    pub(super) fn settle(&mut self) {
        self.take_failures();
        if let Some((lane, reason)) = self.parts.sink.fatal() {
            self.renew(lane, &reason);
        }
        let free = self.free.len();
        let flying: Vec<_> = self.flying.iter().cloned().collect();
        for key in flying {
            self.settle_instance(&key);
        }
        if self.free.len() > free {
            self.fair.release(|hold| hold == Hold::Deliveries);
        }
    }

    fn settle_instance(&mut self, key: &InstanceKey) {
        let freed = self.free.len();
        // Asked before: what waits for the last of the notices that must be alone is to go on when that has arrived.
        let waited = self.instances.get(key).is_some_and(Instance::is_careful);
        let mut bytes = self.settle_owed(key) + self.settle_guilty(key);
        let Some(instance) = self.instances.get_mut(key) else {
            self.flying.remove(key);
            return;
        };
        let (mut changed, mut rewound, mut finished) = (false, false, false);
        let (mut delivered, mut unsaid) = (Vec::new(), Vec::new());
        // Left out among lines that a release has passed over since.
        let mut left_out_before = Count::default();
        let mut ended = Vec::new();
        for epoch in &mut instance.epochs {
            let settled = epoch.ledger.settle(&self.parts.pending, &mut self.free);
            if let Some(at) = settled.at {
                changed = true;
                bytes += settled.bytes;
                instance.counters.records_acknowledged.inc_by(settled.records);
                let after = epoch.acknowledged.max(&at);
                let moved = moved(&epoch.acknowledged, &after);
                let left_out = settled.left_out.min(moved[1]);
                left_out_before += settled.left_out.less(left_out);
                instance.counters.delivered(moved, left_out);
                epoch.acknowledged = after;
                if !instance.owed.is_empty() {
                    delivered.push((epoch.id.clone(), at));
                }
            }
            if epoch.ledger.has_failed()
                && let Some(forgotten) = epoch.ledger.forget(&self.parts.pending, &mut self.free)
            {
                bytes += forgotten;
                let was_abandoned = epoch.abandoned;
                epoch.rewind();
                rewound = true;
                if std::mem::take(&mut epoch.end_refused) && !was_abandoned {
                    // What is said at its end is sent apart, for as long as it takes.
                    epoch.read_out = true;
                    let at = epoch.acknowledged;
                    let notices = ends(epoch.pipeline.origin(), &at.counts(), epoch.broken.as_ref());
                    unsaid.push((epoch.id.clone(), epoch.partition, notices, at));
                }
                if was_abandoned {
                    warn!(source = %key, epoch = epoch.id, "records of a truncated file were not delivered and cannot be read again: they are lost");
                }
                if was_abandoned && epoch.read_out {
                    ended.push(epoch.state(None));
                }
            }
            if epoch.read_out && epoch.ledger.is_empty() && !epoch.finished {
                epoch.finished = true;
                finished = true;
                // What was read of a file that was cut short since, and cannot be read again.
                let given_up = epoch.pipeline.in_hand(&epoch.acknowledged);
                if !given_up.is_none() {
                    let reason = epoch.broken.as_ref().map_or(LossReason::Truncated, |end| end.reason);
                    self.parts.metrics.lost(&instance.identity.namespace, reason.as_str(), given_up);
                    instance.counters.take_from_hand(given_up);
                    epoch.pipeline.give_up(&epoch.acknowledged);
                }
            }
        }
        for (epoch, at) in &delivered {
            let count = instance.narrow_owed(epoch, at);
            let left_out = left_out_before.min(count);
            left_out_before = left_out_before.less(left_out);
            instance.counters.delivered([Count::default(), count], left_out);
        }
        let waits = waited || instance.owes_unsent() || instance.is_careful();
        let settled_any = self.free.len() > freed;
        if !instance.is_flying() {
            self.flying.remove(key);
        }
        let now = Instant::now();
        for slot in &self.free[freed..] {
            self.slots.remove(slot);
            self.lanes.settled(&instance.topic, *slot, !rewound, now);
        }
        self.fair.settled(&instance.identity.namespace, bytes, self.free.len() - freed);
        if changed || finished {
            self.dirty.insert(key.clone());
        }
        if rewound {
            debug!(source = %key, "went back to what is acknowledged");
        }
        if rewound || finished || (waits && (changed || settled_any)) {
            self.queue(key);
        }
        for (epoch, partition, notices, at) in unsaid {
            self.owe(key, &epoch, partition, notices, &at);
        }
        self.note_careful(key);
        for state in ended {
            let end = state.broken.clone();
            self.owe_end(
                key,
                &state,
                end.as_ref().map(|end| end.reason),
                end.as_ref().and_then(|end| end.next.as_deref()),
            );
        }
    }

    fn take_failures(&mut self) {
        let mut failures = Vec::new();
        self.parts.sink.failures(&mut failures);
        for failure in failures {
            self.delivery_failed(&failure);
        }
    }

    fn delivery_failed(&mut self, failure: &Failure) {
        let Some(key) = self.slots.get(&failure.slot).cloned() else { return };
        let Some(instance) = self.instances.get_mut(&key) else { return };
        if instance.guilty.as_ref().is_some_and(|guilty| guilty.is_in(failure.slot)) {
            return; // what becomes of it is seen when it is settled
        }
        let refused = matches!(failure.kind, FailureKind::Refused(Refusal::InvalidRecord));
        let is_record = instance.fail(failure.slot, refused);
        let (namespace, topic) = (instance.identity.namespace.clone(), instance.topic.clone());
        self.parts.metrics.delivery_failures(&namespace, failure.kind.as_str()).inc_by(u64::from(failure.records));
        match failure.kind {
            FailureKind::Refused(Refusal::TooLarge) => self.too_large(&topic, Some(failure.slot)),
            FailureKind::Refused(Refusal::InvalidRecord) if is_record => self.lanes.demote(&topic, Instant::now()),
            FailureKind::Refused(refusal) => self.park(&namespace, &topic, refusal, &failure.error),
            FailureKind::Retry => self.park(&namespace, &topic, Refusal::Unavailable, &failure.error),
            FailureKind::Fatal => {}
        }
    }

    /// Kafka takes no batch of this size: how much it takes is looked up, and what goes back is sent in smaller ones, long lines in chunks.
    pub(super) fn too_large(&mut self, topic: &TopicName, slot: Option<Slot>) {
        self.lanes.too_large(topic, slot, Instant::now(), self.parts.sink.as_ref());
        self.parts.destinations.forget(topic);
        let takes = self.lanes.batch_bytes_max(topic);
        self.complain(&topic.to_string(), |left_out| {
            warn!({ field::DESTINATION } = %topic, takes, left_out, "Kafka refuses a batch as too large; it is sent again in smaller ones");
        });
    }

    /// Stops reading for a topic for a while.
    pub(super) fn park(&mut self, namespace: &Namespace, topic: &TopicName, refusal: Refusal, error: &str) {
        if let Some(wait) = self.parking.park(namespace, topic, refusal, error) {
            self.parts.destinations.forget(topic);
            self.lanes.demote(topic, Instant::now());
            warn!(
                { field::K8S_NAMESPACE_NAME } = %namespace,
                { field::DESTINATION } = %topic,
                { field::REASON } = refusal.as_str(),
                { field::ERROR } = error,
                retry_seconds = wait.as_secs(),
                "namespace is parked: Kafka refuses its records; its files stay held"
            );
            self.report();
        }
    }

    /// Tells metrics and readiness which namespaces wait for their topics.
    pub(super) fn report(&mut self) {
        let namespaces = self.instances.values().map(|instance| (&instance.identity.namespace, &instance.topic));
        let (lanes, now) = (&self.lanes, Instant::now());
        let slow_for = |topic: &TopicName| lanes.slow_for(topic, now);
        let waiting = self.parking.waiting(namespaces, self.parts.destinations.as_ref(), slow_for);
        let parked: BTreeSet<_> = waiting.iter().map(|(namespace, refusal, _)| (namespace.clone(), *refusal)).collect();
        for (namespace, refusal) in self.parked.difference(&parked) {
            self.parts.metrics.parked(namespace, refusal.as_str(), false);
            info!({ field::K8S_NAMESPACE_NAME } = %namespace, "namespace is no longer parked");
        }
        for (namespace, refusal) in parked.difference(&self.parked) {
            self.parts.metrics.parked(namespace, refusal.as_str(), true);
        }
        self.parked = parked;
        let trouble = self.parts.sink.trouble();
        match (self.parts.broker_down)(trouble) {
            Some(reason) => self.parts.readiness.block("kafka", reason),
            None => self.parts.readiness.clear("kafka"),
        }
        if waiting.is_empty() {
            self.parts.readiness.clear("topics");
        } else {
            let texts: Vec<_> = waiting.iter().map(|(namespace, _, why)| format!("{namespace}: {why}")).collect();
            self.parts.readiness.note("topics", format!("{} parked: {}", waiting.len(), texts.join("; ")));
        }
        self.forget_gone(now);
        let open = self.epochs().filter(|epoch| epoch.is_open()).count();
        self.parts.metrics.open_files.set(open as i64);
        let links = self.instances.values().map(|instance| instance.links.len()).sum::<usize>();
        self.parts.metrics.held_files.set(links as i64);
        self.report_descriptors();
        self.report_pods();
        self.report_unfollowed();
    }

    /// Forgets namespaces that have had no instance for a while, so that those that come and go leave nothing behind.
    fn forget_gone(&mut self, now: Instant) {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= KEEP_GONE;
        let over: Vec<_> = self.gone.iter().filter(|(_, (_, at))| is_over(*at)).map(|(name, _)| name.clone()).collect();
        for namespace in over {
            let is_back = self.instances.values().any(|instance| instance.identity.namespace == namespace);
            if !is_back && !self.fair.forget(&namespace) {
                continue; // a late report is awaited
            }
            let Some((topic, _)) = self.gone.remove(&namespace) else { continue };
            if is_back {
                continue;
            }
            self.parts.metrics.forget(&namespace);
            if !self.instances.values().any(|instance| instance.topic == topic) && self.lanes.forget(&topic) {
                self.parking.forget(&topic);
                self.parts.destinations.release(&topic);
                if let Some(dead) = self.settings.topics.dead_letter(&topic).filter(|dead| self.lanes.forget(dead)) {
                    self.parts.destinations.release(&dead);
                }
            }
        }
    }

    fn renew(&mut self, lane: Lane, reason: &str) {
        error!(
            { field::ERROR } = reason,
            "the Kafka producer is dead; making a new one and going back to what is acknowledged"
        );
        self.parts.metrics.producer_renewals.inc();
        match self.parts.sink.renew(lane) {
            Ok(()) => {
                self.parts.readiness.clear("producer");
                let mut failures = Vec::new();
                self.parts.sink.failures(&mut failures);
                for failure in failures {
                    if let Some(instance) = self.slots.get(&failure.slot).and_then(|key| self.instances.get_mut(key)) {
                        instance.epochs.iter_mut().any(|epoch| epoch.ledger.fail(failure.slot));
                    }
                }
            }
            Err(error) => {
                self.parts.readiness.block("producer", error.to_string());
                self.complain("producer", |left_out| error!({ field::ERROR } = %error, left_out, "cannot make a new Kafka producer; trying again"));
            }
        }
    }

    /// Lets go of the files of an instance that are durably done with and have no name but ours, and of the instance when nothing is left.
    pub(super) fn let_go(&mut self, key: &InstanceKey) {
        let Some(instance) = self.instances.get(key) else { return };
        let done: Vec<_> = instance.links.keys().copied().filter(|link| instance.is_done_with(*link)).collect();
        for link in done {
            match self.held.stat(key, link) {
                Ok(stat) => {
                    if self.is_late(key, link, stat.bytes) {
                        continue;
                    }
                    if stat.names == 1 && self.is_written(key, link) {
                        self.later(key, IDLE_WAIT);
                    } else if stat.names == 1 {
                        self.let_go_of(key, link);
                        self.forget(key, link);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget(key, link),
                Err(error) => self.complain("release", |left_out| warn!(source = %key, link, { field::ERROR } = %error, left_out, "cannot look at held file")),
            }
        }
        if self.instances.get(key).is_some_and(Instance::is_over) {
            if let Some(gone) = self.instances.remove(key) {
                self.unwatch_docker(key, gone.docker.as_ref());
                self.lanes.set_careful(&gone.topic, key, false);
                self.gone.insert(gone.identity.namespace, (gone.topic, Instant::now()));
                self.forget_pod_of(key);
            }
            self.held.tidy(key);
            self.dirty.insert(key.clone());
        }
    }

    fn forget(&mut self, key: &InstanceKey, link: u32) {
        if let Some(instance) = self.instances.get_mut(key) {
            instance.forget(link);
            self.dirty.insert(key.clone());
        }
    }

    pub(super) fn let_go_of(&mut self, key: &InstanceKey, link: u32) {
        if let Err(error) = self.held.release(key, link) {
            self.complain("release", |left_out| warn!(source = %key, link, { field::ERROR } = %error, left_out, "cannot let go of held file"));
        }
    }

    /// Whether somebody still has a file open for writing, under no name.
    fn is_written(&self, key: &InstanceKey, link: u32) -> bool {
        self.held.file(key, link).is_ok_and(|file| writers(&file) == Writers::Some)
    }

    /// Bytes that came to a file after it was complete become a source of their own.
    fn is_late(&mut self, key: &InstanceKey, link: u32, bytes: u64) -> bool {
        let Some(instance) = self.instances.get(key) else { return false };
        let Some(covered) = instance.covered(link) else { return false };
        if bytes <= covered || self.held.file(key, link).and_then(|file| is_gzip(&file)).unwrap_or(false) {
            return false;
        }
        let Some(instance) = self.instances.get(key) else { return false };
        let state = late_epoch(instance.topic.as_str(), instance.grammar_of(link), link, covered);
        self.begin(key, &state, Reason::LateBytes);
        true
    }
}
