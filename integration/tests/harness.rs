//! The harness itself: do the real parts come up, come back on their data, and write what they should?
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::conmon::Conmon;
use fairlead_integration::consume::{read_topic, record_count};
use fairlead_integration::folders::{binary, scratch};
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::fleet::{Fleet, trial_workloads};
use fairlead_integration::generator::rotation::rotated;
use fairlead_integration::kubernetes::{Cluster, Node, PodPlan, answer, connect, requests};
use fairlead_integration::proxy::Proxy;
use fairlead_integration::wait::{wait_for, wait_until};
use fairlead_integration::workload::Script;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, WatchParams};
use kube::runtime::watcher::{Config, Event, watcher};
use serde_json::json;

const TOPIC: &str = "logs.kept";

#[test]
fn apache_kafka_keeps_its_data_over_a_restart() {
    keeps_its_data(Kind::ApacheKafka);
}

#[test]
fn tansu_keeps_its_data_over_a_restart() {
    keeps_its_data(Kind::Tansu);
}

fn keeps_its_data(kind: Kind) {
    if !kind.usable() {
        return;
    }
    let mut broker = Broker::started(kind).unwrap();
    let bootstrap = broker.bootstrap();
    admin::create_topic(&bootstrap, TOPIC, 2, &[("retention.ms", "604800000")]).unwrap();
    admin::create_topic(&bootstrap, TOPIC, 2, &[]).unwrap();
    admin::produce(&bootstrap, TOPIC, (0..50).map(|n| (n % 2, format!("key {n}"), format!("value {n}")))).unwrap();
    broker.stop().unwrap();
    assert!(std::net::TcpStream::connect(&bootstrap).is_err(), "stopped, it must not answer");
    broker.start().unwrap();
    assert_eq!(record_count(&bootstrap, TOPIC).unwrap(), 50);
    let read = read_topic(&bootstrap, TOPIC).unwrap();
    assert_eq!(read.len(), 50);
    assert_eq!((read[25].partition, read[25].offset, read[25].value.as_slice()), (1, 0, b"value 1".as_slice()));
}

#[test]
fn conmon_writes_every_line_across_rotation() {
    if !Component::Conmon.usable() {
        return;
    }
    let pods = scratch("conmon").unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let script = Script { name: "c".to_owned(), lines: 3_000, burst: 100, pause: Duration::from_millis(50) };
    let program = binary("numbered-lines").unwrap();
    let mut conmon = Conmon::start(pods.path(), &identity, 0, &program, &script.arguments()).unwrap();
    let log = identity.log(pods.path(), 0);
    wait_until("the first lines", Duration::from_secs(10), || log.metadata().is_ok_and(|meta| meta.len() > 0)).unwrap();
    assert!(conmon.rotate(5).unwrap());
    conmon.wait(Duration::from_secs(60)).unwrap();
    let mut files = rotated(&log).unwrap();
    files.push(log);
    assert_eq!(files.len(), 2);
    let bytes: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    for stream in [b"stdout".as_slice(), b"stderr"] {
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| {
            let mut fields = line.splitn(4, |&byte| byte == b' ').skip(1);
            fields.next() == Some(stream) && fields.next() == Some(b"F")
        });
        let expected = if stream == b"stdout" { script.lines } else { script.lines.div_ceil(3) };
        assert_eq!(lines.count() as u64, expected);
    }
}

