//! Proof, while the router runs, that a file still begins with what was read of it. A position alone cannot tell: a file that was cut to nothing
//! and has grown beyond it again looks as if it had only grown.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::Place;

const BYTES: usize = 64;

/// The last bytes that were read of a file, and where they end.
#[derive(Clone, Debug)]
pub struct Seen {
    end: Place,
    bytes: [u8; BYTES],
    count: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { end: Place::default(), bytes: [0; BYTES], count: 0 }
    }
}

impl Seen {
    /// Notes that `bytes` were read and end at `end`; what was read before from further on stays the proof.
    pub fn note(&mut self, end: Place, bytes: &[u8]) {
        if end > self.end && !bytes.is_empty() {
            self.count = bytes.len().min(BYTES);
            self.bytes[..self.count].copy_from_slice(&bytes[bytes.len() - self.count..]);
            self.end = end;
        }
    }

    /// Takes for read what stands before a place, as far as it can be read.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn of(file: &File, end: Place) -> io::Result<Self> {
        let mut seen =
            Self { end, bytes: [0; BYTES], count: usize::try_from(end.offset).map_or(BYTES, |end| end.min(BYTES)) };
        file.read_exact_at(&mut seen.bytes[..seen.count], end.offset - seen.count as u64)?;
        Ok(seen)
    }

    /// Whether the file at this place of the list still holds what was noted. A shorter file does not.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn holds(&self, file: &File, place: u32) -> io::Result<bool> {
        if self.count == 0 || self.end.file != place {
            return Ok(true);
        }
        let mut now = [0; BYTES];
        match file.read_exact_at(&mut now[..self.count], self.end.offset - self.count as u64) {
            Ok(()) => Ok(now[..self.count] == self.bytes[..self.count]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grew_is_told_from_one_that_began_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let check = |content: &str, place: u32, expected: bool| {
            std::fs::write(&path, content).unwrap();
            let mut seen = Seen::default();
            assert!(seen.holds(&File::open(&path).unwrap(), 0).unwrap(), "nothing was read yet");
            seen.note(Place { file: 0, offset: 6 }, b"first\n");
            seen.note(Place { file: 0, offset: 3 }, b"fir");
            assert_eq!(seen.holds(&File::open(&path).unwrap(), place).unwrap(), expected, "{content:?} {place}");
        };
        std::fs::write(&path, "first\nsecond\n").unwrap();
        let taken = Seen::of(&File::open(&path).unwrap(), Place { file: 0, offset: 6 }).unwrap();
        assert_eq!(taken.bytes[..taken.count], *b"first\n");
        check("first\n", 0, true);
        check("first\nsecond\n", 0, true);
        check("", 0, false);
        check("fir", 0, false);
        check("third\n", 0, false);
        check("third\nsecond\n", 0, false);
        check("third\n", 1, true);
    }
}
