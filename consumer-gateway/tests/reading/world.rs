//! A gateway over librdkafka's mock cluster: real consumers, no socket of ours, topics filled by hand.

use std::{
    path::Path,
    pin::pin,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::{Request, Response},
};
use fairlead_contract::record::{Head, KubernetesHead, Line, Metadata, Source, Stream, Timestamp, encode};
use fairlead_gateway::{app, config::Config};
use futures::StreamExt;
use prometheus_client::registry::Registry;
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A gateway, its broker and a token of the team that reads `payments` and `payments-*`.
pub struct World {
    /// The broker.
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    /// The API.
    pub routes: Router,
    /// Ends open streams.
    pub stop: CancellationToken,
    /// The metrics.
    pub registry: Registry,
    token: String,
    producer: BaseProducer,
    folder: tempfile::TempDir,
}

/// One line to be produced.
#[derive(Clone, Debug)]
pub struct Sent {
    pub namespace: String,
    pub seq: u64,
    pub again: bool,
    pub pod: String,
    pub log: String,
}

/// A line of `payments`.
pub fn line(seq: u64) -> Sent {
    Sent { namespace: "payments".into(), seq, again: false, pod: "api-1".into(), log: format!("line {seq}") }
}

fn write_config(file: &Path, bootstrap_servers: &str, extra: &str) {
    let text = format!(
        "listen: 127.0.0.1:0\nkafka: {{bootstrap_servers: \"{bootstrap_servers}\"}}\n\
         auth: {{local: {{private_key_file: local.key, public_key_files: [local.pub]}}}}\n\
         cursors: {{key_files: [cursor.key]}}\n\
         topics: {{rules: [{{namespaces: [dev-a, dev-b], topic: logs-dev, shared: true}}, {{namespaces: [none-*], exclude: true}}]}}\n\
         tenants: {{payments: {{namespaces: [payments, \"payments-*\", dev-a, none-x]}}, shop: {{namespaces: [shop]}}}}\n\
         admin: {{listen: 127.0.0.1:0}}\n{extra}\n"
    );
    std::fs::write(file, text).unwrap();
}

fn start(file: &Path) -> (Registry, Router, CancellationToken) {
    let config = Config::load(file).unwrap();
    let (mut registry, stop) = (Registry::default(), CancellationToken::new());
    let routes = app::build(&config, &mut registry, stop.clone()).unwrap().routes;
    (registry, routes, stop)
}

fn producer(bootstrap_servers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("linger.ms", "0")
        .set("allow.auto.create.topics", "false")
        .create()
        .unwrap()
}

impl World {
    /// A gateway with further lines of configuration.
    pub fn new(extra: &str) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        write_config(&file, &cluster.bootstrap_servers(), extra);
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-gateway"));
            let output = command.args(arguments).arg("--config").arg(&file).env_clear().output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        run(&["keys", "init"]);
        let token = run(&["token", "mint", "--tenant", "payments", "--ttl", "1h"]);
        let (registry, routes, stop) = start(&file);
        let producer = producer(&cluster.bootstrap_servers());
        Self { cluster, routes, stop, registry, token, producer, folder }
    }

    /// Goes on, with the same keys, over a cluster that holds nothing.
    pub fn move_to_an_empty_cluster(&mut self) {
        self.cluster = MockCluster::new(1).unwrap();
        write_config(&self.folder.path().join("gateway.yaml"), &self.cluster.bootstrap_servers(), "");
        self.producer = producer(&self.cluster.bootstrap_servers());
        self.restart();
    }

    /// Starts the gateway anew, as another replica with the same configuration.
    pub fn restart(&mut self) {
        (self.registry, self.routes, self.stop) = start(&self.folder.path().join("gateway.yaml"));
    }

    /// Makes a topic.
    pub fn topic(&self, name: &str, partitions: i32) {
        self.cluster.create_topic(name, partitions, 1).unwrap();
    }

    /// Produces a line, sent at a time.
    pub fn send_at(&self, topic: &str, partition: i32, sent_ms: i64, line: &Sent) {
        self.send_value(topic, partition, sent_ms, &value(line, sent_ms));
    }

    /// Produces any value.
    pub fn send_value(&self, topic: &str, partition: i32, sent_ms: i64, value: &[u8]) {
        self.queue(topic, partition, sent_ms, value);
        self.flush();
    }

    /// Produces many lines, sent now.
    pub fn send_many(&self, topic: &str, partition: i32, lines: impl Iterator<Item = Sent>) {
        let now = now_ms();
        lines.for_each(|line| self.queue(topic, partition, now, &value(&line, now)));
        self.flush();
    }

    /// Hands a value to the producer.
    pub fn queue(&self, topic: &str, partition: i32, sent_ms: i64, value: &[u8]) {
        let mut record = BaseRecord::to(topic).partition(partition).timestamp(sent_ms).key("key").payload(value);
        while let Err((_, refused)) = self.producer.send(record) {
            self.producer.poll(Duration::from_millis(5));
            record = refused;
        }
    }

    /// Waits until all is produced. A short wait each time: the producer's own flush looks only every 100 ms.
    pub fn flush(&self) {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(1));
        }
    }

    /// Asks the API.
    pub async fn get(&self, path: &str, accept: &str) -> Response<Body> {
        let request =
            Request::get(path).header("authorization", format!("Bearer {}", self.token)).header("accept", accept);
        self.routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// Asks for lines that end, and takes the answer apart.
    pub async fn range(&self, path: &str) -> Vec<Value> {
        let response = self.get(path, "application/x-ndjson").await;
        assert_eq!(response.status(), 200, "{path}");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        body.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Opens a follow.
    pub async fn follow(&self, path: &str) -> Lines {
        let response = self.get(path, "application/x-ndjson").await;
        assert_eq!(response.status(), 200, "{path}");
        Lines { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }

    /// What the metrics say.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// The lines of an open stream.
pub struct Lines {
    body: BodyDataStream,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line, or none at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), pin!(&mut self.body).next())
                .await
                .expect("a line in time")?;
            self.rest.extend_from_slice(&frame.unwrap());
        }
    }

    /// The next line that is no heartbeat.
    pub async fn next_but_heartbeats(&mut self) -> Option<Value> {
        loop {
            match self.next().await {
                Some(line) if line["event"] == "heartbeat" => {}
                other => return other,
            }
        }
    }
}

/// The `log`s of records among lines.
pub fn logs(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line.get("event").is_none())
        .map(|line| line["log"].as_str().unwrap().to_owned())
        .collect()
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The value of a line.
pub fn value(line: &Sent, at_ms: i64) -> Vec<u8> {
    let uid = format!("uid-of-{}", line.pod);
    let kubernetes = KubernetesHead {
        namespace_name: &line.namespace,
        pod_name: &line.pod,
        pod_id: &uid,
        container_name: "api",
        host: "node-1",
        ..Default::default()
    };
    let source: Source = format!("{uid}/api/0/k3v9/1").parse().unwrap();
    let time = jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
    let mut out = Vec::new();
    let (seq, again, log) = (line.seq, line.again, line.log.as_bytes());
    let time = Timestamp::parse(time.as_bytes()).unwrap();
    let line = Line { seq, lines: 1, left_out: 0, again, chunk: None, time, stream: Stream::Stdout, log };
    encode(&mut out, &Head::new(&kubernetes, Metadata::Path, &source), &line);
    out
}
