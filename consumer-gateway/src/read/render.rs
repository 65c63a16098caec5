//! How a line looks. Input: a record and its cursor. Output: bytes of NDJSON or of text as `kubectl logs` prints it.

use std::{borrow::Cow, collections::HashMap};

use super::{repeats::Id, scan::View};

/// How much of a long line is kept while its pieces come, in bytes; beyond it the line is broken.
const JOINED_BYTES_MAX: usize = 1 << 20;
/// How many long lines are joined at one time, and how many bytes of them are kept; beyond it the one that was begun first is broken.
const JOINS_MAX: usize = 64;
const JOINS_BYTES_MAX: usize = 4 << 20;

/// Whether a line of text begins with where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// When the request may show more than one container.
    #[default]
    Auto,
    /// `[pod/NAME/CONTAINER] `, as `kubectl logs --prefix`.
    Pod,
    /// Never.
    None,
}

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-ndjson`.
    Ndjson,
    /// `text/plain`.
    Text {
        /// Whether lines begin with pod and container.
        prefix: bool,
        /// Whether lines begin with their time.
        timestamps: bool,
    },
}

/// Writes records; joins long lines where the format is text.
#[derive(Debug)]
pub struct Renderer {
    format: Format,
    joins: HashMap<Id, Join>,
    /// What all joins hold.
    joined_bytes: usize,
    begun: u64,
}

#[derive(Debug)]
struct Join {
    /// In which order the joins were begun.
    begun: u64,
    seq: u64,
    next: u64,
    start: Vec<u8>,
    text: String,
}

impl Format {
    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Text { .. } => "text/plain; charset=utf-8",
        }
    }
}

impl Renderer {
    /// Renders in a format.
    pub fn new(format: Format) -> Self {
        Self { format, joins: HashMap::new(), joined_bytes: 0, begun: 0 }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Appends one record. `cursor` is asked only where the format shows it.
    pub fn record(&mut self, view: &View<'_>, value: &[u8], cursor: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        match self.format {
            Format::Ndjson => {
                splice(value, cursor, out);
            }
            Format::Text { prefix, timestamps } => self.text(view, prefix, timestamps, out),
        }
    }

    /// Appends what was begun and not ended: pieces of long lines whose rest did not come.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let mut rest: Vec<_> = self.joins.drain().map(|(_, join)| join).collect();
        self.joined_bytes = 0;
        rest.sort_by_key(|join| join.begun);
        rest.iter().for_each(|join| join.write(out));
    }

    /// Ends what was begun of a source's long line, if anything was.
    pub fn finish(&mut self, source: Id, out: &mut Vec<u8>) {
        if !self.joins.is_empty()
            && let Some(join) = self.joins.remove(&source)
        {
            self.joined_bytes = self.joined_bytes.saturating_sub(join.bytes());
            join.write(out);
        }
    }

    fn text(&mut self, view: &View<'_>, prefix: bool, timestamps: bool, out: &mut Vec<u8>) {
        let log = view.log();
        let source = view.origin.source;
        let Some(chunk) = view.chunk else {
            // A line of the same source ends whatever was begun before it.
            self.finish(source, out);
            if view.notice.is_some() {
                // No line of an application can look like this.
                out.extend_from_slice(b"# notice: ");
                write_start(view, prefix, timestamps, out);
                escape_into(&log, out);
                out.push(b'\n');
                return;
            }
            let at = out.len();
            write_start(view, prefix, timestamps, out);
            escape_into(&log, out);
            end_line(at, out);
            return;
        };
        if self.joins.get(&source).is_some_and(|join| join.seq != view.seq || join.next < chunk.offset) {
            self.finish(source, out);
        }
        if !self.joins.contains_key(&source) {
            let mut start = Vec::new();
            write_start(view, prefix, timestamps, &mut start);
            self.begun += 1;
            let join = Join { begun: self.begun, seq: view.seq, next: chunk.offset, start, text: String::new() };
            self.joined_bytes += join.bytes();
            self.joins.insert(source, join);
        }
        let Some(join) = self.joins.get_mut(&source) else { return };
        // By offset: a piece that was cut another way after a restart brings only what is new.
        let mut known = usize::try_from(join.next.saturating_sub(chunk.offset)).unwrap_or(usize::MAX).min(log.len());
        while !log.is_char_boundary(known) {
            known -= 1;
        }
        let new = &log[known..];
        join.text.push_str(new);
        join.next = join.next.saturating_add(new.len() as u64);
        self.joined_bytes += new.len();
        if chunk.last {
            self.finish(source, out);
        } else if join.text.len() >= JOINED_BYTES_MAX {
            join.write(out);
            self.joined_bytes = self.joined_bytes.saturating_sub(join.text.len());
            join.text = String::new();
        }
        while self.joins.len() > JOINS_MAX || self.joined_bytes > JOINS_BYTES_MAX {
            let Some(oldest) = self.joins.iter().min_by_key(|(_, join)| join.begun).map(|(source, _)| *source) else {
                break;
            };
            self.finish(oldest, out);
        }
    }
}

impl Join {
    fn bytes(&self) -> usize {
        self.start.len() + self.text.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.start);
        escape_into(&self.text, out);
        end_line(at, out);
    }
}

/// Ends the line that begins at `at`. Only our events and notices begin with `#`.
fn end_line(at: usize, out: &mut Vec<u8>) {
    if out.get(at) == Some(&b'#') {
        out.splice(at..=at, *b"\\x23");
    }
    out.push(b'\n');
}

/// Appends the value with `"cursor"` as its last member. The value is a JSON object with members, which the scan has checked.
fn splice(value: &[u8], cursor: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let value = value.trim_ascii_end();
    let body = value.strip_suffix(b"}").unwrap_or(value);
    // Between the members of an object that another writer laid out, a line break is only white space.
    match body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        false => out.extend_from_slice(body),
        true => out.extend(body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })),
    }
    out.extend_from_slice(b",\"cursor\":\"");
    cursor(out);
    out.extend_from_slice(b"\"}\n");
}

fn write_start(view: &View<'_>, prefix: bool, timestamps: bool, out: &mut Vec<u8>) {
    if prefix {
        out.extend_from_slice(b"[pod/");
        escape_into(&view.origin.pod, out);
        out.push(b'/');
        escape_into(&view.origin.container, out);
        out.extend_from_slice(b"] ");
    }
    if timestamps {
        escape_into(&view.time, out);
        out.push(b' ');
    }
}

/// Appends text that cannot steer a terminal: control characters (but TAB), line separators and direction marks are written out.
fn escape_into(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(escape(text).as_bytes());
}

fn escape(text: &str) -> Cow<'_, str> {
    use std::fmt::Write;
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            character if is_unsafe(character) && u32::from(character) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            character if is_unsafe(character) => {
                let _ = write!(out, "\\u{{{:04x}}}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    Cow::Owned(out)
}

fn is_unsafe(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
