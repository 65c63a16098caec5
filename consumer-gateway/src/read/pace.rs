//! How fast an account may be served: a bucket of bytes that fills at a fixed rate and holds one second's worth.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Paces all streams of one account together.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    state: Mutex<(Instant, f64)>,
}

impl Pace {
    /// Begins with a full bucket. A rate of 0 counts as 1.
    pub fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self { bytes_per_second, state: Mutex::new((Instant::now(), bytes_per_second as f64)) }
    }

    /// Takes bytes out, into debt if need be.
    pub fn take(&self, bytes: usize) {
        self.take_at(Instant::now(), bytes);
    }

    /// How long to wait before anything is sent.
    pub fn debt(&self) -> Duration {
        self.take_at(Instant::now(), 0)
    }

    /// Takes bytes out. Returns how long it takes until the debt is paid.
    fn take_at(&self, now: Instant, bytes: usize) -> Duration {
        let rate = self.bytes_per_second as f64;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, level) = *state;
        let filled = (level + now.saturating_duration_since(last).as_secs_f64() * rate).min(rate);
        let level = filled - bytes as f64;
        *state = (now, level);
        if level >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((-level / rate).min(60.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_rate_wait() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, bytes, wait_ms) in [
            (0, 500, 0),
            (0, 500, 0),
            (0, 500, 500),
            (500, 0, 0),
            (500, 250, 250),
            (60_000, 1000, 0),
            (60_000, 100, 100),
        ] {
            assert_eq!(pace.take_at(at(ms), bytes).as_millis(), wait_ms, "at {ms} ms");
        }
    }
}
