//! One source of a topic: what of its numbers is accounted for, what came again, and what is wrong.

use std::collections::BTreeMap;

use fairlead_contract::record::{Chunk, LossReason, NoticeKind};
use serde::Serialize;

use super::{
    compare::{Lines, Memory, Outcome},
    ranges::Ranges,
    verdict::{Evidence, Judgement, judge},
};

/// A producer may repeat what it had under way, unmarked and at once: five requests of at most 10,000 records each.
const PRODUCER_REPEAT_RECORDS_MAX: u64 = 50_000;
/// Notices of one source that are kept word by word.
const ANNOUNCEMENTS_MAX: usize = 20;
/// Ends that chunks of one line may state: as many as there were ways to flush it.
const ENDS_MAX: usize = 8;
/// A stamp has at most so many bytes.
const STAMP_BYTES_MAX: usize = 30;

/// Where a record lies, and the time that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When Kafka took it, in milliseconds since 1970.
    pub sent_ms: i64,
    time: [u8; STAMP_BYTES_MAX],
    time_bytes: u8,
}

/// What a record says of its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a> {
    /// The first number.
    pub seq: u64,
    /// How many physical lines it covers.
    pub lines: u64,
    /// How many before it were left out.
    pub left_out: u64,
    /// Whether it is marked as a possible repeat.
    pub again: bool,
    /// Set on a piece of a line.
    pub chunk: Option<Chunk>,
    /// The line's time.
    pub time: &'a str,
    /// The line.
    pub log: &'a str,
}

/// What a notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its kind.
    pub kind: NoticeKind,
    /// The number that it speaks of.
    pub seq: u64,
    /// How many lines; none where nobody knows.
    pub lines: Option<u64>,
    /// Why.
    pub reason: Option<LossReason>,
    /// The run that goes on.
    pub next_source: Option<String>,
}

/// What is wrong with a source, besides missing numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// A number came before with another text or time.
    OtherContent,
    /// A repeat without a mark that no producer makes by itself.
    UnmarkedRepeat,
    /// Records of one source in two partitions.
    OtherPartition,
}

/// Numbers with which something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub wrong: Wrong,
    /// The first number.
    pub from: u64,
    /// The number after the last one.
    pub to: u64,
    /// The record with the first number.
    pub spot: Spot,
}

/// What a record turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Something new.
    New,
    /// All of it came before.
    Repeat,
}

/// What was counted of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records with lines.
    pub records: u64,
    /// Notices.
    pub notices: u64,
    /// Records all of whose lines came before.
    pub repeats: u64,
    /// Those of them that are not marked.
    pub unmarked: u64,
    /// Repeats that could not be compared in content: their first copy is too far back, or they are joined otherwise.
    pub not_compared: u64,
}

/// A line of which chunks came.
#[derive(Debug, Default)]
struct Pieces {
    bytes: Ranges<()>,
    /// Where the line ends in bytes, and how many physical lines end there.
    ends: Vec<(u64, u64)>,
}

/// The state of one source.
#[derive(Debug)]
pub struct SourceState {
    /// Its number among the topic's sources.
    pub id: u32,
    /// `fairlead.source`.
    pub name: String,
    /// The namespace that its records state.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The partitions it lies in.
    pub partitions: Vec<i32>,
    /// What was counted.
    pub counts: Counts,
    /// Notices that announce lines that are lost or left out, the first few.
    pub announcements: Vec<(Told, Spot)>,
    /// Notices of lines that may be missing, nobody knows how many.
    pub of_unknown_size: u64,
    /// Whether its beginning lies in the topic that its namespace had before.
    pub came_from_elsewhere: bool,
    /// The highest total that was stated as its end, or as where another run goes on.
    pub end: Option<u64>,
    /// The highest number at which nobody knows how many lines are lost.
    pub broken_off: Option<u64>,
    accounted: Ranges<Spot>,
    covered: Ranges<()>,
    left_out: Ranges<()>,
    announced: Ranges<()>,
    told: [Ranges<()>; 6],
    truncated: Ranges<()>,
    cut: BTreeMap<u64, Pieces>,
    wrong: [Ranges<Spot>; 3],
}

impl Spot {
    /// Notes where a record lies. What is no stamp is kept as nothing: it may be hostile.
    pub fn new(partition: i32, offset: i64, sent_ms: i64, time: &str) -> Self {
        let mut spot = Self { partition, offset, sent_ms, time: [0; STAMP_BYTES_MAX], time_bytes: 0 };
        let plain = time.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ+".contains(&byte));
        if plain && time.len() <= STAMP_BYTES_MAX {
            spot.time[..time.len()].copy_from_slice(time.as_bytes());
            spot.time_bytes = time.len() as u8;
        }
        spot
    }

    /// The time that the record carries; empty if it is no stamp.
    pub fn time(&self) -> &str {
        std::str::from_utf8(&self.time[..usize::from(self.time_bytes)]).unwrap_or_default()
    }
}

