//! The chart's requests of memory against what the programs use.

use std::io::Write as _;
use std::time::Duration;

use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::consume::wait_for_lines;
use fairlead_integration::follow::Follow;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::stage::{Stage, Wishes};
use jiff::Timestamp;

use super::Rendered;

/// Open at once, on one replica.
const FOLLOWERS: usize = 500;
const RANGES: usize = 32;
const LINES: u64 = 10_000;

#[test]
fn the_gateways_request_is_above_what_many_readers_need() {
    if !Component::Helm.usable() {
        return;
    }
    let _turn = super::turn();
    let mut broker = Broker::prepared(Kind::Tansu).unwrap();
    broker.start().unwrap();
    let mut stage = Stage::over(broker, &Wishes::default()).unwrap();
    stage.gateway.reconfigure("streams: 20", "streams: 1000").unwrap();
    stage.router.start_ready().unwrap();
    stage.gateway.start_ready().unwrap();
    let identity = Identity::new("payments", "payments-api-1", "api");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    let mut write = |count: u64| {
        for number in 0..count {
            let text = format!("{number:0280}");
            writer.line(Timestamp::now(), Stream::Stdout, text.as_bytes()).unwrap();
        }
        writer.flush().unwrap();
    };
    write(LINES);
    wait_for_lines(&stage.broker.bootstrap(), &stage.topic("payments"), LINES, Duration::from_secs(120)).unwrap();
    let team = stage.team("payments").unwrap();
    let idle = stage.gateway.peak_memory();

    let path = "/v1/namespaces/payments/logs?follow=true&tail=0";
    let followers: Vec<Follow> = (0..FOLLOWERS).map(|_| Follow::open(&team, path).unwrap()).collect();
    let followed = stage.gateway.peak_memory();
    std::thread::scope(|scope| {
        for _ in 0..RANGES {
            scope.spawn(|| {
                let answer = team.get(&format!("/v1/namespaces/payments/logs?since=1h&limit={LINES}")).unwrap();
                assert_eq!(answer.records().unwrap().len() as u64, LINES);
            });
        }
    });
    let ranged = stage.gateway.peak_memory();
    write(1_000);
    for follower in &followers {
        follower.next_record(Duration::from_secs(60)).unwrap();
    }
    let peak = stage.gateway.peak_memory();
    let mebibytes = |bytes: u64| bytes >> 20;
    // Written past libtest's capture: figures for docs/operations.md.
    let _ = writeln!(
        std::io::stderr(),
        "gateway: {} MiB idle, {} MiB with {FOLLOWERS} idle followers, {} MiB with {RANGES} ranges of {LINES} lines beside, {} MiB at most",
        mebibytes(idle),
        mebibytes(followed),
        mebibytes(ranged),
        mebibytes(peak),
    );
    let rendered = Rendered { set: "default", objects: fairlead_integration::helm::objects(&[]).unwrap() };
    let request = rendered.pod("gateway")["spec"]["containers"][0]["resources"]["requests"]["memory"]
        .as_str()
        .unwrap()
        .to_owned();
    let request: u64 = request.strip_suffix("Mi").unwrap().parse().unwrap();
    assert!(mebibytes(peak) < request, "{} MiB, and {request} MiB are requested", mebibytes(peak));
}
