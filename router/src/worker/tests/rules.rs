//! Rules that keep lines and numbers right, where no other test fails without them. The list is in docs/reliability.md.

use super::*;

fn seen(stored: &[Vec<u8>]) -> Vec<(String, u64)> {
    let parsed = stored.iter().map(|value| Record::parse(value).unwrap());
    parsed.map(|record| (record.log.into_owned(), record.fairlead.seq)).collect()
}

#[test]
fn rule_01_a_links_number_is_never_used_twice() {
    let mut node = Node::new();
    node.lines("0.log", 0, 1);
    node.start();
    node.settle();
    node.rotate("T1");
    node.settle();
    fs::remove_file(node.dir().join("0.log.T1")).unwrap();
    node.settle();
    node.stop();
    node.rotate("T2");
    node.start();
    node.settle();
    let held = HeldFolder::open(&node.settings.state_dir).unwrap().list().unwrap();
    let numbers: Vec<_> = held.iter().map(|held| held.link).collect();
    assert_eq!(numbers, [1, 2], "0 was let go and is not given again");
}

#[test]
fn rules_06_and_14_nothing_is_sent_of_an_epoch_or_a_file_that_is_not_stored() {
    let mut node = Node::new();
    node.start();
    node.lines("0.log", 0, 2);
    let worker = node.worker.as_mut().unwrap();
    for _ in 0..5 {
        worker.look();
        worker.read_ready();
    }
    assert_eq!(node.sink.borrow().in_flight(), 0, "the epoch is not stored");
    node.settle();
    node.rotate("T1");
    node.lines("0.log", 2, 1);
    let worker = node.worker.as_mut().unwrap();
    for _ in 0..5 {
        worker.look();
        worker.read_ready();
    }
    assert_eq!(node.sink.borrow().in_flight(), 0, "the file is not stored");
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn rule_09_a_live_name_that_is_missing_ends_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    fs::rename(node.dir().join("0.log"), node.dir().join("0.log.T1")).unwrap();
    node.settle();
    node.lines("0.log.T1", 2, 1);
    node.settle();
    node.lines("0.log", 3, 1);
    let stored = node.finish_all();
    assert_eq!(notices(&stored).len(), 0, "no end is told");
    assert_eq!(seen(&stored), expected(4).into_iter().zip(0..).collect::<Vec<_>>(), "and the numbers go on");
}

#[test]
fn rule_10_a_line_that_is_never_ended_pins_its_own_stream_alone() {
    let mut node = Node::new();
    node.write("0.log", format!("{TIME} stdout P dots ...\n").as_bytes());
    for n in 0..4 {
        node.write("0.log", format!("{TIME} stderr F err {n}\n").as_bytes());
    }
    node.start();
    node.settle();
    node.kill(0);
    node.start();
    node.write("0.log", format!("{TIME} stdout F end\n").as_bytes());
    let stored = node.finish();
    let errors: Vec<_> = logs(&stored).into_iter().filter(|log| log.starts_with("err")).collect();
    assert_eq!(errors, ["err 0", "err 1", "err 2", "err 3"], "what stderr had delivered is not sent again");
    assert_eq!(logs(&stored).last().unwrap(), "dots ...end");
}
