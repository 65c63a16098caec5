//! Repeats: which physical lines a stream has shown. Input: the numbers of each record. Output: whether all of it was seen.
//!
//! The router sends again what it cannot prove delivered, under the same numbers; a producer may repeat a batch on its own. Seen is a set of
//! numbers and never a high-water mark: after a refusal a log can read R2, R1, R2 (`docs/reliability.md`). A chunk of a long line is a repeat
//! only if its range of bytes was seen, or all of the lines that its end covers. Everything here is bounded; what is forgotten can only show a repeat, never hide a line.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

/// How many sources one stream remembers.
const SOURCES_MAX: usize = 4096;
/// How many separate runs of numbers one source remembers.
const RUNS_MAX: usize = 64;
/// How many long lines of one source have their chunks remembered.
const LONG_LINES_MAX: usize = 4;
/// How many long lines of one source are known to have been seen up to some byte.
const LONG_DONE_MAX: usize = 16;
/// How many notices one stream remembers.
const NOTICES_MAX: usize = 1024;

/// A source or notice, known by a hash of 128 bits under keys of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u128);

impl Id {
    /// The id of a text such as `fairlead.source`.
    pub fn of(text: &str) -> Self {
        static STATES: OnceLock<(RandomState, RandomState)> = OnceLock::new();
        let (high, low) = STATES.get_or_init(|| (RandomState::new(), RandomState::new()));
        Self(u128::from(high.hash_one(text)) << 64 | u128::from(low.hash_one(text)))
    }
}

/// What a record covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// Whole physical lines: `lines` of them from `seq`.
    Lines {
        /// The number of the first.
        seq: u64,
        /// How many.
        lines: u64,
    },
    /// A piece of the line (or joined lines) that begins at `seq`.
    Piece {
        /// The number of the first physical line.
        seq: u64,
        /// How many physical lines the last piece says it covers; 0 on the others.
        lines: u64,
        /// Where the piece begins in the joined line, in bytes.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
        /// Whether the line ends with it.
        last: bool,
    },
    /// A notice; the id is of its kind, source and number.
    Notice(Id),
}

/// What one stream has shown, by source.
#[derive(Debug, Default)]
pub struct Seen {
    sources: HashMap<Id, Source>,
    notices: HashMap<Id, u64>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Source {
    used: u64,
    numbers: Runs,
    long_lines: Vec<LongLine>,
    long_done: VecDeque<LongDone>,
}

#[derive(Debug, Default)]
struct LongLine {
    seq: u64,
    bytes: Runs,
    /// Where the line ends, and how many physical lines it covers: known once its last piece came.
    end: Option<(u64, u64)>,
}

/// A long line that was seen from its beginning. What was sent again may be longer: a fragment that had not come the first time.
#[derive(Clone, Copy, Debug)]
struct LongDone {
    seq: u64,
    bytes: u64,
}

/// Sorted, disjoint, half-open ranges.
#[derive(Debug, Default, PartialEq, Eq)]
struct Runs(Vec<(u64, u64)>);

impl Seen {
    /// Says whether all that the record covers was seen before.
    pub fn has(&self, source: Id, covers: &Covers) -> bool {
        match *covers {
            Covers::Notice(id) => self.notices.contains_key(&id),
            Covers::Lines { seq, lines } => {
                self.sources.get(&source).is_some_and(|source| source.has_lines(seq, lines))
            }
            Covers::Piece { seq, lines, offset, bytes, last } => self.sources.get(&source).is_some_and(|source| {
                (last && source.has_lines(seq, lines)) || source.has_bytes(seq, offset, bytes, last)
            }),
        }
    }

