use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn lines(seq: u64, lines: u64) -> Covers {
    Covers::Lines { seq, lines }
}

fn piece(seq: u64, offset: u64, bytes: u64, last: bool) -> Covers {
    Covers::Piece { seq, lines: u64::from(last), offset, bytes, last }
}

/// Feeds records of one source and expects which are repeats.
fn check(cases: &[(Covers, bool)]) {
    let mut seen = Seen::default();
    for (index, (covers, repeat)) in cases.iter().enumerate() {
        assert_eq!(seen.insert(Id::of("a"), covers), *repeat, "record {index}: {covers:?}");
    }
}

#[test]
fn a_record_is_a_repeat_when_all_its_lines_were_seen() {
    check(&[(lines(0, 1), false), (lines(1, 1), false), (lines(0, 1), true), (lines(1, 1), true), (lines(0, 2), true)]);
    check(&[(lines(0, 3), false), (lines(1, 1), true), (lines(2, 2), false), (lines(3, 1), true)]);
}

#[test]
fn seen_is_a_set_and_not_a_high_water_mark() {
    check(&[
        (lines(2, 1), false),
        (lines(1, 1), false),
        (lines(2, 1), true),
        (lines(0, 3), false),
        (lines(0, 3), true),
    ]);
}

#[test]
fn what_covers_no_line_is_no_repeat() {
    check(&[(lines(5, 0), false), (lines(5, 0), false)]);
}

#[test]
fn a_chunk_is_a_repeat_by_its_bytes() {
    check(&[
        (piece(7, 0, 100, false), false),
        (piece(7, 0, 100, false), true),
        (piece(7, 100, 50, false), false),
        // Cut another way after a restart: half new.
        (piece(7, 50, 150, true), false),
        (piece(7, 150, 50, true), true),
        (lines(7, 1), true),
        (lines(8, 1), false),
    ]);
    // Only the end of a line was seen: the line as a whole was not.
    check(&[(piece(7, 100, 50, true), false), (lines(7, 1), false)]);
    // An empty last piece.
    check(&[(piece(7, 0, 100, false), false), (piece(7, 100, 0, true), false), (piece(7, 100, 0, true), true)]);
}

fn end(seq: u64, offset: u64, bytes: u64, lines: u64) -> Covers {
    Covers::Piece { seq, lines, offset, bytes, last: true }
}

#[test]
fn a_piece_that_ends_more_lines_than_were_seen_is_shown() {
    // Eight fragments were sent as one record; then all sixteen in pieces.
    check(&[
        (lines(100, 8), false),
        (piece(100, 0, 15, false), false),
        (end(100, 15, 15, 16), false),
        (lines(108, 8), true),
        (end(100, 15, 15, 16), true),
    ]);
    // Seen in two pieces, then sent again with a third one.
    check(&[
        (piece(100, 0, 15, false), false),
        (end(100, 15, 15, 8), false),
        (piece(100, 0, 15, false), true),
        (piece(100, 15, 15, false), true),
        (lines(100, 9), false),
        (end(100, 30, 15, 16), false),
        (lines(108, 8), true),
        (piece(100, 20, 25, false), true),
    ]);
    // All lines were seen otherwise.
    check(&[(lines(100, 16), false), (end(100, 30, 15, 16), true), (end(100, 45, 15, 17), false)]);
    // A piece without bytes hides no byte.
    check(&[(end(7, 100, 0, 1), false), (end(7, 100, 0, 1), true), (piece(7, 100, 1, false), false)]);
    check(&[(end(7, 0, 0, 1), false), (end(7, 0, 0, 1), true), (lines(7, 1), true), (piece(7, 0, 1, false), false)]);
}

#[test]
fn a_long_line_that_was_forgotten_is_shown_again() {
    let mut seen = Seen::default();
    let source = Id::of("a");
    for number in 0..100 {
        assert!(!seen.insert(source, &piece(number, 0, 10, false)));
        assert!(!seen.insert(source, &piece(number, 10, 10, true)));
        assert!(seen.has(source, &piece(number, 0, 10, false)));
    }
    assert!(!seen.has(source, &piece(0, 0, 10, false)), "forgotten");
    assert!(seen.has(source, &piece(0, 10, 10, true)), "its number is known");
    assert_eq!(seen.sources[&source].long_done.len(), LONG_DONE_MAX);
    assert!(seen.sources[&source].long_lines.is_empty());
}

