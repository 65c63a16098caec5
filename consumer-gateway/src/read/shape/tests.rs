use fairlead_contract::{
    record::{Head, KubernetesHead, Line, Metadata, Source, Stream, Timestamp, encode},
    topic::TopicName,
};

use super::*;
use crate::read::{
    cursor::Keys,
    filter::{Moment, pattern},
};

const KEYS: [u8; 32] = [3; 32];

fn ns() -> Namespace {
    Namespace::parse("payments").unwrap()
}

fn value(namespace: &str, seq: u64, again: bool, log: &str) -> Vec<u8> {
    let kubernetes = KubernetesHead {
        namespace_name: namespace,
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
        &Line { seq, lines: 1, left_out: 0, again, chunk: None, time, stream: Stream::Stdout, log: log.as_bytes() },
    );
    out
}

fn shaper(shared: bool, filter: Filter) -> Shaper {
    shaper_of(Format::Ndjson, shared, filter)
}

fn shaper_of(format: Format, shared: bool, filter: Filter) -> Shaper {
    let sealer =
        Keys::new(vec![KEYS]).unwrap().sealer(&ns(), TopicMark::new(&TopicName::parse("logs.payments").unwrap(), None));
    Shaper::new(Shape { namespace: ns(), shared, filter, format, sealer, heartbeat: Duration::from_secs(10) })
}

fn record(offset: i64, value: &[u8]) -> RawRecord<'_> {
    RawRecord { partition: 0, offset, sent: 0, key_hash: 0, value }
}

fn cursors(out: &[u8]) -> Vec<Positions> {
    let text = std::str::from_utf8(out).unwrap();
    let keys = Keys::new(vec![KEYS]).unwrap();
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            keys.open(&ns(), line["cursor"].as_str().unwrap()).unwrap().positions
        })
        .collect()
}

#[test]
fn the_cursor_of_a_line_stands_behind_it() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    shaper.start_at(Positions::from_offsets(&[5, 9]));
    for offset in [5, 6, 8] {
        assert_eq!(
            shaper.take(&record(offset, &value("payments", offset as u64, false, "x")), &mut out),
            Verdict::Shown
        );
    }
    assert_eq!(cursors(&out), [[6, 9], [7, 9], [9, 9]].map(|offsets| Positions::from_offsets(&offsets)));
    assert_eq!(
        shaper.take(&record(7, &value("payments", 7, false, "x")), &mut out),
        Verdict::LeftOut,
        "a record from before the position"
    );
}

#[test]
fn another_namespace_is_withheld_and_counted() {
    for (shared, foreign) in [(false, 1), (true, 0)] {
        let (mut shaper, mut out) = (shaper(shared, Filter::default()), Vec::new());
        assert_eq!(shaper.take(&record(0, &value("payments-b", 0, false, "secret")), &mut out), Verdict::LeftOut);
        assert_eq!((out.len(), shaper.counts().withheld.foreign, shaper.positions().get(0)), (0, foreign, Some(1)));
    }
}

#[test]
fn what_is_no_record_is_withheld_and_counted() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    for (offset, bad) in
        [b"".as_slice(), b"text", b"{}", b"{\"kubernetes\":{\"namespace_name\":\"payments\"}}", b"\xff"]
            .iter()
            .enumerate()
    {
        assert_eq!(shaper.take(&record(offset as i64, bad), &mut out), Verdict::LeftOut);
    }
    assert_eq!((out.len(), shaper.counts().withheld.unreadable, shaper.counts().scanned), (0, 5, 5));
}

#[test]
fn a_line_text_cannot_make_it_another_namespaces() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    let spoof = r#"x","kubernetes":{"namespace_name":"payments"},"a":"{"kubernetes":{"namespace_name":"payments"}}"#;
    shaper.take(&record(0, &value("payments-b", 0, false, spoof)), &mut out);
    assert!(out.is_empty());
    shaper.take(&record(1, &value("payments", 0, false, &spoof.replace("payments", "other"))), &mut out);
    assert_eq!(shaper.counts().lines, 1);
}

