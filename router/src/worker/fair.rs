//! Whose turn it is: reading by deficit round robin over namespaces, and each one's share of what is in flight.
//!
//! A namespace that cannot be read now (its topic takes no records, its share is used up) leaves the ring and costs nothing
//! until what it waits for comes. What may be in flight is shared as a switch shares its buffer: a namespace may have as much
//! as is still free. With `n` busy ones each has one part of `n + 1`, and a newcomer always finds room.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use fairlead_contract::namespace::Namespace;

use crate::checkpoint::InstanceKey;

/// Bytes that a namespace may read before the next one has its turn.
const QUANTUM: i64 = 256 << 10;
/// What a turn costs that reads little or nothing.
const TURN_COST_MIN: u64 = 2 << 10;

/// Why a namespace is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its topic is not known, or fails: until something changes.
    Topic,
    /// Until a time.
    Until(Instant),
    /// Its share of what may be in flight is used up, or it changes lanes: until deliveries are acknowledged.
    Deliveries,
}

/// The turns of all namespaces.
#[derive(Debug)]
pub(super) struct Fair {
    shares: HashMap<Namespace, Share>,
    ring: VecDeque<Namespace>,
    bytes: u64,
    bytes_max: u64,
    reads: usize,
    reads_max: usize,
    /// How many are held, by any reason: none is looked for where there are none.
    held: usize,
}

/// One namespace.
#[derive(Debug, Default)]
struct Share {
    /// Its instances that may have something to read, in turn.
    ready: VecDeque<InstanceKey>,
    in_ring: bool,
    /// What it may still read in this round; below zero: what it read too much.
    deficit: i64,
    hold: Option<Hold>,
    bytes: u64,
    reads: usize,
    rate: Option<Bucket>,
}

/// What a namespace may read by its rate.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    /// What it may read now; below zero: what it read ahead.
    tokens: i64,
    filled_at: Instant,
}

impl Bucket {
    /// Adds what the time has brought, up to what one second brings. Gives how long it is until there is something.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let brought = now.saturating_duration_since(self.filled_at).as_micros() * u128::from(self.bytes_per_second);
        let brought = i64::try_from(brought / 1_000_000).unwrap_or(i64::MAX);
        if brought > 0 {
            let second = i64::try_from(self.bytes_per_second).unwrap_or(i64::MAX);
            self.tokens = self.tokens.saturating_add(brought).min(second);
            self.filled_at = now;
        }
        let owed = u64::try_from(-self.tokens).ok().filter(|owed| *owed > 0)?;
        Some(Duration::from_micros(owed.saturating_mul(1_000_000).div_ceil(self.bytes_per_second)))
    }
}

impl Fair {
    /// Nobody has anything to read. So many bytes and reads may be in flight at once.
    pub(super) fn new(bytes_max: u64, reads_max: usize) -> Self {
        Self { shares: HashMap::new(), ring: VecDeque::new(), bytes: 0, bytes_max, reads: 0, reads_max, held: 0 }
    }

    /// An instance may have something to read.
    pub(super) fn queue(&mut self, namespace: &Namespace, key: &InstanceKey) {
        self.share(namespace).ready.push_back(key.clone());
        self.enter(namespace);
    }

    /// The instance whose turn it is; it is out of the queue then.
    pub(super) fn next(&mut self) -> Option<InstanceKey> {
        loop {
            let namespace = self.ring.front()?;
            let share = self.shares.get_mut(namespace)?;
            if share.deficit < 0 {
                share.deficit += QUANTUM;
                self.ring.rotate_left(1);
                continue;
            }
            if share.hold.is_none()
                && let Some(key) = share.ready.pop_front()
            {
                return Some(key);
            }
            // What was left of a turn is not saved up.
            (share.in_ring, share.deficit) = (false, 0);
            self.ring.pop_front();
        }
    }

    /// Counts what a turn read.
    pub(super) fn charge(&mut self, namespace: &Namespace, bytes: u64) {
        let cost = i64::try_from(bytes.max(TURN_COST_MIN)).unwrap_or(i64::MAX);
        let share = self.share(namespace);
        share.deficit = share.deficit.saturating_sub(cost);
        if let Some(bucket) = &mut share.rate {
            bucket.tokens = bucket.tokens.saturating_sub_unsigned(bytes);
        }
    }

    /// An instance had its turn in vain: its namespace waits for something, and the instance is the first one then.
    pub(super) fn hold(&mut self, namespace: &Namespace, key: InstanceKey, hold: Hold) {
        let share = self.share(namespace);
        share.ready.push_front(key);
        if share.hold.replace(hold).is_none() {
            self.held += 1;
        }
    }

    /// Lets those go on whose reason to wait is gone.
    pub(super) fn release(&mut self, is_over: impl Fn(Hold) -> bool) {
        if self.held == 0 {
            return;
        }
        let over: Vec<_> = self
            .shares
            .iter()
            .filter(|(_, share)| share.hold.is_some_and(&is_over))
            .map(|(namespace, _)| namespace.clone())
            .collect();
        for namespace in over {
            self.share(&namespace).hold = None;
            self.held -= 1;
            self.enter(&namespace);
        }
    }

