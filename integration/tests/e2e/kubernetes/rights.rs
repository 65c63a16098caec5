//! Each right is taken away: the router says which one it lacks, lines flow, and once it is given they are complete.

use fairlead_integration::kubernetes::{PodPlan, Right, Shape};
use fairlead_integration::stage::Wishes;
use fairlead_integration::wait::wait_until;

use super::Site;

#[test]
fn that_are_missing_are_named_and_stop_no_line() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    // Where lists are streamed, nobody lists.
    let ordinary = Shape { flags: vec!["--feature-gates=WatchList=false".to_owned()] };
    let keys = ["metadata_wait: 2s", "node_labels: [\"topology.kubernetes.io/*\"]"];
    let mut site = Site::prepared_as(&keys, Wishes::default(), &ordinary);
    let each =
        |(of, verbs): &(String, Vec<String>)| verbs.iter().map(|verb| (of.clone(), verb.clone())).collect::<Vec<_>>();
    let all: Vec<(String, String)> = site.rights.iter().flat_map(each).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    for (round, (resource, verb)) in all.into_iter().enumerate() {
        let namespace = format!("team-{round}");
        let id = site.cluster.make_namespace(&namespace, &[]).unwrap();
        allow(&site, |of, right| of != resource || right != verb);
        let said_before = site.router_log().len();
        site.stage.router.start_ready().unwrap();
        let mut pod = site.pod(&PodPlan::new(&namespace, "web-0").label("app", "web"), &id);
        pod.write(30);
        let (told, _) = site.expect(&[&pod]);
        assert!(told[0].records > 0);

        let named = |line: &str| {
            line.contains(&resource) && line.contains(&verb) && (line.contains(" WARN ") || line.contains(" ERROR "))
        };
        wait_until(&format!("a word about {verb} {resource}"), super::SOON, || {
            site.router_log()[said_before..].lines().any(named)
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", site.router_log()));

        allow(&site, |_, _| true);
        site.until_complete(&mut pod);
        site.expect(&[&pod]);
        site.stage.router.terminate().unwrap();
        pod.delete();
    }
}

/// Gives the router these of its rights.
fn allow(site: &Site, wanted: impl Fn(&str, &str) -> bool) {
    let keep =
        |of: &str, verbs: &[String]| -> Vec<String> { verbs.iter().filter(|verb| wanted(of, verb)).cloned().collect() };
    let left: Vec<(String, Vec<String>)> =
        site.rights.iter().map(|(of, verbs)| (of.clone(), keep(of, verbs))).collect();
    let verbs: Vec<Vec<&str>> = left.iter().map(|(_, verbs)| verbs.iter().map(String::as_str).collect()).collect();
    let rights = left.iter().zip(&verbs).filter(|(_, verbs)| !verbs.is_empty());
    let rights: Vec<Right<'_>> = rights.map(|((of, _), verbs)| (of.as_str(), verbs.as_slice())).collect();
    site.cluster.allow(&site.account, &rights).unwrap();
}
