//! What one stream shows. Input: records of one topic in the order they are read. Output: bytes for the client, and where the stream stands.
//!
//! Here a record is checked to be of the asked namespace, filtered, known as a repeat, and written. No I/O.

use std::time::{Duration, Instant};

use fairlead_contract::{namespace::Namespace, record::Chunk};

use self::lines::Lines;
use super::{
    cursor::{Sealer, TopicMark},
    event::{EndReason, Event, GapReason, Missing, Withheld},
    filter::Filter,
    position::Positions,
    render::{Format, Renderer},
    repeats::Seen,
    scan::{Scanner, View},
};

mod lines;

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
    /// Lines written: records, or in text whole lines.
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
    /// Where the first line begins that was shown.
    first: Option<Positions>,
    lines: Lines,
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
            first: None,
            lines: Lines::default(),
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
        let chunk = self.note(&view);
        let begin = self.positions.get(record.partition);
        let live = self
            .live_from
            .as_ref()
            .is_some_and(|from| from.get(record.partition).is_none_or(|from| record.offset >= from));
        if !(live || self.filter.takes_time(&view.time)) || !self.filter.takes_text(&view) {
            self.left_out(record);
            if chunk.is_some_and(|chunk| chunk.last) && self.lines.end(view.origin.source) > 0 {
                // The line ends with a piece that was not asked for.
                self.renderer.finish(view.origin.source, out);
                self.counts.lines += 1;
                return Verdict::Shown;
            }
            return Verdict::LeftOut;
        }
        self.left_out(record);
        if self.is_skipped(&view, chunk) {
            return Verdict::LeftOut;
        }
        match chunk {
            None => self.counts.lines += 1,
            Some(chunk) if chunk.last => self.counts.lines += self.lines.end(view.origin.source),
            Some(_) => {}
        }
        if self.first.is_none() {
            let mut first = self.positions.clone();
            first.set(record.partition, begin.unwrap_or(record.offset));
            self.first = Some(first);
        }
        let (sealer, positions) = (&mut self.sealer, &self.positions);
        self.renderer.record(&view, record.value, |out| sealer.seal_into(positions, out), out);
        Verdict::Shown
    }

    /// Notes a record that may belong to a long line. Returns it as a piece where pieces are joined: in text.
    fn note(&mut self, view: &View<'_>) -> Option<Chunk> {
        if self.renderer.format() == Format::Ndjson {
            return None;
        }
        self.counts.lines += self.lines.begin(view.origin.source, view.seq, view.chunk);
        view.chunk
    }

    /// Whether the record is one of the first lines that are counted but not written, or a piece of one. The rest of a line whose beginning is
    /// not there is no line of its own.
    fn is_skipped(&mut self, view: &View<'_>, chunk: Option<Chunk>) -> bool {
        let Some((chunk, open)) = chunk.zip(self.lines.open(view.origin.source)) else {
            let skipped = self.skip > 0;
            self.skip -= u64::from(skipped);
            self.skipped += u64::from(skipped);
            return skipped;
        };
        if !open.taken {
            open.taken = true;
            open.skipped = self.skip > 0;
            let counted = u64::from(open.skipped && open.whole);
            self.skip -= counted;
            self.skipped += counted;
        }
        let skipped = open.skipped;
        if skipped && chunk.last {
            self.lines.end(view.origin.source);
        }
        skipped
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

    /// Appends the `gap` of what lies before the stream and was not searched.
    pub fn not_searched(&mut self, missing: &[Missing], out: &mut Vec<u8>) {
        let records = missing.iter().map(|missing| missing.to - missing.from).sum();
        let cursor = self.cursor();
        self.write(&Event::Gap { reason: GapReason::ScanLimit, records, partitions: missing, cursor: &cursor }, out);
    }

    /// Appends the `end`.
    pub fn end(&mut self, reason: EndReason, out: &mut Vec<u8>) {
        self.renderer.flush(out);
        self.counts.lines += self.lines.end_all();
        let cursor = self.cursor();
        let Counts { lines, withheld, .. } = self.counts;
        let start = self.first.as_ref().map(|first| self.sealer.seal(first));
        let start = start.as_deref();
        self.write(&Event::End { reason, lines, withheld, start, cursor: &cursor }, out);
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
mod tests;
