//! Files as a node's worst day leaves them, each byte known: each case in a namespace of its own, on one broker.

use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::Stream;
use fairlead_integration::generator::dice::Dice;
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::soak::{Case, Witness, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::{pace, wait_until};

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
/// A deleted pod's folder goes so long after the pod's end.
const REMOVED_AFTER: Duration = Duration::from_secs(1);

#[test]
fn of_every_kind_lose_nothing() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let mut stage = Stage::started(Kind::ApacheKafka).unwrap();
    let check = |stage: &mut Stage, key: &str, title: &str, play: fn(&Stage, &str) -> Vec<KeptLog>| {
        let case = Case::begin(key, title).unwrap();
        // A router for each, so that its memory is its own.
        stage.router.terminate().unwrap();
        stage.router.forget_memory();
        stage.router.start_ready().unwrap();
        let namespace = key.split_once('-').unwrap().1;
        let logs = play(stage, namespace);
        let witnesses: Vec<Witness> = logs.iter().map(|log| Witness::new(&log.identity, &log.files)).collect();
        // Closes the files: nobody writes any more.
        drop(logs);
        super::prove_bytes(case, stage, &[(namespace, &witnesses)]);
    };
    check(&mut stage, "10-rotations", "20 rotations a second, each file removed after 2 s", twenty_rotations_a_second);
    check(&mut stage, "11-fragments", "fragments of both streams interleaved, and across rotations", fragments);
    check(&mut stage, "12-short-pods", "pods that live 50 ms and write one line", short_pods);
    check(&mut stage, "13-reused", "a pod's name used again under another UID, its namespace made anew", reused);
    check(&mut stage, "14-torn", "half lines, as a full disk leaves them, and garbage", torn);
    check(&mut stage, "15-one-byte", "files of one byte", one_byte);
}

fn log(stage: &Stage, namespace: &str, pod: &str) -> KeptLog {
    KeptLog::create(stage.pods(), &Identity::new(namespace, pod, "app")).unwrap()
}

fn twenty_rotations_a_second(stage: &Stage, namespace: &str) -> Vec<KeptLog> {
    let mut log = log(stage, namespace, "busy-1");
    let began = Instant::now();
    for rotation in 0..pick(80, 1_200) {
        for number in 0..40 {
            let stream = STREAMS[number % 3 % 2];
            let tag = if number % 7 == 5 { 'P' } else { 'F' };
            log.line(stream, tag, format!("rotation {rotation} line {number}").as_bytes()).unwrap();
        }
        log.rotate(40).unwrap();
        let next = Duration::from_millis(50) * (rotation + 1);
        pace(next.saturating_sub(began.elapsed()));
    }
    finish(&mut log);
    vec![log]
}

fn fragments(stage: &Stage, namespace: &str) -> Vec<KeptLog> {
    let mut dice = Dice::new(24);
    let mut logs: Vec<KeptLog> = (0..3).map(|pod| log(stage, namespace, &format!("pod-{pod}"))).collect();
    let text = "zażółć gęślą jaźń ✓ 0123456789 ".repeat(600);
    for _ in 0..pick(6_000, 120_000) {
        let log = &mut logs[usize::try_from(dice.below(3)).unwrap()];
        // Cut anywhere, in mid-character too; now and then as long as containerd's longest piece.
        let length = if dice.once_in(60) { 16_384 } else { dice.below(90) };
        let from = usize::try_from(dice.below(500)).unwrap();
        let content = &text.as_bytes()[from..from + usize::try_from(length).unwrap()];
        let tag = if dice.once_in(3) { 'F' } else { 'P' };
        log.line(*dice.one_of(&STREAMS), tag, content).unwrap();
        if dice.once_in(150) {
            log.rotate(usize::MAX).unwrap();
            pace(Duration::from_millis(20));
        }
    }
    logs.iter_mut().for_each(finish);
    logs
}

