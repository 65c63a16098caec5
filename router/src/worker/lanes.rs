//! Which producer a topic's records go through: healthy topics share the main lane, the others the slow one.
//!
//! A topic is on the slow lane after it was parked, while it is slow, and for as long as it takes only small batches. It
//! moves when nothing of it is in flight, so that its records never overtake each other. When a topic turns slow while its
//! records are in flight on the main lane, the *lane* moves: a fresh producer becomes the main lane, and the old one, with
//! the stuck records, the slow one. See `docs/adr/0014-two-lanes.md`.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::telemetry::field;
use tracing::{error, info, warn};

use crate::{
    checkpoint::InstanceKey,
    produce::{Lane, Pending, ProduceError, Sink, Slot},
};

/// A topic is slow when nothing of it was acknowledged for so long while others overtook it.
const STALL: Duration = Duration::from_millis(400);
/// The same where no other topic's records show that Kafka answers.
const STALL_ALONE: Duration = Duration::from_millis(1_500);
/// How many of the topics that stand still on the main lane are taken off it at once, those first that were sent first: Kafka answers a
/// connection in order, so who waits longest is waited for. Doubled with each swap that follows soon on another.
const SUSPECTS_MIN: usize = 2;
/// A topic is sluggish when the others waited for so long behind it, so often within so long, on a lane that can be quick.
const SLUGGISH: Duration = Duration::from_millis(150);
const SLUGGISH_TIMES: usize = 3;
const SLUGGISH_WITHIN: Duration = Duration::from_secs(5);
const QUICK: Duration = Duration::from_millis(40);
/// How often topics with records in flight are looked at.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(50);
/// How long a topic must have been well to leave the slow lane; doubled each time that it comes back to it.
const PROBATION_MIN: Duration = Duration::from_secs(5);
const PROBATION_MAX: Duration = Duration::from_secs(320);
/// A topic that was on the main lane for so long starts again with the shortest probation.
const GOOD_AFTER: Duration = Duration::from_secs(600);
/// The wait between two swaps; doubled each time that one follows soon on another.
const SWAP_WAIT_MIN: Duration = Duration::from_millis(500);
const SWAP_WAIT_MAX: Duration = Duration::from_secs(60);

/// The lanes, and every topic's place on them.
#[derive(Debug)]
pub(super) struct Lanes {
    main: Lane,
    slow: Option<Lane>,
    /// Lanes that were the slow one, until nothing is in flight on them.
    draining: Vec<Lane>,
    topics: HashMap<TopicName, Track>,
    /// By lane: when the latest of the reads that were acknowledged on it was sent.
    overtaken: [Option<Instant>; Lane::COUNT],
    /// When the main lane was last made anew, and how long the next time waits after that.
    swapped: Option<(Instant, Duration)>,
    suspects: usize,
    /// When a read was last acknowledged quickly on the main lane.
    quick_at: Option<Instant>,
    watched_at: Option<Instant>,
}

/// One topic.
#[derive(Debug, Default)]
struct Track {
    /// The lane that its records in flight are on, and the next ones while there are any.
    lane: Option<Lane>,
    slow: Option<Slow>,
    /// Its reads in flight, oldest first, and when each was sent.
    flying: VecDeque<(Slot, Instant)>,
    /// The oldest read in flight and its records without a report, as last seen, and since when that stands still.
    front: Option<(Slot, u32)>,
    still_since: Option<Instant>,
    /// The reads in flight, by the time that they were sent, behind which the main lane waited lately, and when that was seen.
    waited_for: VecDeque<(Instant, Instant)>,
    /// How long it must be well next time.
    probation: Option<Duration>,
    /// When it last left the slow lane.
    promoted: Option<Instant>,
    /// Bytes of a batch that Kafka takes.
    batch_bytes_max: Option<u64>,
    /// Bytes of a batch that it refused as too large, and when.
    too_large: Option<(u64, Instant)>,
    /// Those of its containers whose records must be alone in their batch.
    careful: BTreeSet<InstanceKey>,
}

