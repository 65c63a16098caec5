//! What is asked, and whether it can be answered. Input: [`Request`]. Output: [`Prepared`], or a [`Refusal`] before a byte was sent.

use std::{sync::Arc, time::Duration};

use fairlead_contract::{
    namespace::Namespace,
    topic::{Route, TopicMap, TopicName},
};
use tokio::sync::Semaphore;

use super::{
    Settings,
    cursor::{CursorError, Keys, TopicMark},
    event::Missing,
    filter::{Filter, Moment},
    history::missing,
    hub::Hub,
    kafka::{Kafka, ReadError, TopicState},
    position::Positions,
    range::Span,
    render::Format,
    shape::{Shape, Shaper},
    walk_back::Walk,
};
use crate::metrics::Metrics;

/// How far before `since` a line may have been sent: clocks differ.
const CLOCK_DIFFERENCE_MS: i64 = 60_000;
/// Questions to Kafka at one time, and how long one may wait for its turn.
const QUESTIONS_MAX: usize = 64;
const TURN: Duration = Duration::from_secs(5);

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With lines of this time; [`Filter::since`] says the same.
    At(Moment),
    /// Where another stream ended.
    Cursor(String),
    /// With the last lines, so many; where `before` is a cursor, the last ones before its place.
    Last {
        /// How many.
        lines: u64,
        /// A cursor.
        before: Option<String>,
    },
}

/// How long after `until` a line may have been sent to be in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// So long.
    Within(Duration),
    /// However long.
    All,
}

/// A request for lines.
#[derive(Clone, Debug)]
pub struct Request {
    /// The namespace, which the caller may read.
    pub namespace: Namespace,
    /// Where to begin.
    pub start: Start,
    /// How long after `until`.
    pub late: Late,
    /// The most lines.
    pub limit: Option<u64>,
    /// Whether to go on with what comes.
    pub follow: bool,
    /// Which lines.
    pub filter: Filter,
    /// What the body is.
    pub format: Format,
}

