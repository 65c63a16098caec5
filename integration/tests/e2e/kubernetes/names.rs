//! Names that come again: a pod's in its namespace, a namespace's in the cluster. No line carries what was true of another.

use fairlead_integration::kubernetes::PodPlan;

use serde_json::Value;

use super::{Site, Written};

#[test]
fn a_pod_of_the_same_name_has_its_own_labels() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    let site = Site::started(&["metadata_wait: 2s"]);
    let shop = site.cluster.make_namespace("shop", &[]).unwrap();
    let plan = |version: &str| PodPlan::new("shop", "db-0").label("app", "db").label(version, "yes");
    let mut all: Vec<Written> = Vec::new();
    // The second takes the first one's place at once; the third while the router sees nothing of it.
    for (version, seen) in [("one", true), ("two", true), ("three", false)] {
        site.proxy.open(seen);
        if let Some(before) = all.last_mut() {
            before.write(20);
            before.delete();
        }
        let mut next = site.pod(&plan(version), &shop);
        next.write(20);
        if seen {
            site.until_complete(&mut next);
        } else {
            site.topic("shop", all.iter().map(|written| written.lines).sum::<u64>() + next.lines);
            site.proxy.open(true);
            site.until_complete(&mut next);
        }
        all.push(next);
    }
    let (told, _) = site.expect(&all.iter().collect::<Vec<_>>());
    for told in told {
        assert!(told.complete > 0, "{told:?}");
    }
}

#[test]
fn a_namespace_of_the_same_name_has_its_own_uid_and_labels() {
    if !super::usable() {
        return;
    }
    let _turn = crate::turn();
    let site = Site::started(&["metadata_wait: 2s", "namespace_labels: [team]"]);
    let mut all: Vec<Written> = Vec::new();
    for (team, seen) in [("red", true), ("blue", true), ("green", false)] {
        site.proxy.open(seen);
        if let Some(before) = all.last_mut() {
            before.write(20);
            site.cluster.delete_namespace("shop").unwrap();
            before.log.remove_pod().unwrap();
        }
        let shop = site.cluster.make_namespace("shop", &[("team", team)]).unwrap();
        let mut next = site.pod(&PodPlan::new("shop", "web-0").label("team", team), &shop);
        next.write(20);
        if !seen {
            site.topic("shop", all.iter().map(|written| written.lines).sum::<u64>() + next.lines);
            site.proxy.open(true);
        }
        site.until_complete(&mut next);
        all.push(next);
    }
    let (told, stored) = site.expect(&all.iter().collect::<Vec<_>>());
    for told in told {
        assert!(told.complete > 0, "{told:?}");
    }
    // The pod's label is the namespace's: neither is another one's.
    let mut with_both = 0;
    for stored in stored {
        let record: Value = serde_json::from_slice(&stored.value).unwrap();
        let (pod, namespace) =
            (&record["kubernetes"]["labels"]["team"], &record["kubernetes"]["namespace_labels"]["team"]);
        if namespace.is_string() {
            assert_eq!(pod, namespace, "{record}");
            with_both += 1;
        }
    }
    assert!(with_both > 0, "no record has a label of its namespace");
}
