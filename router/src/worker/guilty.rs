//! The record that its topic refuses for good: found by sending one record at a time, put among the dead letters, announced as a gap.
//!
//! Kafka refuses batches. After a refusal that is about records, the epoch goes back and, up to where it was, sends one physical line at a time
//! with nothing else of its topic in flight. What is refused then is guilty; all others go on in order.
//!
//! A notice may be refused as well. What is said at the end of a run becomes owed then, and what is owed is sent one by one. One that is refused
//! alone goes to the dead letters and is owed no more: the stream in which it could be announced is the one that refuses it.

use std::time::{Duration, Instant};

use fairlead_contract::{
    record::{self, LossReason, partition_of},
    topic::TopicName,
};
use fairlead_service_kit::telemetry::field;
use tracing::warn;

use super::{IDLE_WAIT, Instance, Worker, budget::lost_between, turn::Next};
use crate::{
    checkpoint::{InstanceKey, Owed},
    pipeline::{Made, Origin},
    produce::{DeadLetter, Refusal, SendResult, Slot, TopicState},
    tail::{Epoch, Positions},
};

/// How long the topic of dead letters may take to be there and to take the record, before the line is announced as lost.
const DEAD_LETTER_WAIT_MAX: Duration = Duration::from_secs(15);

/// A record that was refused alone.
#[derive(Debug)]
pub struct Guilty {
    what: What,
    since: Instant,
    in_flight: Option<(Slot, u64, TopicName)>,
}

#[derive(Debug)]
enum What {
    /// Lines of an epoch, and where its streams stand behind them.
    Lines { epoch: String, to: Positions, value: Vec<u8> },
    /// A notice that is owed.
    Notice(Box<Owed>),
}

impl Guilty {
    /// A notice that was refused alone.
    pub fn of_notice(owed: Owed) -> Self {
        Self::new(What::Notice(Box::new(owed)))
    }

    fn new(what: What) -> Self {
        Self { what, since: Instant::now(), in_flight: None }
    }

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
        let after_slot = |epoch: &Epoch| epoch.ledger.after(slot);
        let Some((epoch, after)) =
            self.epochs.iter_mut().find_map(|epoch| after_slot(epoch).map(|after| (epoch, after)))
        else {
            return refused && self.refuse_owed(slot);
        };
        epoch.ledger.fail(slot);
        if !refused {
            return true;
        }
        if epoch.read_out && after.counts() == epoch.acknowledged.counts() {
            epoch.end_refused = true; // there is no line in it
        } else if epoch.careful.is_none() {
            epoch.suspect = true;
        } else if self.guilty.is_none() {
            let (epoch, to) = (epoch.id.clone(), epoch.behind_refused(after));
            self.guilty = Some(Guilty::new(What::Lines { epoch, to, value: std::mem::take(&mut self.alone) }));
        }
        true
    }

    /// Whether its records must be alone in their batch.
    pub fn is_careful(&self) -> bool {
        self.epochs.iter().any(|epoch| epoch.careful.is_some() && !epoch.finished)
            || self.owed.iter().any(|owed| owed.suspect)
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
            return Next::Again;
        };
        self.parts.destinations.want(&dead);
        let TopicState::Ready { partitions } = self.parts.destinations.state(&dead) else { return Next::Later };
        // Whether it takes anything is not known: that is tried where it disturbs nobody.
        self.lanes.demote(&dead, now);
        let (Some(lane), Some(slot)) = (self.lanes.choose(&dead, self.parts.sink.as_mut()), self.free.pop()) else {
            return Next::Later;
        };
        let identity = &instance.identity;
        let key_bytes = record::key(&identity.namespace, &identity.pod, &identity.container).into_bytes();
        let value = match &guilty.what {
            What::Lines { value, .. } => value,
            What::Notice(owed) => {
                let (topic, host) = (instance.topic.clone(), &self.settings.node_name);
                let origin = Origin::new(topic, host, identity, &instance.known, &owed.epoch);
                origin.encode_notice(&mut self.value, &owed.notice, true);
                &self.value
            }
        };
        let letter = DeadLetter {
            topic: dead.as_str(),
            partition: partition_of(&key_bytes, partitions),
            key: &key_bytes,
            value,
            reason: Refusal::InvalidRecord.as_str(),
            refused_by: instance.topic.as_str(),
        };
        if self.parts.sink.send_dead(lane, &letter, slot) != SendResult::Queued {
            self.free.push(slot);
            return Next::Later;
        }
        self.parts.pending.add(slot, 1);
        let bytes = value.len() as u64;
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

    /// Goes on behind the guilty record: its lines are announced as lost. A notice cannot be announced; the lines that it speaks of count as lost.
    fn pass_guilty(&mut self, key: &InstanceKey, kept: bool) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(guilty) = instance.guilty.take() else { return };
        let namespace = instance.identity.namespace.clone();
        let topic = instance.topic.clone();
        let (reason, result) =
            if kept { (LossReason::InvalidRecord, "kept") } else { (LossReason::NotKept, "not_kept") };
        self.parts.metrics.dead_letters(&namespace, result).inc();
        let what = match guilty.what {
            What::Lines { epoch, to, .. } => {
                let Some(epoch) = instance.epochs.iter_mut().find(|of| of.id == epoch) else { return };
                let at = epoch.acknowledged;
                let notices = lost_between(epoch, &at, &to, reason);
                epoch.pass_over(&to);
                let (id, partition) = (epoch.id.clone(), epoch.partition);
                self.owe(key, &id, partition, notices, &at);
                "line"
            }
            What::Notice(refused) => {
                instance.owed.retain(|owed| {
                    let is_it = owed.owed == *refused;
                    if is_it {
                        owed.count_lost(&self.parts.metrics, &namespace, &instance.counters);
                    }
                    !is_it
                });
                self.dirty.insert(key.clone());
                self.queue(key);
                refused.notice.kind.as_str()
            }
        };
        self.complain(&topic.to_string(), |left_out| {
            warn!({ field::K8S_NAMESPACE_NAME } = %namespace, { field::DESTINATION } = %topic, source = %key, what, kept, left_out, "Kafka refuses a record for good; it is among the dead letters if it was kept");
        });
    }

    /// Notes whether the records of a container must be alone in their batch.
    pub(super) fn note_careful(&mut self, key: &InstanceKey) {
        let Some(instance) = self.instances.get(key) else { return };
        let careful = instance.is_careful();
        if careful || self.lanes.is_careful(&instance.topic) {
            self.lanes.set_careful(&instance.topic, key, careful);
        }
    }
}
