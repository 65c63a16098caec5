//! A full disk, and a state folder that cannot be written.

use std::process::Command;

use rustix::io::Errno;

use super::{mounts::with_mounts, *};
use crate::{checkpoint::FAIL_WRITES, hold::FAIL_LINKS};

/// Fills a file system to its last byte.
fn fill(folder: &std::path::Path) {
    let mut filler = File::create(folder.join("filler")).unwrap();
    for bytes in [64 << 10, 4 << 10, 512, 1] {
        while filler.write_all(&vec![b'x'; bytes]).is_ok() {}
    }
    assert!(fs::write(folder.join("one more"), [b'x'; 8 << 10]).is_err(), "the disk is full");
    let _ = fs::remove_file(folder.join("one more"));
}

#[test]
fn on_a_full_disk_positions_go_on_and_nothing_comes_twice() {
    const TEST: &str = "worker::tests::disk::on_a_full_disk_positions_go_on_and_nothing_comes_twice";
    let Some(folder) = with_mounts(TEST, "mount -t tmpfs -o size=8m none \"$D\"") else { return };
    let mut node = Node::new();
    node.settings.state_dir = folder.join("state");
    node.settings.pods_dir = folder.join("pods");
    node.lines("0.log", 0, 3_000);
    node.start();
    node.settle();
    node.topics.set("logs.payments", TopicState::Unknown);
    node.lines("0.log", 3_000, 3_000);
    node.rotate("T1");
    node.lines("0.log", 6_000, 10);
    // Somebody took the room of the spare file.
    fs::remove_file(node.settings.state_dir.join("positions.new")).unwrap();
    fill(&folder);
    node.worker.as_mut().unwrap().store.forget_room();
    node.rounds(3);
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    assert!(node.worker.as_ref().unwrap().parts.readiness.report().contains("the disk of state_dir is full"));
    // What was delivered and removed is let go, which frees the disk.
    node.kill(0);
    node.start();
    node.settle();
    node.kill(0);
    fs::remove_file(folder.join("filler")).unwrap();
    node.start();
    node.lines("0.log", 6_010, 1);
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(6_011));
    assert_eq!(node.held(), 2);
}

#[test]
fn a_full_disk_that_holds_only_our_files_frees_itself() {
    const TEST: &str = "worker::tests::disk::a_full_disk_that_holds_only_our_files_frees_itself";
    let Some(folder) = with_mounts(TEST, "mount -t tmpfs -o size=8m none \"$D\"") else { return };
    let mut node = Node::new();
    node.settings.state_dir = folder.join("state");
    node.settings.pods_dir = folder.join("pods");
    node.topics.set("logs.payments", TopicState::Unknown);
    fs::create_dir_all(&node.settings.pods_dir).unwrap();
    node.start();
    node.lines("0.log", 0, 30_000);
    node.rounds(3);
    fill(&folder);
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.rounds(3);
    assert!(fs::write(folder.join("one more"), [b'x'; 64 << 10]).is_err(), "the held file keeps it full");
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    assert_eq!(node.held(), 0);
    fs::write(folder.join("one more"), [b'x'; 64 << 10]).unwrap();
    assert_eq!(logs(&node.finish()), expected(30_000));
}

#[test]
fn a_state_folder_that_cannot_be_written_stops_only_what_must_be_stored() {
    for error in [Errno::ROFS, Errno::IO, Errno::NOSPC] {
        let mut node = Node::new();
        node.lines("0.log", 0, 3);
        node.start();
        node.settle();
        FAIL_WRITES.set(Some(error));
        FAIL_LINKS.set(Some(error));
        // A file that stands in an epoch goes on; another one waits, held.
        node.lines("0.log", 3, 3);
        let other = node.settings.pods_dir.join(POD).join("web");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("0.log"), format!("{TIME} stdout F other container\n")).unwrap();
        node.rounds(30);
        assert_eq!(node.sink.borrow().stored.len(), 6, "{error:?}");
        assert!(!node.worker.as_ref().unwrap().parts.readiness.is_ready());
        assert!(node.worker.as_ref().unwrap().parts.metrics.store_errors.get() > 0);
        FAIL_WRITES.set(None);
        FAIL_LINKS.set(None);
        node.settle();
        assert!(node.worker.as_ref().unwrap().parts.readiness.is_ready());
        node.kill(0);
        node.start();
        let found = logs(&node.finish());
        assert_eq!(found[..6], expected(6));
        assert_eq!(found[6..], ["other container"]);
    }
}

#[test]
fn a_router_starts_on_a_full_disk() {
    const TEST: &str = "worker::tests::disk::a_router_starts_on_a_full_disk";
    let Some(folder) = with_mounts(TEST, "mount -t tmpfs -o size=8m none \"$D\"") else { return };
    let mut node = Node::new();
    node.settings.state_dir = folder.join("state");
    node.settings.pods_dir = folder.join("pods");
    node.lines("0.log", 0, 3);
    node.start();
    node.settle();
    node.kill(0);
    fill(&folder);
    for _ in 0..5 {
        node.start();
        node.settle();
        node.kill(0);
    }
    assert_eq!(logs(&std::mem::take(&mut node.stored)), expected(3), "nothing comes twice");
    let free = Command::new("stat").args(["-f", "-c", "%f"]).arg(&folder).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&free.stdout).trim(), "0", "no room was given away");
}
