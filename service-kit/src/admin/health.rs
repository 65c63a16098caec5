//! What is not well, in words: conditions of readiness and heartbeats of loops.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The condition that blocks until the program has started.
const START: &str = "start";

/// Named conditions that are not as they should be. Clones share them.
#[derive(Debug, Clone)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<String, Condition>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    blocks: bool,
    reason: String,
}

impl Readiness {
    /// Begins not ready, blocked by the condition `start`.
    pub fn new() -> Readiness {
        let start = Condition { blocks: true, reason: "not started yet".to_owned() };
        Readiness { conditions: Arc::new(Mutex::new(BTreeMap::from([(START.to_owned(), start)]))) }
    }

    /// Says that nothing can be done while this lasts: `/readyz` is 503.
    pub fn block(&self, condition: &str, reason: impl Into<String>) {
        self.set(condition, Condition { blocks: true, reason: reason.into() });
    }

    /// Says what is not well though work goes on: `/readyz` lists it.
    pub fn note(&self, condition: &str, reason: impl Into<String>) {
        self.set(condition, Condition { blocks: false, reason: reason.into() });
    }

    /// Says that the condition is as it should be.
    pub fn clear(&self, condition: &str) {
        self.lock().remove(condition);
    }

    /// Whether no condition blocks.
    pub fn is_ready(&self) -> bool {
        !self.lock().values().any(|condition| condition.blocks)
    }

    /// All conditions in words, one a line, those that block first.
    pub fn report(&self) -> String {
        let conditions = self.lock();
        let lines = |blocks: bool, word: &str| -> String {
            let chosen = conditions.iter().filter(|(_, condition)| condition.blocks == blocks);
            chosen.map(|(name, condition)| format!("{word}: {name}: {}\n", condition.reason)).collect()
        };
        let blocking = lines(true, "not ready");
        let head = if blocking.is_empty() { "ready\n" } else { "" };
        format!("{head}{blocking}{}", lines(false, "note"))
    }

    fn set(&self, name: &str, condition: Condition) {
        self.lock().insert(name.to_owned(), condition);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness::new()
    }
}

/// The loops that must keep turning. Clones share them.
#[derive(Debug, Clone)]
pub struct Liveness {
    start: Instant,
    loops: Arc<Mutex<Vec<(&'static str, Heartbeat)>>>,
}

/// One loop's sign of life; a beat is one atomic store.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    start: Instant,
    longest: Duration,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Says that the loop has come round.
    pub fn beat(&self) {
        self.last_ms.store(elapsed_ms(self.start), Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        Duration::from_millis(elapsed_ms(self.start).saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl Liveness {
    /// Begins without loops: alive.
    pub fn new() -> Liveness {
        Liveness { start: Instant::now(), loops: Arc::default() }
    }

    /// Expects a beat of the loop `name` at least every `longest` from now on.
    pub fn heartbeat(&self, name: &'static str, longest: Duration) -> Heartbeat {
        let heartbeat = Heartbeat { start: self.start, longest, last_ms: Arc::default() };
        heartbeat.beat();
        self.lock().push((name, heartbeat.clone()));
        heartbeat
    }

    /// The loops that have been silent for too long.
    pub fn silent(&self) -> Vec<&'static str> {
        let loops = self.lock();
        loops.iter().filter(|(_, beat)| beat.silent_for() > beat.longest).map(|(name, _)| *name).collect()
    }

    /// All loops in words, one a line.
    pub fn report(&self) -> String {
        let loops = self.lock();
        let line = |(name, beat): &(&'static str, Heartbeat)| {
            let silent = beat.silent_for();
            let word = if silent > beat.longest { "silent" } else { "alive" };
            format!(
                "{word}: {name}: last beat {} ms ago, at most {} ms\n",
                silent.as_millis(),
                beat.longest.as_millis()
            )
        };
        if loops.is_empty() { "alive\n".to_owned() } else { loops.iter().map(line).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Heartbeat)>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Liveness::new()
    }
}

fn elapsed_ms(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blocks_comes_first_and_notes_do_not_block() {
        let readiness = Readiness::new();
        readiness.note("b", "is slow");
        readiness.block("z", "no broker answers");
        assert!(!readiness.is_ready());
        let expected = "not ready: start: not started yet\nnot ready: z: no broker answers\nnote: b: is slow\n";
        assert_eq!(readiness.report(), expected);
        readiness.clear("start");
        readiness.clear("z");
        assert!(readiness.is_ready());
        assert_eq!(readiness.report(), "ready\nnote: b: is slow\n");
    }

    #[test]
    fn a_loop_that_never_beats_is_named() {
        let liveness = Liveness::new();
        assert_eq!(liveness.report(), "alive\n");
        let steady = liveness.heartbeat("steady", Duration::from_secs(3600));
        let stuck = Heartbeat { longest: Duration::ZERO, ..steady.clone() };
        liveness.lock().push(("stuck", stuck));
        while steady.silent_for() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        assert_eq!(liveness.silent(), ["stuck"]);
        assert!(liveness.report().contains("silent: stuck"));
    }
}
