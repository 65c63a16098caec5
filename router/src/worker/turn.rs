//! Reading: instances in turn, each a bounded read.

use std::{io::ErrorKind, time::Instant};

use fairlead_service_kit::telemetry::field;
use tracing::{error, warn};

use super::{ENDING_WAIT, IDLE_WAIT, TURNS_PER_ROUND_MAX, Worker, place::Reason};
use crate::{
    checkpoint::InstanceKey,
    pipeline::{Made, NotSent},
    produce::Slot,
    tail::{Epoch, ReadContext, Step, TailError, Turn},
};

/// What becomes of an instance after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// Nothing to read until something is told.
    Sleep,
    /// Look again after a while.
    Later,
    /// Look again soon: the end of a file is awaited.
    Soon,
    /// There may be more.
    Again,
}

impl Worker {
    /// Gives instances that may have something to read a turn each. Returns whether there is more to do at once.
    pub(super) fn read_ready(&mut self) -> bool {
        let mut reads = 0;
        for _ in 0..self.ready.len() {
            if self.in_flight_bytes >= self.settings.in_flight_bytes_max || self.free.len() < TURNS_PER_ROUND_MAX {
                // Deliveries make room, and wake the wait.
                return false;
            }
            if reads == TURNS_PER_ROUND_MAX {
                break;
            }
            let Some(key) = self.ready.pop_front() else { break };
            if let Some(instance) = self.instances.get_mut(&key) {
                instance.queued = false;
            }
            match self.turn(&key) {
                Next::Sleep => {}
                Next::Later => self.later(&key, IDLE_WAIT),
                Next::Soon => self.later(&key, ENDING_WAIT),
                Next::Again => {
                    reads += 1;
                    self.queue(&key);
                }
            }
        }
        !self.ready.is_empty()
    }

    fn turn(&mut self, key: &InstanceKey) -> Next {
        let Some(instance) = self.instances.get(key) else { return Next::Sleep };
        let mut next = Next::Sleep;
        for place in instance.readable() {
            next = next.max(self.turn_of_epoch(key, place));
        }
        next
    }

    fn turn_of_epoch(&mut self, key: &InstanceKey, place: usize) -> Next {
        match self.may_read(key, place) {
            Ok(()) => {}
            Err(next) => return next,
        }
        let Some((turn, slot)) = self.with_epoch(key, place, Epoch::step) else { return Next::Sleep };
        self.account(key, place, slot, &turn.made, turn.slot_used);
        if self.awaits_store(key, place) {
            self.urgent = true;
            self.dirty.insert(key.clone());
        }
        match turn.result {
            Ok(Step::Read) => Next::Again,
            Ok(Step::Idle) => {
                self.close(key, place);
                Next::Sleep
            }
            Ok(Step::Ending) => Next::Soon,
            Ok(Step::Advanced | Step::ReadOut) => {
                self.dirty.insert(key.clone());
                self.flying.insert(key.clone());
                Next::Again
            }
            Ok(Step::Truncated) => {
                self.truncated(key, place);
                Next::Again
            }
            Ok(Step::Damaged(bytes)) => {
                self.damaged(key, place, bytes);
                Next::Again
            }
            Err(failure) => self.failed(key, place, slot, &failure),
        }
    }

    /// Whether an epoch may be read now.
    fn may_read(&mut self, key: &InstanceKey, place: usize) -> Result<(), Next> {
        let now = Instant::now();
        let Some(instance) = self.instances.get_mut(key) else { return Err(Next::Sleep) };
        let topic = instance.topic.clone();
        let Some(epoch) = instance.epochs.get_mut(place) else { return Err(Next::Sleep) };
        if epoch.awaits_store || epoch.ledger.has_failed() {
            return Err(Next::Soon);
        }
        let Some(partitions) = self.parking.partitions(&topic, now, self.parts.destinations.as_ref()) else {
            return Err(Next::Later);
        };
        // A partition that is gone went with its topic, and what was there with it: no order is at stake.
        if epoch.partition.is_none_or(|partition| partition >= partitions) {
            if !epoch.ledger.is_empty() {
                return Err(Next::Soon);
            }
            let partition = fairlead_contract::record::partition_of(&epoch.pipeline.origin().key, partitions);
            epoch.partition = Some(partition);
            epoch.awaits_store = true;
            self.urgent = true;
            self.dirty.insert(key.clone());
            return Err(Next::Soon);
        }
        Ok(())
    }

