//! Finds where the last lines begin. Input: how many lines are asked. Output: spans, and how many of their first lines are too many. Blocks.
//!
//! The topic is read backwards in growing steps until enough lines are found whose order among the partitions is certain: nothing that lies
//! before the step could have been sent after them.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    event::Missing,
    history::History,
    kafka::ReadError,
    position::Positions,
    range::{Span, Step, read},
    shape::{RawRecord, Shaper},
};

/// The fewest records of a partition that one step reads.
const STEP_RECORDS_MIN: i64 = 256;
/// How many records are searched between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 1024;
/// How many records go by between two looks at the clock, and how long it may take until the next look at the client.
const RECORDS_PER_CLOCK: u64 = 16;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much longer each step is than the one before.
const GROWTH: i64 = 4;

/// What to search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How many lines.
    pub lines: u64,
    /// Where each partition begins.
    pub lows: Vec<i64>,
    /// Where each partition ends.
    pub highs: Vec<i64>,
    /// The search ends before what was sent at this time, in milliseconds since 1970, or later.
    pub sent_until: Option<i64>,
}

/// Where the last lines begin.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// What to read.
    pub spans: Vec<Span>,
    /// How many lines of it come before the asked ones.
    pub skip: u64,
    /// Whether the search went as far as it had to.
    pub complete: bool,
}

/// Says when it is time to look whether the client is still there: every so many records, or some time where each takes long.
#[derive(Debug)]
pub struct Look {
    records: u64,
    since: Instant,
}

impl Default for Look {
    fn default() -> Self {
        Self { records: 0, since: Instant::now() }
    }
}

impl Look {
    /// Counts one record, and says whether it is time.
    pub fn is_due(&mut self) -> bool {
        self.records += 1;
        let due = self.records >= RECORDS_PER_LOOK
            || (self.records.is_multiple_of(RECORDS_PER_CLOCK) && self.since.elapsed() >= LOOK_EVERY);
        if due {
            *self = Self::default();
        }
        due
    }
}

impl Walk {
    /// What of the walk lies before the spans.
    pub fn before(&self, spans: &[Span]) -> Vec<Missing> {
        let part = |span: &Span| {
            let from = usize::try_from(span.partition).ok().and_then(|index| self.lows.get(index).copied());
            Missing { partition: span.partition, from: from.unwrap_or(span.from), to: span.from }
        };
        spans.iter().map(part).filter(|part| part.from < part.to).collect()
    }
}

/// Counts lines in merged order, and which of them surely are the last.
#[derive(Debug, Default)]
struct Tally {
    lines: u64,
    certain: u64,
    cut_unseen: Vec<i32>,
}

impl Tally {
    /// Begins with the partitions of which an earlier part is not read.
    fn new(spans: &[Span], lows: &[i64]) -> Self {
        let is_cut = |(span, low): &(&Span, &i64)| span.from > **low && !span.is_empty();
        let cut_unseen = spans.iter().zip(lows).filter(is_cut).map(|(span, _)| span.partition).collect();
        Self { cut_unseen, ..Self::default() }
    }

    /// Takes a record of a partition before its line is counted.
    fn begin(&mut self, partition: i32) {
        if let Some(at) = self.cut_unseen.iter().position(|unseen| *unseen == partition) {
            self.cut_unseen.swap_remove(at);
            // What was not read of this partition may have been sent at any time before this record.
            self.certain = 0;
        }
    }

    fn count(&mut self) {
        self.lines += 1;
        self.certain += 1;
    }

    /// How many of the last lines have nothing unread that could lie among them.
    fn certain(&self) -> u64 {
        if self.cut_unseen.is_empty() { self.certain } else { 0 }
    }
}

