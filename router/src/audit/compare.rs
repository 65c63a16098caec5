//! Does an equal number mean an equal line? Keeps fingerprints of the latest records and compares what comes again with them, also where lines
//! were joined from fragments or cut into chunks otherwise this time.
//!
//! Memory is bounded by forgetting: what was forgotten is told as not compared.

use std::collections::{BTreeMap, HashMap, VecDeque};

use fairlead_contract::record::Chunk;

use super::text::{Fingerprints, Text};

/// Steps of one search for another way to join the same lines.
const STEPS_MAX: u32 = 1_024;
/// Pieces of one line that wait for the piece before them.
const WAITING_MAX: usize = 64;
/// Records of one source that join several lines and that others are compared with.
const JOINED_MAX: usize = 1_024;

/// What came of comparing a record with what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is known of these lines, or not in a way that can be compared.
    Unknown,
    /// The same lines came before, and are the same. How many records of the source ago, where they came as one record.
    Equal {
        /// None where they were joined or cut otherwise.
        records_ago: Option<u64>,
    },
    /// The same lines came before with another text or time.
    Differs,
}

/// The lines of one record.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// Which source.
    pub source: u32,
    /// How many records of the source came before.
    pub ordinal: u64,
    /// The first number.
    pub seq: u64,
    /// How many lines.
    pub lines: u64,
    /// Whether some of the numbers came before: only then is it worth a search.
    pub seen: bool,
    /// The line's time.
    pub time: &'a str,
    /// The line.
    pub log: &'a str,
}

/// What is known of lines that came as one record, or as all chunks of a line.
#[derive(Clone, Copy, Debug)]
struct Known {
    end: u64,
    text: Text,
    stamp: u64,
    ordinal: u64,
}

/// What is known of a line that came in chunks: its text up to each place where it was cut.
#[derive(Debug, Default)]
struct Cut {
    upto: BTreeMap<u64, Text>,
    waiting: Vec<Piece>,
    stamp: u64,
    ordinal: u64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    offset: u64,
    text: Text,
    /// For the last piece, how many lines end with it.
    ends: Option<u64>,
}

/// A search for records that together cover the lines of another one.
struct Search<'a> {
    source: u32,
    seq: u64,
    whole: &'a Known,
    through: Option<(u64, u64)>,
    steps: u32,
}

type Place = (u32, u64);

/// The memory of texts.
#[derive(Debug)]
pub struct Memory {
    prints: Fingerprints,
    known: HashMap<Place, Known>,
    /// Where the same first number has several records of different length.
    others: HashMap<Place, Vec<Known>>,
    cut: HashMap<Place, Cut>,
    /// Records of more than one line, by source: where they begin and end.
    joined: HashMap<u32, BTreeMap<u64, u64>>,
    order: VecDeque<Place>,
    records_max: usize,
}

impl Memory {
    /// Remembers about so many records.
    pub fn new(records_max: usize) -> Self {
        Self {
            prints: Fingerprints::drawn(),
            known: HashMap::new(),
            others: HashMap::new(),
            cut: HashMap::new(),
            joined: HashMap::new(),
            order: VecDeque::new(),
            records_max: records_max.max(1),
        }
    }

    /// Compares a whole record with what is known, and remembers it.
    pub fn whole(&mut self, lines: &Lines<'_>) -> Outcome {
        let (text, stamp) = (self.prints.of(lines.log), self.prints.stamp(lines.time));
        let known = Known { end: lines.seq.saturating_add(lines.lines), text, stamp, ordinal: lines.ordinal };
        self.compare(lines, known)
    }

