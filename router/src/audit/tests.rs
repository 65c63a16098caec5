//! Whole topics, record by record, as they would lie in Kafka.

use fairlead_contract::record::{
    Chunk, Head, KubernetesHead, Line, LossReason, Metadata, Notice, NoticeKind, Source, Stream, Timestamp, encode,
    encode_notice,
};
use proptest::prelude::*;

use super::{
    explain::{Explanation, What},
    read::Span,
    report::{SourceReport, TopicReport},
    source::Wrong,
    topic::{Raw, TopicAudit},
    verdict::Verdict,
    *,
};

const KEY: &[u8] = b"payments/api-1/api";
const SOURCE: &str = "u/api/0/e/1";

/// What a record is made of.
#[derive(Clone, Debug)]
enum Given {
    Line { seq: u64, lines: u64, left_out: u64, again: bool, chunk: Option<Chunk>, log: String },
    Notice { kind: NoticeKind, seq: u64, lines: Option<u64>, next: Option<&'static str> },
}

fn line(seq: u64, lines: u64, log: &str) -> Given {
    Given::Line { seq, lines, left_out: 0, again: false, chunk: None, log: log.to_owned() }
}

fn again(given: &Given) -> Given {
    match given.clone() {
        Given::Line { seq, lines, left_out, chunk, log, .. } => {
            Given::Line { seq, lines, left_out, again: true, chunk, log }
        }
        notice => notice,
    }
}

fn piece(seq: u64, lines: u64, offset: u64, last: bool, log: &str) -> Given {
    let chunk = Some(Chunk { index: 0, offset, last });
    Given::Line { seq, lines, left_out: 0, again: false, chunk, log: log.to_owned() }
}

fn notice(kind: NoticeKind, seq: u64, lines: Option<u64>) -> Given {
    Given::Notice { kind, seq, lines, next: None }
}

fn end(seq: u64) -> Given {
    notice(NoticeKind::EndOfStream, seq, Some(seq))
}

fn head(namespace: &str) -> Head {
    let source: Source = SOURCE.parse().unwrap();
    let kubernetes = KubernetesHead {
        namespace_name: namespace,
        pod_name: "api-1",
        pod_id: "u",
        container_name: "api",
        host: "node-1",
        ..KubernetesHead::default()
    };
    Head::new(&kubernetes, Metadata::Path, &source)
}

fn value(given: &Given) -> Vec<u8> {
    let mut out = Vec::new();
    match given {
        Given::Line { seq, lines, left_out, again, chunk, log } => {
            let stamp = format!("2026-11-20T10:00:00.{:09}Z", seq % 1_000_000_000);
            let time = Timestamp::parse(stamp.as_bytes()).unwrap();
            let (seq, lines, left_out, again, chunk) = (*seq, *lines, *left_out, *again, *chunk);
            let line = Line { seq, lines, left_out, again, chunk, time, stream: Stream::Stdout, log: log.as_bytes() };
            encode(&mut out, &head("payments"), &line);
        }
        Given::Notice { kind, seq, lines, next } => {
            let reason = (*kind == NoticeKind::Gap).then_some(LossReason::Budget);
            let next_source = next.map(Into::into);
            let notice = Notice { lines: *lines, reason, next_source, ..Notice::new(*kind, SOURCE, *seq) };
            encode_notice(&mut out, &head("payments"), &notice, false, (1_795_255_200, 0));
        }
    }
    out
}

/// Audits values in this order; `from`: the offset at which the topic's log begins.
fn audit_values(values: &[(&[u8], &[u8])], from: i64) -> TopicReport {
    let map = TopicMap::default();
    let mut audit = TopicAudit::new(TopicName::parse("logs.payments").unwrap(), &map, 10_000);
    for (place, (key, value)) in values.iter().enumerate() {
        let offset = from + i64::try_from(place).unwrap();
        let raw = Raw { partition: 0, offset, sent_ms: 1_795_255_200_000 + offset, key, value: Some(value) };
        audit.take(&raw, &mut |_, _, _| {}).unwrap();
    }
    let to = from + i64::try_from(values.len()).unwrap();
    TopicReport::new(&audit, &[Span { partition: 0, from, to }], false)
}

fn audited(given: &[Given], from: i64) -> TopicReport {
    let values: Vec<Vec<u8>> = given.iter().map(value).collect();
    audit_values(&values.iter().map(|value| (KEY, value.as_slice())).collect::<Vec<_>>(), from)
}

fn only_source(report: &TopicReport) -> &SourceReport {
    assert_eq!(report.sources.len(), 1, "{report:?}");
    &report.sources[0]
}

#[test]
fn sources_are_judged_by_their_records() {
    let check = |given: &[Given], verdict: Verdict, lines: u64, holes: &[(u64, u64)], repeats: u64| {
        let report = audited(given, 0);
        let source = only_source(&report);
        let found: Vec<(u64, u64)> = source.holes.iter().map(|hole| (hole.from, hole.to)).collect();
        assert_eq!((source.verdict, source.lines, source.repeats), (verdict, lines, repeats), "{given:?}: {source:?}");
        assert_eq!(found, holes, "{given:?}");
        assert!(source.faults.is_empty(), "{given:?}: {:?}", source.faults);
        assert_eq!(report.summary.is_wrong(), verdict == Verdict::Hole, "{given:?}");
    };
    let r = |seq: u64| line(seq, 1, &format!("line {seq}"));
    let (r0, r1, r2) = (r(0), r(1), r(2));
    check(&[r0.clone(), r1.clone(), r2.clone(), end(3)], Verdict::Complete, 3, &[], 0);
    check(&[r0.clone(), r1.clone()], Verdict::Open, 2, &[], 0);
    // Kafka refused R1, took R2, and then took both.
    check(&[r0.clone(), r2.clone(), again(&r1), again(&r2), end(3)], Verdict::Complete, 3, &[], 1);
    check(&[r0.clone(), r2.clone()], Verdict::Hole, 2, &[(1, 2)], 0);
    check(&[r0.clone(), r1.clone(), end(3)], Verdict::Hole, 2, &[(2, 3)], 0);
    check(&[r0.clone(), end(1), r1.clone()], Verdict::Open, 2, &[], 0);
    check(&[r0.clone(), end(1), r1.clone(), end(2)], Verdict::Complete, 2, &[], 0);
    // A producer's own repeat, at once.
    check(&[r0.clone(), r1.clone(), r0.clone(), r1.clone(), end(2)], Verdict::Complete, 2, &[], 2);
    // Left out, announced, unknown.
    let left_out = Given::Line { seq: 3, lines: 1, left_out: 2, again: false, chunk: None, log: "line 3".to_owned() };
    check(&[r0.clone(), left_out, end(4)], Verdict::Complete, 2, &[], 0);
    check(&[r0.clone(), notice(NoticeKind::Gap, 1, Some(2)), r(3), end(4)], Verdict::Complete, 2, &[], 0);
    check(&[r0.clone(), notice(NoticeKind::Gap, 1, Some(1)), r(3), end(4)], Verdict::Hole, 2, &[(2, 3)], 0);
    check(&[r0.clone(), notice(NoticeKind::Throttled, 1, Some(5)), end(6)], Verdict::Complete, 1, &[], 0);
    check(&[notice(NoticeKind::ParseErrors, 0, Some(5)), end(5)], Verdict::Complete, 0, &[], 0);
    let broken_off = Given::Notice { kind: NoticeKind::Gap, seq: 1, lines: None, next: Some("u/api/0/f/1") };
    check(&[r0.clone(), broken_off.clone()], Verdict::Open, 1, &[], 0);
    check(&[r1.clone(), broken_off], Verdict::Hole, 1, &[(0, 1)], 0);
    let goes_on = Given::Notice { kind: NoticeKind::Gap, seq: 1, lines: Some(0), next: Some("u/api/0/f/1") };
    check(&[r0.clone(), goes_on], Verdict::Complete, 1, &[], 0);
    check(&[notice(NoticeKind::Gap, 0, None), r0.clone(), end(1)], Verdict::Complete, 1, &[], 0);
    // Chunks count when the last one and all bytes before it are there, in any order, however they are cut.
    let cut = [piece(1, 0, 0, false, "abc"), piece(1, 0, 3, false, "def"), piece(1, 2, 6, true, "gh")];
    let with = |pieces: &[Given]| [&[r0.clone()], pieces, &[end(3)]].concat();
    check(&with(&cut), Verdict::Complete, 3, &[], 0);
    check(&with(&[cut[2].clone(), cut[0].clone(), cut[1].clone()]), Verdict::Complete, 3, &[], 0);
    check(&with(&cut[..2]), Verdict::Hole, 1, &[(1, 3)], 0);
    check(&with(&[cut[0].clone(), cut[2].clone()]), Verdict::Hole, 1, &[(1, 3)], 0);
    check(&with(&[cut[0].clone(), piece(1, 2, 2, true, "cdefgh")]), Verdict::Complete, 3, &[], 0);
    let recut = [again(&piece(1, 0, 0, false, "abcde")), again(&piece(1, 2, 5, true, "fgh"))];
    check(&with(&[cut.as_slice(), &recut].concat()), Verdict::Complete, 3, &[], 2);
    check(&with(&[&cut[..2], &recut].concat()), Verdict::Complete, 3, &[], 1);
    // Sent early and then whole, or the other way round.
    let early = [line(0, 2, "ab"), line(2, 1, "c"), again(&line(0, 3, "abc")), end(3)];
    check(&early, Verdict::Complete, 3, &[], 1);
    let late = [line(0, 2, "ab"), again(&line(0, 3, "abc")), end(3)];
    check(&late, Verdict::Complete, 3, &[], 0);
}

#[test]
fn what_is_wrong_is_a_fault() {
    let check = |given: &[Given], expected: &[(Wrong, u64, u64)]| {
        let report = audited(given, 0);
        let source = only_source(&report);
        let found: Vec<_> = source.faults.iter().map(|fault| (fault.wrong, fault.from, fault.to)).collect();
        assert_eq!(found, expected, "{given:?}");
        assert_eq!(report.summary.is_wrong(), !expected.is_empty(), "{given:?}");
    };
    let (r0, r1) = (line(0, 1, "a"), line(1, 1, "b"));
    check(&[r0.clone(), r1.clone(), again(&line(0, 1, "x"))], &[(Wrong::OtherContent, 0, 1)]);
    check(&[r0.clone(), r1.clone(), again(&line(0, 2, "ax"))], &[(Wrong::OtherContent, 0, 1)]);
    check(&[r0.clone(), r1.clone(), again(&line(0, 2, "ab"))], &[]);
    // Joined otherwise than before is no producer's repeat.
    check(&[r0.clone(), r1.clone(), line(0, 2, "ab")], &[(Wrong::UnmarkedRepeat, 0, 2)]);
    check(&[r0.clone(), line(0, 2, "ab")], &[(Wrong::UnmarkedRepeat, 0, 2)]);
    check(&[piece(0, 0, 0, false, "abc"), again(&piece(0, 0, 0, false, "abx"))], &[(Wrong::OtherContent, 0, 1)]);
    // A line whose end was cut off, as a notice says, may come with another end.
    let cut_off = notice(NoticeKind::Truncated, 0, None);
    check(&[line(0, 1, "long line"), again(&line(0, 1, "long")), cut_off.clone()], &[]);
    check(&[line(0, 3, "long line"), again(&line(0, 3, "long")), cut_off.clone()], &[]);
    check(&[r0.clone(), r1.clone(), again(&line(1, 1, "x")), cut_off], &[(Wrong::OtherContent, 1, 2)]);
}

#[test]
fn an_unmarked_repeat_from_far_back_is_a_fault() {
    let mut given: Vec<Given> = (0..60_000).map(|seq| line(seq, 1, "x")).collect();
    given.push(line(59_000, 1, "x"));
    assert!(!audited(&given, 0).summary.is_wrong());
    given.push(line(100, 1, "x"));
    let report = audited(&given, 0);
    let faults = &only_source(&report).faults;
    assert_eq!(
        faults.iter().map(|fault| (fault.wrong, fault.from)).collect::<Vec<_>>(),
        [(Wrong::UnmarkedRepeat, 100)]
    );
    assert_eq!(faults[0].at.offset, 60_001);
}

#[test]
fn a_topic_that_begins_later_hides_beginnings_and_nothing_else() {
    let check = |given: &[Given], from: i64, verdict: Verdict| {
        assert_eq!(only_source(&audited(given, from)).verdict, verdict, "{given:?} from {from}");
    };
    let rest = [line(5, 1, "a"), line(6, 1, "b")];
    check(&rest, 0, Verdict::Hole);
    check(&rest, 40, Verdict::Head);
    check(&[line(5, 1, "a"), line(7, 1, "b")], 40, Verdict::Hole);
    check(&[line(0, 1, "a"), line(1, 1, "b")], 40, Verdict::Open);
    check(&[end(9)], 40, Verdict::Head);
}

#[test]
fn a_run_that_ended_in_another_topic_is_no_hole() {
    let map = TopicMap::default();
    let mut audit = TopicAudit::new(TopicName::parse("logs.payments").unwrap(), &map, 10);
    let mut told = Vec::new();
    let notice = Notice {
        lines: Some(0),
        reason: Some(LossReason::TopicChanged),
        next_source: Some("u/api/0/f/1".into()),
        ..Notice::new(NoticeKind::Gap, SOURCE, 40)
    };
    encode_notice(&mut told, &head("payments"), &notice, false, (1_795_255_200, 0));
    audit.take(&Raw { partition: 0, offset: 0, sent_ms: 0, key: KEY, value: Some(&told) }, &mut |_, _, _| {}).unwrap();
    let report = TopicReport::new(&audit, &[Span { partition: 0, from: 0, to: 1 }], false);
    assert_eq!((only_source(&report).verdict, report.summary.is_wrong()), (Verdict::Head, false));
    let text = table::report(&Report { summary: report.summary.clone(), topics: vec![report] }, true);
    assert!(text.contains("head  u/api/0/e/1: 0-39 (40 lines) in the topic that the namespace had before"), "{text}");
}

#[test]
fn strangers_are_counted_and_named_by_their_place() {
    let good = value(&line(0, 1, "a"));
    let mut foreign = Vec::new();
    let time = Timestamp::parse(b"2026-11-20T10:00:00Z").unwrap();
    let (stream, log) = (Stream::Stdout, b"secret".as_slice());
    let own = Line { seq: 0, lines: 1, left_out: 0, again: false, chunk: None, time, stream, log };
    encode(&mut foreign, &head("shop"), &own);
    let beyond = String::from_utf8(good.clone()).unwrap().replace("\"seq\":0", "\"seq\":18446744073709551615");
    let elsewhere = String::from_utf8(good.clone()).unwrap().replace("\"source\":\"u/", "\"source\":\"v/");
    let values: [(&[u8], &[u8]); 7] = [
        (KEY, &good),
        (KEY, b"secret"),
        (b"shop/api-1/api", &foreign),
        (b"other", &good),
        (KEY, b""),
        (KEY, beyond.as_bytes()),
        (KEY, elsewhere.as_bytes()),
    ];
    let report = audit_values(&values, 0);
    let places = |strangers: &report::StrangersReport| -> Vec<i64> {
        assert_eq!(strangers.count, strangers.places.len() as u64);
        strangers.places.iter().map(|place| place.offset).collect()
    };
    assert_eq!(places(&report.no_records), [1, 4, 5, 6]);
    assert_eq!((places(&report.foreign), places(&report.other_key)), (vec![2], vec![3]));
    assert_eq!((report.summary.records, report.summary.faults, report.sources.len()), (7, 6, 1));
    let report = Report { summary: report.summary.clone(), topics: vec![report] };
    for text in [table::report(&report, true), json(&report)] {
        assert!(!text.contains("secret"), "{text}");
    }
    let text = table::report(&report, true);
    assert!(text.contains("FAULT partition 0 offset 1 is no record"), "{text}");
    assert!(text.contains("partition 0 offset 2 is a record of a namespace that does not belong here"), "{text}");
    assert!(text.lines().last().unwrap().contains("WRONG: 0 lines missing, 6 faults"), "{text}");
}

#[test]
fn a_shared_topic_and_one_that_no_rule_leads_to_hold_several_namespaces() {
    let rules = [fairlead_contract::topic::TopicRule {
        namespaces: vec!["payments".to_owned(), "shop".to_owned()],
        topic: Some("both".to_owned()),
        shared: true,
        ..Default::default()
    }];
    let map = TopicMap::new("logs.{namespace}", &rules).unwrap();
    let check = |topic: &str, namespace: &str, foreign: u64| {
        let mut audit = TopicAudit::new(TopicName::parse(topic).unwrap(), &map, 10);
        let text = String::from_utf8(value(&line(0, 1, "a"))).unwrap();
        let value = text.replace("\"payments\"", &format!("\"{namespace}\""));
        let key = format!("{namespace}/api-1/api");
        let (key, value) = (key.as_bytes(), Some(value.as_bytes()));
        audit.take(&Raw { partition: 0, offset: 0, sent_ms: 0, key, value }, &mut |_, _, _| {}).unwrap();
        assert_eq!(audit.foreign.count, foreign, "{namespace} in {topic}");
    };
    for (topic, namespace, foreign) in [
        ("both", "payments", 0),
        ("both", "shop", 0),
        ("both", "other", 1),
        ("logs.other", "other", 0),
        ("logs.other", "shop", 1),
        ("elsewhere", "shop", 0),
        ("elsewhere", "other", 0),
        ("elsewhere", "No-Label", 1),
    ] {
        check(topic, namespace, foreign);
    }
}

#[test]
fn holes_are_told_with_what_lies_beside_them() {
    let report = audited(&[line(0, 1, "a"), line(1, 1, "b"), line(4, 1, "c")], 0);
    let hole = &only_source(&report).holes[0];
    let (before, after) = (hole.before.as_ref().unwrap(), hole.after.as_ref().unwrap());
    assert_eq!((before.offset, before.time.as_str()), (1, "2026-11-20T10:00:00.000000001Z"));
    assert_eq!((after.offset, after.time.as_str()), (2, "2026-11-20T10:00:00.000000004Z"));
    let report = Report { summary: report.summary.clone(), topics: vec![report] };
    let text = table::report(&report, false);
    let expected = "HOLE  u/api/0/e/1: 2-3 (2 lines) missing, after partition 0 offset 1 (2026-11-20T10:00:00.000000001Z), \
                    before partition 0 offset 2 (2026-11-20T10:00:00.000000004Z)\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("payments/api-1  u/api/0/e/1  hole"), "{text}");
}

#[test]
fn the_run_of_a_container_is_told_in_order() {
    let mut given: Vec<Given> = (0..5).map(|seq| line(seq, 1, "x")).collect();
    given.extend((3..5).map(|seq| again(&line(seq, 1, "x"))));
    given.push(again(&line(5, 1, "y")));
    given.extend([line(6, 1, "x"), notice(NoticeKind::Gap, 7, Some(3)), line(10, 1, "x"), end(11)]);
    let map = TopicMap::default();
    let mut audit = TopicAudit::new(TopicName::parse("logs.payments").unwrap(), &map, 100);
    let mut explanation = Explanation::new("u/ap");
    for (offset, given) in given.iter().enumerate() {
        let value = value(given);
        let raw = Raw { partition: 0, offset: offset as i64, sent_ms: offset as i64, key: KEY, value: Some(&value) };
        audit.take(&raw, &mut |state, spot, event| explanation.take(state, spot, event)).unwrap();
    }
    assert_eq!(explanation.containers().iter().collect::<Vec<_>>(), ["u/api"]);
    let rows: Vec<_> = explanation
        .rows()
        .into_iter()
        .map(|row| (row.what, row.numbers, row.records, row.spots.0.offset, row.spots.1.offset))
        .collect();
    let said = |text: &str| What::Notice(text.to_owned());
    let expected = [
        (What::Lines, (0, 5), 5, 0, 4),
        (What::Repeat, (3, 5), 2, 5, 6),
        (What::LinesMarked, (5, 6), 1, 7, 7),
        (What::Lines, (6, 7), 1, 8, 8),
        (said("gap, 3 lines, budget"), (7, 10), 1, 9, 9),
        (What::Lines, (10, 11), 1, 10, 10),
        (said("end_of_stream, 11 lines"), (11, 11), 1, 11, 11),
    ];
    assert_eq!(rows, expected);
}

#[derive(Clone, Debug)]
enum Part {
    Line,
    Joined(u64),
    Cut(u64, u8),
    LeftOut(u64),
    Announced(u64),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        4 => Just(Part::Line),
        1 => (2_u64..4).prop_map(Part::Joined),
        1 => (1_u64..3, 2_u8..4).prop_map(|(lines, pieces)| Part::Cut(lines, pieces)),
        1 => (1_u64..4).prop_map(Part::LeftOut),
        1 => (1_u64..4).prop_map(Part::Announced),
    ];
    proptest::collection::vec(part, 1..20)
}

