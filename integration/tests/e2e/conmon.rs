//! Lines written by a real CRI log writer, rotated each second, zipped and removed as a kubelet does, arrive in Apache
//! Kafka: none missing, none twice; and after kills in mid-burst none missing and every repeat marked.
//!
//! `FAIRLEAD_SOAK=1` (see `make soak`) runs the long form: 20 runs, 50 kills.

use std::io::Write as _;
use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::component::Component;
use fairlead_integration::conmon::Conmon;
use fairlead_integration::folders::binary;
use fairlead_integration::generator::Identity;
use fairlead_integration::http::history;
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::pace;
use fairlead_integration::workload::Script;

const NAMESPACE: &str = "payments";
/// Live, newest rotated, and one zipped: older ones are removed while the run lasts.
const FILES: usize = 3;
const ROTATE_EVERY: Duration = Duration::from_secs(1);

fn long() -> bool {
    std::env::var_os("FAIRLEAD_SOAK").is_some_and(|value| !value.is_empty())
}

#[test]
fn rotation_each_second_loses_nothing_and_repeats_nothing() {
    if !usable() {
        return;
    }
    let _turn = super::turn();
    let stage = Stage::started(Kind::ApacheKafka).unwrap();
    let mut identities = Vec::new();
    for run in 0..if long() { 20 } else { 3 } {
        let (container, identity, script) = start(&stage, run, 4_000);
        let rotations = container.run(|| {});
        assert!(rotations >= 2, "only {rotations} rotations");
        identities.push((identity, script));
        let all: Vec<(&Identity, &Script)> = identities.iter().map(|(identity, script)| (identity, script)).collect();
        let (_, report) = super::expect_scripts(&stage, NAMESPACE, &all);
        assert_eq!(report.repeats, 0, "run {run}: nothing comes twice while nobody is killed");
        let lines = report.lines;
        say(&format!("conmon, run {run}: {rotations} rotations; {lines} physical lines so far, 0 missing, 0 twice"));
    }
}

#[test]
fn kills_in_mid_burst_lose_nothing_and_mark_what_repeats() {
    if !usable() {
        return;
    }
    let _turn = super::turn();
    let mut stage = Stage::started(Kind::ApacheKafka).unwrap();
    let wanted = if long() { 50 } else { 10 };
    let (mut kills, mut run) = (0, 0);
    let mut identities = Vec::new();
    while kills < wanted {
        let (container, identity, script) = start(&stage, run, 5_000);
        let mut next = Instant::now() + Duration::from_millis(400);
        container.run(|| {
            if kills < wanted && Instant::now() >= next {
                stage.router.kill().unwrap();
                stage.router.start().unwrap();
                kills += 1;
                // Not always at the same place of a round.
                next = Instant::now() + Duration::from_millis(300 + 170 * (kills % 5));
            }
        });
        identities.push((identity, script));
        run += 1;
    }
    let all: Vec<(&Identity, &Script)> = identities.iter().map(|(identity, script)| (identity, script)).collect();
    let (_, report) = super::expect_scripts(&stage, NAMESPACE, &all);
    let total: u64 = all.iter().map(|(_, script)| script.total()).sum();
    say(&format!(
        "conmon, {kills} kills in {run} runs: {} physical lines, 0 missing, {} records repeat and are marked",
        report.lines, report.repeats
    ));
    let shown = history(&stage.team(NAMESPACE).unwrap(), NAMESPACE, 10_000).unwrap();
    assert_eq!(
        shown.len() as u64,
        total,
        "{kills} kills, {} repeats in the topic: the gateway leaves them out",
        report.repeats
    );
}

/// Past libtest's capture: the figures of a run that passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn usable() -> bool {
    // Both are named if both are missing.
    let conmon = Component::Conmon.usable();
    Kind::ApacheKafka.usable() && conmon
}

struct Container(Conmon);

fn start(stage: &Stage, run: u64, lines: u64) -> (Container, Identity, Script) {
    let identity = Identity::new(NAMESPACE, &format!("run-{run}"), "app");
    let script = Script { name: format!("run{run}"), lines, burst: 80, pause: Duration::from_millis(70) };
    let program = binary("numbered-lines").unwrap();
    let conmon = Conmon::start(stage.pods(), &identity, 0, &program, &script.arguments()).unwrap();
    (Container(conmon), identity, script)
}

impl Container {
    /// Rotates each second until the workload has ended; `meanwhile` is called again and again. Says how many rotations.
    fn run(mut self, mut meanwhile: impl FnMut()) -> u32 {
        let (mut rotations, mut next) = (0, Instant::now() + ROTATE_EVERY);
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.0.running() {
            assert!(Instant::now() < deadline, "the workload does not end");
            if Instant::now() >= next && self.0.rotate(FILES).unwrap() {
                rotations += 1;
                next += ROTATE_EVERY;
            }
            meanwhile();
            pace(Duration::from_millis(20));
        }
        rotations
    }
}
