//! Pods that are deleted while Kafka is away; then the router is restarted while the API server is away. Their lines have
//! labels all the same.

use std::time::Duration;

use fairlead_integration::consume::Line;
use fairlead_integration::kubernetes::PodPlan;
use fairlead_integration::stage::Wishes;
use fairlead_integration::wait::wait_until;

use super::Site;

#[test]
fn pods_keep_their_labels_over_a_restart_without_the_api_server() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    // Nothing can be drained without Kafka.
    let wishes = Wishes { router_extra: vec!["shutdown_deadline: 1s".to_owned()], ..Wishes::default() };
    let mut site = Site::prepared(&[], wishes);
    let shop = site.cluster.make_namespace("shop", &[]).unwrap();
    site.stage.router.start_ready().unwrap();
    let plan = |name: &str| PodPlan::new("shop", name).label("app", name).deployment(name, "7d9f4b6c5");
    let mut seen = site.pod(&plan("seen"), &shop);
    site.until_complete(&mut seen);

    // One pod that had lines delivered before, one that had none, one that lives on.
    site.stage.broker.stop().unwrap();
    let mut unseen = site.pod(&plan("unseen"), &shop);
    let mut living = site.pod(&plan("living"), &shop);
    for written in [&mut seen, &mut unseen, &mut living] {
        written.write(50);
    }
    let held = || [&seen, &unseen, &living].iter().all(|written| written.log.is_held());
    wait_until("the files to be held", Duration::from_secs(30), held).unwrap();
    // That a pod is known is stored when its instance is; nothing shows it from outside but a router that has read.
    let read = || site.stage.router.metric("fairlead_router_lines_read_total") >= (seen.lines + 100) as f64;
    wait_until("the lines to be read", super::SOON, read).unwrap();
    seen.delete();
    unseen.delete();

    site.stage.router.kill().unwrap();
    site.cluster.kill().unwrap();
    site.stage.router.start().unwrap();
    site.stage.broker.start().unwrap();
    let (told, stored) = site.expect(&[&seen, &unseen, &living]);
    for told in &told {
        assert_eq!(told.complete, told.records, "{told:?}");
    }
    let lines: Vec<Line> = stored.iter().map(|stored| Line::parse(stored).unwrap()).collect();
    let report = fairlead_integration::audit::audit(&lines);
    assert!(report.faults.is_empty() && report.announced == 0, "{report:?}");

    // A pod that began meanwhile is known as soon as the API server is back.
    site.cluster.start().unwrap();
    let mut new = site.pod(&plan("new"), &shop);
    site.until_complete(&mut new);
    assert!(site.stage.router.ended().is_none());
}
