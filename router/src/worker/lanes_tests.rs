use std::sync::Arc;

use super::*;
use crate::produce::fake::FakeSink;

/// Lanes over a sink that only counts them, and a clock of their own.
struct Bench {
    pending: Arc<Pending>,
    sink: FakeSink,
    lanes: Lanes,
    start: Instant,
    now: Duration,
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let pending = Arc::new(Pending::new(64));
        let sink = FakeSink::new(Arc::clone(&pending));
        Bench { pending, sink, lanes: Lanes::new(), start: Instant::now(), now: Duration::ZERO }
    }

    fn at(&mut self, ms: u64) -> Instant {
        self.now = Duration::from_millis(ms);
        self.start + self.now
    }

    fn choose(&mut self, name: &str) -> Option<Lane> {
        self.lanes.choose(&topic(name), &mut self.sink)
    }

    /// Sends a read of ten records.
    fn send(&mut self, name: &str, slot: u32, ms: u64) {
        let now = self.at(ms);
        assert!(self.choose(name).is_some(), "{name} must wait");
        self.pending.add(Slot(slot), 10);
        self.lanes.sent(&topic(name), Slot(slot), now);
    }

    fn acknowledge(&mut self, name: &str, slot: u32, ms: u64) {
        let now = self.at(ms);
        (0..self.pending.outstanding(Slot(slot))).for_each(|_| self.pending.acknowledge(Slot(slot)));
        self.lanes.settled(&topic(name), Slot(slot), true, now);
    }

    fn watch(&mut self, ms: u64) -> bool {
        let now = self.at(ms);
        self.lanes.watch(now, &self.pending, &mut self.sink)
    }

    fn open(&self) -> usize {
        self.sink.open.iter().flatten().count()
    }
}

#[test]
fn what_turns_slow_keeps_its_producer_and_the_others_get_a_fresh_one() {
    let mut bench = Bench::new();
    bench.send("slow", 0, 0);
    bench.send("well", 1, 10);
    bench.send("waits", 2, 10);
    bench.acknowledge("well", 1, 20);
    assert!(!bench.watch(390) && bench.open() == 1);
    assert!(bench.watch(500));
    assert_eq!(bench.open(), 2);
    // The stuck records stay where they are, and what comes of that topic goes behind them.
    assert_eq!(bench.choose("slow"), Some(Lane::FIRST));
    let main = bench.choose("well").unwrap();
    assert_ne!(main, Lane::FIRST);
    assert_eq!(bench.choose("new"), Some(main));
}

/// Others wait behind a topic for 200 ms, so often, while one beside it is acknowledged after `beside_ms`. Is the topic taken off the main lane?
fn is_moved(times: u32, beside_ms: u64) -> bool {
    let mut bench = Bench::new();
    for time in 0..times {
        let ms = u64::from(time) * 400;
        bench.send("quick", 3 * time, ms);
        bench.acknowledge("quick", 3 * time, ms + beside_ms);
        bench.send("first", 3 * time + 1, ms + 60);
        bench.send("behind", 3 * time + 2, ms + 70);
        bench.watch(ms + 150);
        bench.watch(ms + 250);
        bench.acknowledge("first", 3 * time + 1, ms + 260);
        bench.acknowledge("behind", 3 * time + 2, ms + 260);
    }
    assert_eq!(bench.choose("behind"), Some(Lane::FIRST));
    bench.choose("first") != Some(Lane::FIRST)
}

#[test]
fn behind_whom_others_wait_again_and_again_leaves_the_main_lane() {
    assert!(!is_moved(2, 5));
    assert!(is_moved(3, 5));
    // Where nobody is quick, waiting is how it is.
    assert!(!is_moved(3, 55));
}

#[test]
fn of_those_that_stand_still_the_first_are_suspected_first() {
    let mut bench = Bench::new();
    for (slot, name) in ["first", "second", "third", "fourth"].into_iter().enumerate() {
        bench.send(name, slot as u32, slot as u64);
    }
    bench.send("well", 8, 10);
    bench.acknowledge("well", 8, 20);
    assert!(bench.watch(500));
    let is_slow = |bench: &Bench, name: &str| bench.lanes.topics[&topic(name)].slow.is_some();
    assert_eq!(["first", "second", "third", "fourth"].map(|name| is_slow(&bench, name)), [true, true, false, false]);
}

