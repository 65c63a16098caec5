//! Reads a range of a topic that ends, in a fixed order. Input: a span of each partition. Output: records by sending time, partition, offset.
//!
//! The partitions are merged by the sending time of the record that each of them has next, so the same spans come out the same twice, and
//! reading can go on after any record from the offsets alone. Blocks.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_contract::topic::TopicName;
use rdkafka::{
    Message, Offset, Timestamp, TopicPartitionList,
    consumer::{Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    kafka::{Context, Kafka, KafkaConsumer, ReadError},
    scan::key_hash,
    shape::RawRecord,
};

/// How long one wait for a record takes before the visitor may do something else.
const WAIT: Duration = Duration::from_millis(50);
/// How long a partition whose end lies before the span's is left alone before its end is asked for again.
const END_PAUSE: Duration = Duration::from_millis(200);
/// How many records are read between two looks at the consumer's own events.
const RECORDS_PER_LOOK: u32 = 4096;

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset before which reading ends.
    pub to: i64,
    /// `from` was found by this time; if its record was sent earlier, the broker had found none and the span is empty.
    pub sent_from: Option<i64>,
    /// Reading ends before the first record that was sent at this time or later.
    pub sent_until: Option<i64>,
}

/// What the reader tells.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next record.
    Record(RawRecord<'a>),
    /// All of a partition's span was told; its position is this offset.
    Done {
        /// The partition.
        partition: i32,
        /// Where reading goes on.
        offset: i64,
    },
    /// Nothing is at hand; what was written may be sent, and it may be time for something else.
    Idle,
}

/// The state of one partition while it is merged.
struct Lane {
    span: Span,
    begun: bool,
    done: bool,
    heard: Instant,
    /// Where the last record ended.
    next: i64,
    end: End,
}

/// What is known of a partition's end, when it is told before the span's end was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing was told.
    Untold,
    /// It was told, but the partition ends elsewhere: a replica that lags told it, or the question was not answered at this time.
    Doubted(Instant),
    /// The partition reaches the span's end, and is read once more from where its records ended: if its end is told again, nothing lies there
    /// but what compaction and transactions leave.
    Confirmed,
}

impl Lane {
    fn new(span: Span) -> Self {
        Self { span, begun: false, done: false, heard: Instant::now(), next: span.from, end: End::Untold }
    }

    /// Whether the told end of the partition may be believed without a question.
    fn is_at_end(&self) -> bool {
        self.next >= self.span.to || self.end == End::Confirmed
    }

    /// Whether the partition's end is to be asked for again.
    fn asks_again(&self) -> bool {
        matches!(self.end, End::Doubted(at) if at.elapsed() >= END_PAUSE)
    }

    /// Takes where the partition ends, if that was answered. Returns whether to read once more.
    fn answer(&mut self, high: Option<i64>) -> bool {
        let reaches = high.is_some_and(|high| high >= self.span.to);
        self.end = if reaches { End::Confirmed } else { End::Doubted(Instant::now()) };
        reaches
    }
}

