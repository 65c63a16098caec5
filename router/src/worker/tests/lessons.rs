//! What hurt the users of other log agents, each lesson a test named after it. The list is in docs/reliability.md.

use prometheus_client::encoding::text::encode;

use super::*;
use crate::enrich::{PodFacts, Standing};

const SHOP: &str = "shop_web-0_uid-2/web";

/// A log file beside the node's own container.
fn write_to(node: &Node, folder: &str, name: &str, bytes: &[u8]) {
    let folder = node.settings.pods_dir.join(folder);
    fs::create_dir_all(&folder).unwrap();
    OpenOptions::new().create(true).append(true).open(folder.join(name)).unwrap().write_all(bytes).unwrap();
}

fn line(text: &str) -> Vec<u8> {
    format!("{TIME} stdout F {text}\n").into_bytes()
}

fn remove(node: &Node, name: &str) {
    fs::remove_file(node.dir().join(name)).unwrap();
}

fn remove_pod(node: &Node, pod: &str) {
    fs::remove_dir_all(node.settings.pods_dir.join(pod)).unwrap();
}

/// `payments` cannot be delivered.
fn outage(node: &Node) {
    node.topics.set("logs.payments", TopicState::Unknown);
}

fn back(node: &Node) {
    node.topics.set("logs.payments", TopicState::Ready { partitions: 1 });
}

fn sources(stored: &[Vec<u8>]) -> BTreeSet<String> {
    records(stored).iter().map(|value| Record::parse(value).unwrap().fairlead.source.into_owned()).collect()
}

/// Topics of what was handed over or arrived, in order.
fn topics(node: &Node) -> Vec<String> {
    let sink = node.sink.borrow();
    sink.stored.iter().chain(&sink.queue).map(|sent| sent.topic.clone()).collect()
}

#[test]
fn lesson_01_fast_rotation_loses_nothing() {
    let mut node = Node::new();
    outage(&node);
    node.lines("0.log", 0, 5);
    node.start();
    for round in 1..=20 {
        node.rotate(&format!("T{round:02}"));
        node.lines("0.log", round * 5, 5);
        node.rounds(1);
        remove(&node, &format!("0.log.T{round:02}"));
    }
    back(&node);
    let stored = node.finish();
    assert_eq!(logs(&stored), expected(105));
    assert_eq!(sources(&stored).len(), 1, "and every rotation was followed");
}

#[test]
fn lesson_02_a_pod_that_lives_a_moment_is_read() {
    let mut node = Node::new();
    node.start();
    write_to(&node, SHOP, "0.log", &line("short life"));
    node.rounds(1);
    remove_pod(&node, "shop_web-0_uid-2");
    assert_eq!(logs(&node.finish()), ["short life"]);
}

#[test]
fn lesson_03_small_files_are_read() {
    let mut node = Node::new();
    for container in ["a", "b", "c"] {
        write_to(&node, &format!("shop_web-0_uid-2/{container}"), "0.log", &line("x"));
    }
    node.start();
    let stored = node.finish();
    assert_eq!(logs(&stored), ["x", "x", "x"]);
    assert_eq!(sources(&stored).len(), 3, "the smallest equal files are three files");
}

#[test]
fn lesson_04_a_position_never_runs_ahead_of_delivery() {
    for acknowledged in [0, 1, 3, 6] {
        let mut node = Node::new();
        node.lines("0.log", 0, 6);
        node.start();
        node.rounds(4);
        node.sink.borrow_mut().acknowledge(acknowledged);
        node.rounds(2);
        node.worker.as_mut().unwrap().commit();
        node.kill(0);
        node.start();
        let arrived: BTreeSet<_> = logs(&node.finish()).into_iter().collect();
        assert_eq!(arrived, expected(6).into_iter().collect(), "{acknowledged} acknowledged before the crash");
    }
}

#[test]
fn lesson_05_a_failed_delivery_is_counted_and_sent_again() {
    let mut node = Node::new();
    node.lines("0.log", 0, 4);
    node.start();
    node.rounds(4);
    node.sink.borrow_mut().fail(4, FailureKind::Retry, false);
    node.rounds(2);
    let namespace = Namespace::parse("payments").unwrap();
    let metrics = &node.worker.as_ref().unwrap().parts.metrics;
    assert_eq!(metrics.delivery_failures(&namespace, FailureKind::Retry.as_str()).get(), 4);
    assert_eq!(logs(&node.finish()), expected(4));
}