    /// Remembers what the record covers. Returns whether all of it was seen before.
    pub fn insert(&mut self, source: Id, covers: &Covers) -> bool {
        let repeat = self.has(source, covers);
        self.clock += 1;
        let now = self.clock;
        if let Covers::Notice(id) = *covers {
            self.notices.insert(id, now);
            forget_oldest(&mut self.notices, NOTICES_MAX, |used| *used);
            return repeat;
        }
        let entry = self.sources.entry(source).or_default();
        entry.used = now;
        match *covers {
            Covers::Lines { seq, lines } => entry.add_lines(seq, lines),
            Covers::Piece { seq, lines, offset, bytes, last } => entry.add_piece(seq, lines, offset, bytes, last),
            Covers::Notice(_) => {}
        }
        forget_oldest(&mut self.sources, SOURCES_MAX, |source| source.used);
        repeat
    }
}

impl Source {
    /// Numbers past the last one are no lines that a router wrote: such a record is never a repeat.
    fn has_lines(&self, seq: u64, lines: u64) -> bool {
        lines > 0 && seq.checked_add(lines).is_some_and(|end| self.numbers.covers(seq, end))
    }

    fn add_lines(&mut self, seq: u64, lines: u64) {
        if let Some(end) = seq.checked_add(lines) {
            self.numbers.add(seq, end);
        }
    }

    fn has_bytes(&self, seq: u64, offset: u64, bytes: u64, last: bool) -> bool {
        let Some(end) = offset.checked_add(bytes) else { return false };
        self.done(seq).is_some_and(|done| end <= done)
            || self.long_lines.iter().any(|line| {
                line.seq == seq
                    && match bytes {
                        // A piece without a byte only says where the line ends.
                        0 => last && line.end.is_some_and(|(known, _)| known == end),
                        _ => line.bytes.covers(offset, end),
                    }
            })
    }

    /// Up to which byte the line that begins at `seq` was seen from its beginning.
    fn done(&self, seq: u64) -> Option<u64> {
        self.long_done.iter().find(|done| done.seq == seq).map(|done| done.bytes)
    }

    fn add_piece(&mut self, seq: u64, lines: u64, offset: u64, bytes: u64, last: bool) {
        let Some(end) = offset.checked_add(bytes) else { return };
        let done = self.done(seq);
        if done.is_some_and(|done| end <= done) {
            return;
        }
        let at = self.long_lines.iter().position(|line| line.seq == seq).unwrap_or_else(|| {
            if self.long_lines.len() == LONG_LINES_MAX {
                self.long_lines.remove(0);
            }
            let mut line = LongLine { seq, ..LongLine::default() };
            line.bytes.add(0, done.unwrap_or(0));
            self.long_lines.push(line);
            self.long_lines.len() - 1
        });
        let line = &mut self.long_lines[at];
        line.bytes.add(offset, end);
        if last {
            line.end = Some((end, lines));
        }
        if let Some((end, lines)) = line.end
            && (end == 0 || line.bytes.covers(0, end))
        {
            self.long_lines.remove(at);
            self.add_lines(seq, lines.max(1));
            self.long_done.retain(|done| done.seq != seq);
            if self.long_done.len() == LONG_DONE_MAX {
                self.long_done.pop_front();
            }
            self.long_done.push_back(LongDone { seq, bytes: end });
        }
    }
}

impl Runs {
    fn covers(&self, from: u64, to: u64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= from);
        after > 0 && self.0[after - 1].1 >= to
    }

    fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && last.0 <= from
            && from <= last.1
        {
            last.1 = last.1.max(to);
            return;
        }
        let first = self.0.partition_point(|(_, end)| *end < from);
        let past = self.0.partition_point(|(start, _)| *start <= to);
        let (mut from, mut to) = (from, to);
        if first < past {
            from = from.min(self.0[first].0);
            to = to.max(self.0[past - 1].1);
        }
        self.0.splice(first..past, [(from, to)]);
        if self.0.len() > RUNS_MAX {
            self.0.remove(0);
        }
    }
}

/// Drops the quarter that was used longest ago once there are more than `max`.
fn forget_oldest<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, max: usize, used: impl Fn(&V) -> u64) {
    if map.len() <= max {
        return;
    }
    let mut ages: Vec<u64> = map.values().map(&used).collect();
    let (_, oldest_kept, _) = ages.select_nth_unstable(max / 4);
    let oldest_kept = *oldest_kept;
    map.retain(|_, value| used(value) >= oldest_kept);
}

#[cfg(test)]
mod tests;
