//! The kubelet's own rotation code works on conmon's files at the shortest intervals: it renames, compresses, removes and
//! has them reopened as on a node, and at last removes the pods. Nothing is missing, and each container's lines are one run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::component::Component;
use fairlead_integration::conmon::Conmon;
use fairlead_integration::consume::read_lines;
use fairlead_integration::folders::binary;
use fairlead_integration::generator::Identity;
use fairlead_integration::kubelet::{Kubelet, Rotation};
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::pace;
use fairlead_integration::workload::Script;

const NAMESPACE: &str = "payments";
const PODS: usize = 3;
/// The kubelet removes a deleted pod's logs so long after its end.
const REMOVED_AFTER: Duration = Duration::from_millis(1_500);

#[test]
fn loses_nothing_and_breaks_no_run() {
    if !super::usable() | !Component::KubeletRotation.usable() {
        return;
    }
    let _turn = crate::turn();
    let case = Case::begin("03-kubelet", "the kubelet's own rotation each second at 300 KiB, pods removed").unwrap();
    let rotation = Rotation { max_size: "300Ki".to_owned(), max_files: 5, interval: Duration::from_secs(1) };
    let kubelet = Kubelet::start(&rotation).unwrap();
    let stage = Stage::started(Kind::ApacheKafka).unwrap();
    let mut written = Vec::new();
    for round in 0..pick(1, 12) {
        let mut running = start(&stage, &kubelet, round);
        let deadline = Instant::now() + Duration::from_secs(180);
        while running.iter_mut().any(|(conmon, ..)| conmon.running()) {
            assert!(Instant::now() < deadline, "the workloads do not end");
            pace(Duration::from_millis(50));
        }
        pace(REMOVED_AFTER);
        for (conmon, identity, script) in running {
            kubelet.remove(&conmon).unwrap();
            written.push((identity, script));
        }
    }
    let rotations = kubelet.rotations();
    assert!(rotations >= pick(12, 150), "only {rotations} rotations");
    let all: Vec<(&Identity, &Script)> = written.iter().map(|(identity, script)| (identity, script)).collect();
    let (figures, _) = super::prove(case, &stage, NAMESPACE, &all);
    super::say(&format!("{rotations} rotations by the kubelet"));
    assert_eq!((figures.delivered, figures.repeated), (figures.written, 0));
    let lines = read_lines(&stage.broker.bootstrap(), &stage.topic(NAMESPACE)).unwrap();
    for (identity, _) in all {
        let runs: BTreeSet<&str> = lines
            .iter()
            .filter(|line| line.pod_uid == identity.uid)
            .filter_map(|line| line.source.rsplit_once('/').map(|(run, _)| run))
            .collect();
        assert_eq!(runs.len(), 1, "one epoch for each container: {runs:?}");
    }
}

/// Pods that write somewhat more than a file's size each second, each at its own pace.
fn start(stage: &Stage, kubelet: &Kubelet, round: usize) -> Vec<(Conmon, Identity, Script)> {
    let program = binary("numbered-lines").unwrap();
    let begin = |pod: usize| {
        let name = format!("pod-{round}-{pod}");
        let pause = Duration::from_millis(40 + 15 * pod as u64);
        let script = Script { name, lines: 16_000, burst: 100, pause };
        let identity = Identity::new(NAMESPACE, &script.name, "app");
        let conmon = Conmon::start(stage.pods(), &identity, 0, &program, &script.arguments()).unwrap();
        kubelet.add(&conmon).unwrap();
        (conmon, identity, script)
    };
    (0..PODS).map(begin).collect()
}