#[test]
fn fleet_writes_for_every_namespace() {
    let pods = scratch("fleet").unwrap();
    let mut fleet = Fleet::start(pods.path(), &trial_workloads()).unwrap();
    wait_until("two hundred lines", Duration::from_secs(20), || fleet.lines() > 200).unwrap();
    fleet.stop().unwrap();
    let folders: Vec<String> = std::fs::read_dir(pods.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    for namespace in ["payments_", "shop_", "kube-system_"] {
        assert!(folders.iter().any(|folder| folder.starts_with(namespace)), "{folders:?}");
    }
}

#[test]
fn kube_apiserver_knows_its_pods_and_keeps_them_over_a_restart() {
    if !Component::KubeApiServer.usable() {
        return;
    }
    let mut cluster = Cluster::started().unwrap();
    let node = Node::join(&cluster, "node-1", &[("zone", "a")]).unwrap();
    let first = cluster.make_namespace("shop", &[("team", "shop")]).unwrap();
    let plan = PodPlan::new("shop", "web-1").label("app", "web").init("prepare", "registry.example/prepare:1");
    let mut pod = node.pod(&cluster, &plan).unwrap();
    let pods = cluster.objects::<Pod>("shop");
    let read = |name: &str| answer("a pod", pods.get(name)).unwrap();

    // Status as a kubelet tells it: init containers, restarts, containers put in later.
    pod.started("prepare").unwrap();
    pod.ended("prepare").unwrap();
    let before = pod.started("app").unwrap();
    let now = pod.started("app").unwrap();
    pod.debug("shell", "registry.example/shell:1").unwrap();
    pod.started("shell").unwrap();
    let status = read("web-1").status.unwrap();
    let app = &status.container_statuses.unwrap()[0];
    assert_eq!((app.restart_count, app.container_id.clone().unwrap()), (1, format!("containerd://{now}")));
    let ended = app.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(ended.container_id.unwrap(), format!("containerd://{before}"));
    assert!(status.init_container_statuses.unwrap()[0].state.clone().unwrap().terminated.is_some());
    assert_eq!(status.ephemeral_container_statuses.unwrap()[0].name, "shell");
    assert_eq!(pod.identity("app").uid, pod.uid);

    // A static pod's mirror.
    let hash = "0123456789abcdef0123456789abcdef";
    let mirror = node.pod(&cluster, &PodPlan::new("shop", "proxy-node-1").mirror_of(hash)).unwrap();
    assert_eq!(mirror.identity("app").uid, hash);
    assert_ne!(mirror.uid, hash);

    // Killed and back, the same pods; what went before is compacted away.
    cluster.kill().unwrap();
    cluster.start().unwrap();
    let stale = read("web-1").metadata.resource_version.unwrap();
    pod.relabel("tier", "front").unwrap();
    cluster.compact().unwrap();
    cluster.kill().unwrap();
    cluster.start().unwrap();
    assert_eq!(read("web-1").metadata.labels.unwrap()["tier"], "front");
    let watched = answer("a watch", async {
        let mut events = Box::pin(pods.watch(&WatchParams::default(), &stale).await?);
        Ok(events.next().await)
    });
    assert!(format!("{watched:?}").contains("410"), "{watched:?}");

    // A namespace that ends takes its pods with it, and comes again as another.
    cluster.delete_namespace("shop").unwrap();
    let second = cluster.make_namespace("shop", &[]).unwrap();
    assert_ne!(first, second);
    assert!(answer("a pod", pods.get_opt("web-1")).unwrap().is_none());
}

#[test]
fn kube_apiserver_grants_what_an_account_was_allowed() {
    if !Component::KubeApiServer.usable() {
        return;
    }
    let cluster = Cluster::started().unwrap();
    let node = Node::join(&cluster, "node-1", &[]).unwrap();
    for namespace in ["fairlead", "shop"] {
        cluster.make_namespace(namespace, &[]).unwrap();
    }
    let account = cluster.make_account("fairlead", "router").unwrap();
    cluster.allow(&account, &[("pods", &["list", "watch"])]).unwrap();

    // A token is good for its audience only.
    let review = |token: &str, audience: &str| cluster.review(token, audience).unwrap().authenticated == Some(true);
    let bound = cluster.token(&account, &["fairlead"]).unwrap();
    assert!(review(&bound, "fairlead"));
    assert!(!review(&bound, "somebody-else"));
    let reviewed = cluster.review(&bound, "fairlead").unwrap();
    assert_eq!(reviewed.audiences.unwrap(), ["fairlead"]);
    assert_eq!(reviewed.user.unwrap().username.unwrap(), account.user());

    // Through a proxy, by a kubeconfig file, with the account's rights.
    let proxy = Proxy::start(cluster.address()).unwrap();
    let folder = scratch("kubeconfig").unwrap();
    let file = folder.path().join("kubeconfig");
    cluster.kubeconfig(&file, proxy.address(), &cluster.token(&account, &[]).unwrap()).unwrap();
    let client = connect(&file).unwrap();
    let pods: Api<Pod> = Api::all(client.clone());
    let elsewhere = Node { name: "node-2".to_owned() };
    node.pod(&cluster, &PodPlan::new("shop", "web-1")).unwrap();
    elsewhere.pod(&cluster, &PodPlan::new("shop", "web-2")).unwrap();
    let change = Patch::Merge(json!({"metadata": {"labels": {"app": "web"}}}));
    let seen = answer("a watch", async {
        let mut seen = Vec::new();
        let mut events =
            Box::pin(watcher(pods.clone(), Config::default().fields("spec.nodeName=node-1").any_semantic()));
        while let Some(event) = events.next().await {
            match event.unwrap() {
                Event::InitApply(pod) => seen.push(format!("known {}", pod.metadata.name.unwrap())),
                Event::InitDone => {
                    let all = cluster.objects::<Pod>("shop");
                    all.patch("web-1", &PatchParams::default(), &change).await?;
                }
                Event::Apply(pod) => seen.push(format!("changed {}", pod.metadata.name.unwrap())),
                _ => {}
            }
            if seen.len() == 2 {
                break;
            }
        }
        Ok(seen)
    });
    assert_eq!(seen.unwrap(), ["known web-1", "changed web-1"]);
    assert!(proxy.bytes().1 > 1_000 && proxy.connections() > 0);

    // Taken away, it is refused; what was asked is in the audit log.
    let refused = answer("a pod", Api::<Pod>::namespaced(client.clone(), "shop").get("web-1")).unwrap_err();
    assert!(format!("{refused:#}").contains("cannot get resource"), "{refused:#}");
    cluster.allow(&account, &[]).unwrap();
    wait_until("the right to be gone", Duration::from_secs(10), || {
        answer("pods", pods.list(&ListParams::default())).is_err()
    })
    .unwrap();
    cluster.allow_in("shop", &account, &[("pods", &["get"])]).unwrap();
    let allowed = || answer("a pod", Api::<Pod>::namespaced(client.clone(), "shop").get("web-1")).ok();
    wait_for("the other right", Duration::from_secs(10), allowed).unwrap();
    let counted = requests::of_user(&cluster.audit_log(), &account.user()).unwrap();
    assert_eq!(counted.get("watch pods"), Some(&1), "{counted:?}");
}
