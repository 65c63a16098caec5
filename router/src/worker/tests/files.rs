//! What happens to files: rotation, restarts, truncation, links and folders that go.

use super::*;
use crate::{
    enrich::{PodFacts, Standing},
    parse::Grammar,
    tail::{Place, Positions, StreamPosition},
};

#[test]
fn the_golden_files_become_the_golden_records() {
    for name in ["plain", "bytes", "fragments", "docker", "complete", "partial", "processed"] {
        let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../contract/examples/v1");
        let mut node = Node::with_docker();
        let wishes = [("parse-json".to_owned(), "api:stdout".to_owned())].into();
        let processed = PodFacts { wishes, ..pods::facts() };
        let known = [("complete", pods::facts()), ("partial", pods::partial_facts()), ("processed", processed)];
        if let Some((_, facts)) = known.into_iter().find(|(known, _)| *known == name) {
            node.pods.stand(Standing::Known);
            node.pods.set(pods::UID, facts);
        }
        match fs::read(examples.join(format!("{name}.cri"))) {
            Ok(log) => node.write("0.log", &log),
            Err(_) => node.container(0).write_bytes(&fs::read(examples.join(format!("{name}.json"))).unwrap()),
        }
        node.start();
        let stored = node.finish();
        let text = fs::read_to_string(examples.join(format!("{name}.ndjson"))).unwrap();
        let got: Vec<_> = stored.iter().map(|value| String::from_utf8(value.clone()).unwrap()).collect();
        let epoch = got[0].split("/api/0/").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let got: Vec<_> = got.iter().map(|value| value.replace(&epoch, "k3v9")).collect();
        assert_eq!(got, text.lines().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn rotation_compression_and_deletion_lose_nothing_and_hold_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 10);
    node.start();
    for round in 1..6 {
        node.rotate(&format!("T{round}"));
        node.lines("0.log", round * 10, 10);
        if round % 2 == 0 {
            node.rounds(3);
        }
        if round > 2 {
            // As the kubelet compresses: the raw file goes.
            let _ = fs::remove_file(node.dir().join(format!("0.log.T{}", round - 1)));
        }
        node.rounds(1);
    }
    node.settle();
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.settle();
    assert_eq!(node.held(), 0);
    assert!(!node.settings.state_dir.join("held").join(POD).exists());
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(60));
    let sources: BTreeSet<_> =
        stored.iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect();
    assert_eq!(sources.len(), 1, "one epoch: every rotation was shown to follow");
}

#[test]
fn a_pod_that_is_gone_before_it_is_read_is_read_from_its_link() {
    let mut node = Node::new();
    node.sink.borrow_mut().acknowledge_all = false;
    node.topics.set("logs.payments", TopicState::Unknown);
    node.start();
    node.lines("0.log", 0, 3);
    node.rounds(2);
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(2);
    node.kill(0);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 3 });
    node.start();
    node.settle();
    assert_eq!(node.held(), 0);
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn lost_positions_are_read_again_under_another_epoch_and_marked() {
    let mut node = Node::new();
    node.lines("0.log", 0, 4);
    node.start();
    node.settle();
    node.stop();
    fs::write(node.settings.state_dir.join("positions"), b"00000000 garbage\n").unwrap();
    node.start();
    node.lines("0.log", 4, 2);
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let epochs: BTreeSet<_> = records.iter().map(|record| record.fairlead.source.as_ref()).collect();
    assert_eq!((records.len(), epochs.len()), (10, 2));
    let marks: Vec<_> = records.iter().map(|record| record.fairlead.again).collect();
    assert_eq!(marks, [false, false, false, false, true, true, true, true, false, false]);
}

#[test]
fn after_a_clean_stop_nothing_is_sent_again() {
    let mut node = Node::new();
    node.lines("0.log", 0, 4);
    node.start();
    node.settle();
    node.stop();
    node.lines("0.log", 4, 4);
    node.rotate("T1");
    node.lines("0.log", 8, 4);
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(12));
    assert!(stored.iter().all(|value| !Record::parse(value).unwrap().fairlead.again));
}

