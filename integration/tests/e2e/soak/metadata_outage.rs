//! Everything that can be wrong with an API server while pods come, write and go: killed and started again, its watch cut,
//! what it knew compacted away, silent, slow. No line is lost or later than the bound, none says what is not true, and labels are
//! right again by themselves.

use std::time::{Duration, Instant};

use fairlead_integration::consume::read_topic;
use fairlead_integration::generator::dice::Dice;
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::kubernetes::{NodePod, PodPlan, Told, Truth, judge, requests};
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::steady::{Pace, Steady};
use fairlead_integration::wait::pace;

use super::teams;
use crate::kubernetes::Site;

const NAMESPACES: [&str; 2] = ["payments", "shop"];
/// `kubernetes.metadata_wait`, and what a busy machine may add to it.
const WAIT: Duration = Duration::from_secs(3);
const BUSY: Duration = Duration::from_secs(5);
/// Between two faults.
const CALM: Duration = Duration::from_secs(2);

/// What happens to the API server.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connections are cut a few times.
    Cut,
    /// Killed, and started again a moment later.
    Killed,
    /// Behind a closed door pods change, revisions are compacted, and it is started anew: the watch cannot go on.
    Compacted,
    /// Connections stay and nothing comes.
    Silent,
    /// Every piece takes a third of a second.
    Slow,
}

const FAULTS: [Fault; 5] = [Fault::Cut, Fault::Killed, Fault::Compacted, Fault::Silent, Fault::Slow];

#[test]
fn of_the_api_server_delays_no_line_beyond_the_bound() {
    if !super::usable() | !crate::kubernetes::usable() {
        return;
    }
    let _turn = crate::turn();
    let rounds = pick(1, 12);
    let title = format!("the API server cut off, killed, compacted, silent, slow, {} times", rounds * FAULTS.len());
    let case = Case::begin("31-metadata-outage", &title).unwrap();
    let mut dice = super::dice();
    let mut site = Site::started(&["metadata_wait: 3s"]);
    let ids = NAMESPACES.map(|name| site.cluster.make_namespace(name, &[]).unwrap());
    let mut crowd = Crowd { ids, running: Vec::new(), over: Vec::new(), made: 0 };
    for _ in 0..4 {
        crowd.begin(&site);
    }
    for _ in 0..rounds {
        let mut faults = FAULTS.to_vec();
        while !faults.is_empty() {
            let fault = faults.swap_remove(usize::try_from(dice.below(faults.len() as u64)).unwrap());
            let began = Instant::now();
            crowd.suffer(&mut site, fault, &mut dice);
            super::say(&format!("{fault:?} for {:?}", began.elapsed()));
            pace(CALM);
            crowd.end_oldest();
        }
    }
    // By themselves: what changed while nobody could tell, and what is new.
    crowd.running[0].node.relabel("at", "last").unwrap();
    crowd.begin(&site);
    let healed = site.stage.router.metric("fairlead_router_lines_read_total");
    super::say(&format!("{healed} lines read when the faults were over"));
    crowd.wait_healed(&site);
    crowd.prove(case, &site);
    let counted = requests::of_user(&site.cluster.audit_log(), &site.account.user()).unwrap();
    super::say(&format!("asked of the API server: {counted:?}, {:?} bytes", site.proxy.bytes()));
}

/// Pods that write.
struct Crowd {
    ids: [String; 2],
    running: Vec<Running>,
    over: Vec<(NodePod, usize, KeptLog)>,
    made: usize,
}

struct Running {
    node: NodePod,
    namespace: usize,
    writer: Steady,
}

impl Crowd {
    /// One more pod, that the API server knows.
    fn begin(&mut self, site: &Site) {
        let namespace = self.made % NAMESPACES.len();
        let name = format!("web-{}", self.made);
        let plan = PodPlan::new(NAMESPACES[namespace], &name).label("app", &name).deployment("web", "7d9f4b6c5");
        let mut node = site.node.pod(&site.cluster, &plan).unwrap();
        node.started("app").unwrap();
        let log = KeptLog::create(site.stage.pods(), &node.identity("app")).unwrap();
        self.running.push(Running { node, namespace, writer: Steady::resume(log, Pace::of(40)) });
        self.made += 1;
    }

