//! Hands encoded records to Kafka and says what became of them.
//!
//! Input: topic, partition, key and value of a record, and the [`Slot`] of the chunk of lines it belongs to. Output:
//! counters in [`Pending`] that fall as Kafka acknowledges, and [`Failure`]s. A record counts as delivered only when
//! every in-sync replica has it; whatever fails is told, never dropped and never sent again here: rewinding is the
//! worker's part. [`Topics`] looks up and makes the topics, on a thread of its own.
//!
//! Per record there is no allocation, lock or channel of ours: the slot's number travels through librdkafka, and a
//! report is one atomic subtraction.

mod kafka;
mod lane;
mod pending;
mod producer;
mod refusal;
mod settings;
mod topics;
mod wake;

#[cfg(test)]
pub mod fake;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use fairlead_contract::topic::TopicName;

pub use self::kafka::{KafkaSink, Refresher};
pub use self::lane::Lane;
pub use self::pending::{Pending, Slot};
pub use self::refusal::{FailureKind, Refusal};
pub use self::topics::{Connection, Topics};

/// What became of a record that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum SendResult {
    /// It is queued; a report will come.
    Queued,
    /// There is no room: poll, then try again.
    Full,
    /// It was refused before it was queued; no report will come.
    Refused(Refusal),
    /// The lane's producer is dead: [`Sink::renew`].
    Fatal,
}

/// A record that its topic refuses for good, as it goes to the topic of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The topic of dead letters.
    pub topic: &'a str,
    /// The partition there.
    pub partition: i32,
    /// The record's key.
    pub key: &'a [u8],
    /// The record's value.
    pub value: &'a [u8],
    /// Why it is refused: the header `fairlead.reason`.
    pub reason: &'a str,
    /// Which topic refuses it: the header `fairlead.topic`.
    pub refused_by: &'a str,
}

/// Records of one slot that were not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The slot they were sent with.
    pub slot: Slot,
    /// What to do about it.
    pub kind: FailureKind,
    /// What Kafka or the client says.
    pub error: String,
    /// How many records.
    pub records: u32,
}

/// Where encoded records go: Kafka, or a recorder in tests.
///
/// It has one producer for each open [`Lane`]. One thread uses it. Reports are served only inside [`Sink::poll`] and [`Sink::renew`], so counters never change
/// behind the worker's back.
pub trait Sink {
    /// Hands over a record; its bytes are copied. Never blocks. All records of a slot go through one lane.
    fn send(&mut self, lane: Lane, topic: &str, partition: i32, key: &[u8], value: &[u8], slot: Slot) -> SendResult;

    /// Hands over a record that its own topic refuses. As [`Sink::send`].
    fn send_dead(&mut self, lane: Lane, letter: &DeadLetter<'_>, slot: Slot) -> SendResult;

    /// Serves all reports that have come; if there are none, waits for the first, at most `wait`.
    fn poll(&mut self, wait: Duration);

    /// Moves the failures reported since the last call into `into`.
    fn failures(&mut self, into: &mut Vec<Failure>);

    /// Records handed over and not reported yet.
    fn in_flight(&self) -> usize;

    /// Opens another lane, whose batches have at most so many bytes, and no more than the settings say.
    /// [`Lane::FIRST`] is open from the start.
    ///
    /// # Errors
    /// If no producer can be made, or there are [`Lane::COUNT`] already.
    fn open(&mut self, batch_bytes_max: u64) -> Result<Lane, ProduceError>;

    /// Closes a lane. Whatever is not acknowledged on it is reported as a failure to be sent again.
    fn close(&mut self, lane: Lane);

    /// Bytes of a batch on this lane, at most.
    fn batch_bytes_max(&self, lane: Lane) -> u64;

    /// A lane whose producer is dead, and why, if it is time to replace it: nothing can be sent until [`Sink::renew`].
    /// After a renewal that did not help, the next is due only after a wait that grows.
    fn fatal(&mut self) -> Option<(Lane, String)>;

    /// Replaces the producer of a lane by a fresh one. Every record on it that is not acknowledged is reported as a
    /// failure to be sent again; afterwards nothing is outstanding there.
    ///
    /// # Errors
    /// If no producer can be made; the old one stays.
    fn renew(&mut self, lane: Lane) -> Result<(), ProduceError>;

    /// Whether a connection failed since the last call.
    fn trouble(&mut self) -> bool {
        false
    }

    /// A descriptor that becomes readable when reports wait, for whoever waits for other things too;
    /// [`Sink::poll`] makes it unreadable again.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicState {
    /// Nothing yet.
    Unknown,
    /// It can be produced to.
    Ready {
        /// Its partitions.
        partitions: i32,
    },
    /// It cannot be produced to; it is looked up again and again, with back-off.
    Failing {
        /// Why, from a closed set.
        refusal: Refusal,
        /// Why, in words.
        reason: String,
        /// Whether only an operator can change that.
        permanent: bool,
    },
}

/// Looks up topics in the background.
pub trait Destinations {
    /// Asks for a topic; its state follows. Asking again changes nothing.
    fn want(&self, topic: &TopicName);

    /// What is known of the topic now.
    fn state(&self, topic: &TopicName) -> TopicState;

    /// Drops what is known of the topic and looks it up again: for when Kafka has refused it.
    fn forget(&self, topic: &TopicName);

    /// The largest batch of records that a topic takes, in bytes; none while that is not known.
    fn message_bytes_max(&self, topic: &TopicName) -> Option<u64>;

    /// Forgets a topic that nobody writes to any more; it is no longer looked up.
    fn release(&self, topic: &TopicName);

    /// Changes whenever the state of any topic does.
    fn version(&self) -> u64;
}

/// Why producing cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// librdkafka refuses to make a client.
    #[error("cannot make a Kafka client")]
    Client {
        /// What it says.
        source: rdkafka::error::KafkaError,
    },
    /// The system refuses a descriptor for wake-ups.
    #[error("cannot make an event descriptor")]
    Wake {
        /// What it says.
        source: std::io::Error,
    },
    /// There are as many producers as there may be.
    #[error("{} producers live already", Lane::COUNT)]
    TooManyLanes,
    /// The system refuses a thread.
    #[error("cannot start the topics thread")]
    Thread {
        /// What it says.
        source: std::io::Error,
    },
}
