//! Docker's `json-file` logger, simulated: it rotates by its own names under load while the router is killed again and again. Once its files can be
//! linked, once they are on another mount, where descriptors hold them. Nothing is missing, repeats are marked, and each container's lines are one run.
//!
//! `FAIRLEAD_SEED` repeats a run's moments.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::component::Component;
use fairlead_integration::consume::read_lines;
use fairlead_integration::folders::scratch;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::Stream;
use fairlead_integration::generator::dice::Dice;
use fairlead_integration::generator::docker::{DockerLog, Options};
use fairlead_integration::mounts::Mount;
use fairlead_integration::soak::{Case, Witness, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::{pace, wait_until};
use fairlead_integration::workload::Script;

const NAMESPACE: &str = "payments";
const PODS: usize = 3;
/// Between two bursts of a container.
const TICK: Duration = Duration::from_millis(5);
/// How long the router is away.
const AWAY: Duration = Duration::from_millis(40);

#[test]
fn simulated_over_kills_loses_nothing_and_breaks_no_run() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let containers = scratch("containers").unwrap();
    let kills = pick(8, 80);
    let title =
        format!("Docker's logger, simulated: rotated and compressed, `kill -9` of the router at {kills} moments");
    let options = |pod| Options { max_size: 48 << 10, max_file: 60, compress: pod % 2 == 0 };
    scenario("17-docker", &title, containers.path(), kills, options);
}

#[test]
fn simulated_on_another_mount_over_kills_loses_nothing_and_breaks_no_run() {
    if !Kind::ApacheKafka.usable() | !Component::Mounts.usable() {
        return;
    }
    let _turn = crate::turn();
    let mount = Mount::memory(256).unwrap();
    let kills = pick(8, 80);
    let title = format!("the same on another mount: held by descriptors, `kill -9` at {kills} moments");
    // What a restart must still find has a name.
    let options = |_| Options { max_size: 48 << 10, max_file: 60, compress: false };
    scenario("18-docker-descriptors", &title, mount.path(), kills, options);
}

fn scenario(key: &str, title: &str, containers: &Path, kills: usize, options: impl Fn(usize) -> Options) {
    let is_mounted = key.ends_with("descriptors");
    let case = Case::begin(key, title).unwrap();
    let seed = std::env::var("FAIRLEAD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    super::say(&format!("FAIRLEAD_SEED={seed}"));
    let mut dice = Dice::new(seed);
    let router_logs = vec![format!("docker_containers_dir: \"{}\"", containers.display())];
    let mut stage = Stage::started_with(Kind::ApacheKafka, &Wishes { router_logs, ..Wishes::default() }).unwrap();
    let mut logs: Vec<(DockerLog, Script, u64)> = (0..PODS)
        .map(|pod| {
            let identity = Identity::new(NAMESPACE, &format!("pod-{pod}"), "app");
            let log = DockerLog::create(containers, stage.pods(), &identity, options(pod)).unwrap();
            (log, Script::new(&format!("pod-{pod}"), 0), 0)
        })
        .collect();
    for _ in 0..kills {
        write_for(&mut logs, Duration::from_millis(100 + dice.below(400)));
        stage.router.kill().unwrap();
        write_for(&mut logs, AWAY);
        stage.router.start().unwrap();
    }
    write_for(&mut logs, Duration::from_millis(300));
    stage.router.wait_ready().unwrap();
    let rotations: u64 = logs.iter().map(|(log, ..)| log.rotations).sum();
    assert!(rotations >= 3 * kills as u64, "only {rotations} rotations");
    let witnesses: Vec<Witness> =
        logs.iter().map(|(log, ..)| Witness::new(&log.identity, &[log.as_cri.clone()])).collect();
    let figures = super::prove_bytes(case, &stage, &[(NAMESPACE, &witnesses)]);
    super::say(&format!("{rotations} rotations"));
    assert_eq!(figures[0].delivered, figures[0].written);
    let lines = read_lines(&stage.broker.bootstrap(), &stage.topic(NAMESPACE)).unwrap();
    for (log, ..) in &logs {
        let own = lines.iter().filter(|line| line.pod_uid == log.identity.uid);
        let runs: BTreeSet<&str> = own.filter_map(|line| line.source.rsplit_once('/').map(|(run, _)| run)).collect();
        assert_eq!(runs.len(), 1, "one epoch for each container: {runs:?}");
    }
    // The containers end: nothing is held for them any more.
    let held = stage.router.metric("fairlead_router_held_files");
    let by_descriptor = stage.router.metric("fairlead_router_held_by_descriptor");
    assert!(held >= PODS as f64 && (by_descriptor >= held) == is_mounted, "{by_descriptor} of {held}");
    drop(logs);
    std::fs::remove_dir_all(stage.pods()).unwrap();
    std::fs::create_dir(stage.pods()).unwrap();
    for entry in std::fs::read_dir(containers).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let is_idle = || stage.router.metric("fairlead_router_held_files") < 0.5;
    wait_until("the files to be let go", crate::ARRIVES, is_idle).unwrap();
}

/// Every container writes a burst each tick: lines as services write them, some long, some not UTF-8.
fn write_for(logs: &mut [(DockerLog, Script, u64)], duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        for (log, script, number) in logs.iter_mut() {
            for _ in 0..6 {
                let stream = if *number % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
                log.line(stream, &script.line(stream, *number)).unwrap();
                *number += 1;
            }
        }
        pace(TICK);
    }
}
