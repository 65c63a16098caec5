//! Positions: the next offset to read of each partition of one topic.

/// The next offset to read of each partition. A partition that has no entry was never read: it is read from its beginning.
#[derive(Clone, Debug, Default)]
pub struct Positions(Vec<Option<i64>>);

impl Positions {
    /// The positions of partitions 0, 1, 2 …
    pub fn from_offsets(offsets: &[i64]) -> Self {
        Self(offsets.iter().copied().map(Some).collect())
    }

    /// The next offset to read of a partition, if any was read.
    pub fn get(&self, partition: i32) -> Option<i64> {
        self.0.get(usize::try_from(partition).ok()?).copied().flatten()
    }

    /// Says the next offset to read of a partition.
    pub fn set(&mut self, partition: i32, offset: i64) {
        let Ok(index) = usize::try_from(partition) else { return };
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some(offset);
    }

    /// Moves a partition forward, never back.
    pub fn advance(&mut self, partition: i32, offset: i64) {
        if self.get(partition).is_none_or(|at| at < offset) {
            self.set(partition, offset);
        }
    }

    /// One more than the highest partition that has an entry.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no partition has an entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries of partitions 0, 1, 2 …
    pub fn iter(&self) -> impl Iterator<Item = Option<i64>> + '_ {
        self.0.iter().copied()
    }
}

impl PartialEq for Positions {
    fn eq(&self, other: &Self) -> bool {
        (0..self.len().max(other.len()))
            .all(|index| self.0.get(index).copied().flatten() == other.0.get(index).copied().flatten())
    }
}

impl Eq for Positions {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_forward_only() {
        let mut positions = Positions::default();
        for (partition, offset, expected) in [(2, 5, 5), (2, 3, 5), (2, 9, 9), (0, 0, 0), (-1, 4, 0)] {
            positions.advance(partition, offset);
            assert_eq!(positions.get(partition).unwrap_or(0), expected);
        }
        assert_eq!(positions.get(1), None);
        assert_eq!(positions.len(), 3);
        assert_eq!(positions.iter().collect::<Vec<_>>(), [Some(0), None, Some(9)]);
    }

    #[test]
    fn trailing_unknown_partitions_make_no_difference() {
        let mut longer = Positions::from_offsets(&[1]);
        longer.0.push(None);
        assert_eq!(longer, Positions::from_offsets(&[1]));
        assert_ne!(longer, Positions::from_offsets(&[2]));
    }
}
