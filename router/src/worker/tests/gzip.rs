//! Rotated files that the router missed and that are left only as the kubelet's `.gz`.

use flate2::{Compression, write::GzEncoder};

use super::*;

/// A container whose files are rotated and compressed as the kubelet does it, at given seconds.
struct Kubelet<'a> {
    node: &'a Node,
    second: usize,
    lines: usize,
}

impl<'a> Kubelet<'a> {
    fn new(node: &'a Node, second: usize, lines: usize) -> Self {
        Self { node, second, lines }
    }

    /// Writes lines, the first of them now.
    fn write(&mut self, count: usize) -> &mut Self {
        let stamp = format!("2026-11-20T10:{:02}:{:02}.5Z", self.second / 60, self.second % 60);
        let lines: String =
            (self.lines..self.lines + count).map(|line| format!("{stamp} stdout F line {line}\n")).collect();
        self.node.write("0.log", lines.as_bytes());
        self.lines += count;
        self
    }

    /// Ten seconds later: compresses what is rotated, removes what is too old, and rotates.
    fn rotate(&mut self) -> &mut Self {
        self.second += 10;
        let dir = self.node.dir();
        for entry in crate::discover::list_logs(&dir).unwrap() {
            if matches!(entry.log.kind, crate::discover::LogKind::Rotated { .. }) {
                self.compress(&entry.name, Whole);
            }
        }
        self.node.rotate(&format!("20261120-10{:02}{:02}", self.second / 60, self.second % 60));
        self
    }

    fn compress(&self, name: &str, damage: Damage) {
        let (raw, new) = (self.node.dir().join(name), self.node.dir().join(format!("{name}.tmp")));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&fs::read(&raw).unwrap()).unwrap();
        let mut bytes = encoder.finish().unwrap();
        if damage == Cut {
            bytes.truncate(bytes.len() / 2);
        }
        fs::write(&new, bytes).unwrap();
        fs::rename(&new, self.node.dir().join(format!("{name}.gz"))).unwrap();
        fs::remove_file(raw).unwrap();
    }

    fn raw(&self) -> String {
        let logs = crate::discover::list_logs(&self.node.dir()).unwrap();
        let raw = logs.into_iter().find(|entry| matches!(entry.log.kind, crate::discover::LogKind::Rotated { .. }));
        raw.unwrap().name
    }

    fn remove(&self, second: usize) {
        let name = format!("0.log.20261120-10{:02}{:02}.gz", second / 60, second % 60);
        fs::remove_file(self.node.dir().join(name)).unwrap();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    Whole,
    Cut,
}
use Damage::{Cut, Whole};

/// Source, number, text and mark of each record, sources counted from 0.
fn seen(stored: &[Vec<u8>]) -> Vec<(usize, u64, String, bool)> {
    let records: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap()).collect();
    let mut sources: Vec<String> = Vec::new();
    let rows = records.iter().map(|record| {
        let source = record.fairlead.source.to_string();
        let place = sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        });
        (place, record.fairlead.seq, record.log.to_string(), record.fairlead.again)
    });
    rows.collect()
}

/// One unbroken run of lines, unmarked.
fn one_run(count: usize) -> Vec<(usize, u64, String, bool)> {
    (0..count).map(|line| (0, line as u64, format!("line {line}"), false)).collect()
}

#[test]
fn a_rotation_that_was_missed_is_read_from_its_gz_without_a_hole() {
    for rotations in 1..=4 {
        let mut node = Node::new();
        Kubelet::new(&node, 0, 0).write(3);
        node.start();
        node.settle();
        node.stop();
        let mut kubelet = Kubelet::new(&node, 0, 3);
        for _ in 0..rotations {
            kubelet.rotate().write(4);
        }
        node.start();
        let count = 3 + rotations * 4;
        assert_eq!(seen(&node.finish()), one_run(count), "{rotations} rotations");
    }
}

#[test]
fn rotations_between_two_looks_are_read_from_their_gz() {
    for overflowed in [false, true] {
        let mut node = Node::new();
        Kubelet::new(&node, 0, 0).write(3);
        node.start();
        node.settle();
        Kubelet::new(&node, 0, 3).rotate().write(1).rotate().write(1).rotate().write(1).rotate().write(2);
        node.worker.as_mut().unwrap().watcher.overflowed |= overflowed;
        assert_eq!(seen(&node.finish()), one_run(8), "overflowed: {overflowed}");
    }
}

#[test]
fn a_gz_whose_raw_file_was_held_is_never_read() {
    let mut node = Node::new();
    Kubelet::new(&node, 0, 0).write(3);
    node.start();
    for round in 0..6 {
        let mut kubelet = Kubelet::new(&node, round * 10, 3 + round * 2);
        kubelet.rotate().write(2);
        node.settle();
        if round % 2 == 1 {
            node.kill(0);
            node.start();
        }
    }
    assert_eq!(seen(&node.finish()), one_run(15));
}

