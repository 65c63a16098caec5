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
