//! What an audit found, ready to be printed: plain data, the same for the table and for JSON.

use fairlead_contract::record::{LossReason, NoticeKind};
use serde::Serialize;

use super::{
    explain::{Row, What},
    ranges::Hole,
    read::Span,
    source::{Fault, SourceState, Spot, Told, Wrong},
    topic::{Strangers, TopicAudit},
    verdict::Verdict,
};

/// Holes of one source that are listed; all are counted.
const HOLES_MAX: usize = 100;

/// A whole audit.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Topic by topic.
    pub topics: Vec<TopicReport>,
    /// All topics together.
    pub summary: Summary,
}

/// One topic.
#[derive(Debug, Serialize)]
pub struct TopicReport {
    /// Its name.
    pub topic: String,
    /// What of it was read.
    pub partitions: Vec<SpanReport>,
    /// Bytes of values.
    pub bytes: u64,
    /// Source by source.
    pub sources: Vec<SourceReport>,
    /// Values that are no records.
    pub no_records: StrangersReport,
    /// Records of namespaces that do not belong into the topic.
    pub foreign: StrangersReport,
    /// Records whose key is not that of their container.
    pub other_key: StrangersReport,
    /// The topic in short.
    pub summary: Summary,
}

/// What of a partition was read.
#[derive(Debug, Serialize)]
pub struct SpanReport {
    partition: i32,
    from: i64,
    to: i64,
}

/// Records that should not be there.
#[derive(Debug, Serialize)]
pub struct StrangersReport {
    /// How many.
    pub count: u64,
    /// Partition and offset of the first few.
    pub places: Vec<PlaceReport>,
}

/// Where a record lies.
#[derive(Debug, Serialize)]
pub struct PlaceReport {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// A record beside something that is told.
#[derive(Debug, Serialize)]
pub struct SpotReport {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The time that the record carries.
    pub time: String,
    /// When Kafka took it.
    pub sent: String,
}

/// Numbers that are missing.
#[derive(Debug, Serialize)]
pub struct HoleReport {
    /// The first one.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
    /// The record before.
    pub before: Option<SpotReport>,
    /// The record after.
    pub after: Option<SpotReport>,
}

/// Numbers with which something is wrong.
#[derive(Debug, Serialize)]
pub struct FaultReport {
    /// What is wrong.
    pub wrong: Wrong,
    /// The first one.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
    /// The first record.
    pub at: SpotReport,
}

/// What a notice says.
#[derive(Debug, Serialize)]
pub struct ToldReport {
    /// Its kind.
    pub kind: NoticeKind,
    /// The first number.
    pub seq: u64,
    /// How many lines, if anybody knows.
    pub lines: Option<u64>,
    /// Why.
    pub reason: Option<LossReason>,
    /// The run that goes on.
    pub next_source: Option<String>,
    /// Where it lies.
    pub at: SpotReport,
}

/// One source.
#[derive(Debug, Serialize)]
pub struct SourceReport {
    /// `fairlead.source`.
    pub source: String,
    /// The namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The word for it.
    pub verdict: Verdict,
    /// Whether it said that it ended, and nothing came after.
    pub ended: bool,
    /// Whether it ended with lines lost of which nobody knows how many.
    pub broken_off: bool,
    /// Physical lines that records cover, each once.
    pub lines: u64,
    /// Lines left out by policy.
    pub left_out: u64,
    /// Lines announced as lost.
    pub announced: u64,
    /// Notices of lines that may be missing, nobody knows how many.
    pub announced_unknown: u64,
    /// Lines whose end was cut off, as announced.
    pub truncated: u64,
    /// Lines that are missing and that nobody announced.
    pub missing: u64,
    /// Lines of which only some chunks came.
    pub in_pieces: u64,
    /// Records all of whose lines came before.
    pub repeats: u64,
    /// Those of them that are not marked.
    pub repeats_unmarked: u64,
    /// Repeats whose content could not be compared.
    pub not_compared: u64,
    /// Whether its beginning lies in the topic that its namespace had before.
    pub came_from_elsewhere: bool,
    /// What is missing at the beginning because the topic begins later.
    pub head: Option<HoleReport>,
    /// What is missing otherwise, the first few.
    pub holes: Vec<HoleReport>,
    /// How many holes there are.
    pub hole_count: u64,
    /// What else is wrong.
    pub faults: Vec<FaultReport>,
    /// What notices say, the first few.
    pub notices: Vec<ToldReport>,
}

/// A topic, or all, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Sources, by verdict.
    pub complete: u64,
    /// See [`Verdict::Open`].
    pub open: u64,
    /// See [`Verdict::Head`].
    pub head: u64,
    /// See [`Verdict::Hole`].
    pub hole: u64,
    /// Lines covered, each once.
    pub lines: u64,
    /// Lines left out by policy.
    pub left_out: u64,
    /// Lines announced as lost.
    pub announced: u64,
    /// Notices of lines that may be missing, nobody knows how many.
    pub announced_unknown: u64,
    /// Lines missing and not announced.
    pub missing: u64,
    /// Records all of whose lines came before.
    pub repeats: u64,
    /// Repeats whose content could not be compared.
    pub not_compared: u64,
    /// Ranges of numbers with which something is wrong, and records that should not be there.
    pub faults: u64,
}

