//! Judges a topic from its data alone: for each source, do the ranges that its records cover and leave out and that
//! notices announce join without a hole; is what comes twice marked; does an equal number mean an equal line; is the
//! order kept.

mod ranges;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fairlead_contract::record::{Notice, NoticeKind};
use ranges::Ranges;

use crate::consume::Line;
use crate::generator::Identity;
use crate::generator::cri::Stream;

/// A producer may repeat a batch unmarked, at once; a repeat so many records later is a fault.
const PRODUCER_REPEAT_RECORDS_MAX: usize = 20_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sources seen.
    pub sources: usize,
    /// Physical lines covered, each counted once.
    pub lines: u64,
    /// Physical lines that notices announce as lost or left out and that no record covers.
    pub announced: u64,
    /// Physical lines that could not be parsed, as notices say.
    pub unparsed: u64,
    /// Notices that lines may be missing, without a number.
    pub unknown_gaps: u64,
    /// Lines cut short, as notices say.
    pub truncated: u64,
    /// Sources whose end is stated and holds.
    pub ended: usize,
    /// Records that repeat lines.
    pub repeats: u64,
    /// What must not be, in words.
    pub faults: Vec<String>,
}

/// Identity of a record among its source's: equal for a repeat.
type Place = (u64, u64, Option<u64>);

#[derive(Default)]
struct SourceState {
    /// Covered or left out.
    covered: Ranges,
    /// Announced as lost or unparsed.
    announced: Ranges,
    /// What notices said, each once.
    notices: BTreeSet<(NoticeKind, u64)>,
    /// The total that the last `end_of_stream` stated, unless a record came after it.
    end: Option<u64>,
    seen: BTreeMap<Place, (String, String)>,
    latest: VecDeque<Place>,
    highest: u64,
    partitions: BTreeSet<i32>,
}

/// Audits records in the order in which they lie (by partition, then offset).
pub fn audit(lines: &[Line]) -> Report {
    let mut report = Report::default();
    let mut sources: BTreeMap<&str, SourceState> = BTreeMap::new();
    for line in lines {
        match &line.notice {
            Some(notice) => sources.entry(&line.source).or_default().hear(line, notice, &mut report),
            None => sources.entry(&line.source).or_default().take(line, &mut report),
        }
    }
    report.sources = sources.len();
    for (source, state) in &sources {
        state.close(source, &mut report);
    }
    report
}

/// Physical lines covered by records, each once.
pub fn distinct_lines(lines: &[Line]) -> u64 {
    audit(lines).lines
}

/// What one container wrote to a stream, as a reader gets it who leaves repeats out and joins chunks: run by run, epoch
/// by epoch in the order in which they first appear, by number.
pub fn texts(lines: &[Line], identity: &Identity, stream: Stream) -> Vec<String> {
    let mut order: Vec<&str> = Vec::new();
    let mut pieces: BTreeMap<&str, BTreeMap<(u64, u64), &str>> = BTreeMap::new();
    for line in lines {
        let own = line.pod_uid == identity.uid && line.container == identity.container;
        if !own || line.notice.is_some() || line.written_to() != Some(stream) {
            continue;
        }
        if !pieces.contains_key(line.source.as_str()) {
            order.push(&line.source);
        }
        let offset = line.chunk.map_or(0, |chunk| chunk.offset);
        pieces.entry(&line.source).or_default().insert((line.seq, offset), &line.log);
    }
    order.sort_by_key(|source| restart_of(source));
    let mut texts: Vec<String> = Vec::new();
    for source in order {
        let mut last = None;
        for (&(seq, offset), log) in &pieces[source] {
            match texts.last_mut() {
                // Pieces cut at other places, before and after a restart, overlap.
                Some(text) if last == Some(seq) => text.push_str(beyond(text, offset, log)),
                _ => texts.push((*log).to_owned()),
            }
            last = Some(seq);
        }
    }
    texts
}

/// Equal, or pieces that begin at one place and are cut at others.
fn agree(seen: &str, line: &Line) -> bool {
    match line.chunk {
        Some(_) => seen.starts_with(&line.log) || line.log.starts_with(seen),
        None => seen == line.log,
    }
}

/// What a piece adds to the text before it.
fn beyond<'a>(text: &str, offset: u64, piece: &'a str) -> &'a str {
    let known = usize::try_from(text.len() as u64 - offset.min(text.len() as u64)).unwrap_or(usize::MAX);
    piece.get(known..).unwrap_or_default()
}

/// The restart count in `pod uid/container/restart count/epoch/fd`.
fn restart_of(source: &str) -> u32 {
    source.split('/').nth(2).and_then(|count| count.parse().ok()).unwrap_or(0)
}

