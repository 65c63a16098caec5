//! The router is stopped in mid-burst, in good order and by force, again and again: nothing is missing, what comes twice
//! is marked, an equal number is an equal line, and the gateway shows each line once.

use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::CriWriter;
use fairlead_integration::http::{history, log_of};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::wait_until;
use fairlead_integration::workload::Script;

/// Lines written while the router runs and while it is away, in each round.
const BURST_LINES: u64 = 1_500;

#[test]
fn by_kill_on_apache_kafka() {
    scenario(Kind::ApacheKafka, Way::Kill, 4);
}

#[test]
fn by_kill_on_tansu() {
    scenario(Kind::Tansu, Way::Kill, 3);
}

#[test]
fn by_term_on_apache_kafka() {
    scenario(Kind::ApacheKafka, Way::Term, 2);
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Kill,
    Term,
}

fn scenario(kind: Kind, way: Way, rounds: u64) {
    if !kind.usable() {
        return;
    }
    let _turn = super::turn();
    let mut stage = Stage::started(kind).unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let script = Script::new("stopped", BURST_LINES * rounds * 2);
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    for round in 0..rounds {
        let first = BURST_LINES * round * 2;
        script.write(&mut writer, first..first + BURST_LINES).unwrap();
        arriving(&stage, first);
        match way {
            Way::Kill => stage.router.kill().unwrap(),
            Way::Term => stage.router.terminate().unwrap(),
        }
        script.write(&mut writer, first + BURST_LINES..first + 2 * BURST_LINES).unwrap();
        writer.rotate(5).unwrap();
        stage.router.start().unwrap();
    }
    let (_, report) = super::expect_scripts(&stage, "payments", &[(&identity, &script)]);
    if way == Way::Term {
        assert_eq!(report.repeats, 0, "what was acknowledged before a stop in good order is not sent again");
    }
    let shown = history(&stage.team("payments").unwrap(), "payments", 3_000).unwrap();
    assert_eq!(
        shown.len() as u64,
        script.total(),
        "the gateway shows each line once; {} repeats lie there",
        report.repeats
    );
    let mut logs: Vec<String> = shown.iter().map(log_of).filter(|log| log.contains(" stdout ")).collect();
    logs.dedup();
    let mut sorted = logs.clone();
    sorted.sort_by_key(|log| log.split(" stdout ").nth(1).map(|rest| rest[..7].to_owned()));
    assert_eq!(logs, sorted, "one container's order holds");
}

/// In mid-burst: some of what was just written has arrived.
fn arriving(stage: &Stage, before: u64) {
    let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic("payments"));
    wait_until("the burst to arrive", Duration::from_secs(60), || {
        let records = fairlead_integration::consume::record_count(&bootstrap, &topic).unwrap_or(0);
        records > i64::try_from(before).unwrap()
    })
    .unwrap();
}
