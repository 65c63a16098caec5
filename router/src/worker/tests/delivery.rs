//! What Kafka does: refusals, failures, dead producers; and how lines are joined and cut.

use super::*;

#[test]
fn a_refused_topic_parks_its_namespace_and_no_other() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    let other = node.settings.pods_dir.join("shop_web_uid-2/web");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("0.log"), format!("{TIME} stdout F from shop\n")).unwrap();
    node.start();
    node.sink.borrow_mut().refuse.insert("logs.payments".to_owned(), Refusal::TooLarge);
    for _ in 0..20 {
        node.sink.borrow_mut().acknowledge_all = true;
        node.rounds(1);
    }
    let arrived: Vec<_> = node.sink.borrow().stored.iter().map(|sent| sent.topic.clone()).collect();
    assert_eq!(arrived, ["logs.shop"]);
    let worker = node.worker.as_mut().unwrap();
    worker.report();
    assert!(worker.parts.readiness.report().contains("payments"), "{}", worker.parts.readiness.report());
    node.sink.borrow_mut().refuse.clear();
    let stored = node.finish();
    assert_eq!(logs(&stored), ["from shop", "line 0", "line 1", "line 2"]);
}

#[test]
fn a_failed_delivery_goes_back_and_marks_what_it_sends_again() {
    let mut node = Node::new();
    node.lines("0.log", 0, 6);
    node.start();
    node.rounds(6);
    {
        let mut sink = node.sink.borrow_mut();
        assert_eq!(sink.in_flight(), 6);
        sink.fail(2, FailureKind::Retry, true);
        sink.acknowledge(4);
    }
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let seen: Vec<_> = records.iter().map(|record| (record.fairlead.seq, record.fairlead.again)).collect();
    assert_eq!(seen, (0..6).map(|n| (n, false)).chain((0..6).map(|n| (n, true))).collect::<Vec<_>>());
}

#[test]
fn a_dead_producer_is_made_anew() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.rounds(6);
    node.sink.borrow_mut().dead = Some("fenced".to_owned());
    node.rounds(3);
    assert_eq!(node.sink.borrow().renewals, 1);
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn fragments_join_across_rotation_and_are_flushed_when_the_container_ends() {
    let mut node = Node::new();
    node.write("0.log", format!("{TIME} stdout P one \n{TIME} stderr F between\n").as_bytes());
    node.start();
    node.settle();
    node.rotate("T1");
    node.write("0.log", format!("{TIME} stdout F two\n{TIME} stdout P never ended\n").as_bytes());
    node.settle();
    node.write("1.log", format!("{TIME} stdout F next instance\n").as_bytes());
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let seen: Vec<_> =
        records.iter().map(|record| (record.log.as_ref(), record.fairlead.seq, record.fairlead.lines)).collect();
    assert_eq!(seen, [("between", 0, 1), ("one two", 0, 2), ("never ended", 2, 1), ("next instance", 0, 1)]);
}

#[test]
fn a_line_longer_than_the_read_buffer_goes_in_chunks_and_a_torn_one_is_bad() {
    let mut node = Node::new();
    node.settings.limits.record_bytes_max = 50_000;
    let long: String = (0..90_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect::<String>().repeat(8);
    node.write(
        "0.log",
        format!("{TIME} stdout F {long}\n{}\n{TIME} stderr F after\n", "bad ".repeat(100_000)).as_bytes(),
    );
    node.write("0.log", format!("{TIME} stdout F torn").as_bytes());
    node.start();
    node.settle();
    fs::create_dir_all(node.dir()).unwrap();
    node.write("1.log", b"");
    let stored = node.finish();
    let mut joined = String::new();
    for value in &stored[..stored.len() - 1] {
        let record = Record::parse(value).unwrap();
        let chunk = record.fairlead.chunk.unwrap();
        assert_eq!((chunk.offset as usize, record.fairlead.seq), (joined.len(), 0));
        assert_eq!(record.fairlead.lines, u64::from(chunk.last));
        joined.push_str(&record.log);
    }
    assert_eq!(joined, long);
    assert_eq!(logs(&stored[stored.len() - 1..]), ["after"]);
}

#[test]
fn existing_files_are_passed_over_when_told_so() {
    let mut node = Node::new();
    node.settings.skip_existing = true;
    node.lines("0.log", 0, 3);
    node.rotate("T1");
    node.lines("0.log", 3, 3);
    node.start();
    node.settle();
    node.lines("0.log", 6, 2);
    assert_eq!(logs(&node.finish()), ["line 6", "line 7"]);
}
