//! Two teams: each sees its own lines, live and later, and the same 404 for the other's namespace as for none.

use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::follow::Follow;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::http::{Answer, Client, history, log_of};
use fairlead_integration::stage::{Stage, TEAMS};
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
    let stage = Stage::started(kind).unwrap();
    let script = Script::new("two-teams", 400);
    let mut writers = Vec::new();
    for (namespace, _) in TEAMS {
        let identity = Identity::new(namespace, &format!("{namespace}-api-1"), "api");
        let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
        let script = Script { name: namespace.to_owned(), ..script.clone() };
        script.write(&mut writer, 0..script.lines).unwrap();
        super::expect_scripts(&stage, namespace, &[(&identity, &script)]);
        writers.push(writer);
    }
    for (team, (namespace, group)) in TEAMS.into_iter().enumerate() {
        let (other, _) = TEAMS[1 - team];
        // The same rights whether the token is minted here or comes from the team's identity provider.
        for client in [stage.team(namespace).unwrap(), stage.member("alice", group).unwrap()] {
            sees_its_own(&client, namespace, script.total());
            other_is_hidden(&client, other);
            lists_its_own(&client, namespace, other);
        }
        live(&stage.team(namespace).unwrap(), namespace, &mut writers[team]);
    }
}

fn sees_its_own(client: &Client, namespace: &str, lines: u64) {
    let records = history(client, namespace, 10_000).unwrap();
    assert_eq!(records.len() as u64, lines, "{namespace}");
    for record in &records {
        assert_eq!(record["kubernetes"]["namespace_name"], namespace);
        assert!(record["cursor"].is_string() && record["fairlead"]["seq"].is_u64());
    }
    let text = client.get_as(&format!("/v1/namespaces/{namespace}/logs?tail=5"), "text/plain").unwrap();
    let shown = text.body.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!((text.status, shown), (200, 5), "{}", text.body);
    let found =
        client.get(&format!("/v1/namespaces/{namespace}/logs?since=5m&stream=stderr&grep=stderr+00000")).unwrap();
    let logs = found.logs().unwrap();
    assert!(!logs.is_empty() && logs.iter().all(|log| log.contains("stderr 00000")), "{logs:?}");
}

/// What is not the caller's and what does not exist answer alike, byte for byte but for the name asked for.
fn other_is_hidden(client: &Client, other: &str) {
    for query in ["", "?since=5m", "?follow=true", "?tail=1"] {
        let ask = |namespace: &str| client.get(&format!("/v1/namespaces/{namespace}/logs{query}")).unwrap();
        let (theirs, nobodys) = (ask(other), ask("no-such-namespace"));
        assert_eq!((theirs.status, nobodys.status), (404, 404), "{}", theirs.body);
        let without_name = |answer: &Answer, name: &str| answer.body.replace(name, "NAME");
        assert_eq!(without_name(&theirs, other), without_name(&nobodys, "no-such-namespace"));
        assert_eq!(theirs.headers.get("content-type"), nobodys.headers.get("content-type"));
        assert_eq!(theirs.headers.get("content-type").unwrap(), "application/problem+json");
    }
}

fn lists_its_own(client: &Client, namespace: &str, other: &str) {
    let me = client.get("/v1/me").unwrap();
    assert_eq!(me.status, 200, "{}", me.body);
    let listed = client.get("/v1/namespaces").unwrap();
    assert_eq!(listed.status, 200, "{}", listed.body);
    assert!(listed.body.contains(&format!("logs.{namespace}")), "{}", listed.body);
    assert!(!listed.body.contains(other) && !me.body.contains(other), "{} {}", listed.body, me.body);
}

fn live(client: &Client, namespace: &str, writer: &mut CriWriter) {
    let follow = Follow::open(client, &format!("/v1/namespaces/{namespace}/logs?follow=true&since=0s")).unwrap();
    for number in 0..20 {
        let text = format!("live {number}");
        writer.line(Timestamp::now(), Stream::Stdout, text.as_bytes()).unwrap();
        writer.flush().unwrap();
        let (_, record) = follow.next_record(Duration::from_secs(10)).unwrap();
        assert_eq!(log_of(&record), text);
    }
}
