//! Reading through the whole gateway, from token to line, against librdkafka's mock cluster.

#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use axum::body::to_bytes;
use serde_json::Value;
use world::{Sent, World, line, logs, now_ms, value};

const LOGS: &str = "/v1/namespaces/payments/logs";

/// Two partitions whose records were sent in turns, three of one and two of the other.
fn two_partitions() -> World {
    let world = World::new("");
    world.topic("logs.payments", 2);
    let start = now_ms() - 10_000;
    for number in 0..50_u64 {
        let partition = i32::from(number % 5 > 2);
        let pod = format!("api-{partition}");
        let sent_ms = start + number as i64 * 10;
        world.queue("logs.payments", partition, sent_ms, &value(&Sent { pod, ..line(number) }, sent_ms));
    }
    world.flush();
    world
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

#[tokio::test]
async fn a_range_comes_in_sending_order_and_the_same_twice() {
    let world = two_partitions();
    let first = world.range(&format!("{LOGS}?tail=1000")).await;
    assert_eq!(logs(&first), expected(0..50));
    let end = first.last().unwrap();
    assert_eq!(
        (end["event"].as_str(), end["reason"].as_str(), end["lines"].as_u64()),
        (Some("end"), Some("complete"), Some(50))
    );
    assert_eq!(logs(&world.range(&format!("{LOGS}?tail=1000")).await), logs(&first));
}

#[tokio::test]
async fn pages_join_without_a_hole_or_a_repeat_wherever_they_are_cut() {
    let world = two_partitions();
    let all = world.range(&format!("{LOGS}?tail=1000")).await;
    for cut in [0, 1, 2, 3, 4, 17, 48, 49] {
        let cursor = all[cut]["cursor"].as_str().unwrap();
        let rest = world.range(&format!("{LOGS}?cursor={cursor}")).await;
        assert_eq!(logs(&rest), expected(cut as u64 + 1..50), "after line {cut}");
    }
    let (mut cursor, mut shown) = (String::new(), Vec::new());
    let first = world.range(&format!("{LOGS}?tail=50")).await;
    shown.push(logs(&first)[0].clone());
    cursor.push_str(first[0]["cursor"].as_str().unwrap());
    loop {
        let page = world.range(&format!("{LOGS}?limit=7&cursor={cursor}")).await;
        shown.extend(logs(&page));
        let end = page.last().unwrap();
        cursor = end["cursor"].as_str().unwrap().to_owned();
        if end["reason"] == "complete" {
            break;
        }
        assert_eq!(end["reason"], "limit");
    }
    assert_eq!(shown, expected(0..50));
}

#[tokio::test]
async fn the_last_lines_are_the_last_in_order() {
    let world = two_partitions();
    for (asked, first) in [(1, 49), (2, 48), (10, 40), (50, 0), (60, 0)] {
        assert_eq!(logs(&world.range(&format!("{LOGS}?tail={asked}")).await), expected(first..50), "tail={asked}");
    }
    let of_one_pod = logs(&world.range(&format!("{LOGS}?tail=2&pod=api-1")).await);
    assert_eq!(of_one_pod, ["line 48", "line 49"]);
    assert_eq!(logs(&world.range(&format!("{LOGS}?tail=3&grep=line+.*5$")).await), ["line 25", "line 35", "line 45"]);
    assert!(logs(&world.range(&format!("{LOGS}?tail=0")).await).is_empty());
}

#[tokio::test]
async fn pages_go_backwards_too() {
    let world = two_partitions();
    let (mut shown, mut before) = (Vec::new(), String::new());
    loop {
        let from = if before.is_empty() { String::new() } else { format!("&before={before}") };
        let page = world.range(&format!("{LOGS}?tail=7{from}")).await;
        let mut lines = logs(&page);
        lines.append(&mut shown);
        shown = lines;
        match page.last().unwrap()["start"].as_str() {
            Some(start) => before = start.to_owned(),
            None => break,
        }
    }
    assert_eq!(shown, expected(0..50));
}

#[tokio::test]
async fn what_retention_took_is_a_gap_with_its_exact_range() {
    let world = World::new("");
    world.topic("logs.payments", 1);
    world.send_many("logs.payments", 0, (0..10).map(line));
    let cursor = world.range(&format!("{LOGS}?tail=7")).await[0]["cursor"].as_str().unwrap().to_owned();
    // The mock cluster keeps 5 MB of a partition.
    let wide = "x".repeat(1000);
    world.send_many("logs.payments", 0, (10..8000).map(|seq| Sent { log: format!("line {seq} {wide}"), ..line(seq) }));
    let lines = world.range(&format!("{LOGS}?cursor={cursor}")).await;
    let gap = &lines[0];
    assert_eq!((gap["event"].as_str(), gap["reason"].as_str()), (Some("gap"), Some("retention")));
    let (from, to) = (gap["partitions"][0]["from"].as_u64().unwrap(), gap["partitions"][0]["to"].as_u64().unwrap());
    assert_eq!((from, gap["records"].as_u64().unwrap()), (4, to - 4));
    let numbers: Vec<u64> = logs(&lines).iter().map(|log| log.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (to..8000).collect::<Vec<_>>());
    let again = world.range(&format!("{LOGS}?limit=1&cursor={}", gap["cursor"].as_str().unwrap())).await;
    assert_eq!(logs(&again), logs(&lines)[..1], "the gap's own cursor stands behind it");
}

#[tokio::test]
async fn a_cursor_past_the_end_is_gone_and_a_fresh_one_comes_with_the_answer() {
    let mut world = World::new("");
    world.topic("logs.payments", 1);
    world.send_many("logs.payments", 0, (0..10).map(line));
    let cursor = world.range(&format!("{LOGS}?tail=1")).await[0]["cursor"].as_str().unwrap().to_owned();
    world.move_to_an_empty_cluster();
    world.topic("logs.payments", 1);
    world.send_many("logs.payments", 0, (20..23).map(line));
    let response = world.get(&format!("{LOGS}?cursor={cursor}"), "*/*").await;
    assert_eq!(response.status(), 410);
    let problem: Value = serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
    let lines = world.range(&format!("{LOGS}?cursor={}", problem["cursor"].as_str().unwrap())).await;
    assert_eq!(logs(&lines), expected(20..23));
}

#[tokio::test]
async fn a_follow_shows_what_comes_at_once_and_ends_with_a_cursor_that_reads_on() {
    let mut world = two_partitions();
    let mut follow = world.follow(&format!("{LOGS}?tail=2&follow=true")).await;
    for number in [48, 49] {
        assert_eq!(follow.next().await.unwrap()["log"], format!("line {number}"));
    }
    assert_eq!(follow.next().await.unwrap()["event"], "heartbeat");
    for number in 50..60 {
        let sent = std::time::Instant::now();
        world.send_at("logs.payments", (number % 2) as i32, now_ms(), &line(number));
        assert_eq!(follow.next_but_heartbeats().await.unwrap()["log"], format!("line {number}"));
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    }
    world.stop.cancel();
    let end = follow.next_but_heartbeats().await.unwrap();
    assert_eq!(
        (end["event"].as_str(), end["reason"].as_str(), end["lines"].as_u64()),
        (Some("end"), Some("shutdown"), Some(12))
    );
    assert!(follow.next().await.is_none());
    world.restart();
    world.send_at("logs.payments", 0, now_ms(), &line(60));
    let cursor = end["cursor"].as_str().unwrap();
    assert_eq!(logs(&world.range(&format!("{LOGS}?cursor={cursor}")).await), ["line 60"]);
}

#[tokio::test]
async fn a_follower_that_was_too_slow_misses_nothing() {
    let world = World::new("read: {queue_bytes_max: 64KiB}");
    world.topic("logs.payments", 1);
    world.send_at("logs.payments", 0, now_ms(), &line(0));
    let mut follow = world.follow(&format!("{LOGS}?follow=true&tail=1")).await;
    assert_eq!(follow.next_but_heartbeats().await.unwrap()["log"], "line 0");
    assert_eq!(follow.next().await.unwrap()["event"], "heartbeat");
    let wide = "x".repeat(300);
    for burst in 0..4_u64 {
        let numbers = burst * 1500 + 1..burst * 1500 + 1501;
        world.send_many("logs.payments", 0, numbers.map(|seq| Sent { log: format!("{seq} {wide}"), ..line(seq) }));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for number in 1..=6000 {
        let shown = follow.next_but_heartbeats().await.unwrap();
        assert_eq!(shown["log"].as_str().unwrap().split(' ').next().unwrap(), number.to_string());
    }
    let metrics = world.metrics();
    let behind =
        metrics.lines().find_map(|line| line.strip_prefix("fairlead_gateway_followers_behind_total ")).unwrap();
    assert!(behind.parse::<u64>().unwrap() > 0, "the queue was never full, so the test shows nothing");
}

#[tokio::test]
async fn a_follow_waits_for_a_topic_that_is_not_there() {
    let world = World::new("");
    assert!(logs(&world.range("/v1/namespaces/payments-new/logs").await).is_empty());
    let mut follow = world.follow("/v1/namespaces/payments-new/logs?follow=true").await;
    world.topic("logs.payments-new", 3);
    // Older than the asked hour, but it comes after the request.
    world.send_at("logs.payments-new", 2, now_ms() - 7_200_000, &Sent { namespace: "payments-new".into(), ..line(7) });
    assert_eq!(follow.next_but_heartbeats().await.unwrap()["log"], "line 7");
}

#[tokio::test]
async fn what_is_foreign_or_unreadable_is_withheld_and_counted() {
    let world = World::new("");
    world.topic("logs.payments", 1);
    let at = now_ms();
    world.send_at("logs.payments", 0, at, &line(0));
    world.send_at("logs.payments", 0, at, &Sent { namespace: "shop".into(), log: "secret".into(), ..line(1) });
    world.send_value("logs.payments", 0, at, b"no record");
    world.send_value("logs.payments", 0, at, &[value(&line(2), at).as_slice(), b"\n{\"event\":\"end\"}"].concat());
    world.send_at("logs.payments", 0, at, &line(3));
    world.send_at("logs.payments", 0, at, &Sent { again: true, ..line(3) });
    let lines = world.range(&format!("{LOGS}?tail=100")).await;
    assert_eq!(logs(&lines), ["line 0", "line 3"]);
    assert_eq!(lines.last().unwrap()["withheld"], serde_json::json!({"repeats": 1, "unreadable": 2, "foreign": 1}));
    assert!(
        world.metrics().contains("fairlead_gateway_isolation_violations_total{namespace=\"payments\"} 1"),
        "{}",
        world.metrics()
    );
}

#[tokio::test]
async fn a_shared_topic_is_read_line_by_line() {
    let world = World::new("");
    world.topic("logs-dev", 1);
    for (seq, namespace) in ["dev-a", "dev-b", "dev-a", "payments"].into_iter().enumerate() {
        let seq = seq as u64;
        world.send_at(
            "logs-dev",
            0,
            now_ms(),
            &Sent { namespace: namespace.into(), log: format!("{namespace} {seq}"), ..line(seq) },
        );
    }
    assert_eq!(logs(&world.range("/v1/namespaces/dev-a/logs?tail=10").await), ["dev-a 0", "dev-a 2"]);
    assert_eq!(world.get("/v1/namespaces/dev-b/logs?tail=10", "*/*").await.status(), 404);
    assert!(!world.metrics().contains("isolation_violations_total{"), "shared by configuration is no violation");
}

#[tokio::test]
async fn a_marked_repeat_from_before_the_cursor_is_left_out() {
    let world = World::new("");
    world.topic("logs.payments", 1);
    for number in 0..20 {
        world.send_at("logs.payments", 0, now_ms(), &line(number));
    }
    let all = world.range(&format!("{LOGS}?tail=100")).await;
    let cursor = all[19]["cursor"].as_str().unwrap();
    for number in 15..25 {
        world.send_at("logs.payments", 0, now_ms(), &Sent { again: true, ..line(number) });
    }
    assert_eq!(logs(&world.range(&format!("{LOGS}?cursor={cursor}")).await), expected(20..25));
    let mut follow = world.follow(&format!("{LOGS}?follow=true&cursor={cursor}")).await;
    assert_eq!(follow.next_but_heartbeats().await.unwrap()["log"], "line 20");
}

#[tokio::test]
async fn cursors_of_another_place_are_refused() {
    let world = World::new("");
    world.topic("logs.payments", 1);
    world.topic("logs.payments-b", 1);
    for number in 0..10 {
        world.send_at("logs.payments", 0, now_ms(), &line(number));
        world.send_at("logs.payments-b", 0, now_ms(), &Sent { namespace: "payments-b".into(), ..line(number) });
    }
    let cursor = world.range(&format!("{LOGS}?tail=1")).await[0]["cursor"].as_str().unwrap().to_owned();
    let other = if cursor.as_bytes()[30] == b'A' { "B" } else { "A" };
    let garbled = format!("{}{other}{}", &cursor[..30], &cursor[31..]);
    for (namespace, cursor, status) in [
        ("payments", cursor.as_str(), 200),
        ("payments-b", &cursor, 400),
        ("payments", "abc", 400),
        ("payments", &garbled, 400),
        ("payments", &"A".repeat(20_000), 400),
        ("shop", &cursor, 404),
    ] {
        let response = world.get(&format!("/v1/namespaces/{namespace}/logs?cursor={cursor}"), "*/*").await;
        assert_eq!(response.status(), status, "{namespace} {cursor:.40}");
    }
}

#[tokio::test]
async fn nothing_was_read_of_a_topic_that_is_not_there_yet() {
    let world = World::new("");
    let cursor = world.range("/v1/namespaces/payments-late/logs").await[0]["cursor"].as_str().unwrap().to_owned();
    world.topic("logs.payments-late", 1);
    world.send_at("logs.payments-late", 0, now_ms(), &Sent { namespace: "payments-late".into(), ..line(0) });
    assert_eq!(logs(&world.range(&format!("/v1/namespaces/payments-late/logs?cursor={cursor}")).await), ["line 0"]);
}

#[tokio::test]
async fn text_is_what_kubectl_prints() {
    let world = World::new("");
    world.topic("logs.payments", 1);
    world.send_at("logs.payments", 0, now_ms(), &Sent { log: "red \x1b[31m".into(), ..line(0) });
    let response = world.get(&format!("{LOGS}?tail=5&pod=api-1&container=api"), "text/plain").await;
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let body = to_bytes(response.into_body(), 10_000).await.unwrap();
    let text = std::str::from_utf8(&body).unwrap();
    assert!(text.starts_with("red \\x1b[31m\n# end reason=complete lines=1 cursor="), "{text}");
}

#[tokio::test]
async fn what_is_not_yours_and_what_is_not_there_look_the_same_without_kafka() {
    let world = World::new("");
    world.cluster.broker_down(1).unwrap();
    type Answer = (u16, Vec<(String, String)>, Vec<u8>);
    let mut bodies: Vec<Answer> = Vec::new();
    for name in
        ["shop", "absent", "Payments", "payments%00", "..%2fpayments", "%ff", "payments%20", "a_b", &"a".repeat(300)]
    {
        let begun = std::time::Instant::now();
        let response = world.get(&format!("/v1/namespaces/{name}/logs?no-such-parameter=1"), "image/png").await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{name}: Kafka was asked");
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        bodies.push((
            response.status().as_u16(),
            headers,
            to_bytes(response.into_body(), 10_000).await.unwrap().to_vec(),
        ));
    }
    assert_eq!(bodies[0].0, 404);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

#[tokio::test]
async fn problems_have_documents() {
    let world = World::new("");
    for (path, accept, status, kind) in [
        (format!("{LOGS}?tial=1"), "*/*", 400, "parameter"),
        (LOGS.to_owned(), "text/event-stream", 406, "not-acceptable"),
        ("/v1/none".to_owned(), "*/*", 404, "not-found"),
        ("/v1/me?x=1".to_owned(), "*/*", 400, "parameter"),
    ] {
        let response = world.get(&path, accept).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (status, &"application/problem+json".parse().unwrap()),
            "{path}"
        );
        let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
        assert_eq!(body["type"], format!("urn:fairlead:problem:{kind}"));
    }
    let excluded = world.range("/v1/namespaces/none-x/logs?follow=true").await;
    assert_eq!(excluded[0]["reason"], "excluded");
}

#[tokio::test]
async fn streams_are_limited_by_account_and_kind() {
    let world = World::new("read: {streams_default: 2}");
    world.topic("logs.payments", 1);
    let _first = world.follow(&format!("{LOGS}?follow=true&tail=0")).await;
    let second = world.follow(&format!("{LOGS}?follow=true&tail=0")).await;
    let refused = world.get(&format!("{LOGS}?follow=true&tail=0"), "*/*").await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    assert!(logs(&world.range(&format!("{LOGS}?tail=1")).await).is_empty(), "a range has places of its own");
    drop(second);
    for _ in 0..100 {
        if world.get(&format!("{LOGS}?follow=true&tail=0"), "*/*").await.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place was not given back");
}

#[tokio::test]
async fn namespaces_are_listed_with_what_they_hold() {
    let world = World::new("");
    world.topic("logs.payments", 1);
    world.topic("logs.shop", 1);
    world.topic("logs.payments-b", 2);
    let at = now_ms() - 5000;
    for number in 0..3 {
        world.send_at("logs.payments", 0, at + number * 1000, &line(number as u64));
    }
    let response = world.get("/v1/namespaces", "*/*").await;
    let listing: Value = serde_json::from_slice(&to_bytes(response.into_body(), 100_000).await.unwrap()).unwrap();
    let names: Vec<&str> =
        listing["namespaces"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dev-a", "none-x", "payments", "payments-b"]);
    let stamp = |at: i64| jiff::Timestamp::from_millisecond(at).unwrap().to_string();
    assert_eq!(
        listing["namespaces"][2],
        serde_json::json!({"name": "payments", "topic": "logs.payments", "oldest": stamp(at), "newest": stamp(at + 2000), "records": 3})
    );
    assert_eq!(listing["namespaces"][3]["records"], 0);
    assert_eq!(listing["namespaces"][0]["records"], Value::Null);
    let me = world.get("/v1/me", "*/*").await;
    let me: Value = serde_json::from_slice(&to_bytes(me.into_body(), 100_000).await.unwrap()).unwrap();
    assert_eq!((me["authority"].as_str(), me["account"].as_str()), (Some("local"), Some("payments")));
}

#[tokio::test]
async fn a_follow_with_a_pattern_shows_what_matches_and_lives_while_nothing_does() {
    let world = World::new("read: {heartbeat: 200ms}");
    world.topic("logs.payments", 1);
    let mut lines = world.follow(&format!("{LOGS}?follow=true&tail=0&grep=line+.*7$")).await;
    assert_eq!(lines.next().await.unwrap()["event"], "heartbeat");
    for round in 0..10_u64 {
        world.send_many("logs.payments", 0, (round * 5..round * 5 + 5).map(line));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in [7, 17, 27, 37, 47] {
        let shown = lines.next_but_heartbeats().await.unwrap();
        assert_eq!(shown["log"], format!("line {number}"));
    }
    // Batches without a pause, of which none has a line that is asked for.
    let (mut heartbeats, mut seq) = (0, 100);
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        world.send_many("logs.payments", 0, (seq..seq + 50).map(|seq| Sent { log: "no".into(), ..line(seq) }));
        seq += 50;
        if let Ok(next) = tokio::time::timeout(Duration::from_millis(1), lines.next()).await {
            assert_eq!(next.unwrap()["event"], "heartbeat");
            heartbeats += 1;
        }
    }
    assert!(heartbeats >= 3, "{heartbeats} heartbeats in 2 s");
}

#[tokio::test]
async fn a_follow_is_told_what_its_tail_did_not_search() {
    let world = World::new("read: {tail_scan_records_max: 1000}");
    world.topic("logs.payments", 1);
    world.send_many("logs.payments", 0, (0..3000).map(line));
    let range = world.range(&format!("{LOGS}?tail=2&grep=line+7$")).await;
    assert_eq!(range.last().unwrap()["reason"], "scan_limit");
    let mut lines = world.follow(&format!("{LOGS}?follow=true&tail=2&grep=line+7$")).await;
    let gap = lines.next_but_heartbeats().await.unwrap();
    assert_eq!((gap["event"].as_str(), gap["reason"].as_str()), (Some("gap"), Some("scan_limit")));
    let to = gap["partitions"][0]["to"].as_u64().unwrap();
    assert_eq!((gap["partitions"][0]["from"].as_u64(), gap["records"].as_u64()), (Some(0), Some(to)));
    assert!(to > 0 && to <= 2000, "{to}");
}

#[tokio::test]
async fn readers_that_take_nothing_keep_no_place_from_another_account() {
    let world = World::new("read: {readers_max: 4}");
    world.topic("logs.payments", 1);
    let wide = "x".repeat(10_000);
    world.send_many("logs.payments", 0, (0..400).map(|seq| Sent { log: wide.clone(), ..line(seq) }));
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(world.follow(&format!("{LOGS}?tail=400")).await);
    }
    for _ in 0..100 {
        if world.metrics().contains("fairlead_gateway_readers_open 1\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.metrics().contains("fairlead_gateway_readers_open 1\n"), "{}", world.metrics());
    drop(idle);
    assert_eq!(logs(&world.range(&format!("{LOGS}?tail=3")).await).len(), 3, "the place is given back");
}
