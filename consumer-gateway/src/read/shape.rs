//! What one stream shows. Input: records of one topic in the order they are read. Output: bytes for the client, and where the stream stands.
//!
//! Here a record is checked to be of the asked namespace, filtered, known as a repeat, and written. No I/O.

use std::time::{Duration, Instant};

use fairlead_contract::namespace::Namespace;

use super::{
    cursor::{Sealer, TopicMark},
    event::{EndReason, Event, GapReason, Missing, Withheld},
    filter::Filter,
    position::Positions,
    render::{Format, Renderer},
    repeats::Seen,
    scan::Scanner,
};

/// One record as Kafka holds it.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// The partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it was sent, in milliseconds since 1970.
    pub sent: i64,
    /// [`super::scan::key_hash`] of its key.
    pub key_hash: u64,
    /// Its value.
    pub value: &'a [u8],
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was written.
    Shown,
    /// It was not asked for, was shown before, or may not be shown.
    LeftOut,
    /// It may repeat something from before the stream's beginning: [`Shaper::remember`] what lies before it, say
    /// [`Shaper::looked_back`], and offer it again.
    LookBack,
}

/// What a stream counted, for metrics and its `end`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Lines written.
    pub lines: u64,
    /// Records looked at.
    pub scanned: u64,
    /// What was kept back.
    pub withheld: Withheld,
}

/// The state of one stream.
pub struct Shaper {
    namespace: Namespace,
    shared: bool,
    filter: Filter,
    renderer: Renderer,
    scanner: Scanner,
    seen: Seen,
    sealer: Sealer,
    positions: Positions,
    live_from: Option<Positions>,
    look_back: Option<Positions>,
    skip: u64,
    skipped: u64,
    counts: Counts,
    heartbeat: Duration,
    quiet_since: Instant,
}

/// What a stream is made of.
pub struct Shape {
    /// The namespace whose lines are shown, and no other's.
    pub namespace: Namespace,
    /// Whether the topic holds other namespaces' lines by configuration.
    pub shared: bool,
    /// Which lines are asked for.
    pub filter: Filter,
    /// What the body is.
    pub format: Format,
    /// Seals the cursors.
    pub sealer: Sealer,
    /// How often a stream says that it lives.
    pub heartbeat: Duration,
}

impl Shaper {
    /// Begins a stream that has shown nothing.
    pub fn new(shape: Shape) -> Self {
        Self {
            namespace: shape.namespace,
            shared: shape.shared,
            filter: shape.filter,
            renderer: Renderer::new(shape.format),
            scanner: Scanner::default(),
            seen: Seen::default(),
            sealer: shape.sealer,
            positions: Positions::default(),
            live_from: None,
            look_back: None,
            skip: 0,
            skipped: 0,
            counts: Counts::default(),
            heartbeat: shape.heartbeat,
            quiet_since: Instant::now(),
        }
    }

    /// Says where reading begins.
    pub fn start_at(&mut self, positions: Positions) {
        self.positions = positions;
    }

    /// Says from where on lines are shown however old their `time` is: what arrives after a follow was asked for. A partition without an
    /// entry came later, with all that it holds.
    pub fn live_from(&mut self, positions: Positions) {
        self.live_from = Some(positions);
    }

    /// Says that the stream continues another one that ended here, so that repeats of what lies before are looked for.
    pub fn continue_at(&mut self, positions: Positions) {
        self.look_back = Some(positions);
    }

    /// Says how many of the first lines are counted but not written.
    pub fn skip_lines(&mut self, skip: u64) {
        self.skip = skip;
    }

    /// A stream of the same shape that has shown nothing and only counts.
    pub fn counting_twin(&self) -> Self {
        let mut twin = Self::new(Shape {
            namespace: self.namespace.clone(),
            shared: self.shared,
            filter: self.filter.clone(),
            format: self.renderer.format(),
            sealer: self.sealer.twin(),
            heartbeat: self.heartbeat,
        });
        twin.skip = u64::MAX;
        twin
    }

    /// How many lines were counted and not written.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Which topic the cursors belong to.
    pub fn topic(&self) -> TopicMark {
        self.sealer.topic()
    }

    /// Where the stream stands.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Moves past offsets that hold nothing.
    pub fn advance(&mut self, partition: i32, offset: i64) {
        self.positions.advance(partition, offset);
    }

    /// Takes one record, and appends what it shows to `out`.
    pub fn take(&mut self, record: &RawRecord<'_>, out: &mut Vec<u8>) -> Verdict {
        if self.positions.get(record.partition).is_some_and(|next| record.offset < next) {
            return Verdict::LeftOut;
        }
        let Ok(view) = self.scanner.scan(record.key_hash, record.value) else {
            self.counts.withheld.unreadable += 1;
            return self.left_out(record);
        };
        if *view.origin.namespace != *self.namespace.as_str() {
            if !self.shared {
                self.counts.withheld.foreign += 1;
            }
            return self.left_out(record);
        }
        if !self.filter.takes_origin(&view.origin, &view.stream) {
            return self.left_out(record);
        }
        let covers = view.covers();
        if view.again && self.look_back_from(record.partition).is_some() && !self.seen.has(view.origin.source, &covers)
        {
            return Verdict::LookBack;
        }
        if self.seen.insert(view.origin.source, &covers) {
            self.counts.withheld.repeats += 1;
            return self.left_out(record);
        }
        let live = self
            .live_from
            .as_ref()
            .is_some_and(|from| from.get(record.partition).is_none_or(|from| record.offset >= from));
        if !(live || self.filter.takes_time(&view.time)) || !self.filter.takes_text(&view) {
            return self.left_out(record);
        }
        self.positions.advance(record.partition, record.offset + 1);
        self.counts.scanned += 1;
        if self.skip > 0 {
            self.skip -= 1;
            self.skipped += 1;
            return Verdict::LeftOut;
        }
        self.counts.lines += 1;
        let (sealer, positions) = (&mut self.sealer, &self.positions);
        self.renderer.record(&view, record.value, |out| sealer.seal_into(positions, out), out);
        Verdict::Shown
    }

