//! Kafka is away for longer than the budget of held bytes lasts: the oldest files of the namespace that holds most are
//! released, and exactly what was in them is announced; the other namespace loses nothing.

use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::Stream;
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::soak::{Case, Witness, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::wait_until;

const BUDGET_BYTES: u64 = 4 << 20;
const FILE_BYTES: u64 = 256 << 10;

#[test]
fn of_held_bytes_releases_the_oldest_and_announces_exactly_that() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let case = Case::begin("05-budget", "Kafka away for longer than the budget of held bytes lasts").unwrap();
    let budget = format!("bytes_max: {}MiB", BUDGET_BYTES >> 20);
    let wishes = Wishes { router_hold: vec![budget], ..Wishes::default() };
    let mut stage = Stage::started_with(Kind::ApacheKafka, &wishes).unwrap();
    let log = |namespace: &str, pod: usize| {
        KeptLog::create(stage.pods(), &Identity::new(namespace, &format!("pod-{pod}"), "app")).unwrap()
    };
    let mut flood: Vec<KeptLog> = (0..3).map(|pod| log("shop", pod)).collect();
    let mut quiet: Vec<KeptLog> = (0..3).map(|pod| log("payments", pod)).collect();
    let rounds = pick(4, 40);
    // In all, the quiet namespace stays far below its half of the budget.
    let all = |flood: &mut [KeptLog], quiet: &mut [KeptLog], bytes: u64| {
        flood.iter_mut().for_each(|log| write(log, bytes));
        quiet.iter_mut().for_each(|log| write(log, bytes / (12 * rounds)));
    };
    all(&mut flood, &mut quiet, FILE_BYTES);
    let arrived = || stage.router.metric("fairlead_router_records_acknowledged_total") > 1_000.0;
    wait_until("the first lines", Duration::from_secs(30), arrived).unwrap();
    stage.broker.stop().unwrap();
    for round in 0..rounds {
        all(&mut flood, &mut quiet, 4 * FILE_BYTES);
        if round == 1 {
            stage.router.kill().unwrap();
            stage.router.start().unwrap();
        }
        wait_until("held bytes to be within the budget", Duration::from_secs(30), || {
            let held = stage.router.metric("fairlead_router_held_bytes");
            #[allow(clippy::cast_precision_loss, reason = "a few mebibytes")]
            let budget = BUDGET_BYTES as f64;
            // The metric is there again: the router runs.
            held > 0.0 && held <= budget
        })
        .unwrap();
    }
    stage.broker.start().unwrap();
    let witness =
        |logs: &[KeptLog]| -> Vec<Witness> { logs.iter().map(|log| Witness::new(&log.identity, &log.files)).collect() };
    let (flood, quiet) = (witness(&flood), witness(&quiet));
    let counted = super::prove_bytes(case, &stage, &[("shop", &flood), ("payments", &quiet)]);
    assert!(counted[0].announced > 0, "the budget was never reached");
    assert_eq!(counted[1].delivered, counted[1].written, "a quiet namespace pays for a flood");
}

/// Writes so many bytes, rotating; the kubelet keeps two files, so that most are soon held by the router alone.
fn write(log: &mut KeptLog, bytes: u64) {
    let mut number = 0;
    let mut written = 0;
    while written < bytes {
        let before = log.live_bytes();
        for stream in [Stream::Stdout, Stream::Stdout, Stream::Stderr] {
            number += 1;
            let content = format!("line {number} {}", "x".repeat(number % 300));
            log.line(stream, 'F', content.as_bytes()).unwrap();
        }
        written += log.live_bytes() - before;
        if log.live_bytes() > FILE_BYTES {
            wait_until("the live file to be held", Duration::from_secs(30), || log.is_held()).unwrap();
            log.rotate(1).unwrap();
        }
    }
}
