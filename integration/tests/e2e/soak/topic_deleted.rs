//! Somebody deletes the topic of a namespace that writes: what it had not delivered arrives in the topic that is made
//! anew, and another namespace does not notice.

use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::Kind;
use fairlead_integration::consume::wait_for_lines;
use fairlead_integration::delays::Probe;
use fairlead_integration::soak::{Case, Witness, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::steady::{Pace, Steady};

use super::teams;

#[test]
fn and_made_anew_loses_nothing_that_was_not_in_it() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let case = Case::begin("21-topic-deleted", "the topic of a namespace deleted while it writes").unwrap();
    let stage = Stage::started(Kind::ApacheKafka).unwrap();
    let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic("payments"));
    admin::create_topic(&bootstrap, &stage.topic("shop"), 1, &[]).unwrap();
    let mut probe = Probe::start(stage.pods(), "shop", &bootstrap, &stage.topic("shop")).unwrap();
    let mut writer = Steady::start(stage.pods(), "payments", Pace::of(500)).unwrap();
    let mut before = Vec::new();
    for _ in 0..pick(1, 10) {
        teams::write_for(Duration::from_secs(1));
        // What was delivered into a topic goes with it. So that it is known: nothing is written in the moment of deletion.
        let log = writer.stop().unwrap();
        let written = Witness::new(&log.identity, &log.files).total();
        let delivered = fairlead_integration::audit::distinct_lines(&before);
        before.extend(wait_for_lines(&bootstrap, &topic, written - delivered, crate::ARRIVES).unwrap());
        admin::delete_topics(&bootstrap, &[&topic]).unwrap();
        writer = Steady::resume(log, Pace::of(500));
        let delays = probe.window(100, Duration::from_millis(20)).unwrap();
        super::say(&format!("another namespace meanwhile: p99 {:?}", delays.percentile(99)));
        assert!(delays.percentile(99) < super::UNDISTURBED, "{delays:?}");
    }
    let logs = [writer.stop().unwrap(), probe.into_log()];
    let figures = teams::prove(case, &stage, &logs, &before);
    assert_eq!(figures.delivered, figures.written);
}
