//! The disk runs full under the router and the containers, again and again, and the router is killed on the full disk; the
//! state folder is read-only for a time. What containers could write arrives.

use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::component::Component;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::Stream;
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::mounts::Mount;
use fairlead_integration::soak::{Case, Witness, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::{pace, wait_until};
use fairlead_integration::workload::Script;

use super::pods::Pod;

const NAMESPACE: &str = "payments";
const ROTATE_BYTES: u64 = 200 << 10;

/// Two containers whose every byte is known, and one that a real log writer writes: what it can of it, and half of a line
/// where the disk takes no more.
#[test]
fn full_loses_nothing_that_was_written() {
    if !super::usable() | !Component::Mounts.usable() {
        return;
    }
    let _turn = crate::turn();
    let case = Case::begin("06-disk-full", "the node's disk full again and again, the router killed on it").unwrap();
    let disk = Mount::memory(pick(24, 48)).unwrap();
    let wishes = Wishes { place: Some(disk.path().to_path_buf()), ..Wishes::default() };
    let mut stage = Stage::started_with(Kind::ApacheKafka, &wishes).unwrap();
    let mut logs: Vec<KeptLog> = (0..2).map(|pod| log(stage.pods(), pod)).collect();
    let rounds = pick(3, 40);
    let script = Script { name: "conmon".to_owned(), lines: 800 * rounds, burst: 20, pause: Duration::from_millis(40) };
    let mut pod = Pod::start(&stage, NAMESPACE, script);
    for round in 0..rounds {
        write_for(&mut logs, Duration::from_millis(500));
        disk.fill().unwrap();
        write_for(&mut logs, Duration::from_millis(500));
        if round % 2 == 1 {
            stage.router.kill().unwrap();
            stage.router.start().unwrap();
        }
        write_for(&mut logs, Duration::from_millis(700));
        disk.free().unwrap();
    }
    write_for(&mut logs, Duration::from_millis(500));
    pod.conmon.wait(Duration::from_secs(60)).unwrap();
    let bytes = std::fs::read(pod.conmon.log()).unwrap();
    prove(case, &stage, logs, vec![Witness::new(&pod.identity, &[bytes])]);
}

#[test]
fn state_folder_read_only_for_a_time_loses_nothing() {
    if !Kind::ApacheKafka.usable() | !Component::Mounts.usable() {
        return;
    }
    let _turn = crate::turn();
    let case =
        Case::begin("07-read-only", "the router started on a state folder that is read-only, and writable later")
            .unwrap();
    let disk = Mount::memory(64).unwrap();
    let seen_by_router = Mount::bind(&disk).unwrap();
    let wishes = Wishes { place: Some(seen_by_router.path().to_path_buf()), ..Wishes::default() };
    let mut stage = Stage::started_with(Kind::ApacheKafka, &wishes).unwrap();
    // Containers write through the other path.
    let pods = disk.path().join(stage.pods().strip_prefix(seen_by_router.path()).unwrap());
    let mut logs: Vec<KeptLog> = (0..3).map(|pod| log(&pods, pod)).collect();
    for _ in 0..pick(2, 20) {
        write_for(&mut logs, Duration::from_millis(700));
        stage.router.kill().unwrap();
        seen_by_router.read_only(true).unwrap();
        for _ in 0..2 {
            stage.router.start().unwrap();
            write_for(&mut logs, Duration::from_millis(300));
            wait_until("the router to give up", Duration::from_secs(10), || stage.router.ended().is_some()).unwrap();
            stage.router.forget().unwrap();
        }
        seen_by_router.read_only(false).unwrap();
        stage.router.start_ready().unwrap();
    }
    write_for(&mut logs, Duration::from_millis(500));
    prove(case, &stage, logs, Vec::new());
}

fn log(pods: &Path, pod: usize) -> KeptLog {
    KeptLog::create(pods, &Identity::new(NAMESPACE, &format!("pod-{pod}"), "app")).unwrap()
}

/// Lines of both streams for a time, with rotations; where the disk is full some are cut short.
fn write_for(logs: &mut [KeptLog], time: Duration) {
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < time {
        for log in &mut *logs {
            for _ in 0..20 {
                number += 1;
                let stream = if number % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
                let _whole =
                    log.line(stream, 'F', format!("line {number} {}", "x".repeat(number % 200)).as_bytes()).unwrap();
            }
            if log.live_bytes() > ROTATE_BYTES && log.is_held() {
                log.rotate(5).unwrap();
            }
        }
        pace(Duration::from_millis(10));
    }
}

fn prove(case: Case, stage: &Stage, logs: Vec<KeptLog>, mut witnesses: Vec<Witness>) {
    witnesses.extend(logs.iter().map(|log| Witness::new(&log.identity, &log.files)));
    // A line of which the disk took a part may be the last: it can be judged when its pod is gone.
    for log in &logs {
        wait_until("the live file to be held", Duration::from_secs(30), || log.is_held()).unwrap();
        log.remove_pod().unwrap();
    }
    drop(logs);
    for witness in &witnesses {
        let folder = witness.identity().pod_folder(stage.pods());
        if folder.exists() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
    super::prove_bytes(case, stage, &[(NAMESPACE, &witnesses)]);
}
