//! Notices that a container's readers are owed: kept with its state until Kafka has them.

use std::time::Instant;

use fairlead_contract::{
    namespace::Namespace,
    record::{Notice, NoticeKind, partition_of},
};
use tracing::debug;

use super::{Instance, Worker, guilty::Guilty, turn::Next};
use crate::{
    checkpoint::{InstanceKey, Owed},
    metrics::{Metrics, NamespaceMetrics},
    pipeline::Origin,
    produce::{SendResult, Slot},
    tail::{Count, Positions},
};

/// A notice and how far it got.
#[derive(Debug)]
pub struct OwedNotice {
    /// What is stored of it.
    pub owed: Owed,
    /// Bytes of its stream before what it announces.
    pub bytes_before: u64,
    stored: bool,
    /// Whether it may have been sent before.
    again: bool,
    in_flight: Option<(Slot, u64)>,
    /// Whether it was refused, alone or beside others: it is sent alone.
    pub suspect: bool,
}

impl OwedNotice {
    /// One that was not stored yet.
    pub fn new(owed: Owed, bytes_before: u64) -> Self {
        Self { owed, bytes_before, stored: false, again: false, in_flight: None, suspect: false }
    }

    /// One that was stored by an earlier router.
    pub fn recovered(owed: Owed) -> Self {
        Self { owed, bytes_before: u64::MAX, stored: true, again: true, in_flight: None, suspect: false }
    }

    /// What it announces counts as lost from now on.
    pub fn count_lost(&self, metrics: &Metrics, namespace: &Namespace, counters: &NamespaceMetrics) {
        let lost = self.announces();
        counters.take_from_hand(lost);
        if let Some(reason) = self.owed.notice.reason.filter(|_| !lost.is_none()) {
            metrics.lost(namespace, reason.as_str(), lost);
        }
    }

    /// What it announces as lost, once Kafka has it.
    pub fn announces(&self) -> Count {
        let notice = &self.owed.notice;
        match (notice.kind, notice.lines) {
            (NoticeKind::Gap, Some(lines)) => Count { lines, bytes: notice.bytes.unwrap_or(0) },
            _ => Count::default(),
        }
    }

    /// Takes notice that lines were delivered after all that it would have announced as lost. Returns how many.
    fn narrow(&mut self, at: &Positions) -> Count {
        let position = at.0[usize::from(self.owed.fd)];
        let notice = &mut self.owed.notice;
        let Some(lines) = notice.lines.filter(|_| notice.kind == NoticeKind::Gap) else { return Count::default() };
        let count = Count {
            lines: position.next.saturating_sub(notice.seq).min(lines),
            bytes: position.bytes.saturating_sub(self.bytes_before).min(notice.bytes.unwrap_or(0)),
        };
        if count.is_none() {
            return Count::default();
        }
        notice.seq += count.lines;
        notice.lines = Some(lines - count.lines);
        notice.bytes = notice.bytes.map(|bytes| bytes - count.bytes);
        self.bytes_before += count.bytes;
        count
    }
}

impl Instance {
    /// Adds a notice; one that goes on where the last one of its source ends becomes part of it.
    pub fn owe(&mut self, owed: Owed, bytes_before: u64) {
        let goes_on = |last: &&mut OwedNotice| {
            let (one, two) = (&last.owed.notice, &owed.notice);
            last.in_flight.is_none()
                && !last.again
                && (one.kind, &one.source, one.reason, &one.next_source) == (two.kind, &two.source, two.reason, &None)
                && one.lines.is_some_and(|lines| one.seq + lines == two.seq)
                && two.lines.is_some()
        };
        let last = self.owed.iter_mut().rev().find(|last| last.owed.notice.source == owed.notice.source);
        match last.filter(goes_on) {
            Some(last) => {
                let (notice, more) = (&mut last.owed.notice, &owed.notice);
                notice.lines = notice.lines.zip(more.lines).map(|(one, two)| one + two);
                notice.bytes = notice.bytes.zip(more.bytes).map(|(one, two)| one + two);
                last.stored = false;
            }
            None => self.owed.push(OwedNotice::new(owed, bytes_before)),
        }
    }

    /// Whether a notice about an epoch waits for what was sent of it before.
    pub fn owes_before(&self, epoch: &str) -> bool {
        self.owed.iter().any(|owed| owed.in_flight.is_none() && owed.owed.epoch == epoch)
    }

    /// Whether some notice is not on its way.
    pub fn owes_unsent(&self) -> bool {
        self.owed.iter().any(|owed| owed.in_flight.is_none())
    }

    /// Whether some notice is on its way.
    pub fn has_notice_in_flight(&self) -> bool {
        self.owed.iter().any(|owed| owed.in_flight.is_some())
    }

    /// Whether some notice is not durable yet.
    pub fn owes_unstored(&self) -> bool {
        self.owed.iter().any(|owed| !owed.stored)
    }

    /// All that is owed now is durable. Returns whether something had waited for that.
    pub fn owed_stored(&mut self) -> bool {
        let mut waited = false;
        for owed in &mut self.owed {
            waited |= !std::mem::replace(&mut owed.stored, true);
        }
        waited
    }

    /// A notice was not delivered because of some record in its batch. Returns whether one was sent in this slot; one that was sent alone is
    /// guilty.
    pub fn refuse_owed(&mut self, slot: Slot) -> bool {
        let is_its = |owed: &&mut OwedNotice| owed.in_flight.is_some_and(|(flying, _)| flying == slot);
        let Some(owed) = self.owed.iter_mut().find(is_its) else { return false };
        if std::mem::replace(&mut owed.suspect, true) && self.guilty.is_none() {
            self.guilty = Some(Guilty::of_notice(owed.owed.clone()));
        }
        true
    }

