//! One Kafka value, looked at cheaply. Input: the bytes of a value. Output: a [`View`] with what filters, repeats and rendering need.
//!
//! What is constant for a source stands first in every record, so its bytes are parsed once, in full, and then known again by comparison; only
//! the rest is scanned for each record, and strictly: whatever is not exactly as the contract's encoder writes it goes to the full parser.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use fairlead_contract::record::{Chunk, Record};
use memchr::{memchr2, memmem};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::repeats::{Covers, Id};

/// How many heads one stream keeps, and how many bytes of them. Beyond it the one that was learned first is forgotten.
const HEADS_MAX: usize = 1024;
const HEADS_BYTES_MAX: usize = 512 * 1024;
/// The longest head that is kept, in bytes; records with a longer one are parsed in full.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How many heads one Kafka key keeps: a container's two streams, over some restarts and changes of metadata.
const HEADS_PER_KEY_MAX: usize = 8;

/// What a source's records have in common.
#[derive(Debug)]
pub struct Origin {
    /// `namespace_name`.
    pub namespace: Box<str>,
    /// `pod_name`.
    pub pod: Box<str>,
    /// `container_name`.
    pub container: Box<str>,
    /// The id of `fairlead.source`.
    pub source: Id,
}

/// One record as filters and renderers see it.
#[derive(Debug)]
pub struct View<'a> {
    /// What the source's records have in common.
    pub origin: Arc<Origin>,
    /// The number of the first physical line.
    pub seq: u64,
    /// How many physical lines it covers.
    pub lines: u64,
    /// Whether it may repeat an earlier record.
    pub again: bool,
    /// Set on a piece of a long line.
    pub chunk: Option<Chunk>,
    /// The line's own time.
    pub time: Cow<'a, str>,
    /// `stdout`, `stderr` or `fairlead`.
    pub stream: Cow<'a, str>,
    /// Set on a notice: the id of its kind, source and number.
    pub notice: Option<Id>,
    log: Text<'a>,
}

#[derive(Debug)]
enum Text<'a> {
    /// Between its quotes, escapes and all; checked.
    Escaped(&'a str),
    Plain(Cow<'a, str>),
}

/// A value that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is not a record")]
pub struct Unreadable;

/// Scans values, and remembers the heads of their sources.
#[derive(Debug, Default)]
pub struct Scanner {
    heads: HashMap<u64, Vec<Head>>,
    /// The keys of all heads, in the order in which they were learned.
    order: VecDeque<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Head {
    bytes: Box<[u8]>,
    origin: Arc<Origin>,
}

impl<'a> View<'a> {
    /// The line, escapes undone.
    pub fn log(&self) -> Cow<'_, str> {
        match &self.log {
            Text::Plain(text) => Cow::Borrowed(text),
            Text::Escaped(text) if !text.contains('\\') => Cow::Borrowed(text),
            Text::Escaped(text) => {
                let quoted = format!("\"{text}\"");
                serde_json::from_str::<String>(&quoted).map_or(Cow::Borrowed(text), Cow::Owned)
            }
        }
    }

    /// What the record covers, for [`super::repeats::Seen`].
    pub fn covers(&self) -> Covers {
        match (self.notice, self.chunk) {
            (Some(id), _) => Covers::Notice(id),
            (None, Some(chunk)) => Covers::Piece {
                seq: self.seq,
                lines: self.lines,
                offset: chunk.offset,
                bytes: self.log().len() as u64,
                last: chunk.last,
            },
            (None, None) => Covers::Lines { seq: self.seq, lines: self.lines },
        }
    }
}

/// A short hash of a Kafka key, by which heads are found.
pub fn key_hash(key: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Scanner {
    /// Looks at one value.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not a JSON object with a record's members.
    pub fn scan<'a>(&mut self, key_hash: u64, value: &'a [u8]) -> Result<View<'a>, Unreadable> {
        let text = std::str::from_utf8(value).map_err(|_| Unreadable)?;
        let clean = !value.iter().any(|byte| *byte < 0x20);
        if clean && let Some(heads) = self.heads.get(&key_hash) {
            for head in heads.iter().rev() {
                if value.starts_with(&head.bytes)
                    && let Some(tail) = Tail::scan(&text[head.bytes.len()..])
                {
                    return checked(tail.view(head.origin.clone()), value);
                }
            }
        }
        let view = checked(parse(value)?, value)?;
        if clean && view.notice.is_none() {
            self.learn(key_hash, text, &view);
        }
        Ok(view)
    }

    fn learn(&mut self, key_hash: u64, text: &str, view: &View<'_>) {
        let Some(length) = head_length(text).filter(|length| *length <= HEAD_BYTES_MAX) else { return };
        let Some(tail) = Tail::scan(&text[length..]) else { return };
        if (tail.seq, tail.lines, tail.again, tail.chunk, tail.time, tail.stream)
            != (view.seq, view.lines, view.again, view.chunk, &*view.time, &*view.stream)
        {
            return;
        }
        if self.heads.get(&key_hash).is_some_and(|heads| heads.len() >= HEADS_PER_KEY_MAX) {
            self.forget(key_hash);
        }
        while self.order.len() >= HEADS_MAX || self.bytes + length > HEADS_BYTES_MAX {
            let Some(oldest) = self.order.front().copied() else { break };
            self.forget(oldest);
        }
        self.order.push_back(key_hash);
        self.bytes += length;
        let head = Head { bytes: text.as_bytes()[..length].into(), origin: view.origin.clone() };
        self.heads.entry(key_hash).or_default().push(head);
    }

    /// Forgets the first head that was learned of a key.
    fn forget(&mut self, key_hash: u64) {
        if let Some(at) = self.order.iter().position(|key| *key == key_hash) {
            self.order.remove(at);
        }
        let Some(heads) = self.heads.get_mut(&key_hash) else { return };
        self.bytes -= heads.remove(0).bytes.len();
        if heads.is_empty() {
            self.heads.remove(&key_hash);
        }
    }
}

