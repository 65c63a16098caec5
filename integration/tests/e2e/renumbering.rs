//! A number is a function of the files' bytes alone: the router is killed in mid-burst and comes back with another size of
//! chunks and another time to wait for the rest of a line, again and again; no two different lines share a number, and
//! what a reader joins is what was written.

use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::consume::{record_count, wait_for_lines};
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::wait_until;
use fairlead_integration::workload::Script;
use jiff::Timestamp;

/// Chunk sizes and flush times of one run after the other.
const SETTINGS: [(&str, &str); 4] = [("16KiB", "30s"), ("7KiB", "1s"), ("128KiB", "30s"), ("5KiB", "2s")];

#[test]
fn other_settings_after_a_kill_change_no_number() {
    let _turn = super::turn();
    let mut stage = Stage::started_with(Kind::Tansu, &Wishes { router_logs: keys(0), ..Wishes::default() }).unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    let each = 800;
    let script = Script::new("renumbered", each * SETTINGS.len() as u64);
    for run in 0..SETTINGS.len() {
        let first = each * run as u64;
        script.write(&mut writer, first..first + each).unwrap();
        let arrived = record_count(&stage.broker.bootstrap(), &stage.topic("payments")).unwrap_or(0);
        wait_until("more to arrive", super::ARRIVES, || {
            record_count(&stage.broker.bootstrap(), &stage.topic("payments")).unwrap_or(0) > arrived
        })
        .unwrap();
        if run + 1 < SETTINGS.len() {
            stage.router.kill().unwrap();
            stage.router.reconfigure(&keys(run).join(", "), &keys(run + 1).join(", ")).unwrap();
            writer.rotate(5).unwrap();
            stage.router.start().unwrap();
        }
    }
    super::expect_scripts(&stage, "payments", &[(&identity, &script)]);
}

#[test]
fn a_fragment_sent_early_keeps_its_number_when_the_rest_comes() {
    let _turn = super::turn();
    let mut stage = Stage::started_with(Kind::Tansu, &Wishes { router_logs: keys(1), ..Wishes::default() }).unwrap();
    let identity = Identity::new("shop", "web-1", "web");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic("shop"));
    writer.line(Timestamp::now(), Stream::Stdout, b"zero").unwrap();
    writer.partial(Timestamp::now(), Stream::Stdout, b"one ").unwrap();
    writer.partial(Timestamp::now(), Stream::Stdout, b"two ").unwrap();
    writer.flush().unwrap();
    wait_for_lines(&bootstrap, &topic, 3, Duration::from_secs(30)).unwrap();
    stage.router.kill().unwrap();
    writer.line(Timestamp::now(), Stream::Stdout, b"three").unwrap();
    writer.line(Timestamp::now(), Stream::Stdout, b"four").unwrap();
    writer.flush().unwrap();
    stage.router.start().unwrap();
    let lines = wait_for_lines(&bootstrap, &topic, 5, super::ARRIVES).unwrap();
    let report = fairlead_integration::audit::audit(&lines);
    assert!(report.faults.is_empty(), "{report:?}");
    // Whatever was joined with what, number n names the piece that was written n-th.
    let words = ["zero", "one ", "two ", "three", "four"];
    for line in &lines {
        let (from, to) = (usize::try_from(line.seq).unwrap(), usize::try_from(line.seq + line.lines).unwrap());
        assert_eq!(line.log, words[from..to].concat(), "{line:?}");
    }
}

fn keys(run: usize) -> Vec<String> {
    let (chunk, flush) = SETTINGS[run];
    vec![format!("record_bytes_max: {chunk}"), format!("partial_flush: {flush}")]
}
