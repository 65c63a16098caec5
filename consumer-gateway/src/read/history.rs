//! Reads what lies between a stream's positions and a fixed end, and sends it. Input: spans. Output: frames in the outbox. Blocks.

use std::{ops::ControlFlow, time::Duration};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::telemetry::{Throttle, field};

use super::{
    Settings,
    cursor::TopicMark,
    event::Missing,
    kafka::{Kafka, ReadError, TopicState},
    outbox::Valve,
    position::Positions,
    range::{Span, Step, read},
    shape::{RawRecord, Shaper, Verdict},
    walk_back::Look,
};

/// How much is gathered before it is sent, in bytes.
pub const FRAME_BYTES: usize = 64 * 1024;
/// How often the beginning of a partition may move away under a reader before it gives up.
const GAPS_MAX: u32 = 16;

/// How a history ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryEnd {
    /// At its end.
    Reached,
    /// At the asked number of lines.
    Limit,
    /// The client went, or the stream is to end.
    Stopped,
    /// The topic is another one than the positions belong to.
    TopicChanged,
    /// Kafka did not answer.
    Unavailable,
}

/// Reads histories of one stream.
pub struct History<'a> {
    /// Where to read.
    pub kafka: &'a Kafka,
    /// The topic.
    pub topic: &'a TopicName,
    /// Limits.
    pub settings: &'a Settings,
    /// Where frames go.
    pub valve: &'a Valve,
}

