//! How long a line takes from its container's file until it can be read from Kafka, measured on one clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::consume::{Line, Stored};
use crate::generator::Identity;
use crate::generator::cri::Stream;
use crate::generator::kept::KeptLog;
use crate::steady::text;
use crate::wait::pace;

const LINE_BYTES: usize = 100;
/// Longer than any line may take whose namespace is well.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);

/// A quiet container, and a consumer that waits for its lines.
#[derive(Debug)]
pub struct Probe {
    log: Option<KeptLog>,
    written: u64,
    arrivals: Receiver<(u64, Instant)>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// Delays, shortest first.
#[derive(Clone, Debug)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// The delay below which so many of a hundred lines stayed.
    ///
    /// # Panics
    /// When there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    /// The middle one of several windows' figures.
    ///
    /// # Panics
    /// When there are none.
    pub fn median(mut of: Vec<Duration>) -> Duration {
        of.sort();
        of[of.len() / 2]
    }
}

impl Probe {
    /// A new pod in a namespace, whose topic has one partition and is there. Its first lines are waited for.
    ///
    /// # Errors
    /// When the file cannot be made, or lines do not arrive.
    pub fn start(pods: &Path, namespace: &str, bootstrap: &str, topic: &str) -> Result<Probe> {
        let log = KeptLog::create(pods, &Identity::new(namespace, "quiet-1", "app"))?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "harness").set("log_level", "2");
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().context("a consumer")?;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&wanted).context("assign")?;
        let (sender, arrivals) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let (seen, uid) = (Arc::clone(&over), log.identity.uid.clone());
        let reader = std::thread::spawn(move || read(&consumer, &uid, &sender, &seen));
        let mut probe = Probe { log: Some(log), written: 0, arrivals, over, reader: Some(reader) };
        probe.window(20, Duration::from_millis(10))?;
        Ok(probe)
    }

    /// Writes so many lines, one `every` so often and not in step with anything, and waits until all can be read.
    ///
    /// # Errors
    /// When a line cannot be written or does not arrive.
    pub fn window(&mut self, lines: u32, every: Duration) -> Result<Delays> {
        let first = self.written;
        let log = self.log.as_mut().expect("taken at the end only");
        let mut at = Vec::new();
        for number in 0..lines {
            // Between 0.75 and 1.25 of it.
            pace(every * (75 + number * 37 % 51) / 100);
            at.push(Instant::now());
            log.line(Stream::Stdout, 'F', text(self.written, LINE_BYTES).as_bytes())?;
            self.written += 1;
        }
        let mut delays = vec![None; at.len()];
        let mut missing = at.len();
        while missing > 0 {
            let (number, arrived) = self
                .arrivals
                .recv_timeout(ARRIVES_WITHIN)
                .with_context(|| format!("{missing} of {lines} lines of {} did not arrive", log.identity.namespace))?;
            ensure!(number >= first && number < self.written, "line {number} comes again");
            let place = usize::try_from(number - first)?;
            ensure!(delays[place].is_none(), "line {number} comes twice");
            delays[place] = Some(arrived.duration_since(at[place]));
            missing -= 1;
        }
        let mut delays: Vec<Duration> = delays.into_iter().flatten().collect();
        delays.sort();
        Ok(Delays(delays))
    }

    /// Ends it, and gives its log.
    ///
    /// # Panics
    /// Never: it is there until then.
    pub fn into_log(mut self) -> KeptLog {
        self.end();
        self.log.take().expect("taken here only")
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells when each line of a pod was read for the first time.
fn read(consumer: &BaseConsumer, uid: &str, arrivals: &Sender<(u64, Instant)>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        // Errors are a broker's that is away; the consumer goes on by itself.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let now = Instant::now();
        let value = message.payload().unwrap_or_default().to_vec();
        let (partition, offset) = (message.partition(), message.offset());
        let stored = Stored { partition, offset, at_ms: 0, key: Vec::new(), value, headers: Vec::new() };
        let Ok(line) = Line::parse(&stored) else { continue };
        let number = line.log.get(..8).and_then(|digits| digits.parse().ok());
        if let (true, Some(number)) = (line.pod_uid == uid && line.notice.is_none(), number) {
            let _ = arrivals.send((number, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_delays() {
        let delays = Delays((1..=200).map(Duration::from_millis).collect());
        assert_eq!(delays.percentile(50), Duration::from_millis(101));
        assert_eq!(delays.percentile(99), Duration::from_millis(199));
        assert_eq!(delays.percentile(100), Duration::from_millis(200));
        let middle = Delays::median([9, 1, 5].map(Duration::from_millis).to_vec());
        assert_eq!(middle, Duration::from_millis(5));
    }
}
