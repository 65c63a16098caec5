//! The bytes of a held file, compressed or not. Input: an open file. Output: bytes by their offset in what was logged.
//!
//! A rotated file that the router missed may be left only as the kubelet's `.gz`. It is read as a stream: an offset is one of the decompressed
//! bytes, going back begins anew, and memory is bounded whatever the file claims to hold. It is complete by itself.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    os::unix::fs::FileExt,
};

use flate2::bufread::MultiGzDecoder;

use crate::hold::{Writers, writers};

/// What every gzip file begins with, and no line of a container runtime does.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The length in bytes of what every gzip file ends with: CRC-32, and the size of the content modulo 2^32.
const TRAILER_BYTES: u64 = 8;
const INPUT_BYTES: usize = 16 << 10;
/// How many bytes one read may pass over to reach its offset.
const SKIP_BYTES_MAX: u64 = 8 << 20;

/// An open held file.
#[derive(Debug)]
pub enum Source {
    /// As the runtime wrote it.
    Plain(File),
    /// As the kubelet compressed it.
    Gzip(Box<Gzip>),
}

/// A compressed file and how far it was decompressed.
#[derive(Debug)]
pub struct Gzip {
    decoder: MultiGzDecoder<BufReader<ReadAt>>,
    /// The offset of the next decompressed byte.
    at: u64,
    /// Whether that is the last one.
    ended: bool,
    /// Whether it ends because it cannot be decompressed on.
    damaged: bool,
}

impl Source {
    /// Takes an open file for what its first bytes say it is.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(if is_gzip(&file)? { Self::Gzip(Box::new(Gzip::new(file))) } else { Self::Plain(file) })
    }

    /// Reads at an offset. Fewer bytes than asked for are the end of what is there.
    ///
    /// # Errors
    /// The error of reading the file; `WouldBlock` when a compressed file is on its way to the offset: ask again.
    pub fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read_at(into, offset),
            Self::Gzip(gzip) => match gzip.seek(offset, SKIP_BYTES_MAX)? {
                true => gzip.fill(into),
                false if gzip.ended => Ok(0),
                false => Err(ErrorKind::WouldBlock.into()),
            },
        }
    }

    /// Reads exactly so many bytes at an offset, however long the way there is.
    ///
    /// # Errors
    /// The error of reading the file; `UnexpectedEof` when it ends before.
    pub fn read_exact_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.read_exact_at(into, offset),
            Self::Gzip(gzip) => match gzip.seek(offset, u64::MAX)? && gzip.fill(into)? == into.len() {
                true => Ok(()),
                false => Err(ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// How many bytes are there; of a compressed file that was not read to its end, more than any.
    ///
    /// # Errors
    /// The error of looking at the file.
    pub fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.len()),
            Self::Gzip(gzip) => Ok(if gzip.ended { gzip.at } else { u64::MAX }),
        }
    }

    /// Whether anybody has it open for writing. Nobody writes to a compressed file: it got its name when it was complete.
    pub fn writers(&self) -> Writers {
        match self {
            Self::Plain(file) => writers(file),
            Self::Gzip(_) => Writers::None,
        }
    }

    /// Whether it ends because it cannot be decompressed on.
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Gzip(gzip) if gzip.damaged)
    }
}

impl Gzip {
    fn new(file: File) -> Self {
        let input = BufReader::with_capacity(INPUT_BYTES, ReadAt { file, at: 0 });
        Self { decoder: MultiGzDecoder::new(input), at: 0, ended: false, damaged: false }
    }

    /// Goes to an offset, over at most so many bytes. Returns whether it is there.
    fn seek(&mut self, offset: u64, skip_bytes_max: u64) -> io::Result<bool> {
        if offset < self.at {
            let input = self.decoder.get_mut();
            *self = Self::new(input.get_ref().file.try_clone()?);
        }
        let stop = offset.min(self.at.saturating_add(skip_bytes_max));
        let mut scratch = [0; 8 << 10];
        while self.at < stop && !self.ended {
            let want = usize::try_from(stop - self.at).map_or(scratch.len(), |left| left.min(scratch.len()));
            self.fill(&mut scratch[..want])?;
        }
        Ok(self.at == offset)
    }