#[test]
fn a_healthy_topic_moves_only_when_nothing_of_it_is_in_flight() {
    let mut bench = Bench::new();
    bench.send("slow", 0, 0);
    bench.send("well", 1, 300);
    bench.send("evidence", 2, 300);
    bench.acknowledge("evidence", 2, 350);
    assert!(bench.watch(500));
    assert_eq!(bench.choose("well"), None);
    bench.acknowledge("well", 1, 600);
    assert!(bench.choose("well").is_some_and(|lane| lane != Lane::FIRST));
}

#[test]
fn a_topic_that_is_well_for_long_enough_goes_back_and_longer_each_time() {
    let mut bench = Bench::new();
    let (mut ms, mut probations) = (0, Vec::new());
    for round in 0..9_u32 {
        ms += 100_000;
        bench.send("slow", 0, ms);
        bench.send("well", 1, ms + 1);
        bench.acknowledge("well", 1, ms + 2);
        assert!(bench.watch(ms + 1_000), "round {round}");
        bench.acknowledge("slow", 0, ms + 2_000);
        let from = ms + 2_000;
        ms = from;
        while bench.lanes.topics[&topic("slow")].slow.is_some() {
            ms += 1_000;
            bench.watch(ms);
        }
        probations.push((ms - from) / 1_000);
        assert_eq!(bench.choose("slow"), Some(bench.lanes.main));
        bench.watch(ms + 100);
        assert_eq!(bench.open(), 1, "the slow lane is closed when nobody needs it");
    }
    assert_eq!(probations, [5, 10, 20, 40, 80, 160, 320, 320, 320]);
}

#[test]
fn progress_is_no_stall() {
    let mut bench = Bench::new();
    bench.send("busy", 0, 0);
    bench.send("well", 1, 1);
    bench.acknowledge("well", 1, 2);
    for step in 1..=9_u64 {
        bench.watch(step * 300);
        bench.pending.acknowledge(Slot(0));
    }
    assert_eq!(bench.open(), 1);
    assert!(!bench.watch(2_900) && bench.watch(3_300));
}

#[test]
fn alone_a_topic_is_given_more_time() {
    let mut bench = Bench::new();
    bench.send("alone", 0, 0);
    assert!(!bench.watch(1_400) && bench.watch(1_550));
    assert!(bench.lanes.slow_for(&topic("alone"), bench.start + bench.now).is_some());
}

#[test]
fn producers_are_bounded_and_those_that_drained_make_room() {
    let mut bench = Bench::new();
    for (slot, name) in [(0, "a"), (1, "b"), (2, "c")] {
        let ms = u64::from(slot) * 100_000;
        bench.send(name, slot, ms);
        bench.send("well", 9, ms + 1);
        bench.acknowledge("well", 9, ms + 2);
        bench.watch(ms + 1_000);
    }
    assert_eq!(bench.open(), Lane::COUNT);
    // The third is not isolated, but it is read no more until one of the others has drained.
    assert_eq!(bench.choose("c"), None);
    bench.acknowledge("a", 0, 201_500);
    assert!(bench.watch(202_000));
    assert_eq!(bench.open(), Lane::COUNT);
    assert!(bench.choose("c").is_some_and(|lane| lane != bench.lanes.main));
}

#[test]
fn a_refused_topic_comes_back_on_the_slow_lane() {
    let mut bench = Bench::new();
    bench.send("refused", 0, 0);
    let now = bench.at(10);
    bench.lanes.settled(&topic("refused"), Slot(0), false, now);
    bench.lanes.demote(&topic("refused"), now);
    bench.send("refused", 1, 1_000);
    assert_ne!(bench.lanes.lane(&topic("refused")), Lane::FIRST);
    assert_eq!(bench.choose("well"), Some(Lane::FIRST));
}