/// Why a topic is on the slow lane.
#[derive(Clone, Copy, Debug)]
struct Slow {
    /// Since when it takes records and is not slow.
    well_since: Option<Instant>,
    /// A topic that stands still for so long is not well.
    bound: Duration,
}

impl Track {
    /// For how long nothing of it was acknowledged although something is in flight, and when that was sent.
    fn stall(&self, now: Instant) -> Option<(Duration, Instant)> {
        let (_, sent) = self.flying.front()?;
        Some((now.saturating_duration_since(self.still_since?), *sent))
    }

    fn demote(&mut self, now: Instant) {
        self.demote_for(STALL, now);
    }

    fn demote_for(&mut self, bound: Duration, now: Instant) {
        self.waited_for.clear();
        if self.slow.replace(Slow { well_since: None, bound }).is_none() {
            let was_good = self.promoted.is_some_and(|at| now.saturating_duration_since(at) >= GOOD_AFTER);
            let before = self.probation.filter(|_| !was_good);
            self.probation = Some(before.map_or(PROBATION_MIN, |before| (before * 2).min(PROBATION_MAX)));
        }
    }
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            main: Lane::FIRST,
            slow: None,
            draining: Vec::new(),
            topics: HashMap::new(),
            overtaken: [None; Lane::COUNT],
            swapped: None,
            suspects: SUSPECTS_MIN,
            quick_at: None,
            watched_at: None,
        }
    }

    /// The lane for a topic's next read; none while it has to wait: it moves, or somebody's records must be alone, and something of it is in
    /// flight.
    pub(super) fn choose(&mut self, topic: &TopicName, sink: &mut dyn Sink) -> Option<Lane> {
        let track = track_of(&mut self.topics, topic);
        if !track.careful.is_empty() && !track.flying.is_empty() {
            return None;
        }
        let batch = track.batch_bytes_max.unwrap_or(u64::MAX);
        let is_slow = track.slow.is_some() || sink.batch_bytes_max(self.main) > batch;
        let fits = |lane: &Lane| sink.batch_bytes_max(*lane) <= batch;
        let wanted = if is_slow { self.slow.filter(fits) } else { Some(self.main) };
        if let (Some(lane), Some(wanted)) = (track.lane, wanted)
            && lane == wanted
        {
            return Some(wanted);
        }
        if !track.flying.is_empty() {
            return None;
        }
        let wanted = match wanted {
            Some(lane) => lane,
            None => self.open_slow(batch, sink)?,
        };
        if let Some(track) = self.topics.get_mut(topic) {
            track.lane = Some(wanted);
        }
        Some(wanted)
    }

    /// The lane that a topic's records in flight are on.
    pub(super) fn lane(&self, topic: &TopicName) -> Lane {
        self.topics.get(topic).and_then(|track| track.lane).unwrap_or(self.main)
    }

    /// How large a batch a topic takes, as the brokers tell it. Where they do not, or it is refused all the same, half of what was refused.
    pub(super) fn set_batch_bytes_max(&mut self, topic: &TopicName, told: Option<u64>, now: Instant) {
        let track = track_of(&mut self.topics, topic);
        track.too_large = track.too_large.filter(|(_, at)| now.saturating_duration_since(*at) < GOOD_AFTER);
        track.batch_bytes_max = match track.too_large {
            Some((refused, _)) if told.is_none_or(|told| told >= refused) => Some(refused / 2),
            _ => told,
        };
    }

    /// How large a batch a topic takes; none while that is not known.
    pub(super) fn batch_bytes_max(&self, topic: &TopicName) -> Option<u64> {
        self.topics.get(topic)?.batch_bytes_max
    }

    /// Kafka refused a batch of a topic as too large: one of a read in `slot`, unless that was refused before it was queued.
    pub(super) fn too_large(&mut self, topic: &TopicName, slot: Option<Slot>, now: Instant, sink: &dyn Sink) {
        let of_lane = sink.batch_bytes_max(self.lane(topic));
        let track = track_of(&mut self.topics, topic);
        let sent = track.flying.iter().find(|(flying, _)| Some(*flying) == slot).map(|(_, sent)| *sent);
        if let (Some((_, known)), Some(sent)) = (track.too_large, sent)
            && sent <= known
        {
            return; // it was on its way before the first of them was refused: that it is too large is known
        }
        track.too_large = Some((track.batch_bytes_max.map_or(of_lane, |bytes| bytes.min(of_lane)), now));
        track.demote(now);
    }

    /// A read was sent.
    pub(super) fn sent(&mut self, topic: &TopicName, slot: Slot, now: Instant) {
        let track = track_of(&mut self.topics, topic);
        if track.flying.is_empty() {
            (track.front, track.still_since) = (None, Some(now));
        }
        track.flying.push_back((slot, now));
    }

    /// A read is no longer in flight.
    pub(super) fn settled(&mut self, topic: &TopicName, slot: Slot, acknowledged: bool, now: Instant) {
        let Some(track) = self.topics.get_mut(topic) else { return };
        let Some(place) = track.flying.iter().position(|(flying, _)| *flying == slot) else { return };
        let Some((_, sent)) = track.flying.remove(place) else { return };
        if place == 0 {
            track.still_since = Some(now);
        }
        if !acknowledged {
            return;
        }
        if let Some(lane) = track.lane {
            let latest = &mut self.overtaken[lane.index()];
            *latest = (*latest).max(Some(sent));
            if lane == self.main && now.saturating_duration_since(sent) <= QUICK {
                self.quick_at = Some(now);
            }
        }
        if let Some(slow) = &mut track.slow {
            slow.well_since.get_or_insert(now);
        }
    }

    /// Whether the records of a container must be alone in their batch: while those of any must, a topic has one read in flight.
    pub(super) fn set_careful(&mut self, topic: &TopicName, key: &InstanceKey, careful: bool) {
        if careful {
            track_of(&mut self.topics, topic).careful.insert(key.clone());
        } else if let Some(track) = self.topics.get_mut(topic) {
            track.careful.remove(key);
        }
    }

    /// Whether a topic has one read in flight at most.
    pub(super) fn is_careful(&self, topic: &TopicName) -> bool {
        self.topics.get(topic).is_some_and(|track| !track.careful.is_empty())
    }

    /// Kafka refuses a topic: it is tried again on the slow lane.
    pub(super) fn demote(&mut self, topic: &TopicName, now: Instant) {
        track_of(&mut self.topics, topic).demote(now);
    }

    /// Whether nothing of a topic is in flight.
    pub(super) fn is_drained(&self, topic: &TopicName) -> bool {
        self.topics.get(topic).is_none_or(|track| track.flying.is_empty())
    }

    /// Whether anything is in flight.
    pub(super) fn is_flying(&self) -> bool {
        self.topics.values().any(|track| !track.flying.is_empty())
    }

    /// Whether a topic on the slow lane takes records and is not slow.
    #[cfg(test)]
    pub(super) fn is_well(&self, topic: &TopicName) -> bool {
        self.topics[topic].slow.is_some_and(|slow| slow.well_since.is_some())
    }

    /// For how long a topic has acknowledged nothing, if it is slow.
    pub(super) fn slow_for(&self, topic: &TopicName, now: Instant) -> Option<Duration> {
        let track = self.topics.get(topic)?;
        let (stall, _) = track.stall(now)?;
        (track.slow.is_some() && stall >= STALL).then_some(stall)
    }

    /// Forgets a topic that nobody writes to any more. Returns false while something of it is in flight.
    pub(super) fn forget(&mut self, topic: &TopicName) -> bool {
        let drained = self.is_drained(topic);
        if drained {
            self.topics.remove(topic);
        }
        drained
    }

    /// Looks for topics that became slow or well, now and then. Returns whether one may move.
    pub(super) fn watch(&mut self, now: Instant, pending: &Pending, sink: &mut dyn Sink) -> bool {
        if self.watched_at.is_some_and(|at| now.saturating_duration_since(at) < WATCH_EVERY) {
            return false;
        }
        self.watched_at = Some(now);
        for track in self.topics.values_mut() {
            see_progress(track, now, pending);
        }
        let promoted = self.promote(now);
        let swapped = self.stalled_on_main(now) && self.swap(now, sink);
        // It is acknowledged after all: it moves when nothing of it is in flight, and needs no other main lane.
        let moves = self.sluggish_on_main(now);
        self.close_drained(sink);
        promoted || swapped || moves
    }

    /// Marks the topics that are slow on the main lane. Returns whether there are any.
    fn stalled_on_main(&mut self, now: Instant) -> bool {
        let main = self.main;
        let overtaken = self.overtaken[main.index()];
        let is_slow = |track: &Track| {
            let Some((stall, sent)) = track.stall(now).filter(|_| track.lane == Some(main)) else { return false };
            stall >= STALL_ALONE || stall >= STALL && overtaken.is_some_and(|latest| latest > sent)
        };
        if !self.topics.values().any(is_slow) {
            return false;
        }
        // One is shown to be slow. Others stand still behind it, or are slow themselves.
        let mut still: Vec<_> = self
            .topics
            .iter_mut()
            .filter(|(_, track)| track.lane == Some(main) && track.slow.is_none())
            .filter_map(|(topic, track)| {
                let (stall, sent) = track.stall(now).filter(|(stall, _)| *stall >= STALL)?;
                Some((sent, stall, topic, track))
            })
            .collect();
        still.sort_by_key(|(sent, ..)| *sent);
        still.truncate(self.suspects);
        for (_, stall, topic, track) in still {
            track.demote(now);
            let stall_ms = stall.as_millis();
            warn!({ field::DESTINATION } = %topic, stall_ms, "topic is slow: its records go through the slow lane");
        }
        true
    }

    /// Marks the topic behind which the main lane waits again and again, though never for long. Returns whether there is one.
    fn sluggish_on_main(&mut self, now: Instant) -> bool {
        let main = self.main;
        let recent = |at: Instant| now.saturating_duration_since(at) <= SLUGGISH_WITHIN;
        if !self.quick_at.is_some_and(recent) {
            return false; // nobody is quick: that is how Kafka is
        }
        let still = self.topics.iter_mut().filter(|(_, track)| track.lane == Some(main) && track.slow.is_none());
        let first = still
            .filter_map(|(topic, track)| {
                let (_, sent) = track.stall(now).filter(|(stall, _)| *stall >= SLUGGISH)?;
                Some((sent, topic, track))
            })
            .min_by_key(|(sent, ..)| *sent);
        let Some((sent, topic, track)) = first else { return false };
        track.waited_for.retain(|(_, seen)| recent(*seen));
        if track.waited_for.back().is_none_or(|(read, _)| *read != sent) {
            track.waited_for.push_back((sent, now));
        }
        if track.waited_for.len() < SLUGGISH_TIMES {
            return false;
        }
        track.demote_for(SLUGGISH, now);
        warn!({ field::DESTINATION } = %topic, "others wait behind this topic again and again: its records go through the slow lane");
        true
    }

    /// Makes a fresh producer the main lane, and the old one the slow lane.
    fn swap(&mut self, now: Instant, sink: &mut dyn Sink) -> bool {
        let (wait, suspects) = match self.swapped {
            Some((at, wait)) if now.saturating_duration_since(at) < wait => return false,
            Some((at, wait)) if now.saturating_duration_since(at) < wait * 4 => {
                ((wait * 2).min(SWAP_WAIT_MAX), self.suspects.saturating_mul(2))
            }
            _ => (SWAP_WAIT_MIN, SUSPECTS_MIN),
        };
        let Some(fresh) = self.open(u64::MAX, sink) else { return false };
        self.suspects = suspects;
        self.swapped = Some((now, wait));
        self.draining.extend(self.slow.replace(self.main));
        self.main = fresh;
        true
    }

    /// Makes another slow lane, for a topic that takes no larger batches.
    fn open_slow(&mut self, batch_bytes_max: u64, sink: &mut dyn Sink) -> Option<Lane> {
        let smallest = self.topics.values().filter_map(|track| track.batch_bytes_max).min().unwrap_or(u64::MAX);
        if let Some(old) = self.slow.filter(|slow| !self.in_use(*slow)) {
            // Nothing is in flight on it: its place is free.
            self.slow = None;
            self.close(old, sink);
        }
        let fresh = self.open(smallest.min(batch_bytes_max), sink)?;
        self.draining.extend(self.slow.replace(fresh));
        Some(fresh)
    }

    fn open(&mut self, batch_bytes_max: u64, sink: &mut dyn Sink) -> Option<Lane> {
        self.close_drained(sink);
        match sink.open(batch_bytes_max) {
            Ok(lane) => {
                self.overtaken[lane.index()] = None;
                info!(batch_bytes_max = sink.batch_bytes_max(lane), "another Kafka producer is made");
                Some(lane)
            }
            // Those that drain make room.
            Err(ProduceError::TooManyLanes) => None,
            Err(error) => {
                error!({ field::ERROR } = %error, "cannot make another Kafka producer; trying again");
                None
            }
        }
    }

    /// Lets topics that have been well for long enough go back to the main lane.
    fn promote(&mut self, now: Instant) -> bool {
        let mut topics = 0;
        for track in self.topics.values_mut() {
            let Some(since) = track.slow.and_then(|slow| slow.well_since) else { continue };
            if now.saturating_duration_since(since) >= track.probation.unwrap_or(PROBATION_MIN) {
                (track.slow, track.promoted) = (None, Some(now));
                topics += 1;
            }
        }
        if topics > 0 {
            info!(topics, "topics are well again: their records go through the main lane");
        }
        topics > 0
    }

    fn in_use(&self, lane: Lane) -> bool {
        self.topics.values().any(|track| track.lane == Some(lane) && !track.flying.is_empty())
    }

    fn close_drained(&mut self, sink: &mut dyn Sink) {
        let (busy, drained): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.draining).into_iter().partition(|lane| self.in_use(*lane));
        self.draining = busy;
        for lane in drained {
            self.close(lane, sink);
        }
        // Nobody is on the slow lane, nor will be soon.
        let batch = sink.batch_bytes_max(self.main);
        let is_slow = |track: &Track| track.slow.is_some() || track.batch_bytes_max.is_some_and(|bytes| bytes < batch);
        if let Some(slow) = self.slow
            && !self.in_use(slow)
            && !self.topics.values().any(is_slow)
        {
            self.slow = None;
            self.close(slow, sink);
        }
    }

    fn close(&mut self, lane: Lane, sink: &mut dyn Sink) {
        for track in self.topics.values_mut().filter(|track| track.lane == Some(lane)) {
            track.lane = None;
        }
        sink.close(lane);
    }
}

/// Notes whether anything of a topic's oldest read was acknowledged since the last look.
fn see_progress(track: &mut Track, now: Instant, pending: &Pending) {
    let Some((slot, _)) = track.flying.front() else { return };
    let front = (*slot, pending.outstanding(*slot));
    // The first look at a read only learns how many records it has.
    if track.front.replace(front).is_some_and(|seen| seen.0 == front.0 && seen.1 != front.1) {
        track.still_since = Some(now);
    }
    let stall = track.stall(now).map_or(Duration::ZERO, |(stall, _)| stall);
    if let Some(slow) = track.slow.as_mut().filter(|slow| stall >= slow.bound) {
        slow.well_since = None;
    }
}

fn track_of<'a>(topics: &'a mut HashMap<TopicName, Track>, topic: &TopicName) -> &'a mut Track {
    if !topics.contains_key(topic) {
        topics.insert(topic.clone(), Track::default());
    }
    topics.get_mut(topic).expect("a topic that was just put in")
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
