//! Rotation, zipping and removal, restarts and deleted pods while the router reads.

use std::path::Path;
use std::time::Duration;

use fairlead_integration::broker::Kind;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::generator::rotation::rotated;
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::{wait_for, wait_until};
use fairlead_integration::workload::Script;
use jiff::Timestamp;

const ROTATIONS: u64 = 5;
/// The kubelet's setting; so few that files are zipped and removed while the run lasts.
const FILES: usize = 3;

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
    let stage = Stage::started_with(kind, &Wishes { partitions: 3, ..Wishes::default() }).unwrap();
    let stays = Identity::new("payments", "api-1", "api");
    let script = Script::new("rotated", 150 * (ROTATIONS + 1));
    let mut writer = CriWriter::create(stage.pods(), &stays, 0).unwrap();
    // A pod so short that only the hold from its first sight on can save it, and one that restarts.
    let short = Identity::new("payments", "job-1", "job");
    let short_script = Script::new("short", 60);
    write_and_delete(&stage, &short, &short_script);
    for rotation in 0..=ROTATIONS {
        let numbers = 150 * rotation..150 * (rotation + 1);
        script.write(&mut writer, numbers).unwrap();
        if rotation < ROTATIONS {
            rotate(&mut writer);
        }
    }
    let left = rotated(writer.path()).unwrap();
    assert_eq!(left.len(), FILES - 1, "{left:?}");
    assert!(left.iter().any(|path| path.extension().is_some_and(|extension| extension == "gz")), "{left:?}");
    super::expect_scripts(&stage, "payments", &[(&stays, &script), (&short, &short_script)]);
    // What is delivered and has no name of the kubelet's is let go: only the plain files that are there stay held.
    let plain = 1 + left.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")).count();
    let held = stage.folder().join("log/fairlead/held");
    wait_until("delivered files to be let go", super::ARRIVES, || files_below(&held) == plain).unwrap();
}

fn files_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

/// Rotates as soon as the second allows another name, a line begun before and ended after.
fn rotate(writer: &mut CriWriter) {
    wait_for("another second", Duration::from_secs(5), || writer.rotate(FILES).unwrap().then_some(())).unwrap();
}

fn write_and_delete(stage: &Stage, identity: &Identity, script: &Script) {
    let mut writer = CriWriter::create(stage.pods(), identity, 0).unwrap();
    script.write(&mut writer, 0..script.lines).unwrap();
    // The kubelet removes a pod's folder a second or two after its end; here as soon as the router holds the file.
    let log = identity.log(stage.pods(), 0);
    wait_for("the file to be held", Duration::from_secs(10), || {
        use std::os::unix::fs::MetadataExt as _;
        (log.metadata().ok()?.nlink() > 1).then_some(())
    })
    .unwrap();
    drop(writer);
    std::fs::remove_dir_all(identity.pod_folder(stage.pods())).unwrap();
}

#[test]
fn a_line_is_joined_across_rotation_and_a_restart_is_a_source_of_its_own() {
    let _turn = super::turn();
    let stage = Stage::started(Kind::Tansu).unwrap();
    let identity = Identity::new("shop", "web-1", "web");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    writer.line(Timestamp::now(), Stream::Stdout, b"first").unwrap();
    writer.partial(Timestamp::now(), Stream::Stdout, b"begun before ").unwrap();
    writer.line(Timestamp::now(), Stream::Stderr, b"between").unwrap();
    assert!(writer.rotate(5).unwrap());
    writer.line(Timestamp::now(), Stream::Stdout, b"and ended after").unwrap();
    writer.flush().unwrap();
    let mut again = CriWriter::create(stage.pods(), &identity, 1).unwrap();
    again.line(Timestamp::now(), Stream::Stdout, b"after a restart").unwrap();
    again.flush().unwrap();
    let lines = fairlead_integration::consume::wait_for_lines(
        &stage.broker.bootstrap(),
        &stage.topic("shop"),
        5,
        super::ARRIVES,
    )
    .unwrap();
    let texts = fairlead_integration::audit::texts(&lines, &identity, Stream::Stdout);
    assert_eq!(texts, ["first", "begun before and ended after", "after a restart"]);
    assert_eq!(fairlead_integration::audit::texts(&lines, &identity, Stream::Stderr), ["between"]);
    let sources: std::collections::BTreeSet<&str> = lines.iter().map(|line| line.source.as_str()).collect();
    assert_eq!(sources.len(), 3, "{sources:?}");
}