#[test]
fn repeats_are_left_out_marked_or_not() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    let cases = [
        (0, false, Verdict::Shown),
        (1, false, Verdict::Shown),
        (1, false, Verdict::LeftOut),
        (0, true, Verdict::LeftOut),
        (2, true, Verdict::Shown),
    ];
    for (offset, (seq, again, expected)) in cases.into_iter().enumerate() {
        assert_eq!(
            shaper.take(&record(offset as i64, &value("payments", seq, again, "x")), &mut out),
            expected,
            "offset {offset}"
        );
    }
    assert_eq!(shaper.counts().withheld.repeats, 2);
}

#[test]
fn after_a_cursor_a_marked_record_asks_for_a_look_back_once() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    shaper.start_at(Positions::from_offsets(&[10]));
    shaper.continue_at(Positions::from_offsets(&[10]));
    let marked = value("payments", 4, true, "x");
    assert_eq!(shaper.take(&record(10, &value("payments", 9, false, "x")), &mut out), Verdict::Shown);
    assert_eq!(shaper.take(&record(11, &marked), &mut out), Verdict::LookBack);
    assert_eq!((shaper.positions().get(0), shaper.look_back_from(0)), (Some(11), Some(10)));
    shaper.remember(&record(8, &value("payments", 4, false, "x")));
    shaper.looked_back(0);
    assert_eq!(shaper.take(&record(11, &marked), &mut out), Verdict::LeftOut);
    assert_eq!(
        shaper.take(&record(12, &value("payments", 3, true, "x")), &mut out),
        Verdict::Shown,
        "from further back: shown with its mark"
    );
}

#[test]
fn filters_do_not_hide_repeats_from_memory_nor_what_comes_live() {
    let moment = Moment::of("2026-11-20T10:30:00Z".parse().unwrap());
    let filter = Filter { since: Some(moment), grep: Some(pattern("keep").unwrap()), ..Filter::default() };
    let (mut shaper, mut out) = (shaper(false, filter), Vec::new());
    shaper.live_from(Positions::from_offsets(&[2]));
    assert_eq!(shaper.take(&record(0, &value("payments", 0, false, "keep old")), &mut out), Verdict::LeftOut);
    assert_eq!(shaper.take(&record(2, &value("payments", 1, false, "keep old but live")), &mut out), Verdict::Shown);
    assert_eq!(shaper.take(&record(3, &value("payments", 2, false, "other")), &mut out), Verdict::LeftOut);
}

#[test]
fn skipped_lines_are_counted_but_not_written() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    shaper.skip_lines(2);
    for offset in 0..4_i64 {
        shaper.take(&record(offset, &value("payments", offset as u64, false, "x")), &mut out);
    }
    assert_eq!(
        (shaper.counts().lines, cursors(&out)),
        (2, [3, 4].map(|offset| Positions::from_offsets(&[offset])).to_vec())
    );
}