impl Told {
    /// Whether it says that lines may be missing without saying how many.
    pub fn is_of_unknown_size(&self) -> bool {
        self.kind.announces_lines() && self.lines.is_none()
    }
}

impl SourceState {
    /// A source of which nothing is known yet.
    pub fn new(id: u32, name: &str, namespace: &str, pod: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            partitions: Vec::new(),
            counts: Counts::default(),
            announcements: Vec::new(),
            of_unknown_size: 0,
            came_from_elsewhere: false,
            end: None,
            broken_off: None,
            accounted: Ranges::default(),
            covered: Ranges::default(),
            left_out: Ranges::default(),
            announced: Ranges::default(),
            told: Default::default(),
            truncated: Ranges::default(),
            cut: BTreeMap::new(),
            wrong: Default::default(),
        }
    }

    /// Takes a record with lines.
    pub fn record(&mut self, numbers: &Numbers<'_>, spot: Spot, memory: &mut Memory) -> Taken {
        let Numbers { seq, lines, .. } = *numbers;
        let end = seq.saturating_add(lines);
        self.note_partition(spot, seq, end);
        let ordinal = self.counts.records;
        self.counts.records += 1;
        let seen = self.covered.overlap(seq, end.max(seq.saturating_add(1))) > 0;
        let of = Lines { source: self.id, ordinal, seq, lines, seen, time: numbers.time, log: numbers.log };
        let (repeat, outcome) = match &numbers.chunk {
            None => (lines > 0 && self.covered.covers(seq, end), memory.whole(&of)),
            Some(chunk) => (self.is_repeated(numbers, chunk), memory.chunk(&of, chunk)),
        };
        self.cover(numbers, spot);
        self.judge_repeat(numbers, spot, repeat, seen, outcome);
        if repeat { Taken::Repeat } else { Taken::New }
    }

    /// Takes a notice.
    pub fn notice(&mut self, told: &Told, spot: Spot) -> Taken {
        self.note_partition(spot, told.seq, told.seq);
        self.counts.notices += 1;
        let place = &mut self.told[told.kind as usize];
        let known = place.covers(told.seq, told.seq.saturating_add(1));
        place.add(told.seq, told.seq.saturating_add(1), ());
        let end = told.seq.saturating_add(told.lines.unwrap_or(0));
        match told.kind {
            NoticeKind::Truncated => self.truncated.add(told.seq, told.seq.saturating_add(1), ()),
            NoticeKind::EndOfStream => self.end = self.end.max(Some(told.lines.unwrap_or(told.seq))),
            // It speaks of the pod, not of lines.
            NoticeKind::Settings => {}
            NoticeKind::Gap | NoticeKind::Throttled | NoticeKind::ParseErrors => {
                self.accounted.add(told.seq, end, spot);
                self.announced.add(told.seq, end, ());
                self.of_unknown_size += u64::from(!known && told.is_of_unknown_size());
                self.came_from_elsewhere |= told.reason == Some(LossReason::TopicChanged);
                match (&told.next_source, told.lines) {
                    (Some(_), Some(_)) => self.end = self.end.max(Some(end)),
                    (Some(_), None) => self.broken_off = self.broken_off.max(Some(end)),
                    // Lines may be missing before this number: in a run that ended.
                    (None, _) => {}
                }
            }
        }
        let speaks_of_lines = !matches!(told.kind, NoticeKind::EndOfStream | NoticeKind::Settings);
        if !known && speaks_of_lines && self.announcements.len() < ANNOUNCEMENTS_MAX {
            self.announcements.push((told.clone(), spot));
        }
        if known { Taken::Repeat } else { Taken::New }
    }

    /// Judges what came so far. `begins_later`: whether a partition's log begins after offset 0.
    pub fn judge(&self, begins_later: impl Fn(i32) -> bool) -> Judgement<Spot> {
        judge(&Evidence {
            accounted: &self.accounted,
            end: self.end,
            broken_off: self.broken_off,
            begins_later: self.came_from_elsewhere || self.partitions.iter().any(|partition| begins_later(*partition)),
        })
    }

    /// Lines that records cover, each once.
    pub fn lines(&self) -> u64 {
        self.covered.total()
    }

    /// Lines that were left out and are not there.
    pub fn lines_left_out(&self) -> u64 {
        self.left_out.beyond(&self.covered)
    }

    /// Lines that notices announce as lost and that are not there.
    pub fn lines_announced(&self) -> u64 {
        self.announced.beyond(&self.covered)
    }

    /// Lines whose end was cut off.
    pub fn lines_truncated(&self) -> u64 {
        self.truncated.total()
    }

    /// Lines of which only some chunks came.
    pub fn lines_in_pieces(&self) -> u64 {
        self.cut.keys().filter(|seq| !self.accounted.covers(**seq, **seq + 1)).count() as u64
    }

    /// What is wrong, without what a notice explains: a line whose end was cut off may have come with another end.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        let kinds = [Wrong::OtherContent, Wrong::UnmarkedRepeat, Wrong::OtherPartition];
        let all = kinds
            .into_iter()
            .zip(&self.wrong)
            .flat_map(|(wrong, ranges)| ranges.runs().map(move |(from, to, spot)| Fault { wrong, from, to, spot }));
        let explained =
            |fault: &Fault| fault.wrong == Wrong::OtherContent && self.truncated.covers(fault.from, fault.to);
        all.filter(move |fault| !explained(fault))
    }

    /// How many separate pieces of knowledge are kept: what memory goes by.
    pub fn weight(&self) -> usize {
        let told: usize = self.told.iter().map(Ranges::count).sum();
        let pieces: usize = self.cut.values().map(|pieces| 1 + pieces.bytes.count()).sum();
        let ranges = self.accounted.count() + self.covered.count() + self.left_out.count() + self.announced.count();
        let wrong: usize = self.wrong.iter().map(Ranges::count).sum();
        ranges + self.truncated.count() + told + pieces + wrong
    }

    fn note_partition(&mut self, spot: Spot, seq: u64, end: u64) {
        if !self.partitions.contains(&spot.partition) {
            if !self.partitions.is_empty() {
                self.fault(Wrong::OtherPartition, seq, end, spot);
            }
            self.partitions.push(spot.partition);
        }
    }

    /// Whether a chunk brings nothing new: its line is there, or its bytes are.
    fn is_repeated(&self, numbers: &Numbers<'_>, chunk: &Chunk) -> bool {
        let Numbers { seq, lines, .. } = *numbers;
        let upto = chunk.offset.saturating_add(numbers.log.len() as u64);
        let came = |pieces: &Pieces| {
            pieces.bytes.covers(chunk.offset, upto) && (!chunk.last || pieces.ends.contains(&(upto, lines)))
        };
        self.covered.covers(seq, seq.saturating_add(lines.max(1))) || self.cut.get(&seq).is_some_and(came)
    }

    fn cover(&mut self, numbers: &Numbers<'_>, spot: Spot) {
        let Numbers { seq, lines, left_out, .. } = *numbers;
        let before = seq.saturating_sub(left_out);
        self.accounted.add(before, seq, spot);
        self.left_out.add(before, seq, ());
        let lines = match &numbers.chunk {
            None => Some(lines),
            Some(chunk) => self.put_chunk(seq, lines, chunk, numbers.log.len() as u64),
        };
        if let Some(lines) = lines {
            let end = seq.saturating_add(lines);
            self.accounted.add(seq, end, spot);
            self.covered.add(seq, end, ());
        }
    }

    /// Puts a chunk in; how many physical lines are covered by it, if all bytes up to an end are there.
    fn put_chunk(&mut self, seq: u64, lines: u64, chunk: &Chunk, bytes: u64) -> Option<u64> {
        let pieces = self.cut.entry(seq).or_default();
        let upto = chunk.offset.saturating_add(bytes);
        pieces.bytes.add(chunk.offset, upto, ());
        if chunk.last && pieces.ends.len() < ENDS_MAX && !pieces.ends.contains(&(upto, lines)) {
            pieces.ends.push((upto, lines));
        }
        let there =
            pieces.ends.iter().filter(|(bytes, _)| pieces.bytes.covers(0, *bytes)).map(|(_, lines)| *lines).max();
        if there.is_some() {
            self.cut.remove(&seq);
        }
        there
    }

    fn judge_repeat(&mut self, numbers: &Numbers<'_>, spot: Spot, repeat: bool, seen: bool, outcome: Outcome) {
        let end = numbers.seq.saturating_add(numbers.lines);
        let mut records_ago = None;
        match outcome {
            // By its first number alone: that is what a notice names whose line was cut short.
            Outcome::Differs => self.fault(Wrong::OtherContent, numbers.seq, numbers.seq, spot),
            Outcome::Unknown if repeat => self.counts.not_compared += 1,
            Outcome::Unknown => {}
            Outcome::Equal { records_ago: ago } => records_ago = ago,
        }
        self.counts.repeats += u64::from(repeat);
        if numbers.again || !(repeat || seen && numbers.lines > 0 && numbers.chunk.is_none()) {
            return;
        }
        self.counts.unmarked += u64::from(repeat);
        if !(repeat && records_ago.is_some_and(|ago| ago <= PRODUCER_REPEAT_RECORDS_MAX)) {
            self.fault(Wrong::UnmarkedRepeat, numbers.seq, end, spot);
        }
    }

    fn fault(&mut self, wrong: Wrong, seq: u64, end: u64, spot: Spot) {
        self.wrong[wrong as usize].add(seq, end.max(seq.saturating_add(1)), spot);
    }
}
