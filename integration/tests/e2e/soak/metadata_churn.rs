//! Pods in waves, most of them gone within a second: nearly every line has its pod's labels, none lacks what the path says,
//! and the API server is asked little.
//!
//! The kubelet tells a container's id a second after its start, when the shortest of the pods are over already.

use std::time::{Duration, Instant};

use fairlead_integration::consume::read_topic;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::dice::Dice;
use fairlead_integration::kubernetes::{NodePod, PodPlan, Told, Truth, judge, requests};
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::wait::pace;
use fairlead_integration::workload::Script;

use super::pods::Pod;
use crate::kubernetes::Site;

const NAMESPACES: usize = 5;
/// Between two waves.
const WAVE: Duration = Duration::from_secs(3);
/// The kubelet looks at its containers so often.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// `kubernetes.metadata_wait`, and what a busy machine may add to it.
const WAIT: Duration = Duration::from_secs(5);
const BUSY: Duration = Duration::from_secs(5);

#[test]
fn of_pods_leaves_hardly_a_line_without_labels() {
    if !super::usable() | !crate::kubernetes::usable() {
        return;
    }
    let _turn = crate::turn();
    let (waves, each) = pick((3, 20), (10, 50));
    let title = format!("{} pods in waves of {each}, lives from 200 ms to minutes, with labels", waves * each);
    let case = Case::begin("30-metadata-churn", &title).unwrap();
    let mut dice = super::dice();
    let site = Site::started(&[]);
    let namespaces: Vec<(String, String)> = (0..NAMESPACES)
        .map(|number| format!("team-{number}"))
        .map(|name| (name.clone(), site.cluster.make_namespace(&name, &[]).unwrap()))
        .collect();
    let mut lives: Vec<Life> = Vec::new();
    for wave in 0..waves {
        let next = Instant::now() + WAVE;
        for number in 0..each {
            let (namespace, id) = &namespaces[number % NAMESPACES];
            lives.push(Life::begin(&site, namespace, id, &format!("run-{wave}-{number}"), &mut dice));
            tend(&site, &mut lives);
        }
        while Instant::now() < next {
            tend(&site, &mut lives);
            pace(Duration::from_millis(10));
        }
    }
    while tend(&site, &mut lives) > 0 {
        pace(Duration::from_millis(10));
    }

    let written: Vec<(&str, Vec<(&Identity, &Script)>)> = namespaces
        .iter()
        .map(|(namespace, _)| {
            let of = lives.iter().filter(|life| life.node.plan.namespace == *namespace);
            (namespace.as_str(), of.map(|life| (&life.pod.identity, &life.pod.script)).collect())
        })
        .collect();
    let figures = super::prove_namespaces(case, &site.stage, &written);
    assert_eq!(figures.delivered, figures.written);
    judge_labels(&site, &lives);
    judge_requests(&site, lives.len());
}

/// Lines of 99 % of the pods all have labels, the others are on time, and all says only what is true.
fn judge_labels(site: &Site, lives: &[Life]) {
    let truths: Vec<Truth> = lives.iter().map(|life| life.node.truth(&life.namespace_id)).collect();
    let mut told: Vec<Told> = Vec::new();
    for number in 0..NAMESPACES {
        let namespace = format!("team-{number}");
        let own: Vec<Truth> = truths.iter().filter(|truth| truth.namespace == namespace).cloned().collect();
        let stored = read_topic(&site.stage.broker.bootstrap(), &site.stage.topic(&namespace)).unwrap();
        told.extend(judge(&stored, &own).unwrap().into_values());
    }
    let labelled = told.iter().filter(|told| told.labelled == told.records).count();
    let sum = told.iter().fold(Told::default(), |sum, told| sum.and(told));
    super::say(&format!(
        "{} pods, {labelled} with labels on every line; of {} records {} complete, {} with labels; latest after {} ms",
        told.len(),
        sum.records,
        sum.complete,
        sum.labelled,
        sum.late_ms
    ));
    assert!(sum.faults.is_empty(), "{:#?}", &sum.faults[..sum.faults.len().min(10)]);
    assert!(labelled * 100 >= told.len() * 99, "{labelled} of {} pods", told.len());
    let bound = (WAIT + BUSY).as_millis();
    assert!(sum.late_ms.unsigned_abs() as u128 <= bound, "a line came after {} ms", sum.late_ms);
}

/// One watch, and each namespace asked for once in a while.
fn judge_requests(site: &Site, pods: usize) {
    let counted = requests::of_user(&site.cluster.audit_log(), &site.account.user()).unwrap();
    let (sent, received) = site.proxy.bytes();
    let each = received / pods as u64;
    super::say(&format!("asked of the API server: {counted:?}; {sent} bytes sent, {received} received, {each} a pod"));
    let of = |request: &str| counted.get(request).copied().unwrap_or_default();
    // A watch lasts at most five minutes.
    assert!(of("watch pods") <= pick(2, 4) && of("list pods") <= 1, "{counted:?}");
    assert!(of("get namespaces") <= (NAMESPACES * pick(3, 10)) as u64, "{counted:?}");
    let asked = ["watch pods", "list pods", "get namespaces"];
    assert!(counted.keys().all(|request| asked.contains(&request.as_str())), "{counted:?}");
}

/// One pod from its binding to the removal of its logs.
struct Life {
    node: NodePod,
    namespace_id: String,
    pod: Pod,
    began: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Began,
    Told,
    Deleted,
    Removed,
}

impl Life {
    fn begin(site: &Site, namespace: &str, id: &str, name: &str, dice: &mut Dice) -> Life {
        let plan = PodPlan::new(namespace, name)
            .label("app.kubernetes.io/name", name)
            .label("app.kubernetes.io/part-of", "churn")
            .deployment("churn", "7d9f4b6c5");
        let node = site.node.pod(&site.cluster, &plan).unwrap();
        let pod = Pod::start_as(&site.stage, node.identity("app"), script(name, dice));
        Life { node, namespace_id: id.to_owned(), pod, began: Instant::now(), stage: Stage::Began }
    }

    /// Does what is due; false as soon as nothing is left to do.
    fn tend(&mut self, site: &Site) -> bool {
        let running = self.stage < Stage::Deleted && self.pod.tend();
        if self.stage == Stage::Began && self.began.elapsed() >= TOLD_AFTER {
            self.node.started_as("app", self.pod.conmon.id()).unwrap();
            self.stage = Stage::Told;
        }
        if self.stage == Stage::Told && !running {
            self.node.ended("app").unwrap();
            self.node.delete().unwrap();
            self.stage = Stage::Deleted;
        }
        if self.stage == Stage::Deleted && self.pod.remove_if_due(&site.stage) {
            self.stage = Stage::Removed;
        }
        self.stage < Stage::Removed
    }
}

/// Tends all; how many are not over.
fn tend(site: &Site, lives: &mut [Life]) -> usize {
    lives.iter_mut().map(|life| life.tend(site)).filter(|&left| left).count()
}

/// What a pod prints: 200 ms, a second, some seconds, or long.
fn script(name: &str, dice: &mut Dice) -> Script {
    let (pauses, pause) = match dice.below(10) {
        0..4 => (2, 100),
        4..7 => (10, 100),
        7..9 => (20, 250),
        _ => (pick(20, 120), 1_000),
    };
    Script { name: name.to_owned(), lines: 10 * pauses, burst: 10, pause: Duration::from_millis(pause) }
}
