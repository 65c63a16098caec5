//! A cursor goes on exactly where it was taken: page by page, from any record, over a restart of the gateway, and into a
//! follow.

use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::follow::Follow;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::http::{cursor_of, history, log_of};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::workload::Script;
use jiff::Timestamp;
use serde_json::Value;

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
    let mut stage = Stage::started_with(kind, &Wishes { partitions: 3, ..Wishes::default() }).unwrap();
    let script = Script::new("cursor", 120);
    let identities = ["api-1", "api-2", "api-3", "api-4"].map(|pod| Identity::new("payments", pod, "api"));
    let mut writers: Vec<CriWriter> =
        identities.iter().map(|identity| CriWriter::create(stage.pods(), identity, 0).unwrap()).collect();
    for writer in &mut writers {
        script.write(writer, 0..script.lines).unwrap();
    }
    let written: Vec<(&Identity, &Script)> = identities.iter().map(|identity| (identity, &script)).collect();
    super::expect_scripts(&stage, "payments", &written);
    let client = stage.team("payments").unwrap();

    let whole = places(&history(&client, "payments", 10_000).unwrap());
    assert_eq!(whole.len() as u64, script.total() * identities.len() as u64);
    for page in [37, 250] {
        assert_eq!(places(&history(&client, "payments", page).unwrap()), whole, "pages of {page}");
    }

    stage.gateway.terminate().unwrap();
    stage.gateway.start_ready().unwrap();
    let records = history(&client, "payments", 10_000).unwrap();
    assert_eq!(places(&records), whole, "a closed range comes out the same twice");
    for taken in [0, 1, whole.len() / 2, whole.len() - 2] {
        let path = format!("/v1/namespaces/payments/logs?cursor={}", cursor_of(&records[taken]).unwrap());
        let rest = client.get(&path).unwrap().records().unwrap();
        assert_eq!(places(&rest), whole[taken + 1..], "after record {taken}");
    }

    let last = cursor_of(records.last().unwrap()).unwrap();
    let follow = Follow::open(&client, &format!("/v1/namespaces/payments/logs?follow=true&cursor={last}")).unwrap();
    for (number, writer) in writers.iter_mut().enumerate() {
        let text = format!("after the cursor {number}");
        writer.line(Timestamp::now(), Stream::Stdout, text.as_bytes()).unwrap();
        writer.flush().unwrap();
        let (_, record) = follow.next_record(Duration::from_secs(10)).unwrap();
        assert_eq!(log_of(&record), text);
    }

    // A cursor grants nothing: the other team's token opens nothing with it.
    let other = stage.team("shop").unwrap();
    let answer = other.get(&format!("/v1/namespaces/payments/logs?cursor={last}")).unwrap();
    assert_eq!(answer.status, 404, "{}", answer.body);
    let answer = other.get(&format!("/v1/namespaces/shop/logs?cursor={last}")).unwrap();
    assert!((400..500).contains(&answer.status), "a cursor of another namespace: {}", answer.body);
}

/// Which lines, in which order.
fn places(records: &[Value]) -> Vec<(String, u64, u64)> {
    records
        .iter()
        .map(|record| {
            let own = &record["fairlead"];
            let offset = own["chunk"]["offset"].as_u64().unwrap_or(0);
            (own["source"].as_str().unwrap().to_owned(), own["seq"].as_u64().unwrap(), offset)
        })
        .collect()
}
