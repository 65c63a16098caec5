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
    node.sink.borrow_mut().refuse.insert("logs.payments".to_owned(), Refusal::Policy);
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
fn a_topic_of_small_batches_gets_long_lines_in_chunks() {
    let mut node = Node::new();
    node.topics.limit("logs.payments", 10_000);
    let long = "\u{1}".repeat(20_000);
    node.write("0.log", format!("{TIME} stdout F {long}\n{TIME} stdout F short\n").as_bytes());
    node.start();
    node.settle();
    assert!(node.sink.borrow().stored.iter().all(|sent| sent.value.len() < 10_000 && sent.lane != Lane::FIRST));
    let stored = node.finish();
    let logs = logs(&stored);
    assert_eq!(logs.last().unwrap(), "short");
    assert_eq!(logs[..logs.len() - 1].concat(), long);
}

#[test]
fn a_topic_that_says_nothing_of_its_limit_is_given_less_and_less_until_it_takes_it() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    let long = "x".repeat(100_000);
    node.write("0.log", format!("{TIME} stdout F {long}\n").as_bytes());
    node.start();
    node.sink.borrow_mut().takes.insert("logs.payments".to_owned(), 20_000);
    let stored = node.finish();
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let mut joined = String::new();
    for record in records.iter().filter(|record| record.fairlead.seq == 3 && record.stream != "fairlead") {
        let chunk = record.fairlead.chunk.unwrap();
        if chunk.offset as usize == joined.len() {
            joined.push_str(&record.log);
        }
    }
    assert_eq!(joined, long);
    for n in 0..3 {
        assert!(records.iter().any(|record| record.log == format!("line {n}")));
    }
}

#[test]
fn a_topic_that_takes_too_little_is_parked_and_says_so() {
    let mut node = Node::new();
    node.topics.limit("logs.payments", 1_000);
    node.lines("0.log", 0, 3);
    node.start();
    node.rounds(20);
    let worker = node.worker.as_mut().unwrap();
    worker.report();
    let said = worker.parts.readiness.report();
    assert!(said.contains("max.message.bytes") && node.sink.borrow().queue.is_empty(), "{said}");
    node.topics.limit("logs.payments", 1_000_000);
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn what_waits_to_be_read_is_measured() {
    let mut node = Node::new();
    let waits = |node: &mut Node| {
        let worker = node.worker.as_mut().unwrap();
        worker.measure_waiting();
        worker.parts.metrics.namespace(&Namespace::parse("payments").unwrap()).bytes_waiting.get()
    };
    node.topics.set("logs.payments", TopicState::Unknown);
    node.lines("0.log", 0, 100);
    let bytes = |node: &Node, name: &str| fs::metadata(node.dir().join(name)).unwrap().len().cast_signed();
    node.start();
    node.rounds(20);
    assert_eq!(waits(&mut node), bytes(&node, "0.log"));
    node.rotate("T1");
    node.lines("0.log", 100, 100);
    node.rounds(20);
    assert_eq!(waits(&mut node), bytes(&node, "0.log.T1") + bytes(&node, "0.log"), "also of a file that is rotated");
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.settle();
    assert_eq!(waits(&mut node), 0);
}

/// Another namespace's container on the node.
fn write_shop(node: &Node, line: &str) {
    let folder = node.settings.pods_dir.join("shop_web_uid-2/web");
    fs::create_dir_all(&folder).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("0.log")).unwrap();
    file.write_all(format!("{TIME} stdout F {line}\n").as_bytes()).unwrap();
}

/// Works until Kafka has so many records of a topic; gives the lanes that they came by.
fn work_until(node: &mut Node, topic: &str, count: usize) -> Vec<Lane> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        node.sink.borrow_mut().acknowledge_all = true;
        node.rounds(1);
        let sink = node.sink.borrow();
        let lanes: Vec<_> = sink.stored.iter().filter(|sent| sent.topic == topic).map(|sent| sent.lane).collect();
        if lanes.len() >= count {
            return lanes;
        }
        drop(sink);
        assert!(Instant::now() < deadline, "{topic} does not get its records");
        node.worker.as_ref().unwrap().watcher.wait(None, Duration::from_millis(5));
    }
}

