//! The router is killed (SIGKILL) at random moments under load, with conmon writing and pods coming and going: nothing is
//! missing, every repeat is marked and equal in numbers, text and time, and the gateway shows each line once.
//!
//! `FAIRLEAD_SEED` repeats a run's moments.

use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::http::history;
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::{pace, wait_until};
use fairlead_integration::workload::Script;

use super::pods::{Pod, written};

const NAMESPACE: &str = "payments";
const PODS_AT_ONCE: usize = 3;
const LINES: u64 = 1_200;

#[test]
fn at_random_moments_lose_nothing_and_mark_what_repeats() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    let wanted = pick(20, 200);
    let case =
        Case::begin("02-kills", &format!("`kill -9` of the router at {wanted} random moments under load")).unwrap();
    let mut dice = super::dice();
    let mut stage = Stage::started(Kind::ApacheKafka).unwrap();
    let (mut kills, mut pods, mut removed) = (0, Vec::<Pod>::new(), 0);
    let mut next = Instant::now();
    loop {
        let running = pods.iter_mut().map(Pod::tend).filter(|&running| running).count();
        if running < PODS_AT_ONCE && kills < wanted {
            let name = format!("run-{}", pods.len());
            let script = Script { name, lines: LINES, burst: 60, pause: Duration::from_millis(80) };
            pods.push(Pod::start(&stage, NAMESPACE, script));
        } else if running == 0 {
            break;
        }
        // In the order in which they began, as they also end.
        if pods.get(removed).is_some_and(|pod| pod.remove_if_due(&stage)) {
            removed += 1;
        }
        if kills < wanted && Instant::now() >= next {
            stage.router.kill().unwrap();
            stage.router.start().unwrap();
            kills += 1;
            next = Instant::now() + Duration::from_micros(dice.below(700_000));
        }
        pace(Duration::from_millis(5));
    }
    assert!(removed > 0, "no pod was removed while the run lasted");
    let (figures, _) = super::prove(case, &stage, NAMESPACE, &written(&pods));
    assert_eq!(figures.delivered, figures.written);
    let shown = history(&stage.team(NAMESPACE).unwrap(), NAMESPACE, 10_000).unwrap();
    assert_eq!(shown.len() as u64, figures.written, "the gateway leaves {} repeats out", figures.repeated);
    let held = stage.folder().join("log/fairlead/held");
    wait_until("what is delivered to be let go", Duration::from_secs(30), || files_below(&held) <= pods.len() * 2)
        .unwrap();
}

fn files_below(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}
