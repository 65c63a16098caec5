//! One container's log as containerd writes it (CRI format; containerd's `internal/cri/io/logger.go`).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{Identity, rotation};

/// containerd's `max_container_log_line_size`: longer lines come in pieces of exactly this many bytes.
const PIECE_BYTES_MAX: usize = 16_384;
/// Written out at the latest when so much has gathered.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Where a container wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As in the file and in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Writes the log of one run of a container.
#[derive(Debug)]
pub struct CriWriter {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    written: u64,
}

impl CriWriter {
    /// Makes the folders and the file of a run.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(pods: &Path, identity: &Identity, restart: u32) -> Result<CriWriter> {
        let path = identity.log(pods, restart);
        let folder = path.parent().context("a container's folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let file = open(&path)?;
        Ok(CriWriter { path, file, buffer: Vec::with_capacity(BUFFER_BYTES_MAX), written: 0 })
    }

    /// Writes a whole line, in pieces if it is long.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn line(&mut self, at: Timestamp, stream: Stream, content: &[u8]) -> Result<()> {
        let mut rest = content;
        while rest.len() > PIECE_BYTES_MAX {
            let (piece, after) = rest.split_at(PIECE_BYTES_MAX);
            self.piece(at, stream, b'P', piece)?;
            rest = after;
        }
        self.piece(at, stream, b'F', rest)
    }

    /// Writes one piece that does not end its line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn partial(&mut self, at: Timestamp, stream: Stream, content: &[u8]) -> Result<()> {
        self.piece(at, stream, b'P', content)
    }

    fn piece(&mut self, at: Timestamp, stream: Stream, tag: u8, content: &[u8]) -> Result<()> {
        // The default format has as many digits as the fraction needs, none if it is zero: Go's RFC3339Nano.
        write!(self.buffer, "{at} {} {} ", stream.as_str(), char::from(tag)).context("write to memory")?;
        self.buffer.extend_from_slice(content);
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Hands to the kernel what has gathered.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer).with_context(|| format!("write {}", self.path.display()))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Bytes in the live file.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The live file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rotates as the kubelet does, keeping `files` in all; false if the second is too young for another name.
    ///
    /// # Errors
    /// When files cannot be renamed, zipped or made.
    pub fn rotate(&mut self, files: usize) -> Result<bool> {
        rotation::tidy(&self.path, files)?;
        if !rotation::move_away(&self.path)? {
            return Ok(false);
        }
        // The writer appends to the renamed file until it is told to reopen.
        self.flush()?;
        self.file = open(&self.path)?;
        self.written = 0;
        Ok(true)
    }
}

impl Drop for CriWriter {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Opens a container's log file as a runtime does.
pub(super) fn open(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640);
    options.open(path).with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_exactly_the_limit() {
        let folder = crate::folders::scratch("cri").unwrap();
        let identity = Identity::new("shop", "web-1", "web");
        let at: Timestamp = "2026-11-20T10:00:00.120000000Z".parse().unwrap();
        let mut writer = CriWriter::create(folder.path(), &identity, 0).unwrap();
        for length in [0, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1] {
            writer.line(at, Stream::Stderr, &vec![b'x'; length]).unwrap();
        }
        writer.flush().unwrap();
        let text = std::fs::read_to_string(writer.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "2026-11-20T10:00:00.12Z stderr F ");
        let check = |line: &str, tag: &str, length: usize| {
            let fields: Vec<&str> = line.splitn(4, ' ').collect();
            assert_eq!((fields[2], fields[3].len()), (tag, length));
        };
        check(lines[1], "F", PIECE_BYTES_MAX);
        check(lines[2], "P", PIECE_BYTES_MAX);
        check(lines[3], "F", 1);
        assert_eq!(lines.len(), 4);
    }
}
