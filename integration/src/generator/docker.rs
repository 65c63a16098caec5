//! Plays Docker's `json-file` logger (`jsonfilelog`, `loggerutils/logfile.go`, `copier.go`) and the link that a kubelet's folder has to its file.
//! It is a simulation: no Docker runs.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use uuid::Uuid;

use super::Identity;
use super::cri::{Stream, open};

/// Docker's buffer: longer lines come in pieces of exactly this many bytes.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Docker's `--log-opt`.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `max-size` in bytes: before a line is written to a file of this size, files are rotated.
    pub max_size: u64,
    /// `max-file`: how many files there may be.
    pub max_file: usize,
    /// `compress`.
    pub compress: bool,
}

/// Writes one container's files.
#[derive(Debug)]
pub struct DockerLog {
    /// Whose log it is.
    pub identity: Identity,
    /// How often files were rotated.
    pub rotations: u64,
    /// The same physical lines as a CRI runtime would have written them, after what Docker makes of bytes that are no UTF-8.
    pub as_cri: Vec<u8>,
    options: Options,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Docker compresses in the background, and waits for it before the next rotation.
    compressing: Option<JoinHandle<Result<()>>>,
}

impl DockerLog {
    /// Makes the container's folder below Docker's `containers`, its file, and the kubelet's link to that.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(containers: &Path, pods: &Path, identity: &Identity, options: Options) -> Result<DockerLog> {
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let folder = containers.join(&id);
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join(format!("{id}-json.log"));
        let file = open(&path)?;
        let link = identity.log(pods, 0);
        let folder = link.parent().context("a container's folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        std::os::unix::fs::symlink(&path, &link).with_context(|| format!("make {}", link.display()))?;
        let identity = identity.clone();
        let as_cri = Vec::new();
        Ok(DockerLog { identity, rotations: 0, as_cri, options, path, file, bytes: 0, compressing: None })
    }

    /// Writes a whole line, in pieces if it is long; all of them have the time of the first.
    ///
    /// # Errors
    /// When files cannot be written or rotated.
    pub fn line(&mut self, stream: Stream, content: &[u8]) -> Result<()> {
        let time = Timestamp::now();
        let mut rest = content;
        while rest.len() >= PIECE_BYTES_MAX {
            let (piece, after) = rest.split_at(PIECE_BYTES_MAX);
            self.piece(time, stream, piece, false)?;
            rest = after;
        }
        self.piece(time, stream, rest, true)
    }

    fn piece(&mut self, time: Timestamp, stream: Stream, content: &[u8], ends: bool) -> Result<()> {
        if self.bytes >= self.options.max_size {
            self.rotate()?;
        }
        let text = repaired(content);
        let mut line = String::from("{");
        if !text.is_empty() || ends {
            let end = if ends { "\\n" } else { "" };
            let _ = write!(line, "\"log\":\"{}{end}\",", escaped(&text));
        }
        let _ = writeln!(line, "\"stream\":\"{}\",\"time\":\"{time}\"}}", stream.as_str());
        self.file.write_all(line.as_bytes()).with_context(|| format!("write {}", self.path.display()))?;
        self.bytes += line.len() as u64;
        let tag = if ends { 'F' } else { 'P' };
        writeln!(self.as_cri, "{time} {} {tag} {text}", stream.as_str()).context("write to memory")
    }

    fn rotate(&mut self) -> Result<()> {
        self.compressed()?;
        let Options { max_file, compress, .. } = self.options;
        let end = if compress { ".gz" } else { "" };
        if max_file < 2 {
            std::fs::remove_file(&self.path).context("remove the only file")?;
        } else {
            // Those that are not there yet are no matter.
            let _ = std::fs::remove_file(self.numbered(max_file - 1, end));
            for number in (1..max_file - 1).rev() {
                let _ = std::fs::rename(self.numbered(number, end), self.numbered(number + 1, end));
            }
            std::fs::rename(&self.path, self.numbered(1, "")).context("rename the live file")?;
        }
        self.file = File::create(&self.path).with_context(|| format!("make {}", self.path.display()))?;
        (self.bytes, self.rotations) = (0, self.rotations + 1);
        if compress && max_file > 1 {
            let raw = self.numbered(1, "");
            self.compressing = Some(std::thread::spawn(move || zip(&raw)));
        }
        Ok(())
    }