#[test]
fn lesson_06_a_missing_topic_blocks_nobody_and_loses_nothing() {
    let mut node = Node::new();
    outage(&node);
    node.lines("0.log", 0, 3);
    write_to(&node, SHOP, "0.log", &line("from shop"));
    node.start();
    node.sink.borrow_mut().acknowledge_all = true;
    node.rounds(30);
    assert_eq!(topics(&node), ["logs.shop"]);
    back(&node);
    assert_eq!(logs(&node.finish()), ["from shop", "line 0", "line 1", "line 2"]);
}

#[test]
fn lesson_07_a_line_too_large_for_its_topic_goes_in_pieces_that_fit() {
    let mut node = Node::new();
    node.topics.limit("logs.payments", 4_096);
    let long: String = (0..60_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    node.write("0.log", &line(&long));
    node.lines("0.log", 0, 2);
    node.start();
    let stored = node.finish();
    assert!(stored.iter().all(|value| value.len() <= 4_096), "no record is larger than its topic takes");
    let texts = logs(&stored);
    let (pieces, after) = texts.split_at(texts.len() - 2);
    assert_eq!((pieces.concat() == long, after), (true, &expected(2)[..]));
}

#[test]
fn lesson_08_an_output_that_fails_stops_no_other_however_long() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.sink.borrow_mut().refuse.insert("logs.payments".to_owned(), Refusal::NotAuthorized);
    node.sink.borrow_mut().acknowledge_all = true;
    for n in 0..20 {
        node.lines("0.log", 3 + n, 1);
        write_to(&node, SHOP, "0.log", &line(&format!("shop {n}")));
        node.rounds(3);
    }
    assert_eq!(topics(&node), vec!["logs.shop"; 20], "each of its lines at once");
    node.sink.borrow_mut().refuse.clear();
    assert_eq!(logs(&node.finish()).len(), 43);
}

#[test]
fn lesson_09_a_flood_leaves_the_others_their_turn_and_their_share() {
    let mut node = Node::new();
    node.settings.in_flight_bytes_max = 16 << 20;
    node.lines("0.log", 0, 100_000);
    node.start();
    node.rounds(50);
    write_to(&node, SHOP, "0.log", &line("quiet"));
    // Nothing is acknowledged: there is room for a line beside the flood's records in flight.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !topics(&node).contains(&"logs.shop".to_owned()) {
        assert!(Instant::now() < deadline, "the flood keeps a line from its turn");
        node.rounds(1);
        node.worker.as_ref().unwrap().watcher.wait(None, Duration::from_millis(1));
    }
    assert!(topics(&node).len() < 100_000, "the flood is bounded");
}

#[test]
fn lesson_10_what_is_held_for_an_outage_has_a_bound() {
    let mut node = Node::new();
    node.settings.budget.bytes_max = 64 << 10;
    outage(&node);
    node.start();
    for round in 0..20 {
        node.lines("0.log", round * 100, 100);
        node.rotate(&format!("T{round:02}"));
        node.rounds(2);
        remove(&node, &format!("0.log.T{round:02}"));
        node.rounds(1);
        let worker = node.worker.as_mut().unwrap();
        worker.keep_budget();
        worker.commit();
    }
    let alone = |link: &crate::hold::HeldLink| {
        let folder = HeldFolder::open(&node.settings.state_dir).unwrap();
        let stat = folder.stat(&link.key, link.link).unwrap();
        if stat.names == 1 { stat.disk_bytes } else { 0 }
    };
    let held: u64 = HeldFolder::open(&node.settings.state_dir).unwrap().list().unwrap().iter().map(alone).sum();
    assert!((1..=64 << 10).contains(&held), "{held} bytes are held");
    back(&node);
    let stored = node.finish_all();
    let lost: u64 =
        notices(&stored).iter().filter(|notice| notice.kind == NoticeKind::Gap).filter_map(|notice| notice.lines).sum();
    assert_eq!(lost as usize + logs(&stored).len(), 2_000, "what was let go is announced, line by line");
}

/// A node that asks the API server and waits for its answers as long as it takes.
fn asking() -> Node {
    let mut node = Node::new();
    node.settings.metadata_wait = Duration::from_secs(3_600);
    node.pods.stand(Standing::Known);
    node
}

