use std::cell::Cell;

use rustix::io::Errno;

use super::*;
use crate::{checkpoint::EpochState, enrich::PodFacts, tail::Positions};

thread_local! {
    /// How many steps go well before one fails, and with what.
    static FAULT: Cell<Option<(usize, Errno)>> = const { Cell::new(None) };
    /// What every step of this thread fails with.
    pub static FAIL_WRITES: Cell<Option<Errno>> = const { Cell::new(None) };
}

pub fn step(_: Step) -> io::Result<()> {
    if let Some(error) = FAIL_WRITES.get() {
        return Err(error.into());
    }
    match FAULT.get() {
        Some((0, error)) => {
            FAULT.set(None);
            Err(error.into())
        }
        Some((steps, error)) => {
            FAULT.set(Some((steps - 1, error)));
            Ok(())
        }
        None => Ok(()),
    }
}

fn key(restart: u32) -> InstanceKey {
    InstanceKey { pod_folder: "payments_api_uid".to_owned(), container: "api".to_owned(), restart }
}

fn state(restart: u32, next_link: u32) -> InstanceState {
    let epoch = EpochState {
        epoch: "k3v9".to_owned(),
        topic: "logs.payments".to_owned(),
        partition: Some(0),
        grammar: 1,
        late: false,
        files: Vec::new(),
        at: Positions::default(),
        guard: None,
        finished: false,
        abandoned: false,
        broken: None,
    };
    InstanceState { key: key(restart), next_link, epochs: vec![epoch], owed: Vec::new(), descriptors: Vec::new() }
}

fn links(folder: &Path) -> (Vec<(u32, u32)>, u64, bool) {
    let loaded = Store::open(folder).unwrap();
    let links = loaded.instances.values().map(|state| (state.key.restart, state.next_link)).collect();
    (links, loaded.bad_lines, loaded.ended_clean)
}

#[test]
fn the_last_word_counts_and_a_clean_end_is_known_once() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = Store::open(folder.path()).unwrap();
    assert!(loaded.is_new && !loaded.ended_clean);
    let mut store = loaded.store;
    for instance in [state(0, 1), state(1, 1), state(0, 2)] {
        store.put(&instance);
    }
    store.remove(&key(1));
    store.commit().unwrap();
    drop(store);
    assert_eq!(links(folder.path()), (vec![(0, 2)], 0, false));
    Store::open(folder.path()).unwrap().store.end_clean().unwrap();
    assert_eq!(links(folder.path()), (vec![(0, 2)], 0, true));
    assert_eq!(links(folder.path()), (vec![(0, 2)], 0, false));
}

#[test]
fn what_is_known_of_pods_stands_beside_the_positions_and_goes_by_itself() {
    let pod = |name: &str, label: &str| PodState {
        pod_folder: format!("payments_{name}_uid"),
        facts: PodFacts { labels: [("app".to_owned(), label.to_owned())].into(), ..PodFacts::default() },
    };
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap().store;
    store.put(&state(0, 1));
    for state in [pod("a", "one"), pod("b", "one"), pod("a", "two")] {
        store.put_pod(&state);
        store.commit().unwrap();
    }
    store.remove_pod("payments_b_uid");
    store.commit().unwrap();
    let size = fs::metadata(folder.path().join(FILE_NAME)).unwrap().len();
    store.put_pod(&pod("a", "two"));
    store.remove_pod("never there");
    store.commit().unwrap();
    assert_eq!(
        fs::metadata(folder.path().join(FILE_NAME)).unwrap().len(),
        size,
        "what says nothing new is not written"
    );
    drop(store);
    for _ in 0..2 {
        let loaded = Store::open(folder.path()).unwrap();
        assert_eq!(loaded.pods, [("payments_a_uid".to_owned(), pod("a", "two"))].into());
        assert_eq!((loaded.instances.len(), loaded.bad_lines), (1, 0));
    }
}

#[test]
fn any_torn_or_damaged_byte_costs_its_line_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let mut store = Store::open(folder.path()).unwrap().store;
    store.put(&state(0, 1));
    store.commit().unwrap();
    store.put(&state(1, 1));
    store.commit().unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let (found, _, clean) = links(folder.path());
        assert!(found.len() <= 2 && !clean);
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        fs::write(&path, &damaged).unwrap();
        let (found, bad, _) = links(folder.path());
        // Without its newline a line reads as one with the next.
        let left_min = if whole[at] == b'\n' { 0 } else { 1 };
        assert!((left_min..=2).contains(&found.len()) && bad >= 1, "byte {at}: {found:?} {bad}");
    }
}

