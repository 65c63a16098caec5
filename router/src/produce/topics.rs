//! Looks up the topics that are wanted, makes those that are missing, and watches whether brokers answer.
//!
//! On a thread of its own, because librdkafka's metadata and admin calls block. A topic that fails is looked up again
//! with back-off for as long as it is wanted: an operator who makes it or grants the right need not restart anything.

mod lookup;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::kafka_client::KafkaSettings;
use fairlead_service_kit::telemetry::field;
use fairlead_service_kit::topics::CreateTopics;

use self::lookup::{Found, Lookup};
use super::{Destinations, ProduceError, Refresher, Refusal, TopicState};

/// The first wait before a failing topic is looked up again; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait where the reason may pass by itself.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait where an operator must act.
const BACKOFF_PERMANENT_MAX: Duration = Duration::from_secs(15);
/// How soon a topic that was just made is looked up.
const AFTER_CREATE: Duration = Duration::from_millis(50);
/// How often brokers are asked while they answer, and while they do not.
const PROBE_WELL: Duration = Duration::from_secs(30);
const PROBE_DOWN: Duration = Duration::from_secs(2);
/// How often a topic is looked at while all is well: its settings may change.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// Topics made in one request.
const CREATE_MAX: usize = 100;

/// Whether brokers answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// None has been asked yet.
    Unknown,
    /// The last question was answered.
    Up,
    /// It was not.
    Down {
        /// Why, in words.
        reason: String,
    },
}

/// The thread that looks up topics. See [`Destinations`].
#[derive(Debug)]
pub struct Topics {
    shared: Arc<Shared>,
}

