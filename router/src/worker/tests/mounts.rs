//! Tests that need file systems or limits of their own: they run again in namespaces of their own, which take their mounts and limits with them.

use std::process::Command;

use super::*;

const INSIDE: &str = "FAIRLEAD_TEST_MOUNTS";

/// Runs a test of this binary with mounts that a shell script makes in `$D`, a fresh folder. Returns that folder inside of that run, and `None` outside,
/// where all is done by then. Where no mount may be made, the test is left out, with its reason; with `CI` set that is a failure.
pub fn with_mounts(test: &str, script: &str) -> Option<PathBuf> {
    in_namespaces("-m", "mount -t tmpfs none \"$D\"", test, script)
}

/// As [`with_mounts`], with limits that a shell script writes below `/proc/sys/user`, as the root of a user namespace.
pub fn with_limits(test: &str, script: &str) -> Option<PathBuf> {
    in_namespaces("-Ur", "echo 9 > /proc/sys/user/max_inotify_watches", test, script)
}

fn in_namespaces(which: &str, trial: &str, test: &str, script: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = format!("set -e; {script}; exec \"$0\" --exact \"$1\" --nocapture");
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([which, "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(test);
        command.env("D", folder.path()).env(INSIDE, folder.path()).output()
    };
    let tried = run(trial);
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "`{trial}` in namespaces of its own: {tried:?}");
        eprintln!("{test} is left out: `unshare {which}` and then `{trial}` is not allowed here");
        return None;
    }
    let output = run(&shell).unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}
