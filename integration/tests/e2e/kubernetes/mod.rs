//! The router beside a real API server, under exactly the rights that it needs.

mod chart;
mod deleted;
mod names;
mod rights;

use std::path::PathBuf;
use std::time::Duration;

use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::consume::{Stored, read_topic, record_count};
use fairlead_integration::folders::scratch;
use fairlead_integration::generator::cri::Stream;
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::helm;
use fairlead_integration::kubernetes::{Account, Cluster, Node, NodePod, PodPlan, Shape, Told, Truth, judge};
use fairlead_integration::metrics::sum_where;
use fairlead_integration::proxy::Proxy;
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::{wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// What the chart is told so that it gives the router all rights that it may need.
const VALUES: [&str; 2] =
    ["router.config.kubernetes.enabled=true", "router.config.kubernetes.node_labels={topology.kubernetes.io/*}"];

/// What the chart calls the router's account and role.
const ROUTER: &str = "fairlead-router";

/// How long anything may take on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(60);

/// Apache Kafka, an API server and the chart.
pub fn usable() -> bool {
    // Both are named if both are missing.
    let (cluster, chart) = (Component::KubeApiServer.usable(), Component::Helm.usable());
    Kind::ApacheKafka.usable() && cluster && chart
}

/// A stage whose router asks an API server, through a connection that can be broken. Ends in this order.
pub struct Site {
    pub stage: Stage,
    pub proxy: Proxy,
    pub cluster: Cluster,
    pub node: Node,
    /// The router's, as the chart makes it.
    pub account: Account,
    /// Its rights, as the chart gives them: each resource with its verbs.
    pub rights: Vec<(String, Vec<String>)>,
    _folder: TempDir,
}

impl Site {
    /// Kafka and an API server run and the router has the account and the rights that the chart gives it; neither router nor
    /// gateway runs. `keys` are further keys of the router's `kubernetes`.
    pub fn prepared(keys: &[&str], wishes: Wishes) -> Site {
        Site::prepared_as(keys, wishes, &Shape::default())
    }

    /// [`Site::prepared`] with a certain API server.
    pub fn prepared_as(keys: &[&str], wishes: Wishes, shape: &Shape) -> Site {
        let (broker, cluster) = std::thread::scope(|scope| {
            let cluster = scope.spawn(|| Cluster::started_as(shape).unwrap());
            let mut broker = Broker::prepared(Kind::ApacheKafka).unwrap();
            broker.start().unwrap();
            (broker, cluster.join().unwrap())
        });
        let node = Node::join(&cluster, "node-1", &[("topology.kubernetes.io/zone", "a")]).unwrap();
        let (account, rights) = installed(&cluster);
        let proxy = Proxy::start(cluster.address()).unwrap();
        let folder = scratch("site").unwrap();
        let file = folder.path().join("kubeconfig");
        cluster.kubeconfig(&file, proxy.address(), &cluster.token(&account, &[]).unwrap()).unwrap();
        let mut kubernetes = vec![format!("kubeconfig_file: \"{}\"", file.display())];
        kubernetes.extend(keys.iter().map(|&key| key.to_owned()));
        let stage = Stage::over(broker, &Wishes { router_kubernetes: kubernetes, ..wishes }).unwrap();
        Site { stage, proxy, cluster, node, account, rights, _folder: folder }
    }

    /// [`Site::prepared`], and the router is ready and knows its pods.
    pub fn started(keys: &[&str]) -> Site {
        let mut site = Site::prepared(keys, Wishes::default());
        site.stage.router.start_ready().unwrap();
        site.wait_known();
        site
    }

    /// Waits until the router knows all pods of its node.
    pub fn wait_known(&self) {
        let known = || {
            let page = self.stage.router.admin().get("/metrics").map(|answer| answer.body).unwrap_or_default();
            sum_where(&page, "fairlead_router_kubernetes_standing", &[("standing", "known")]) > 0.5
        };
        wait_until("the router to know its pods", SOON, known)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.stage.router.log_tail()));
    }

    /// A pod whose container `app` has begun: the API server knows it, and it has a file.
    pub fn pod(&self, plan: &PodPlan, namespace_id: &str) -> Written {
        let mut pod = self.node.pod(&self.cluster, plan).unwrap();
        let log = KeptLog::create(self.stage.pods(), &pod.identity("app")).unwrap();
        pod.started("app").unwrap();
        Written { pod, namespace_id: namespace_id.to_owned(), log, lines: 0 }
    }

    /// Waits until all lines of these pods, of one namespace, are in its topic, in order, and what records say of pods is
    /// true; gives it for each, and all records.
    pub fn expect(&self, pods: &[&Written]) -> (Vec<Told>, Vec<Stored>) {
        let namespace = &pods[0].pod.plan.namespace;
        let truths: Vec<Truth> = pods.iter().map(|written| written.truth()).collect();
        let total: u64 = pods.iter().map(|written| written.lines).sum();
        let stored = self.topic(namespace, total);
        let told = judge(&stored, &truths).unwrap();
        let told: Vec<Told> = truths.iter().map(|truth| told[&truth.uid].clone()).collect();
        let faults: Vec<&String> = told.iter().flat_map(|told| &told.faults).collect();
        assert!(faults.is_empty(), "{namespace}: {faults:#?}");
        for (written, told) in pods.iter().zip(&told) {
            assert_eq!(told.records, written.lines, "{}: {told:?}", written.pod.plan.name);
        }
        (told, stored)
    }

    /// A namespace's topic with at least so many records.
    pub fn topic(&self, namespace: &str, records: u64) -> Vec<Stored> {
        let (bootstrap, topic) = (self.stage.broker.bootstrap(), self.stage.topic(namespace));
        let count = || record_count(&bootstrap, &topic).unwrap_or_default().cast_unsigned();
        wait_until(&format!("{records} records in {topic}"), SOON, || count() >= records)
            .unwrap_or_else(|error| panic!("{error}; there are {}\n{}", count(), self.stage.router.log_tail()));
        read_topic(&bootstrap, &topic).unwrap()
    }

    /// Writes lines to a pod until one comes with all that there is to know of it.
    pub fn until_complete(&self, written: &mut Written) {
        let truth = [written.truth()];
        let namespace = written.pod.plan.namespace.clone();
        let (bootstrap, topic) = (self.stage.broker.bootstrap(), self.stage.topic(&namespace));
        wait_for("a complete record", SOON, || {
            written.write(1);
            let own = |stored: &Stored| String::from_utf8_lossy(&stored.value).contains(&truth[0].uid);
            let stored: Vec<Stored> = read_topic(&bootstrap, &topic).ok()?.into_iter().filter(own).collect();
            (judge(&stored, &truth).unwrap()[&truth[0].uid].complete > 0).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.stage.router.log_tail()));
    }

    /// The router's own log.
    pub fn router_log(&self) -> String {
        let file: PathBuf = self.stage.router.log();
        std::fs::read_to_string(file).unwrap_or_default()
    }
}

