//! Docker's files, reached through the link in the kubelet's folder. A small writer does what Docker's `json-file` logger does to them.

mod links;

use std::os::unix::fs::symlink;

use flate2::{Compression, write::GzEncoder};
use rustix::io::Errno;

use super::{mounts::with_mounts, *};
use crate::{discover::DockerDir, hold::FAIL_LINKS};

/// One of Docker's containers: `loggerutils/logfile.go` in small.
pub struct Container {
    /// The kubelet's link to it.
    link: PathBuf,
    /// Its folder in Docker's.
    folder: PathBuf,
    id: String,
    max_file: usize,
    compress: bool,
    rotations: usize,
    lines: usize,
}

impl Node {
    /// A node on which Docker keeps its containers in a folder beside the pods.
    pub fn with_docker() -> Self {
        let mut node = Self::new();
        let folder = node._folder.path().join("docker");
        fs::create_dir_all(&folder).unwrap();
        node.settings.docker_containers_dir = Some(DockerDir::new(folder));
        node
    }

    fn docker_dir(&self) -> PathBuf {
        self.settings.docker_containers_dir.as_ref().unwrap().path().to_owned()
    }

    /// A container of the pod, and the link to it.
    pub fn container(&self, restart: u32) -> Container {
        let id = format!("{restart:064x}");
        let folder = self.docker_dir().join(&id);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(self.dir()).unwrap();
        let link = self.dir().join(format!("{restart}.log"));
        let container = Container { link, folder, id, max_file: 100, compress: false, rotations: 0, lines: 0 };
        fs::write(container.file(""), "").unwrap();
        symlink(container.file(""), &container.link).unwrap();
        container
    }

    fn unfollowed(&mut self) -> (i64, String) {
        let worker = self.worker.as_mut().unwrap();
        worker.report();
        (worker.parts.metrics.unfollowed_links.get(), worker.parts.readiness.report())
    }
}

impl Container {
    fn file(&self, rotated: &str) -> PathBuf {
        self.folder.join(format!("{}-json.log{rotated}", self.id))
    }

    pub fn write_bytes(&mut self, bytes: &[u8]) {
        OpenOptions::new().append(true).create(true).open(self.file("")).unwrap().write_all(bytes).unwrap();
    }

    /// Writes a physical line with this between the quotes of `log`.
    fn write_log(&mut self, stream: &str, log: &str) {
        let stamp = format!("2026-11-20T10:{:02}:{:02}.5Z", self.rotations / 60, self.rotations % 60);
        let line = format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"{stamp}\"}}\n");
        self.write_bytes(line.as_bytes());
    }

    fn write(&mut self, count: usize) -> &mut Self {
        for number in self.lines..self.lines + count {
            self.write_log("stdout", &format!("line {number}\\n"));
        }
        self.lines += count;
        self
    }

    /// Gives every file the next number, makes a new one, and compresses the one before.
    fn rotate(&mut self) -> &mut Self {
        let end = if self.compress { ".gz" } else { "" };
        if self.max_file < 2 {
            fs::remove_file(self.file("")).unwrap();
        } else {
            let _ = fs::remove_file(self.file(&format!(".{}{end}", self.max_file - 1)));
            for number in (1..self.max_file - 1).rev() {
                let name = |number| self.file(&format!(".{number}{end}"));
                let _ = fs::rename(name(number), name(number + 1));
            }
            fs::rename(self.file(""), self.file(".1")).unwrap();
        }
        fs::write(self.file(""), "").unwrap();
        if self.compress && self.max_file > 1 {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&fs::read(self.file(".1")).unwrap()).unwrap();
            fs::write(self.file(".1.gz"), encoder.finish().unwrap()).unwrap();
            fs::remove_file(self.file(".1")).unwrap();
        }
        self.rotations += 1;
        self
    }

    /// As the kubelet has it removed: the link first.
    fn remove(self) {
        fs::remove_file(&self.link).unwrap();
        fs::remove_dir_all(&self.folder).unwrap();
        fs::remove_dir_all(self.link.parent().unwrap().parent().unwrap()).unwrap();
    }
}

/// Source, number and text of each record, sources counted from 0, and whether it is marked.
fn rows(stored: &[Vec<u8>]) -> Vec<(usize, u64, String, bool)> {
    let mut sources: Vec<String> = Vec::new();
    let row = |value: &Vec<u8>| {
        let record = Record::parse(value).unwrap();
        let source = record.fairlead.source.to_string();
        let place = sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        });
        (place, record.fairlead.seq, record.log.to_string(), record.fairlead.again)
    };
    records(stored).iter().map(row).collect()
}