    fn awaits_store(&self, key: &InstanceKey, place: usize) -> bool {
        self.instances.get(key).and_then(|instance| instance.epochs.get(place)).is_some_and(|epoch| epoch.awaits_store)
    }

    /// Lends an epoch everything that a read needs.
    fn with_epoch<T>(
        &mut self,
        key: &InstanceKey,
        place: usize,
        act: impl FnOnce(&mut Epoch, &mut ReadContext<'_>) -> Turn<T>,
    ) -> Option<(Turn<T>, Slot)> {
        let slot = self.free.pop()?;
        let Some(epoch) = self.instances.get_mut(key).and_then(|instance| instance.epochs.get_mut(place)) else {
            self.free.push(slot);
            return None;
        };
        let mut context = ReadContext {
            held: &self.held,
            key,
            buffer: &mut self.buffer,
            value: &mut self.value,
            sink: self.parts.sink.as_mut(),
            pending: &self.parts.pending,
            slot,
            limits: self.settings.limits,
            now: Instant::now(),
        };
        let turn = act(epoch, &mut context);
        Some((turn, slot))
    }

    /// Counts what was made and keeps the slot or gives it back.
    fn account(&mut self, key: &InstanceKey, place: usize, slot: Slot, made: &Made, slot_used: bool) {
        if slot_used {
            self.slots.insert(slot, key.clone());
            self.flying.insert(key.clone());
            self.in_flight_bytes += made.bytes;
        } else {
            self.free.push(slot);
        }
        let Some(instance) = self.instances.get(key) else { return };
        let namespace = &instance.identity.namespace;
        let counters = &instance.counters;
        counters.lines_read.inc_by(made.lines);
        counters.bytes_read.inc_by(made.read_bytes);
        counters.parse_errors.inc_by(made.bad);
        counters.invalid_utf8.inc_by(made.replaced);
        if let Some(at) = made.bad_at {
            let file = instance.epochs.get(place).and_then(|epoch| epoch.file_at(at.file));
            let link = file.map_or(0, |file| file.state.link);
            let (path, namespace) = (self.held.path(key, link).display().to_string(), namespace.clone());
            let lines = made.bad;
            self.complain(&path.clone(), |left_out| {
                warn!({ field::K8S_NAMESPACE_NAME } = %namespace, { field::FILE_PATH } = path, offset = at.offset, lines, left_out, "lines that are not in the CRI format; the offset is the latest one's");
            });
        }
    }

    fn close(&mut self, key: &InstanceKey, place: usize) {
        if let Some(epoch) = self.instances.get_mut(key).and_then(|instance| instance.epochs.get_mut(place)) {
            epoch.close();
        }
    }

    /// A file became shorter than what was read of it: whoever did that, its bytes are others now.
    fn truncated(&mut self, key: &InstanceKey, place: usize) {
        // What was read of it is known and goes out, fragments too.
        if let Some((turn, slot)) = self.with_epoch(key, place, Epoch::flush_all) {
            self.account(key, place, slot, &turn.made, turn.slot_used);
            if let Err(failure) = &turn.result {
                self.failed(key, place, slot, failure);
            }
        }
        let Some(instance) = self.instances.get_mut(key) else { return };
        let topic = instance.topic.clone();
        let Some(epoch) = instance.epochs.get_mut(place) else { return };
        let late = epoch.late;
        let links = epoch.abandon();
        self.flying.insert(key.clone());
        self.begin(key, &Epoch::fresh(topic.as_str(), &links, late), Reason::Truncated);
    }

    /// A held file is gone while it is read: somebody removed our link. The files behind it go on under a new epoch.
    fn link_lost(&mut self, key: &InstanceKey, place: usize) {
        let held = self.held.clone();
        let Some(instance) = self.instances.get_mut(key) else { return };
        let topic = instance.topic.clone();
        let Some(epoch) = instance.epochs.get_mut(place) else { return };
        let late = epoch.late;
        let (left, gone): (Vec<_>, Vec<_>) =
            epoch.abandon().into_iter().partition(|link| held.stat(key, *link).is_ok());
        gone.into_iter().for_each(|link| instance.forget(link));
        // What the kubelet still has of it is held anew and read again, marked.
        instance.lost_links = true;
        self.watcher.folders.push(key.pod_folder.clone());
        let namespace = self.instances.get(key).map(|instance| instance.identity.namespace.clone());
        if let Some(namespace) = namespace.filter(|_| left.is_empty()) {
            self.parts.metrics.epochs_started(&namespace, "files_lost").inc();
        }
        self.flying.insert(key.clone());
        self.dirty.insert(key.clone());
        if left.is_empty() {
            warn!(source = %key, { field::REASON } = Reason::LinkLost.as_str(), "an epoch ends here: its held files are gone");
        } else {
            self.begin(key, &Epoch::fresh(topic.as_str(), &left, late), Reason::LinkLost);
        }
    }

    fn failed(&mut self, key: &InstanceKey, place: usize, slot: Slot, failure: &TailError) -> Next {
        let Some(instance) = self.instances.get_mut(key) else { return Next::Sleep };
        let topic = instance.topic.clone();
        let namespace = instance.identity.namespace.clone();
        let Some(epoch) = instance.epochs.get_mut(place) else { return Next::Sleep };
        match failure {
            TailError::NotSent(NotSent::Refused(refusal)) => {
                epoch.ledger.fail(slot);
                self.park(&namespace, &topic, *refusal, "refused before it was queued");
                Next::Soon
            }
            TailError::NotSent(NotSent::Full) => {
                epoch.ledger.fail(slot);
                Next::Later
            }
            TailError::File { source, .. } if source.kind() == ErrorKind::NotFound => {
                epoch.ledger.fail(slot);
                self.link_lost(key, place);
                Next::Soon
            }
            TailError::NotSent(NotSent::Fatal) => {
                epoch.ledger.fail(slot);
                self.parts.readiness.block("producer", "the Kafka producer is dead; a new one is being made");
                Next::Soon
            }
            TailError::File { path, source } => {
                epoch.close();
                epoch.ledger.fail(slot);
                let shown = path.display().to_string();
                self.complain(&shown, |left_out| {
                    error!({ field::K8S_NAMESPACE_NAME } = %namespace, { field::FILE_PATH } = shown, { field::ERROR } = %source, left_out, "cannot read held log file; it is tried again");
                });
                Next::Later
            }
        }
    }

    /// Sends the fragments that waited too long.
    pub(super) fn flush_overdue(&mut self, now: Instant) {
        let limits = self.settings.limits;
        let is_overdue = |epoch: &Epoch| {
            epoch.partition.is_some()
                && !epoch.awaits_store
                && !epoch.ledger.has_failed()
                && epoch.pipeline.overdue(epoch.cursor, now, &limits).next().is_some()
        };
        let overdue: Vec<_> = self
            .instances
            .iter()
            .flat_map(|(key, instance)| {
                instance
                    .epochs
                    .iter()
                    .enumerate()
                    .filter(|(_, epoch)| is_overdue(epoch))
                    .map(|(place, _)| (key.clone(), place))
            })
            .collect();
        for (key, place) in overdue {
            if self.may_read(&key, place).is_ok()
                && let Some((turn, slot)) = self.with_epoch(&key, place, Epoch::flush_overdue)
            {
                self.account(&key, place, slot, &turn.made, turn.slot_used);
                if let Err(failure) = &turn.result {
                    self.failed(&key, place, slot, failure);
                }
            }
        }
    }
}