/// A row of one container's run.
#[derive(Debug, Serialize)]
pub struct RowReport {
    /// Which source.
    pub source: String,
    /// What came.
    pub what: What,
    /// The first number.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
    /// Lines left out among them.
    pub left_out: u64,
    /// Records.
    pub records: u64,
    /// The first record.
    pub first: SpotReport,
    /// The last record.
    pub last: SpotReport,
}

impl Summary {
    /// Whether anything is wrong.
    pub fn is_wrong(&self) -> bool {
        self.hole > 0 || self.faults > 0
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.records, other.records),
            (&mut self.complete, other.complete),
            (&mut self.open, other.open),
            (&mut self.head, other.head),
            (&mut self.hole, other.hole),
            (&mut self.lines, other.lines),
            (&mut self.left_out, other.left_out),
            (&mut self.announced, other.announced),
            (&mut self.announced_unknown, other.announced_unknown),
            (&mut self.missing, other.missing),
            (&mut self.repeats, other.repeats),
            (&mut self.not_compared, other.not_compared),
            (&mut self.faults, other.faults),
        ] {
            *mine = mine.saturating_add(theirs);
        }
    }

    fn count(&mut self, source: &SourceReport) {
        match source.verdict {
            Verdict::Complete => self.complete += 1,
            Verdict::Open => self.open += 1,
            Verdict::Head => self.head += 1,
            Verdict::Hole => self.hole += 1,
        }
        self.lines = self.lines.saturating_add(source.lines);
        self.left_out = self.left_out.saturating_add(source.left_out);
        self.announced = self.announced.saturating_add(source.announced);
        self.announced_unknown += source.announced_unknown;
        self.missing = self.missing.saturating_add(source.missing);
        self.repeats += source.repeats;
        self.not_compared += source.not_compared;
        self.faults += source.faults.len() as u64;
    }
}

impl TopicReport {
    /// Judges a topic that was read. `made_anew`: its beginning is not that of its sources, whatever its offsets.
    pub fn new(audit: &TopicAudit<'_>, spans: &[Span], made_anew: bool) -> Self {
        let begins_later =
            |partition: i32| made_anew || spans.iter().any(|span| span.partition == partition && span.from > 0);
        let sources: Vec<SourceReport> =
            audit.sources().into_iter().map(|state| SourceReport::new(state, begins_later)).collect();
        let strangers = [&audit.no_records, &audit.foreign, &audit.other_key];
        let mut summary = Summary { records: audit.records, ..Summary::default() };
        for source in &sources {
            summary.count(source);
        }
        summary.faults += strangers.iter().map(|strangers| strangers.count).sum::<u64>();
        let [no_records, foreign, other_key] = strangers.map(StrangersReport::new);
        Self {
            topic: audit.topic().to_string(),
            partitions: spans
                .iter()
                .map(|span| SpanReport { partition: span.partition, from: span.from, to: span.to })
                .collect(),
            bytes: audit.bytes,
            sources,
            no_records,
            foreign,
            other_key,
            summary,
        }
    }
}