#[test]
fn it_is_written_anew_before_it_grows_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap().store;
    for round in 0..20_000 {
        store.put(&state(round % 3, round));
        if round % 100 == 0 {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    drop(store);
    assert!(fs::metadata(folder.path().join(FILE_NAME)).unwrap().len() < 3 * REWRITE_BYTES_MIN);
    assert_eq!(links(folder.path()).0, [(0, 19_998), (1, 19_999), (2, 19_997)]);
}

/// Every step of writing fails once, and the process dies there or goes on.
#[test]
fn whatever_step_fails_what_was_stored_is_there_and_it_heals() {
    let rounds = 16_u32;
    for error in [Errno::NOSPC, Errno::IO, Errno::ROFS] {
        for dies in [true, false] {
            let mut fault_at = 0;
            loop {
                // In memory where that is possible, for nothing here waits for a disk.
                let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
                let mut store = Store::open(folder.path()).unwrap().store;
                // Written anew every few rounds.
                store.rewrite_at = 1_000;
                FAULT.set(Some((fault_at, error)));
                let (mut durable, mut put, mut failures) = (0, 0, 0);
                for round in 1..=rounds {
                    store.put(&state(0, round));
                    (0..3).for_each(|other| store.put(&state(1 + (round + other) % 5, round)));
                    store.remove(&key(1 + (round + 4) % 5));
                    put = round;
                    match store.commit() {
                        Ok(()) => durable = round,
                        Err(_) => failures += 1,
                    }
                    store.rewrite_at = store.rewrite_at.min(store.bytes + 600);
                    if failures > 0 && dies {
                        break;
                    }
                }
                let was_hit = FAULT.take().is_none();
                if !(dies && failures > 0) {
                    store.commit().unwrap();
                    durable = put;
                }
                assert!(failures <= 1, "one fault costs one commit");
                drop(store);
                let loaded = Store::open(folder.path()).unwrap();
                let found = loaded.instances.get(&key(0)).map_or(0, |state| state.next_link);
                assert!(
                    (durable..=put).contains(&found),
                    "{error:?} at {fault_at}, dies: {dies}: {found} of {durable}..={put}"
                );
                assert_eq!(loaded.bad_lines, 0, "what a failed write left is cut off or written over");
                if durable == put {
                    assert_eq!(loaded.instances.len(), 4);
                }
                if !was_hit {
                    break;
                }
                fault_at += 1;
            }
            assert!(fault_at > 40, "every step had its fault: {fault_at}");
        }
    }
}

#[test]
fn while_it_cannot_write_it_remembers_each_instance_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap().store;
    for round in 1..2_000 {
        store.put(&state(round % 7, round));
        // Instances that come and go while nothing can be written leave nothing behind.
        store.put(&state(100 + round, 1));
        FAULT.set(Some((0, Errno::NOSPC)));
        store.commit().unwrap_err();
        store.remove(&key(100 + round));
    }
    assert!(store.is_tight());
    assert_eq!((store.live.len(), store.changed.len(), store.gone.len()), (7, 7, 0));
    store.commit().unwrap();
    assert!(!store.is_tight());
    drop(store);
    assert_eq!(links(folder.path()).0.len(), 7);
}

#[test]
fn months_of_pods_that_come_and_go_leave_a_small_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap().store;
    let (instances, alive) = (100_000, 500);
    for restart in 0..instances {
        store.put(&state(restart, 1));
        if restart >= alive {
            store.remove(&key(restart - alive));
        }
        if restart % 500 == 0 {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    let on_disk: u64 = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| fs::metadata(entry.unwrap().path()).unwrap().blocks() * 512)
        .sum();
    assert!(on_disk <= 3 * REWRITE_BYTES_MIN, "{on_disk}");
    assert_eq!((store.live.len(), store.changed.len(), store.gone.len()), (alive as usize, 0, 0));
    drop(store);
    assert_eq!(links(folder.path()).0.len(), alive as usize);
}

#[test]
fn whatever_stands_in_its_place_it_starts_and_says_what_it_left_out() {
    let check = |case: &str, make: &dyn Fn(&Path), expected: (bool, bool)| {
        let folder = tempfile::tempdir().unwrap();
        make(&folder.path().join(FILE_NAME));
        let loaded = Store::open(folder.path()).unwrap();
        assert_eq!((loaded.is_new, loaded.bad_lines > 0), expected, "{case}");
        assert!(loaded.instances.is_empty());
        let mut store = loaded.store;
        store.put(&state(0, 1));
        store.commit().unwrap();
        drop(store);
        assert_eq!(links(folder.path()).0, [(0, 1)], "{case}");
    };
    check("nothing", &|_| {}, (true, false));
    check("an empty file", &|path| fs::write(path, b"").unwrap(), (true, false));
    check("zeros, as a crash of the machine leaves them", &|path| fs::write(path, [0; 5_000]).unwrap(), (true, true));
    check("a folder", &|path| fs::create_dir(path).unwrap(), (true, true));
    check(
        "a file of a future version",
        &|path| fs::write(path, with_unknown_entry(encode(&Entry::Started))).unwrap(),
        (false, true),
    );
    check(
        "a spare that a failed try left",
        &|path| fs::write(path.with_file_name(SPARE_NAME), vec![b'x'; 3 << 20]).unwrap(),
        (true, false),
    );
}

/// The same lines with an entry at the end that this version does not know.
fn with_unknown_entry(mut lines: Vec<u8>) -> Vec<u8> {
    let json = br#"{"z":1}"#;
    lines.extend(format!("{:08x} ", crc32fast::hash(json)).into_bytes());
    lines.extend_from_slice(json);
    lines.push(b'\n');
    lines
}
