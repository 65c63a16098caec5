//! Containers that write at a steady pace for as long as a scenario wants.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use jiff::Timestamp;

use crate::generator::Identity;
use crate::generator::kept::KeptLog;
use crate::wait::pace;

/// Between two writes, unless lines are rarer.
const TICK: Duration = Duration::from_millis(10);

/// What a container writes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Lines a second.
    pub per_second: u32,
    /// Bytes of text in a line.
    pub bytes: usize,
    /// Every so many lines one of `long_bytes`; 0 for none.
    pub long_every: u64,
    /// Bytes of text in such a line; at most what a runtime writes in one piece.
    pub long_bytes: usize,
}

impl Pace {
    /// Lines of 120 bytes.
    pub fn of(per_second: u32) -> Pace {
        Pace { per_second, bytes: 120, long_every: 0, long_bytes: 0 }
    }
}

/// One container that writes.
#[derive(Debug)]
pub struct Steady {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<KeptLog>>>,
}

impl Steady {
    /// A new pod in a namespace begins to write.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn start(pods: &Path, namespace: &str, rate: Pace) -> Result<Steady> {
        Ok(Steady::resume(KeptLog::create(pods, &Identity::new(namespace, "steady-1", "app"))?, rate))
    }

    /// A container that was stopped writes on.
    pub fn resume(log: KeptLog, rate: Pace) -> Steady {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || write(log, rate, &seen));
        Steady { over, thread: Some(thread) }
    }

    /// Lets it end, and gives its log.
    ///
    /// # Errors
    /// When it could not write.
    pub fn stop(mut self) -> Result<KeptLog> {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken here only");
        thread.join().map_err(|_| anyhow!("a writer panicked"))?
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(mut log: KeptLog, rate: Pace, over: &AtomicBool) -> Result<KeptLog> {
    let began = Instant::now();
    let tick = TICK.max(Duration::from_secs(1) / rate.per_second);
    let mut number: u64 = 0;
    while !over.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * f64::from(rate.per_second);
        let mut bytes = Vec::new();
        #[allow(clippy::cast_precision_loss, reason = "a scenario writes far less than 2^52 lines")]
        while (number as f64) < due {
            let long = rate.long_every > 0 && number % rate.long_every == rate.long_every - 1;
            let length = if long { rate.long_bytes } else { rate.bytes };
            let text = format!("{} stdout F {}\n", Timestamp::now(), text(number, length));
            bytes.extend_from_slice(text.as_bytes());
            number += 1;
        }
        log.write(&bytes)?;
        pace(tick);
    }
    Ok(log)
}

/// Line `number`: so many bytes that compress about as well as logs do.
pub(crate) fn text(number: u64, bytes: usize) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{number:08}");
    let mut mixed = number;
    while text.len() < bytes {
        mixed = mixed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let _ = write!(text, " field={:04x} of a request", mixed >> 48);
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_until;

    #[test]
    fn writes_at_its_pace_until_stopped() {
        let pods = crate::folders::scratch("steady").unwrap();
        let rate = Pace { long_every: 10, long_bytes: 2_000, ..Pace::of(500) };
        let began = Instant::now();
        let steady = Steady::start(pods.path(), "shop", rate).unwrap();
        wait_until("half a second of lines", Duration::from_secs(5), || began.elapsed().as_millis() > 500).unwrap();
        let log = steady.stop().unwrap();
        let lines: Vec<&[u8]> = log.files[0].split(|&byte| byte == b'\n').collect();
        assert!((100..2_000).contains(&lines.len()), "{} lines", lines.len());
        assert!(lines[9].ends_with(text(9, 2_000).as_bytes()) && lines[10].ends_with(text(10, 120).as_bytes()));
    }
}
