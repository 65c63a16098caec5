//! How many bytes may be held that only the router still keeps, and how much room the file system must have.

use std::{fs::File, io, path::Path, str::FromStr};

use fairlead_service_kit::units::parse_bytes;
use rustix::fs::statvfs;

use crate::{
    parse::Grammar,
    tail::{Count, Place, Positions, Source, StreamPosition},
};

/// The bound on held bytes. What the kubelet still has a name for does not count: keeping a link beside it costs no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes on disk of all namespaces together.
    pub bytes_max: u64,
    /// Bytes on disk of one namespace.
    pub namespace_bytes_max: u64,
    /// What must stay free on the file system.
    pub free_min: FreeMin,
}

/// Room that must stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeMin {
    /// Of the file system's size.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

impl FromStr for FreeMin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            Some(number) => match number.trim().parse() {
                Ok(percent) if percent <= 90 => Ok(Self::Percent(percent)),
                _ => Err("must be 0% to 90%, or bytes such as 5GiB".to_owned()),
            },
            None => {
                parse_bytes(text).map(Self::Bytes).map_err(|_| "must be 0% to 90%, or bytes such as 5GiB".to_owned())
            }
        }
    }
}

impl FreeMin {
    /// How many bytes are missing on a folder's file system; 0 where there is room enough, or where it does not tell.
    pub fn missing(self, folder: &Path) -> u64 {
        let Ok(system) = statvfs(folder) else { return 0 };
        let wanted = match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (system.f_blocks * system.f_frsize / 100).saturating_mul(u64::from(percent)),
        };
        wanted.saturating_sub(system.f_bavail * system.f_frsize)
    }
}

/// The most that is read at one look to count the lines of files that are released, in bytes.
pub const COUNT_BYTES_MAX: u64 = 256 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// Where all streams stand behind a file: whoever stands in it goes to `next`, its lines counted by reading them.
///
/// # Errors
/// The error of reading the file.
pub fn positions_behind(
    file: File,
    grammar: Grammar,
    place: u32,
    size: u64,
    at: &Positions,
    next: Place,
) -> io::Result<Positions> {
    let mut counts = at.counts();
    let from = at.0.iter().filter(|stream| stream.place.file == place).map(|stream| stream.place.offset).min();
    let mut source = Source::new(file)?;
    let mut offset = from.unwrap_or(size);
    let mut line = CountedLine { grammar, start: offset, head: Vec::new(), bytes: 0, scratch: Vec::new() };
    let mut buffer = vec![0; BUFFER_BYTES];
    while offset < size {
        let want = usize::try_from(size - offset).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        let got = match source.read_at(&mut buffer[..want], offset) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        for piece in buffer[..got].split_inclusive(|byte| *byte == b'\n') {
            line.push(piece);
            if piece.ends_with(b"\n") {
                line.end(place, at, &mut counts);
            }
        }
        offset += got as u64;
    }
    if line.bytes > 0 {
        // What stands behind the last newline of a complete file is one line that cannot be parsed.
        line.head.clear();
        line.end(place, at, &mut counts);
    }
    let mut behind = *at;
    for (position, count) in behind.0.iter_mut().zip(counts) {
        if position.place.file <= place {
            *position = StreamPosition { place: next, next: count.lines, bytes: count.bytes };
        }
    }
    Ok(behind)
}

/// A physical line that is only counted: as much of it as tells what it is.
struct CountedLine {
    grammar: Grammar,
    start: u64,
    head: Vec<u8>,
    bytes: u64,
    scratch: Vec<u8>,
}

impl CountedLine {
    fn push(&mut self, piece: &[u8]) {
        // Its newline may be one of them.
        let room = (self.grammar.telling_bytes() + 1).saturating_sub(self.head.len());
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        self.bytes += piece.len() as u64;
    }

    fn end(&mut self, place: u32, at: &Positions, counts: &mut [Count; 3]) {
        let line = self.head.strip_suffix(b"\n").unwrap_or(&self.head);
        let parsed = self.grammar.parse(line, &mut self.scratch);
        let fd = parsed.map_or(0, |line| usize::from(line.stream.fd()));
        let begun = at.0[fd].place;
        if (Place { file: place, offset: self.start }) >= begun {
            counts[fd] += Count { lines: 1, bytes: self.bytes };
        }
        self.start += self.bytes;
        self.bytes = 0;
        self.head.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn room_is_said_in_percent_or_bytes() {
        let check = |text: &str, expected: Option<FreeMin>| assert_eq!(text.parse().ok(), expected, "{text}");
        check("15%", Some(FreeMin::Percent(15)));
        check("0%", Some(FreeMin::Percent(0)));
        check("5GiB", Some(FreeMin::Bytes(5 << 30)));
        for bad in ["", "%", "91%", "-1%", "15", "much"] {
            check(bad, None);
        }
        assert_eq!(FreeMin::Bytes(0).missing(Path::new("/")), 0);
        assert!(FreeMin::Bytes(u64::MAX).missing(Path::new("/")) > 0);
    }

    #[test]
    fn lines_are_counted_as_they_would_be_read() {
        let mut file = tempfile::tempfile().unwrap();
        let time = "2026-11-20T10:00:00Z";
        let long = "x".repeat(600_000);
        let text =
            format!("{time} stdout F a\n{time} stderr P b\nnonsense\n{time} stdout F {long}\n{time} stderr F c\ntorn");
        file.write_all(text.as_bytes()).unwrap();
        let size = text.len() as u64;
        let next = Place { file: 8, offset: 0 };
        let count = |at: &Positions| {
            let behind = positions_behind(file.try_clone().unwrap(), Grammar::Cri, 7, size, at, next).unwrap();
            assert!(behind.0.iter().all(|stream| stream.place == next));
            behind.counts()
        };
        let counts = count(&Positions::start_at(Place { file: 7, offset: 0 }));
        assert_eq!(counts.map(|count| count.lines), [2, 2, 2]);
        assert_eq!(counts.iter().map(|count| count.bytes).sum::<u64>(), size);
        let mut ahead = Positions::start_at(Place { file: 7, offset: 0 });
        let first = format!("{time} stdout F a\n").len() as u64;
        ahead.0[1] = StreamPosition { place: Place { file: 7, offset: first }, next: 1, bytes: first };
        assert_eq!(count(&ahead), counts, "what a stream has passed is not counted again");
    }
}
