//! The whole system, one scenario a file: real binaries, real files, real brokers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit_command;
mod authentication;
mod broker_late;
mod broker_restart;
mod cursor;
mod faults;
mod follow;
mod kubernetes;
mod page;
mod renumbering;
mod rotation;
mod router_stopped;
mod soak;
mod trial;
mod two_teams;

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_integration::audit::{Report, audit};
use fairlead_integration::consume::{Line, wait_for_lines};
use fairlead_integration::generator::Identity;
use fairlead_integration::stage::Stage;
use fairlead_integration::workload::Script;

/// How long lines may take to arrive on a machine that is busy.
const ARRIVES: Duration = Duration::from_secs(60);

/// One scenario at a time: each starts several processes, and some measure.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Past libtest's capture: the figures of a run that passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Waits until all that these containers wrote is in their namespace's topic, and fails unless every line is there, in
/// order, under the right key and number.
fn expect_scripts(stage: &Stage, namespace: &str, written: &[(&Identity, &Script)]) -> (Vec<Line>, Report) {
    let total = written.iter().map(|(_, script)| script.total()).sum();
    // Lines in several pieces are several physical lines.
    let lines = wait_for_lines(&stage.broker.bootstrap(), &stage.topic(namespace), total, ARRIVES).unwrap();
    let lines = settle(stage, namespace, written, lines);
    let mut faults: Vec<String> =
        written.iter().flat_map(|(identity, script)| script.faults(&lines, identity)).collect();
    let report = audit(&lines);
    faults.extend(report.faults.iter().cloned());
    for line in &lines {
        let identity = written.iter().map(|(identity, _)| *identity).find(|identity| identity.uid == line.pod_uid);
        match identity {
            Some(identity) => {
                let key = format!("{namespace}/{}/{}", identity.pod, identity.container);
                if line.key != key || line.namespace != namespace {
                    faults.push(format!("key {} and namespace {} for {key}", line.key, line.namespace));
                }
            }
            None => faults.push(format!("a line of pod {} in {namespace}'s topic", line.pod_uid)),
        }
    }
    faults.truncate(20);
    assert!(faults.is_empty(), "{namespace}: {faults:#?}");
    (lines, report)
}

/// Physical lines were counted above; waits for the last whole lines too.
fn settle(stage: &Stage, namespace: &str, written: &[(&Identity, &Script)], mut lines: Vec<Line>) -> Vec<Line> {
    let whole = |lines: &[Line]| written.iter().all(|(identity, script)| script.faults(lines, identity).is_empty());
    let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic(namespace));
    let _ = fairlead_integration::wait::wait_until("the last lines", Duration::from_secs(15), || {
        if !whole(&lines) {
            lines = fairlead_integration::consume::read_lines(&bootstrap, &topic).unwrap_or_default();
        }
        whole(&lines)
    });
    lines
}