/// One unbroken run of lines, unmarked.
fn one_run(count: usize) -> Vec<(usize, u64, String, bool)> {
    (0..count).map(|line| (0, line as u64, format!("line {line}"), false)).collect()
}

/// With links, and with descriptors alone.
fn either_way(test: impl Fn(Node, bool)) {
    for linked in [true, false] {
        FAIL_LINKS.set((!linked).then_some(Errno::XDEV));
        test(Node::with_docker(), linked);
        FAIL_LINKS.set(None);
    }
}

#[test]
fn rotation_gives_each_file_the_name_of_another_and_the_numbers_go_on() {
    for compress in [false, true] {
        for max_file in [1, 2, 3, 100] {
            either_way(|mut node, linked| {
                let mut container = Container { max_file, compress, ..node.container(0) };
                container.write(2);
                node.start();
                for _ in 0..6 {
                    container.rotate().write(3);
                    node.rounds(2);
                    assert_eq!(node.held() == 0, !linked);
                }
                container.remove();
                let stored = node.finish_all();
                assert_eq!(rows(&stored), one_run(20), "max_file {max_file}, compress {compress}, linked {linked}");
                let kinds: Vec<_> = notices(&stored).iter().map(|notice| (notice.kind, notice.lines)).collect();
                assert_eq!(kinds, [(NoticeKind::EndOfStream, Some(20))]);
            });
        }
    }
}

#[test]
fn rotations_between_two_looks_are_followed_by_name() {
    for compress in [false, true] {
        for lost_events in [false, true] {
            either_way(|mut node, _| {
                let mut container = Container { compress, ..node.container(0) };
                container.write(2);
                node.start();
                node.settle();
                container.rotate().write(1).rotate().write(1).rotate().write(2);
                node.worker.as_mut().unwrap().watcher.overflowed |= lost_events;
                node.settle();
                container.rotate().write(1).rotate().write(1);
                assert_eq!(rows(&node.finish()), one_run(8), "compress {compress}, lost events {lost_events}");
            });
        }
    }
}

#[test]
fn names_that_move_under_the_look_mislead_nobody() {
    for lost_events in [false, true] {
        let mut node = Node::with_docker();
        // No file is removed before it is held.
        let mut container = Container { max_file: 400, ..node.container(0) };
        node.start();
        let writing = std::thread::spawn(move || {
            (0..300).for_each(|_| _ = container.write(1).rotate());
            container.lines
        });
        while !writing.is_finished() {
            node.worker.as_mut().unwrap().watcher.overflowed |= lost_events;
            node.rounds(1);
        }
        let lines = writing.join().unwrap();
        assert_eq!(rows(&node.finish()), one_run(lines), "lost events: {lost_events}");
    }
}

#[test]
fn names_that_move_while_a_router_starts_mislead_nobody() {
    FAIL_LINKS.set(Some(Errno::XDEV));
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    container.write(1);
    node.start();
    node.settle();
    let writing = std::thread::spawn(move || {
        for _ in 0..80 {
            container.write(1).rotate();
            // A pace at which names stand still between two rotations.
            std::thread::sleep(Duration::from_millis(4));
        }
        container.lines
    });
    while !writing.is_finished() {
        node.kill(0);
        node.start();
        node.rounds(1);
    }
    let lines = writing.join().unwrap();
    let stored = node.finish_all();
    let numbers: BTreeSet<_> = rows(&stored).into_iter().map(|(source, seq, log, _)| (source, seq, log)).collect();
    let expected: BTreeSet<_> = (0..lines).map(|line| (0, line as u64, format!("line {line}"))).collect();
    assert_eq!(numbers, expected, "one run: {:?}", notices(&stored));
    FAIL_LINKS.set(None);
}

