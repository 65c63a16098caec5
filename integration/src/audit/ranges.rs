//! Sets of numbers as merged ranges.

use std::collections::BTreeMap;

/// A set of numbers: start to end (behind the last), no two of them touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds all from `start` to before `end`.
    pub fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        let touching: Vec<u64> =
            self.0.range(..=end).filter(|&(_, &covered)| covered >= start).map(|(&from, _)| from).collect();
        for from in touching {
            let covered = self.0.remove(&from).unwrap_or(from);
            start = start.min(from);
            end = end.max(covered);
        }
        self.0.insert(start, end);
    }

    /// Are all from `start` to before `end` there?
    pub fn contains(&self, start: u64, end: u64) -> bool {
        self.0.range(..=start).next_back().is_some_and(|(_, &covered)| covered >= end)
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Behind the last number; 0 if there is none.
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// Are all numbers from 0 to the last there?
    pub fn is_whole(&self) -> bool {
        self.count() == self.end()
    }

    /// Both together.
    pub fn union(&self, other: &Ranges) -> Ranges {
        let mut both = self.clone();
        for (&start, &end) in &other.0 {
            both.add(start, end);
        }
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_where_they_touch() {
        let check = |added: &[(u64, u64)], expected: &[(u64, u64)]| {
            let mut ranges = Ranges::default();
            for &(start, end) in added {
                ranges.add(start, end);
            }
            assert_eq!(ranges.0.into_iter().collect::<Vec<_>>(), expected, "{added:?}");
        };
        check(&[(0, 2), (2, 3)], &[(0, 3)]);
        check(&[(5, 7), (0, 2)], &[(0, 2), (5, 7)]);
        check(&[(0, 2), (5, 7), (1, 6)], &[(0, 7)]);
        check(&[(3, 3)], &[]);
        check(&[(0, 9), (3, 4)], &[(0, 9)]);
    }

    #[test]
    fn know_what_they_hold() {
        let mut ranges = Ranges::default();
        assert!(ranges.is_whole() && !ranges.contains(0, 1));
        ranges.add(2, 5);
        assert_eq!((ranges.count(), ranges.end(), ranges.is_whole()), (3, 5, false));
        assert!(ranges.contains(3, 5) && !ranges.contains(3, 6) && !ranges.contains(1, 3));
        let mut other = Ranges::default();
        other.add(0, 2);
        assert!(ranges.union(&other).is_whole());
    }
}
