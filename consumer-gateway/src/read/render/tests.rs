use fairlead_contract::record::{Chunk, Head, KubernetesHead, Line, Metadata, Source, Stream, Timestamp, encode};
use proptest::prelude::*;

use super::*;
use crate::read::scan::Scanner;

fn value(log: &[u8], seq: u64, chunk: Option<Chunk>) -> Vec<u8> {
    let kubernetes = KubernetesHead {
        namespace_name: "a",
        pod_name: "api-1",
        pod_id: "0b1",
        container_name: "api",
        host: "n",
        ..Default::default()
    };
    let head = Head::new(&kubernetes, Metadata::Path, &"0b1/api/0/k3v9/1".parse::<Source>().unwrap());
    let time = Timestamp::parse(b"2026-11-20T10:00:00Z").unwrap();
    let mut out = Vec::new();
    encode(
        &mut out,
        &head,
        &Line { seq, lines: 1, left_out: 0, again: false, chunk, time, stream: Stream::Stdout, log },
    );
    out
}

fn render(format: Format, values: &[Vec<u8>]) -> String {
    let (mut renderer, mut scanner, mut out) = (Renderer::new(format), Scanner::default(), Vec::new());
    for value in values {
        let view = scanner.scan(0, value).unwrap();
        renderer.record(&view, value, |out| out.extend_from_slice(b"CUR"), &mut out);
    }
    renderer.flush(&mut out);
    String::from_utf8(out).unwrap()
}

fn text(values: &[Vec<u8>]) -> String {
    render(Format::Text { prefix: false, timestamps: false }, values)
}

#[test]
fn ndjson_is_the_value_with_the_cursor_last() {
    let value = value(b"x \"y\"", 4, None);
    let plain = String::from_utf8(value.clone()).unwrap();
    let expected = format!("{},\"cursor\":\"CUR\"}}\n", plain.strip_suffix('}').unwrap());
    assert_eq!(render(Format::Ndjson, &[value]), expected);
    let laid_out = plain.replace(",\"time\"", ",\r\n  \"time\"") + "\n ";
    let one_line = render(Format::Ndjson, &[laid_out.into_bytes()]);
    assert_eq!(one_line.matches('\n').count(), 1);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&one_line).unwrap()["cursor"], "CUR");
}

#[test]
fn text_as_kubectl_prints_it() {
    for (prefix, timestamps, expected) in [
        (false, false, "hi\tthere\n"),
        (true, false, "[pod/api-1/api] hi\tthere\n"),
        (false, true, "2026-11-20T10:00:00Z hi\tthere\n"),
        (true, true, "[pod/api-1/api] 2026-11-20T10:00:00Z hi\tthere\n"),
    ] {
        assert_eq!(render(Format::Text { prefix, timestamps }, &[value(b"hi\tthere", 0, None)]), expected);
    }
}

#[test]
fn control_characters_are_written_out() {
    for (log, expected) in [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb", "a\\rb"),
        ("nul\0del\x7f", "nul\\x00del\\x7f"),
        ("c1 \u{9b}31m", "c1 \\u{009b}31m"),
        ("rtl \u{202e}x", "rtl \\u{202e}x"),
        ("line\u{2028}sep", "line\\u{2028}sep"),
        ("é 漢 🦀", "é 漢 🦀"),
    ] {
        assert_eq!(text(&[value(log.as_bytes(), 0, None)]), format!("{expected}\n"));
    }
}

#[test]
fn pieces_are_joined_by_offset() {
    let piece = |log: &[u8], offset, last| value(log, 7, Some(Chunk { index: 0, offset, last }));
    assert_eq!(text(&[piece(b"abc", 0, false), piece(b"def", 3, false), piece(b"gh", 6, true)]), "abcdefgh\n");
    // Cut another way after a restart.
    assert_eq!(text(&[piece(b"abc", 0, false), piece(b"bcdef", 1, true)]), "abcdef\n");
    // An old piece comes twice.
    assert_eq!(text(&[piece(b"abc", 0, false), piece(b"ab", 0, false), piece(b"d", 3, true)]), "abcd\n");
    // The beginning is not in the range; the end is not in the range.
    assert_eq!(text(&[piece(b"def", 3, true)]), "def\n");
    assert_eq!(text(&[piece(b"abc", 0, false)]), "abc\n");
    // A hole is not glued over.
    assert_eq!(text(&[piece(b"abc", 0, false), piece(b"xyz", 9, true)]), "abc\nxyz\n");
    // Another line of the source.
    assert_eq!(text(&[piece(b"abc", 0, false), value(b"next", 8, None)]), "abc\nnext\n");
}

proptest! {
    #[test]
    fn text_is_one_harmless_line(log in proptest::collection::vec(any::<u8>(), 0..80)) {
        let out = text(&[value(&log, 0, None)]);
        prop_assert_eq!(out.matches('\n').count(), 1);
        prop_assert!(!out[..out.len() - 1].chars().any(|c| c.is_control() && c != '\t'));
    }

    #[test]
    fn ndjson_keeps_every_member(log in proptest::collection::vec(any::<u8>(), 0..80), seq: u64) {
        let value = value(&log, seq, None);
        let mut before: serde_json::Value = serde_json::from_slice(&value).unwrap();
        let after: serde_json::Value = serde_json::from_str(&render(Format::Ndjson, &[value])).unwrap();
        before["cursor"] = "CUR".into();
        prop_assert_eq!(before, after);
    }
}
