//! One process of Apache Kafka: a broker, the first of a cluster its controller too.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::java::{Java, output};
use crate::child::Child;
use crate::mounts::Mount;
use crate::wait::pace;

const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// A broker of a cluster, running or not.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    java: Java,
    heap: &'static str,
    process: Option<Child>,
    /// The disk with its data, where it has one of its own. Dropped after the process.
    disk: Option<Mount>,
}

impl Node {
    /// Writes its settings, whose `{data}` stands for its data folder, and formats that folder.
    pub(super) fn prepared(
        folder: PathBuf,
        java: &Java,
        settings: &str,
        heap: &'static str,
        disk: Option<Mount>,
    ) -> Result<Node> {
        let name = format!("Apache Kafka {}", folder.file_name().unwrap_or_default().to_string_lossy());
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let data = disk.as_ref().map_or_else(|| folder.join("data"), |disk| disk.path().join("data"));
        let settings = settings.replace("{data}", &data.display().to_string());
        std::fs::write(folder.join("server.properties"), settings).context("write server.properties")?;
        Ok(Node { name, folder, java: java.clone(), heap, process: None, disk })
    }

    /// Formats its data folder.
    pub(super) fn format(&self, users: &[(&str, &str)]) -> Result<()> {
        let mut command = self.java.command();
        command.args(["-Xmx128m", "kafka.tools.StorageTool", "format", "--ignore-formatted"]);
        // Any sixteen bytes in URL-safe base64 name the cluster.
        command.args(["--cluster-id", "ZmFpcmxlYWQtdGVzdC0wMQ", "--config"]);
        command.arg(self.folder.join("server.properties"));
        for (user, password) in users {
            command.args(["--add-scram", &format!("SCRAM-SHA-512=[name={user},password={password}]")]);
        }
        output(command).context("format Kafka's storage").map(|_| ())
    }

    /// The command that runs it.
    pub(super) fn command(&self) -> Command {
        let mut command = self.java.command();
        command.args(["-Xms128m", self.heap, "kafka.Kafka"]).arg(self.folder.join("server.properties"));
        command
    }

    /// Starts it, again on the same data and ports; does not wait.
    ///
    /// # Errors
    /// When it runs already or java does not start.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        self.process = Some(Child::start(&self.name, &self.command(), &self.log())?);
        Ok(())
    }

    /// Stops it in good order: it hands its leaderships over first.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.terminate(STOPS_WITHIN).map(|_| ())
    }

    /// Kills it.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Has it ended by itself? Then it can be started again.
    pub fn ended(&mut self) -> bool {
        let ended = self.process.as_mut().is_some_and(|process| process.ended().is_some());
        if ended {
            self.process = None;
        }
        ended
    }

    /// Freezes it: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Ends [`Node::freeze`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Makes it slow: again and again it stands still for `still` and goes on for `going`, until this is dropped.
    ///
    /// # Errors
    /// When it does not run.
    pub fn slowed(&self, still: Duration, going: Duration) -> Result<Slowed<'_>> {
        let pid = Pid::from_raw(self.running()?.pid().cast_signed()).context("a process id")?;
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                let _ = kill_process(pid, Signal::STOP);
                pace(still);
                let _ = kill_process(pid, Signal::CONT);
                pace(going);
            }
        });
        Ok(Slowed { over, thread: Some(thread), node: PhantomData })
    }

    /// The disk with its data, where it has one of its own.
    pub fn disk(&self) -> Option<&Mount> {
        self.disk.as_ref()
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(|process| process.log_tail(30)).unwrap_or_default()
    }

    fn running(&self) -> Result<&Child> {
        self.process.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    fn log(&self) -> PathBuf {
        self.folder.join("kafka.log")
    }
}

/// A node that is slow for as long as this lives.
#[derive(Debug)]
pub struct Slowed<'a> {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The process must not end, and its id not be given to another, while it is being slowed.
    node: PhantomData<&'a Node>,
}

impl Drop for Slowed<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