#[test]
fn what_was_rotated_while_the_router_was_away_is_known_by_its_file_and_counted_by_its_name() {
    for clean in [true, false] {
        for rotations in 0..4 {
            either_way(|mut node, linked| {
                let mut container = node.container(0);
                container.write(2).rotate().write(2);
                node.start();
                node.settle();
                if clean {
                    node.stop()
                } else {
                    node.kill(0)
                }
                container.write(1);
                (0..rotations).for_each(|_| _ = container.rotate().write(2));
                node.start();
                let found = rows(&node.finish());
                let numbers: Vec<_> = found.iter().map(|(source, seq, log, _)| (*source, *seq, log.as_str())).collect();
                let texts: Vec<_> = (0..5 + rotations * 2).map(|line| format!("line {line}")).collect();
                let expected: Vec<_> =
                    texts.iter().enumerate().map(|(seq, log)| (0, seq as u64, log.as_str())).collect();
                assert_eq!(numbers, expected, "clean {clean}, {rotations} rotations, linked {linked}");
            });
        }
    }
}

#[test]
fn what_was_compressed_while_the_router_was_away_is_read() {
    for rotations in 1..4 {
        either_way(|mut node, linked| {
            let mut container = Container { compress: true, ..node.container(0) };
            container.write(3);
            node.start();
            node.settle();
            node.stop();
            (0..rotations).for_each(|_| _ = container.rotate().write(2));
            node.start();
            let stored = node.finish_all();
            let found = rows(&stored);
            let count = 3 + rotations * 2;
            if linked {
                assert_eq!(found, one_run(count), "{rotations} rotations");
                return;
            }
            // Without a link nothing is left of the file that was read: what has its lines now is read again, marked.
            assert_eq!(found[..3], one_run(3));
            let again: Vec<_> = found[3..].iter().map(|(source, seq, log, _)| (*source, *seq, log.clone())).collect();
            let expected: Vec<_> = (0..count).map(|line| (1, line as u64, format!("line {line}"))).collect();
            assert_eq!(again, expected, "{rotations} rotations");
            assert!(found[3..6].iter().all(|(_, _, _, again)| *again), "{found:?}");
            let gaps: Vec<_> = notices(&stored).into_iter().filter(|notice| notice.kind == NoticeKind::Gap).collect();
            assert!(gaps.iter().all(|gap| gap.reason == Some(LossReason::LinkLost)) && !gaps.is_empty(), "{gaps:?}");
        });
    }
}

#[test]
fn what_docker_removed_while_the_router_was_away_breaks_the_run_and_is_announced() {
    either_way(|mut node, linked| {
        let mut container = Container { max_file: 3, ..node.container(0) };
        container.write(3);
        node.start();
        node.settle();
        node.stop();
        container.rotate().write(1).rotate().write(1).rotate().write(1).rotate().write(1);
        node.start();
        let stored = node.finish_all();
        let found = rows(&stored);
        assert_eq!(found[..3], one_run(3));
        let rest: Vec<_> = found[3..].iter().map(|(source, seq, log, _)| (*source, *seq, log.as_str())).collect();
        assert_eq!(rest, [(1, 0, "line 4"), (1, 1, "line 5"), (1, 2, "line 6")], "linked {linked}");
        let gaps: Vec<_> = notices(&stored).into_iter().filter(|notice| notice.kind == NoticeKind::Gap).collect();
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.lines.is_none()), "{gaps:?}");
    });
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_repeats_are_marked() {
    for arrived in [0, 1, 3, 100] {
        either_way(|mut node, _| {
            let mut container = node.container(0);
            let mut killed = 0;
            for round in 0..12 {
                container.write(2);
                if round % 3 == 1 {
                    container.rotate().write(1);
                }
                if node.worker.is_none() {
                    node.start();
                }
                node.rounds(1 + round % 4);
                if round % 4 == 3 {
                    node.kill(arrived);
                    killed += 1;
                }
            }
            assert_eq!(killed, 3);
            if node.worker.is_none() {
                node.start();
            }
            let found = rows(&node.finish());
            let mut seen = BTreeSet::new();
            for (source, seq, log, again) in &found {
                assert_eq!((*source, log), (0, &format!("line {seq}")));
                assert!(seen.insert(*seq) || *again, "{seq} is an unmarked repeat");
            }
            assert_eq!(seen.len(), container.lines, "{arrived} arrived");
        });
    }
}