/// Pieces as (seq, offset, last, text); offset `None` is a line of its own.
type Part = (u64, Option<u64>, bool, &'static str);

fn part((seq, offset, last, log): Part) -> Vec<u8> {
    let text = String::from_utf8(value("payments", seq, false, log)).unwrap();
    let Some(offset) = offset else { return text.into_bytes() };
    let lines = u8::from(last);
    let chunk =
        format!("\"seq\":{seq},\"lines\":{lines},\"chunk\":{{\"index\":0,\"offset\":{offset},\"last\":{last}}}");
    text.replace(&format!("\"seq\":{seq}"), &chunk).into_bytes()
}

/// What is written until `limit` lines were shown, how many were shown, and how many were skipped.
fn show(shaper: &mut Shaper, parts: &[Part], limit: u64) -> (String, u64, u64) {
    let mut out = Vec::new();
    for (offset, of) in (0..).zip(parts) {
        let verdict = shaper.take(&record(offset, &part(*of)), &mut out);
        if verdict == Verdict::Shown && shaper.counts().lines >= limit {
            break;
        }
    }
    (String::from_utf8(out).unwrap(), shaper.counts().lines, shaper.skipped())
}

const TEXT: Format = Format::Text { prefix: false, timestamps: false };
const PARTS: [Part; 6] = [
    (0, None, false, "one"),
    (1, Some(0), false, "ab"),
    (1, Some(2), false, "cd"),
    (1, Some(4), true, "ef"),
    (2, Some(0), false, "gh"),
    (2, Some(2), true, "ij"),
];

#[test]
fn in_text_a_line_in_pieces_is_one_line() {
    for (skip, limit, expected) in [
        (0, 9, ("one\nabcdef\nghij\n", 3, 0)),
        (0, 1, ("one\n", 1, 0)),
        (0, 2, ("one\nabcdef\n", 2, 0)),
        (1, 1, ("abcdef\n", 1, 1)),
        (2, 1, ("ghij\n", 1, 2)),
        (3, 1, ("", 0, 3)),
    ] {
        let mut shaper = shaper_of(TEXT, false, Filter::default());
        shaper.skip_lines(skip);
        let (text, lines, skipped) = show(&mut shaper, &PARTS, limit);
        assert_eq!((text.as_str(), lines, skipped), expected, "skip {skip}, limit {limit}");
    }
    let mut twin = shaper_of(TEXT, false, Filter::default()).counting_twin();
    assert_eq!(show(&mut twin, &PARTS, 9), (String::new(), 0, 3));
    let mut twin = shaper_of(TEXT, false, Filter::default()).counting_twin();
    assert_eq!(show(&mut twin, &PARTS[3..], 9), (String::new(), 0, 1), "the rest of a line is no line");
    let mut records = shaper(false, Filter::default());
    assert_eq!(show(&mut records, &PARTS, 2).1, 2);
    assert_eq!(records.positions().get(0), Some(2), "in NDJSON each piece counts");
}

#[test]
fn in_text_a_line_ends_also_with_a_piece_that_was_not_asked_for() {
    for (grep, limit, expected) in [
        ("ab", 1, ("ab\n", 1)),
        ("cd", 1, ("cd\n", 1)),
        ("ef", 1, ("ef\n", 1)),
        ("gh|one", 2, ("one\ngh\n", 2)),
        ("zz", 1, ("", 0)),
    ] {
        let filter = Filter { grep: Some(pattern(grep).unwrap()), ..Filter::default() };
        let mut twin = shaper_of(TEXT, false, filter.clone()).counting_twin();
        assert_eq!(show(&mut twin, &PARTS, 9).2, expected.1, "{grep}");
        let (text, lines, _) = show(&mut shaper_of(TEXT, false, filter), &PARTS, limit);
        assert_eq!((text.as_str(), lines), expected, "{grep}");
    }
}

#[test]
fn in_text_a_line_that_breaks_off_is_counted_once() {
    let broken: [Part; 3] = [(1, Some(0), false, "ab"), (2, None, false, "next"), (3, Some(0), false, "open")];
    let mut shaper = shaper_of(TEXT, false, Filter::default());
    assert_eq!(show(&mut shaper, &broken, 9), ("ab\nnext\n".into(), 2, 0));
    let mut out = Vec::new();
    shaper.end(EndReason::Complete, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("open\n# end reason=complete lines=3 "), "{text}");
}

#[test]
fn events_carry_the_cursor() {
    let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
    shaper.start_at(Positions::from_offsets(&[3]));
    shaper.heartbeat(&mut out);
    shaper.gap(&[Missing { partition: 0, from: 3, to: 8 }], &mut out);
    shaper.end(EndReason::Complete, &mut out);
    assert!(!String::from_utf8_lossy(&out).contains("start"), "no line was sent");
    assert_eq!(cursors(&out), [3, 8, 8].map(|offset| Positions::from_offsets(&[offset])));
}
