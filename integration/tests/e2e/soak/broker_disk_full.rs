//! The broker's disk runs full while two namespaces write. Apache Kafka then ends; started again on a disk with room, as
//! its supervisor does, it gets everything.

use std::time::Duration;

use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::kafka::Shape;
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::steady::{Pace, Steady};
use fairlead_integration::wait::wait_until;

use super::teams;

#[test]
fn and_free_again_loses_nothing() {
    if !Kind::ApacheKafka.usable() | !Component::Mounts.usable() {
        return;
    }
    let _turn = crate::turn();
    let case =
        Case::begin("24-broker-disk-full", "the broker's disk full until the broker ends, and free again").unwrap();
    let shape = Shape { disk_mebibytes: Some(pick(32, 256)), ..Shape::default() };
    let mut stage = Stage::over(Broker::shaped(&shape).unwrap(), &Wishes::default()).unwrap();
    stage.broker.start().unwrap();
    stage.router.start_ready().unwrap();
    let start = |namespace| Steady::start(stage.pods(), namespace, Pace::of(300)).unwrap();
    let writers = vec![start("payments"), start("shop")];
    for _ in 0..pick(1, 8) {
        teams::write_for(Duration::from_secs(1));
        let broker = stage.broker.kafka();
        broker.node(1).disk().unwrap().fill().unwrap();
        wait_until("the broker to end on its full disk", crate::ARRIVES, || broker.node(1).ended()).unwrap();
        teams::write_for(Duration::from_millis(500));
        broker.node(1).disk().unwrap().free().unwrap();
        broker.node(1).start().unwrap();
        broker.wait_ready().unwrap();
    }
    let figures = teams::prove(case, &stage, &teams::stopped(writers), &[]);
    assert_eq!(figures.delivered, figures.written);
}