    /// Compares a chunk with what is known, and remembers it.
    pub fn chunk(&mut self, lines: &Lines<'_>, chunk: &Chunk) -> Outcome {
        let (text, stamp) = (self.prints.of(lines.log), self.prints.stamp(lines.time));
        let place = (lines.source, lines.seq);
        if !self.cut.contains_key(&place) {
            let start = self.prints.of("");
            let cut = Cut { upto: BTreeMap::from([(0, start)]), waiting: Vec::new(), stamp, ordinal: lines.ordinal };
            self.cut.insert(place, cut);
        }
        let cut = self.cut.get_mut(&place).expect("it was put in");
        let mut outcome = Outcome::Unknown;
        if cut.stamp != stamp {
            outcome = Outcome::Differs;
        }
        let first = Piece { offset: chunk.offset, text, ends: chunk.last.then_some(lines.lines) };
        let same = |piece: &&Piece| piece.offset == first.offset && piece.text.bytes() == text.bytes();
        let ago = lines.ordinal.saturating_sub(cut.ordinal);
        match cut.waiting.iter().find(same) {
            Some(piece) if !piece.text.equals(&text) => outcome = Outcome::Differs,
            Some(_) if outcome == Outcome::Unknown => outcome = Outcome::Equal { records_ago: Some(ago) },
            Some(_) => {}
            None if cut.waiting.len() < WAITING_MAX => cut.waiting.push(first),
            None => {}
        }
        let mut ended = Vec::new();
        while let Some(at) = cut.waiting.iter().position(|piece| cut.upto.contains_key(&piece.offset)) {
            let piece = cut.waiting.swap_remove(at);
            let upto = self.prints.join(&cut.upto[&piece.offset], &piece.text);
            let reached = piece.offset.saturating_add(piece.text.bytes());
            match cut.upto.get(&reached) {
                Some(known) if !known.equals(&upto) => outcome = Outcome::Differs,
                Some(_) if outcome == Outcome::Unknown && piece.text.bytes() > 0 => {
                    outcome = Outcome::Equal { records_ago: Some(ago) };
                }
                Some(_) => {}
                None => {
                    cut.upto.insert(reached, upto);
                }
            }
            if let Some(lines) = piece.ends {
                ended.push((upto, lines));
            }
        }
        cut.ordinal = lines.ordinal;
        self.order.push_back(place);
        for (text, count) in ended {
            let whole = Lines { lines: count, ..*lines };
            let known = Known { end: lines.seq.saturating_add(count), text, stamp, ordinal: lines.ordinal };
            match self.compare(&whole, known) {
                Outcome::Unknown => {}
                found => outcome = if outcome == Outcome::Differs { outcome } else { found },
            }
        }
        self.forget();
        outcome
    }

    fn compare(&mut self, lines: &Lines<'_>, new: Known) -> Outcome {
        let place = (lines.source, lines.seq);
        let mut outcome = Outcome::Unknown;
        let mut exact = false;
        for known in self.at(place) {
            if known.stamp != new.stamp || known.end == new.end && !known.text.equals(&new.text) {
                outcome = Outcome::Differs;
            } else if known.end == new.end && outcome == Outcome::Unknown {
                outcome = Outcome::Equal { records_ago: Some(lines.ordinal.saturating_sub(known.ordinal)) };
            }
            exact |= known.end == new.end;
        }
        if exact {
            if let Some(known) = self.all_at(place).find(|known| known.end == new.end) {
                known.ordinal = new.ordinal;
            }
            return outcome;
        }
        self.remember(place, new);
        if lines.seen && outcome == Outcome::Unknown {
            outcome = self.compare_joined(lines, &new);
        }
        self.forget();
        outcome
    }

    /// Looks for other ways to join the same lines: for this record, and for those that it is a part of.
    fn compare_joined(&self, lines: &Lines<'_>, new: &Known) -> Outcome {
        let mut outcome = self.way(lines.source, lines.seq, new, None);
        if let Some(joined) = self.joined.get(&lines.source) {
            let part = (lines.seq, new.end);
            for (&seq, _) in joined.range(..=lines.seq).rev().take(JOINED_MAX).filter(|(_, end)| **end >= new.end) {
                for whole in self.at((lines.source, seq)).filter(|whole| whole.end >= new.end) {
                    match self.way(lines.source, seq, whole, Some(part)) {
                        Outcome::Unknown => {}
                        found => outcome = if outcome == Outcome::Differs { outcome } else { found },
                    }
                }
            }
        }
        outcome
    }

    /// Compares a record with the shorter ones that cover the same lines; `through`: with a way that this part belongs to.
    fn way(&self, source: u32, seq: u64, whole: &Known, through: Option<(u64, u64)>) -> Outcome {
        let mut search = Search { source, seq, whole, through, steps: STEPS_MAX };
        match self.walk(&mut search, seq, None) {
            None => Outcome::Unknown,
            Some(true) => Outcome::Equal { records_ago: None },
            Some(false) => Outcome::Differs,
        }
    }