/// The label `app` of each record of a line; nothing of it may be missing.
fn labels(stored: &[Vec<u8>]) -> Vec<String> {
    let of = |value: &Vec<u8>| {
        let record = Record::parse(value).unwrap();
        assert_eq!(record.fairlead.metadata, None, "all is known");
        record.kubernetes.labels.unwrap()["app"].clone()
    };
    records(stored).iter().map(of).collect()
}

#[test]
fn lesson_11_the_first_line_has_its_labels_though_it_was_written_before_they_came() {
    let mut node = asking();
    node.lines("0.log", 0, 2);
    node.start();
    node.rounds(20);
    assert_eq!(topics(&node), Vec::<String>::new(), "it waits in its file");
    node.pods.set(pods::UID, pods::facts());
    assert_eq!(labels(&node.finish()), ["api"; 2]);
}

#[test]
fn lesson_11_without_the_api_server_the_first_line_says_whose_it_is() {
    let mut node = asking();
    node.pods.stand(Standing::Away);
    node.lines("0.log", 0, 1);
    node.start();
    let stored = node.finish();
    let record = Record::parse(&stored[0]).unwrap();
    let kubernetes = &record.kubernetes;
    let identity = [
        &kubernetes.namespace_name,
        &kubernetes.pod_name,
        &kubernetes.pod_id,
        &kubernetes.container_name,
        &kubernetes.host,
    ];
    assert_eq!(identity, ["payments", "api-7d9f4-x2x", "0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f", "api", "node-3"]);
    assert_eq!(record.fairlead.metadata.as_deref(), Some("path"), "and says that this is all that is known");
}

#[test]
fn lesson_12_lines_of_a_deleted_pod_keep_its_labels_after_a_restart_without_the_api_server() {
    let mut node = asking();
    node.pods.set(pods::UID, pods::facts());
    outage(&node);
    node.lines("0.log", 0, 2);
    node.start();
    node.rounds(2);
    remove_pod(&node, POD);
    node.rounds(2);
    node.worker.as_mut().unwrap().commit();
    node.kill(0);
    node.pods.forget(pods::UID);
    node.pods.stand(Standing::Away);
    back(&node);
    node.start();
    let stored = node.finish();
    assert_eq!((logs(&stored), labels(&stored)), (expected(2), vec!["api".to_owned(); 2]));
}

#[test]
fn lesson_13_a_pod_name_used_again_is_another_pod() {
    let mut node = asking();
    outage(&node);
    node.start();
    for uid in ["uid-1", "uid-2"] {
        let labels = [("app".to_owned(), format!("db of {uid}"))].into();
        node.pods.set(uid, PodFacts { labels, gone: true, ..pods::facts() });
        let pod = format!("payments_db-0_{uid}");
        write_to(&node, &format!("{pod}/db"), "0.log", &line(&format!("of {uid}")));
        node.rounds(2);
        remove_pod(&node, &pod);
        node.rounds(2);
    }
    back(&node);
    let stored = node.finish();
    let seen: BTreeSet<_> = stored
        .iter()
        .map(|value| Record::parse(value).unwrap())
        .map(|record| {
            let label = record.kubernetes.labels.unwrap()["app"].clone();
            (record.kubernetes.pod_id.to_string(), record.log.to_string(), record.fairlead.seq, label)
        })
        .collect();
    let of = |uid: &str| (uid.to_owned(), format!("of {uid}"), 0, format!("db of {uid}"));
    assert_eq!(seen, [of("uid-1"), of("uid-2")].into());
}

#[test]
fn lesson_14_what_is_asked_does_not_depend_on_lines() {
    let asked = |lines: usize| {
        let mut node = asking();
        node.pods.set(pods::UID, pods::facts());
        node.start();
        for written in 0..lines {
            node.lines("0.log", written, 1);
            node.rounds(1);
        }
        let asked = node.pods.asked();
        assert_eq!(logs(&node.finish()), expected(lines));
        asked
    };
    assert_eq!(asked(1), asked(200));
}