#[test]
fn pieces_are_joined_by_stream_and_across_rotation() {
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    let piece = "x".repeat(16 << 10);
    container.write_log("stdout", &piece);
    container.write_log("stderr", "warn");
    container.write_log("stdout", &piece);
    container.rotate();
    container.write_log("stderr", "ing\\n");
    container.write_log("stdout", "end\\n");
    container.write_log("stdout", "never ended");
    node.start();
    node.settle();
    container.remove();
    let stored = node.finish();
    let found: Vec<_> = stored
        .iter()
        .map(|value| {
            let record = Record::parse(value).unwrap();
            (record.stream.to_string(), record.fairlead.lines, record.log.len(), record.time.to_string())
        })
        .collect();
    let (first, second) = ("2026-11-20T10:00:00.5Z", "2026-11-20T10:00:01.5Z");
    let row = |stream: &str, lines, bytes, time: &str| (stream.to_owned(), lines, bytes, time.to_owned());
    let expected =
        [row("stderr", 2, 7, first), row("stdout", 3, 2 * piece.len() + 3, first), row("stdout", 1, 11, second)];
    assert_eq!(found, expected);
}

#[test]
fn what_is_no_line_of_dockers_is_numbered_apart_and_announced() {
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    let long = "x".repeat(300 << 10);
    container.write(1);
    container.write_bytes(format!("{TIME} stdout F a line of another runtime\n").as_bytes());
    container.write_log("stdin", "x");
    container.write(1);
    // Longer than one read.
    container.write_log("stdout", &long);
    container.write(1);
    container.write_bytes(b"{\"log\":\"torn");
    node.start();
    node.settle();
    container.remove();
    let stored = node.finish_all();
    assert_eq!(rows(&stored), one_run(3));
    let errors = notices(&stored).into_iter().filter(|notice| notice.kind == NoticeKind::ParseErrors);
    let errors: Vec<_> = errors.map(|notice| (notice.seq, notice.lines)).collect();
    assert_eq!(errors, [(0, Some(2)), (2, Some(1)), (3, Some(1))]);
}

#[test]
fn a_torn_last_line_waits_for_its_end() {
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    container.write(1);
    node.start();
    let line = format!("{{\"log\":\"line 1\\n\",\"stream\":\"stdout\",\"time\":\"{TIME}\"}}\n");
    for (place, byte) in line.bytes().enumerate() {
        container.write_bytes(&[byte]);
        if place % 7 == 0 {
            node.settle_for(1, Duration::ZERO, true);
        }
    }
    assert_eq!(rows(&node.finish()), one_run(2));
}

#[test]
fn a_restart_of_the_container_is_an_instance_of_its_own() {
    either_way(|mut node, _| {
        let mut first = node.container(0);
        first.write(2);
        node.start();
        node.settle();
        let mut second = node.container(1);
        first.write(1);
        second.write(2);
        node.settle();
        second.rotate().write(1);
        fs::remove_file(&first.link).unwrap();
        fs::remove_dir_all(&first.folder).unwrap();
        node.settle();
        assert_eq!(
            node.worker.as_ref().unwrap().instances.len(),
            1,
            "the first is told to be at its end, and forgotten"
        );
        second.rotate().write(1);
        let stored = node.finish();
        let of = |source: &str| {
            let of_source = |value: &&Vec<u8>| Record::parse(value).unwrap().fairlead.source.contains(source);
            logs(&stored.iter().filter(of_source).cloned().collect::<Vec<_>>())
        };
        assert_eq!((of("/api/0/"), of("/api/1/")), (expected(3), expected(4)));
    });
}

#[test]
fn on_another_mount_descriptors_hold_and_that_is_said() {
    const TEST: &str = "worker::tests::docker::on_another_mount_descriptors_hold_and_that_is_said";
    let script = "mkdir \"$D/docker\" \"$D/mounted\" \"$D/bound\"; mount -t tmpfs none \"$D/mounted\"; mount --bind \"$D/docker\" \"$D/bound\"";
    let Some(folder) = with_mounts(TEST, script) else { return };
    for (docker, by_descriptor) in [("docker", false), ("mounted", true), ("bound", true)] {
        let mut node = Node::with_docker();
        node.settings.state_dir = folder.join("state").join(docker);
        node.settings.docker_containers_dir = Some(DockerDir::new(folder.join(docker)));
        let mut container = Container { max_file: 2, ..node.container(0) };
        container.write(2);
        node.start();
        node.settle();
        node.worker.as_mut().unwrap().report();
        let said = node.worker.as_ref().unwrap().parts.readiness.report();
        assert_eq!(said.contains("1 log files are held by open descriptors"), by_descriptor, "{docker}: {said}");
        assert_eq!(node.held(), usize::from(!by_descriptor), "{docker}");
        for _ in 0..4 {
            container.rotate().write(2);
            node.rounds(2);
        }
        assert_eq!(rows(&node.finish()), one_run(10), "{docker}");
        fs::remove_dir_all(&container.folder).unwrap();
    }
}

