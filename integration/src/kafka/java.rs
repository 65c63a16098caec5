//! JVMs: the brokers', and Kafka's own tools for what no client library of ours can ask a broker.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const LOGGING: &str = "status=error\n\
    appender.console.type=Console\n\
    appender.console.name=console\n\
    appender.console.layout.type=PatternLayout\n\
    appender.console.layout.pattern=%d{ISO8601} %p %c{1} %m%n\n\
    rootLogger.level=warn\n\
    rootLogger.appenderRef.console.ref=console\n";

/// How Kafka's classes are run.
#[derive(Clone, Debug)]
pub(super) struct Java {
    libraries: PathBuf,
    logging: PathBuf,
}

impl Java {
    /// Writes the settings of its logging into `folder`.
    pub(super) fn prepared(libraries: PathBuf, folder: &Path) -> Result<Java> {
        let logging = folder.join("log4j2.properties");
        std::fs::write(&logging, LOGGING).context("write log4j2.properties")?;
        Ok(Java { libraries, logging })
    }

    /// A JVM for something small: short-lived, so only the quick compiler; one collector thread.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()));
        command.arg("-cp").arg(self.libraries.join("*"));
        command
    }

    /// Runs a tool, out of the way of what is measured, and gives what it said.
    pub(super) fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let java = self.command();
        let mut command = Command::new("nice");
        command.args(["-n", "15"]).arg(java.get_program()).args(java.get_args());
        command.args(["-Xmx64m", class]).args(arguments);
        output(command).with_context(|| class.to_owned())
    }
}

/// What a command printed; a failure shows it.
pub(super) fn output(mut command: Command) -> Result<String> {
    let output = command.output().context("run java")?;
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}
