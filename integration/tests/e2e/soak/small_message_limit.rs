//! A topic's `max.message.bytes` is made small while its namespace writes: small lines arrive however they were batched,
//! a line that is too large is announced or comes in pieces, and another namespace does not notice.

use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::Kind;
use fairlead_integration::delays::Probe;
use fairlead_integration::soak::{Case, pick};
use fairlead_integration::stage::Stage;
use fairlead_integration::steady::{Pace, Steady};

use super::teams;

/// Takes a few small lines, and no long one.
const LIMIT: &str = "3000";

#[test]
fn stops_nothing_but_what_is_larger() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let title = "a topic's `max.message.bytes` made smaller than batches and some lines";
    let case = Case::begin("23-small-message-limit", title).unwrap();
    let stage = Stage::started(Kind::ApacheKafka).unwrap();
    let bootstrap = stage.broker.bootstrap();
    for namespace in ["payments", "shop"] {
        admin::create_topic(&bootstrap, &stage.topic(namespace), 1, &[]).unwrap();
    }
    let mut probe = Probe::start(stage.pods(), "shop", &bootstrap, &stage.topic("shop")).unwrap();
    // 15 KB of such text is more than 3,000 bytes in any compression.
    let rate = Pace { long_every: 400, long_bytes: 15_000, ..Pace::of(500) };
    let writer = Steady::start(stage.pods(), "payments", rate).unwrap();
    teams::write_for(Duration::from_secs(1));
    admin::alter_topic(&bootstrap, &stage.topic("payments"), "max.message.bytes", LIMIT).unwrap();
    let delays = probe.window(pick(100, 1_000), Duration::from_millis(20)).unwrap();
    super::say(&format!("another namespace meanwhile: p99 {:?}", delays.percentile(99)));
    assert!(delays.percentile(99) < super::UNDISTURBED, "{delays:?}");
    let logs = [writer.stop().unwrap(), probe.into_log()];
    let figures = teams::prove(case, &stage, &logs, &[]);
    assert!(figures.written > 1_000, "{figures:?}");
}
