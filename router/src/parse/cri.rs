//! The CRI log format: `timestamp SP stream SP tags SP content`.
//!
//! The kubelet's reader is the reference (`cri-client`, `pkg/logs/logs.go`): only the first tag counts, and every first tag but `P` means that
//! the line ends here.

use fairlead_contract::record::{Stream, Timestamp};
use memchr::memchr;

use super::LogLine;

/// The longest head before the content that is looked for, in bytes; only tags can make it long.
pub const HEAD_BYTES_MAX: usize = 4 << 10;

/// Parses one physical line without its newline; `None` for a bad line.
#[inline]
pub fn parse(line: &[u8]) -> Option<LogLine<'_>> {
    let space = memchr(b' ', line.get(..line.len().min(40))?)?;
    let time = Timestamp::parse(&line[..space])?;
    let rest = &line[space + 1..];
    let (stream, rest) = if let Some(rest) = rest.strip_prefix(b"stdout ") {
        (Stream::Stdout, rest)
    } else {
        (Stream::Stderr, rest.strip_prefix(b"stderr ")?)
    };
    let (partial, content) = match rest {
        [b'F', b' ', content @ ..] => (false, content),
        [b'P', b' ', content @ ..] => (true, content),
        _ => {
            let end = memchr(b' ', &rest[..rest.len().min(HEAD_BYTES_MAX)])?;
            let first = rest[..end].split(|byte| *byte == b':').next()?;
            (first == b"P", &rest[end + 1..])
        }
    };
    Some(LogLine { time, stream, partial, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_takes() {
        let check = |line: &[u8], expected: Option<(Stream, bool, &[u8])>| {
            let parsed = parse(line).map(|line| (line.stream, line.partial, line.content));
            assert_eq!(parsed, expected, "{:?}", String::from_utf8_lossy(line));
        };
        fn out(partial: bool, content: &[u8]) -> Option<(Stream, bool, &[u8])> {
            Some((Stream::Stdout, partial, content))
        }
        check(b"2026-11-20T10:00:00.123456789Z stdout F hello", out(false, b"hello"));
        check(b"2026-11-20T10:00:00+00:00 stderr P part", Some((Stream::Stderr, true, b"part")));
        check(b"2026-11-20T10:00:00Z stdout F ", out(false, b""));
        check(b"2026-11-20T10:00:00Z stdout F   two spaces", out(false, b"  two spaces"));
        check(b"2026-11-20T10:00:00Z stdout P:TAG1:TAG2 x", out(true, b"x"));
        check(b"2026-11-20T10:00:00Z stdout F:TAG x", out(false, b"x"));
        check(b"2026-11-20T10:00:00Z stdout NEW x", out(false, b"x"));
        check(b"2026-11-20T10:00:00Z stdout PX x", out(false, b"x"));
        check(b"2026-11-20T10:00:00Z stdout  x", out(false, b"x"));
        check(b"2026-11-20T10:00:00Z stdout F bad \xff\x00 cr\r", out(false, b"bad \xff\x00 cr\r"));
        let bad: [&[u8]; 11] = [
            b"",
            b" ",
            b"2026-11-20T10:00:00Z",
            b"2026-11-20T10:00:00Z stdout",
            b"2026-11-20T10:00:00Z stdout F",
            b"2026-11-20T10:00:00Z stdin F x",
            b"2026-11-20T10:00:00Z stdoutF x",
            b"2026-11-20 10:00:00Z stdout F x",
            b"half a line 2026-11-20T10:00:00Z stdout F x",
            b"2026-11-20T10:00:00Z  stdout F x",
            b"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-20T10:00:00Z\"}",
        ];
        for bad in bad {
            check(bad, None);
        }
    }
}
