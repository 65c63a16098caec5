//! Sets of numbers as ranges that are merged when they meet. Bounded by the number of separate ranges, whatever the number of records.

use std::collections::BTreeMap;

/// What is noted at both ends of a range, such as where the record lies that ends there.
pub trait Mark: Copy {}
impl<T: Copy> Mark for T {}

/// A set of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<M> {
    runs: BTreeMap<u64, Run<M>>,
}

/// The end of a range, and the marks of what gave its first and last number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run<M> {
    end: u64,
    first: M,
    last: M,
}

/// Numbers that are not there, `from` to before `to`, and the marks of what is there beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole<M> {
    /// The first number that is not there.
    pub from: u64,
    /// The next number that is there, or the end of what must be there.
    pub to: u64,
    /// What gave the number before.
    pub before: Option<M>,
    /// What gave the number after.
    pub after: Option<M>,
}

impl<M> Default for Ranges<M> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<M: Mark> Ranges<M> {
    /// Puts `start` to before `end` in.
    pub fn add(&mut self, start: u64, end: u64, mark: M) {
        if start >= end {
            return;
        }
        let mut run = Run { end, first: mark, last: mark };
        let mut from = start;
        // The common case: the next number of the last range.
        if let Some(mut last) = self.runs.last_entry()
            && *last.key() <= start
            && start <= last.get().end
        {
            let last = last.get_mut();
            if end > last.end {
                (last.end, last.last) = (end, mark);
            }
            return;
        }
        while let Some((&begins, &touching)) =
            self.runs.range(..=end).next_back().filter(|(_, other)| other.end >= start)
        {
            self.runs.remove(&begins);
            if begins < from || begins == from && touching.end >= end {
                (from, run.first) = (begins.min(from), touching.first);
            }
            if touching.end > run.end {
                (run.end, run.last) = (touching.end, touching.last);
            }
        }
        self.runs.insert(from, run);
    }

    /// Whether all of `start` to before `end` is in; of nothing, everything is.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.runs.range(..=start).next_back().is_some_and(|(_, run)| run.end >= end)
    }

    /// How many of `start` to before `end` are in.
    pub fn overlap(&self, start: u64, end: u64) -> u64 {
        let from = self.runs.range(..=start).next_back().map_or(start, |(&begins, _)| begins);
        let runs = self.runs.range(from..end.max(from));
        runs.map(|(&begins, run)| run.end.min(end).saturating_sub(begins.max(start))).sum()
    }

    /// How many numbers are in.
    pub fn total(&self) -> u64 {
        self.runs.iter().map(|(begins, run)| run.end - begins).sum()
    }

    /// How many numbers are in that are not in another set.
    pub fn beyond<N: Mark>(&self, other: &Ranges<N>) -> u64 {
        self.total() - self.runs.iter().map(|(&begins, run)| other.overlap(begins, run.end)).sum::<u64>()
    }

    /// The number after the highest one; 0 of nothing.
    pub fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(_, run)| run.end)
    }

    /// The separate ranges, first to before last, each with the mark of its first number.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64, M)> {
        self.runs.iter().map(|(&begins, run)| (begins, run.end, run.first))
    }

    /// How many separate ranges there are.
    pub fn count(&self) -> usize {
        self.runs.len()
    }

    /// What is not in of 0 to before `to`.
    pub fn holes(&self, to: u64) -> Vec<Hole<M>> {
        let mut holes = Vec::new();
        let (mut next, mut before) = (0, None);
        for (&begins, run) in self.runs.range(..to) {
            if begins > next {
                holes.push(Hole { from: next, to: begins, before, after: Some(run.first) });
            }
            (next, before) = (run.end, Some(run.last));
        }
        if next < to {
            holes.push(Hole { from: next, to, before, after: self.runs.range(to..).next().map(|(_, run)| run.first) });
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn holes_are_told_with_what_lies_beside_them() {
        let check = |added: &[(u64, u64, char)], to: u64, expected: &[(u64, u64, Option<char>, Option<char>)]| {
            let mut ranges = Ranges::default();
            for &(start, end, mark) in added {
                ranges.add(start, end, mark);
            }
            let holes: Vec<_> = ranges.holes(to).iter().map(|h| (h.from, h.to, h.before, h.after)).collect();
            assert_eq!(holes, expected, "{added:?} to {to}");
        };
        check(&[], 0, &[]);
        check(&[], 3, &[(0, 3, None, None)]);
        check(&[(0, 1, 'a'), (1, 3, 'b')], 3, &[]);
        check(&[(0, 1, 'a'), (1, 3, 'b')], 5, &[(3, 5, Some('b'), None)]);
        check(&[(2, 3, 'a')], 3, &[(0, 2, None, Some('a'))]);
        check(&[(0, 2, 'a'), (5, 6, 'b')], 6, &[(2, 5, Some('a'), Some('b'))]);
        // In any order; the marks are those of the numbers beside the hole, not of what came last.
        check(&[(5, 6, 'b'), (8, 9, 'c'), (0, 2, 'a'), (6, 8, 'd')], 9, &[(2, 5, Some('a'), Some('b'))]);
        check(&[(0, 2, 'a'), (5, 8, 'b'), (6, 7, 'c'), (0, 1, 'd')], 8, &[(2, 5, Some('a'), Some('b'))]);
        check(&[(3, 5, 'a'), (1, 9, 'b')], 9, &[(0, 1, None, Some('b'))]);
        check(&[(4, 4, 'a')], 2, &[(0, 2, None, None)]);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(added in proptest::collection::vec((0_u64..40, 0_u64..6), 0..30), asked in (0_u64..50, 0_u64..12)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (start, count) in added {
                ranges.add(start, start + count, ());
                set.extend(start..start + count);
            }
            let asked = asked.0..asked.0 + asked.1;
            prop_assert_eq!(ranges.total(), set.len() as u64);
            prop_assert_eq!(ranges.end(), set.last().map_or(0, |last| last + 1));
            prop_assert_eq!(ranges.overlap(asked.start, asked.end), asked.clone().filter(|n| set.contains(n)).count() as u64);
            prop_assert_eq!(ranges.covers(asked.start, asked.end), asked.clone().all(|n| set.contains(&n)));
            let missing: Vec<u64> = ranges.holes(asked.end).iter().flat_map(|hole| hole.from..hole.to).collect();
            prop_assert_eq!(missing, (0..asked.end).filter(|n| !set.contains(n)).collect::<Vec<_>>());
            // Ranges that meet are one.
            prop_assert_eq!(ranges.count(), set.iter().filter(|n| **n == 0 || !set.contains(&(**n - 1))).count());
        }
    }
}