/// Refuses a piece that would end past the largest number: nobody could tell where it lies.
fn checked<'a>(view: View<'a>, value: &[u8]) -> Result<View<'a>, Unreadable> {
    // A text is never longer than it is written in JSON.
    match view.chunk.is_none_or(|chunk| chunk.offset.checked_add(value.len() as u64).is_some()) {
        true => Ok(view),
        false => Err(Unreadable),
    }
}

/// The full parse.
fn parse(value: &[u8]) -> Result<View<'_>, Unreadable> {
    #[derive(Deserialize)]
    struct Notice<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow, default)]
        source: Cow<'a, str>,
        #[serde(default)]
        seq: u64,
    }
    #[derive(Deserialize)]
    struct Names {
        #[serde(default, deserialize_with = "there")]
        event: bool,
        #[serde(default, deserialize_with = "there")]
        cursor: bool,
    }
    /// Whatever the value is, `null` too.
    fn there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(from).map(|_| true)
    }
    let record = Record::parse(value).map_err(|_| Unreadable)?;
    // `event` tells our own events from records, and `cursor` is what we add to them: no record may have such members.
    let reserved = serde_json::from_slice::<Names>(value).map_err(|_| Unreadable)?;
    if reserved.event || reserved.cursor {
        return Err(Unreadable);
    }
    let notice = record.fairlead.notice.map(|raw| match serde_json::from_str::<Notice<'_>>(raw.get()) {
        Ok(notice) => Id::of(&format!("{} {} {}", notice.kind, notice.source, notice.seq)),
        Err(_) => Id::of(raw.get()),
    });
    let origin = Origin {
        namespace: record.kubernetes.namespace_name.into(),
        pod: record.kubernetes.pod_name.into(),
        container: record.kubernetes.container_name.into(),
        source: Id::of(&record.fairlead.source),
    };
    Ok(View {
        origin: Arc::new(origin),
        seq: record.fairlead.seq,
        lines: record.fairlead.lines,
        again: record.fairlead.again,
        chunk: record.fairlead.chunk,
        time: record.time,
        stream: record.stream,
        notice,
        log: Text::Plain(record.log),
    })
}