fn run_of(parts: &[Part]) -> Vec<Given> {
    let (mut given, mut seq) = (Vec::new(), 0);
    for part in parts {
        match *part {
            Part::Line => given.push(line(seq, 1, &format!("line {seq}"))),
            Part::Joined(lines) => given.push(line(seq, lines, &format!("line {seq}"))),
            Part::Cut(lines, pieces) => {
                for index in 0..pieces {
                    let last = index + 1 == pieces;
                    given.push(piece(seq, if last { lines } else { 0 }, u64::from(index) * 3, last, "abc"));
                }
            }
            Part::LeftOut(left_out) => {
                seq += left_out;
                let log = format!("line {seq}");
                given.push(Given::Line { seq, lines: 1, left_out, again: false, chunk: None, log });
            }
            Part::Announced(lines) => given.push(notice(NoticeKind::Gap, seq, Some(lines))),
        }
        seq += match *part {
            Part::Line | Part::LeftOut(_) => 1,
            Part::Joined(lines) | Part::Cut(lines, _) | Part::Announced(lines) => lines,
        };
    }
    given.push(end(seq));
    given
}

proptest! {
    #[test]
    fn a_whole_run_is_complete_in_any_order_and_without_any_one_record_it_is_not(
        parts in parts(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        without in any::<prop::sample::Index>(),
    ) {
        let run = run_of(&parts);
        // Every record once, and some more often, in any order.
        let mut places: Vec<usize> = (0..run.len()).collect();
        for pick in &order {
            let place = pick.index(places.len());
            places.push(pick.index(run.len()));
            let last = places.len() - 1;
            places.swap(place, last);
        }
        let mut seen = std::collections::BTreeSet::new();
        let lying: Vec<(usize, Given)> = places
            .iter()
            .map(|&place| (place, if seen.insert(place) { run[place].clone() } else { again(&run[place]) }))
            .collect();
        let all: Vec<Given> = lying.iter().map(|(_, given)| given.clone()).collect();
        let report = audited(&all, 0);
        let source = only_source(&report);
        prop_assert_eq!(source.verdict, Verdict::Complete, "{:?}", source);
        prop_assert!(!report.summary.is_wrong() && source.not_compared == 0, "{:?}", source);
        let lines: usize = lying.iter().filter(|(_, given)| matches!(given, Given::Line { .. })).count();
        let once = run.iter().filter(|given| matches!(given, Given::Line { .. })).count();
        prop_assert_eq!(source.repeats as usize, lines - once);

        let left = without.index(run.len());
        let rest: Vec<Given> = lying.iter().filter(|(place, _)| *place != left).map(|(_, given)| given.clone()).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let report = audited(&rest, 0);
        let expected = if left + 1 == run.len() { Verdict::Open } else { Verdict::Hole };
        prop_assert_eq!(only_source(&report).verdict, expected, "without {:?}", run[left]);
    }
}