/// [`VALUES`] as Helm takes them.
fn values() -> Vec<String> {
    VALUES.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect()
}

/// Makes what the chart says of the router's account, and nothing else of it.
fn installed(cluster: &Cluster) -> (Account, Vec<(String, Vec<String>)>) {
    let objects = helm::objects(&values()).unwrap();
    // The release's own namespace is there before.
    cluster.make_namespace("fairlead", &[]).unwrap();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    for kind in ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"] {
        of_kind(kind).for_each(|object| cluster.apply(object).unwrap());
    }
    let role = of_kind("ClusterRole").find(|role| role["metadata"]["name"] == ROUTER).unwrap();
    let texts = |list: &Value| serde_json::from_value::<Vec<String>>(list.clone()).unwrap();
    let rules = role["rules"].as_array().unwrap().iter();
    let rights = rules.flat_map(|rule| texts(&rule["resources"]).into_iter().map(|of| (of, texts(&rule["verbs"]))));
    let account = of_kind("ServiceAccount").find(|account| account["metadata"]["name"] == ROUTER).unwrap();
    let namespace = account["metadata"]["namespace"].as_str().unwrap().to_owned();
    (Account { namespace, name: ROUTER.to_owned() }, rights.collect())
}

/// A pod and what its container `app` wrote.
pub struct Written {
    pub pod: NodePod,
    pub namespace_id: String,
    pub log: KeptLog,
    pub lines: u64,
}

impl Written {
    /// Some more lines.
    pub fn write(&mut self, lines: u64) {
        for _ in 0..lines {
            let text = format!("{} line {:05}", self.pod.plan.name, self.lines);
            self.log.line(Stream::Stdout, 'F', text.as_bytes()).unwrap();
            self.lines += 1;
        }
    }

    /// What records must say of it.
    pub fn truth(&self) -> Truth {
        self.pod.truth(&self.namespace_id)
    }

    /// Deleted, at the API server and as the kubelet does it with the logs.
    pub fn delete(&self) {
        self.pod.delete().unwrap();
        self.log.remove_pod().unwrap();
    }
}
