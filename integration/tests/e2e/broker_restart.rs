//! The broker goes away in mid-burst and comes back: nothing is missing, and an open follow goes on.

use fairlead_integration::broker::Kind;
use fairlead_integration::follow::Follow;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::http::{cursor_of, log_of};
use fairlead_integration::stage::Stage;
use fairlead_integration::workload::Script;
use jiff::Timestamp;

#[test]
fn on_apache_kafka() {
    scenario(Kind::ApacheKafka);
}

#[test]
fn on_tansu() {
    scenario(Kind::Tansu);
}

fn scenario(kind: Kind) {
    if !kind.usable() {
        return;
    }
    let _turn = super::turn();
    let mut stage = Stage::started(kind).unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let script = Script::new("outage", 1_200);
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    script.write(&mut writer, 0..300).unwrap();
    let client = stage.team("payments").unwrap();
    let follow = Follow::open(&client, "/v1/namespaces/payments/logs?follow=true&since=5m").unwrap();
    follow.next_record(super::ARRIVES).unwrap();
    script.write(&mut writer, 300..600).unwrap();
    stage.broker.stop().unwrap();
    script.write(&mut writer, 600..900).unwrap();
    writer.rotate(5).unwrap();
    stage.broker.start().unwrap();
    script.write(&mut writer, 900..script.lines).unwrap();
    super::expect_scripts(&stage, "payments", &[(&identity, &script)]);
    assert!(stage.router.ended().is_none() && stage.gateway.ended().is_none());

    writer.line(Timestamp::now(), Stream::Stdout, b"the last one").unwrap();
    writer.flush().unwrap();
    let (shown, follow) = read_until(follow, &client, "the last one");
    assert_eq!(shown, script.total() + 1, "a follow over the outage shows every line once");
    drop(follow);
}

/// Reads a follow up to a line; if the gateway ends it, goes on from its cursor as a client would.
fn read_until(mut follow: Follow, client: &fairlead_integration::http::Client, last: &str) -> (u64, Follow) {
    // The first record was read by the scenario.
    let mut shown = 1;
    loop {
        let (_, line) = follow.next(super::ARRIVES).unwrap();
        match line.get("event").and_then(|event| event.as_str()) {
            None => {
                shown += 1;
                if log_of(&line) == last {
                    return (shown, follow);
                }
            }
            Some("end") => {
                let path = format!("/v1/namespaces/payments/logs?follow=true&cursor={}", cursor_of(&line).unwrap());
                let reopened = fairlead_integration::wait::wait_for("the gateway to answer", super::ARRIVES, || {
                    Follow::open(client, &path).ok()
                });
                follow = reopened.unwrap();
            }
            Some(_) => {}
        }
    }
}
