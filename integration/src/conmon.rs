//! A real CRI log writer: CRI-O's conmon, started with a runtime that only starts the workload.
//!
//! conmon gives the workload pipes for standard output and error and writes what comes out of them; rotation is asked for
//! through its control pipe, as CRI-O does.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use uuid::Uuid;

use crate::child::Child;
use crate::generator::{Identity, rotation};
use crate::wait::{wait_for, wait_until};

/// Stands in for runc: on `create` starts the workload with the pipes that conmon gave it and tells its process id.
const RUNTIME: &str = r#"#!/bin/sh
# The arguments are those of an OCI runtime; only `create` and its --pid-file matter here.
create=
while [ $# -gt 0 ]; do
    case "$1" in
        create) create=yes ;;
        --pid-file) pid_file=$2; shift ;;
        --bundle) bundle=$2; shift ;;
    esac
    shift
done
[ -n "$create" ] || exit 0
sh "$bundle/workload" &
echo $! > "$pid_file"
"#;

/// A container that conmon writes the log of.
#[derive(Debug)]
pub struct Conmon {
    child: Child,
    id: String,
    bundle: TempDir,
    log: PathBuf,
}

impl Conmon {
    /// Starts a container whose workload is `program` with `arguments`.
    ///
    /// # Errors
    /// When conmon cannot be started or makes no log.
    pub fn start(
        pods: &Path,
        identity: &Identity,
        restart: u32,
        program: &Path,
        arguments: &[String],
    ) -> Result<Conmon> {
        let log = identity.log(pods, restart);
        let folder = log.parent().context("a container's folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        // conmon's attach socket needs a short path.
        let bundle = tempfile::Builder::new().prefix("conmon").tempdir().context("conmon's folder")?;
        let place = |name: &str| bundle.path().join(name);
        std::fs::write(place("runtime"), RUNTIME).context("write the runtime")?;
        std::fs::set_permissions(place("runtime"), Permissions::from_mode(0o755)).context("make it executable")?;
        std::fs::write(place("workload"), workload(program, arguments)).context("write the workload")?;
        std::fs::create_dir(place("exits")).context("make a folder")?;
        let id = Uuid::new_v4().simple().to_string();
        let mut command = Command::new("conmon");
        command.args(["--sync", "--api-version", "1", "-c", &id, "-u", &id, "-n", &identity.container]);
        command.arg("-r").arg(place("runtime")).arg("-b").arg(bundle.path()).arg("-p").arg(place("pid"));
        command.arg("--exit-dir").arg(place("exits")).arg("--socket-dir-path").arg(bundle.path());
        command.arg("-l").arg(format!("k8s-file:{}", log.display()));
        let child = Child::start("conmon", &command, &place("conmon.log"))?;
        let conmon = Conmon { child, id, bundle, log };
        wait_until("conmon's log", Duration::from_secs(10), || conmon.log.exists())
            .with_context(|| conmon.child.log_tail(20))?;
        Ok(conmon)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The live file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The pipe through which conmon is asked to reopen its log.
    pub fn control(&self) -> PathBuf {
        self.bundle.path().join("ctl")
    }

    /// Does the workload still run?
    pub fn running(&mut self) -> bool {
        self.child.ended().is_none()
    }

    /// Rotates as the kubelet does, keeping `files` in all; false if the second is too young for another name or the
    /// container has ended.
    ///
    /// # Errors
    /// When files cannot be renamed or zipped, or conmon does not reopen.
    pub fn rotate(&mut self, files: usize) -> Result<bool> {
        if !self.running() || !self.log.exists() {
            return Ok(false);
        }
        rotation::tidy(&self.log, files)?;
        if !rotation::move_away(&self.log)? {
            return Ok(false);
        }
        // Non-blocking: a conmon that ends just now reads its control pipe no more.
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(self.control());
        if let Ok(mut control) = opened {
            control.write_all(b"2 0 0\n").context("ask conmon to reopen")?;
        }
        wait_for("conmon's new log", Duration::from_secs(10), || (self.log.exists() || !self.running()).then_some(()))?;
        Ok(true)
    }

    /// Waits until the workload has ended and conmon has written all of it.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<()> {
        self.child.wait(within).map(|_| ())
    }
}

/// A shell script that becomes the workload.
fn workload(program: &Path, arguments: &[String]) -> String {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let words: Vec<String> = std::iter::once(program.to_string_lossy().into_owned())
        .chain(arguments.iter().cloned())
        .map(|word| quoted(&word))
        .collect();
    format!("exec {}\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_a_shell_would_take_apart() {
        let script = workload(Path::new("/a b/c"), &["it's".to_owned(), "$HOME".to_owned()]);
        assert_eq!(script, "exec '/a b/c' 'it'\\''s' '$HOME'\n");
    }
}