/// Finds the last lines of a walk.
///
/// # Errors
/// [`ReadError`] when Kafka does not answer.
pub fn last_lines(history: &History<'_>, shaper: &mut Shaper, walk: &Walk) -> Result<Found, ReadError> {
    let Walk { lines: asked, lows, highs, .. } = walk;
    let partitions = i64::try_from(lows.len()).unwrap_or(1).max(1);
    let mut step = i64::try_from(*asked).unwrap_or(i64::MAX).saturating_mul(2) / partitions;
    step = step.max(STEP_RECORDS_MIN);
    loop {
        let span = |(partition, (low, high)): (i32, (&i64, &i64))| Span {
            sent_until: walk.sent_until,
            ..Span::offsets(partition, high.saturating_sub(step).max(*low), *high)
        };
        let spans: Vec<Span> = (0..).zip(lows.iter().zip(highs)).map(span).collect();
        let all = spans.iter().zip(lows).all(|(span, low)| span.from <= *low);
        let scanned: i64 = spans.iter().map(|span| span.to - span.from).sum();
        let far_enough = u64::try_from(scanned).is_ok_and(|scanned| scanned >= history.settings.tail_scan_records_max);
        let tally = count(history, shaper, &spans, lows)?;
        let complete = all || tally.certain() >= *asked;
        if complete || far_enough || history.valve.is_shut() {
            return Ok(Found { spans, skip: tally.lines.saturating_sub(*asked), complete });
        }
        step = step.saturating_mul(GROWTH);
    }
}

fn count(history: &History<'_>, shaper: &mut Shaper, spans: &[Span], lows: &[i64]) -> Result<Tally, ReadError> {
    let mut twin = shaper.counting_twin();
    begin(&mut twin, spans);
    let mut tally = Tally::new(spans, lows);
    let (mut unused, mut failed) = (Vec::new(), None);
    let mut look = Look::default();
    read(history.kafka, history.topic, spans, &mut |step| {
        let record: RawRecord<'_> = match step {
            Step::Record(record) => record,
            Step::Done { .. } => return ControlFlow::Continue(()),
            Step::Idle => return alive(history, shaper),
        };
        if look.is_due() && alive(history, shaper).is_break() {
            return ControlFlow::Break(());
        }
        tally.begin(record.partition);
        let before = twin.skipped();
        if let Err(error) = history.take(&mut twin, &record, &mut unused) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        if twin.skipped() > before {
            tally.count();
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(tally), Err)
}

/// Says that the stream lives, when it is time to, and whether it does.
fn alive(history: &History<'_>, shaper: &mut Shaper) -> ControlFlow<()> {
    let mut out = Vec::new();
    shaper.heartbeat_if_due(&mut out);
    history.valve.send(out)
}

/// Starts a stream at the spans, as the continuation of what lies before them.
pub fn begin(shaper: &mut Shaper, spans: &[Span]) {
    let mut positions = Positions::default();
    spans.iter().for_each(|span| positions.set(span.partition, span.from));
    shaper.start_at(positions.clone());
    shaper.continue_at(positions);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts lines of these partitions, in this order, and says how many are certain.
    fn check(cut: &[i32], order: &[i32], lines: u64, certain: u64) {
        let spans: Vec<_> =
            (0..3).map(|partition| Span::offsets(partition, if cut.contains(&partition) { 5 } else { 0 }, 9)).collect();
        let mut tally = Tally::new(&spans, &[0, 0, 0]);
        for partition in order {
            tally.begin(*partition);
            tally.count();
        }
        assert_eq!((tally.lines, tally.certain()), (lines, certain), "{cut:?} {order:?}");
    }

    #[test]
    fn a_look_is_due_after_many_records_or_long_ones() {
        let mut look = Look::default();
        let due: Vec<u64> = (1..=2 * RECORDS_PER_LOOK).filter(|_| look.is_due()).collect();
        assert_eq!(due, [RECORDS_PER_LOOK, 2 * RECORDS_PER_LOOK]);
        let Some(since) = Instant::now().checked_sub(LOOK_EVERY) else { return };
        let mut slow = Look { records: 0, since };
        assert_eq!((1..=RECORDS_PER_CLOCK).find(|_| slow.is_due()), Some(RECORDS_PER_CLOCK));
    }

    #[test]
    fn what_was_not_searched_is_named() {
        let walk = Walk { lines: 3, lows: vec![5, 0, 7], highs: vec![50, 50, 50], sent_until: None };
        let spans = [Span::offsets(0, 20, 50), Span::offsets(1, 0, 50), Span::offsets(2, 9, 50)];
        let part = |partition, from, to| Missing { partition, from, to };
        assert_eq!(walk.before(&spans), [part(0, 5, 20), part(2, 7, 9)]);
    }

    #[test]
    fn only_what_follows_every_cut_is_certain() {
        check(&[], &[0, 1, 2], 3, 3);
        check(&[0], &[0, 0, 1], 3, 3);
        check(&[0, 1], &[0, 0, 0, 1, 0], 5, 2);
        check(&[2], &[0, 0, 2], 3, 1);
        check(&[1, 2], &[0, 1, 1, 0], 4, 0);
    }
}