/// The length of the head: from the first byte up to and with `"seq":`, where the value is laid out as the encoder lays it out.
fn head_length(text: &str) -> Option<usize> {
    let start =
        text.starts_with("{\"kubernetes\":{").then(|| memmem::find(text.as_bytes(), b"},\"fairlead\":{\""))??;
    let mut rest = Rest(&text[start + b"},\"fairlead\":{".len()..]);
    if rest.take("\"metadata\":\"") {
        rest.string()?;
        rest.take(",").then_some(())?;
    }
    rest.take("\"source\":\"").then_some(())?;
    rest.string()?;
    rest.take(",\"seq\":").then_some(())?;
    Some(text.len() - rest.0.len())
}

/// What follows the head, as the encoder writes it.
struct Tail<'a> {
    seq: u64,
    lines: u64,
    again: bool,
    chunk: Option<Chunk>,
    time: &'a str,
    stream: &'a str,
    log: &'a str,
}

impl<'a> Tail<'a> {
    fn scan(text: &'a str) -> Option<Self> {
        let mut rest = Rest(text);
        let seq = rest.number()?;
        let lines = if rest.take(",\"lines\":") { rest.number()? } else { 1 };
        if rest.take(",\"left_out\":") {
            rest.number()?;
        }
        let again = rest.take(",\"again\":true");
        let chunk = if rest.take(",\"chunk\":{\"index\":") { Some(rest.chunk()?) } else { None };
        rest.take("},\"time\":\"").then_some(())?;
        let time = rest.string().filter(|time| !time.contains('\\'))?;
        rest.take(",\"stream\":\"").then_some(())?;
        let stream = rest.string().filter(|stream| !stream.contains('\\'))?;
        rest.take(",\"log\":\"").then_some(())?;
        let log = rest.string()?;
        if rest.take(",\"log_processed\":") {
            rest.object()?;
        }
        (rest.0 == "}").then_some(Self { seq, lines, again, chunk, time, stream, log })
    }

    fn view(self, origin: Arc<Origin>) -> View<'a> {
        View {
            origin,
            seq: self.seq,
            lines: self.lines,
            again: self.again,
            chunk: self.chunk,
            time: Cow::Borrowed(self.time),
            stream: Cow::Borrowed(self.stream),
            notice: None,
            log: Text::Escaped(self.log),
        }
    }
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, expected: &str) -> bool {
        match self.0.strip_prefix(expected) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Digits without a sign or a leading zero.
    fn number(&mut self) -> Option<u64> {
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(length);
        if length > 1 && digits.starts_with('0') {
            return None;
        }
        self.0 = rest;
        digits.parse().ok()
    }

    /// The rest of a string and its closing quote. Escapes are checked, not undone.
    fn string(&mut self) -> Option<&'a str> {
        let bytes = self.0.as_bytes();
        let mut at = 0;
        loop {
            at += memchr2(b'"', b'\\', &bytes[at..])?;
            if bytes[at] == b'"' {
                break;
            }
            at += match bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                // Surrogates are left to the full parser; the encoder writes none.
                b'u' if !matches!(
                    bytes.get(at + 2..at + 4)?,
                    [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F']
                ) && bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) =>
                {
                    6
                }
                _ => return None,
            };
        }
        let (string, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        Some(string)
    }

    /// A JSON object, which is looked at as little as the full parser looks at it.
    fn object(&mut self) -> Option<()> {
        let mut values = self.0.starts_with('{').then(|| serde_json::Deserializer::from_str(self.0).into_iter())?;
        values.next()?.map(|_: IgnoredAny| ()).ok()?;
        self.0 = self.0.get(values.byte_offset()..)?;
        Some(())
    }

    fn chunk(&mut self) -> Option<Chunk> {
        let index = u32::try_from(self.number()?).ok()?;
        self.take(",\"offset\":").then_some(())?;
        let offset = self.number()?;
        let last = if self.take(",\"last\":true}") { true } else { self.take(",\"last\":false}").then_some(false)? };
        Some(Chunk { index, offset, last })
    }
}

#[cfg(test)]
mod tests;