impl SourceState {
    fn take(&mut self, line: &Line, report: &mut Report) {
        let place: Place = (line.seq, line.lines, line.chunk.map(|chunk| chunk.offset));
        let (start, end) = (line.seq.saturating_sub(line.left_out), line.seq + line.lines);
        self.partitions.insert(line.partition);
        let same = self.seen.get(&place);
        if let Some((time, log)) = same
            && (*time != line.time || !agree(log, line))
        {
            report.faults.push(format!("{}: number {} names two lines", line.source, line.seq));
        }
        // A piece that does not end its line covers no number: it is a repeat only if it was there before.
        let repeats = if line.lines == 0 { same.is_some() } else { self.covered.contains(line.seq, end) };
        if repeats {
            report.repeats += 1;
            if !line.again && !self.latest.contains(&place) {
                report.faults.push(format!("{}: number {} comes again unmarked", line.source, line.seq));
            }
        } else if line.seq < self.highest && !line.again {
            report.faults.push(format!("{}: number {} comes after {}", line.source, line.seq, self.highest));
        }
        self.highest = self.highest.max(line.seq);
        self.covered.add(start, end);
        self.end = None;
        let seen = self.seen.entry(place).or_default();
        if line.log.len() >= seen.1.len() {
            *seen = (line.time.clone(), line.log.clone());
        }
        self.latest.push_back(place);
        if self.latest.len() > PRODUCER_REPEAT_RECORDS_MAX {
            self.latest.pop_front();
        }
    }

    fn hear(&mut self, line: &Line, notice: &Notice<'_>, report: &mut Report) {
        if notice.source != line.source || notice.seq != line.seq || line.lines != 0 {
            report.faults.push(format!("{}: the record of a notice on {} differs from it", line.source, notice.source));
        }
        let news = self.notices.insert((notice.kind, notice.seq));
        if let Some((start, end)) = notice.announced() {
            self.announced.add(start, end);
        }
        match notice.kind {
            NoticeKind::Gap if notice.lines.is_none() && news => report.unknown_gaps += 1,
            NoticeKind::Truncated if news => report.truncated += 1,
            NoticeKind::EndOfStream => self.end = Some(notice.seq),
            _ => {}
        }
    }

    fn close(&self, source: &str, report: &mut Report) {
        let union = self.covered.union(&self.announced);
        if !union.is_whole() {
            report.faults.push(format!("{source}: holes, only these are there: {union:?}"));
        }
        if self.partitions.len() > 1 {
            report.faults.push(format!("{source}: in partitions {:?}", self.partitions));
        }
        match self.end {
            Some(end) if end != union.end() => {
                report.faults.push(format!("{source}: ends at {end}, as it says, but {} are there", union.end()));
            }
            Some(_) => report.ended += 1,
            None => {}
        }
        let announced = union.count() - self.covered.count();
        if source.ends_with("/0") {
            report.unparsed += announced;
        } else {
            report.announced += announced;
        }
        report.lines += self.covered.count();
    }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::record::Chunk;

    use super::*;

    fn line(seq: u64, lines: u64, again: bool) -> Line {
        Line {
            partition: 0,
            offset: 0,
            key: String::new(),
            namespace: "a".to_owned(),
            pod_uid: "u".to_owned(),
            container: "c".to_owned(),
            source: "u/c/0/e/1".to_owned(),
            seq,
            lines,
            left_out: 0,
            again,
            chunk: None,
            notice: None,
            time: "t".to_owned(),
            stream: "stdout".to_owned(),
            log: format!("line {seq}"),
        }
    }

    fn chunk(seq: u64, offset: u64, last: bool) -> Line {
        let index = u32::try_from(offset).unwrap();
        Line { chunk: Some(Chunk { index, offset, last }), ..line(seq, u64::from(last), false) }
    }

    #[test]
    fn judges_by_numbers() {
        let check = |lines: &[Line], expected: &[&str]| {
            let report = audit(lines);
            assert_eq!(report.faults.len(), expected.len(), "{report:?}");
            for (fault, part) in report.faults.iter().zip(expected) {
                assert!(fault.contains(part), "{fault}");
            }
        };
        check(&[line(0, 1, false), line(1, 2, false), line(3, 1, false)], &[]);
        check(&[line(0, 1, false), line(2, 1, false)], &["holes"]);
        check(&[line(1, 1, false)], &["holes"]);
        check(&[line(0, 1, false), Line { left_out: 2, ..line(3, 1, false) }], &[]);
        check(&[line(0, 1, false), line(1, 1, false), line(0, 1, true), line(1, 1, true), line(2, 1, false)], &[]);
        check(&[line(0, 1, false), Line { log: "other".to_owned(), ..line(0, 1, true) }], &["two lines"]);
        check(&[line(1, 1, false), line(0, 1, false)], &["comes after"]);
        check(&[chunk(0, 0, false), chunk(0, 5, false), chunk(0, 9, true), line(1, 1, false)], &[]);
        check(&[chunk(0, 0, false), line(1, 1, false)], &["holes"]);
        check(&[line(0, 1, false), Line { partition: 1, ..line(1, 1, false) }], &["in partitions"]);
    }