#[test]
fn killed_while_a_gz_is_read_it_goes_on_with_the_same_numbers() {
    let mut node = Node::new();
    Kubelet::new(&node, 0, 0).write(3);
    node.start();
    node.settle();
    node.stop();
    Kubelet::new(&node, 0, 3).rotate().write(200).rotate().write(2).rotate().write(2);
    for arrived in [0, 5, 50] {
        node.sink.borrow_mut().acknowledge_all = false;
        node.start();
        node.sink.borrow_mut().acknowledge_all = false;
        node.rounds(6);
        node.kill(arrived);
    }
    // Its name is gone meanwhile, and the raw ones' too.
    fs::remove_dir_all(node.settings.pods_dir.join(POD)).unwrap();
    node.start();
    let stored = node.finish();
    let rows = seen(&stored);
    let lines: BTreeSet<_> = rows.iter().map(|(source, seq, log, _)| (*source, *seq, log.clone())).collect();
    let expected: BTreeSet<_> = (0..207).map(|line| (0, line, format!("line {line}"))).collect();
    assert_eq!(lines, expected);
    let mut told = BTreeSet::new();
    for (_, seq, _, again) in &rows {
        assert!(told.insert(*seq) || *again, "{seq} is an unmarked repeat");
    }
    assert_eq!(node.held(), 0);
}

#[test]
fn what_cannot_be_shown_is_read_under_a_new_epoch() {
    let mut node = Node::new();
    Kubelet::new(&node, 0, 0).write(3);
    node.start();
    node.settle();
    node.stop();
    let mut kubelet = Kubelet::new(&node, 0, 3);
    kubelet.rotate().write(1).rotate().write(1).rotate().write(1);
    // The file that was read last is gone: others may be as well.
    kubelet.remove(10);
    node.start();
    let rows = seen(&node.finish());
    let broken: Vec<_> = rows[3..].iter().map(|(source, seq, log, _)| (*source, *seq, log.as_str())).collect();
    assert_eq!(broken, [(1, 0, "line 3"), (1, 1, "line 4"), (1, 2, "line 5")]);
}

#[test]
fn a_damaged_gz_gives_what_it_can_and_breaks_the_run() {
    let mut node = Node::new();
    Kubelet::new(&node, 0, 0).write(3);
    node.start();
    node.settle();
    node.stop();
    let mut kubelet = Kubelet::new(&node, 0, 3);
    kubelet.rotate().write(5_000).rotate();
    let raw = kubelet.raw();
    kubelet.compress(&raw, Cut);
    kubelet.write(2).rotate().write(2);
    node.start();
    let rows = seen(&node.finish());
    let first: Vec<_> = rows.iter().take_while(|row| row.0 == 0).cloned().collect();
    assert!(first.len() > 100 && first.len() < 5_003, "{}", first.len());
    assert_eq!(first, one_run(first.len()));
    let behind: Vec<_> =
        rows[first.len()..].iter().map(|(source, seq, log, _)| (*source, *seq, log.as_str())).collect();
    assert_eq!(behind, [(1, 0, "line 5003"), (1, 1, "line 5004"), (1, 2, "line 5005"), (1, 3, "line 5006")]);
}

#[test]
fn at_the_first_start_what_is_compressed_is_read_first_unless_told_otherwise() {
    for skip in [false, true] {
        let mut node = Node::new();
        node.settings.skip_existing = skip;
        Kubelet::new(&node, 0, 0).write(2).rotate().write(2).rotate().write(2).rotate().write(2);
        node.start();
        node.settle();
        Kubelet::new(&node, 40, 8).write(1);
        let rows = seen(&node.finish());
        let expected = if skip { vec![(0, 0, "line 8".to_owned(), false)] } else { one_run(9) };
        assert_eq!(rows, expected, "skip: {skip}");
    }
}

#[test]
fn after_positions_were_lost_what_is_compressed_is_marked() {
    let mut node = Node::new();
    Kubelet::new(&node, 0, 0).write(2).rotate().write(2).rotate().write(2);
    node.start();
    node.settle();
    node.stop();
    fs::remove_file(node.settings.state_dir.join("positions")).unwrap();
    node.start();
    let rows = seen(&node.finish());
    assert_eq!(rows[..6], one_run(6));
    let again: Vec<_> = rows[6..].iter().map(|(source, _, log, again)| (*source, log.as_str(), *again)).collect();
    let expected: Vec<_> = (0..6).map(|line| format!("line {line}")).collect();
    assert_eq!(again, expected.iter().map(|log| (1, log.as_str(), true)).collect::<Vec<_>>());
}
