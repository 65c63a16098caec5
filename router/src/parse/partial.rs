//! Joins the fragments of a line, and cuts what is longer than a record may be.
//!
//! A joiner belongs to one stream of one run and lives across rotations. It never invents a number: a record covers the physical lines that
//! were put in, whatever made it end there.

use std::time::Instant;

use fairlead_contract::record::{Chunk, Timestamp, text_bytes};

use crate::tail::{Count, Place};

const STAMP_BYTES_MAX: usize = 40;

/// A line that has begun and has not ended.
#[derive(Debug)]
pub struct Partial {
    /// Where its first physical line begins.
    pub start: Place,
    /// What the stream had before it: its lines are the number of its first physical line.
    pub first: Count,
    /// How many physical lines were put in.
    pub lines: u64,
    /// When the first and the latest byte were put in.
    pub since: Instant,
    /// When the latest byte was put in.
    pub latest: Instant,
    /// Whether lines of another stream were read since: the position waits for this line.
    pub others_wait: bool,
    /// Bytes behind its beginning in the files that were read to their end since.
    pub bytes_in_ended_files: u64,
    stamp: [u8; STAMP_BYTES_MAX],
    stamp_bytes: usize,
    content: Vec<u8>,
    chunks: u32,
    chunk_offset: u64,
    cut_bytes: u64,
}

/// A piece that is ready to be sent.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Its bytes.
    pub content: &'a [u8],
    /// Set when the line is cut.
    pub chunk: Option<Chunk>,
    /// How many physical lines it covers.
    pub lines: u64,
}

impl Partial {
    /// Begins a line whose first physical line is at `start`, behind `first`.
    pub fn new(start: Place, first: Count, time: &[u8], now: Instant) -> Self {
        let mut stamp = [0; STAMP_BYTES_MAX];
        stamp[..time.len()].copy_from_slice(time);
        Self {
            start,
            first,
            lines: 0,
            since: now,
            latest: now,
            others_wait: false,
            bytes_in_ended_files: 0,
            stamp,
            stamp_bytes: time.len(),
            content: Vec::new(),
            chunks: 0,
            chunk_offset: 0,
            cut_bytes: 0,
        }
    }

    /// The stamp of its first fragment.
    pub fn time(&self) -> Timestamp<'_> {
        Timestamp::parse(&self.stamp[..self.stamp_bytes]).expect("it was parsed before")
    }

    /// Puts bytes in.
    pub fn push(&mut self, content: &[u8], now: Instant) {
        self.latest = now;
        if self.cut_bytes > 0 {
            self.cut_bytes += content.len() as u64;
        } else {
            self.content.extend_from_slice(content);
        }
    }

    /// Cuts off what is beyond so many bytes, and whatever is put in from now on if there was any.
    pub fn cut_to(&mut self, bytes_max: usize) {
        if self.content.len() > bytes_max {
            let keep = cut_before(&self.content, bytes_max);
            self.cut_bytes += (self.content.len() - keep) as u64;
            self.content.truncate(keep);
        }
    }

    /// How many bytes were cut off.
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// How many bytes wait in memory.
    pub fn bytes(&self) -> usize {
        self.content.len()
    }

    /// Whether chunks of it were sent.
    pub fn has_sent(&self) -> bool {
        self.chunks > 0
    }

    /// Ends one more physical line.
    pub fn end_physical(&mut self) {
        self.lines += 1;
    }

    /// A chunk that can go now: only when more than `bytes_max` wait, so that the last one is never empty.
    pub fn next_chunk(&self, bytes_max: usize) -> Option<Piece<'_>> {
        if self.content.len() <= bytes_max {
            return None;
        }
        let cut = cut_before(&self.content, bytes_max);
        let chunk = Chunk { index: self.chunks, offset: self.chunk_offset, last: false };
        Some(Piece { content: &self.content[..cut], chunk: Some(chunk), lines: 0 })
    }

    /// Takes the chunk out that was sent.
    pub fn chunk_sent(&mut self, bytes: usize) {
        self.chunk_offset += text_bytes(&self.content[..bytes]);
        self.chunks += 1;
        self.content.drain(..bytes);
    }

    /// What is left, as the record that ends the line here.
    pub fn last_piece(&self) -> Piece<'_> {
        let chunk = (self.chunks > 0).then_some(Chunk { index: self.chunks, offset: self.chunk_offset, last: true });
        Piece { content: &self.content, chunk, lines: self.lines }
    }
}

