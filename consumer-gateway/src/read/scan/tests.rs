use fairlead_contract::record::{
    Head as RecordHead, KubernetesHead, Line, Metadata, Source, Stream, Timestamp, encode,
};
use proptest::prelude::*;

use super::*;

const TIME: &[u8] = b"2026-11-20T10:00:00.123456789Z";

fn head(metadata: Metadata) -> RecordHead {
    let kubernetes = KubernetesHead {
        namespace_name: "payments",
        pod_name: "api-1",
        pod_id: "0b1",
        container_name: "api",
        host: "n",
        ..Default::default()
    };
    RecordHead::new(&kubernetes, metadata, &"0b1/api/0/k3v9/1".parse::<Source>().unwrap())
}

fn line(seq: u64, log: &[u8]) -> Line<'_> {
    Line {
        seq,
        lines: 1,
        left_out: 0,
        again: false,
        chunk: None,
        time: Timestamp::parse(TIME).unwrap(),
        stream: Stream::Stdout,
        log,
    }
}

fn value(line: &Line<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, &head(Metadata::Path), line);
    out
}

/// The cheap view of a value, learned from another of the same source, must equal the full parse.
fn check(value: &[u8]) {
    let mut scanner = Scanner::default();
    let stream = if full_stream(value) == "stderr" { Stream::Stderr } else { Stream::Stdout };
    scanner.scan(1, &self::value(&Line { stream, ..line(0, b"first") })).unwrap();
    assert_eq!(scanner.order.len(), 1, "the head was learned");
    let (cheap, full) = (scanner.scan(1, value).unwrap(), Record::parse(value).unwrap());
    assert!(matches!(cheap.log, Text::Escaped(_)), "not scanned cheaply: {}", String::from_utf8_lossy(value));
    assert_eq!(
        (cheap.seq, cheap.lines, cheap.again, cheap.chunk),
        (full.fairlead.seq, full.fairlead.lines, full.fairlead.again, full.fairlead.chunk)
    );
    assert_eq!((&*cheap.time, &*cheap.stream, &*cheap.log()), (&*full.time, &*full.stream, &*full.log));
    assert_eq!((&*cheap.origin.namespace, &*cheap.origin.pod, &*cheap.origin.container), ("payments", "api-1", "api"));
    assert_eq!(cheap.origin.source, Id::of(&full.fairlead.source));
}

fn full_stream(value: &[u8]) -> String {
    Record::parse(value).unwrap().stream.into_owned()
}

#[test]
fn the_cheap_view_equals_the_full_parse() {
    check(&value(&line(1, b"hello")));
    check(&value(&line(u64::MAX, b"")));
    check(&value(&line(7, b"quote \" back \\ tab \t nul \0 esc \x1b bad \xff \xe2\x80\xa8 \xf0\x9f\x98\x80")));
    check(&value(&Line { lines: 3, left_out: 2, again: true, ..line(7, b"x") }));
    check(&value(&Line {
        lines: 0,
        chunk: Some(Chunk { index: 2, offset: 99, last: false }),
        stream: Stream::Stderr,
        ..line(7, b"x")
    }));
    check(&value(&Line { chunk: Some(Chunk { index: 3, offset: 9, last: true }), ..line(7, b"x") }));
}

#[test]
fn what_is_laid_out_otherwise_is_parsed_in_full() {
    let good = String::from_utf8(value(&line(5, b"x"))).unwrap();
    let mut scanner = Scanner::default();
    scanner.scan(1, good.as_bytes()).unwrap();
    let other = [
        good.replace(",\"time\"", ", \"time\""),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"more\":{}}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"log_processed\":[1]}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"log_processed\":{},\"more\":1}"),
        good.replace("\"seq\":5", "\"seq\":5,\"later\":1"),
        good.replace("}", "}\n"),
    ];
    for other in other {
        let view = scanner.scan(1, other.as_bytes()).unwrap();
        assert!(matches!(view.log, Text::Plain(_)), "{other}");
        assert_eq!((view.seq, &*view.log()), (5, "x"));
    }
    let bad = [
        good.replace("\"seq\":5", "\"seq\":05"),
        good.replace("\"log\":\"x\"", "\"log\":\"\\x\""),
        good.replace("\"log\":\"x\"", "\"log\":\"a\nb\""),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\"}}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"event\":\"end\"}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"log_processed\":{},\"event\":\"end\"}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"log_processed\":{\"a\"}}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"log_processed\":{}}}"),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"log_processed\":{}"),
        good.replace("\"log\":\"x\"", "\"log\":\"\\ud83d\""),
        good.replace("\"log\":\"x\"}", "\"log\":\"x\",\"kubernetes\":{\"namespace_name\":\"b\"}}"),
        String::new(),
        "null".into(),
        "{}".into(),
    ];
    for (index, bad) in bad.iter().enumerate() {
        assert_eq!(scanner.scan(1, bad.as_bytes()).unwrap_err(), Unreadable, "case {index}: {bad}");
    }
    assert_eq!(scanner.scan(1, b"\xff").unwrap_err(), Unreadable);
}

#[test]
fn a_notice_has_no_numbers_of_its_own() {
    let value = String::from_utf8(value(&line(5, b"x"))).unwrap();
    let notice =
        value.replace("\"seq\":5", "\"seq\":5,\"notice\":{\"kind\":\"gap\",\"source\":\"s\",\"seq\":5,\"lines\":2}");
    let mut scanner = Scanner::default();
    let view = scanner.scan(1, notice.as_bytes()).unwrap();
    assert_eq!(view.covers(), Covers::Notice(Id::of("gap s 5")));
    assert_eq!(scanner.order.len(), 0);
}

