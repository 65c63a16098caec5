//! `fairlead-router audit` and `plan` on real Apache Kafka: two teams and a router that was killed are accounted for; a topic with a record taken
//! out has a hole, by number and place; a compacted topic is refused.

use fairlead_integration::admin::{create_topic, produce, produce_and_abort};
use fairlead_integration::broker::Kind;
use fairlead_integration::consume::read_topic;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::CriWriter;
use fairlead_integration::stage::{Stage, TEAMS};
use fairlead_integration::workload::Script;
use serde_json::Value;

#[test]
fn on_apache_kafka() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = super::turn();
    let mut stage = Stage::started(Kind::ApacheKafka).unwrap();
    let mut written = Vec::new();
    for (namespace, _) in TEAMS {
        let identity = Identity::new(namespace, &format!("{namespace}-api-1"), "api");
        let script = Script::new(namespace, 1_200);
        let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
        script.write(&mut writer, 0..600).unwrap();
        written.push((namespace, identity, script, writer));
    }
    let reached = |stage: &Stage, namespace: &str, total: u64| {
        let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic(namespace));
        fairlead_integration::consume::wait_for_lines(&bootstrap, &topic, total, super::ARRIVES).unwrap();
    };
    for (namespace, ..) in &written {
        reached(&stage, namespace, 100);
    }
    stage.router.kill().unwrap();
    stage.router.start().unwrap();
    for (namespace, identity, script, writer) in &mut written {
        script.write(writer, 600..1_200).unwrap();
        super::expect_scripts(&stage, namespace, &[(&*identity, &*script)]);
    }
    all_is_accounted_for(&stage);
    a_record_taken_out_is_a_hole(&stage);
    what_was_taken_back_is_no_hole(&stage);
    what_would_eat_lines_is_refused(&stage);
}

fn all_is_accounted_for(stage: &Stage) {
    let report = audit(stage, &["--namespace", "payments", "--namespace", "shop"], 0);
    let topics = report["topics"].as_array().unwrap();
    assert_eq!(topics.len(), TEAMS.len(), "{report}");
    for topic in topics {
        let stored = read_topic(&stage.broker.bootstrap(), topic["topic"].as_str().unwrap()).unwrap();
        assert_eq!(topic["summary"]["records"], stored.len(), "{report}");
        assert_eq!((&topic["summary"]["missing"], &topic["summary"]["faults"]), (&0.into(), &0.into()), "{report}");
        let sources = topic["sources"].as_array().unwrap();
        assert!(!sources.is_empty(), "{report}");
        let mut repeats = 0;
        for source in sources {
            assert!(["complete", "open"].contains(&source["verdict"].as_str().unwrap()), "{source}");
            assert_eq!(source["not_compared"], 0, "{source}");
            repeats += source["repeats"].as_u64().unwrap();
        }
        // What the router sent again is marked; all of it is counted, unless it came for the first time.
        let marked = stored.iter().filter(|record| String::from_utf8_lossy(&record.value).contains("\"again\":true"));
        assert!(repeats <= marked.count() as u64, "{report}");
    }
}

fn a_record_taken_out_is_a_hole(stage: &Stage) {
    let bootstrap = stage.broker.bootstrap();
    let stored = read_topic(&bootstrap, &stage.topic("shop")).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let number = |value: &str| serde_json::from_str::<Value>(value).unwrap()["fairlead"].clone();
    let is_line = |own: &Value| own.get("notice").is_none() && own.get("lines").is_none();
    let owns: Vec<Value> = stored.iter().map(|record| number(&text(&record.value))).collect();
    let chosen = owns.iter().find(|own| is_line(own) && own["seq"].as_u64().unwrap() >= 100).unwrap();
    let is_chosen = |own: &Value| is_line(own) && own["source"] == chosen["source"] && own["seq"] == chosen["seq"];
    let kept = stored.iter().zip(&owns).filter(|(_, own)| !is_chosen(own));
    let copies: Vec<_> = kept.map(|(record, _)| (0, text(&record.key), text(&record.value))).collect();
    create_topic(&bootstrap, "copy.of.shop", 1, &[]).unwrap();
    produce(&bootstrap, "copy.of.shop", copies).unwrap();
    let report = audit(stage, &["--topic", "copy.of.shop"], 1);
    let sources = report["topics"][0]["sources"].as_array().unwrap();
    let with_hole: Vec<&Value> = sources.iter().filter(|source| source["verdict"] == "hole").collect();
    assert_eq!(with_hole.len(), 1, "{report}");
    let hole = &with_hole[0]["holes"][0];
    assert_eq!((&with_hole[0]["source"], &hole["from"]), (&chosen["source"], &chosen["seq"]), "{report}");
    assert!(hole["before"]["offset"].is_number() && !hole["after"]["time"].as_str().unwrap().is_empty(), "{report}");
}

/// A log whose last offsets nobody can read ends where it ends.
fn what_was_taken_back_is_no_hole(stage: &Stage) {
    let bootstrap = stage.broker.bootstrap();
    let stored = read_topic(&bootstrap, &stage.topic("shop")).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let copies: Vec<_> = stored.iter().map(|record| (0, text(&record.key), text(&record.value))).collect();
    let (half, rest) = copies.split_at(copies.len() / 2);
    create_topic(&bootstrap, "aborts.in.shop", 1, &[]).unwrap();
    for part in [half, rest] {
        produce(&bootstrap, "aborts.in.shop", part.to_vec()).unwrap();
        produce_and_abort(&bootstrap, "aborts.in.shop", 10).unwrap();
    }
    let report = audit(stage, &["--topic", "aborts.in.shop"], 0);
    assert_eq!(report["topics"][0]["summary"]["records"], stored.len(), "{report}");
}

fn what_would_eat_lines_is_refused(stage: &Stage) {
    let bootstrap = stage.broker.bootstrap();
    let plan = |code: i32| -> Value {
        let output = stage.router.run_verb(&["plan", "--format", "json"]).unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let well = plan(0);
    let topic = well["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == stage.topic("shop")).unwrap();
    let said = [&topic["state"], &topic["may_write"], &topic["cleanup_policy"], &topic["timestamp_type"]];
    assert_eq!(said, [&Value::from("there"), &true.into(), &"delete".into(), &"LogAppendTime".into()], "{well}");
    assert_eq!(
        (&topic["partitions"], &topic["replicas"], &topic["in_sync"]),
        (&1.into(), &1.into(), &1.into()),
        "{well}"
    );
    create_topic(&bootstrap, &stage.topic("ledger"), 1, &[("cleanup.policy", "compact")]).unwrap();
    let identity = Identity::new("ledger", "ledger-1", "api");
    std::fs::create_dir_all(identity.pod_folder(stage.pods()).join("api")).unwrap();
    let refused = plan(1);
    let remarks: Vec<&Value> = refused["topics"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|topic| topic["remarks"].as_array().unwrap())
        .filter(|remark| remark["refused"] == true)
        .collect();
    assert_eq!(remarks.len(), 1, "{refused}");
    assert!(remarks[0]["text"].as_str().unwrap().contains("cleanup.policy is compact"), "{refused}");
}

fn audit(stage: &Stage, what: &[&str], code: i32) -> Value {
    let words: Vec<&str> = ["audit", "--format", "json"].iter().chain(what).copied().collect();
    let output = stage.router.run_verb(&words).unwrap();
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{told}\n{error}");
    serde_json::from_str(&told).unwrap()
}
