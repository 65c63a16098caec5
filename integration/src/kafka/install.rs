//! Apache Kafka's published artifacts, fetched once by Maven into the cache.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::folders;

/// Must be what `kafka/pom.xml` names; a test compares them.
const VERSION: &str = "4.3.1";

/// The folder with Kafka and everything it needs. Fetches it if it is not there whole; one process at a time.
pub(super) fn libraries() -> Result<PathBuf> {
    let home = home();
    let libraries = home.join("libs");
    let complete = home.join("complete");
    if complete.is_file() {
        return Ok(libraries);
    }
    std::fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("the cache's lock")?;
    lock.lock().context("lock the cache")?;
    if !complete.is_file() {
        fetch(&libraries)?;
        std::fs::write(&complete, VERSION).context("mark the cache complete")?;
    }
    Ok(libraries)
}

/// Fetches it if it is not there whole.
pub(crate) fn prepare() -> Result<()> {
    libraries().map(drop)
}

/// Has it been fetched before?
pub(crate) fn is_cached() -> bool {
    home().join("complete").is_file()
}

fn home() -> PathBuf {
    folders::cache().join(format!("kafka-{VERSION}"))
}

fn fetch(libraries: &Path) -> Result<()> {
    // What an interrupted run left may be half a file.
    let _ = std::fs::remove_dir_all(libraries);
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(folders::repository().join("integration/kafka/pom.xml"))
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", libraries.display()))
        .output()
        .context("run mvn")?;
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    ensure!(output.status.success(), "fetch Apache Kafka {VERSION} with Maven: {}", String::from_utf8_lossy(&said));
    let kafka = libraries.join(format!("kafka_2.13-{VERSION}.jar"));
    ensure!(kafka.is_file(), "Maven left no {}", kafka.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn version_is_the_one_that_maven_is_told() {
        let pom = std::fs::read_to_string(super::folders::repository().join("integration/kafka/pom.xml")).unwrap();
        assert!(pom.contains(&format!("<artifactId>kafka_2.13</artifactId><version>{}</version>", super::VERSION)));
    }
}
