//! A prepared node: containers' log files that lie complete before a measurement begins.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::{Timestamp, ToSpan as _};

use crate::generator::Identity;
use crate::generator::cri::{CriWriter, Stream};
use crate::generator::dice::Dice;
use crate::generator::lines::json_of;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Namespaces, each with a topic.
    pub namespaces: usize,
    /// Containers in each namespace.
    pub containers: usize,
    /// Lines in all, shared evenly.
    pub lines: u64,
    /// Bytes of each line, about.
    pub line_bytes: usize,
}

impl Shape {
    /// The namespaces' names.
    pub fn names(&self) -> Vec<String> {
        (0..self.namespaces).map(|number| format!("team-{number}")).collect()
    }

    /// Their topics under a prefix.
    pub fn topics(&self, prefix: &str) -> Vec<String> {
        self.names().iter().map(|namespace| format!("{prefix}.{namespace}")).collect()
    }

    /// Lines in each container's file.
    pub fn lines_each(&self) -> u64 {
        self.lines / (self.namespaces * self.containers) as u64
    }
}

/// The containers of such a node, each of a new pod.
pub fn identities(shape: &Shape) -> Vec<Identity> {
    let mut dice = Dice::new(1);
    let namespaces = shape.names().into_iter().flat_map(|name| std::iter::repeat_n(name, shape.containers));
    namespaces.map(|name| Identity::new(&name, &format!("api-7d9f4b6c5-{}", dice.suffix(5)), "api")).collect()
}

/// Writes the files of these containers; gives the number of lines written and the bytes of their content.
///
/// # Errors
/// When a file cannot be written.
pub fn prepare(pods: &Path, shape: &Shape, identities: &[Identity]) -> Result<(u64, u64)> {
    let began: Timestamp = "2026-11-20T10:00:00Z".parse().context("a timestamp")?;
    let (mut lines, mut bytes) = (0, 0);
    for (number, identity) in identities.iter().enumerate() {
        let mut dice = Dice::new(number as u64);
        let mut writer = CriWriter::create(pods, identity, 0)?;
        let mut at = began;
        for _ in 0..shape.lines_each() {
            at = at.checked_add(i64::try_from(dice.below(1_000_000)).context("a step")?.nanoseconds())?;
            let line = json_of(shape.line_bytes, at, &mut dice);
            let stream = if dice.once_in(8) { Stream::Stderr } else { Stream::Stdout };
            writer.line(at, stream, line.as_bytes())?;
            lines += 1;
            bytes += line.len() as u64;
        }
        writer.flush()?;
    }
    Ok((lines, bytes))
}
