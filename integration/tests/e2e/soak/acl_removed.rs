//! The router's right to write to a namespace's topic is taken away for a time: the namespace waits and goes on by itself,
//! and another one does not notice.

use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::delays::Probe;
use fairlead_integration::kafka::Shape;
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::steady::{Pace, Steady};
use fairlead_integration::wait::wait_until;

use super::teams;

#[test]
fn for_a_time_loses_nothing() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let case = Case::begin("22-acl-removed", "the right to write to a namespace's topic removed for a time").unwrap();
    let shape = Shape { rights: true, ..Shape::default() };
    let mut stage = Stage::over(Broker::shaped(&shape).unwrap(), &Wishes::default()).unwrap();
    stage.broker.start().unwrap();
    let bootstrap = stage.broker.bootstrap();
    let topics = [stage.topic("payments"), stage.topic("shop")];
    let [payments, shop] = [topics[0].as_str(), topics[1].as_str()];
    stage.broker.kafka().allow(&[payments, shop]).unwrap();
    admin::create_topic(&bootstrap, shop, 1, &[]).unwrap();
    stage.router.start_ready().unwrap();
    let mut probe = Probe::start(stage.pods(), "shop", &bootstrap, shop).unwrap();
    let writer = Steady::start(stage.pods(), "payments", Pace::of(500)).unwrap();
    let parked = |stage: &Stage| stage.router.metric("fairlead_router_parked_namespaces") > 0.5;
    for _ in 0..pick(1, 5) {
        teams::write_for(Duration::from_secs(1));
        stage.broker.kafka().forbid(&[payments]).unwrap();
        let delays = probe.window(100, Duration::from_millis(20)).unwrap();
        wait_until("the namespace to be parked", crate::ARRIVES, || parked(&stage)).unwrap();
        super::say(&format!("another namespace meanwhile: p99 {:?}", delays.percentile(99)));
        assert!(delays.percentile(99) < super::UNDISTURBED, "{delays:?}");
        stage.broker.kafka().allow(&[payments]).unwrap();
        wait_until("the namespace to go on", crate::ARRIVES, || !parked(&stage)).unwrap();
    }
    let logs = [writer.stop().unwrap(), probe.into_log()];
    let figures = teams::prove(case, &stage, &logs, &[]);
    assert_eq!(figures.delivered, figures.written);
}
