//! Helm, built once by Go into the cache, and what it makes of the chart in `deploy/charts/fairlead`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{folders, go};

const VERSION: &str = "3.19.0";
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm";
/// Which Kubernetes it shall take the cluster for; built from source it does not know a recent one.
const KUBERNETES: &str = "v1.34.2";

/// Why it cannot be had on this machine; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    if cached().is_file() { None } else { go::missing() }
}

/// Builds it if the cache has none.
pub(crate) fn prepare() -> Result<()> {
    program().map(drop)
}

/// The chart.
pub fn chart() -> PathBuf {
    folders::repository().join("deploy/charts/fairlead")
}

/// `helm lint --strict` on the chart.
///
/// # Errors
/// When Helm cannot be built or run.
pub fn lint(arguments: &[String]) -> Result<Output> {
    run(&["lint", "--strict", "--kube-version", KUBERNETES], arguments)
}

/// `helm template` as release `fairlead` in the namespace `fairlead`, whatever comes of it.
///
/// # Errors
/// When Helm cannot be built or run.
pub fn template(arguments: &[String]) -> Result<Output> {
    run(&["template", "fairlead", "--namespace", "fairlead", "--kube-version", KUBERNETES], arguments)
}

/// The text of [`template`], which must succeed.
///
/// # Errors
/// When Helm refuses; what it says is in the message.
pub fn rendered(arguments: &[String]) -> Result<String> {
    let output = template(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm template {}: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).context("text")
}

/// The objects of [`rendered`].
///
/// # Errors
/// When Helm refuses or its text is not YAML.
pub fn objects(arguments: &[String]) -> Result<Vec<Value>> {
    documents(&rendered(arguments)?)
}

/// The documents of a YAML text; empty ones are left out.
///
/// # Errors
/// When it is not YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("YAML")?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

fn run(words: &[&str], arguments: &[String]) -> Result<Output> {
    let mut command = Command::new(program()?);
    command.args(words).arg(chart()).args(arguments);
    // Nothing of this machine's own Helm is looked at.
    let home = folders::scratch("helm")?;
    for folder in ["CACHE", "CONFIG", "DATA"] {
        command.env(format!("HELM_{folder}_HOME"), home.path());
    }
    command.output().with_context(|| format!("run helm {}", words.join(" ")))
}

fn program() -> Result<PathBuf> {
    let program = cached();
    go::built(&program, build)?;
    Ok(program)
}

fn cached() -> PathBuf {
    folders::cache().join(format!("helm-{VERSION}")).join("helm")
}

/// 90 s on two cores, download included.
fn build(making: &Path) -> Result<()> {
    let folder = folders::scratch("helm-build")?;
    let mut command = go::command();
    command.args(["install", "-trimpath", "-ldflags", "-s -w"]).arg(format!("{PACKAGE}@v{VERSION}"));
    command.env("GOBIN", folder.path()).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false");
    let output = command.current_dir(folder.path()).output().context("run go install")?;
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    ensure!(output.status.success(), "build Helm: {}", String::from_utf8_lossy(&said));
    // The cache may be on another file system.
    std::fs::copy(folder.path().join("helm"), making).map(|_| ()).context("copy Helm into the cache")
}

/// The plain manifests of `deploy/manifests` as the chart gives them now: file name and text.
///
/// # Errors
/// When Helm refuses.
pub fn manifests() -> Result<Vec<(&'static str, String)>> {
    let arguments = ["gateway.namespace.create=true", "monitoring.monitors=true", "monitoring.rules=true"];
    let text = rendered(&arguments.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect::<Vec<_>>())?;
    let whole: Vec<&str> = text.split("---\n").filter(|document| !document.trim().is_empty()).collect();
    let (monitoring, system): (Vec<&str>, Vec<&str>) =
        whole.into_iter().partition(|document| document.contains("\napiVersion: monitoring.coreos.com/"));
    let file = |documents: &[&str]| {
        format!(
            "{MANIFESTS_HEAD}---\n{}",
            documents.iter().map(|document| plain(document)).collect::<Vec<_>>().join("---\n")
        )
    };
    Ok(vec![("fairlead.yaml", file(&system)), ("monitoring.yaml", file(&monitoring))])
}

const MANIFESTS_HEAD: &str = "\
# Rendered from deploy/charts/fairlead with its default values by `make manifests`; a test compares. docs/operations.md tells what to change: the names
# of the images and the brokers' addresses.
";

/// A document without what only Helm needs.
fn plain(document: &str) -> String {
    const OF_HELM: [&str; 3] = ["# Source: ", "app.kubernetes.io/managed-by: Helm", "helm.sh/chart: "];
    let kept = document.lines().filter(|line| !OF_HELM.iter().any(|start| line.trim_start().starts_with(start)));
    kept.map(|line| format!("{line}\n")).collect()
}