    fn notice(kind: NoticeKind, seq: u64, lines: Option<u64>) -> Line {
        let notice = Notice { lines, ..Notice::new(kind, "u/c/0/e/1", seq) };
        Line { notice: Some(notice), stream: "fairlead".to_owned(), lines: 0, ..line(seq, 0, false) }
    }

    #[test]
    fn judges_what_notices_say() {
        use NoticeKind::{EndOfStream, Gap, ParseErrors, Throttled, Truncated};
        let check = |lines: &[Line], expected: (u64, u64, u64, usize), fault: Option<&str>| {
            let report = audit(lines);
            let found = (report.announced, report.unknown_gaps, report.truncated, report.ended);
            assert_eq!(found, expected, "{report:?}");
            assert_eq!(report.faults.len(), usize::from(fault.is_some()), "{report:?}");
            assert!(fault.is_none_or(|part| report.faults[0].contains(part)), "{report:?}");
        };
        let (first, last) = (line(0, 4, false), line(6, 2, false));
        check(&[first.clone(), last.clone()], (0, 0, 0, 0), Some("holes"));
        check(&[first.clone(), notice(Gap, 4, Some(2)), last.clone()], (2, 0, 0, 0), None);
        check(&[first.clone(), notice(Throttled, 4, Some(2)), last.clone()], (2, 0, 0, 0), None);
        check(&[first.clone(), notice(Gap, 4, Some(1)), last.clone()], (1, 0, 0, 0), Some("holes"));
        check(&[first.clone(), notice(Gap, 4, Some(3)), last.clone()], (2, 0, 0, 0), None);
        let unknown = notice(Gap, 4, None);
        check(&[first.clone(), unknown.clone(), unknown.clone()], (0, 1, 0, 0), None);
        check(&[first.clone(), unknown, last.clone()], (0, 1, 0, 0), Some("holes"));
        check(&[first.clone(), notice(Truncated, 2, None)], (0, 0, 1, 0), None);
        check(&[first.clone(), notice(EndOfStream, 4, Some(4))], (0, 0, 0, 1), None);
        check(&[first.clone(), notice(EndOfStream, 5, Some(5))], (0, 0, 0, 0), Some("ends at 5"));
        check(&[first.clone(), notice(EndOfStream, 4, Some(4)), line(4, 1, false)], (0, 0, 0, 0), None);
        let elsewhere = Line { seq: 3, ..notice(Gap, 4, Some(1)) };
        check(&[first, elsewhere], (1, 0, 0, 0), Some("differs"));
        let bad = |seq, lines| Line {
            source: "u/c/0/e/0".to_owned(),
            notice: Some(Notice { lines: Some(lines), ..Notice::new(ParseErrors, "u/c/0/e/0", seq) }),
            ..notice(ParseErrors, seq, None)
        };
        assert_eq!(audit(&[bad(0, 3), bad(3, 1), bad(3, 1)]).unparsed, 4);
    }

    #[test]
    fn joins_what_a_reader_joins() {
        let identity =
            Identity { namespace: "a".to_owned(), pod: "p".to_owned(), uid: "u".to_owned(), container: "c".to_owned() };
        let later = Line { source: "u/c/1/f/1".to_owned(), log: "after".to_owned(), ..line(0, 1, false) };
        let lines = [later, chunk(0, 0, false), chunk(0, 6, true), line(1, 1, false), line(1, 1, true)];
        assert_eq!(texts(&lines, &identity, Stream::Stdout), ["line 0line 0", "line 1", "after"]);
        let piece = |offset: u64, last: bool, log: &str| Line { log: log.to_owned(), ..chunk(7, offset, last) };
        let recut = [piece(0, false, "abc"), piece(3, true, "defgh"), piece(0, false, "abcde"), piece(5, true, "fgh")];
        assert_eq!(texts(&recut, &identity, Stream::Stdout), ["abcdefgh"]);
        assert!(texts(&lines, &identity, Stream::Stderr).is_empty());
    }
}
