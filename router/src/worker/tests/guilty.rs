//! Records that Kafka refuses for good.

use fairlead_contract::record::Notice;

use super::*;

/// A node whose topic refuses every batch with a certain line.
fn poisoned(lines: &[&str]) -> Node {
    let mut node = Node::new();
    node.settings.topics.set_dead_letter("{topic}.dlq").unwrap();
    for line in lines {
        node.write("0.log", format!("{TIME} stdout F {line}\n").as_bytes());
    }
    node.start();
    node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "poison".to_owned());
    node
}

/// What a topic has, each line once and in order, with the gaps.
fn read(stored: &[(String, Vec<u8>)], topic: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut read = Vec::new();
    for (_, value) in stored.iter().filter(|(of, _)| of == topic) {
        let record = Record::parse(value).unwrap();
        let notice = record.fairlead.notice.map(|notice| Notice::parse(notice.get()).unwrap());
        let notice = notice.map(|notice| (notice.kind, notice.seq, notice.lines));
        if !seen.insert((record.fairlead.source.to_string(), record.fairlead.seq, notice)) {
            continue;
        }
        read.push(match notice {
            Some((kind, seq, lines)) => format!("{} {seq} {}", kind.as_str(), lines.unwrap_or(0)),
            None => record.log.to_string(),
        });
    }
    read
}

/// Why lines are announced as lost.
fn reasons(stored: &[(String, Vec<u8>)]) -> Vec<Option<LossReason>> {
    let values: Vec<_> = stored.iter().map(|(_, value)| value.clone()).collect();
    notices(&values).into_iter().filter(|notice| notice.kind == NoticeKind::Gap).map(|notice| notice.reason).collect()
}

fn settled(node: &mut Node) -> Vec<(String, Vec<u8>)> {
    node.settle();
    let stored = node.sink.borrow().stored.iter().map(|sent| (sent.topic.clone(), sent.value.clone())).collect();
    node.stop();
    stored
}

#[test]
fn only_a_record_that_is_refused_alone_is_guilty() {
    let mut node = poisoned(&["a", "b", "poison", "c", "poison 2", "poison 3", "d"]);
    let stored = settled(&mut node);
    assert_eq!(read(&stored, "logs.payments"), ["a", "b", "gap 2 1", "c", "gap 4 1", "gap 5 1", "d"]);
    assert_eq!(read(&stored, "logs.payments.dlq"), ["poison", "poison 2", "poison 3"]);
    let letters = std::mem::take(&mut node.sink.borrow_mut().dead_letters);
    assert_eq!(reasons(&stored), [Some(LossReason::InvalidRecord); 3]);
    let letter = ["logs.payments.dlq", "invalid_record", "logs.payments"].map(str::to_owned);
    assert_eq!(letters, vec![letter.into(); 3]);
}

#[test]
fn lines_go_on_where_the_dead_letters_are_not_taken() {
    let mut node = Node::new();
    for line in ["a", "poison", "b"] {
        node.write("0.log", format!("{TIME} stdout F {line}\n").as_bytes());
    }
    node.start(); // there is no topic of dead letters at all
    node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "poison".to_owned());
    let stored = settled(&mut node);
    assert_eq!(read(&stored, "logs.payments"), ["a", "gap 1 1", "b"]);
    assert_eq!(read(&stored, "logs.payments.dlq"), Vec::<String>::new());
    assert_eq!(reasons(&stored), [Some(LossReason::NotKept)]);
}

#[test]
fn a_guilty_record_is_found_again_after_a_kill() {
    let mut node = poisoned(&["a", "poison", "b"]);
    for _ in 0..12 {
        node.sink.borrow_mut().acknowledge_all = true;
        node.rounds(1);
    }
    node.kill(0);
    let before = std::mem::take(&mut node.stored);
    node.start();
    node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "poison".to_owned());
    let mut stored: Vec<_> = before.into_iter().map(|value| ("logs.payments".to_owned(), value)).collect();
    stored.retain(|(_, value)| !value.windows(6).any(|part| part == b"poison"));
    stored.extend(settled(&mut node));
    assert_eq!(read(&stored, "logs.payments"), ["a", "gap 1 1", "b"]);
    assert!(read(&stored, "logs.payments.dlq").len() <= 1);
}