impl History<'_> {
    /// Sends all of the spans, at most until the stream has shown `limit` lines.
    pub fn send(&self, shaper: &mut Shaper, mut spans: Vec<Span>, limit: Option<u64>) -> HistoryEnd {
        let mut fresh = false;
        for _ in 0..GAPS_MAX {
            match self.pass(shaper, &spans, limit) {
                Ok(end) => return end,
                // A reader that was kept may know a topic that was made again since: once, a new one is tried.
                Err(ReadError::Read { .. }) if !fresh => {
                    fresh = true;
                    self.kafka.forget_readers();
                    go_on(&mut spans, shaper.positions());
                }
                Err(ReadError::OffsetGone { .. }) => match self.kafka.topic(self.topic) {
                    Ok(Some(state)) => {
                        let mut out = Vec::new();
                        if !self.mend(shaper, &state, &mut spans, &mut out) {
                            return HistoryEnd::TopicChanged;
                        }
                        if self.valve.send(out).is_break() {
                            return HistoryEnd::Stopped;
                        }
                    }
                    Ok(None) => return HistoryEnd::TopicChanged,
                    Err(error) => return self.unavailable(&error),
                },
                Err(error) => return self.unavailable(&error),
            }
        }
        HistoryEnd::Unavailable
    }

    /// Sends what lies between the stream's positions and `to`, where another reader goes on.
    pub fn catch_up(&self, shaper: &mut Shaper, mark: TopicMark, to: &[i64], limit: Option<u64>) -> HistoryEnd {
        let state = match self.kafka.topic(self.topic) {
            Ok(Some(state)) => state,
            Ok(None) => return HistoryEnd::TopicChanged,
            Err(error) => return self.unavailable(&error),
        };
        if !TopicMark::new(self.topic, state.id).may_be(&mark) {
            return HistoryEnd::TopicChanged;
        }
        let mut out = Vec::new();
        let Some(missing) = missing(shaper.positions(), &state) else { return HistoryEnd::TopicChanged };
        if !missing.is_empty() {
            shaper.gap(&missing, &mut out);
        }
        let spans = (0..)
            .zip(to)
            .map(|(partition, to)| {
                let low = state.partitions.get(partition as usize).map_or(0, |ends| ends.low);
                Span::offsets(partition, shaper.positions().get(partition).unwrap_or(low), *to)
            })
            .collect();
        if self.valve.send(out).is_break() {
            return HistoryEnd::Stopped;
        }
        self.send(shaper, spans, limit)
    }

    /// Looks back in a partition for what an earlier stream has shown.
    ///
    /// # Errors
    /// [`ReadError`] when Kafka does not answer.
    pub fn look_back(&self, shaper: &mut Shaper, partition: i32) -> Result<(), ReadError> {
        let Some(before) = shaper.look_back_from(partition) else { return Ok(()) };
        let far = i64::try_from(self.settings.repeat_lookback_records).unwrap_or(i64::MAX);
        let low = match self.kafka.topic(self.topic)? {
            Some(state) => usize::try_from(partition)
                .ok()
                .and_then(|index| state.partitions.get(index).copied())
                .map_or(before, |ends| ends.low),
            None => before,
        };
        let span = Span::offsets(partition, before.saturating_sub(far).max(low), before);
        let mut look = Look::default();
        let outcome = read(self.kafka, self.topic, &[span], &mut |step| {
            let time_to_look = match step {
                Step::Record(record) => {
                    shaper.remember(&record);
                    look.is_due()
                }
                Step::Done { .. } => false,
                Step::Idle => true,
            };
            if time_to_look && self.valve.is_shut() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match outcome {
            // The beginning moved while it was read: what is left is all there is.
            Ok(()) | Err(ReadError::OffsetGone { .. }) => {}
            Err(error) => return Err(error),
        }
        shaper.looked_back(partition);
        Ok(())
    }

    /// Offers one record to the stream, looking back where it asks for that.
    ///
    /// # Errors
    /// [`ReadError`] when looking back fails.
    pub fn take(&self, shaper: &mut Shaper, record: &RawRecord<'_>, out: &mut Vec<u8>) -> Result<Verdict, ReadError> {
        loop {
            match shaper.take(record, out) {
                Verdict::LookBack => self.look_back(shaper, record.partition)?,
                verdict => return Ok(verdict),
            }
        }
    }

    fn pass(&self, shaper: &mut Shaper, spans: &[Span], limit: Option<u64>) -> Result<HistoryEnd, ReadError> {
        let at_limit = |shaper: &Shaper| limit.is_some_and(|limit| shaper.counts().lines >= limit);
        if at_limit(shaper) {
            return Ok(HistoryEnd::Limit);
        }
        let mut out = Vec::with_capacity(FRAME_BYTES + 4096);
        let mut end = HistoryEnd::Reached;
        let mut failed = None;
        let mut look = Look::default();
        read(self.kafka, self.topic, spans, &mut |step| {
            match step {
                Step::Done { partition, offset } => {
                    shaper.advance(partition, offset);
                    return ControlFlow::Continue(());
                }
                Step::Record(record) => {
                    match self.take(shaper, &record, &mut out) {
                        Ok(Verdict::Shown) if at_limit(shaper) => {
                            end = HistoryEnd::Limit;
                            return ControlFlow::Break(());
                        }
                        Ok(_) => {}
                        Err(error) => {
                            failed = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                    if !look.is_due() && out.len() < FRAME_BYTES {
                        return ControlFlow::Continue(());
                    }
                    shaper.heartbeat_if_due(&mut out);
                    if out.len() < FRAME_BYTES && !self.valve.is_shut() {
                        return ControlFlow::Continue(());
                    }
                }
                Step::Idle => shaper.heartbeat_if_due(&mut out),
            }
            let room = if out.is_empty() { 0 } else { FRAME_BYTES + 4096 };
            let flow = self.valve.send(std::mem::replace(&mut out, Vec::with_capacity(room)));
            if flow.is_break() {
                end = HistoryEnd::Stopped;
            }
            flow
        })?;
        if let Some(error) = failed {
            let _ = self.valve.send(out);
            return Err(error);
        }
        if self.valve.send(out).is_break() {
            end = HistoryEnd::Stopped;
        }
        Ok(end)
    }

    /// Goes on past what retention took away. False when the positions are not of this topic.
    fn mend(&self, shaper: &mut Shaper, state: &TopicState, spans: &mut [Span], out: &mut Vec<u8>) -> bool {
        if !TopicMark::new(self.topic, state.id).may_be(&shaper.topic()) {
            return false;
        }
        let Some(missing) = missing(shaper.positions(), state) else { return false };
        if !missing.is_empty() {
            shaper.gap(&missing, out);
        }
        go_on(spans, shaper.positions());
        true
    }

    /// Logs why a stream cannot be read on.
    pub fn unavailable(&self, error: &ReadError) -> HistoryEnd {
        static FAILURES: Throttle = Throttle::new(Duration::from_secs(10));
        if let Some(left_out) = FAILURES.allow() {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!({ field::DESTINATION } = self.topic.as_str(), error = %error, cause, left_out, "a stream ends: reading failed");
        }
        HistoryEnd::Unavailable
    }
}

/// Lets spans begin where the stream stands.
fn go_on(spans: &mut [Span], positions: &Positions) {
    for span in spans {
        if let Some(position) = positions.get(span.partition)
            && position > span.from
        {
            span.from = position;
            span.sent_from = None;
        }
    }
}

/// What retention took away between the positions and the topic's beginning. `None` when a position lies past the topic's end: it is another
/// topic, or one that lost records.
pub fn missing(positions: &Positions, state: &TopicState) -> Option<Vec<Missing>> {
    let mut missing = Vec::new();
    for (partition, ends) in state.numbered() {
        match positions.get(partition) {
            Some(position) if position > ends.high => return None,
            Some(position) if position < ends.low => missing.push(Missing { partition, from: position, to: ends.low }),
            _ => {}
        }
    }
    let known = i32::try_from(state.partitions.len()).unwrap_or(i32::MAX);
    let beyond = (known..)
        .zip(positions.iter().skip(state.partitions.len()))
        .any(|(_, position)| position.is_some_and(|at| at > 0));
    (!beyond).then_some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::kafka::Watermarks;

    #[test]
    fn what_is_missing_and_what_is_another_topic() {
        let state =
            TopicState { id: None, partitions: vec![Watermarks { low: 10, high: 20 }, Watermarks { low: 0, high: 5 }] };
        let gap = |partition, from, to| Missing { partition, from, to };
        let cases: [(&[i64], Option<Vec<Missing>>); 7] = [
            (&[], Some(vec![])),
            (&[10, 0], Some(vec![])),
            (&[20, 5], Some(vec![])),
            (&[4, 0], Some(vec![gap(0, 4, 10)])),
            (&[21, 0], None),
            (&[10, 0, 0], Some(vec![])),
            (&[10, 0, 3], None),
        ];
        for (offsets, expected) in cases {
            assert_eq!(missing(&Positions::from_offsets(offsets), &state), expected, "{offsets:?}");
        }
    }
}