    /// Joins shorter records from `at` on until the end of the whole; none where there is no such way, or it cannot be compared.
    fn walk(&self, search: &mut Search<'_>, at: u64, upto: Option<Text>) -> Option<bool> {
        if at == search.whole.end {
            return upto.map(|text| text.equals(&search.whole.text));
        }
        for known in self.at((search.source, at)) {
            search.steps = search.steps.checked_sub(1)?;
            let whole = (search.seq, search.whole.end);
            let off = search
                .through
                .is_some_and(|(from, to)| if at == from { known.end != to } else { at < from && known.end > from });
            if known.end <= at || known.end > search.whole.end || (at, known.end) == whole || off {
                continue;
            }
            let next = match &upto {
                None => known.text,
                Some(text) if text.joins(&known.text) => self.prints.join(text, &known.text),
                Some(_) => continue,
            };
            if let Some(equal) = self.walk(search, known.end, Some(next)) {
                return Some(equal);
            }
        }
        None
    }

    fn at(&self, place: Place) -> impl Iterator<Item = &Known> {
        self.known.get(&place).into_iter().chain(self.others.get(&place).into_iter().flatten())
    }

    fn all_at(&mut self, place: Place) -> impl Iterator<Item = &mut Known> {
        self.known.get_mut(&place).into_iter().chain(self.others.get_mut(&place).into_iter().flatten())
    }

    fn remember(&mut self, place: Place, new: Known) {
        if new.end.saturating_sub(place.1) > 1 {
            let joined = self.joined.entry(place.0).or_default();
            let end = joined.entry(place.1).or_insert(new.end);
            *end = new.end.max(*end);
        }
        if let Some(first) = self.known.get(&place) {
            let others = self.others.entry(place).or_default();
            if first.end != new.end && others.len() < WAITING_MAX {
                others.push(new);
            }
        } else {
            self.known.insert(place, new);
        }
        self.order.push_back(place);
    }