#[test]
fn a_record_beside_the_guilty_one_of_another_container_is_innocent() {
    let mut node = poisoned(&["a", "poison", "b"]);
    let other = node.settings.pods_dir.join(POD).join("sidecar");
    let second = node.settings.pods_dir.join("payments_web_uid-2/web");
    for folder in [&other, &second] {
        fs::create_dir_all(folder).unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let lines: String = (0..20).map(|n| format!("{TIME} stdout F {name} {n}\n")).collect();
        fs::write(folder.join("0.log"), lines).unwrap();
    }
    let stored = settled(&mut node);
    let read = read(&stored, "logs.payments");
    let of = |what: &str| read.iter().filter(|log| log.starts_with(what)).cloned().collect::<Vec<_>>();
    assert_eq!(of("gap"), ["gap 1 1"]);
    for name in ["sidecar", "web"] {
        assert_eq!(of(name), (0..20).map(|n| format!("{name} {n}")).collect::<Vec<_>>());
    }
    assert_eq!(self::read(&stored, "logs.payments.dlq"), ["poison"]);
}

#[test]
fn an_end_that_is_refused_is_a_dead_letter_and_owed_no_more() {
    for kept in [true, false] {
        let mut node = poisoned(&["a", "b"]);
        node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "end_of_stream".to_owned());
        if !kept {
            node.settings.topics = TopicMap::default();
            node.kill(0);
            node.stored.clear();
            node.start();
            node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "end_of_stream".to_owned());
        }
        node.rounds(3);
        fs::remove_dir_all(node.dir().parent().unwrap()).unwrap();
        let stored = settled(&mut node);
        assert_eq!(read(&stored, "logs.payments"), ["a", "b"]);
        let dead = read(&stored, "logs.payments.dlq");
        assert_eq!(dead, if kept { vec!["end_of_stream 2 2"] } else { vec![] });
        assert_eq!(node.held(), 0, "the container is done with");
        node.start();
        assert!(node.worker.as_ref().unwrap().instances.is_empty(), "and forgotten");
        node.stop();
    }
}

#[test]
fn a_gap_that_is_refused_too_is_a_dead_letter_beside_its_line() {
    let mut node = poisoned(&["a", "reason", "b"]);
    // The line and its gap.
    node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "reason".to_owned());
    let stored = settled(&mut node);
    assert_eq!(read(&stored, "logs.payments"), ["a", "b"]);
    assert_eq!(read(&stored, "logs.payments.dlq"), ["reason", "gap 1 1"]);
}

#[test]
fn garbage_in_front_of_the_guilty_line_is_announced_apart() {
    let mut node = Node::new();
    node.settings.topics.set_dead_letter("{topic}.dlq").unwrap();
    node.write("0.log", format!("garbage\n{TIME} stdout F poison\n{TIME} stdout F b\n").as_bytes());
    node.start();
    node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "poison".to_owned());
    let stored = settled(&mut node);
    assert_eq!(read(&stored, "logs.payments"), ["parse_errors 0 1", "gap 0 1", "b"]);
    assert_eq!(read(&stored, "logs.payments.dlq"), ["poison"]);
}

#[test]
fn of_a_long_line_with_a_guilty_piece_the_lines_that_were_read_are_announced() {
    let filler = "x".repeat(16 << 10);
    let check = |text: &str, gaps: &[&str], rest: usize| {
        let mut node = Node::new();
        node.settings.topics.set_dead_letter("{topic}.dlq").unwrap();
        node.write("0.log", format!("{TIME} stdout F a\n{text}{TIME} stdout F b\n").as_bytes());
        node.start();
        node.sink.borrow_mut().poison.insert("logs.payments".to_owned(), "poison".to_owned());
        let stored = settled(&mut node);
        let read = read(&stored, "logs.payments");
        let (long, short): (Vec<_>, Vec<_>) = read.into_iter().partition(|log| log.len() > 100);
        assert_eq!(short, [&["a"], gaps, &["b"]].concat());
        assert_eq!(long.iter().map(String::len).sum::<usize>(), rest);
        assert_eq!(self::read(&stored, "logs.payments.dlq").len(), 1);
    };
    // One physical line, which is read in one piece, and in several.
    for fillers in [12, 40] {
        let text = format!("{TIME} stdout F poison{}\n", filler.repeat(fillers));
        check(&text, &["gap 1 1"], 0);
    }
    // Fragments: the first chunk is full with the ninth, and what follows is a line of its own.
    let fragments: String =
        (0..11).map(|n| format!("{TIME} stdout P {}{filler}\n", if n == 0 { "poison" } else { "" })).collect();
    check(&format!("{fragments}{TIME} stdout F {filler}\n"), &["gap 1 8"], 4 * (16 << 10));
}