    fn numbered(&self, number: usize, end: &str) -> PathBuf {
        PathBuf::from(format!("{}.{number}{end}", self.path.display()))
    }

    fn compressed(&mut self) -> Result<()> {
        match self.compressing.take() {
            Some(thread) => thread.join().map_err(|_| anyhow::anyhow!("the compression panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for DockerLog {
    fn drop(&mut self) {
        let _ = self.compressed();
    }
}

/// Under its last name from its first byte on; the raw file goes when it is complete.
fn zip(raw: &Path) -> Result<()> {
    let zipped = File::create(format!("{}.gz", raw.display())).context("make a compressed file")?;
    let status = Command::new("gzip").arg("-c").arg(raw).stdout(zipped).status().context("run gzip")?;
    ensure!(status.success(), "gzip {}: {status}", raw.display());
    std::fs::remove_file(raw).with_context(|| format!("remove {}", raw.display()))
}

/// Docker writes U+FFFD for each byte that is no UTF-8.
fn repaired(content: &[u8]) -> String {
    let pieces = content.utf8_chunks().map(|chunk| {
        let replaced = "\u{fffd}".repeat(chunk.invalid().len());
        format!("{}{replaced}", chunk.valid())
    });
    pieces.collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | ..' ' | '\u{fffd}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_rotates_as_docker_does() {
        let place = crate::folders::scratch("docker").unwrap();
        let (containers, pods) = (place.path().join("containers"), place.path().join("pods"));
        let identity = Identity::new("a", "p", "c");
        let play = |compress: bool| {
            let options = Options { max_size: 150, max_file: 3, compress };
            let mut log = DockerLog::create(&containers, &pods, &identity, options).unwrap();
            log.line(Stream::Stdout, b"one <1> \"x\" \xff").unwrap();
            for number in 2..8 {
                log.line(Stream::Stderr, format!("line {number}").as_bytes()).unwrap();
            }
            std::fs::remove_file(identity.log(&pods, 0)).unwrap();
            let path = log.path.clone();
            assert_eq!(log.rotations, 3);
            drop(log);
            let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            let ends: Vec<_> = names.iter().map(|name| name.split_once("-json.log").unwrap().1.to_owned()).collect();
            (ends, path)
        };
        assert_eq!(play(false).0, ["", ".1", ".2"]);
        let (ends, path) = play(true);
        assert_eq!(ends, ["", ".1.gz", ".2.gz"]);
        let live = std::fs::read_to_string(path).unwrap();
        assert!(live.starts_with("{\"log\":\"line 7\\n\",\"stream\":\"stderr\",\"time\":\"20"), "{live}");
    }

    #[test]
    fn long_lines_come_in_pieces_and_some_bytes_are_lost() {
        let place = crate::folders::scratch("docker").unwrap();
        let options = Options { max_size: 1 << 20, max_file: 1, compress: false };
        let identity = Identity::new("a", "p", "c");
        let mut log = DockerLog::create(place.path(), place.path(), &identity, options).unwrap();
        log.line(Stream::Stdout, &[b'x'; PIECE_BYTES_MAX]).unwrap();
        log.line(Stream::Stdout, b"<\xe2\x82>").unwrap();
        let text = std::fs::read_to_string(&log.path).unwrap();
        let logs: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let lengths: Vec<_> = logs.iter().map(|line| line["log"].as_str().unwrap().len()).collect();
        assert_eq!(lengths, [PIECE_BYTES_MAX, 1, 9]);
        assert!(text.lines().nth(2).unwrap().contains(r#""log":"\u003c\ufffd\ufffd\u003e\n""#), "{text}");
        let cri = String::from_utf8(log.as_cri.clone()).unwrap();
        let tags: Vec<_> = cri.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, ["P", "F", "F"]);
    }
}
