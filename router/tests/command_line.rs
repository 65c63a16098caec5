//! The program as people run it: what it prints, and its exit code.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn router(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-router"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FAIRLEAD_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("FAIRLEAD_ROUTER__LOG__FILTER", "info").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_prints_every_fault_at_once_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "state_dir: /proc/no/where\nkafka: {properties: {acks: 0}}\nlogs: {existing: perhaps}\nnonsense: 1\n";
    std::fs::write(folder.path().join("router.yaml"), yaml).unwrap();
    let output = router(folder.path(), &["check", "--config", "router.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let faults = text(&output.stderr);
    let keys: Vec<&str> = faults.lines().map(|line| line.split([':', ' ']).next().unwrap()).collect();
    let expected =
        ["kafka.bootstrap_servers", "kafka.properties.acks", "logs.existing", "node_name", "nonsense", "state_dir"];
    assert_eq!(keys, expected, "{faults}");
    assert!(faults.lines().all(|line| line.contains("(router.yaml")), "{faults}");
}

#[test]
fn a_file_that_cannot_be_used_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.yaml"), "node_name: n\n  state_dir: s\n").unwrap();
    for (command, file, part) in [
        ("check", "none.yaml", "cannot be read: No such file"),
        ("run", "none.yaml", "cannot be read: No such file"),
        ("check", "broken.yaml", "line 2"),
        ("run", "broken.yaml", "line 2"),
    ] {
        let output = router(folder.path(), &[command, "--config", file]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.lines().count() == 1 && said.contains(part), "{said}");
    }
}

#[test]
fn a_good_configuration_is_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "node_name: n\nstate_dir: state\nlogs: {pods_dir: .}\nkafka: {bootstrap_servers: '127.0.0.1:9'}\n";
    std::fs::write(folder.path().join("router.yaml"), yaml).unwrap();
    let output = router(folder.path(), &["check", "--config", "router.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("127.0.0.1:9"));
    assert!(!folder.path().join("state").exists(), "check leaves nothing behind");
}

#[test]
fn a_taken_admin_port_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("pods")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let yaml = format!(
        "node_name: n\nstate_dir: state\nlogs: {{pods_dir: pods}}\nkafka: {{bootstrap_servers: '127.0.0.1:9'}}\n\
         admin: {{listen: '{address}'}}\n"
    );
    std::fs::write(folder.path().join("router.yaml"), yaml).unwrap();
    let output = router(folder.path(), &["run", "--config", "router.yaml"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("fairlead-router: ")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains(&address.to_string()) && lines[0].contains("Address already in use"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn version_and_usage() {
    let folder = tempfile::tempdir().unwrap();
    let output = router(folder.path(), &["version"]);
    assert_eq!(text(&output.stdout), concat!("fairlead-router ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(router(folder.path(), &["fly"]).status.code(), Some(2));
}