    fn end_oldest(&mut self) {
        let Running { node, namespace, writer } = self.running.remove(0);
        let log = writer.stop().unwrap();
        node.delete().unwrap();
        self.over.push((node, namespace, log));
    }

    /// One fault, during which a pod begins that the router cannot know of, where the API server takes it.
    fn suffer(&mut self, site: &mut Site, fault: Fault, dice: &mut Dice) {
        match fault {
            Fault::Cut => {
                for _ in 0..5 {
                    site.proxy.cut();
                    pace(Duration::from_millis(50 + dice.below(600)));
                }
                self.begin(site);
                site.proxy.cut();
            }
            Fault::Killed => {
                self.begin(site);
                site.cluster.kill().unwrap();
                pace(Duration::from_millis(500 + dice.below(3_000)));
                site.cluster.start().unwrap();
            }
            Fault::Compacted => {
                site.proxy.open(false);
                self.begin(site);
                self.running[0].node.relabel("compacted", &self.made.to_string()).unwrap();
                site.cluster.compact().unwrap();
                site.cluster.kill().unwrap();
                site.cluster.start().unwrap();
                site.proxy.open(true);
            }
            Fault::Silent => {
                site.proxy.delay(Duration::from_secs(600));
                self.begin(site);
                // Longer than anything waits for it.
                pace(WAIT + Duration::from_secs(2));
                site.proxy.delay(Duration::ZERO);
                site.proxy.cut();
            }
            Fault::Slow => {
                site.proxy.delay(Duration::from_millis(300));
                self.begin(site);
                pace(Duration::from_secs(3));
                site.proxy.delay(Duration::ZERO);
            }
        }
    }

    /// Waits until each pod that still runs has a record with all that is true of it now.
    fn wait_healed(&self, site: &Site) {
        for running in &self.running {
            let truth = Truth { labels_before: Vec::new(), ..running.truth(&self.ids) };
            let namespace = NAMESPACES[running.namespace];
            let what = format!("{} to be told of as it is", truth.pod);
            fairlead_integration::wait::wait_until(&what, super::arrives_within(), || {
                let stored = read_topic(&site.stage.broker.bootstrap(), &site.stage.topic(namespace)).unwrap();
                stored.iter().rev().take(500).any(|stored| {
                    judge(std::slice::from_ref(stored), std::slice::from_ref(&truth)).is_ok_and(|told| {
                        let told = &told[&truth.uid];
                        told.complete == 1 && told.faults.is_empty()
                    })
                })
            })
            .unwrap_or_else(|error| panic!("{error}\n{}", site.stage.router.log_tail()));
        }
    }

    fn prove(mut self, case: Case, site: &Site) {
        while !self.running.is_empty() {
            self.end_oldest();
        }
        let truths: Vec<Truth> =
            self.over.iter().map(|(node, namespace, _)| node.truth(&self.ids[*namespace])).collect();
        let logs: Vec<KeptLog> = self.over.into_iter().map(|(_, _, log)| log).collect();
        let figures = teams::prove(case, &site.stage, &logs, &[]);
        assert_eq!(figures.delivered, figures.written);
        let mut sum = Told::default();
        for namespace in NAMESPACES {
            let own: Vec<Truth> = truths.iter().filter(|truth| truth.namespace == namespace).cloned().collect();
            let stored = read_topic(&site.stage.broker.bootstrap(), &site.stage.topic(namespace)).unwrap();
            sum = judge(&stored, &own).unwrap().values().fold(sum, |sum, told| sum.and(told));
        }
        super::say(&format!(
            "{} pods, {} records: {} complete, {} by the path alone; latest after {} ms",
            truths.len(),
            sum.records,
            sum.complete,
            sum.path,
            sum.late_ms
        ));
        assert!(sum.faults.is_empty(), "{:#?}", &sum.faults[..sum.faults.len().min(10)]);
        assert!(sum.complete > 0 && sum.complete < sum.records, "no fault was felt");
        let bound = (WAIT + BUSY).as_millis();
        assert!(u128::from(sum.late_ms.unsigned_abs()) <= bound, "a line came after {} ms", sum.late_ms);
    }
}

impl Running {
    fn truth(&self, ids: &[String; 2]) -> Truth {
        self.node.truth(&ids[self.namespace])
    }
}