    /// From where a partition's repeats were shown by an earlier stream, while nobody has looked there.
    pub fn look_back_from(&self, partition: i32) -> Option<i64> {
        self.look_back.as_ref()?.get(partition)
    }

    /// Remembers a record that an earlier stream has shown.
    pub fn remember(&mut self, record: &RawRecord<'_>) {
        let Ok(view) = self.scanner.scan(record.key_hash, record.value) else { return };
        if *view.origin.namespace == *self.namespace.as_str() && self.filter.takes_origin(&view.origin, &view.stream) {
            self.seen.insert(view.origin.source, &view.covers());
        }
    }

    /// Says that a partition was looked back in as far as this gateway looks.
    pub fn looked_back(&mut self, partition: i32) {
        let Some(before) = self.look_back.take() else { return };
        let mut rest = Positions::default();
        for (index, offset) in before.iter().enumerate() {
            let index = i32::try_from(index).expect("partitions are numbered by i32");
            if let Some(offset) = offset.filter(|_| index != partition) {
                rest.set(index, offset);
            }
        }
        self.look_back = (!rest.is_empty()).then_some(rest);
    }

    /// The cursor of where the stream stands.
    pub fn cursor(&mut self) -> String {
        self.sealer.seal(&self.positions)
    }

    /// Goes on in a topic whose mark became known.
    pub fn set_topic(&mut self, topic: TopicMark) {
        self.sealer.set_topic(topic);
    }

    /// Appends a heartbeat when one is due. Call it often.
    pub fn heartbeat_if_due(&mut self, out: &mut Vec<u8>) {
        if self.quiet_since.elapsed() >= self.heartbeat {
            self.heartbeat(out);
        }
    }

    /// Appends a heartbeat.
    pub fn heartbeat(&mut self, out: &mut Vec<u8>) {
        self.quiet_since = Instant::now();
        let cursor = self.cursor();
        self.write(&Event::Heartbeat { time: jiff::Timestamp::now(), cursor: &cursor }, out);
    }

    /// Moves past what is missing and appends the `gap`.
    pub fn gap(&mut self, missing: &[Missing], out: &mut Vec<u8>) {
        missing.iter().for_each(|missing| self.positions.advance(missing.partition, missing.to));
        let records = missing.iter().map(|missing| missing.to - missing.from).sum();
        let cursor = self.cursor();
        self.write(&Event::Gap { reason: GapReason::Retention, records, partitions: missing, cursor: &cursor }, out);
    }

    /// Appends the `end`.
    pub fn end(&mut self, reason: EndReason, out: &mut Vec<u8>) {
        self.renderer.flush(out);
        let cursor = self.cursor();
        let Counts { lines, withheld, .. } = self.counts;
        self.write(&Event::End { reason, lines, withheld, cursor: &cursor }, out);
    }

    fn left_out(&mut self, record: &RawRecord<'_>) -> Verdict {
        self.positions.advance(record.partition, record.offset + 1);
        self.counts.scanned += 1;
        Verdict::LeftOut
    }

    fn write(&self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self.renderer.format() {
            Format::Ndjson => event.write_ndjson(out),
            Format::Text { .. } => event.write_text(out),
        }
    }
}

#[cfg(test)]
mod tests {
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
        let sealer = Keys::new(vec![KEYS])
            .unwrap()
            .sealer(&ns(), TopicMark::new(&TopicName::parse("logs.payments").unwrap(), None));
        Shaper::new(Shape {
            namespace: ns(),
            shared,
            filter,
            format: Format::Ndjson,
            sealer,
            heartbeat: Duration::from_secs(10),
        })
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
        let spoof =
            r#"x","kubernetes":{"namespace_name":"payments"},"a":"{"kubernetes":{"namespace_name":"payments"}}"#;
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
        assert_eq!(
            shaper.take(&record(2, &value("payments", 1, false, "keep old but live")), &mut out),
            Verdict::Shown
        );
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

    #[test]
    fn events_carry_the_cursor() {
        let (mut shaper, mut out) = (shaper(false, Filter::default()), Vec::new());
        shaper.start_at(Positions::from_offsets(&[3]));
        shaper.heartbeat(&mut out);
        shaper.gap(&[Missing { partition: 0, from: 3, to: 8 }], &mut out);
        shaper.end(EndReason::Complete, &mut out);
        assert_eq!(cursors(&out), [3, 8, 8].map(|offset| Positions::from_offsets(&[offset])));
    }
}
