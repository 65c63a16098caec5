//! Go, which builds tools once into the cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The oldest Go that builds all of them: 1.24.
pub(crate) const MINOR_MIN: u32 = 24;

/// Go as PATH has it, else where Go's own archive puts it.
pub(crate) fn command() -> Command {
    const USUAL: &str = "/usr/local/go/bin/go";
    let on_path = Command::new("go").arg("version").output().is_ok_and(|out| out.status.success());
    Command::new(if on_path { "go" } else { USUAL })
}

/// Why a program that is not built yet cannot be built here; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    let needed = format!("Go 1.{MINOR_MIN} or newer is needed once");
    let Some(output) = command().args(["env", "GOVERSION"]).output().ok().filter(|out| out.status.success()) else {
        return Some(format!("`go` is not on PATH; {needed}"));
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match minor(&version) {
        Some(minor) if minor >= MINOR_MIN => None,
        _ => Some(format!("`go` is {version}; {needed}")),
    }
}

/// Builds `program` unless it is there, one process at a time. `build` is given the path to leave it at, which becomes its name once it is whole.
pub(crate) fn built(program: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if program.is_file() {
        return Ok(());
    }
    let home = program.parent().context("the cache")?;
    std::fs::create_dir_all(home).with_context(|| format!("make {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("the cache's lock")?;
    lock.lock().context("lock the cache")?;
    if program.is_file() {
        return Ok(());
    }
    let making = program.with_extension("making");
    build(&making)?;
    std::fs::rename(&making, program).context("put the program into the cache")
}

/// The folder of a module's files, for example `sigs.k8s.io/gateway-api@v1.3.0`; downloads it if Go's own cache does not have it.
pub(crate) fn module(path_and_version: &str) -> Result<PathBuf> {
    let mut command = command();
    command.args(["mod", "download", "-json", path_and_version]).current_dir(std::env::temp_dir());
    let output = command.env("GOFLAGS", "-mod=mod").output().context("run go mod download")?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).context("what Go says of a module")?;
    let folder = said["Dir"].as_str().with_context(|| format!("{path_and_version}: {}", said["Error"]))?;
    Ok(PathBuf::from(folder))
}

/// The minor version in `go1.26.8`; all Go there is has the major version 1.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("go1.")?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_versions() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(minor(text), expected, "{text}");
        check("go1.26.8", Some(26));
        check("go1.24", Some(24));
        check("go1.25rc1", Some(25));
        check("devel +abc", None);
    }
}
