//! Files that cannot be linked: open descriptors hold them.

use rustix::io::Errno;

use super::{mounts::with_mounts, *};
use crate::hold::FAIL_LINKS;

/// The texts, and how many sources they came in; every number of a source is there.
fn texts(stored: &[Vec<u8>]) -> (Vec<String>, usize) {
    let sources: BTreeSet<_> =
        stored.iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect();
    (logs(stored), sources.len())
}

impl Node {
    fn by_descriptor(&self) -> usize {
        self.worker.as_ref().unwrap().held.descriptors()
    }

    fn note(&self) -> String {
        let worker = self.worker.as_ref().unwrap();
        assert!(worker.parts.readiness.is_ready(), "a note stops nothing");
        worker.parts.readiness.report()
    }

    fn report(&mut self) {
        self.worker.as_mut().unwrap().report();
    }
}

/// Rotation, compression and deletion of the pod, with whatever holds the files.
fn live_through_rotation(node: &mut Node, by_descriptor: bool) {
    node.lines("0.log", 0, 3);
    node.start();
    node.settle();
    assert_eq!(node.by_descriptor() > 0, by_descriptor);
    node.topics.set("logs.payments", TopicState::Unknown);
    for round in 1..4 {
        node.rotate(&format!("T{round}"));
        node.lines("0.log", round * 3, 3);
        node.rounds(2);
        let _ = fs::remove_file(node.dir().join(format!("0.log.T{}", round - 1)));
    }
    node.report();
    assert_eq!(node.note().contains("held by open descriptors"), by_descriptor, "{}", node.note());
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(2);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    assert_eq!((node.by_descriptor(), node.held()), (0, 0));
    node.report();
    assert!(!node.note().contains("descriptors"), "{}", node.note());
    assert_eq!(texts(&node.finish()), (expected(12), 1));
}

#[test]
fn whatever_keeps_files_from_being_linked_a_descriptor_holds_them() {
    for error in [Errno::XDEV, Errno::ROFS, Errno::PERM, Errno::ACCESS, Errno::MLINK, Errno::NOSPC, Errno::DQUOT] {
        FAIL_LINKS.set(Some(error));
        live_through_rotation(&mut Node::new(), true);
        FAIL_LINKS.set(None);
    }
}

#[test]
fn on_another_file_system_or_mount_descriptors_hold_and_numbers_go_on() {
    const TEST: &str = "worker::tests::descriptor::on_another_file_system_or_mount_descriptors_hold_and_numbers_go_on";
    let script = "mkdir \"$D/one\" \"$D/state\" \"$D/pods\" \"$D/bound\" \"$D/mounted\"; \
                  mount -t tmpfs none \"$D/mounted\"; mount --bind \"$D/pods\" \"$D/bound\"";
    let Some(folder) = with_mounts(TEST, script) else { return };
    for (pods, by_descriptor) in [("one", false), ("mounted", true), ("bound", true)] {
        let mut node = Node::new();
        node.settings.state_dir = folder.join("state");
        node.settings.pods_dir = folder.join(pods);
        live_through_rotation(&mut node, by_descriptor);
    }
}

#[test]
fn after_a_restart_a_file_without_a_link_is_known_by_its_birth() {
    FAIL_LINKS.set(Some(Errno::XDEV));
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.settle();
    node.kill(0);
    node.lines("0.log", 3, 3);
    node.rotate("T1");
    node.lines("0.log", 6, 3);
    node.start();
    node.settle();
    assert_eq!(node.by_descriptor(), 2);
    node.stop();
    assert_eq!(texts(&std::mem::take(&mut node.stored)), (expected(9), 1));

    // What is rotated away meanwhile ends its run, and what is there is read.
    node.lines("0.log", 100, 1);
    fs::remove_file(node.dir().join("0.log")).unwrap();
    node.lines("0.log", 9, 2);
    node.start();
    let stored = node.finish();
    let (found, sources) = texts(&stored);
    assert!(found.ends_with(&["line 9".to_owned(), "line 10".to_owned()]), "{found:?}");
    assert_eq!(sources, 1);
    let first = Record::parse(stored.last().unwrap()).unwrap();
    assert!(first.fairlead.seq < 9, "a new run: {}", first.fairlead.seq);
    FAIL_LINKS.set(None);
}

#[test]
fn an_inode_number_that_is_used_again_is_another_file() {
    FAIL_LINKS.set(Some(Errno::XDEV));
    let mut node = Node::new();
    node.lines("0.log", 0, 5);
    node.start();
    node.settle();
    node.stop();
    let inode = |node: &Node| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(node.dir().join("0.log")).unwrap().ino()
    };
    let old = inode(&node);
    // A file system that gives a freed number out again does so at once; where it does not, the case is the same with another number.
    fs::remove_file(node.dir().join("0.log")).unwrap();
    node.lines("0.log", 0, 5);
    node.lines("0.log", 5, 1);
    let again = inode(&node) == old;
    node.start();
    let stored = node.finish();
    let records: Vec<_> = stored[5..].iter().map(|value| Record::parse(value).unwrap()).collect();
    assert_eq!(records.len(), 6, "the number was used again: {again}");
    assert_eq!(records[0].fairlead.seq, 0);
    assert_ne!(records[0].fairlead.source, Record::parse(&stored[0]).unwrap().fairlead.source);
    FAIL_LINKS.set(None);
}

#[test]
fn what_descriptors_hold_is_linked_as_soon_as_it_can_be() {
    FAIL_LINKS.set(Some(Errno::NOSPC));
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.settle();
    assert_eq!((node.by_descriptor(), node.held()), (1, 0));
    FAIL_LINKS.set(None);
    node.worker.as_mut().unwrap().scan_all(false);
    assert_eq!((node.by_descriptor(), node.held()), (0, 1));
    node.kill(0);
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.start();
    assert_eq!(texts(&node.finish()), (expected(3), 1));
}

#[test]
fn descriptors_are_bounded_and_it_says_so() {
    FAIL_LINKS.set(Some(Errno::XDEV));
    let mut node = Node::new();
    node.start();
    node.worker.as_ref().unwrap().held.limit_descriptors(2);
    node.lines("0.log", 0, 1);
    node.rounds(1);
    node.topics.set("logs.payments", TopicState::Unknown);
    for round in 1..4 {
        node.rotate(&format!("T{round}"));
        node.lines("0.log", round, 1);
        node.rounds(1);
    }
    assert_eq!(node.by_descriptor(), 2);
    node.report();
    assert!(node.note().contains("no more can be held"), "{}", node.note());
    // What was delivered and removed makes room for what still has a name.
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    for round in 1..3 {
        fs::remove_file(node.dir().join(format!("0.log.T{round}"))).unwrap();
    }
    for _ in 0..3 {
        node.settle();
        node.worker.as_mut().unwrap().scan_all(false);
    }
    let found: BTreeSet<_> = logs(&node.finish()).into_iter().collect();
    assert_eq!(found, expected(4).into_iter().collect());
    FAIL_LINKS.set(None);
}
