//! A line written to a container's file shows in a follow at once: 99 of 100 within 250 ms on an idle machine.

use std::io::Write as _;
use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::follow::Follow;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::http::log_of;
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::pace;
use jiff::Timestamp;

const LINES: usize = 200;
const P99_MAX: Duration = Duration::from_millis(250);

#[test]
fn latency_on_apache_kafka() {
    scenario(Kind::ApacheKafka);
}

#[test]
fn latency_on_tansu() {
    scenario(Kind::Tansu);
}

fn scenario(kind: Kind) {
    if !kind.usable() {
        return;
    }
    let _turn = super::turn();
    let stage = Stage::started(kind).unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    let follow =
        Follow::open(&stage.team("payments").unwrap(), "/v1/namespaces/payments/logs?follow=true&since=1m").unwrap();
    // The first lines make the topic; what is measured comes after.
    let mut took: Vec<Duration> = (0..LINES + 5).map(|number| one(&mut writer, &follow, number)).skip(5).collect();
    took.sort();
    let (p50, p99, longest) = (took[LINES / 2], took[LINES * 99 / 100], took[LINES - 1]);
    let _ = writeln!(
        std::io::stderr(),
        "line written -> read over HTTP follow, {kind:?}: p50 {p50:?}, p99 {p99:?}, longest {longest:?} of {LINES}"
    );
    assert!(p99 <= P99_MAX, "p99 {p99:?}");
}

fn one(writer: &mut CriWriter, follow: &Follow, number: usize) -> Duration {
    // Not in step with any poll.
    pace(Duration::from_millis(7 + (number as u64 * 13) % 31));
    let text = format!("line {number}");
    let written = Instant::now();
    writer.line(Timestamp::now(), Stream::Stdout, text.as_bytes()).unwrap();
    writer.flush().unwrap();
    let (arrived, record) = follow.next_record(Duration::from_secs(30)).unwrap();
    assert_eq!(log_of(&record), text);
    arrived.duration_since(written)
}
