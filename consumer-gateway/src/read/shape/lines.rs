//! Whole lines of text: several pieces are one line. Input: the records of a stream as they are taken. Output: which of them begin or end a line.
//!
//! Pieces that a filter leaves out belong to their line too, so that its beginning and end are known.

use std::collections::HashMap;

use fairlead_contract::record::Chunk;

use crate::read::repeats::Id;

/// How many long lines are open at one time; the one that was begun first is taken as ended.
const OPEN_MAX: usize = 256;

/// The long lines that have begun and not ended.
#[derive(Debug, Default)]
pub struct Lines {
    open: HashMap<Id, Open>,
    begun: u64,
}

/// A long line that has begun.
#[derive(Debug)]
pub struct Open {
    begun: u64,
    seq: u64,
    /// Whether its first piece was there.
    pub whole: bool,
    /// Whether a piece of it was asked for.
    pub taken: bool,
    /// Whether it is one of the first lines that are counted but not written.
    pub skipped: bool,
}

impl Open {
    /// Whether something of it was written.
    fn written(&self) -> bool {
        self.taken && !self.skipped
    }
}

impl Lines {
    /// Notes a record of a source. Returns how many written lines end because of it: without their last piece.
    pub fn begin(&mut self, source: Id, seq: u64, chunk: Option<Chunk>) -> u64 {
        let mut ended = 0;
        if self.open.get(&source).is_some_and(|open| chunk.is_none() || open.seq != seq) {
            ended += self.end(source);
        }
        if let Some(chunk) = chunk {
            self.begun += 1;
            let (begun, whole) = (self.begun, chunk.offset == 0);
            self.open.entry(source).or_insert(Open { begun, seq, whole, taken: false, skipped: false });
            if self.open.len() > OPEN_MAX
                && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.begun).map(|(source, _)| *source)
            {
                ended += self.end(oldest);
            }
        }
        ended
    }

    /// The line of a source that has begun.
    pub fn open(&mut self, source: Id) -> Option<&mut Open> {
        self.open.get_mut(&source)
    }

    /// Ends the line of a source. Returns 1 if something of it was written.
    pub fn end(&mut self, source: Id) -> u64 {
        self.open.remove(&source).map_or(0, |open| u64::from(open.written()))
    }

    /// Ends all lines. Returns of how many something was written.
    pub fn end_all(&mut self) -> u64 {
        self.open.drain().map(|(_, open)| u64::from(open.written())).sum()
    }
}
