//! A node with many pods: what an idle file costs, and what happens where the kernel's limits are reached.

use rustix::time::{ClockId, clock_gettime};

use super::{mounts::with_limits, *};

const PODS: usize = 500;
const CONTAINERS: usize = 3;

impl Node {
    fn pod(&self, pod: usize) -> PathBuf {
        self.settings.pods_dir.join(format!("payments_api-{pod}_0b1f6c9e-54f4-4f2a-9d5e-{pod:012}"))
    }

    /// Writes a line into a container's file.
    fn line_of(&self, pod: usize, container: usize, name: &str, line: &str) {
        let folder = self.pod(pod).join(format!("c{container}"));
        fs::create_dir_all(&folder).unwrap();
        let mut file = OpenOptions::new().create(true).append(true).open(folder.join(name)).unwrap();
        writeln!(file, "{TIME} stdout F {line}").unwrap();
    }

    fn watcher(&self) -> &Watcher {
        &self.worker.as_ref().unwrap().watcher
    }
}

/// The time that this thread ran.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

#[test]
fn an_idle_file_costs_no_descriptor_no_buffer_and_no_poll() {
    let mut node = Node::new();
    for pod in 0..PODS {
        for container in 0..CONTAINERS {
            node.line_of(pod, container, "0.log.20261120-090000", "rotated");
            node.line_of(pod, container, "0.log", "live");
        }
    }
    node.start();
    node.settle();
    let files = PODS * CONTAINERS * 2;
    assert_eq!(node.sink.borrow().stored.len(), files);
    let worker = node.worker.as_mut().unwrap();
    worker.report();
    assert_eq!(worker.parts.metrics.held_files.get(), files as i64);
    assert_eq!(worker.parts.metrics.open_files.get(), 0);
    assert!(worker.epochs().all(|epoch| !epoch.is_open()));
    assert_eq!(worker.watcher.len(), 1 + PODS + PODS * CONTAINERS, "folders are watched, not files");

    let (begun, begun_cpu) = (Instant::now(), cpu_time());
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(!worker.round(), "nothing is there to do");
        worker.wait();
        rounds += 1;
    }
    let (wall, cpu) = (begun.elapsed(), cpu_time() - begun_cpu);
    let wakeups_max = wall.as_millis() / IDLE_WAIT.as_millis() + 4;
    assert!(rounds <= wakeups_max, "{rounds} wakeups in {wall:?}");
    assert!(cpu < wall / 100, "{cpu:?} of a core in {wall:?}");
    println!("3,000 idle files: {rounds} wakeups and {cpu:?} of a core in {wall:?}");

    let begun = cpu_time();
    worker.scan_all(false);
    println!("a look at everything: {:?}", cpu_time() - begun);
}

#[test]
fn without_watches_everything_is_looked_at_every_second() {
    const TEST: &str = "worker::tests::scale::without_watches_everything_is_looked_at_every_second";
    let script = "echo 0 > /proc/sys/user/max_inotify_instances";
    if with_limits(TEST, script).is_some() {
        live_with_few_watches(0);
    }
}

#[test]
fn with_too_few_watches_everything_is_looked_at_every_second() {
    const TEST: &str = "worker::tests::scale::with_too_few_watches_everything_is_looked_at_every_second";
    if with_limits(TEST, "echo 4 > /proc/sys/user/max_inotify_watches").is_some() {
        live_with_few_watches(4);
    }
}