impl Topics {
    /// Starts the thread. It ends with this value, after what it is waiting for. `producer`: is told to look anew at
    /// a topic that it refused, once that is ready.
    ///
    /// # Errors
    /// If no client or thread can be made.
    pub fn start(
        settings: &KafkaSettings,
        create: CreateTopics,
        producer: Option<Refresher>,
    ) -> Result<Topics, ProduceError> {
        let lookup = Lookup::new(settings, create)?;
        let shared = Arc::new(Shared {
            book: Mutex::new(Book {
                entries: HashMap::new(),
                connection: Connection::Unknown,
                probe_at: Instant::now(),
                version: 0,
                stopping: false,
            }),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("topics".to_owned())
            .spawn(move || theirs.run(&lookup, producer.as_ref()))
            .map_err(|source| ProduceError::Thread { source })?;
        Ok(Topics { shared })
    }

    /// Whether brokers answered the last question.
    pub fn connection(&self) -> Connection {
        self.shared.book().connection.clone()
    }

    /// Asks the brokers anew, now.
    pub fn doubt(&self) {
        self.shared.book().probe_at = Instant::now();
        self.shared.changed.notify_one();
    }
}

impl Destinations for Topics {
    fn want(&self, topic: &TopicName) {
        let mut book = self.shared.book();
        if !book.entries.contains_key(topic) {
            book.entries.insert(topic.clone(), Entry::new(false));
            drop(book);
            self.shared.changed.notify_one();
        }
    }

    fn state(&self, topic: &TopicName) -> TopicState {
        self.shared.book().entries.get(topic).map_or(TopicState::Unknown, |entry| entry.state.clone())
    }

    fn forget(&self, topic: &TopicName) {
        let mut book = self.shared.book();
        let message_bytes_max = book.entries.get(topic).and_then(|entry| entry.message_bytes_max);
        book.entries.insert(topic.clone(), Entry { message_bytes_max, ..Entry::new(true) });
        book.version += 1;
        drop(book);
        self.shared.changed.notify_one();
    }

    fn message_bytes_max(&self, topic: &TopicName) -> Option<u64> {
        self.shared.book().entries.get(topic).and_then(|entry| entry.message_bytes_max)
    }

    fn release(&self, topic: &TopicName) {
        self.shared.book().entries.remove(topic);
    }

    fn version(&self) -> u64 {
        self.shared.book().version
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.shared.book().stopping = true;
        self.shared.changed.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    changed: Condvar,
}

#[derive(Debug)]
struct Book {
    entries: HashMap<TopicName, Entry>,
    connection: Connection,
    probe_at: Instant,
    version: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    state: TopicState,
    /// When it is looked up next.
    next: Instant,
    backoff: Duration,
    /// The producer has refused it, and remembers.
    refused: bool,
    /// Its `max.message.bytes`, as last told.
    message_bytes_max: Option<u64>,
}

impl Entry {
    fn new(refused: bool) -> Entry {
        let state = TopicState::Unknown;
        Entry { state, next: Instant::now(), backoff: BACKOFF_MIN, refused, message_bytes_max: None }
    }
}

impl Book {
    fn due(&self, now: Instant) -> Vec<TopicName> {
        let due = |entry: &Entry| entry.next <= now;
        self.entries.iter().filter(|(_, entry)| due(entry)).map(|(topic, _)| topic.clone()).collect()
    }

    fn next(&self) -> Instant {
        self.entries.values().map(|entry| entry.next).chain([self.probe_at]).min().unwrap_or(self.probe_at)
    }

    fn was_refused(&self, topic: &TopicName) -> bool {
        self.entries.get(topic).is_some_and(|entry| entry.refused)
    }

    /// Notes what was found out about a topic. `soon`: how soon to look again, if it was not looked up in vain before.
    fn note(&mut self, topic: &TopicName, state: TopicState, soon: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(topic) else { return };
        let longest = match &state {
            TopicState::Failing { permanent: true, .. } => BACKOFF_PERMANENT_MAX,
            _ => BACKOFF_MAX,
        };
        let wait = soon.filter(|_| entry.backoff == BACKOFF_MIN).unwrap_or(entry.backoff);
        if matches!(state, TopicState::Ready { .. }) {
            entry.next = Instant::now() + REFRESH_EVERY;
            (entry.backoff, entry.refused) = (BACKOFF_MIN, false);
        } else {
            entry.next = Instant::now() + wait;
            entry.backoff = (entry.backoff * 2).min(longest);
        }
        if entry.state != state {
            log_change(topic, &state);
            entry.state = state;
            self.version += 1;
        }
    }

    /// Whether a topic is ready. A look at it that finds something else now changes nothing: what it does to records is
    /// told by the producer.
    fn stays_ready(&mut self, topic: &TopicName) -> bool {
        let Some(entry) = self.entries.get_mut(topic) else { return false };
        let ready = matches!(entry.state, TopicState::Ready { .. });
        if ready {
            entry.next = Instant::now() + REFRESH_EVERY;
        }
        ready
    }

    fn connected(&mut self, connection: Connection) {
        let wait = if connection == Connection::Up { PROBE_WELL } else { PROBE_DOWN };
        self.probe_at = Instant::now() + wait;
        let changed = std::mem::discriminant(&connection) != std::mem::discriminant(&self.connection);
        match &connection {
            Connection::Up if changed => tracing::info!("Kafka answers"),
            Connection::Down { reason } if changed => {
                tracing::warn!({ field::ERROR } = reason, "Kafka cannot be reached");
            }
            _ => {}
        }
        self.connection = connection;
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, lookup: &Lookup, producer: Option<&Refresher>) {
        while let Some((due, probe)) = self.wait() {
            lookup.serve_log();
            let (mut missing, mut ready) = (Vec::new(), Vec::new());
            let mut answered: Option<Result<(), String>> = None;
            for topic in due {
                if let Some(Err(reason)) = &answered {
                    self.failing(&topic, unavailable(reason));
                    continue;
                }
                answered = Some(match lookup.find(topic.as_str()) {
                    Found::NoAnswer(reason) => {
                        self.failing(&topic, unavailable(&reason));
                        Err(reason)
                    }
                    Found::State(TopicState::Ready { partitions }) => {
                        ready.push((topic, partitions));
                        Ok(())
                    }
                    Found::State(state) => {
                        self.failing(&topic, state);
                        Ok(())
                    }
                    Found::Missing => {
                        if !self.book().stays_ready(&topic) {
                            missing.push(topic);
                        }
                        Ok(())
                    }
                });
            }
            if answered.is_none() && probe {
                answered = Some(lookup.probe());
            }
            match answered {
                Some(Ok(())) => self.book().connected(Connection::Up),
                Some(Err(reason)) => self.book().connected(Connection::Down { reason }),
                None => {}
            }
            for some in ready.chunks(CREATE_MAX) {
                self.ready(lookup, producer, some);
            }
            for some in missing.chunks(CREATE_MAX) {
                self.create(lookup, some);
            }
        }
    }

    fn failing(&self, topic: &TopicName, state: TopicState) {
        let mut book = self.book();
        if !book.stays_ready(topic) {
            book.note(topic, state, None);
        }
    }

    /// Topics are there, with so many partitions: their settings decide whether and what they take.
    fn ready(&self, lookup: &Lookup, producer: Option<&Refresher>, topics: &[(TopicName, i32)]) {
        let names: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let settings = lookup.settings(&names);
        for (topic, partitions) in topics {
            if let Some(producer) = producer
                && self.book().was_refused(topic)
            {
                producer.refresh(topic.as_str());
            }
            let told = settings.get(topic);
            let state = told.and_then(lookup::harmful).unwrap_or(TopicState::Ready { partitions: *partitions });
            let mut book = self.book();
            if let (Some(bytes), Some(entry)) = (told.and_then(|it| it.message_bytes_max), book.entries.get_mut(topic))
            {
                entry.message_bytes_max = Some(bytes);
            }
            book.note(topic, state, None);
        }
    }

    /// Waits until a topic or a probe is due; none when the thread is to end.
    fn wait(&self) -> Option<(Vec<TopicName>, bool)> {
        let mut book = self.book();
        loop {
            if book.stopping {
                return None;
            }
            let now = Instant::now();
            let due = book.due(now);
            let probe = book.probe_at <= now;
            if probe || !due.is_empty() {
                return Some((due, probe));
            }
            let wait = book.next().saturating_duration_since(now);
            book = self.changed.wait_timeout(book, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn create(&self, lookup: &Lookup, missing: &[TopicName]) {
        let results = lookup.create(missing);
        let mut book = self.book();
        for (topic, result) in missing.iter().zip(results) {
            match result {
                // The brokers take a moment to agree that it is there: it is not ready before they do.
                Ok(()) => book.note(topic, TopicState::Unknown, Some(AFTER_CREATE)),
                Err(state) => book.note(topic, state, None),
            }
        }
    }
}

fn unavailable(reason: &str) -> TopicState {
    TopicState::Failing { refusal: Refusal::Unavailable, reason: reason.to_owned(), permanent: false }
}

fn log_change(topic: &TopicName, state: &TopicState) {
    let topic = topic.as_str();
    match state {
        TopicState::Ready { partitions } => tracing::info!({ field::DESTINATION } = topic, partitions, "topic ready"),
        TopicState::Failing { reason, .. } => {
            tracing::warn!({ field::DESTINATION } = topic, { field::ERROR } = reason, "topic not usable");
        }
        TopicState::Unknown => {}
    }
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