/// The place at or before `at` where both halves read as the whole does.
///
/// A character is not cut in two; nor is a broken one, of which a reader makes one U+FFFD for its longest beginning that could be a character.
fn cut_before(content: &[u8], at: usize) -> usize {
    let tail_from = at.saturating_sub(3);
    let start = (tail_from..at).rev().find(|place| content[*place] & 0xc0 != 0x80);
    match start {
        Some(start) if start > 0 && start + unit_bytes(&content[start..]) > at => start,
        _ => at,
    }
}

/// How many bytes at the start of `content` a reader sees as one character, or replaces by one U+FFFD.
fn unit_bytes(content: &[u8]) -> usize {
    let bytes = match content[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let unit = &content[..bytes.min(content.len())];
    std::str::from_utf8(unit).map_or_else(|error| error.error_len().unwrap_or(unit.len()), |_| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut_all(content: &[u8], bytes_max: usize) -> Vec<(u64, String)> {
        let mut partial =
            Partial::new(Place { file: 0, offset: 0 }, Count::default(), b"2026-11-20T10:00:00Z", Instant::now());
        partial.push(content, Instant::now());
        let mut pieces = Vec::new();
        while let Some(piece) = partial.next_chunk(bytes_max) {
            let offset = piece.chunk.unwrap().offset;
            let (text, bytes) = (String::from_utf8_lossy(piece.content).into_owned(), piece.content.len());
            assert!(bytes > 0 && bytes <= bytes_max);
            pieces.push((offset, text));
            partial.chunk_sent(bytes);
        }
        let last = partial.last_piece();
        pieces.push((last.chunk.map_or(0, |chunk| chunk.offset), String::from_utf8_lossy(last.content).into_owned()));
        pieces
    }

    #[test]
    fn what_is_cut_off_is_counted_and_stays_away() {
        let mut partial =
            Partial::new(Place { file: 0, offset: 0 }, Count::default(), b"2026-11-20T10:00:00Z", Instant::now());
        for piece in ["abc", "d€", "efg", "h"] {
            partial.push(piece.as_bytes(), Instant::now());
            partial.cut_to(5);
        }
        assert_eq!((partial.last_piece().content, partial.cut_bytes()), (b"abcd".as_slice(), 7));
    }

    fn check(content: &[u8], bytes_max: usize) -> Result<(), TestCaseError> {
        let mut joined = String::new();
        for (offset, text) in cut_all(content, bytes_max) {
            prop_assert_eq!(offset as usize, joined.len());
            joined.push_str(&text);
        }
        prop_assert_eq!(joined, String::from_utf8_lossy(content));
        Ok(())
    }

    proptest! {
        #[test]
        fn chunks_of_text_join_by_offset(text in "[a-zé€\u{1f6a2}]{0,60}", bytes_max in 4_usize..20) {
            check(text.as_bytes(), bytes_max)?;
        }

        #[test]
        fn chunks_of_any_bytes_join_by_offset(content in proptest::collection::vec(any::<u8>(), 0..60), bytes_max in 4_usize..20) {
            check(&content, bytes_max)?;
        }

        #[test]
        fn chunks_of_broken_characters_join_by_offset(content in proptest::collection::vec(prop::sample::select(vec![0xe2_u8, 0x82, 0xac, 0xf0, 0x9f, 0xc3, 0xa9, b'a', 0xff]), 0..60), bytes_max in 4_usize..12) {
            check(&content, bytes_max)?;
        }
    }
}
