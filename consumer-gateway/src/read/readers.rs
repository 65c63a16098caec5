//! Consumers for ranges, kept for the next reader. Making one and connecting it takes longer than most ranges.
//!
//! A consumer that goes back is unassigned; librdkafka drops whatever still waits of an older assignment, and who reads checks topic, partition
//! and offset of each record besides. Closing a consumer can take 100 ms, so that is done on a thread of its own.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::consumer::Consumer;

use super::kafka::KafkaConsumer;

/// How many consumers wait for the next reader.
const IDLE_MAX: usize = 16;
/// How long one waits.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How many readers one serves: it remembers every topic it has read.
const USES_MAX: u32 = 500;

/// Consumers that wait for the next reader.
#[derive(Default)]
pub struct Readers(Mutex<Vec<Idle>>);

struct Idle {
    consumer: Arc<KafkaConsumer>,
    since: Instant,
    uses: u32,
}

/// A consumer in use.
pub struct Reader<'p> {
    readers: &'p Readers,
    consumer: Option<Arc<KafkaConsumer>>,
    uses: u32,
    keep: bool,
}

impl Readers {
    /// A consumer that waited, or the one that `make` makes.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn take<E>(&self, make: impl FnOnce() -> Result<KafkaConsumer, E>) -> Result<Reader<'_>, E> {
        self.drop_stale();
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (consumer, uses) = match idle {
            Some(idle) => (idle.consumer, idle.uses),
            None => (Arc::new(make()?), 0),
        };
        Ok(Reader { readers: self, consumer: Some(consumer), uses: uses + 1, keep: false })
    }

    /// Closes those that wait: what they know of a topic may be out of date.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        idle.into_iter().for_each(|idle| close(idle.consumer));
    }

    fn give_back(&self, consumer: Arc<KafkaConsumer>, uses: u32) {
        // A queue of one of its partitions that is still held would go on reading.
        if uses >= USES_MAX || Arc::strong_count(&consumer) > 1 || consumer.unassign().is_err() {
            return close(consumer);
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            drop(idle);
            return close(consumer);
        }
        idle.push(Idle { consumer, since: Instant::now(), uses });
    }

    fn drop_stale(&self) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = idle.partition_point(|idle| idle.since.elapsed() > IDLE_TIME);
        let stale: Vec<Idle> = idle.drain(..fresh).collect();
        drop(idle);
        stale.into_iter().for_each(|idle| close(idle.consumer));
    }
}

impl Reader<'_> {
    /// Says that reading went well, so that the consumer may be used again.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Deref for Reader<'_> {
    type Target = Arc<KafkaConsumer>;

    fn deref(&self) -> &Arc<KafkaConsumer> {
        self.consumer.as_ref().expect("a reader has its consumer until it is dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        if self.keep { self.readers.give_back(consumer, self.uses) } else { close(consumer) }
    }
}

/// Closes a consumer on a thread of its own; here, where no thread can be had.
fn close(consumer: Arc<KafkaConsumer>) {
    // The closure is given back with the error and dropped here.
    let _ = std::thread::Builder::new().name("close".into()).spawn(move || drop(consumer));
}