impl Span {
    /// All records of a partition from one offset to before another.
    pub fn offsets(partition: i32, from: i64, to: i64) -> Self {
        Self { partition, from, to, sent_from: None, sent_until: None }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// Reads all spans, merged, until they end or the visitor breaks.
///
/// # Errors
/// [`ReadError`] when Kafka gives nothing for the time that a question may take, or refuses.
pub fn read(
    kafka: &Kafka,
    topic: &TopicName,
    spans: &[Span],
    visit: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    for span in spans.iter().filter(|span| span.is_empty()) {
        if visit(Step::Done { partition: span.partition, offset: span.from }).is_break() {
            return Ok(());
        }
    }
    let spans: Vec<Span> = spans.iter().copied().filter(|span| !span.is_empty()).collect();
    if spans.is_empty() {
        return Ok(());
    }
    let mut reader = kafka.reader()?;
    // Complaints about what it read before say nothing about this range.
    while reader.poll(Duration::ZERO).is_some() {}
    read_with(&reader, kafka.timeout(), topic, &spans, visit)?;
    reader.keep();
    Ok(())
}

fn read_with(
    consumer: &Arc<KafkaConsumer>,
    patience: Duration,
    topic: &TopicName,
    spans: &[Span],
    visit: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let fail = |source| ReadError::Read { topic: topic.clone(), source };
    // Each partition has a queue of its own, so that one that waits for another is not fetched without end. The queues are made before the
    // assignment: librdkafka keeps the application's forwarding, and no record can come by another way.
    let mut assignment = TopicPartitionList::with_capacity(spans.len());
    let mut queues = Vec::with_capacity(spans.len());
    for span in spans {
        assignment.add_partition_offset(topic.as_str(), span.partition, Offset::Offset(span.from)).map_err(fail)?;
        let queue = consumer.split_partition_queue(topic.as_str(), span.partition);
        queues.push(queue.ok_or_else(|| fail(KafkaError::Subscription("no queue for a partition".into())))?);
    }
    consumer.assign(&assignment).map_err(fail)?;
    let mut merge = Merge::new(consumer, topic, spans, &queues, patience);
    let mut until_look = 0;
    loop {
        if until_look == 0 {
            until_look = RECORDS_PER_LOOK;
            while let Some(event) = consumer.poll(Duration::ZERO) {
                match event {
                    Ok(_) => {
                        return Err(fail(KafkaError::Subscription(
                            "a record came outside its partition's queue".into(),
                        )));
                    }
                    Err(error) => check(topic, error)?,
                }
            }
        }
        until_look -= 1;
        match merge.next(visit)? {
            ControlFlow::Continue(true) => {}
            // Nothing was at hand: look at the events before the next wait.
            ControlFlow::Continue(false) => until_look = 0,
            ControlFlow::Break(()) => return Ok(()),
        }
    }
}

struct Merge<'q> {
    consumer: &'q KafkaConsumer,
    topic: &'q TopicName,
    queues: &'q [PartitionQueue<Context>],
    lanes: Vec<Lane>,
    heads: Vec<Option<BorrowedMessage<'q>>>,
    patience: Duration,
}

impl<'q> Merge<'q> {
    fn new(
        consumer: &'q KafkaConsumer,
        topic: &'q TopicName,
        spans: &[Span],
        queues: &'q [PartitionQueue<Context>],
        patience: Duration,
    ) -> Self {
        let lanes: Vec<_> = spans.iter().copied().map(Lane::new).collect();
        let heads = lanes.iter().map(|_| None).collect();
        Self { consumer, topic, queues, lanes, heads, patience }
    }

    /// Asks where a lane's partition ends, and reads it once more if it reaches the span's end. What is not answered is asked again.
    fn ask_end(&mut self, lane: usize) {
        let state = &mut self.lanes[lane];
        let wait = self.patience.saturating_sub(state.heard.elapsed()).max(WAIT);
        let (topic, partition) = (self.topic.as_str(), state.span.partition);
        let high = self.consumer.fetch_watermarks(topic, partition, wait).ok().map(|(_, high)| high);
        if state.answer(high)
            && let Err(error) = self.consumer.seek(topic, partition, Offset::Offset(state.next), wait)
        {
            tracing::debug!(error = %error, topic, partition, "a partition is not read once more yet");
            state.end = End::Doubted(Instant::now());
        }
    }

