//! The kubelet's own rotation code over conmon's files: Kubernetes' `pkg/kubelet/logs`, in a small Go program of ours
//! (`kubernetes/kubelet-rotation/main.go`) that stands in for the container runtime.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::child::Child;
use crate::conmon::Conmon;
use crate::folders;
use crate::kubernetes::Program;
use crate::wait::wait_until;

const REMOVED_WITHIN: Duration = Duration::from_secs(30);

/// When and how logs are rotated: the kubelet's settings.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `containerLogMaxSize`, for example `300Ki`.
    pub max_size: String,
    /// `containerLogMaxFiles`.
    pub max_files: u32,
    /// `containerLogMonitorInterval`.
    pub interval: Duration,
}

/// A kubelet that does nothing but rotate and remove logs.
#[derive(Debug)]
pub struct Kubelet {
    child: Child,
    containers: TempDir,
}

impl Kubelet {
    /// Builds the program if the cache has none, and starts it. It knows of no container yet.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start(rotation: &Rotation) -> Result<Kubelet> {
        let containers = folders::scratch("kubelet")?;
        let mut command = Command::new(Program::KubeletRotation.path()?);
        command.arg("-containers").arg(containers.path()).arg("-max-size").arg(&rotation.max_size);
        command.arg("-max-files").arg(rotation.max_files.to_string());
        command.arg("-interval").arg(format!("{}ms", rotation.interval.as_millis()));
        let log = containers.path().join("kubelet.log");
        let child = Child::start("the kubelet's rotation", &command, &log)?;
        Ok(Kubelet { child, containers })
    }

    /// From now on this container's log is rotated.
    ///
    /// # Errors
    /// When the container's file cannot be written.
    pub fn add(&self, conmon: &Conmon) -> Result<()> {
        let text = json!({"log": conmon.log(), "control": conmon.control()}).to_string();
        // The whole file at once: the program may look at any moment.
        let (making, file) = (self.file(conmon, "making"), self.file(conmon, "json"));
        std::fs::write(&making, text).context("write the container's file")?;
        std::fs::rename(&making, &file).context("name the container's file")
    }

    /// Removes the logs of a container that has ended, all of them, and its pod's folder; waits until that is done.
    ///
    /// # Errors
    /// When it is not done in time.
    pub fn remove(&self, conmon: &Conmon) -> Result<()> {
        let request = self.file(conmon, "remove");
        std::fs::write(&request, "").context("ask for the removal")?;
        wait_until("the pod's logs to be removed", REMOVED_WITHIN, || !request.exists())
            .with_context(|| self.child.log_tail(20))
    }

    /// How often it has rotated a log so far.
    pub fn rotations(&self) -> u64 {
        let said = std::fs::read_to_string(self.child.log()).unwrap_or_default();
        said.lines().filter(|line| line.starts_with("reopened ")).count() as u64
    }

    fn file(&self, conmon: &Conmon, extension: &str) -> PathBuf {
        self.containers.path().join(conmon.id()).with_extension(extension)
    }
}