impl SourceReport {
    fn new(state: &SourceState, begins_later: impl Fn(i32) -> bool) -> Self {
        let judgement = state.judge(begins_later);
        let missing = judgement.holes.iter().map(|hole| hole.to - hole.from).fold(0, u64::saturating_add);
        Self {
            source: state.name.clone(),
            namespace: state.namespace.clone(),
            pod: state.pod.clone(),
            verdict: judgement.verdict,
            ended: judgement.ended,
            broken_off: judgement.broken_off,
            lines: state.lines(),
            left_out: state.lines_left_out(),
            announced: state.lines_announced(),
            announced_unknown: state.of_unknown_size,
            truncated: state.lines_truncated(),
            missing,
            in_pieces: state.lines_in_pieces(),
            repeats: state.counts.repeats,
            repeats_unmarked: state.counts.unmarked,
            not_compared: state.counts.not_compared,
            came_from_elsewhere: state.came_from_elsewhere,
            head: judgement.head.as_ref().map(HoleReport::new),
            holes: judgement.holes.iter().take(HOLES_MAX).map(HoleReport::new).collect(),
            hole_count: judgement.holes.len() as u64,
            faults: state.faults().map(|fault| FaultReport::new(&fault)).collect(),
            notices: state.announcements.iter().map(|(told, spot)| ToldReport::new(told, spot)).collect(),
        }
    }

    /// Whether there is more to say of it than its row.
    pub fn is_remarkable(&self) -> bool {
        self.head.is_some() || self.hole_count > 0 || !self.faults.is_empty() || !self.notices.is_empty()
    }
}

impl StrangersReport {
    fn new(strangers: &Strangers) -> Self {
        let place = |&(partition, offset): &(i32, i64)| PlaceReport { partition, offset };
        Self { count: strangers.count, places: strangers.places.iter().map(place).collect() }
    }
}

impl SpotReport {
    fn new(spot: &Spot) -> Self {
        let sent = jiff::Timestamp::from_millisecond(spot.sent_ms).map(|at| at.to_string()).unwrap_or_default();
        Self { partition: spot.partition, offset: spot.offset, time: spot.time().to_owned(), sent }
    }
}

impl HoleReport {
    fn new(hole: &Hole<Spot>) -> Self {
        let spot = |spot: &Option<Spot>| spot.as_ref().map(SpotReport::new);
        Self { from: hole.from, to: hole.to, before: spot(&hole.before), after: spot(&hole.after) }
    }
}

impl FaultReport {
    fn new(fault: &Fault) -> Self {
        Self { wrong: fault.wrong, from: fault.from, to: fault.to, at: SpotReport::new(&fault.spot) }
    }
}

impl ToldReport {
    fn new(told: &Told, spot: &Spot) -> Self {
        let Told { kind, seq, lines, reason, next_source } = told.clone();
        Self { kind, seq, lines, reason, next_source, at: SpotReport::new(spot) }
    }
}

impl RowReport {
    /// A row as data.
    pub fn new(row: &Row) -> Self {
        Self {
            source: row.source.clone(),
            what: row.what.clone(),
            from: row.numbers.0,
            to: row.numbers.1,
            left_out: row.left_out,
            records: row.records,
            first: SpotReport::new(&row.spots.0),
            last: SpotReport::new(&row.spots.1),
        }
    }
}
