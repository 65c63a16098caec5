//! The record that its topic refuses for good: found by sending one record at a time, put among the dead letters, announced as a gap.
//!
//! Kafka refuses batches. After a refusal that is about records, the epoch goes back and, up to where it was, sends one physical line at a time
//! with nothing else of the container in flight. What is refused then is guilty; all others go on in order.

use std::time::{Duration, Instant};

use fairlead_contract::{
    record::{LossReason, partition_of},
    topic::TopicName,
};
use fairlead_service_kit::telemetry::field;
use tracing::warn;

use super::{IDLE_WAIT, Instance, Worker, budget::lost_between, turn::Next};
use crate::{
    checkpoint::InstanceKey,
    pipeline::Made,
    produce::{DeadLetter, Refusal, SendResult, Slot, TopicState},
    tail::Positions,
};

/// How long the topic of dead letters may take to be there and to take the record, before the line is announced as lost.
const DEAD_LETTER_WAIT_MAX: Duration = Duration::from_secs(15);

/// A record that was refused alone.
#[derive(Debug)]
pub struct Guilty {
    epoch: String,
    /// Where the streams stand behind it.
    to: Positions,
    value: Vec<u8>,
    since: Instant,
    in_flight: Option<(Slot, u64, TopicName)>,
}

impl Guilty {
    /// Whether it is on its way to the dead letters.
    pub fn is_flying(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether it is on its way in this slot.
    pub fn is_in(&self, slot: Slot) -> bool {
        self.in_flight.as_ref().is_some_and(|(flying, ..)| *flying == slot)
    }
}

impl Instance {
    /// A read was not delivered; `refused`: because of some record in it. Returns whether it is a read of one of the epochs.
    pub fn fail(&mut self, slot: Slot, refused: bool) -> bool {
        let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.ledger.after(slot).is_some()) else { return false };
        let after = epoch.ledger.after(slot);
        epoch.ledger.fail(slot);
        if refused && epoch.careful.is_none() {
            epoch.suspect = true;
        } else if let Some(to) = after.filter(|_| refused && self.guilty.is_none()) {
            let value = std::mem::take(&mut self.alone);
            self.guilty = Some(Guilty { epoch: epoch.id.clone(), to, value, since: Instant::now(), in_flight: None });
        }
        true
    }

    /// Whether some epoch sends one record at a time.
    pub fn is_careful(&self) -> bool {
        self.epochs.iter().any(|epoch| epoch.careful.is_some())
    }

    /// Whether an epoch may be read as far as care goes: while any is careful, nothing else of the container is in flight.
    pub fn may_go_on_carefully(&mut self, place: usize) -> bool {
        if !self.is_careful() {
            return true;
        }
        if self.is_flying() {
            return false;
        }
        if let Some(epoch) = self.epochs.get_mut(place) {
            epoch.careful = epoch.careful.filter(|until| epoch.cursor < *until);
        }
        true
    }
}

impl Worker {
    /// Keeps the record that a careful read made.
    pub(super) fn keep_alone(&mut self, key: &InstanceKey, place: usize, made: &Made) {
        if let Some(instance) = self.instances.get_mut(key)
            && made.records > 0
            && instance.epochs.get(place).is_some_and(|epoch| epoch.careful.is_some())
        {
            instance.alone.clone_from(&self.value);
        }
    }

    /// Sends the guilty record of an instance to the dead letters, once all else of it is settled.
    pub(super) fn send_guilty(&mut self, key: &InstanceKey) -> Next {
        let Some(instance) = self.instances.get_mut(key) else { return Next::Sleep };
        let is_flying = instance.is_flying();
        let Some(guilty) = &mut instance.guilty else { return Next::Sleep };
        if guilty.is_flying() {
            return Next::Sleep;
        }
        if is_flying {
            return Next::Soon;
        }
        let now = Instant::now();
        let dead = self.settings.topics.dead_letter(&instance.topic);
        let Some(dead) = dead.filter(|_| now.saturating_duration_since(guilty.since) < DEAD_LETTER_WAIT_MAX) else {
            self.pass_guilty(key, false);
            return Next::Soon;
        };
        self.parts.destinations.want(&dead);
        let TopicState::Ready { partitions } = self.parts.destinations.state(&dead) else { return Next::Later };
        // Whether it takes anything is not known: that is tried where it disturbs nobody.
        self.lanes.demote(&dead, now);
        let (Some(lane), Some(slot)) = (self.lanes.choose(&dead, self.parts.sink.as_mut()), self.free.pop()) else {
            return Next::Later;
        };
        let Some(epoch) = instance.epochs.iter().find(|epoch| epoch.id == guilty.epoch) else {
            self.free.push(slot);
            instance.guilty = None;
            return Next::Soon;
        };
        let key_bytes = &epoch.pipeline.origin().key;
        let letter = DeadLetter {
            topic: dead.as_str(),
            partition: partition_of(key_bytes, partitions),
            key: key_bytes,
            value: &guilty.value,
            reason: Refusal::InvalidRecord.as_str(),
            refused_by: instance.topic.as_str(),
        };
        if self.parts.sink.send_dead(lane, &letter, slot) != SendResult::Queued {
            self.free.push(slot);
            return Next::Later;
        }
        self.parts.pending.add(slot, 1);
        let bytes = guilty.value.len() as u64;
        self.fair.sent(&instance.identity.namespace, bytes);
        self.lanes.sent(&dead, slot, now);
        guilty.in_flight = Some((slot, bytes, dead));
        self.slots.insert(slot, key.clone());
        self.flying.insert(key.clone());
        Next::Sleep
    }

    /// Takes in what became of a dead letter. Returns the bytes that are no longer in flight; its slot is free.
    pub(super) fn settle_guilty(&mut self, key: &InstanceKey) -> u64 {
        let Some(guilty) = self.instances.get_mut(key).and_then(|instance| instance.guilty.as_mut()) else { return 0 };
        let Some((slot, bytes, dead)) = guilty.in_flight.take() else { return 0 };
        if self.parts.pending.outstanding(slot) != 0 {
            guilty.in_flight = Some((slot, bytes, dead));
            return 0;
        }
        let taken = self.parts.pending.is_acknowledged(slot);
        self.parts.pending.reset(slot);
        self.free.push(slot);
        self.lanes.settled(&dead, slot, taken, Instant::now());
        if taken {
            self.pass_guilty(key, true);
        } else {
            self.parts.destinations.forget(&dead);
            self.later(key, IDLE_WAIT);
        }
        bytes
    }

    /// Goes on behind the guilty record: its lines are announced as lost.
    fn pass_guilty(&mut self, key: &InstanceKey, kept: bool) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(guilty) = instance.guilty.take() else { return };
        let namespace = instance.identity.namespace.clone();
        let topic = instance.topic.clone();
        let Some(epoch) = instance.epochs.iter_mut().find(|epoch| epoch.id == guilty.epoch) else { return };
        let at = epoch.acknowledged;
        let notices = lost_between(epoch, &at, &guilty.to, LossReason::InvalidRecord);
        epoch.pass_over(&guilty.to);
        let (id, partition) = (epoch.id.clone(), epoch.partition);
        let result = if kept { "kept" } else { "not_kept" };
        self.parts.metrics.dead_letters(&namespace, result).inc();
        self.owe(key, &id, partition, notices, &at);
        self.complain(&topic.to_string(), |left_out| {
            warn!({ field::K8S_NAMESPACE_NAME } = %namespace, { field::DESTINATION } = %topic, kept, left_out, "Kafka refuses a record for good; it is among the dead letters if it was kept");
        });
    }
}
