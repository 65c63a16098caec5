//! The in-flight records of one run, by the reads that made them. A position moves when all records before it are acknowledged.

use std::collections::VecDeque;

use crate::{
    pipeline::Made,
    produce::{Pending, Slot},
    tail::{Count, Positions},
};

/// What one read of a run sent, and where the run stands once that is acknowledged.
#[derive(Debug)]
struct Entry {
    slot: Slot,
    after: Positions,
    bytes: u64,
    left_out: Count,
    records: u64,
    failed: bool,
}

/// What became acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Where all streams stand now.
    pub at: Option<Positions>,
    /// Bytes of Kafka values.
    pub bytes: u64,
    /// Physical lines that policy left out; their notices are acknowledged too.
    pub left_out: Count,
    /// Records.
    pub records: u64,
}

/// The reads in flight of one run, oldest first.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    failed: bool,
}

impl Ledger {
    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a delivery failed: the run must go back to its position once all is settled.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Adds a finished read, and where all streams stand once what it made is acknowledged.
    pub fn push(&mut self, slot: Slot, after: Positions, made: &Made) {
        let Made { bytes, left_out, records, .. } = *made;
        self.entries.push_back(Entry { slot, after, bytes, left_out, records, failed: false });
    }

    /// Where all streams stand once a read is acknowledged; none if it is not one of these.
    pub fn after(&self, slot: Slot) -> Option<Positions> {
        self.entries.iter().find(|entry| entry.slot == slot).map(|entry| entry.after)
    }

    /// Marks the read whose record was not delivered; false when it is not one of these.
    pub fn fail(&mut self, slot: Slot) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.slot == slot) else { return false };
        entry.failed = true;
        self.failed = true;
        true
    }

    /// Takes out what is acknowledged without a gap; its slots go back to `free`.
    pub fn settle(&mut self, pending: &Pending, free: &mut Vec<Slot>) -> Settled {
        let mut settled = Settled::default();
        while let Some(entry) = self.entries.front()
            && !entry.failed
            && pending.is_acknowledged(entry.slot)
        {
            settled.at = Some(entry.after);
            settled.bytes += entry.bytes;
            settled.left_out += entry.left_out;
            settled.records += entry.records;
            free.push(entry.slot);
            self.entries.pop_front();
        }
        settled
    }

    /// After a failure, once every record is settled one way or the other: forgets all reads, so that the run can go back. Returns the bytes
    /// that are no longer in flight, or `None` while records are still under way.
    pub fn forget(&mut self, pending: &Pending, free: &mut Vec<Slot>) -> Option<u64> {
        if self.entries.iter().any(|entry| pending.outstanding(entry.slot) != 0) {
            return None;
        }
        self.failed = false;
        let bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        for entry in self.entries.drain(..) {
            pending.reset(entry.slot);
            free.push(entry.slot);
        }
        Some(bytes)
    }
}
