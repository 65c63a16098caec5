//! What topics hold: when their oldest and newest records were sent, and about how many there are. Input: topics. Output: [`Overview`]s.
//!
//! Answers are kept for some seconds, so that listing namespaces costs Kafka little however often it is done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fairlead_contract::topic::TopicName;
use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer};

use super::{
    kafka::{Kafka, KafkaConsumer, ReadError},
    range,
    request::{Reading, Refusal},
};

/// How long an answer is kept, and how many are.
const KEPT_FOR: Duration = Duration::from_secs(5);
const KEPT_MAX: usize = 10_000;
/// How long the records at the ends of the topics may take.
const ENDS_TIME: Duration = Duration::from_secs(3);
/// How many offsets before the end the newest record is looked for: the last ones may hold no record but a transaction's mark.
const BACK_FROM_END: i64 = 3;

/// What a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Whether the topic is there.
    pub exists: bool,
    /// When the oldest record was sent, in milliseconds since 1970, where there is one.
    pub oldest: Option<i64>,
    /// When the newest record was sent.
    pub newest: Option<i64>,
    /// About how many records there are.
    pub records: i64,
}

/// Keeps what was asked lately.
#[derive(Debug, Default)]
pub struct Overviews(Mutex<HashMap<TopicName, (Instant, Overview)>>);

/// A partition that holds something.
struct Held<'a> {
    topic: &'a TopicName,
    partition: i32,
    low: i64,
    high: i64,
}

impl Overviews {
    /// What the topics hold now or a few seconds ago, in the order in which they are asked.
    ///
    /// # Errors
    /// [`Refusal`] when Kafka does not answer.
    pub async fn of(
        self: &Arc<Self>,
        reading: &Arc<Reading>,
        topics: Vec<TopicName>,
    ) -> Result<Vec<Overview>, Refusal> {
        let missing: Vec<TopicName> = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            topics
                .iter()
                .filter(|topic| kept.get(topic).is_none_or(|(at, _)| at.elapsed() > KEPT_FOR))
                .cloned()
                .collect()
        };
        if !missing.is_empty() {
            let asked = missing.clone();
            let found = reading.ask(move |kafka| overviews(kafka, &asked)).await?;
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() > KEPT_MAX {
                kept.clear();
            }
            let now = Instant::now();
            kept.extend(missing.into_iter().zip(found).map(|(topic, overview)| (topic, (now, overview))));
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(topics.iter().map(|topic| kept.get(topic).map(|(_, overview)| *overview).unwrap_or_default()).collect())
    }
}

fn overviews(kafka: &Kafka, topics: &[TopicName]) -> Result<Vec<Overview>, ReadError> {
    let mut overviews = Vec::with_capacity(topics.len());
    let mut held = Vec::new();
    // However many topics there are, this is one question.
    let deadline = Instant::now() + kafka.timeout();
    for topic in topics {
        if Instant::now() > deadline {
            return Err(ReadError::Silent { topic: topic.clone() });
        }
        let ends = kafka.ends(topic)?;
        let mut overview = Overview { exists: ends.is_some(), ..Overview::default() };
        for (partition, ends) in (0..).zip(ends.into_iter().flatten()) {
            overview.records += ends.high - ends.low;
            if ends.high > ends.low {
                held.push(Held { topic, partition, low: ends.low, high: ends.high });
            }
        }
        overviews.push(overview);
    }
    if held.is_empty() {
        return Ok(overviews);
    }
    let consumer = kafka.peek_consumer()?;
    let oldest = times(&consumer, &held, |held| held.low, false)?;
    let consumer = kafka.peek_consumer()?;
    let newest = times(&consumer, &held, |held| (held.high - BACK_FROM_END).max(held.low), true)?;
    for (held, (oldest, newest)) in held.iter().zip(oldest.into_iter().zip(newest)) {
        let Some(index) = topics.iter().position(|topic| topic == held.topic) else { continue };
        let overview = &mut overviews[index];
        overview.oldest = [overview.oldest, oldest].into_iter().flatten().min();
        overview.newest = [overview.newest, newest].into_iter().flatten().max();
    }
    Ok(overviews)
}

/// When the first record at an offset (or the last one from there on) was sent, for each partition. What does not come in time is not told.
fn times(
    consumer: &KafkaConsumer,
    held: &[Held<'_>],
    from: impl Fn(&Held<'_>) -> i64,
    last: bool,
) -> Result<Vec<Option<i64>>, ReadError> {
    let mut assignment = TopicPartitionList::with_capacity(held.len());
    for held in held {
        let fail = |source| ReadError::Read { topic: held.topic.clone(), source };
        assignment
            .add_partition_offset(held.topic.as_str(), held.partition, Offset::Offset(from(held)))
            .map_err(fail)?;
    }
    let fail = |source| ReadError::Read { topic: held[0].topic.clone(), source };
    consumer.assign(&assignment).map_err(fail)?;
    let places: HashMap<(&str, i32), usize> =
        held.iter().enumerate().map(|(index, held)| ((held.topic.as_str(), held.partition), index)).collect();
    let mut times = vec![None; held.len()];
    let mut open = held.len();
    let mut done = vec![false; held.len()];
    let deadline = Instant::now() + ENDS_TIME;
    while open > 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let Some(Ok(message)) = consumer.poll(left.min(Duration::from_millis(100))) else { continue };
        let Some(index) = places.get(&(message.topic(), message.partition())).copied() else { continue };
        if done[index] {
            continue;
        }
        times[index] = Some(range::sent(&message));
        if !last || message.offset() + 1 >= held[index].high {
            done[index] = true;
            open -= 1;
        }
    }
    Ok(times)
}
