//! A real Apache Kafka: one process, broker and controller in KRaft mode, plaintext on loopback.

mod install;

pub(crate) use install::is_cached;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::broker::UP_WITHIN;
use crate::child::Child;
use crate::{admin, folders, ports};

/// A broker with ports and data of its own.
#[derive(Debug)]
pub struct ApacheKafka {
    port: u16,
    libraries: PathBuf,
    process: Option<Child>,
    folder: TempDir,
}

impl ApacheKafka {
    /// Fetches Kafka if the cache has none, chooses ports and formats the data folder. Nothing runs yet.
    ///
    /// # Errors
    /// When Maven cannot fetch Kafka, or the folder cannot be made or formatted.
    pub fn prepared() -> Result<ApacheKafka> {
        let libraries = install::libraries()?;
        let folder = folders::scratch("kafka")?;
        let (port, controller) = (ports::free_port(), ports::free_port());
        write_settings(folder.path(), port, controller)?;
        let kafka = ApacheKafka { port, libraries, process: None, folder };
        kafka.format()?;
        Ok(kafka)
    }

    /// Starts it, again on the same data and port, and waits until a record is acknowledged.
    ///
    /// # Errors
    /// When it ends or is not ready in time; its last lines are in the message.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "Apache Kafka runs already");
        let mut command = self.java();
        command.args(["-Xms128m", "-Xmx512m", "kafka.Kafka"]).arg(self.folder.path().join("server.properties"));
        self.process = Some(Child::start("Apache Kafka", &command, &self.log())?);
        admin::prove_ready(&self.bootstrap(), UP_WITHIN).with_context(|| format!("Apache Kafka:\n{}", self.log_tail()))
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.terminate(Duration::from_secs(60)).map(|_| ())
    }

    /// Kills it.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Freezes it: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("Apache Kafka does not run")?.signal(Signal::STOP)
    }

    /// Ends [`ApacheKafka::freeze`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("Apache Kafka does not run")?.signal(Signal::CONT)
    }

    /// Host and port for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn format(&self) -> Result<()> {
        let mut command = self.java();
        command.args(["-Xmx128m", "kafka.tools.StorageTool", "format", "--ignore-formatted"]);
        // Any sixteen bytes in URL-safe base64 name the cluster.
        command.args(["--cluster-id", "ZmFpcmxlYWQtdGVzdC0wMQ", "--config"]);
        let output = command.arg(self.folder.path().join("server.properties")).output().context("run java")?;
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        ensure!(output.status.success(), "format Kafka's storage: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    /// A JVM for a single small broker: short-lived, so only the quick compiler; one collector thread.
    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.folder.path().join("log4j2.properties").display()));
        command.arg("-cp").arg(self.libraries.join("*"));
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("kafka.log")
    }

    fn log_tail(&self) -> String {
        self.process.as_ref().map(|process| process.log_tail(30)).unwrap_or_default()
    }
}

fn write_settings(folder: &Path, port: u16, controller: u16) -> Result<()> {
    let data = folder.join("data");
    let settings = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         controlled.shutdown.max.retries=1\n\
         log.segment.bytes=67108864\n\
         log.dirs={}\n",
        data.display()
    );
    let logging = "status=error\n\
                   appender.console.type=Console\n\
                   appender.console.name=console\n\
                   appender.console.layout.type=PatternLayout\n\
                   appender.console.layout.pattern=%d{ISO8601} %p %c{1} %m%n\n\
                   rootLogger.level=warn\n\
                   rootLogger.appenderRef.console.ref=console\n";
    std::fs::write(folder.join("server.properties"), settings).context("write server.properties")?;
    std::fs::write(folder.join("log4j2.properties"), logging).context("write log4j2.properties")
}