    /// Decompresses until the buffer is full or the file ends.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < into.len() && !self.ended {
            match self.decoder.read(&mut into[got..]) {
                Ok(0) => self.ended = true,
                Ok(bytes) => {
                    got += bytes;
                    self.at += bytes as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the disk says passes; what the decoder says does not.
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(_) => (self.ended, self.damaged) = (true, true),
            }
        }
        Ok(got)
    }
}

/// Reads a file in order without moving the offset that its descriptors share.
#[derive(Debug)]
struct ReadAt {
    file: File,
    at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(into, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Whether a file begins as a compressed one does.
///
/// # Errors
/// The error of reading the file.
pub fn is_gzip(file: &File) -> io::Result<bool> {
    let mut begin = [0; MAGIC.len()];
    Ok(file.read_at(&mut begin, 0)? == MAGIC.len() && begin == MAGIC)
}

/// The size of a compressed file's content modulo 2^32, as its end says.
///
/// # Errors
/// The error of reading the file; `UnexpectedEof` when it is too short to be one.
pub fn content_bytes_low(file: &File) -> io::Result<u32> {
    let size = file.metadata()?.len();
    let mut trailer = [0; TRAILER_BYTES as usize];
    let from = size.checked_sub(TRAILER_BYTES).ok_or(ErrorKind::UnexpectedEof)?;
    file.read_exact_at(&mut trailer, from)?;
    let [.., a, b, c, d] = trailer;
    Ok(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn compressed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn content() -> Vec<u8> {
        (0..100_000_u32).flat_map(|number| format!("line {number}\n").into_bytes()).collect()
    }

    #[test]
    fn any_offset_reads_as_the_plain_file_does() {
        let content = content();
        let mut source = Source::new(file(&compressed(&content))).unwrap();
        assert!(matches!(source, Source::Gzip(_)));
        let size = content.len();
        for (offset, want) in [(0, 10), (10, 70_000), (5, 5), (size - 3, 10), (size, 10), (0, size + 1)] {
            let mut plain = vec![0; want];
            let expected = file(&content).read_at(&mut plain, offset as u64).unwrap();
            let mut got = vec![0; want];
            assert_eq!(source.read_at(&mut got, offset as u64).unwrap(), expected, "{offset} {want}");
            assert_eq!(got, plain);
        }
        assert_eq!(source.bytes().unwrap(), size as u64);
        assert_eq!(content_bytes_low(&file(&compressed(&content))).unwrap() as usize, size);
        assert!(!source.is_damaged());
    }

    #[test]
    fn a_damaged_file_gives_what_it_can_and_ends() {
        let content = content();
        let whole = compressed(&content);
        let check = |case: &str, bytes: &[u8], whole_content: bool| {
            let mut source = Source::new(file(bytes)).unwrap();
            let mut got = vec![0; content.len() + 1];
            let bytes = source.read_at(&mut got, 0).unwrap();
            assert!(source.is_damaged(), "{case}");
            assert!(bytes == content.len() || !whole_content, "{case}: {bytes}");
            assert_eq!(source.bytes().unwrap(), bytes as u64, "{case}");
            assert_eq!(source.read_at(&mut got, bytes as u64).unwrap(), 0, "{case}");
        };
        check("cut in the middle", &whole[..whole.len() / 2], false);
        check("cut after its first bytes", &whole[..3], false);
        check("another checksum", &[&whole[..whole.len() - 8], &[0; 8]].concat(), true);
        check("something behind it", &[&whole[..], b"garbage that is no member"].concat(), true);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        let mut source = Source::new(file(&flipped)).unwrap();
        let (mut at, mut buffer) = (0, vec![0; 64 << 10]);
        while let bytes @ 1.. = source.read_at(&mut buffer, at).unwrap() {
            at += bytes as u64;
        }
        assert!(source.is_damaged());
    }

    #[test]
    fn a_bomb_is_read_in_bounded_pieces() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![0; 1 << 20];
        (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 100 << 10);
        let mut source = Source::new(file(&bomb)).unwrap();
        let mut buffer = [0; 1024];
        let end = 64 << 20;
        let mut tries = 0;
        let got = loop {
            tries += 1;
            match source.read_at(&mut buffer, end - 10) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!((got, tries), (10, 64 / 8), "one read passes over a bounded number of bytes");
    }
}