#[test]
fn sources_do_not_mix() {
    let mut seen = Seen::default();
    assert!(!seen.insert(Id::of("a"), &lines(0, 1)));
    assert!(!seen.insert(Id::of("b"), &lines(0, 1)));
    assert!(seen.insert(Id::of("b"), &lines(0, 1)));
}

#[test]
fn a_notice_is_known_by_kind_source_and_number() {
    let mut seen = Seen::default();
    let (gap, end) = (Covers::Notice(Id::of("gap a 5")), Covers::Notice(Id::of("end_of_stream a 5")));
    assert!(!seen.insert(Id::of("a"), &gap));
    assert!(!seen.insert(Id::of("a"), &end));
    assert!(seen.insert(Id::of("a"), &gap));
    assert!(!seen.insert(Id::of("a"), &lines(5, 1)), "a notice takes no number of its own");
}

#[test]
fn memory_is_bounded() {
    let mut seen = Seen::default();
    for number in 0..20_000_u64 {
        seen.insert(Id::of(&format!("source {number}")), &lines(number, 1));
        seen.insert(Id::of("one"), &lines(number * 2, 1));
        seen.insert(Id::of("two"), &piece(number, 0, 10, false));
        seen.insert(Id::of("one"), &Covers::Notice(Id::of(&number.to_string())));
    }
    assert!(seen.sources.len() <= SOURCES_MAX && seen.notices.len() <= NOTICES_MAX);
    assert_eq!(seen.sources[&Id::of("one")].numbers.0.len(), RUNS_MAX);
    assert_eq!(seen.sources[&Id::of("two")].long_lines.len(), LONG_LINES_MAX);
    assert!(seen.has(Id::of("one"), &lines(39_998, 1)), "the latest are kept");
}

#[test]
fn numbers_at_the_end_of_their_range_do_not_overflow() {
    check(&[(lines(u64::MAX, 5), false), (piece(u64::MAX - 1, u64::MAX - 1, 9, true), false)]);
    check(&[(lines(u64::MAX - 1, 1), false), (lines(u64::MAX, 1), false), (lines(u64::MAX - 1, 1), true)]);
}

proptest! {
    /// The runs against a plain set of numbers.
    #[test]
    fn runs_are_a_set(ranges in proptest::collection::vec((0_u64..60, 0_u64..8), 1..60)) {
        let mut runs = Runs::default();
        let mut model = HashSet::new();
        for (from, length) in ranges {
            let all_seen = length > 0 && (from..from + length).all(|number| model.contains(&number));
            if length > 0 { prop_assert_eq!(runs.covers(from, from + length), all_seen); }
            runs.add(from, from + length);
            model.extend(from..from + length);
            prop_assert!(runs.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", runs);
        }
    }

    /// A joined line of fragments of 10 bytes, cut and grouped anyhow, again and again: every byte is shown.
    #[test]
    fn no_byte_is_hidden(sent in proptest::collection::vec((0_u64..3, 0_u64..80, 0_u64..40, any::<bool>()), 1..60)) {
        let mut seen = Seen::default();
        let mut shown = HashSet::new();
        for (seq, offset, bytes, last) in sent {
            // A line ends where a fragment ends.
            let bytes = if last { (offset + bytes).max(1).next_multiple_of(10) - offset } else { bytes };
            let (seq, lines) = (seq * 100, if last { (offset + bytes) / 10 } else { 0 });
            let new = (offset..offset + bytes).any(|byte| !shown.contains(&(seq, byte)));
            let covers = Covers::Piece { seq, lines, offset, bytes, last };
            if seen.insert(Id::of("s"), &covers) {
                prop_assert!(!new, "hidden: {:?}", covers);
            }
            shown.extend((offset..offset + bytes).map(|byte| (seq, byte)));
        }
    }

    /// Whatever is sent again, in any order and grouping: every line is shown, and a record that brings nothing new is not.
    #[test]
    fn nothing_is_hidden(records in proptest::collection::vec((0_u64..40, 1_u64..5), 1..80)) {
        let mut seen = Seen::default();
        let mut shown = HashSet::new();
        for (seq, count) in records {
            let new = (seq..seq + count).any(|number| !shown.contains(&number));
            prop_assert_eq!(seen.insert(Id::of("s"), &lines(seq, count)), !new);
            shown.extend(seq..seq + count);
        }
    }
}
