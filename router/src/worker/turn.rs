//! Reading: instances in turn, each a bounded read.

use std::{io::ErrorKind, time::Instant};

use fairlead_contract::{record::LossReason, topic::Delivery};
use fairlead_service_kit::telemetry::field;
use tracing::{error, warn};

use super::{ENDING_WAIT, Hold, IDLE_WAIT, LOOKS_PER_ROUND_MAX, TURNS_PER_ROUND_MAX, Worker, place::Reason};
use crate::{
    checkpoint::InstanceKey,
    parse::Grammar,
    pipeline::{Break, JsonMade, Made, NotSent},
    produce::{Refusal, Slot},
    tail::{Epoch, ReadContext, Step, TailError, Turn},
};

/// How much of what a namespace may read may wait in one container's files before lines are left out, where that is allowed.
const BACKLOG_SECONDS_MAX: u64 = 10;

/// What becomes of an instance after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
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
    /// Gives instances that may have something to read a turn each.
    pub(super) fn read_ready(&mut self) {
        self.let_go_on();
        let mut reads = 0;
        for _ in 0..LOOKS_PER_ROUND_MAX {
            if reads == TURNS_PER_ROUND_MAX {
                break;
            }
            if self.free.len() < TURNS_PER_ROUND_MAX {
                return; // deliveries make room, and wake the wait
            }
            let Some(key) = self.fair.next() else { return };
            let Some(instance) = self.instances.get_mut(&key) else { continue };
            instance.queued = false;
            let turn = self.turn(&key);
            self.note_careful(&key);
            match turn {
                Ok(Next::Sleep) => {}
                Ok(Next::Later) => self.later(&key, IDLE_WAIT),
                Ok(Next::Soon) => self.later(&key, ENDING_WAIT),
                Ok(Next::Again) => {
                    reads += 1;
                    self.queue(&key);
                }
                Err(hold) => self.hold_back(key, hold),
            }
        }
    }

    /// Whether there is something to read at once.
    pub(super) fn may_read_on(&self) -> bool {
        !self.fair.is_idle() && self.free.len() >= TURNS_PER_ROUND_MAX
    }

    /// Puts an instance into the queue of those to be read.
    pub(super) fn queue(&mut self, key: &InstanceKey) {
        if let Some(instance) = self.instances.get_mut(key)
            && !std::mem::replace(&mut instance.queued, true)
        {
            self.fair.queue(&instance.identity.namespace, key);
        }
    }

    /// The namespace of an instance waits for something, and the instance with it.
    fn hold_back(&mut self, key: InstanceKey, hold: Hold) {
        if let Some(instance) = self.instances.get_mut(&key) {
            instance.queued = true;
            self.fair.hold(&instance.identity.namespace, key, hold);
        }
    }

    /// Looks at namespaces that waited for a time, or for news of their topic.
    fn let_go_on(&mut self) {
        let version = self.parts.destinations.version();
        let news = std::mem::replace(&mut self.topics_version, version) != version;
        let now = Instant::now();
        self.fair.release(|hold| match hold {
            Hold::Topic => news,
            Hold::Until(at) => at <= now,
            Hold::Deliveries => false,
        });
    }

    fn turn(&mut self, key: &InstanceKey) -> Result<Next, Hold> {
        let Some(instance) = self.instances.get(key) else { return Ok(Next::Sleep) };
        let places = instance.readable();
        let is_guilty = instance.guilty.is_some();
        let is_told = instance.faults_told;
        if places.is_empty() && !is_guilty && !instance.owes_unsent() && is_told || self.holds_back(key) {
            return Ok(Next::Sleep);
        }
        if !is_told {
            self.tell_faults(key);
        }
        if is_guilty {
            return Ok(self.send_guilty(key));
        }
        let (partitions, leave_out) = self.may_send(key)?;
        let mut next = self.send_owed(key, partitions);
        let epochs = self.instances.get(key).map(|instance| instance.epochs.len());
        for place in places {
            next = next.max(self.turn_of_epoch(key, place, partitions, leave_out));
            if self.instances.get(key).map(|instance| instance.epochs.len()) != epochs {
                // A new epoch may stand between those that are left.
                return Ok(Next::Again);
            }
        }
        Ok(next)
    }

    /// Whether so much of an instance waits that its namespace, which may lose lines to keep up, has to.
    fn must_leave_out(&self, key: &InstanceKey) -> bool {
        let Some(instance) = self.instances.get(key).filter(|instance| instance.delivery == Delivery::BestEffort)
        else {
            return false;
        };
        let rate = self.fair.rate_bytes_per_second(&instance.identity.namespace);
        let unread = |epoch: &Epoch| -> u64 {
            let bytes = |link: u32| self.held.stat(key, link).map_or(0, |stat| stat.bytes);
            let files = epoch.files.iter().filter(|file| file.state.place >= epoch.cursor.file);
            let all: u64 = files.map(|file| file.state.complete.unwrap_or_else(|| bytes(file.state.link))).sum();
            all.saturating_sub(epoch.cursor.offset)
        };
        let waits: u64 = instance.epochs.iter().filter(|epoch| !epoch.read_out).map(unread).sum();
        rate.is_some_and(|rate| waits > rate.saturating_mul(BACKLOG_SECONDS_MAX))
    }

    /// Whether records of an instance may be sent now; gives the number of its topic's partitions, and whether its lines are to be left out.
    fn may_send(&mut self, key: &InstanceKey) -> Result<(i32, bool), Hold> {
        let now = Instant::now();
        let Some(instance) = self.instances.get(key) else { return Err(Hold::Topic) };
        let topic = &instance.topic;
        let partitions = self.parking.partitions(topic, now, self.parts.destinations.as_ref())?;
        if !self.fair.has_credit(&instance.identity.namespace) {
            return Err(Hold::Deliveries);
        }
        let wait = self.fair.wait_for_rate(&instance.identity.namespace, now);
        let leave_out = wait.is_some() && self.must_leave_out(key);
        if let Some(wait) = wait.filter(|_| !leave_out) {
            return Err(Hold::Until(now + wait));
        }
        self.lanes.set_batch_bytes_max(topic, self.parts.destinations.message_bytes_max(topic), now);
        match self.lanes.choose(topic, self.parts.sink.as_mut()) {
            Some(_) => Ok((partitions, leave_out)),
            // Nothing of it is on its way, so no report would wake it.
            None if self.lanes.is_drained(topic) => Err(Hold::Until(now + IDLE_WAIT)),
            None => Err(Hold::Deliveries),
        }
    }

    fn turn_of_epoch(&mut self, key: &InstanceKey, place: usize, partitions: i32, leave_out: bool) -> Next {
        match self.may_read(key, place, partitions) {
            Ok(()) => {}
            Err(next) => return next,
        }
        let step = |epoch: &mut Epoch, context: &mut ReadContext<'_>| {
            context.leave_out = leave_out;
            epoch.step(context)
        };
        let Some((turn, slot)) = self.with_epoch(key, place, step) else { return Next::Sleep };
        self.account(key, place, slot, &turn.made, turn.slot_used);
        if leave_out && let Some(instance) = self.instances.get(key) {
            // A rate is for what is sent.
            self.fair.refund(&instance.identity.namespace, turn.made.passed_bytes);
        }
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
    fn may_read(&mut self, key: &InstanceKey, place: usize, partitions: i32) -> Result<(), Next> {
        let Some(instance) = self.instances.get_mut(key) else { return Err(Next::Sleep) };
        let Some(epoch) = instance.epochs.get(place) else { return Err(Next::Sleep) };
        if epoch.awaits_store || epoch.ledger.has_failed() {
            return Err(Next::Soon);
        }
        if instance.owes_before(&epoch.id) || !instance.may_go_on_carefully(place) {
            return Err(Next::Sleep);
        }
        if self.lanes.is_careful(&instance.topic) && !self.lanes.is_drained(&instance.topic) {
            return Err(Next::Soon); // something was sent in this very turn
        }
        let Some(epoch) = instance.epochs.get_mut(place) else { return Err(Next::Sleep) };
        if let Some(takes) = self.lanes.batch_bytes_max(&instance.topic) {
            let origin = epoch.pipeline.origin_mut();
            if origin.make_room(&self.settings.node_name, &instance.identity, takes) {
                self.parts.metrics.metadata_left_out.inc();
            }
            if origin.log_bytes_max(takes).is_none() {
                let (namespace, topic) = (instance.identity.namespace.clone(), instance.topic.clone());
                let why =
                    format!("it takes {takes} bytes in a batch (max.message.bytes), which is too little for a record");
                self.park(&namespace, &topic, Refusal::TooLarge, &why);
                return Err(Next::Soon);
            }
        }
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
        let Some(instance) = self.instances.get_mut(key) else {
            self.free.push(slot);
            return None;
        };
        let lane = self.lanes.lane(&instance.topic);
        let takes = self.lanes.batch_bytes_max(&instance.topic);
        let Some(epoch) = instance.epochs.get_mut(place) else {
            self.free.push(slot);
            return None;
        };
        let mut limits = self.settings.limits;
        // `may_read` lets nobody through whose topic takes too little.
        if let Some(bytes) = takes.and_then(|takes| epoch.pipeline.origin().log_bytes_max(takes)) {
            limits.record_bytes_max = limits.record_bytes_max.min(bytes);
        }
        let mut context = ReadContext {
            held: &self.held,
            key,
            buffer: &mut self.buffer,
            value: &mut self.value,
            scratch: &mut self.scratch,
            sink: self.parts.sink.as_mut(),
            pending: &self.parts.pending,
            lane,
            slot,
            limits,
            leave_out: false,
            now: Instant::now(),
        };
        let turn = act(epoch, &mut context);
        Some((turn, slot))
    }

    /// Counts what was made and keeps the slot or gives it back.
    fn account(&mut self, key: &InstanceKey, place: usize, slot: Slot, made: &Made, slot_used: bool) {
        if !slot_used {
            self.free.push(slot);
        }
        self.keep_alone(key, place, made);
        let Some(instance) = self.instances.get(key) else { return };
        let namespace = &instance.identity.namespace;
        self.fair.charge(namespace, made.passed_bytes);
        if slot_used {
            self.slots.insert(slot, key.clone());
            self.flying.insert(key.clone());
            self.fair.sent(namespace, made.bytes);
            self.lanes.sent(&instance.topic, slot, Instant::now());
        }
        let counters = &instance.counters;
        counters.take_in_hand(made.read);
        counters.parse_errors.inc_by(made.bad);
        counters.invalid_utf8.inc_by(made.replaced);
        if made.gaps > 0
            && let Some(broken) = instance.epochs.get(place).and_then(|epoch| epoch.broken.as_ref())
        {
            self.parts.metrics.gaps_announced(namespace, broken.reason.as_str()).inc_by(made.gaps);
        }
        if made.json != JsonMade::default() {
            let JsonMade { processed, no_object, too_deep, too_long } = made.json;
            let counts =
                [("processed", processed), ("no_object", no_object), ("too_deep", too_deep), ("too_long", too_long)];
            for (result, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                self.parts.metrics.json_records(namespace, result).inc_by(count);
            }
        }
        if let Some(at) = made.bad_at {
            let grammar = instance.epochs.get(place).map_or_else(Grammar::default, |epoch| epoch.pipeline.grammar());
            let file = instance.epochs.get(place).and_then(|epoch| epoch.file_at(at.file));
            let link = file.map_or(0, |file| file.state.link);
            let (path, namespace) = (self.held.path(key, link).display().to_string(), namespace.clone());
            let lines = made.bad;
            self.complain(&path.clone(), |left_out| {
                warn!({ field::K8S_NAMESPACE_NAME } = %namespace, { field::FILE_PATH } = path, offset = at.offset, lines, left_out, "lines that are not in {} format; the offset is the latest one's", grammar.as_str());
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
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(epoch) = instance.epochs.get_mut(place) else { return };
        let mut fresh = Epoch::fresh(instance.topic.as_str(), epoch.pipeline.grammar(), &[], epoch.late);
        epoch.broken = Some(Break { reason: LossReason::Truncated, next: Some(fresh.epoch.clone()) });
        self.finish(key, place);
        let Some(epoch) = self.instances.get_mut(key).and_then(|instance| instance.epochs.get_mut(place)) else {
            return;
        };
        fresh.files = Epoch::files_of(&epoch.abandon());
        self.flying.insert(key.clone());
        self.begin_at(key, Some(place), &fresh, Reason::Truncated);
    }

    /// Nothing more can be read of an epoch: what waits is sent, and how it ends is said.
    fn finish(&mut self, key: &InstanceKey, place: usize) {
        if let Some((turn, slot)) = self.with_epoch(key, place, Epoch::finish) {
            self.account(key, place, slot, &turn.made, turn.slot_used);
            if let Err(failure) = &turn.result {
                self.failed(key, place, slot, failure);
            }
        }
    }

    /// A held file is gone while it is read: somebody removed our link. The files behind it go on under a new epoch.
    fn link_lost(&mut self, key: &InstanceKey, place: usize) {
        let held = self.held.clone();
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(epoch) = instance.epochs.get_mut(place) else { return };
        let mut fresh = Epoch::fresh(instance.topic.as_str(), epoch.pipeline.grammar(), &[], epoch.late);
        epoch.broken = Some(Break { reason: LossReason::LinkLost, next: Some(fresh.epoch.clone()) });
        self.finish(key, place);
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(epoch) = instance.epochs.get_mut(place) else { return };
        let (left, gone): (Vec<_>, Vec<_>) =
            epoch.abandon().into_iter().partition(|link| held.stat(key, *link).is_ok());
        // The epoch still names the file that is gone, so that it is not taken for the one before it.
        gone.iter().for_each(|link| _ = instance.links.remove(link));
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
            fresh.files = Epoch::files_of(&left);
            self.begin_at(key, Some(place), &fresh, Reason::LinkLost);
        }
    }

    fn failed(&mut self, key: &InstanceKey, place: usize, slot: Slot, failure: &TailError) -> Next {
        let Some(instance) = self.instances.get_mut(key) else { return Next::Sleep };
        let topic = instance.topic.clone();
        let namespace = instance.identity.namespace.clone();
        let Some(epoch) = instance.epochs.get_mut(place) else { return Next::Sleep };
        match failure {
            TailError::NotSent(NotSent::Refused(Refusal::TooLarge)) => {
                epoch.ledger.fail(slot);
                self.too_large(&topic, None);
                Next::Soon
            }
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
                && epoch.pipeline.is_overdue(epoch.cursor, now, &limits)
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
            if !self.holds_back(&key)
                && let Ok((partitions, _)) = self.may_send(&key)
                && self.may_read(&key, place, partitions).is_ok()
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