#[test]
fn what_cannot_be_linked_keeps_nothing_else_from_being_linked() {
    FAIL_LINKS.set(Some(Errno::NOSPC));
    let mut node = Node::with_docker();
    let container = node.container(0);
    fs::create_dir_all(node.settings.pods_dir.join("shop_web-0_uid-2/web")).unwrap();
    fs::write(node.settings.pods_dir.join("shop_web-0_uid-2/web/0.log"), format!("{TIME} stdout F x\n")).unwrap();
    node.start();
    node.settle();
    assert_eq!((node.worker.as_ref().unwrap().held.descriptors(), node.held()), (2, 0));
    FAIL_LINKS.set(None);
    node.worker.as_mut().unwrap().scan_all(false);
    assert_eq!((node.worker.as_ref().unwrap().held.descriptors(), node.held()), (0, 2), "{}", container.id);
}

#[test]
fn at_the_first_start_what_is_there_is_read_unless_told_otherwise() {
    for compress in [false, true] {
        for skip in [false, true] {
            let mut node = Node::with_docker();
            node.settings.skip_existing = skip;
            let mut container = Container { compress, ..node.container(0) };
            container.write(2).rotate().write(2).rotate().write(2);
            node.start();
            node.settle();
            container.rotate().write(1);
            let expected = if skip { vec![(0, 0, "line 6".to_owned(), false)] } else { one_run(7) };
            assert_eq!(rows(&node.finish()), expected, "compress {compress}, skip {skip}");
        }
    }
}

#[test]
fn without_positions_a_link_tells_by_its_content_whose_it_is() {
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    container.write(2).rotate().write(2);
    node.start();
    node.settle();
    node.topics.set("logs.payments", TopicState::Unknown);
    container.write(1);
    node.rounds(2);
    node.kill(0);
    container.remove();
    fs::remove_file(node.settings.state_dir.join("positions")).unwrap();
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
    node.start();
    let stored = node.finish();
    let found: BTreeSet<_> = logs(&stored).into_iter().collect();
    assert!(found.contains("line 4"), "{found:?}");
    assert_eq!(found.len(), 5, "nothing is taken for a bad line, nothing is read as another runtime's");
}

#[test]
fn another_grammar_begins_another_run() {
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    container.write(2);
    node.start();
    node.settle();
    node.stop();
    let loaded = Store::open(&node.settings.state_dir).unwrap();
    let mut store = loaded.store;
    for mut state in loaded.instances.into_values() {
        assert_eq!(state.epochs[0].grammar, 2);
        state.epochs[0].grammar = 99;
        store.put(&state);
    }
    store.commit().unwrap();
    drop(store);
    container.write(1);
    node.start();
    let stored = node.finish_all();
    let found: Vec<_> = rows(&stored).into_iter().map(|(source, seq, log, _)| (source, seq, log)).collect();
    assert_eq!(found, [(0, 0, "line 0".to_owned()), (0, 1, "line 1".to_owned()), (1, 0, "line 2".to_owned())]);
    let gap = notices(&stored).into_iter().find(|notice| notice.kind == NoticeKind::Gap).unwrap();
    assert_eq!((gap.reason, gap.lines), (Some(LossReason::GrammarChanged), Some(0)));
}

#[test]
fn beyond_the_budget_exactly_what_is_lost_is_announced() {
    either_way(|mut node, linked| {
        let mut container = Container { max_file: 2, ..node.container(0) };
        container.write(2);
        node.start();
        node.settle();
        node.topics.set("logs.payments", TopicState::Unknown);
        for _ in 0..3 {
            container.write(100);
            node.rounds(1);
            container.rotate();
            node.rounds(1);
        }
        let worker = node.worker.as_mut().unwrap();
        worker.settings.budget.bytes_max = 1;
        worker.settings.budget.namespace_bytes_max = 1;
        worker.keep_budget();
        node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
        let stored = node.finish_all();
        let delivered = logs(&stored).len() as u64;
        let lost = notices(&stored).into_iter().filter(|notice| notice.kind == NoticeKind::Gap);
        let lost: u64 = lost.map(|notice| notice.lines.unwrap()).sum();
        assert_eq!((delivered + lost, lost > 100), (302, true), "linked {linked}");
    });
}
