//! A proxy in front of Kafka refuses some lines for what they are, and with them all that is in their batch: they are among the
//! dead letters whole, each announced where it is missing, and every other line arrives in order. Where the topic of dead
//! letters refuses them too, the announcement says so.

use std::collections::BTreeMap;

use fairlead_contract::record::{LossReason, NoticeKind};
use fairlead_integration::broker::Broker;
use fairlead_integration::broker::Kind;
use fairlead_integration::consume::{read_lines, read_topic};
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::Stream;
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::kafka::{Refuses, Shape};
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::{Stage, TEAMS, Wishes};

use super::teams;

const BAD: &str = "not-to-be-had";
/// The dead letters of one namespace are taken, those of the other are not.
const REFUSES: Refuses = Refuses { topics: &["logs.payments", "logs.shop", "logs.shop.dlq"], text: BAD };

#[test]
fn cost_their_own_line_alone() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let case =
        Case::begin("24-dead-letters", "lines that are refused for what they are, with all of their batch").unwrap();
    let shape = Shape { refuses: Some(REFUSES), ..Shape::default() };
    let mut stage = Stage::over(Broker::shaped(&shape).unwrap(), &Wishes::default()).unwrap();
    stage.broker.start().unwrap();
    stage.router.start_ready().unwrap();
    // In the order in which they were written; each waits for up to 15 s where nobody takes it.
    let bad = BTreeMap::from([("payments", pick(5, 50)), ("shop", pick(1, 4))]);
    let mut logs = Vec::new();
    for (namespace, count) in &bad {
        let log = |pod: &str| KeptLog::create(stage.pods(), &Identity::new(namespace, pod, "app")).unwrap();
        let (mut guilty, mut beside) = (log("guilty-1"), log("beside-1"));
        for number in 0..*count {
            // Whole batches, so that the bad line is refused beside others, of its own container and of the other.
            for line in 0..40 {
                let text = format!("{number} {line} of an order");
                guilty.line(Stream::Stdout, 'F', text.as_bytes()).unwrap();
                beside.line(Stream::Stderr, 'F', text.as_bytes()).unwrap();
            }
            guilty.line(Stream::Stdout, 'F', dead_line(number).as_bytes()).unwrap();
        }
        guilty.line(Stream::Stdout, 'F', b"the last one").unwrap();
        logs.extend([guilty, beside]);
    }
    let figures = teams::prove(case, &stage, &logs, &[]);
    assert_eq!(figures.announced, bad.values().sum::<u64>());
    for (namespace, count) in bad {
        expect_dead_letters(&stage, namespace, count, namespace == "payments");
    }
    let output = stage.router.run_verb(&["audit", "--namespace", TEAMS[0].0, "--namespace", TEAMS[1].0]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

fn dead_line(number: u64) -> String {
    format!("{number} is {BAD}: \"quoted\" and whole")
}

/// What is announced, and what lies among the dead letters.
fn expect_dead_letters(stage: &Stage, namespace: &str, count: u64, kept: bool) {
    let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic(namespace));
    let reason = if kept { LossReason::InvalidRecord } else { LossReason::NotKept };
    let lines = read_lines(&bootstrap, &topic).unwrap();
    let gaps = lines.iter().filter_map(|line| line.notice.as_ref()).filter(|notice| notice.kind == NoticeKind::Gap);
    let said: Vec<_> = gaps.map(|gap| (gap.lines, gap.reason)).collect();
    assert_eq!(said, vec![(Some(1), Some(reason)); usize::try_from(count).unwrap()], "{namespace}");
    let dead = format!("{topic}.dlq");
    let letters = read_lines(&bootstrap, &dead).unwrap();
    let expected: Vec<_> = if kept { (0..count).map(dead_line).collect() } else { Vec::new() };
    assert_eq!(letters.iter().map(|line| line.log.as_str()).collect::<Vec<_>>(), expected, "{namespace}");
    let headers = [("fairlead.reason", "invalid_record"), ("fairlead.topic", &topic)];
    let headers = headers.map(|(key, value)| (key.to_owned(), value.to_owned()));
    for letter in read_topic(&bootstrap, &dead).unwrap() {
        assert_eq!(letter.headers, headers);
        assert!(String::from_utf8_lossy(&letter.key).starts_with(&format!("{namespace}/guilty-1/")));
    }
}
