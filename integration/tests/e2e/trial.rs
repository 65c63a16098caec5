//! `make trial` as a newcomer meets it: it comes up, every printed line works as pasted, and it stops cleanly.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use fairlead_integration::child::Child;
use fairlead_integration::folders::{binary, scratch};
use fairlead_integration::wait::wait_for;
use rustix::process::Signal;

#[test]
fn printed_lines_work_as_pasted_and_nothing_is_left_behind() {
    let _turn = super::turn();
    let folder = scratch("trial").unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(binary("trial").unwrap());
    command.env("TMPDIR", &temporary);
    for variable in ["KAFKA", "LOGS", "DATA"] {
        command.env_remove(variable);
    }
    let log = folder.path().join("output");
    let mut trial = Child::start("trial", &command, &log).unwrap();
    let printed = wait_for("the greeting", Duration::from_secs(90), || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        (text.contains("Ctrl-C stops") || trial.ended().is_some()).then_some(text)
    })
    .unwrap();
    let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 6, "{printed}");

    let live = text(&paste(lines[0], 4));
    let recent = wait_for("recent lines", Duration::from_secs(30), || {
        let answer = text(&paste(lines[1], 20));
        answer.contains(r#""namespace_name":"payments""#).then_some(answer)
    })
    .unwrap();
    assert!(live.lines().count() > 3, "{live}");
    assert!(recent.lines().all(|line| line.starts_with('{')), "{recent:.2000}");
    assert!(text(&paste(lines[2], 4)).lines().count() > 3);
    assert!(text(&paste(lines[3], 20)).starts_with("HTTP/1.1 404"));
    assert!(text(&paste(lines[4], 20)).contains("payments"));
    let namespaces = text(&paste(lines[5], 20));
    assert!(namespaces.contains("logs.payments") && !namespaces.contains("shop"), "{namespaces}");

    let page = printed.lines().find_map(|line| line.strip_prefix("The page: ")).unwrap();
    let html = text(&Command::new("curl").args(["-s", page]).output().unwrap());
    assert!(html.contains("<html"), "{html:.300}");

    trial.signal(Signal::INT).unwrap();
    let status = trial.wait(Duration::from_secs(60)).unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success() && said.contains("everything temporary is removed"), "{status} {said}");
    let left: Vec<PathBuf> = std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Runs a line as a shell does, for so many seconds at most.
fn paste(line: &str, seconds: u32) -> Output {
    Command::new("timeout").arg(seconds.to_string()).args(["sh", "-c", line]).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
