//! How many records of each chunk of lines are not reported yet, and whether one of them failed.

use std::sync::atomic::{AtomicU32, Ordering};

/// Set once a record of the slot failed; cleared only by [`Pending::reset`].
const FAILED: u32 = 1 << 31;

/// The place of a chunk of lines in [`Pending`]: lines read in one go share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A fixed table of counters, one a slot.
///
/// A slot with a failed record is not acknowledged, whatever its count, until it is reset: a failure that nobody looked
/// at can never move a position.
#[derive(Debug)]
pub struct Pending {
    slots: Box<[AtomicU32]>,
}

impl Pending {
    /// The usual size of the table.
    pub const SLOTS: usize = 65_536;

    /// Makes a table of so many slots, all free.
    pub fn new(slots: usize) -> Pending {
        Pending { slots: (0..slots).map(|_| AtomicU32::new(0)).collect() }
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Counts records that are being sent with the slot; at the latest before the sink is polled next.
    pub fn add(&self, slot: Slot, records: u32) {
        self.at(slot).fetch_add(records, Ordering::AcqRel);
    }

    /// Records of the slot that are not reported yet.
    pub fn outstanding(&self, slot: Slot) -> u32 {
        self.at(slot).load(Ordering::Acquire) & !FAILED
    }

    /// Whether a record of the slot failed since it was reset.
    pub fn has_failed(&self, slot: Slot) -> bool {
        self.at(slot).load(Ordering::Acquire) & FAILED != 0
    }

    /// Whether every record of the slot was acknowledged.
    pub fn is_acknowledged(&self, slot: Slot) -> bool {
        self.at(slot).load(Ordering::Acquire) == 0
    }

    /// Makes the slot free for another chunk. Only when nothing is outstanding: a late report would count for the next.
    pub fn reset(&self, slot: Slot) {
        debug_assert_eq!(self.outstanding(slot), 0, "slot {} is still in use", slot.0);
        self.at(slot).store(0, Ordering::Release);
    }

    /// A record of the slot was acknowledged.
    pub(crate) fn acknowledge(&self, slot: Slot) {
        self.at(slot).fetch_sub(1, Ordering::AcqRel);
    }

    /// A record of the slot failed.
    pub(super) fn fail(&self, slot: Slot) {
        self.at(slot).fetch_or(FAILED, Ordering::AcqRel);
        self.at(slot).fetch_sub(1, Ordering::AcqRel);
    }

    /// Fails whatever is outstanding in the slots that are meant, and gives each one's count of it.
    pub(super) fn fail_outstanding(&self, is_meant: impl Fn(Slot) -> bool) -> impl Iterator<Item = (Slot, u32)> {
        self.slots.iter().enumerate().filter_map(move |(index, counter)| {
            let outstanding = counter.load(Ordering::Acquire) & !FAILED;
            let slot = Slot(u32::try_from(index).expect("a table has fewer than 2^32 slots"));
            if outstanding == 0 || !is_meant(slot) {
                return None;
            }
            counter.store(FAILED, Ordering::Release);
            Some((slot, outstanding))
        })
    }

    fn at(&self, slot: Slot) -> &AtomicU32 {
        &self.slots[slot.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_slot_is_never_acknowledged_until_it_is_reset() {
        let pending = Pending::new(4);
        let slot = Slot(2);
        assert!(pending.is_acknowledged(slot));
        pending.add(slot, 3);
        pending.acknowledge(slot);
        pending.fail(slot);
        assert_eq!((pending.outstanding(slot), pending.has_failed(slot)), (1, true));
        pending.acknowledge(slot);
        assert_eq!(pending.outstanding(slot), 0);
        assert!(!pending.is_acknowledged(slot));
        assert!(pending.is_acknowledged(Slot(1)), "others are not touched");
        pending.reset(slot);
        assert!(pending.is_acknowledged(slot));
    }

    #[test]
    fn all_that_is_outstanding_can_be_failed_at_once() {
        let pending = Pending::new(4);
        pending.add(Slot(0), 2);
        pending.add(Slot(1), 5);
        pending.add(Slot(3), 1);
        let all_but_one = |slot| slot != Slot(1);
        assert_eq!(pending.fail_outstanding(all_but_one).collect::<Vec<_>>(), [(Slot(0), 2), (Slot(3), 1)]);
        assert!(pending.has_failed(Slot(3)) && pending.outstanding(Slot(3)) == 0);
        assert_eq!((pending.has_failed(Slot(1)), pending.outstanding(Slot(1))), (false, 5));
        assert_eq!(pending.fail_outstanding(all_but_one).count(), 0);
    }
}