#[test]
fn a_rotation_that_was_missed_begins_a_new_epoch() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.rotate("T2");
    node.lines("0.log", 4, 2);
    // The middle file is gone, as if it were compressed already.
    fs::remove_file(node.dir().join("0.log.T2")).unwrap();
    fs::write(node.dir().join("0.log.T2.gz"), b"").unwrap();
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), ["line 0", "line 1", "line 4", "line 5"]);
    let seqs: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, [0, 1, 0, 1], "what cannot be shown to follow is not numbered on");
}

#[test]
fn truncation_and_another_file_under_the_same_link_begin_a_new_epoch() {
    let mut node = Node::new();
    node.lines("0.log", 0, 5);
    node.start();
    node.settle();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 5, 2);
    node.settle();
    node.stop();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 7, 9);
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(16));
    let seqs: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_file_that_was_truncated_and_has_grown_again_is_another_one_while_the_router_runs() {
    let mut node = Node::new();
    node.lines("0.log", 0, 5);
    node.start();
    node.settle();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 5, 9);
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(14));
    let seqs: Vec<_> = records(&stored).iter().map(|value| Record::parse(value).unwrap().fairlead.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn positions_that_contradict_the_first_numbers_of_files_are_not_gone_on_with() {
    let at = |file, offset, next| StreamPosition { place: Place { file, offset }, next, ..StreamPosition::default() };
    let state = |positions: [StreamPosition; 3], first| {
        let mut state = Epoch::fresh("logs.payments", Grammar::Cri, &[0, 1], false);
        state.files[1].first = Some(first);
        state.at = Positions(positions);
        state.is_sound()
    };
    let bad = at(1, 0, 0);
    let check =
        |stdout, first: u64, expected| assert_eq!(state([bad, stdout, bad], [0, first, 0]), expected, "{stdout:?}");
    check(at(1, 0, 7), 7, true);
    check(at(1, 50, 8), 7, true);
    check(at(0, 90, 7), 7, true);
    check(at(0, 50, 3), 7, true);
    check(at(1, 0, 8), 7, false);
    check(at(1, 50, 6), 7, false);
    check(at(0, 50, 8), 7, false);
    check(at(2, 0, 6), 7, false);
}

#[test]
fn a_truncated_file_is_never_read_under_its_old_numbers() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.write("0.log", format!("{TIME} stderr P waits\n").as_bytes());
    node.start();
    node.rounds(4);
    let truncate =
        |node: &Node| OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    truncate(&node);
    node.lines("0.log", 3, 1);
    node.rounds(4);
    // What was on its way fails: it cannot be read again, and nothing else may take its numbers.
    node.sink.borrow_mut().fail(3, FailureKind::Retry, false);
    node.settle();
    node.kill(0);
    truncate(&node);
    node.lines("0.log", 4, 1);
    node.start();
    let stored = node.finish();
    let seen: BTreeSet<_> = stored
        .iter()
        .map(|value| Record::parse(value).unwrap())
        .map(|record| (record.fairlead.source.to_string(), record.fairlead.seq, record.log.to_string()))
        .collect();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen.iter().map(|(source, _, _)| source).collect::<BTreeSet<_>>().len(), 3, "{seen:?}");
    assert!(seen.iter().any(|(_, seq, log)| (*seq, log.as_str()) == (0, "waits")), "{seen:?}");
}

#[test]
fn a_file_that_is_truncated_before_a_new_router_reads_it_gets_other_numbers() {
    let mut node = Node::new();
    node.lines("0.log", 0, 1);
    node.start();
    node.rounds(3);
    node.kill(1);
    node.start();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    node.lines("0.log", 1, 1);
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(2));
    let sources: BTreeSet<_> =
        stored.iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect();
    assert_eq!(sources.len(), 2, "what was sent before keeps its number");
}

#[test]
fn a_topic_made_again_with_fewer_partitions_is_written_to_again() {
    let mut node = Node::new();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 64 });
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    let before = node.sink.borrow().stored[0].partition;
    assert_ne!(before, 0);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.lines("0.log", 2, 2);
    node.settle();
    let partitions: Vec<_> = node.sink.borrow().stored.iter().map(|sent| sent.partition).collect();
    assert_eq!(partitions, [before, before, 0, 0]);
    assert_eq!(logs(&node.finish()), expected(4));
}

