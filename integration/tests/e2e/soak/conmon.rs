//! Lines written by a real CRI log writer, rotated each second, zipped and removed as a kubelet does, arrive in Apache
//! Kafka: none missing, none twice.

use std::time::{Duration, Instant};

use fairlead_integration::broker::Kind;
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::wait::pace;
use fairlead_integration::workload::Script;

use super::pods::{Pod, written};

const NAMESPACE: &str = "payments";

#[test]
fn rotation_each_second_loses_nothing_and_repeats_nothing() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    let case = Case::begin("01-rotation", "conmon's files rotated each second, zipped and removed").unwrap();
    let stage = Stage::started(Kind::ApacheKafka).unwrap();
    let mut pods = Vec::new();
    for run in 0..pick(2, 20) {
        let script = Script { name: format!("run-{run}"), lines: 4_000, burst: 80, pause: Duration::from_millis(70) };
        let mut pod = Pod::start(&stage, NAMESPACE, script);
        let deadline = Instant::now() + Duration::from_secs(120);
        while pod.tend() {
            assert!(Instant::now() < deadline, "the workload does not end");
            pace(Duration::from_millis(20));
        }
        assert!(pod.rotations >= 2, "only {} rotations", pod.rotations);
        pods.push(pod);
    }
    let (figures, _) = super::prove(case, &stage, NAMESPACE, &written(&pods));
    assert_eq!(figures.delivered, figures.written);
    assert_eq!(figures.repeated, 0, "nothing comes twice while nobody is killed");
}