fn torn(stage: &Stage, namespace: &str) -> Vec<KeptLog> {
    let mut dice = Dice::new(12);
    let garbage: [&[u8]; 6] =
        [b"", b"no line at all", b"2026-11-20T10:00:00Z", b"\x00\xff\xfe", b"{\"log\":1}", b"   "];
    let mut logs: Vec<KeptLog> = (0..4).map(|pod| log(stage, namespace, &format!("pod-{pod}"))).collect();
    for number in 0..pick(4_000, 100_000) {
        let log = &mut logs[usize::try_from(dice.below(4)).unwrap()];
        match dice.below(12) {
            // A line of which the disk took the first bytes only; the next stands directly behind it.
            0 => {
                let line = format!("2026-11-20T10:00:00.{number:09}Z stdout F what would not fit");
                let taken = usize::try_from(dice.below(line.len() as u64)).unwrap();
                log.write(&line.as_bytes()[..taken]).unwrap();
            }
            1 => {
                let line: &[u8] = dice.one_of::<&[u8]>(&garbage);
                log.write(line).unwrap();
                log.write(b"\n").unwrap();
            }
            _ => {
                log.line(*dice.one_of(&STREAMS), 'F', format!("number {number}").as_bytes()).unwrap();
            }
        }
        if dice.once_in(300) {
            log.rotate(usize::MAX).unwrap();
            pace(Duration::from_millis(10));
        }
    }
    // Bytes after the last newline are a line that cannot be parsed once their container has ended.
    logs[0].write(b"2026-11-20T10:00:00Z stdout F the end of").unwrap();
    remove_all(&logs);
    logs
}

fn short_pods(stage: &Stage, namespace: &str) -> Vec<KeptLog> {
    const LIVES: Duration = Duration::from_millis(50);
    let (mut logs, mut removed) = (Vec::<(KeptLog, Instant)>::new(), 0);
    for number in 0..pick(300, 3_000) {
        let mut log = log(stage, namespace, &format!("job-{number}"));
        log.line(Stream::Stdout, 'F', b"all that it says").unwrap();
        logs.push((log, Instant::now()));
        while logs[removed].1.elapsed() >= LIVES + REMOVED_AFTER {
            logs[removed].0.remove_pod().unwrap();
            removed += 1;
        }
        pace(Duration::from_millis(10));
    }
    pace(REMOVED_AFTER);
    for (log, _) in &logs[removed..] {
        log.remove_pod().unwrap();
    }
    logs.into_iter().map(|(log, _)| log).collect()
}

fn one_byte(stage: &Stage, namespace: &str) -> Vec<KeptLog> {
    let logs: Vec<KeptLog> = (0..pick(60, 300))
        .map(|number| {
            let mut log = log(stage, namespace, &format!("job-{number}"));
            log.write(if number % 2 == 0 { b"x" } else { b"\n" }).unwrap();
            log
        })
        .collect();
    remove_all(&logs);
    logs
}

fn reused(stage: &Stage, namespace: &str) -> Vec<KeptLog> {
    let mut logs = Vec::new();
    for round in 0..pick(6, 60) {
        // Every pod of the namespace is gone before the next ones come, under the same names.
        let first = logs.len();
        for pod in 0..3 {
            let mut log = log(stage, namespace, &format!("db-{pod}"));
            for number in 0..40 {
                log.line(Stream::Stdout, 'F', format!("round {round} line {number}").as_bytes()).unwrap();
            }
            logs.push(log);
        }
        remove_all(&logs[first..]);
    }
    logs
}

/// Ends every line that is open.
fn finish(log: &mut KeptLog) {
    for stream in STREAMS {
        log.line(stream, 'F', b"the end").unwrap();
    }
}

/// Removes pods as a kubelet does: not before a second has passed, in which the router must have seen their files.
fn remove_all(logs: &[KeptLog]) {
    let unseen = || logs.iter().filter(|log| !log.is_held()).count();
    wait_until("the files to be held", REMOVED_AFTER, || unseen() == 0).unwrap();
    for log in logs {
        log.remove_pod().unwrap();
    }
}
