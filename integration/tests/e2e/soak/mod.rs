//! Faults on real components, each case a row of the table in `docs/reliability.md`. The tests run a short form; `make
//! soak` sets `FAIRLEAD_SOAK` for the long one and makes the table.

mod acl_removed;
mod broker_disk_full;
mod budget;
mod conmon;
mod dead_letters;
mod disk;
mod docker;
mod fairness_three_brokers;
mod files;
mod kills;
mod kubelet_rotation;
mod long_line;
mod metadata_churn;
mod metadata_outage;
mod outage;
mod pods;
mod small_message_limit;
mod teams;
mod topic_deleted;

use std::time::{Duration, Instant};

use fairlead_integration::audit::{Report, audit};
use fairlead_integration::broker::Kind;
use fairlead_integration::component::Component;
use fairlead_integration::consume::{Line, read_lines, record_count};
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::dice::Dice;
use fairlead_integration::soak::{Case, Figures, Witness, figures, judge, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::wait_for;
use fairlead_integration::workload::Script;

use crate::say;

const STANDS_STILL: Duration = Duration::from_millis(400);
/// The 99th percentile of a namespace's delays that another one's trouble may not push it over, on a machine that is busy:
/// far below any time-out of Kafka's that it could be waiting for.
const UNDISTURBED: Duration = Duration::from_millis(800);

/// A real log writer and Apache Kafka.
fn usable() -> bool {
    // Both are named if both are missing.
    let conmon = Component::Conmon.usable();
    Kind::ApacheKafka.usable() && conmon
}

/// Chance that `FAIRLEAD_SEED` repeats.
fn dice() -> Dice {
    let seed = std::env::var("FAIRLEAD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    say(&format!("FAIRLEAD_SEED={seed}"));
    Dice::new(seed)
}

/// How long the last lines may take to arrive on a machine that is busy.
fn arrives_within() -> Duration {
    Duration::from_secs(pick(60, 300))
}

/// Waits until each line that these containers wrote is in their namespace's topic or announced there, reports the case's
/// row, and fails unless all is explained.
fn prove(case: Case, stage: &Stage, namespace: &str, written: &[(&Identity, &Script)]) -> (Figures, Report) {
    let lines = arrived(stage, namespace, |lines| figures(lines, written).unexplained == 0);
    let (counted, report) = (figures(&lines, written), audit(&lines));
    say(&format!("{namespace}: {counted:?}"));
    let finished = case.finish(counted.clone(), &stage.router);
    if finished.is_err() {
        let of_scripts = written.iter().flat_map(|(identity, script)| script.faults(&lines, identity));
        let faults: Vec<String> = report.faults.iter().cloned().chain(of_scripts).take(20).collect();
        say(&format!("{faults:#?}"));
    }
    finished.unwrap();
    (counted, report)
}

/// As [`prove`], for several namespaces.
fn prove_namespaces(case: Case, stage: &Stage, namespaces: &[(&str, Vec<(&Identity, &Script)>)]) -> Figures {
    let (mut sum, mut faults) = (Figures::default(), Vec::new());
    for (namespace, written) in namespaces {
        let lines = arrived(stage, namespace, |lines| figures(lines, written).unexplained == 0);
        let counted = figures(&lines, written);
        if counted.unexplained > 0 {
            faults.extend(audit(&lines).faults);
            faults.extend(written.iter().flat_map(|(identity, script)| script.faults(&lines, identity)).take(20));
        }
        sum = sum.and(&counted);
    }
    let finished = case.finish(sum.clone(), &stage.router);
    if finished.is_err() {
        say(&format!("{faults:#?}"));
    }
    finished.unwrap();
    sum
}

/// As [`prove`], for containers of whose files every byte is known, in several namespaces; gives the figures of each.
fn prove_bytes(case: Case, stage: &Stage, namespaces: &[(&str, &[Witness])]) -> Vec<Figures> {
    let (mut counted, mut faults) = (Vec::new(), Vec::new());
    for (namespace, witnesses) in namespaces {
        let lines = arrived(stage, namespace, |lines| judge(lines, witnesses).unexplained == 0);
        counted.push(judge(&lines, witnesses));
        say(&format!("{namespace}: {:?}", counted[counted.len() - 1]));
        faults.extend(witnesses.iter().flat_map(|witness| witness.faults(&lines)).take(20));
    }
    let sum = counted.iter().fold(Figures::default(), |sum, figures| sum.and(figures));
    let finished = case.finish(sum, &stage.router);
    if finished.is_err() {
        say(&format!("{faults:#?}"));
    }
    finished.unwrap();
    counted
}

/// The topic of a namespace as soon as it is `complete` and nothing more comes, or as it is when time is up.
fn arrived(stage: &Stage, namespace: &str, complete: impl Fn(&[Line]) -> bool) -> Vec<Line> {
    let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic(namespace));
    let (mut count, mut since, mut judged) = (0, Instant::now(), 0);
    let mut lines = Vec::new();
    let done = wait_for("all lines of a topic", arrives_within(), || {
        let now = record_count(&bootstrap, &topic).ok()?;
        if now != count {
            (count, since) = (now, Instant::now());
        }
        // Reading a topic costs: not before it has stood still for a moment, and each state once.
        if since.elapsed() < STANDS_STILL || judged == count {
            return None;
        }
        lines = read_lines(&bootstrap, &topic).ok()?;
        judged = count;
        complete(&lines).then_some(())
    });
    if let Err(error) = done {
        say(&format!("{namespace}: {error}"));
    }
    lines
}
