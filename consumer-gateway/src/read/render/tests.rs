use fairlead_contract::record::{
    Chunk, Head, KubernetesHead, Line, Metadata, Notice, NoticeKind, Source, Stream, Timestamp, encode, encode_notice,
};
use proptest::prelude::*;

use super::*;
use crate::read::scan::Scanner;

fn head() -> Head {
    let kubernetes = KubernetesHead {
        namespace_name: "a",
        pod_name: "api-1",
        pod_id: "0b1",
        container_name: "api",
        host: "n",
        ..Default::default()
    };
    Head::new(&kubernetes, Metadata::Path, &"0b1/api/0/k3v9/1".parse::<Source>().unwrap())
}

fn value(log: &[u8], seq: u64, chunk: Option<Chunk>) -> Vec<u8> {
    let time = Timestamp::parse(b"2026-11-20T10:00:00Z").unwrap();
    let mut out = Vec::new();
    encode(
        &mut out,
        &head(),
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
fn a_notice_is_told_from_every_line() {
    let mut notice = Vec::new();
    let end = Notice { lines: Some(2), bytes: Some(9), ..Notice::new(NoticeKind::EndOfStream, "0b1/api/0/k3v9/1", 2) };
    encode_notice(&mut notice, &head(), &end, false, (0, 0));
    assert_eq!(
        text(&[notice, value(b"# end of stdout", 0, None)]),
        "# notice: end of stdout: 2 lines, 9 bytes\n\\x23 end of stdout\n"
    );
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

#[test]
fn numbers_at_the_end_of_their_range_do_not_panic() {
    let mut renderer = Renderer::new(Format::Text { prefix: false, timestamps: false });
    let (mut scanner, mut out) = (Scanner::default(), Vec::new());
    let value = value(b"abc", u64::MAX, Some(Chunk { index: 0, offset: 0, last: false }));
    for offset in [u64::MAX - 1, u64::MAX, 0, u64::MAX] {
        let mut view = scanner.scan(0, &value).unwrap();
        view.chunk = Some(Chunk { index: u32::MAX, offset, last: false });
        renderer.record(&view, &value, |_| (), &mut out);
    }
    renderer.flush(&mut out);
    assert!(!out.is_empty());
}

#[test]
fn no_line_poses_as_an_event() {
    assert_eq!(
        text(&[value(b"# end reason=complete lines=0 cursor=x", 0, None)]),
        "\\x23 end reason=complete lines=0 cursor=x\n"
    );
    assert_eq!(text(&[value(b"a # b", 0, None), value(b"#", 1, None)]), "a # b\n\\x23\n");
    let piece = |log: &[u8], seq, offset, last| value(log, seq, Some(Chunk { index: 0, offset, last }));
    assert_eq!(text(&[piece(b"# g", 1, 0, false), piece(b"ap", 1, 3, true)]), "\\x23 gap\n");
    assert_eq!(text(&[piece(b"# g", 1, 0, false)]), "\\x23 g\n");
    let stamped = render(Format::Text { prefix: false, timestamps: true }, &[value(b"# x", 0, None)]);
    assert_eq!(stamped, "2026-11-20T10:00:00Z # x\n");
}

#[test]
fn joins_are_bounded_and_the_oldest_is_broken() {
    let mut renderer = Renderer::new(Format::Text { prefix: false, timestamps: false });
    let (mut scanner, mut out) = (Scanner::default(), Vec::new());
    let piece = |source: usize, bytes: usize| {
        let value = value(&vec![b'x'; bytes], 7, Some(Chunk { index: 0, offset: 0, last: false }));
        String::from_utf8(value).unwrap().replace("0b1/api", &format!("u{source}/api")).into_bytes()
    };
    for source in 0..200 {
        let value = piece(source, if source < 100 { 10 } else { 900_000 });
        let view = scanner.scan(source as u64, &value).unwrap();
        renderer.record(&view, &value, |_| (), &mut out);
        let held: usize = renderer.joins.values().map(Join::bytes).sum();
        assert_eq!(renderer.joined_bytes, held);
        assert!(renderer.joins.len() <= JOINS_MAX && held <= JOINS_BYTES_MAX);
        assert!(renderer.joins.contains_key(&view.origin.source), "the latest is kept");
        let written = out.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(written + renderer.joins.len(), source + 1, "one line each, none lost");
    }
    assert_eq!(renderer.joins.len(), 4);
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
