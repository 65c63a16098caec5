//! Lines whose every byte is known beforehand: what the `numbered-lines` program prints inside a container, and what a
//! reader must therefore find.

use std::io::Write;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use crate::audit::texts;
use crate::consume::Line;
use crate::generator::Identity;
use crate::generator::cri::{CriWriter, Stream};
use crate::wait::pace;

/// What one container prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Told apart from other containers by this.
    pub name: String,
    /// Lines on standard output; a third as many go to standard error.
    pub lines: u64,
    /// Lines between two pauses.
    pub burst: u64,
    /// The pause.
    pub pause: Duration,
}

impl Script {
    /// The arguments that make the program `numbered-lines` print this.
    pub fn arguments(&self) -> Vec<String> {
        let pause_ms = self.pause.as_millis().to_string();
        ["--name", &self.name, "--lines", &self.lines.to_string(), "--burst", &self.burst.to_string(), "--pause-ms"]
            .map(str::to_owned)
            .into_iter()
            .chain([pause_ms])
            .collect()
    }

    /// Lines of a stream.
    pub fn count(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.lines,
            Stream::Stderr => self.lines.div_ceil(3),
        }
    }

    /// Line `number` of a stream, without its newline: mostly short ones, some empty, some far beyond a runtime's limit,
    /// some of many-byte characters, some with a carriage return or a byte that is no UTF-8.
    pub fn line(&self, stream: Stream, number: u64) -> Vec<u8> {
        let head = format!("{} {} {number:07}", self.name, stream.as_str());
        match number % 101 {
            7 => Vec::new(),
            13 => format!("{head} {}", "x".repeat(20_000)).into_bytes(),
            29 => format!("{head} {}", "zażółć gęślą jaźń ✓ ".repeat(600)).into_bytes(),
            43 => format!("{head} carriage return\r").into_bytes(),
            59 => [head.as_bytes(), b" not UTF-8: \xff\xfe end"].concat(),
            71 => format!("   {head} leading spaces, \"quotes\" \\ and \t tabs").into_bytes(),
            _ => format!("{head} {{\"level\":\"info\",\"took_ms\":{}}}", number % 997).into_bytes(),
        }
    }

    /// What a record's `log` must be for that line: bytes that are no UTF-8 replaced.
    pub fn log(&self, stream: Stream, number: u64) -> String {
        String::from_utf8_lossy(&self.line(stream, number)).into_owned()
    }

    /// A script without pauses.
    pub fn new(name: &str, lines: u64) -> Script {
        Script { name: name.to_owned(), lines, burst: 0, pause: Duration::ZERO }
    }

    /// Lines of both streams.
    pub fn total(&self) -> u64 {
        self.count(Stream::Stdout) + self.count(Stream::Stderr)
    }

    /// Writes some of it as a container runtime does, some lines in two pieces.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, writer: &mut CriWriter, numbers: Range<u64>) -> Result<()> {
        for number in numbers {
            let line = self.line(Stream::Stdout, number);
            let first = if number % 37 == 5 { line.len() / 2 } else { 0 };
            if first > 0 {
                writer.partial(Timestamp::now(), Stream::Stdout, &line[..first])?;
            }
            writer.line(Timestamp::now(), Stream::Stdout, &line[first..])?;
            if number % 3 == 0 {
                writer.line(Timestamp::now(), Stream::Stderr, &self.line(Stream::Stderr, number / 3))?;
            }
        }
        writer.flush()
    }

    /// What is wrong with what a reader has of this container: missing, surplus or other lines, stream by stream.
    pub fn faults(&self, lines: &[Line], identity: &Identity) -> Vec<String> {
        let mut faults = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let found = texts(lines, identity, stream);
            let expected: Vec<String> = (0..self.count(stream)).map(|number| self.log(stream, number)).collect();
            let place = format!("{} {}", self.name, stream.as_str());
            if found.len() != expected.len() {
                faults.push(format!("{place}: {} lines, not {}", found.len(), expected.len()));
            }
            let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            if let Some(number) = differs {
                let (found, expected) = (&found[number], &expected[number]);
                faults.push(format!("{place}: line {number} is {found:.120?}, not {expected:.120?}"));
            }
        }
        faults
    }

    /// Prints all of it, some lines in two writes with a moment between.
    ///
    /// # Errors
    /// When a stream is closed.
    pub fn print(&self, stdout: &mut impl Write, stderr: &mut impl Write) -> std::io::Result<()> {
        for number in 0..self.lines {
            write_line(stdout, &self.line(Stream::Stdout, number), number % 37 == 5)?;
            if number % 3 == 0 {
                write_line(stderr, &self.line(Stream::Stderr, number / 3), number % 111 == 9)?;
            }
            if self.burst > 0 && number % self.burst == self.burst - 1 {
                stdout.flush()?;
                stderr.flush()?;
                pace(self.pause);
            }
        }
        stdout.flush()?;
        stderr.flush()
    }
}

fn write_line(output: &mut impl Write, line: &[u8], torn: bool) -> std::io::Result<()> {
    let (first, second) = if torn { line.split_at(line.len() / 2) } else { line.split_at(0) };
    if torn {
        output.write_all(first)?;
        output.flush()?;
        pace(Duration::from_millis(2));
    }
    output.write_all(second)?;
    output.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_says() {
        let script = Script { name: "a".to_owned(), lines: 250, burst: 100, pause: Duration::ZERO };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        script.print(&mut stdout, &mut stderr).unwrap();
        for (stream, printed) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            let lines: Vec<&[u8]> = printed.split(|&byte| byte == b'\n').collect();
            assert_eq!(lines.len() as u64, script.count(stream) + 1);
            for (number, line) in lines.iter().take(lines.len() - 1).enumerate() {
                assert_eq!(*line, script.line(stream, number as u64), "{stream:?} {number}");
            }
        }
    }
}
