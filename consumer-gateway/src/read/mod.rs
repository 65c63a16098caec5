//! Reading: from a request that may be served to a stream of bytes. Input: [`Request`]. Output: [`LogStream`], or why there is none.
//!
//! [`prepare`](Reading::prepare) looks at the topic and answers what is wrong before a byte is sent; [`run`](Prepared::run) reads the asked
//! history with a reader of its own and goes on, for a follow, with the records that one shared fetcher reads for all followers of a topic.
//! No consumer group is ever joined and no offset is kept in Kafka. Who may read is decided before this module is called.

pub mod cursor;
pub mod position;

pub mod kafka;
pub mod range;
mod readers;
mod topic_id;

pub mod filter;
pub mod repeats;
pub mod scan;

pub mod event;
pub mod render;
pub mod shape;

mod history;
pub mod hub;
mod outbox;
pub mod pace;
mod request;
mod stream;
mod walk_back;

pub mod overview;

use std::time::Duration;

pub use outbox::{BrokenOff, Frames, Outbox, Watch};
pub use request::{Late, Prepared, Reading, Refusal, Request, Start};
pub use stream::{Ended, Share};

/// Limits and times of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lines of a closed range when the request says nothing.
    pub limit: u64,
    /// The most lines of a closed range that a request may ask for.
    pub limit_max: u64,
    /// How far back a request begins that names no beginning.
    pub window: Duration,
    /// How often a stream says that it lives.
    pub heartbeat: Duration,
    /// How long after `until` a line may have been sent when the request says nothing.
    pub late: Duration,
    /// How many records before a cursor are searched for what a marked record may repeat, in each partition.
    pub repeat_lookback_records: u64,
    /// How long Kafka may hold a follower's fetch: `fetch.wait.max.ms`.
    pub fetch_wait: Duration,
    /// History readers at one time.
    pub readers_max: usize,
    /// The most lines that `tail` may ask for.
    pub tail_max: u64,
    /// How many records `tail` searches backwards.
    pub tail_scan_records_max: u64,
    /// What librdkafka fetches ahead for a reader, and what may wait for one follower, in bytes.
    pub queue_bytes_max: usize,
    /// How long a client may take nothing before it is cut off.
    pub stall: Duration,
    /// How long one question to Kafka may take.
    pub kafka_timeout: Duration,
    /// Connections at one time.
    pub connections_max: usize,
    /// Open follows of an account whose limits say nothing, and as many closed ranges.
    pub streams_default: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limit: 10_000,
            limit_max: 1_000_000,
            window: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(10),
            late: Duration::from_secs(300),
            repeat_lookback_records: 100_000,
            fetch_wait: Duration::from_millis(20),
            readers_max: 32,
            tail_max: 100_000,
            tail_scan_records_max: 5_000_000,
            queue_bytes_max: 4 << 20,
            stall: Duration::from_secs(60),
            kafka_timeout: Duration::from_secs(10),
            connections_max: 10_000,
            streams_default: 50,
        }
    }
}