/// Why a request is not answered with a stream.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The cursor is none of ours.
    #[error("the cursor was not accepted")]
    Cursor(#[source] CursorError),
    /// The cursor's place is gone: the topic is another one, or ends before it. `fresh` begins where the lines are now.
    #[error("the cursor's topic is gone")]
    Gone {
        /// A cursor that is good.
        fresh: String,
    },
    /// Too much is asked of Kafka at once.
    #[error("too many questions at once")]
    Busy,
    /// Kafka did not answer.
    #[error("kafka did not answer")]
    Kafka(#[source] ReadError),
}

/// What reads for all requests.
pub struct Reading {
    /// Asks Kafka.
    pub kafka: Arc<Kafka>,
    /// Fetches for followers.
    pub hub: Arc<Hub>,
    /// Which topic a namespace's lines are in.
    pub topics: TopicMap,
    /// Seals and opens cursors.
    pub keys: Keys,
    /// Limits.
    pub settings: Settings,
    /// The history readers' places.
    pub readers: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who looks at text with patterns, which takes long: never all cores, so that everyone else is served.
    pub(super) matching: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

/// A request that can be answered.
pub struct Prepared {
    pub(super) reading: Arc<Reading>,
    pub(super) namespace: Namespace,
    /// None where the namespace's lines are not collected.
    pub(super) topic: Option<TopicName>,
    pub(super) shaper: Shaper,
    pub(super) plan: Plan,
    /// Whether the topic was there when it was asked.
    pub(super) topic_exists: bool,
    pub(super) follow: bool,
    pub(super) limit: Option<u64>,
    /// Whether shaping may take long.
    pub(super) patterned: bool,
}

/// What lies before the present.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Nothing,
    Spans { spans: Vec<Span>, missing: Vec<Missing> },
    Last(Walk),
}

impl Prepared {
    /// Whether the namespace's topic is there. Only then is its name fit for a metric: a caller may ask for any name that a glob allows.
    pub fn topic_exists(&self) -> bool {
        self.topic_exists
    }
}

impl Plan {
    /// Ends it before the first record that was sent at this time, in milliseconds since 1970, or later.
    fn end_before(&mut self, sent: i64) {
        match self {
            Self::Nothing => {}
            Self::Spans { spans, .. } => spans.iter_mut().for_each(|span| span.sent_until = Some(sent)),
            Self::Last(walk) => walk.sent_until = Some(sent),
        }
    }
}

impl Reading {
    /// Joins the parts.
    pub fn new(
        kafka: Arc<Kafka>,
        topics: TopicMap,
        keys: Keys,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let hub = Hub::new(kafka.clone(), &settings, metrics.clone());
        let readers = Arc::new(Semaphore::new(settings.readers_max));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Arc::new(Self {
            kafka,
            hub,
            topics,
            keys,
            settings,
            readers,
            metrics,
            matching: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        })
    }

    /// Looks at the topic and works out what to read.
    ///
    /// # Errors
    /// [`Refusal`] when the cursor is not good, or Kafka does not answer.
    pub async fn prepare(self: &Arc<Self>, request: Request) -> Result<Prepared, Refusal> {
        let opened = match &request.start {
            Start::Cursor(text) | Start::Last { before: Some(text), .. } => {
                Some(self.keys.open(&request.namespace, text).map_err(Refusal::Cursor)?)
            }
            Start::At(_) | Start::Last { before: None, .. } => None,
        };
        let (topic, shared) = match self.topics.route(&request.namespace) {
            Route::Topic { topic, shared } => (Some(topic), shared),
            Route::Excluded => (None, false),
        };
        let state = match topic.clone() {
            Some(topic) => self.ask(move |kafka| kafka.topic(&topic)).await?,
            None => None,
        };
        let mark = match &topic {
            Some(topic) => TopicMark::new(topic, state.as_ref().and_then(|state| state.id)),
            None => TopicMark::new(&nowhere(), None),
        };
        let mut sealer = self.keys.sealer(&request.namespace, mark);
        let (mut start, mut plan, mut continued) = (Positions::default(), Plan::Nothing, false);
        let empty = TopicState { id: None, partitions: Vec::new() };
        let known = state.as_ref().unwrap_or(&empty);
        let mut before = None;
        if let Some(opened) = opened {
            let gone = |mut sealer: super::cursor::Sealer, offsets: &[i64]| Refusal::Gone {
                fresh: sealer.seal(&Positions::from_offsets(offsets)),
            };
            if !opened.topic.may_be(&mark) {
                return Err(gone(sealer, &known.lows()));
            }
            let Some(missing) = missing(&opened.positions, known) else {
                // Of the same topic, it lost what was read: go on at its end. Where the id is not known it may be a new one: begin anew.
                let same = opened.topic.has_id() && mark.has_id();
                return Err(gone(sealer, &if same { known.highs() } else { known.lows() }));
            };
            if let Start::Last { .. } = request.start {
                before = Some(ends_before(&opened.positions, known));
            } else {
                start = opened.positions;
                continued = true;
                plan = Plan::Spans { spans: spans_from(&start, known, &missing), missing };
            }
        }
        if let (false, Some(topic), Some(state)) = (continued, &topic, &state) {
            let highs = before.unwrap_or_else(|| state.highs());
            (start, plan) = self.begin(&request, topic, state, highs).await?;
        }
        if let (Some(until), Late::Within(late)) = (request.filter.until, request.late) {
            plan.end_before(until.milliseconds().saturating_add(i64::try_from(late.as_millis()).unwrap_or(i64::MAX)));
        }
        sealer.set_topic(mark);
        let patterned = request.filter.has_pattern();
        let mut shaper = Shaper::new(Shape {
            namespace: request.namespace.clone(),
            shared,
            filter: request.filter,
            format: request.format,
            sealer,
            heartbeat: self.settings.heartbeat,
        });
        if continued {
            shaper.continue_at(start.clone());
        }
        shaper.start_at(start);
        if request.follow {
            shaper.live_from(Positions::from_offsets(&known.highs()));
        }
        let Request { namespace, follow, limit, .. } = request;
        let topic_exists = state.is_some();
        Ok(Prepared { reading: self.clone(), namespace, topic, shaper, plan, topic_exists, follow, limit, patterned })
    }

    /// Asks Kafka something, on a thread that may wait.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many ask, [`Refusal::Kafka`] when there is no answer.
    pub async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Kafka) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = tokio::time::timeout(TURN, self.questions.clone().acquire_owned()).await.ok().and_then(Result::ok);
        let turn = turn.ok_or(Refusal::Busy)?;
        let kafka = self.kafka.clone();
        let asking = tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone; the turn ends with the question.
            let _turn = turn;
            question(&kafka)
        });
        match asking.await {
            Ok(answer) => answer.map_err(Refusal::Kafka),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// Where a topic begins now.
    pub(super) async fn beginning(self: &Arc<Self>, topic: &TopicName) -> (Vec<i64>, TopicMark) {
        let name = topic.clone();
        match self.ask(move |kafka| kafka.topic(&name)).await {
            Ok(Some(state)) => (state.lows(), TopicMark::new(topic, state.id)),
            _ => (Vec::new(), TopicMark::new(topic, None)),
        }
    }

    /// Works out where a request begins that has no cursor.
    async fn begin(
        self: &Arc<Self>,
        request: &Request,
        topic: &TopicName,
        state: &TopicState,
        highs: Vec<i64>,
    ) -> Result<(Positions, Plan), Refusal> {
        let sent_from = match (&request.start, &request.filter.since) {
            (Start::At(moment), _) | (_, Some(moment)) => {
                Some(moment.milliseconds().saturating_sub(CLOCK_DIFFERENCE_MS).max(0))
            }
            _ => None,
        };
        let lows = state.lows();
        let from = match (&request.start, sent_from) {
            (Start::Last { lines: 0, .. }, _) => highs.clone(),
            (_, Some(sent_from)) if lows != highs => {
                let (name, state) = (topic.clone(), state.clone());
                self.ask(move |kafka| kafka.offsets_at(&name, &state, sent_from)).await?
            }
            _ => lows.clone(),
        };
        let start = Positions::from_offsets(&from);
        let plan = match request.start {
            Start::Last { lines: 0, .. } => Plan::Nothing,
            Start::Last { lines, .. } => Plan::Last(Walk { lines, lows: from, highs, sent_until: None }),
            Start::At(_) | Start::Cursor(_) => {
                let span = |(partition, (from, to))| Span { partition, from, to, sent_from, sent_until: None };
                Plan::Spans { spans: (0..).zip(from.into_iter().zip(highs)).map(span).collect(), missing: Vec::new() }
            }
        };
        Ok((start, plan))
    }
}