#[test]
fn a_topic_of_small_batches_stays_on_a_lane_of_small_batches() {
    let mut bench = Bench::new();
    bench.lanes.set_batch_bytes_max(&topic("small"), Some(50_000), bench.start);
    bench.send("small", 0, 0);
    let lane = bench.lanes.lane(&topic("small"));
    assert_eq!((lane == Lane::FIRST, bench.sink.batch_bytes_max(lane)), (false, 50_000));
    // A smaller one needs another lane, which takes both; the first moves when nothing of it is in flight.
    bench.lanes.set_batch_bytes_max(&topic("smaller"), Some(1_000), bench.start);
    bench.send("smaller", 1, 1);
    let smaller = bench.lanes.lane(&topic("smaller"));
    assert_eq!((smaller == lane, bench.sink.batch_bytes_max(smaller)), (false, 1_000));
    assert_eq!(bench.choose("small"), None);
    bench.acknowledge("small", 0, 2);
    assert_eq!(bench.choose("small"), Some(smaller));
    bench.watch(1_000);
    assert_eq!(bench.open(), 2);
    assert_eq!(bench.choose("well"), Some(Lane::FIRST));
}

#[test]
fn what_is_too_large_is_halved_unless_the_brokers_say_how_much_they_take() {
    let mut bench = Bench::new();
    let name = topic("small");
    let mut sizes = Vec::new();
    for slot in 0..4 {
        bench.send("small", slot, 0);
        bench.acknowledge("small", slot, 0);
        bench.lanes.too_large(&name, Some(Slot(slot)), bench.start, &bench.sink);
        bench.lanes.set_batch_bytes_max(&name, None, bench.start);
        sizes.extend(bench.lanes.batch_bytes_max(&name));
    }
    assert_eq!(sizes, [500_000, 250_000, 125_000, 62_500]);
    bench.lanes.set_batch_bytes_max(&name, Some(100_000), bench.start);
    assert_eq!(bench.lanes.batch_bytes_max(&name), Some(100_000));
    // What is told and refused all the same is not believed, for a while.
    bench.lanes.set_batch_bytes_max(&name, Some(200_000), bench.start);
    assert_eq!(bench.lanes.batch_bytes_max(&name), Some(62_500));
    bench.lanes.set_batch_bytes_max(&name, Some(200_000), bench.start + GOOD_AFTER);
    assert_eq!(bench.lanes.batch_bytes_max(&name), Some(200_000));
}

#[test]
fn what_was_on_its_way_when_a_batch_was_too_large_halves_nothing_more() {
    let mut bench = Bench::new();
    let name = topic("small");
    let refuse = |bench: &mut Bench, slot, ms| {
        let now = bench.at(ms);
        bench.lanes.too_large(&name, slot, now, &bench.sink);
        bench.lanes.set_batch_bytes_max(&name, None, now);
        bench.lanes.batch_bytes_max(&name)
    };
    (0..4).for_each(|slot| bench.send("small", slot, 0));
    let burst: Vec<_> = (0..4).map(|slot| refuse(&mut bench, Some(Slot(slot)), 10 + u64::from(slot))).collect();
    assert_eq!(burst, [Some(500_000); 4]);
    (0..4).for_each(|slot| bench.acknowledge("small", slot, 20));
    bench.send("small", 4, 30);
    assert_eq!(refuse(&mut bench, Some(Slot(4)), 40), Some(250_000));
    // One that was never queued is of the size that is known.
    assert_eq!(refuse(&mut bench, None, 50), Some(125_000));
}

#[test]
fn while_a_record_must_be_alone_its_topic_has_one_read_in_flight() {
    let mut bench = Bench::new();
    let name = topic("refused");
    let key = InstanceKey { pod_folder: "a_pod_uid".to_owned(), container: "c".to_owned(), restart: 0 };
    bench.send("refused", 0, 0);
    bench.lanes.set_careful(&name, &key, true);
    assert_eq!(bench.choose("refused"), None);
    assert!(bench.choose("well").is_some());
    bench.acknowledge("refused", 0, 10);
    bench.send("refused", 1, 20);
    assert_eq!(bench.choose("refused"), None);
    bench.lanes.set_careful(&name, &key, false);
    bench.send("refused", 2, 30);
}
