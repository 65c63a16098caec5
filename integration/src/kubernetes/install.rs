//! Programs of the Go module `integration/kubernetes`, built once by Go into the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{folders, go};

/// The version of Kubernetes; must be what `kubernetes/go.mod` names; a test compares them.
const VERSION: &str = "1.34.2";

/// A program of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The store of the API server.
    Etcd,
    /// The API server.
    ApiServer,
    /// The kubelet's own rotation over files that no kubelet made.
    KubeletRotation,
}

impl Program {
    /// The built program. Builds it if the cache does not have one of the same sources; one process at a time. From
    /// nothing, download included, etcd and the API server take five minutes on two cores, the rotation one more.
    pub(crate) fn path(self) -> Result<PathBuf> {
        let program = self.cached()?;
        go::built(&program, |making| self.build(making))?;
        Ok(program)
    }

    /// Why it cannot be had on this machine; `None` if it can.
    pub(crate) fn missing(self) -> Option<String> {
        if self.cached().is_ok_and(|program| program.is_file()) {
            return None;
        }
        go::missing()
    }

    fn name(self) -> &'static str {
        match self {
            Program::Etcd => "etcd",
            Program::ApiServer => "kube-apiserver",
            Program::KubeletRotation => "kubelet-rotation",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Program::Etcd => "go.etcd.io/etcd/server/v3",
            Program::ApiServer => "k8s.io/kubernetes/cmd/kube-apiserver",
            Program::KubeletRotation => "./kubelet-rotation",
        }
    }

    /// What it is made of besides what `go.sum` pins.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Program::Etcd | Program::ApiServer => &["go.mod", "go.sum"],
            Program::KubeletRotation => &["go.mod", "go.sum", "kubelet-rotation/main.go"],
        }
    }

    /// Its place in the cache, by version and by a hash of its sources.
    fn cached(self) -> Result<PathBuf> {
        let mut sources = Vec::new();
        for name in self.sources() {
            let path = module().join(name);
            sources.extend(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sources);
        let hash: String = digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(folders::cache().join(format!("kubernetes-{VERSION}")).join(hash).join(self.name()))
    }

    fn build(self, making: &Path) -> Result<()> {
        let mut command = go::command();
        command.args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &linked(), "-o"]).arg(making);
        command.arg(self.package()).current_dir(module()).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
        let output = command.output().context("run go build")?;
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        ensure!(output.status.success(), "build {}: {}", self.name(), String::from_utf8_lossy(&said));
        Ok(())
    }
}

/// Flags for Go's linker: no debugger's tables, and the version that `/version` tells.
fn linked() -> String {
    let mut flags = "-s -w".to_owned();
    let numbers: Vec<&str> = VERSION.split('.').collect();
    let tag = format!("v{VERSION}");
    for (name, value) in [("gitVersion", tag.as_str()), ("gitMajor", numbers[0]), ("gitMinor", numbers[1])] {
        flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
    }
    flags
}

fn module() -> PathBuf {
    folders::repository().join("integration/kubernetes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_go_is_told() {
        let text = std::fs::read_to_string(module().join("go.mod")).unwrap();
        assert!(text.contains(&format!("\tk8s.io/kubernetes v{VERSION}\n")), "{text}");
        assert!(text.contains(&format!("\ngo 1.{}.0\n", go::MINOR_MIN)), "{text}");
        assert!(linked().ends_with(".gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"), "{}", linked());
    }
}
