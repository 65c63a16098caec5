//! The program with the kubelet's rotation code, built once by Go into the cache.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::folders;

/// Must be what `kubelet-rotation/go.mod` names; a test compares them.
const VERSION: &str = "1.34.2";
/// The oldest Go that builds it, as `go.mod` says: 1.24.
const GO_MINOR_MIN: u32 = 24;
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

/// The built program. Builds it if the cache does not have one of the same sources; one process at a time.
pub(super) fn program() -> Result<PathBuf> {
    let program = cached()?;
    if program.is_file() {
        return Ok(program);
    }
    let home = program.parent().context("the cache")?;
    std::fs::create_dir_all(home).with_context(|| format!("make {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("the cache's lock")?;
    lock.lock().context("lock the cache")?;
    if !program.is_file() {
        build(&program)?;
    }
    Ok(program)
}

/// Why it cannot be had on this machine; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    if cached().is_ok_and(|program| program.is_file()) {
        return None;
    }
    let needed = format!("Go 1.{GO_MINOR_MIN} or newer is needed once");
    let Some(output) = go().args(["env", "GOVERSION"]).output().ok().filter(|out| out.status.success()) else {
        return Some(format!("`go` is not on PATH; {needed}"));
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match go_minor(&version) {
        Some(minor) if minor >= GO_MINOR_MIN => None,
        _ => Some(format!("`go` is {version}; {needed}")),
    }
}

/// Go as PATH has it, else where Go's own archive puts it.
fn go() -> Command {
    const USUAL: &str = "/usr/local/go/bin/go";
    let on_path = Command::new("go").arg("version").output().is_ok_and(|out| out.status.success());
    Command::new(if on_path { "go" } else { USUAL })
}

/// The minor version in `go1.26.8`; all Go there is has the major version 1.
fn go_minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Its place in the cache, by version and by a hash of its sources.
fn cached() -> Result<PathBuf> {
    let mut sources = Vec::new();
    for name in SOURCES {
        let path = source_folder().join(name);
        sources.extend(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sources);
    let hash: String = digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(folders::cache().join(format!("kubelet-rotation-{VERSION}")).join(hash))
}

fn source_folder() -> PathBuf {
    folders::repository().join("integration/kubelet-rotation")
}

fn build(program: &std::path::Path) -> Result<()> {
    // Under another name until it is whole.
    let making = program.with_extension("making");
    let mut command = go();
    command.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&making).arg(".");
    command.current_dir(source_folder()).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
    let output = command.output().context("run go build")?;
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    ensure!(output.status.success(), "build the kubelet's rotation: {}", String::from_utf8_lossy(&said));
    std::fs::rename(&making, program).context("put the program into the cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_go_is_told() {
        let text = std::fs::read_to_string(source_folder().join("go.mod")).unwrap();
        assert!(text.contains(&format!("\tk8s.io/kubernetes v{VERSION}\n")), "{text}");
        assert!(text.contains(&format!("\ngo 1.{GO_MINOR_MIN}.0\n")), "{text}");
    }

    #[test]
    fn reads_go_versions() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(go_minor(text), expected, "{text}");
        check("go1.26.8", Some(26));
        check("go1.24", Some(24));
        check("go1.25rc1", Some(25));
        check("devel +abc", None);
    }
}