/// From the positions (or what is left after what is missing) to the present.
fn spans_from(positions: &Positions, state: &TopicState, missing: &[Missing]) -> Vec<Span> {
    let from = |partition, low| match missing.iter().find(|missing| missing.partition == partition) {
        Some(missing) => missing.to,
        None => positions.get(partition).unwrap_or(low),
    };
    state.numbered().map(|(partition, ends)| Span::offsets(partition, from(partition, ends.low), ends.high)).collect()
}

/// Where each partition ends for who reads up to the positions. A partition that they do not know was not there yet.
fn ends_before(positions: &Positions, state: &TopicState) -> Vec<i64> {
    state.numbered().map(|(partition, ends)| positions.get(partition).unwrap_or(ends.low).min(ends.high)).collect()
}

/// A name that stands in for the topic of a namespace whose lines are not collected.
fn nowhere() -> TopicName {
    TopicName::parse("none").expect("the name is legal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::kafka::Watermarks;

    #[tokio::test]
    async fn a_question_keeps_its_turn_when_its_asker_goes() {
        let settings = Settings::default();
        let nobody = fairlead_service_kit::kafka_client::KafkaSettings::plaintext("127.0.0.1:1");
        let kafka = Arc::new(Kafka::new(&nobody, &settings).unwrap());
        let metrics = Arc::new(Metrics::new(&mut prometheus_client::registry::Registry::default()));
        let reading = Reading::new(kafka, TopicMap::default(), Keys::new(vec![[7; 32]]).unwrap(), settings, metrics);
        let (answer, question) = std::sync::mpsc::channel::<()>();
        let asked = reading.ask(move |_| {
            let _ = question.recv();
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err());
        assert_eq!(reading.questions.available_permits(), QUESTIONS_MAX - 1);
        drop(answer);
        while reading.questions.available_permits() < QUESTIONS_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn a_cursor_reads_on_and_a_new_partition_from_its_beginning() {
        let state =
            TopicState { id: None, partitions: vec![Watermarks { low: 10, high: 20 }, Watermarks { low: 3, high: 9 }] };
        let missing = [Missing { partition: 0, from: 4, to: 10 }];
        let spans = spans_from(&Positions::from_offsets(&[4]), &state, &missing);
        assert_eq!(spans, [Span::offsets(0, 10, 20), Span::offsets(1, 3, 9)]);
        let spans = spans_from(&Positions::from_offsets(&[15, 9]), &state, &[]);
        assert_eq!(spans, [Span::offsets(0, 15, 20), Span::offsets(1, 9, 9)]);
        assert!(spans[1].is_empty());
        assert_eq!(ends_before(&Positions::from_offsets(&[15]), &state), [15, 3]);
    }
}
