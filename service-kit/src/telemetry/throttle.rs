//! Keeps a message that may repeat without end to one in so many seconds, and counts what was left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For one place in the code. Lock-free; usable as a `static`.
#[derive(Debug)]
pub struct Throttle {
    every: Duration,
    /// When the next message may pass, in ms since [`start`], plus one; 0 before the first.
    next_ms: AtomicU64,
    left_out: AtomicU64,
}

impl Throttle {
    /// Lets one message in `every` pass.
    pub const fn new(every: Duration) -> Throttle {
        Throttle { every, next_ms: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether this message may pass; if so, how many were left out since the last that did.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(start().elapsed())
    }

    fn allow_at(&self, now: Duration) -> Option<u64> {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let after_ms = now_ms.saturating_add(u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX));
        let passes = now_ms >= next_ms
            && self.next_ms.compare_exchange(next_ms, after_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passes {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// The same for each of many keys (a namespace, a topic), of which it remembers a bounded number.
#[derive(Debug)]
pub struct ThrottleBy<K> {
    every: Duration,
    keys_max: usize,
    last: HashMap<K, (Instant, u64)>,
}

impl<K: Eq + Hash + Clone> ThrottleBy<K> {
    /// Lets one message of each key in `every` pass. At `keys_max` remembered keys, those whose time is over are
    /// forgotten; if none is, messages of further keys are left out.
    pub fn new(every: Duration, keys_max: usize) -> ThrottleBy<K> {
        ThrottleBy { every, keys_max, last: HashMap::new() }
    }

    /// Whether this message of `key` may pass; if so, how many were left out since the last of it that did.
    pub fn allow(&mut self, key: &K) -> Option<u64> {
        self.allow_at(key, Instant::now())
    }

    fn allow_at(&mut self, key: &K, now: Instant) -> Option<u64> {
        if let Some((passed, left_out)) = self.last.get_mut(key) {
            if now.duration_since(*passed) < self.every {
                *left_out += 1;
                return None;
            }
            *passed = now;
            return Some(std::mem::take(left_out));
        }
        if self.last.len() >= self.keys_max {
            let every = self.every;
            self.last.retain(|_, (passed, _)| now.duration_since(*passed) < every);
            if self.last.len() >= self.keys_max {
                return None;
            }
        }
        self.last.insert(key.clone(), (now, 0));
        Some(0)
    }
}

/// The moment from which throttles count.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_seconds_passes() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let at = |seconds| throttle.allow_at(Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(9), at(10), at(11), at(30)], [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn keys_are_apart_and_bounded() {
        let mut throttle = ThrottleBy::new(Duration::from_secs(10), 2);
        let start = Instant::now();
        let mut at = |key: &str, seconds| throttle.allow_at(&key.to_owned(), start + Duration::from_secs(seconds));
        assert_eq!([at("a", 0), at("b", 0), at("a", 1), at("c", 1)], [Some(0), Some(0), None, None]);
        assert_eq!([at("a", 10), at("c", 10), at("b", 11)], [Some(1), Some(0), None]);
        assert_eq!(at("b", 20), Some(0));
    }
}