    /// Tells the next record. Continues with whether something was at hand; breaks at the end.
    fn next(&mut self, visit: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>) -> Result<ControlFlow<(), bool>, ReadError> {
        let (queues, mut waited) = (self.queues, false);
        for (lane, queue) in queues.iter().enumerate() {
            while self.heads[lane].is_none() && !self.lanes[lane].done {
                let mut polled = queue.poll(Duration::ZERO);
                if polled.is_none() {
                    if visit(Step::Idle).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    waited = true;
                    polled = queue.poll(WAIT);
                }
                match polled {
                    Some(Ok(message)) => {
                        if let Some(offset) = self.offer(lane, message) {
                            let partition = self.lanes[lane].span.partition;
                            if visit(Step::Done { partition, offset }).is_break() {
                                return Ok(ControlFlow::Break(()));
                            }
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) if !self.lanes[lane].is_at_end() => self.ask_end(lane),
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        self.lanes[lane].done = true;
                        let Span { partition, to, .. } = self.lanes[lane].span;
                        if visit(Step::Done { partition, offset: to }).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Some(Err(error)) => {
                        check_partition(self.topic, self.lanes[lane].span.partition, error)?;
                    }
                    None if self.lanes[lane].heard.elapsed() > self.patience => {
                        return Err(ReadError::Silent { topic: self.topic.clone() });
                    }
                    None => {
                        if self.lanes[lane].asks_again() {
                            self.ask_end(lane);
                        }
                        return Ok(ControlFlow::Continue(false));
                    }
                }
            }
        }
        let next = (0..self.heads.len())
            .filter_map(|lane| self.heads[lane].as_ref().map(|message| ((sent(message), message.partition()), lane)))
            .min()
            .map(|(_, lane)| lane);
        let Some(lane) = next else { return Ok(ControlFlow::Break(())) };
        let Some(message) = self.heads[lane].take() else { return Ok(ControlFlow::Break(())) };
        let record = RawRecord {
            partition: message.partition(),
            offset: message.offset(),
            sent: sent(&message),
            key_hash: key_hash(message.key()),
            value: message.payload().unwrap_or_default(),
        };
        let mut flow = visit(Step::Record(record));
        let Span { partition, to, .. } = self.lanes[lane].span;
        if flow.is_continue() && message.offset().saturating_add(1) >= to {
            self.lanes[lane].done = true;
            flow = visit(Step::Done { partition, offset: to });
        }
        Ok(match flow {
            ControlFlow::Continue(()) => ControlFlow::Continue(!waited),
            ControlFlow::Break(()) => ControlFlow::Break(()),
        })
    }

    /// Takes a record as a lane's next one. Returns where the lane ends when the record lies past its span.
    fn offer(&mut self, lane: usize, message: BorrowedMessage<'q>) -> Option<i64> {
        let state = &mut self.lanes[lane];
        state.heard = Instant::now();
        let (offset, sent) = (message.offset(), sent(&message));
        // Never from another topic or partition, never twice, whatever the client hands out.
        if message.topic() != self.topic.as_str() || message.partition() != state.span.partition || offset < state.next
        {
            return None;
        }
        state.next = offset.saturating_add(1);
        state.end = End::Untold;
        let not_found = !state.begun && state.span.sent_from.is_some_and(|from| sent < from);
        state.begun = true;
        if not_found || offset >= state.span.to {
            state.done = true;
            return Some(state.span.to);
        }
        if state.span.sent_until.is_some_and(|until| sent >= until) {
            state.done = true;
            return Some(offset);
        }
        self.heads[lane] = Some(message);
        None
    }
}

/// When a record was sent, in milliseconds since 1970.
pub fn sent(message: &BorrowedMessage<'_>) -> i64 {
    match message.timestamp() {
        Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at) => at,
        Timestamp::NotAvailable => 0,
    }
}

fn check_partition(topic: &TopicName, partition: i32, error: KafkaError) -> Result<(), ReadError> {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
            Err(ReadError::OffsetGone { topic: topic.clone(), partition })
        }
        _ => check(topic, error),
    }
}

/// Tells an error that reading outlives (the client reconnects by itself) from one that it does not.
pub fn check(topic: &TopicName, error: KafkaError) -> Result<(), ReadError> {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId
            | Code::TopicAuthorizationFailed
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::Fatal,
        ) => Err(ReadError::Read { topic: topic.clone(), source: error }),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
            Err(ReadError::OffsetGone { topic: topic.clone(), partition: 0 })
        }
        _ => {
            tracing::debug!(error = %error, topic = topic.as_str(), "reading goes on after an error");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_end_is_believed_at_the_spans_end_or_when_it_is_confirmed() {
        let mut lane = Lane::new(Span::offsets(0, 5, 10));
        assert!(!lane.is_at_end() && !lane.asks_again(), "nothing was read");
        for (high, confirmed) in [(Some(7), false), (None, false), (Some(9), false), (Some(10), true), (Some(99), true)]
        {
            assert_eq!((lane.answer(high), lane.is_at_end()), (confirmed, confirmed), "{high:?}");
        }
        assert!(!lane.answer(Some(9)) && !lane.asks_again(), "not at once");
        lane.end = End::Doubted(Instant::now() - END_PAUSE);
        assert!(lane.asks_again());
        (lane.next, lane.end) = (9, End::Untold);
        assert!(!lane.is_at_end());
        lane.next = 10;
        assert!(lane.is_at_end(), "the last record of the span was read");
    }
}
