//! Kafka is away until every file that was there has been rotated out and half of the pods are deleted, and the router is
//! restarted twice meanwhile: nothing is missing once Kafka is back.

use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::{pace, wait_until};
use fairlead_integration::workload::Script;

use super::pods::{Pod, written};

const NAMESPACE: &str = "payments";
const PODS: usize = 6;

#[test]
fn beyond_rotation_and_deletion_loses_nothing() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    let title = "Kafka away until all files were rotated out and half of the pods deleted, two restarts of the router";
    let case = Case::begin("04-outage", title).unwrap();
    // Nothing can be drained without Kafka.
    let wishes = Wishes { router_extra: vec!["shutdown_deadline: 1s".to_owned()], ..Wishes::default() };
    let mut stage = Stage::started_with(Kind::ApacheKafka, &wishes).unwrap();
    let mut pods: Vec<Pod> = (0..PODS)
        .map(|pod| {
            let pause = Duration::from_millis(40);
            let script = Script { name: format!("pod-{pod}"), lines: pick(12_000, 150_000), burst: 100, pause };
            Pod::start(&stage, NAMESPACE, script)
        })
        .collect();
    let arrived = || stage.router.metric("fairlead_router_records_acknowledged_total") > 1_000.0;
    wait_until("the first lines", Duration::from_secs(30), arrived).unwrap();
    stage.broker.stop().unwrap();
    let (began, mut restarts) = (Instant::now(), 0);
    while pods.iter_mut().map(Pod::tend).filter(|&running| running).count() > 0 {
        if restarts < 2 && began.elapsed() > Duration::from_millis(1_500) * (restarts + 1) {
            if restarts == 0 {
                stage.router.kill().unwrap()
            } else {
                stage.router.terminate().unwrap()
            }
            stage.router.start().unwrap();
            restarts += 1;
        }
        pace(Duration::from_millis(20));
    }
    assert_eq!(restarts, 2, "the pods ended too early");
    let least = pods.iter().map(|pod| pod.rotations).min().unwrap();
    assert!(least >= 3, "{least} rotations leave a file that was there before");
    for pod in pods.iter().step_by(2) {
        wait_until("a pod to be due", Duration::from_secs(10), || pod.remove_if_due(&stage)).unwrap();
    }
    stage.broker.start().unwrap();
    let (figures, _) = super::prove(case, &stage, NAMESPACE, &written(&pods));
    assert_eq!(figures.delivered, figures.written);
}