#[test]
fn lesson_15_an_inode_number_used_again_takes_no_position_over() {
    let mut node = Node::new();
    node.start();
    for round in 0..10 {
        node.lines("0.log", round * 3, 3);
        node.settle();
        // All of it is delivered and let go, so that the file system may give its number to the next live file.
        node.rotate("T");
        node.settle();
        remove(&node, "0.log.T");
        node.settle();
        assert_eq!(node.held(), 1);
    }
    assert_eq!(logs(&node.finish()), expected(30));
}

#[test]
fn lesson_16_files_that_begin_alike_are_told_apart() {
    let mut node = Node::new();
    let banner = line(&"=".repeat(4_096));
    for container in ["a", "b"] {
        let folder = format!("shop_web-0_uid-2/{container}");
        write_to(&node, &folder, "0.log", &banner);
        write_to(&node, &folder, "0.log", &line(&format!("of {container}")));
    }
    node.start();
    node.rounds(3);
    node.kill(0);
    node.start();
    let stored = node.finish();
    let last: BTreeSet<_> = logs(&stored).into_iter().filter(|log| log.starts_with("of")).collect();
    assert_eq!(last, ["of a".to_owned(), "of b".to_owned()].into());
    assert_eq!((stored.len(), sources(&stored).len()), (4, 2));
}

#[test]
fn lesson_17_a_file_that_is_copied_and_cut_is_told_of_and_read_on() {
    let mut node = Node::new();
    node.lines("0.log", 0, 5);
    node.start();
    node.settle();
    fs::copy(node.dir().join("0.log"), node.dir().join("copy")).unwrap();
    OpenOptions::new().write(true).open(node.dir().join("0.log")).unwrap().set_len(0).unwrap();
    // More than before: its size does not tell that it was cut.
    node.lines("0.log", 5, 9);
    let stored = node.finish_all();
    assert_eq!(logs(&stored), expected(14), "each line once");
    assert_eq!(sources(&stored).len(), 2);
    let told = notices(&stored);
    assert!(told.iter().any(|notice| notice.reason == Some(LossReason::Truncated)), "{told:?}");
}

#[test]
fn lesson_18_a_compressed_file_is_no_new_one() {
    let mut node = Node::new();
    node.lines("0.log", 0, 3);
    node.start();
    node.rotate("20261120-100010");
    node.lines("0.log", 3, 3);
    node.rounds(2);
    let raw = fs::read(node.dir().join("0.log.20261120-100010")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&raw).unwrap();
    fs::write(node.dir().join("0.log.20261120-100010.gz"), encoder.finish().unwrap()).unwrap();
    remove(&node, "0.log.20261120-100010");
    node.settle();
    node.kill(0);
    node.start();
    assert_eq!(logs(&node.finish()), expected(6));
}

#[test]
fn lesson_19_damaged_positions_never_keep_the_router_from_starting() {
    let check = |what: &str, damage: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let mut node = Node::new();
        node.lines("0.log", 0, 3);
        node.start();
        node.settle();
        node.kill(0);
        let path = node.settings.state_dir.join("positions");
        fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
        node.lines("0.log", 3, 2);
        node.start();
        let stored = node.finish();
        let arrived: BTreeSet<_> = logs(&stored).into_iter().collect();
        assert_eq!(arrived, expected(5).into_iter().collect(), "{what}");
        let new = logs(&stored).iter().filter(|log| *log == "line 4").count();
        assert_eq!(new, 1, "{what}");
    };
    check("nothing", &|bytes| bytes);
    check("empty", &|_| Vec::new());
    check("cut in the middle", &|bytes| bytes[..bytes.len() / 2].to_vec());
    check("a byte is wrong", &|mut bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    });
    check("something else", &|_| vec![0xfe; 10_000]);
    check("twice", &|bytes| bytes.repeat(2));
}

