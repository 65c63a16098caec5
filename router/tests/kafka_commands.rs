//! `audit` and `plan` as people run them, against librdkafka's mock cluster: what they print, and their exit codes.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use fairlead_contract::record::{
    Head, KubernetesHead, Line, Metadata, Notice, NoticeKind, Source, Stream, Timestamp, encode, encode_notice,
};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    folder: tempfile::TempDir,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Bench {
    fn new(topics: &[(&str, i32)]) -> Bench {
        let cluster = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).unwrap();
        }
        let bench = Bench { folder: tempfile::tempdir().unwrap(), cluster };
        let pods = bench.folder.path().join("pods");
        for folder in ["payments_api-1_u1/api", "payments_api-1_u1/proxy", "shop_web-1_u2/web", "scratch-1_x_u3/x"] {
            std::fs::create_dir_all(pods.join(folder)).unwrap();
        }
        bench.configure(&bench.cluster.bootstrap_servers());
        bench
    }

    fn configure(&self, servers: &str) {
        let yaml = format!(
            "node_name: n\nstate_dir: state\nlogs: {{pods_dir: pods}}\nkafka: {{bootstrap_servers: '{servers}'}}\n\
             topics: {{rules: [{{namespaces: [ops], topic: 'infra.{{namespace}}'}}, {{regex: '^scratch-', exclude: true}}], \
             create: {{enabled: false}}}}\n"
        );
        std::fs::write(self.folder.path().join("router.yaml"), yaml).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = router(self.folder.path(), arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// Puts records into a topic; each of a container `api` in the pod `api-1`.
    fn produce(&self, topic: &str, namespace: &str, values: &[Vec<u8>]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.cluster.bootstrap_servers()).set("enable.idempotence", "true");
        let producer: BaseProducer = config.create().unwrap();
        let key = format!("{namespace}/api-1/api");
        for value in values {
            producer.send(BaseRecord::to(topic).partition(0).key(&key).payload(value)).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }
}

fn router(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-router"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FAIRLEAD_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments).args(["--config", "router.yaml"]).output().unwrap()
}

fn head(namespace: &str) -> Head {
    let source: Source = format!("uid-of-{namespace}/api/0/e/1").parse().unwrap();
    let kubernetes = KubernetesHead {
        namespace_name: namespace,
        pod_name: "api-1",
        pod_id: &source.pod_uid,
        container_name: "api",
        host: "n",
        ..KubernetesHead::default()
    };
    Head::new(&kubernetes, Metadata::Path, &source)
}

fn line(namespace: &str, seq: u64, again: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let time = Timestamp::parse(b"2026-11-20T10:00:00Z").unwrap();
    let log = format!("the text of line {seq}");
    let (stream, log) = (Stream::Stdout, log.as_bytes());
    encode(&mut out, &head(namespace), &Line { seq, lines: 1, left_out: 0, again, chunk: None, time, stream, log });
    out
}

fn end(namespace: &str, seq: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let source = format!("uid-of-{namespace}/api/0/e/1");
    let notice = Notice { lines: Some(seq), ..Notice::new(NoticeKind::EndOfStream, source, seq) };
    encode_notice(&mut out, &head(namespace), &notice, false, (1_795_255_200, 0));
    out
}

#[test]
fn what_is_whole_is_complete_and_what_came_twice_is_counted() {
    let bench = Bench::new(&[("logs.payments", 2), ("logs.shop", 1)]);
    let mut payments: Vec<Vec<u8>> = (0..100).map(|seq| line("payments", seq, false)).collect();
    payments.extend((90..100).map(|seq| line("payments", seq, true)));
    payments.push(end("payments", 100));
    bench.produce("logs.payments", "payments", &payments);
    bench.produce("logs.shop", "shop", &[line("shop", 0, false), line("shop", 1, false)]);
    let (code, stdout, stderr) = bench.run(&["audit", "--namespace", "payments", "--topic", "logs.shop"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(
        stdout.contains(
            "payments/api-1  uid-of-payments/api/0/e/1  complete    100         0          0       10        0"
        ),
        "{stdout}"
    );
    assert!(stdout.contains("shop/api-1  uid-of-shop/api/0/e/1  open"), "{stdout}");
    let expected = "2 topics, 113 records, 2 sources: 1 complete, 1 open, 0 head, 0 hole; 102 lines covered, 0 left out, 0 announced as \
                    lost; 10 repeats; nothing is wrong\n";
    assert!(stdout.ends_with(expected), "{stdout}");

    let (code, stdout, _) = bench.run(&["audit", "--topic", "logs.payments", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let source = &report["topics"][0]["sources"][0];
    assert_eq!((code, &source["verdict"], &source["repeats"]), (Some(0), &"complete".into(), &10.into()), "{stdout}");
    assert_eq!(report["summary"]["lines"], 100);

    let (code, stdout, _) = bench.run(&["audit", "--topic", "logs.payments", "--explain", "uid-of-payments/api"]);
    assert_eq!(code, Some(0));
    for part in [
        "0/e/1     0-99      100  lines\n",
        "0/e/1    90-99       10  repeated\n",
        "end_of_stream, 100 lines",
        "complete",
    ] {
        assert!(stdout.contains(part), "{part} in {stdout}");
    }
    assert!(!stdout.contains("the text of"), "{stdout}");
}

#[test]
fn a_record_that_is_missing_is_a_hole_with_its_numbers() {
    let bench = Bench::new(&[("logs.payments", 1)]);
    let records: Vec<Vec<u8>> = [0, 1, 3, 4].into_iter().map(|seq| line("payments", seq, false)).collect();
    bench.produce("logs.payments", "payments", &records);
    let (code, stdout, stderr) = bench.run(&["audit", "--topic", "logs.payments"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    let hole = "HOLE  uid-of-payments/api/0/e/1: 2 (1 line) missing, after partition 0 offset 1 (2026-11-20T10:00:00Z), before partition 0 \
                offset 2 (2026-11-20T10:00:00Z)\n";
    assert!(stdout.contains(hole), "{stdout}");
    assert!(stdout.ends_with("WRONG: 1 line missing, 0 faults\n"), "{stdout}");
    bench.produce(
        "logs.payments",
        "payments",
        &[b"no record".to_vec(), line("payments", 2, true), line("shop", 0, false)],
    );
    let (code, stdout, _) = bench.run(&["audit", "--topic", "logs.payments"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("FAULT partition 0 offset 4 is no record\n"), "{stdout}");
    assert!(
        stdout.contains("FAULT partition 0 offset 6 is a record of a namespace that does not belong here\n"),
        "{stdout}"
    );
    assert!(stdout.ends_with("WRONG: 0 lines missing, 2 faults\n"), "{stdout}");
}

#[test]
fn what_cannot_be_told_is_said_in_one_line_with_code_2() {
    let bench = Bench::new(&[("logs.payments", 1)]);
    let check = |arguments: &[&str], expected: &str| {
        let (code, stdout, stderr) = bench.run(arguments);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    };
    bench.produce("logs.payments", "payments", &[line("payments", 0, false)]);
    check(&["audit", "--topic", "logs.none"], "topic logs.none does not exist");
    check(&["audit", "--topic", "no/name"], "`no/name` is no topic name");
    check(&["audit", "--namespace", "scratch-1"], "namespace scratch-1 is excluded by a rule");
    check(
        &["audit", "--topic", "logs.payments", "--explain", "other"],
        "no source in these topics begins with `other`",
    );
    bench.configure("127.0.0.1:1");
    check(&["audit", "--topic", "logs.payments"], "cannot ask Kafka about topic logs.payments");
    check(&["plan"], "no broker answers at 127.0.0.1:1");
    // Keys of other blocks are of no matter to an audit, wherever it runs.
    std::fs::write(bench.folder.path().join("router.yaml"), "state_dir: /proc/none\nkafka: {linger: x}\n").unwrap();
    let (code, _, stderr) = bench.run(&["audit", "--topic", "logs.payments"]);
    let keys: Vec<&str> = stderr.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!((code, keys), (Some(2), vec!["kafka.bootstrap_servers", "kafka.linger"]), "{stderr}");
    let usage = router(bench.folder.path(), &["audit"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_plan_tells_where_lines_go_and_changes_nothing() {
    let bench = Bench::new(&[("logs.payments", 3), ("infra.ops", 1)]);
    let (code, stdout, stderr) = bench.run(&["plan"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    let rows = [
        "ops        none here           0  infra.ops\n",
        "payments   api-1               2  logs.payments\n",
        "scratch-1  x                   1  left out\n",
        "shop       web-1               1  logs.shop\n",
        "REFUSED logs.shop: it does not exist, and topics.create.enabled is false\n",
    ];
    for row in rows {
        assert!(stdout.contains(row), "{row} in {stdout}");
    }
    assert!(stdout.contains("logs.payments  there    "), "{stdout}");
    bench.cluster.create_topic("logs.shop", 1, 1).unwrap();
    let (code, stdout, _) = bench.run(&["plan", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &plan["refused"]), (Some(0), &false.into()), "{stdout}");
    let topics: Vec<(&str, u64)> = plan["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|topic| (topic["topic"].as_str().unwrap(), topic["partitions"].as_u64().unwrap()))
        .collect();
    assert_eq!(topics, [("infra.ops", 1), ("logs.payments", 3), ("logs.shop", 1)]);
    assert!(!bench.folder.path().join("state").exists(), "a plan leaves nothing behind");
}