#[test]
fn heads_are_bounded() {
    let mut scanner = Scanner::default();
    for number in 0..3000_u64 {
        let value = String::from_utf8(value(&line(1, b"x"))).unwrap().replace("0b1/api", &format!("u{number}/api"));
        scanner.scan(number % 500, value.as_bytes()).unwrap();
        assert!(scanner.order.len() <= HEADS_MAX && scanner.bytes <= HEADS_BYTES_MAX);
        assert!(scanner.heads.values().all(|heads| heads.len() <= HEADS_PER_KEY_MAX));
        assert_eq!(scanner.order.len(), scanner.heads.values().map(Vec::len).sum::<usize>());
        let bytes: usize = scanner.heads.values().flatten().map(|head| head.bytes.len()).sum();
        assert_eq!(scanner.bytes, bytes);
        assert!(scanner.heads.contains_key(&(number % 500)), "the latest is kept");
    }
    // One long head takes the place of some, not of all.
    let before = scanner.order.len();
    let long = String::from_utf8(value(&line(1, b"x"))).unwrap().replace("0b1/api", &"u".repeat(8000));
    scanner.scan(7, long.as_bytes()).unwrap();
    assert!(scanner.order.len() > before / 2 && scanner.bytes <= HEADS_BYTES_MAX);
    let too_long = long.replace("uuuu", &"u".repeat(20));
    let kept = scanner.order.len();
    scanner.scan(9000, too_long.as_bytes()).unwrap();
    assert_eq!(scanner.order.len(), kept);
}

#[test]
fn reserved_members_are_refused_whatever_their_value() {
    let good = String::from_utf8(value(&line(5, b"x"))).unwrap();
    for name in ["event", "cursor", "\\u0065vent"] {
        for member in ["null", "\"end\"", "7", "{}", "false"] {
            let end = good.replace("\"log\":\"x\"}", &format!("\"log\":\"x\",\"{name}\":{member}}}"));
            let start = good.replacen('{', &format!("{{\"{name}\":{member},"), 1);
            for bad in [end, start] {
                let mut scanner = Scanner::default();
                assert_eq!(scanner.scan(1, bad.as_bytes()).unwrap_err(), Unreadable, "{bad}");
                scanner.scan(1, good.as_bytes()).unwrap();
                assert_eq!(scanner.scan(1, bad.as_bytes()).unwrap_err(), Unreadable, "{bad}");
            }
        }
    }
    let inside = good.replace("\"host\":", "\"event\":null,\"cursor\":1,\"host\":");
    assert!(Scanner::default().scan(1, inside.as_bytes()).is_ok(), "{inside}");
}

#[test]
fn a_piece_past_the_largest_number_is_refused() {
    let mut scanner = Scanner::default();
    scanner.scan(1, &value(&line(0, b"first"))).unwrap();
    for (offset, good) in [(0, true), (1 << 60, true), (u64::MAX - 2, false), (u64::MAX, false)] {
        let piece = value(&Line { chunk: Some(Chunk { index: 1, offset, last: false }), ..line(7, b"abc") });
        let laid_out = [b" ".as_slice(), &piece].concat();
        for value in [piece, laid_out] {
            assert_eq!(scanner.scan(1, &value).is_ok(), good, "{offset}");
        }
    }
}

proptest! {
    #[test]
    fn any_line_is_seen_as_the_full_parser_sees_it(log in proptest::collection::vec(any::<u8>(), 0..200), seq: u64, lines in 0..5_u64, again: bool) {
        check(&value(&Line { lines, again, ..line(seq, &log) }));
    }

    #[test]
    fn a_damaged_value_never_panics(at in 0..400_usize, byte: u8) {
        let mut value = value(&line(5, b"some \"text\""));
        let mut scanner = Scanner::default();
        scanner.scan(1, &value).unwrap();
        let at = at % value.len();
        value[at] = byte;
        let (cheap, full) = (scanner.scan(1, &value).is_ok(), Record::parse(&value).is_ok());
        prop_assert!(full || !cheap, "taken cheaply, refused in full: {}", String::from_utf8_lossy(&value));
    }
}

#[test]
fn the_golden_records_are_read_as_they_are() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../contract/examples/v1");
    for name in ["plain", "bytes", "fragments", "complete", "partial", "processed"] {
        let text = std::fs::read_to_string(examples.join(format!("{name}.ndjson"))).unwrap();
        let mut scanner = Scanner::default();
        for value in text.lines() {
            // Twice: in full while the head is learned, and by the learned head.
            for time in 0..2 {
                let (view, full) =
                    (scanner.scan(1, value.as_bytes()).unwrap(), Record::parse(value.as_bytes()).unwrap());
                assert!(time == 0 || matches!(view.log, Text::Escaped(_)), "{name} is not scanned cheaply: {value}");
                assert_eq!((view.seq, view.lines), (full.fairlead.seq, full.fairlead.lines), "{name}: {value}");
                assert_eq!((&*view.time, &*view.stream, &*view.log()), (&*full.time, &*full.stream, &*full.log));
                assert_eq!(&*view.origin.namespace, "payments");
                assert_eq!(view.origin.source, Id::of(&full.fairlead.source));
            }
        }
    }
}
