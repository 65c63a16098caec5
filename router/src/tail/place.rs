//! Places in a run of files, and what is remembered of them.

use serde::{Deserialize, Serialize};

/// A place in a run: which of its files, and the offset there in bytes.
///
/// `file` is the file's place in the epoch's list, counted from 0 and never counted anew, so that places compare in reading order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The file's place in the epoch's list.
    pub file: u32,
    /// Bytes from the file's beginning.
    pub offset: u64,
}

/// Where one stream stands: everything of it before the place is done, and its next physical line has this number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// The place.
    #[serde(flatten)]
    pub place: Place,
    /// The number of the stream's next physical line.
    pub next: u64,
    /// Bytes of the stream's physical lines before it, newlines included.
    #[serde(default)]
    pub bytes: u64,
}

/// How many physical lines, and their bytes in the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Physical lines.
    pub lines: u64,
    /// Their bytes, newlines included.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }
}

impl Count {
    /// What is left without `other`, which is not more.
    pub fn less(self, other: Self) -> Self {
        Self { lines: self.lines.saturating_sub(other.lines), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// The smaller of both, in lines and in bytes.
    pub fn min(self, other: Self) -> Self {
        Self { lines: self.lines.min(other.lines), bytes: self.bytes.min(other.bytes) }
    }

    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self.lines == 0
    }
}

/// The positions of a run, by file descriptor: 0 lines that cannot be parsed, 1 stdout, 2 stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(pub [StreamPosition; 3]);

impl Positions {
    /// All streams at one place, counting from 0.
    pub fn start_at(place: Place) -> Self {
        Self([StreamPosition { place, next: 0, bytes: 0 }; 3])
    }

    /// Where reading begins: the lowest place of any stream.
    pub fn lowest(&self) -> Place {
        self.0.iter().map(|stream| stream.place).min().unwrap_or_default()
    }

    /// The same places with all numbers back at 0, as a new epoch has them.
    pub fn renumbered(&self) -> Self {
        Self(self.0.map(|stream| StreamPosition { next: 0, bytes: 0, ..stream }))
    }

    /// What each stream has before its position.
    pub fn counts(&self) -> [Count; 3] {
        self.0.map(|stream| Count { lines: stream.next, bytes: stream.bytes })
    }

    /// For each stream the position that is further on.
    pub fn max(&self, other: &Self) -> Self {
        let further = |fd: usize| {
            let (one, two) = (self.0[fd], other.0[fd]);
            if (two.place, two.next) > (one.place, one.next) { two } else { one }
        };
        Self([further(0), further(1), further(2)])
    }
}