/// Lines, rotations and pods come while most folders cannot be watched.
fn live_with_few_watches(watches: usize) {
    let mut node = Node::new();
    (0..3).for_each(|pod| node.line_of(pod, 0, "0.log", "first"));
    node.start();
    assert_eq!(node.watcher().len(), watches);
    node.settle();
    for pod in 0..3 {
        node.line_of(pod, 0, "0.log", "second");
        let folder = node.pod(pod).join("c0");
        fs::rename(folder.join("0.log"), folder.join("0.log.T1")).unwrap();
        node.line_of(pod, 0, "0.log", "third");
    }
    node.line_of(3, 0, "0.log", "first");
    // As the kubelet rotates: not twice within a second.
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.sink.borrow().stored.len() < 10 && Instant::now() < deadline {
        let worker = node.worker.as_mut().unwrap();
        worker.round();
        worker.wait();
    }
    let worker = node.worker.as_ref().unwrap();
    assert!(worker.parts.readiness.is_ready(), "it works");
    assert!(worker.parts.readiness.report().contains("cannot be watched"), "{}", worker.parts.readiness.report());
    assert!(worker.parts.metrics.unwatched_directories.get() > 0);
    let stored = node.finish();
    let mut found: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for value in &stored {
        let record = Record::parse(value).unwrap();
        found
            .entry(record.fairlead.source.to_string())
            .or_default()
            .push((record.fairlead.seq, record.log.to_string()));
    }
    let run =
        |lines: &[&str]| lines.iter().enumerate().map(|(at, line)| (at as u64, (*line).to_owned())).collect::<Vec<_>>();
    let mut runs: Vec<_> = found.into_values().collect();
    runs.sort();
    let whole = run(&["first", "second", "third"]);
    assert_eq!(runs, [run(&["first"]), whole.clone(), whole.clone(), whole]);
}

#[test]
fn when_the_kernels_queue_of_events_runs_over_nothing_is_lost() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let mut node = Node::new();
    (0..2).for_each(|container| node.line_of(0, container, "0.log", "line 0"));
    node.start();
    node.settle();
    let folder = node.pod(0);
    let open = |container: usize| {
        OpenOptions::new().append(true).create(true).open(folder.join(format!("c{container}/0.log"))).unwrap()
    };
    let mut files = [open(0), open(1)];
    let lines = limit + 100;
    for line in 1..=lines {
        // Alternating, so that the kernel cannot make one event of two.
        for (container, file) in files.iter_mut().enumerate() {
            if line == lines / 2 {
                let live = folder.join(format!("c{container}/0.log"));
                fs::rename(&live, live.with_extension("log.T1")).unwrap();
                *file = open(container);
            }
            writeln!(file, "{TIME} stdout F line {line}").unwrap();
        }
    }
    drop(files);
    node.settle();
    assert_eq!(node.worker.as_ref().unwrap().parts.metrics.watch_overflows.get(), 1);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for value in node.finish() {
        let record = Record::parse(&value).unwrap();
        assert!(!record.fairlead.again);
        found.entry(record.fairlead.source.to_string()).or_default().push(record.log.to_string());
    }
    assert_eq!(found.len(), 2, "the rotation is shown to follow all the same");
    assert!(found.into_values().all(|lines_of_one| lines_of_one == expected(lines + 1)));
}

#[test]
fn a_pod_deleted_while_the_router_was_down_comes_complete_from_links_and_positions() {
    let mut node = Node::new();
    for container in 0..CONTAINERS {
        (0..4).for_each(|line| node.line_of(0, container, "0.log", &format!("line {line}")));
    }
    node.start();
    node.settle();
    let folder = node.pod(0);
    for container in 0..CONTAINERS {
        let folder = folder.join(format!("c{container}"));
        fs::rename(folder.join("0.log"), folder.join("0.log.T1")).unwrap();
        (4..6).for_each(|line| node.line_of(0, container, "0.log", &format!("line {line}")));
    }
    // Held, and sent in part, when the router is killed; the last lines come after that.
    node.sink.borrow_mut().acknowledge_all = false;
    node.rounds(4);
    node.kill(2);
    for container in 0..CONTAINERS {
        node.line_of(0, container, "0.log", "line 6");
    }
    fs::remove_dir_all(&folder).unwrap();
    node.start();
    let stored = node.finish();
    let mut found: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for value in &stored {
        let record = Record::parse(value).unwrap();
        let source = found.entry(record.fairlead.source.to_string()).or_default();
        let before = source.insert(record.fairlead.seq, record.log.to_string());
        assert!(before.is_none() || record.fairlead.again);
    }
    assert_eq!(found.len(), CONTAINERS, "one run for each container");
    assert!(found.into_values().all(|lines| lines.into_values().eq(expected(7))));
    assert_eq!(node.held(), 0);
}