    /// Lines that a notice would announce were delivered after all. Returns how many.
    pub fn narrow_owed(&mut self, epoch: &str, at: &Positions) -> Count {
        let mut delivered = Count::default();
        for owed in self.owed.iter_mut().filter(|owed| owed.owed.epoch == epoch) {
            // When it was sent nothing was in flight before it: what arrives later is no part of what it announces.
            if owed.in_flight.is_none() && !owed.again {
                delivered += owed.narrow(at);
            }
        }
        self.owed.retain(|owed| {
            owed.owed.notice.kind != NoticeKind::Gap
                || owed.owed.notice.lines != Some(0)
                || owed.owed.notice.next_source.is_some()
        });
        delivered
    }
}

impl Worker {
    /// Owes notices about an epoch, by `fd`.
    pub(super) fn owe(
        &mut self,
        key: &InstanceKey,
        epoch: &str,
        partition: Option<i32>,
        notices: Vec<(usize, Notice<'static>)>,
        before: &Positions,
    ) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        for (fd, notice) in notices {
            if let Some(reason) = notice.reason {
                self.parts.metrics.gaps_announced(&instance.identity.namespace, reason.as_str()).inc();
            }
            let owed = Owed { epoch: epoch.to_owned(), fd: fd as u8, partition, notice };
            instance.owe(owed, before.0[fd].bytes);
        }
        self.urgent = true;
        self.dirty.insert(key.clone());
        self.queue(key);
    }

    /// Sends what is owed and durable, once nothing is in flight of the runs that it speaks of.
    pub(super) fn send_owed(&mut self, key: &InstanceKey, partitions: i32) -> Next {
        let Some(instance) = self.instances.get_mut(key) else { return Next::Sleep };
        if !instance.owes_unsent() {
            return Next::Sleep;
        }
        let topic = instance.topic.clone();
        let Some(lane) = self.lanes.choose(&topic, self.parts.sink.as_mut()) else { return Next::Later };
        let takes = self.lanes.batch_bytes_max(&topic);
        let alone = self.lanes.is_careful(&topic);
        let (epochs, host) = (&instance.epochs, &self.settings.node_name);
        for owed in &mut instance.owed {
            let before = epochs.iter().find(|epoch| epoch.id == owed.owed.epoch);
            if owed.in_flight.is_some() || !owed.stored || before.is_some_and(|epoch| !epoch.ledger.is_empty()) {
                continue;
            }
            let Some(slot) = self.free.pop() else { return Next::Later };
            let mut origin = Origin::new(topic.clone(), host, &instance.identity, &instance.known, &owed.owed.epoch);
            if let Some(takes) = takes {
                origin.make_room(host, &instance.identity, takes);
            }
            let chosen = owed.owed.partition.filter(|partition| *partition < partitions);
            let partition = chosen.unwrap_or_else(|| partition_of(&origin.key, partitions));
            origin.encode_notice(&mut self.value, &owed.owed.notice, owed.again);
            match self.parts.sink.send(lane, topic.as_str(), partition, &origin.key, &self.value, slot) {
                SendResult::Queued => {
                    self.parts.pending.add(slot, 1);
                    let bytes = self.value.len() as u64;
                    owed.in_flight = Some((slot, bytes));
                    self.fair.sent(&instance.identity.namespace, bytes);
                    self.lanes.sent(&topic, slot, Instant::now());
                    self.slots.insert(slot, key.clone());
                    self.flying.insert(key.clone());
                    if alone {
                        return Next::Sleep; // what becomes of it makes room for the next
                    }
                }
                // It is tried again; a refusal shows on the topic's lines as well.
                SendResult::Full | SendResult::Refused(_) | SendResult::Fatal => {
                    self.free.push(slot);
                    return Next::Later;
                }
            }
        }
        Next::Sleep
    }

    /// Takes in what became of notices. Returns the bytes that are no longer in flight; their slots are free.
    pub(super) fn settle_owed(&mut self, key: &InstanceKey) -> u64 {
        let Some(instance) = self.instances.get_mut(key) else { return 0 };
        let (pending, metrics, free) = (&self.parts.pending, &self.parts.metrics, &mut self.free);
        let (namespace, counters) = (&instance.identity.namespace, &instance.counters);
        let (mut failed, mut settled) = (false, 0);
        let mut reported = Vec::new();
        let before = instance.owed.len();
        instance.owed.retain_mut(|owed| {
            let Some((slot, bytes)) = owed.in_flight else { return true };
            if pending.outstanding(slot) != 0 {
                return true;
            }
            let arrived = pending.is_acknowledged(slot);
            pending.reset(slot);
            free.push(slot);
            reported.push((slot, arrived));
            settled += bytes;
            if arrived {
                owed.count_lost(metrics, namespace, counters);
            } else {
                (owed.in_flight, owed.again, failed) = (None, true, true);
            }
            !arrived
        });
        let now = Instant::now();
        for (slot, arrived) in reported {
            self.lanes.settled(&instance.topic, slot, arrived, now);
        }
        if instance.owed.len() != before {
            debug!(source = %key, notices = before - instance.owed.len(), "notices are acknowledged");
            self.dirty.insert(key.clone());
        }
        if failed {
            self.queue(key);
        }
        settled
    }
}
