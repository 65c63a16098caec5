//! The number of a producer.

/// One of the producers of a [`Sink`](super::Sink).
///
/// Kafka answers the requests of one connection in order, so whatever is slow on a lane makes all of it slow. Records of
/// one partition go through one lane at a time: two could overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// How many there may be at a time: the main one, the slow one, and one that still drains.
    pub const COUNT: usize = 3;
    /// The lane that is there from the start.
    pub const FIRST: Lane = Lane(0);

    /// All lanes that there may be.
    pub fn all() -> impl Iterator<Item = Lane> {
        (0..Lane::COUNT as u8).map(Lane)
    }

    /// From 0 to below [`Lane::COUNT`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