#[test]
fn lesson_20_the_state_folder_keeps_no_copy_of_the_data() {
    let mut node = Node::new();
    outage(&node);
    node.lines("0.log", 0, 20_000);
    node.start();
    node.rounds(20);
    let own: u64 = fs::read_dir(&node.settings.state_dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(|metadata| metadata.is_file())
        .map(|metadata| metadata.len())
        .sum();
    assert!(own < 64 << 10, "{own} bytes beside the links");
    let link = node.settings.state_dir.join("held").join(POD).join("api/0.0");
    let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(inode(&link), inode(&node.dir().join("0.log")), "a link is the same file");
}

#[test]
fn lesson_21_file_events_that_are_lost_cost_no_line() {
    let mut node = Node::new();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    node.rotate("T1");
    node.lines("0.log", 2, 2);
    write_to(&node, SHOP, "0.log", &line("from shop"));
    let watcher = &mut node.worker.as_mut().unwrap().watcher;
    watcher.read().unwrap();
    watcher.changes.clear();
    watcher.folders.clear();
    watcher.overflowed = true;
    let logs: BTreeSet<_> = logs(&node.finish()).into_iter().collect();
    assert_eq!(logs, expected(4).into_iter().chain(["from shop".to_owned()]).collect());
}

#[test]
fn lesson_22_idle_files_cost_no_descriptor_and_no_turn() {
    let mut node = Node::new();
    for pod in 0..150 {
        write_to(&node, &format!("shop_web-{pod}_uid-{pod}/web"), "0.log", &line("once"));
    }
    node.start();
    node.settle();
    let worker = node.worker.as_mut().unwrap();
    assert_eq!(worker.instances.len(), 150);
    assert_eq!(worker.epochs().filter(|epoch| epoch.is_open()).count(), 0);
    assert!(worker.fair.is_quiet() && worker.again.is_empty(), "nobody has a turn or is looked at again");
}

#[test]
fn lesson_23_series_are_of_namespaces_and_never_of_pods() {
    let mut node = Node::new();
    for pod in 0..20 {
        write_to(&node, &format!("shop_web-{pod}_uid-{pod}/web"), "0.log", &line("once"));
    }
    node.start();
    let mut sizes = Vec::new();
    for pod in 20..40 {
        write_to(&node, &format!("shop_web-{pod}_uid-{pod}/web"), "0.log", &line("once"));
        node.settle();
        let mut text = String::new();
        encode(&mut text, &node.worker.as_ref().unwrap().parts.metrics.registry()).unwrap();
        assert!(!text.contains("uid-") && !text.contains("web"), "{text}");
        sizes.push(text.lines().count());
    }
    assert_eq!(sizes.first(), sizes.last(), "twenty more pods add no series");
}

#[test]
fn lesson_24_fragments_join_by_stream_across_rotation_and_restart() {
    let mut node = Node::new();
    node.write("0.log", format!("{TIME} stdout P out-1 \n{TIME} stderr P err-1 \n{TIME} stdout P out-2 \n").as_bytes());
    node.start();
    node.rounds(3);
    node.kill(0);
    node.rotate("T1");
    node.write("0.log", format!("{TIME} stderr F err-2\n{TIME} stdout F out-3\n").as_bytes());
    node.start();
    let stored = node.finish();
    let mut texts = logs(&stored);
    texts.sort();
    assert_eq!(texts, ["err-1 err-2", "out-1 out-2 out-3"]);
}

#[test]
fn lesson_25_the_lines_own_time_is_in_the_value_however_wrong() {
    let mut node = Node::new();
    let times = ["1999-01-01T00:00:00.000000001Z", "2090-12-31T23:59:59.5Z", "2026-11-20T10:00:00Z"];
    for time in times {
        node.write("0.log", format!("{time} stdout F at {time}\n").as_bytes());
    }
    node.start();
    let stored = node.finish();
    let seen: Vec<_> = stored.iter().map(|value| Record::parse(value).unwrap().time.into_owned()).collect();
    assert_eq!(seen, times);
}

#[test]
fn also_painful_what_is_remembered_goes_with_its_pods() {
    let mut node = Node::new();
    node.start();
    let positions = node.settings.state_dir.join("positions");
    let mut sizes = Vec::new();
    for pod in 0..60 {
        let folder = format!("shop_job-{pod}_uid-{pod}");
        write_to(&node, &format!("{folder}/job"), "0.log", &line("done"));
        node.settle_for(2, Duration::ZERO, true);
        remove_pod(&node, &folder);
        node.settle_for(2, Duration::ZERO, true);
        sizes.push(fs::metadata(&positions).unwrap().len());
    }
    assert_eq!(node.worker.as_ref().unwrap().instances.len(), 0);
    node.stop();
    assert_eq!(records(&node.stored).len(), 60);
    // The next start keeps only what is still to be remembered.
    node.start();
    node.rounds(1);
    node.stop();
    let left = fs::metadata(&positions).unwrap().len();
    assert!(left < 4_096, "{left} bytes are left of {sizes:?}");
}