#[test]
fn more_partitions_do_not_move_a_source() {
    let mut node = Node::new();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 64 });
    node.lines("0.log", 2, 2);
    node.start();
    node.settle();
    assert!(node.sink.borrow().stored.iter().all(|sent| sent.partition == 0));
    assert_eq!(logs(&node.finish()), expected(4));
}

#[test]
fn a_file_beside_the_live_one_closes_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.write("0.log.bak", format!("{TIME} stdout F copied\n").as_bytes());
    node.settle();
    node.lines("0.log", 2, 2);
    node.settle();
    node.rotate("T1");
    node.lines("0.log", 4, 1);
    let stored = node.finish();
    assert_eq!(logs(&stored), ["line 0", "line 1", "copied", "line 2", "line 3", "line 4"]);
    assert_eq!(Record::parse(&stored[5]).unwrap().fairlead.seq, 4);
}

#[test]
fn a_held_file_that_somebody_removes_ends_its_epoch_alone() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.topics.set("logs.payments", TopicState::Unknown);
    node.start();
    node.rounds(2);
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.rounds(2);
    fs::remove_file(node.settings.state_dir.join("held").join(POD).join("api/0.0")).unwrap();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    let stored = node.finish();
    // The kubelet still has the first file: it is found beside the live one, and read as what it is.
    let logs: BTreeSet<_> = logs(&stored).into_iter().collect();
    assert!(logs.is_superset(&["line 2".to_owned(), "line 3".to_owned()].into()), "{logs:?}");
}

#[test]
fn a_restart_of_the_container_in_the_same_look_as_a_rotation_breaks_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.stop();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.write("1.log", format!("{TIME} stdout F next instance\n").as_bytes());
    node.start();
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let seen: Vec<_> = records.iter().map(|record| (record.log.as_ref(), record.fairlead.seq)).collect();
    assert_eq!(seen, [("line 0", 0), ("line 1", 1), ("line 2", 2), ("line 3", 3), ("next instance", 0)]);
}

#[test]
fn a_state_folder_that_vanishes_is_made_anew_and_costs_repeats_alone() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    fs::remove_dir_all(&node.settings.state_dir).unwrap();
    node.lines("0.log", 2, 2);
    let stored = node.finish();
    let logs: BTreeSet<_> = logs(&stored).into_iter().collect();
    assert_eq!(logs, expected(4).into_iter().collect());
    assert!(node.settings.state_dir.join("positions").exists());
}

#[test]
fn one_state_folder_has_one_router() {
    let mut node = Node::new();
    node.start();
    let second = lock(&node.settings.state_dir);
    assert!(matches!(second, Err(WorkerError::InUse(_))), "{second:?}");
    node.stop();
    assert!(lock(&node.settings.state_dir).is_ok());
}

#[test]
fn bytes_that_come_late_are_a_source_of_their_own() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    node.settle();
    node.lines("0.log.T1", 100, 1);
    fs::remove_file(node.dir().join("0.log.T1")).unwrap();
    node.settle();
    node.lines("0.log", 4, 1);
    let stored = node.finish();
    assert_eq!(logs(&stored), ["line 0", "line 1", "line 2", "line 3", "line 100", "line 4"]);
    let last = Record::parse(&stored[5]).unwrap().fairlead.seq;
    assert_eq!(last, 4, "the successor stays in its epoch");
}

#[test]
fn a_file_that_is_still_written_to_is_let_go_when_its_writer_ends() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.settle();
    node.rotate("T1");
    node.settle();
    let rotated = node.dir().join("0.log.T1");
    let writer = OpenOptions::new().append(true).open(&rotated).unwrap();
    fs::remove_file(&rotated).unwrap();
    node.rounds(5);
    assert_eq!(node.held(), 2, "its last bytes may be to come");
    drop(writer);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.held() == 2 {
        assert!(Instant::now() < deadline, "it is kept until everything is looked at again");
        node.rounds(1);
        node.worker.as_ref().unwrap().watcher.wait(None, Duration::from_millis(10));
    }
    assert_eq!(logs(&node.finish()), expected(3));
}
