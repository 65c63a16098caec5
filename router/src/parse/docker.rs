//! Docker's `json-file` format: a JSON object on each physical line, `{"log":"text\n","stream":"stdout","attrs":{…},"time":"…"}`.
//!
//! What Docker writes (`jsonlogbytes.go`) is taken apart by hand; whatever is laid out otherwise goes to `serde_json`, and means the same. `log` ends
//! in a newline where the line ends; without one, more of the same line follows. `log` may be missing: Docker leaves an empty one out. Other members
//! are passed over, of whatever kind. An object without a stream or a time is no line, nor is one with another stream.

use std::{borrow::Cow, fmt, ops::Range};

use fairlead_contract::record::{Stream, Timestamp};
use memchr::memchr2;
use serde::{Deserialize, Deserializer, de};

use super::LogLine;

/// A longer physical line is a bad one, in bytes. Docker puts at most 16 KiB into a `log`, six-fold escaped at worst; the rest is for `attrs`.
pub const LINE_BYTES_MAX: usize = 192 << 10;

/// Parses one physical line without its newline; `None` for a bad line. What had escapes is put together in `scratch`.
#[inline]
pub fn parse<'a>(line: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<LogLine<'a>> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let parts = match as_written(line, scratch) {
        Some(parts) => parts,
        None => any_object(line, scratch)?,
    };
    let text = |piece: Piece<'a>| match piece {
        Piece::InLine(bytes) => bytes,
        Piece::InScratch(range) => &scratch[range],
    };
    let (content, ends) = match (text(parts.log), parts.ends) {
        (content, true) => (content, true),
        (log, false) => log.strip_suffix(b"\n").map_or((log, false), |content| (content, true)),
    };
    Some(LogLine { time: Timestamp::parse(text(parts.time))?, stream: parts.stream, partial: !ends, content })
}

/// Where a string's bytes are.
#[derive(Debug)]
enum Piece<'a> {
    InLine(&'a [u8]),
    InScratch(Range<usize>),
}

#[derive(Debug)]
struct Parts<'a> {
    log: Piece<'a>,
    /// Whether the line ends, and the newline is not among `log`'s bytes any more.
    ends: bool,
    stream: Stream,
    time: Piece<'a>,
}

/// An object as Docker lays it out; `None` for another one, which may be well all the same.
#[inline]
fn as_written<'a>(line: &'a [u8], scratch: &mut Vec<u8>) -> Option<Parts<'a>> {
    let (log, ends, rest) = log_string(line.strip_prefix(br#"{"log":""#)?, scratch)?;
    let (stream, rest) = match rest.strip_prefix(br#","stream":"stdout","#) {
        Some(rest) => (Stream::Stdout, rest),
        None => (Stream::Stderr, rest.strip_prefix(br#","stream":"stderr","#)?),
    };
    let rest = match rest.strip_prefix(br#""attrs":{"#) {
        Some(attrs) => behind_plain_members(attrs)?,
        None => rest,
    };
    let time = rest.strip_prefix(br#""time":""#)?.strip_suffix(br#""}"#)?;
    Timestamp::parse(time)?;
    Some(Parts { log, ends, stream, time: Piece::InLine(time) })
}

/// The string that begins here, whether it ended with a newline, and what stands behind its quote.
#[inline]
fn log_string<'a>(text: &'a [u8], scratch: &mut Vec<u8>) -> Option<(Piece<'a>, bool, &'a [u8])> {
    let first = memchr2(b'"', b'\\', text)?;
    if text[first] == b'"' {
        return Some((Piece::InLine(&text[..first]), false, &text[first + 1..]));
    }
    if text[first..].starts_with(br#"\n""#) {
        return Some((Piece::InLine(&text[..first]), true, &text[first + 3..]));
    }
    let end = unescape(text, first, scratch)?;
    Some((Piece::InScratch(0..scratch.len()), false, &text[end + 1..]))
}

/// Puts a string without its escapes into `scratch`; the first of them is at `at`. Gives the place of its closing quote; `None` where an escape needs
/// a closer look.
fn unescape(text: &[u8], mut at: usize, scratch: &mut Vec<u8>) -> Option<usize> {
    scratch.clear();
    let mut done = 0;
    loop {
        scratch.extend_from_slice(&text[done..at]);
        if text[at] == b'"' {
            return Some(at);
        }
        done = at + 2;
        match *text.get(at + 1)? {
            plain @ (b'"' | b'\\' | b'/') => scratch.push(plain),
            b'n' => scratch.push(b'\n'),
            b'r' => scratch.push(b'\r'),
            b't' => scratch.push(b'\t'),
            b'b' => scratch.push(0x08),
            b'f' => scratch.push(0x0c),
            b'u' => {
                done = at + 6;
                // Half of a pair is no character: what to make of it is left to the library.
                let character = char::from_u32(hexadecimal(text.get(at + 2..done)?)?)?;
                scratch.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
        at = next_special(text, done)?;
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES * 0x80;

/// The place of the next quote or backslash, eight bytes at a time: where there are many, they stand close together.
#[inline]
fn next_special(text: &[u8], from: usize) -> Option<usize> {
    // The high bit of the lowest byte equal to `byte` is set; bits above it mean nothing.
    let equal_to = |word: u64, byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero & HIGHS
    };
    let mut at = from;
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let hits = equal_to(word, b'"') | equal_to(word, b'\\');
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Some(at + text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?)
}

/// What stands behind an object whose members are plain strings, and behind the comma there; `None` where it is anything else.
fn behind_plain_members(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = behind_plain_string(text)?.strip_prefix(b":")?;
        text = behind_plain_string(text)?;
        match text {
            [b',', rest @ ..] => text = rest,
            [b'}', b',', rest @ ..] => return Some(rest),
            _ => return None,
        }
    }
}

fn behind_plain_string(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20))?;
    (text[end] == b'"').then(|| &text[end + 1..])
}

/// An object in any order, with any white space, and with whatever other members.
#[cold]
fn any_object<'a>(line: &'a [u8], scratch: &mut Vec<u8>) -> Option<Parts<'a>> {
    // An array of three strings would do for the library.
    line.trim_ascii_start().starts_with(b"{").then_some(())?;
    let object: Object<'_> = serde_json::from_slice(line).ok()?;
    let stream = match &*object.stream.0 {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    scratch.clear();
    scratch.extend_from_slice(object.log.as_ref().map_or(&[], |log| &log.0));
    let log_bytes = scratch.len();
    scratch.extend_from_slice(&object.time.0);
    let time = Piece::InScratch(log_bytes..scratch.len());
    Some(Parts { log: Piece::InScratch(0..log_bytes), ends: false, stream, time })
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    log: Option<Text<'a>>,
    #[serde(borrow)]
    stream: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,
}

/// A string of which it does not matter whether it is UTF-8: what is not is replaced, and counted, where the record is written.
struct Text<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(bytes.to_vec())))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