#[test]
fn a_topic_that_was_refused_is_tried_on_another_lane() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.sink.borrow_mut().refuse.insert("logs.payments".to_owned(), Refusal::NotAuthorized);
    node.rounds(20);
    node.sink.borrow_mut().refuse.clear();
    write_shop(&node, "from shop");
    assert_eq!(work_until(&mut node, "logs.shop", 1), [Lane::FIRST]);
    let lanes = work_until(&mut node, "logs.payments", 3);
    assert!(lanes.iter().all(|lane| *lane != Lane::FIRST), "{lanes:?}");
    assert_eq!(logs(&node.finish()).len(), 4);
}

#[test]
fn a_frozen_topic_holds_up_nobody_else_and_loses_nothing() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    write_shop(&node, "shop 0");
    node.start();
    assert_eq!(work_until(&mut node, "logs.shop", 1).len() + work_until(&mut node, "logs.payments", 3).len(), 4);
    node.sink.borrow_mut().frozen.insert("logs.payments".to_owned());
    node.lines("0.log", 3, 3);
    node.rounds(10);
    // Behind the frozen topic's records on the same lane nothing is answered, until there is another lane.
    write_shop(&node, "shop 1");
    work_until_swapped(&mut node);
    write_shop(&node, "shop 2");
    node.sink.borrow_mut().frozen.clear();
    let stored = node.finish();
    let of = |name: &str| logs(&stored).into_iter().filter(|log| log.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(of("line"), expected(6));
    assert_eq!(of("shop"), ["shop 0", "shop 1", "shop 2"]);
}

/// Works until the frozen topic has a lane for itself and a new namespace's records arrive beside it.
fn work_until_swapped(node: &mut Node) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.sink.borrow().open.iter().flatten().count() == 1 {
        node.sink.borrow_mut().acknowledge_all = true;
        node.rounds(1);
        assert!(Instant::now() < deadline, "no other lane is made");
        node.worker.as_ref().unwrap().watcher.wait(None, Duration::from_millis(5));
    }
    let folder = node.settings.pods_dir.join("other_web_uid-3/web");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0.log"), format!("{TIME} stdout F other\n")).unwrap();
    let lanes = work_until(node, "logs.other", 1);
    assert!(lanes.iter().all(|lane| *lane != Lane::FIRST), "{lanes:?}");
    assert!(node.sink.borrow().queue.iter().any(|sent| sent.topic == "logs.payments"), "it was frozen all the time");
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
fn what_is_taken_back_is_read_again_at_once() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.rounds(6);
    assert_eq!(node.sink.borrow().queue.len(), 3);
    assert!(!node.worker.as_mut().unwrap().round(), "nothing is left to read");
    node.sink.borrow_mut().fail(3, FailureKind::Fatal, false);
    assert!(node.worker.as_mut().unwrap().round(), "no wait for something else to happen");
    assert_eq!(logs(&node.finish()), expected(3));
}

#[test]
fn a_notice_that_is_not_delivered_shows_no_topic_as_well() {
    let mut node = Node::new();
    node.lines("0.log", 0, 1);
    node.start();
    node.settle();
    node.stop();
    node.settings.topics = TopicMap::new("all.{namespace}", &[]).unwrap();
    node.start();
    node.rounds(6);
    let owed = std::mem::take(&mut node.sink.borrow_mut().queue);
    assert!(owed.len() == 1 && is_notice(&owed[0].value));
    node.sink.borrow_mut().queue = owed;
    node.sink.borrow_mut().fail(1, FailureKind::Retry, false);
    node.rounds(1);
    let topic = TopicName::parse("all.payments").unwrap();
    let is_well = |node: &Node| node.worker.as_ref().unwrap().lanes.is_well(&topic);
    assert!(!is_well(&node));
    node.settle();
    assert!(is_well(&node));
    node.stop();
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