    /// When the first of those that wait for a time goes on.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let until = |share: &Share| match share.hold {
            Some(Hold::Until(at)) => Some(at),
            Some(Hold::Topic | Hold::Deliveries) | None => None,
        };
        if self.held == 0 { None } else { self.shares.values().filter_map(until).min() }
    }

    /// Gives a namespace a rate, in bytes of log files a second, unless it has one.
    pub(super) fn set_rate(&mut self, namespace: &Namespace, bytes_per_second: u64, now: Instant) {
        let bucket = || Bucket { bytes_per_second: bytes_per_second.max(1), tokens: 0, filled_at: now };
        self.share(namespace).rate.get_or_insert_with(bucket);
    }

    /// A namespace's rate, in bytes of log files a second, if it has one.
    pub(super) fn rate_bytes_per_second(&self, namespace: &Namespace) -> Option<u64> {
        self.shares.get(namespace)?.rate.as_ref().map(|bucket| bucket.bytes_per_second)
    }

    /// What was read was not sent: its namespace may read as much again.
    pub(super) fn refund(&mut self, namespace: &Namespace, bytes: u64) {
        if let Some(bucket) = &mut self.share(namespace).rate {
            bucket.tokens = bucket.tokens.saturating_add_unsigned(bytes);
        }
    }

    /// How long a namespace must wait because of its rate; none if it may read now.
    pub(super) fn wait_for_rate(&mut self, namespace: &Namespace, now: Instant) -> Option<Duration> {
        self.shares.get_mut(namespace)?.rate.as_mut()?.wait(now)
    }

    /// Whether a namespace may have another read in flight.
    pub(super) fn has_credit(&self, namespace: &Namespace) -> bool {
        let free = (self.bytes_max.saturating_sub(self.bytes), self.reads_max.saturating_sub(self.reads));
        let (bytes, reads) = self.shares.get(namespace).map_or((0, 0), |share| (share.bytes, share.reads));
        bytes < free.0 && reads < free.1
    }

    /// A read is in flight.
    pub(super) fn sent(&mut self, namespace: &Namespace, bytes: u64) {
        let share = self.share(namespace);
        share.bytes += bytes;
        share.reads += 1;
        self.bytes += bytes;
        self.reads += 1;
    }

    /// Reads are no longer in flight.
    pub(super) fn settled(&mut self, namespace: &Namespace, bytes: u64, reads: usize) {
        let share = self.share(namespace);
        share.bytes = share.bytes.saturating_sub(bytes);
        share.reads = share.reads.saturating_sub(reads);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.reads = self.reads.saturating_sub(reads);
    }

    /// Bytes in flight.
    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nobody can be read now.
    pub(super) fn is_idle(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether nobody has anything to read, nor waits for it.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        self.ring.is_empty() && self.held == 0
    }

    /// Forgets a namespace that has no instance any more. Returns false while something of it is in flight.
    pub(super) fn forget(&mut self, namespace: &Namespace) -> bool {
        let Some(share) = self.shares.get(namespace) else { return true };
        if share.reads > 0 {
            return false;
        }
        self.held -= usize::from(share.hold.is_some());
        self.shares.remove(namespace);
        self.ring.retain(|other| other != namespace);
        true
    }

    /// Takes a namespace into the ring, at its end, unless it stands there or waits.
    fn enter(&mut self, namespace: &Namespace) {
        let share = self.share(namespace);
        if share.hold.is_none() && !share.in_ring {
            share.in_ring = true;
            self.ring.push_back(namespace.clone());
        }
    }

    fn share(&mut self, namespace: &Namespace) -> &mut Share {
        if !self.shares.contains_key(namespace) {
            self.shares.insert(namespace.clone(), Share::default());
        }
        self.shares.get_mut(namespace).expect("a namespace that was just put in")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn key(namespace: &str, restart: u32) -> InstanceKey {
        InstanceKey { pod_folder: format!("{namespace}_pod_uid"), container: "c".to_owned(), restart }
    }

    /// Plays turns in which every instance always has more; gives the bytes that each namespace has read.
    fn play(fair: &mut Fair, turns: usize, cost: impl Fn(&str) -> u64) -> HashMap<String, u64> {
        let mut read = HashMap::new();
        for _ in 0..turns {
            let key = fair.next().unwrap();
            let name = key.pod_folder.split('_').next().unwrap().to_owned();
            fair.charge(&namespace(&name), cost(&name));
            fair.queue(&namespace(&name), &key);
            *read.entry(name.clone()).or_default() += cost(&name);
        }
        read
    }

    #[test]
    fn namespaces_read_the_same_bytes_whatever_the_number_of_their_instances_and_the_size_of_their_reads() {
        let mut fair = Fair::new(1 << 20, 100);
        (0..50).for_each(|restart| fair.queue(&namespace("many"), &key("many", restart)));
        fair.queue(&namespace("few"), &key("few", 0));
        fair.queue(&namespace("small"), &key("small", 0));
        let read = play(&mut fair, 3_000, |name| if name == "small" { 10_000 } else { 256 << 10 });
        let (least, most) = (read.values().min().unwrap(), read.values().max().unwrap());
        assert!(most - least <= 2 * QUANTUM as u64, "{read:?}");
    }

    #[test]
    fn instances_of_a_namespace_take_turns() {
        let mut fair = Fair::new(1 << 20, 100);
        let name = namespace("a");
        (0..3).for_each(|restart| fair.queue(&name, &key("a", restart)));
        let turns: Vec<_> = (0..6)
            .map(|_| {
                let key = fair.next().unwrap();
                fair.charge(&name, 256 << 10);
                fair.queue(&name, &key);
                key.restart
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn who_is_held_costs_nothing_and_goes_on_where_it_stood() {
        let mut fair = Fair::new(1 << 20, 100);
        let (a, b, now) = (namespace("a"), namespace("b"), Instant::now());
        fair.queue(&a, &key("a", 0));
        fair.queue(&a, &key("a", 1));
        fair.queue(&b, &key("b", 0));
        let first = fair.next().unwrap();
        fair.hold(&a, first, Hold::Until(now));
        assert_eq!((fair.next(), fair.next(), fair.is_idle()), (Some(key("b", 0)), None, true));
        fair.queue(&a, &key("a", 2));
        assert_eq!((fair.next(), fair.next_due()), (None, Some(now)));
        fair.release(|hold| hold == Hold::Topic);
        assert_eq!(fair.next(), None);
        fair.release(|hold| hold == Hold::Until(now));
        let order: Vec<_> = std::iter::from_fn(|| fair.next()).map(|key| key.restart).collect();
        assert_eq!((order, fair.next_due()), (vec![0, 1, 2], None));
    }

    #[test]
    fn a_newcomer_always_finds_room() {
        let mut fair = Fair::new(1_000_000, 1_000);
        let fill = |fair: &mut Fair, name: &str| {
            while fair.has_credit(&namespace(name)) {
                fair.sent(&namespace(name), 1_000);
            }
            fair.shares[&namespace(name)].bytes
        };
        assert_eq!(fill(&mut fair, "flood"), 500_000);
        // The flood is stuck: whoever comes still has room, and nobody takes all of it.
        assert_eq!(fill(&mut fair, "second"), 250_000);
        assert_eq!(fill(&mut fair, "third"), 125_000);
        // It is acknowledged: all have the same.
        fair.settled(&namespace("flood"), 500_000, 500);
        for _ in 0..50 {
            for name in ["flood", "second", "third"] {
                fill(&mut fair, name);
            }
            for name in ["flood", "second", "third"] {
                fair.settled(&namespace(name), 20_000, 20);
            }
        }
        for name in ["flood", "second", "third"] {
            let bytes = fill(&mut fair, name);
            assert!((200_000..=300_000).contains(&bytes), "{name}: {bytes}");
        }
    }

    #[test]
    fn small_reads_are_bounded_in_number() {
        let mut fair = Fair::new(u64::MAX / 2, 100);
        while fair.has_credit(&namespace("a")) {
            fair.sent(&namespace("a"), 1);
        }
        assert_eq!((fair.reads, fair.has_credit(&namespace("b"))), (50, true));
    }

    #[test]
    fn a_rate_delays_and_is_kept_over_time() {
        let mut fair = Fair::new(1 << 20, 10);
        let (a, start) = (namespace("a"), Instant::now());
        fair.set_rate(&a, 100_000, start);
        assert_eq!(fair.wait_for_rate(&namespace("b"), start), None);
        let (mut now, mut read) = (start, 0);
        while now < start + Duration::from_secs(100) {
            match fair.wait_for_rate(&a, now) {
                Some(wait) => now += wait,
                None => {
                    fair.charge(&a, 256 << 10);
                    read += 256 << 10;
                }
            }
        }
        assert!((9_700_000..=10_300_000).contains(&read), "{read}");
        // What is not used is not saved up for longer than a second.
        let later = now + Duration::from_secs(1_000);
        assert_eq!(fair.wait_for_rate(&a, later), None);
        fair.charge(&a, 300_000);
        let wait = fair.wait_for_rate(&a, later).unwrap();
        assert!(wait >= Duration::from_millis(1_999) && wait <= Duration::from_millis(2_001), "{wait:?}");
        fair.set_rate(&a, 100_000, later);
        assert!(fair.wait_for_rate(&a, later).is_some(), "a new container pays no debts");
    }

    #[test]
    fn a_namespace_without_instances_is_forgotten_when_nothing_is_in_flight() {
        let mut fair = Fair::new(1_000, 10);
        let a = namespace("a");
        fair.queue(&a, &key("a", 0));
        fair.sent(&a, 10);
        assert!(!fair.forget(&a));
        fair.settled(&a, 10, 1);
        assert!(fair.forget(&a) && fair.shares.is_empty() && fair.ring.is_empty());
        assert_eq!(fair.next(), None);
    }
}
