//! Router and gateway start before there is a broker: both live, say that they are not ready and why, lose nothing, and
//! begin to work when it comes.

use fairlead_integration::broker::Kind;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::CriWriter;
use fairlead_integration::http::history;
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::wait_until;
use fairlead_integration::workload::Script;

#[test]
fn on_apache_kafka() {
    scenario(Kind::ApacheKafka);
}

#[test]
fn on_tansu() {
    scenario(Kind::Tansu);
}

fn scenario(kind: Kind) {
    if !kind.usable() {
        return;
    }
    let _turn = super::turn();
    let mut stage = Stage::prepared(kind, &Wishes::default()).unwrap();
    let identity = Identity::new("shop", "web-1", "web");
    let script = Script::new("early", 500);
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    script.write(&mut writer, 0..200).unwrap();
    stage.router.start().unwrap();
    stage.gateway.start().unwrap();
    for program in [&mut stage.router, &mut stage.gateway] {
        wait_until("an answer on the admin port", super::ARRIVES, || {
            program.admin().get("/livez").is_ok_and(|answer| answer.status == 200)
        })
        .unwrap();
        // Never ready, not for a moment, and soon with the reason.
        wait_until("the reason in /readyz", super::ARRIVES, || {
            let ready = program.admin().get("/readyz").unwrap();
            assert_eq!(ready.status, 503, "{}", ready.body);
            ready.body.to_lowercase().contains("kafka")
        })
        .unwrap();
        assert!(program.ended().is_none(), "{}", program.log_tail());
    }
    script.write(&mut writer, 200..400).unwrap();
    writer.rotate(5).unwrap();
    stage.broker.start().unwrap();
    stage.router.wait_ready().unwrap();
    stage.gateway.wait_ready().unwrap();
    script.write(&mut writer, 400..script.lines).unwrap();
    let (_, report) = super::expect_scripts(&stage, "shop", &[(&identity, &script)]);
    assert_eq!(report.repeats, 0);
    let shown = history(&stage.team("shop").unwrap(), "shop", 10_000).unwrap();
    assert_eq!(shown.len() as u64, script.total());
}
