//! Which real components this machine has. A suite whose component is missing is left out by name and with the reason;
//! with `CI` set that is a failure.

use std::fmt;
use std::io::Write as _;
use std::process::Command;

use crate::kubernetes::Program;

/// A component that some suites need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Apache Kafka from its published artifacts: a JDK of at least 17, and Maven to fetch them.
    ApacheKafka,
    /// CRI-O's log writer.
    Conmon,
    /// A browser and its driver.
    Chromium,
    /// The kubelet's rotation of logs, built by Go.
    KubeletRotation,
    /// etcd and kube-apiserver, built by Go.
    KubeApiServer,
    /// Definitions of custom resources, from Go's modules.
    CustomResources,
    /// Helm, built by Go.
    Helm,
    /// Prometheus and promtool.
    Prometheus,
    /// The command that reads compose files.
    DockerCompose,
    /// File systems that tests mount.
    Mounts,
}

impl Component {
    /// All of them.
    pub const ALL: [Component; 10] = [
        Component::ApacheKafka,
        Component::Conmon,
        Component::Chromium,
        Component::KubeletRotation,
        Component::KubeApiServer,
        Component::CustomResources,
        Component::Helm,
        Component::Prometheus,
        Component::DockerCompose,
        Component::Mounts,
    ];

    /// Says why the component cannot be used here; `None` if it can.
    pub fn missing(self) -> Option<String> {
        match self {
            // Maven is needed once, to fetch.
            Component::ApacheKafka if crate::kafka::is_cached() => java_missing(),
            Component::ApacheKafka => java_missing().or_else(|| not_on_path("mvn", "maven")),
            Component::Chromium => {
                not_on_path("chromium", "chromium").or_else(|| not_on_path("chromedriver", "chromium-driver"))
            }
            Component::Conmon => not_on_path("conmon", "conmon").or_else(|| not_on_path("gzip", "gzip")),
            Component::KubeletRotation => Program::KubeletRotation.missing(),
            Component::KubeApiServer => Program::Etcd.missing().or_else(|| Program::ApiServer.missing()),
            Component::CustomResources => crate::custom_resources::missing(),
            Component::Helm => crate::helm::missing(),
            Component::Prometheus => {
                not_on_path("prometheus", "prometheus").or_else(|| not_on_path("promtool", "prometheus"))
            }
            Component::DockerCompose => not_on_path("docker-compose", "docker-compose"),
            Component::Mounts => crate::mounts::missing(),
        }
    }

    /// What brings it to a machine that lacks it.
    pub fn remedy(self) -> &'static str {
        match self {
            Component::KubeletRotation | Component::KubeApiServer | Component::CustomResources | Component::Helm => {
                "install Go; Debian's may be too old"
            }
            Component::Mounts => "run as root",
            _ => "make deps installs it",
        }
    }

    /// Fetches or builds what is made of it and is not in the cache yet, so that no test runs beside that.
    ///
    /// # Errors
    /// What Maven or Go say.
    pub fn prepare(self) -> anyhow::Result<()> {
        match self {
            Component::ApacheKafka => crate::kafka::prepare(),
            Component::KubeletRotation => Program::KubeletRotation.path().map(drop),
            Component::KubeApiServer => Program::Etcd.path().and_then(|_| Program::ApiServer.path()).map(drop),
            Component::CustomResources => crate::custom_resources::prepare(),
            Component::Helm => crate::helm::prepare(),
            Component::Chromium
            | Component::Conmon
            | Component::Prometheus
            | Component::DockerCompose
            | Component::Mounts => Ok(()),
        }
    }

    /// Is the component there? If not, names what is left out and why.
    ///
    /// # Panics
    /// When it is missing and `CI` is set.
    pub fn usable(self) -> bool {
        let Some(reason) = self.missing() else { return true };
        assert!(!in_ci(), "{self} cannot be left out in CI: {reason}");
        // Written past libtest's capture, so that it shows although the test passes.
        let _ = writeln!(std::io::stderr(), "left out: {self}: {reason} ({})", self.remedy());
        false
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Component::ApacheKafka => "Apache Kafka",
            Component::Conmon => "conmon",
            Component::Chromium => "Chromium",
            Component::KubeletRotation => "the kubelet's rotation",
            Component::KubeApiServer => "kube-apiserver",
            Component::CustomResources => "definitions of custom resources",
            Component::Helm => "Helm",
            Component::Prometheus => "Prometheus",
            Component::DockerCompose => "docker-compose",
            Component::Mounts => "mounted file systems",
        })
    }
}

/// Is this a CI run, where nothing may be left out?
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn java_missing() -> Option<String> {
    if let Some(reason) = not_on_path("java", "openjdk-17-jdk-headless") {
        return Some(reason);
    }
    let output = Command::new("java").arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_major(&text) {
        Some(major) if major >= 17 => None,
        Some(major) => Some(format!("java is {major}, at least 17 is needed")),
        None => Some("java does not tell its version".to_owned()),
    }
}

/// The major version from the first line of `java -version`.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut parts = version.split(['.', '-', '+', '_']);
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

fn not_on_path(program: &str, package: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    (!found).then(|| format!("`{program}` is not on PATH (Debian package {package})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_java_versions() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(java_major(text), expected, "{text}");
        check("openjdk version \"17.0.15\" 2025-04-15", Some(17));
        check("openjdk version \"21\" 2023-09-19", Some(21));
        check("java version \"1.8.0_392\"", Some(8));
        check("openjdk version \"26-ea\" 2026-03-17", Some(26));
        check("no such thing", None);
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(not_on_path("sh", "dash"), None);
        assert!(not_on_path("no-such-program", "such").unwrap().contains("such"));
    }
}
