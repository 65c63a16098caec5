//! A quiet namespace on three brokers while others have trouble: how long its lines take until they can be read, against
//! how long they take when all is well. Its own topic is led by broker 1 and followed by broker 2; what happens, happens
//! to broker 3 and to other namespaces' topics.

use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::delays::{Delays, Probe};
use fairlead_integration::kafka::{ApacheKafka, Shape};
use fairlead_integration::soak::{Case, long, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::steady::{Pace, Steady};

use super::teams;

/// Between two lines of the quiet namespace.
const EVERY: Duration = Duration::from_millis(20);
/// The promise, for the long form: medians of several windows.
const TIMES_MAX: u32 = 3;

/// Until a trouble is noticed, lines may wait so long.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// How many short windows may pass until lines are quick again.
const WINDOWS_MAX: usize = 5;

/// The other namespaces: name and the brokers with their topic, leader first.
const OTHERS: [(&str, &[i32]); 6] = [
    ("followed", &[1, 3]),
    ("led", &[3, 1]),
    ("moving", &[2, 3, 1]),
    ("deleted", &[1, 2]),
    ("refused", &[1, 2]),
    ("small", &[1, 2]),
];

#[test]
fn keep_a_quiet_namespace_quick() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let title =
        "three brokers, one frozen, slow, restarting, leaders moving, a flood, topics deleted, refused, too small";
    let case = Case::begin("20-three-brokers", title).unwrap();
    let shape = Shape { brokers: 3, rights: true, ..Shape::default() };
    let mut stage = Stage::over(Broker::shaped(&shape).unwrap(), &Wishes::default()).unwrap();
    stage.broker.start().unwrap();
    let bootstrap = stage.broker.bootstrap();
    let names = || OTHERS.iter().map(|other| other.0).chain(["quiet", "flood"]);
    let topics: Vec<String> = names().map(|namespace| stage.topic(namespace)).collect();
    stage.broker.kafka().allow(&topics.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for (namespace, replicas) in OTHERS.iter().chain(&[("quiet", [1, 2].as_slice()), ("flood", &[1, 2])]) {
        admin::create_topic_on(&bootstrap, &stage.topic(namespace), replicas, &[]).unwrap();
    }
    stage.router.start_ready().unwrap();
    let mut probe = Probe::start(stage.pods(), "quiet", &bootstrap, &stage.topic("quiet")).unwrap();
    let start = |namespace: &str, rate| Steady::start(stage.pods(), namespace, rate).unwrap();
    let mut others: Vec<Steady> = OTHERS
        .iter()
        .map(|&(namespace, _)| {
            // Several lines in a batch where batches are to become too large.
            start(namespace, Pace::of(if namespace == "small" { 400 } else { 20 }))
        })
        .collect();

    let mut seen = Seen::default();
    seen.measure("idle", &mut probe);
    let kafka = stage.broker.kafka();

    kafka.node(3).freeze().unwrap();
    seen.measure("a follower frozen", &mut probe);
    kafka.node(3).thaw().unwrap();

    let slow = kafka.node(3).slowed(Duration::from_millis(250), Duration::from_millis(50)).unwrap();
    seen.measure("a broker slow", &mut probe);
    drop(slow);

    others.push(start_flood(&stage));
    seen.measure("another namespace floods", &mut probe);
    let flood = others.pop().into_iter().collect();
    let mut logs = teams::stopped(flood);

    let kafka = stage.broker.kafka();
    kafka.forbid(&["logs.refused"]).unwrap();
    admin::alter_topic(&bootstrap, "logs.small", "max.message.bytes", "700").unwrap();
    admin::delete_topics(&bootstrap, &["logs.deleted"]).unwrap();
    seen.measure("topics deleted, refused, too small", &mut probe);
    kafka.allow(&["logs.refused"]).unwrap();
    admin::alter_topic(&bootstrap, "logs.small", "max.message.bytes", "1048588").unwrap();

    if long() {
        while_it("leaders moving", kafka, &mut seen, &mut probe, |kafka| {
            for replicas in [[3, 2, 1], [1, 3, 2], [2, 3, 1]] {
                kafka.reassign("logs.moving", &replicas).unwrap();
            }
        });
        while_it("a broker restarting", kafka, &mut seen, &mut probe, |kafka| {
            kafka.node(3).stop().unwrap();
            kafka.node(3).start().unwrap();
            kafka.wait_ready().unwrap();
        });
    }
    logs.extend(teams::stopped(others));
    logs.push(probe.into_log());
    // What was delivered into the topic that was deleted is gone with it.
    logs.retain(|log| log.identity.namespace != "deleted");
    let figures = teams::prove(case, &stage, &logs, &[]);
    assert_eq!(figures.delivered, figures.written);
    seen.judge();
}

/// What a busy machine may make of the promise about an idle one.
fn undisturbed(idle: Duration) -> Duration {
    super::UNDISTURBED.max(idle * TIMES_MAX)
}

fn start_flood(stage: &Stage) -> Steady {
    Steady::start(stage.pods(), "flood", Pace::of(5_000)).unwrap()
}

/// Measures while something is done to the brokers, again and again until it is done.
fn while_it(
    what: &str,
    kafka: &mut ApacheKafka,
    seen: &mut Seen,
    probe: &mut Probe,
    done: impl FnOnce(&mut ApacheKafka) + Send,
) {
    std::thread::scope(|scope| {
        let doing = scope.spawn(|| done(kafka));
        seen.measure(what, probe);
        doing.join().unwrap();
    });
}

/// What was measured in a situation.
struct Row {
    what: String,
    /// The 99th percentile in the first moments.
    at_once: Duration,
    /// The 50th and the 99th percentile after that, medians of windows.
    half: Duration,
    most: Duration,
}

impl Row {
    fn text(&self, idle: &Row) -> String {
        let Row { what, at_once, half, most } = self;
        let times = most.as_secs_f64() / idle.most.as_secs_f64();
        format!(
            "written -> readable, {what:34}: p99 at once {at_once:>8.1?}, then p50 {half:>8.1?} p99 {most:>8.1?} \
             ({times:.1} times idle)"
        )
    }
}

#[derive(Default)]
struct Seen(Vec<Row>);

impl Seen {
    fn measure(&mut self, what: &str, probe: &mut Probe) {
        let mut window = || probe.window(pick(80, 200), EVERY).unwrap();
        let at_once = window().percentile(99);
        let mut windows: Vec<Delays> = (0..pick(1, 5)).map(|_| window()).collect();
        // The few lines of a short window may all lie in the moments before a trouble is noticed: while it lasts, lines must become quick again.
        if !long()
            && let Some(idle) = self.0.first().map(|row| row.most)
        {
            let is_quick = |windows: &[Delays]| windows.iter().all(|window| window.percentile(99) <= undisturbed(idle));
            for _ in 0..WINDOWS_MAX {
                if is_quick(&windows) {
                    break;
                }
                windows = vec![window()];
            }
        }
        let median = |percent| Delays::median(windows.iter().map(|window| window.percentile(percent)).collect());
        let row = Row { what: what.to_owned(), at_once, half: median(50), most: median(99) };
        super::say(&row.text(self.0.first().unwrap_or(&row)));
        self.0.push(row);
    }

    /// The promise is about an idle machine; a busy one must at least not show a namespace that waits for another one's
    /// time-outs. Until a trouble is noticed it is everybody's: a few requests may run into their time-out.
    fn judge(&self) {
        let idle = self.0[0].most;
        for Row { what, at_once, most, .. } in &self.0[1..] {
            let bound = if long() { idle * TIMES_MAX } else { undisturbed(idle) };
            assert!(*most <= bound, "{what}: p99 {most:?}, idle {idle:?}");
            assert!(*at_once <= NOTICED_WITHIN, "{what}: p99 at once {at_once:?}");
        }
    }
}