    fn forget(&mut self) {
        while self.order.len() > self.records_max {
            let Some(place) = self.order.pop_front() else { return };
            self.known.remove(&place);
            self.others.remove(&place);
            self.cut.remove(&place);
            if let Some(joined) = self.joined.get_mut(&place.0) {
                joined.remove(&place.1);
                if joined.is_empty() {
                    self.joined.remove(&place.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUAL: &str = "equal";
    const DIFFERS: &str = "differs";
    const UNKNOWN: &str = "unknown";

    fn word(outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Unknown => UNKNOWN,
            Outcome::Equal { .. } => EQUAL,
            Outcome::Differs => DIFFERS,
        }
    }

    /// Records as (seq, lines, chunk as (offset, last), log); what comes of each.
    type Given<'a> = (u64, u64, Option<(u64, bool)>, &'a str, &'a str);

    fn play(memory: &mut Memory, given: &[Given<'_>]) {
        for (ordinal, &(seq, lines, chunk, log, expected)) in given.iter().enumerate() {
            let time = if ordinal > 0 && log == "late" { "later" } else { "t" };
            let of = Lines { source: 0, ordinal: ordinal as u64, seq, lines, seen: true, time, log };
            let outcome = match chunk {
                None => memory.whole(&of),
                Some((offset, last)) => memory.chunk(&of, &Chunk { index: 0, offset, last }),
            };
            assert_eq!(word(outcome), expected, "{ordinal} of {given:?}: {outcome:?}");
        }
    }

    #[test]
    fn what_comes_again_is_compared() {
        let check = |given: &[Given<'_>]| play(&mut Memory::new(1_000), given);
        check(&[
            (0, 1, None, "a", UNKNOWN),
            (1, 1, None, "b", UNKNOWN),
            (0, 1, None, "a", EQUAL),
            (1, 1, None, "b", EQUAL),
        ]);
        check(&[(0, 1, None, "a", UNKNOWN), (0, 1, None, "b", DIFFERS), (0, 1, None, "a", EQUAL)]);
        check(&[(0, 1, None, "late", UNKNOWN), (0, 1, None, "late", DIFFERS)]);
        // Another source's numbers are of no matter; nor are numbers nobody saw.
        check(&[(0, 1, None, "a", UNKNOWN), (1, 1, None, "a", UNKNOWN), (7, 3, None, "abc", UNKNOWN)]);
    }

    #[test]
    fn lines_joined_otherwise_are_compared_as_a_whole() {
        let check = |given: &[Given<'_>]| play(&mut Memory::new(1_000), given);
        // Sent early, then whole; and the other way round.
        check(&[(0, 2, None, "ab", UNKNOWN), (2, 1, None, "c", UNKNOWN), (0, 3, None, "abc", EQUAL)]);
        check(&[(0, 2, None, "ab", UNKNOWN), (2, 1, None, "c", UNKNOWN), (0, 3, None, "abd", DIFFERS)]);
        check(&[(0, 3, None, "abc", UNKNOWN), (0, 2, None, "ab", UNKNOWN), (2, 1, None, "c", EQUAL)]);
        check(&[(0, 3, None, "abc", UNKNOWN), (0, 2, None, "ab", UNKNOWN), (2, 1, None, "x", DIFFERS)]);
        check(&[(0, 3, None, "abc", UNKNOWN), (2, 1, None, "c", UNKNOWN), (0, 2, None, "ax", DIFFERS)]);
        check(&[
            (4, 3, None, "abc", UNKNOWN),
            (4, 1, None, "a", UNKNOWN),
            (5, 2, None, "bc", EQUAL),
            (5, 1, None, "b", UNKNOWN),
            (6, 1, None, "c", EQUAL),
            (6, 1, None, "d", DIFFERS),
        ]);
        // Bytes of one character in two fragments read otherwise when they are joined.
        check(&[(0, 1, None, "a\u{fffd}", UNKNOWN), (1, 1, None, "\u{fffd}b", UNKNOWN), (0, 2, None, "aéb", UNKNOWN)]);
    }

    #[test]
    fn chunks_cut_otherwise_are_compared_where_they_meet() {
        let check = |given: &[Given<'_>]| play(&mut Memory::new(1_000), given);
        let first = [(5, 0, Some((0, false)), "abc", UNKNOWN), (5, 0, Some((3, false)), "def", UNKNOWN)];
        let with =
            |more: &[Given<'static>]| [first.as_slice(), &[(5, 1, Some((6, true)), "gh", UNKNOWN)], more].concat();
        check(&with(&[(5, 0, Some((0, false)), "abc", EQUAL), (5, 1, Some((6, true)), "gh", EQUAL)]));
        check(&with(&[(5, 0, Some((0, false)), "abx", DIFFERS)]));
        check(&with(&[(5, 0, Some((0, false)), "abcde", UNKNOWN), (5, 1, Some((5, true)), "fgh", EQUAL)]));
        check(&with(&[(5, 0, Some((0, false)), "abcde", UNKNOWN), (5, 1, Some((5, true)), "fgi", DIFFERS)]));
        check(&with(&[(5, 0, Some((0, false)), "abxde", UNKNOWN), (5, 1, Some((5, true)), "fgh", DIFFERS)]));
        // A piece before the one it continues.
        check(&with(&[(5, 1, Some((4, true)), "efgh", UNKNOWN), (5, 0, Some((0, false)), "abcd", EQUAL)]));
        check(&with(&[(5, 1, Some((4, true)), "efgh", UNKNOWN), (5, 0, Some((0, false)), "abcx", DIFFERS)]));
        // As one record, and its fragments sent early.
        check(&with(&[(5, 1, None, "abcdefgh", EQUAL), (5, 1, None, "abcdefgx", DIFFERS)]));
        check(&[
            (5, 1, None, "abcdef", UNKNOWN),
            (5, 0, Some((0, false)), "abc", UNKNOWN),
            (5, 1, Some((3, true)), "def", EQUAL),
        ]);
        check(&[
            (5, 1, None, "abcdef", UNKNOWN),
            (5, 0, Some((0, false)), "abc", UNKNOWN),
            (5, 1, Some((3, true)), "dex", DIFFERS),
        ]);
        check(&[
            (5, 1, None, "abc", UNKNOWN),
            (6, 1, None, "def", UNKNOWN),
            (5, 0, Some((0, false)), "ab", UNKNOWN),
            (5, 2, Some((2, true)), "cdef", EQUAL),
        ]);
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = Memory::new(10);
        for number in 0..1_000 {
            let chunk = (number % 7 == 0).then_some((0, number % 2 == 0));
            play(&mut memory, &[(number, 1 + number % 3, chunk, "x", UNKNOWN)]);
            let kept = memory.known.len() + memory.others.len() + memory.cut.len() + memory.joined.len();
            assert!(memory.order.len() <= 10 && kept <= 40, "{kept}");
        }
        play(&mut memory, &[(990, 1, None, "x", UNKNOWN), (999, 1, None, "x", EQUAL), (999, 1, None, "y", DIFFERS)]);
    }
}
