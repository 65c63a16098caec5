//! Our own programs as child processes: the binaries that people run, with configuration files on disk.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child::Child;
use crate::folders::binary;
use crate::http::Client;
use crate::settings::{GatewaySettings, RouterSettings};
use crate::wait::wait_until;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// A program of ours that serves an admin port; runs or not.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    verb: &'static str,
    folder: PathBuf,
    admin: Client,
    child: Option<Child>,
    /// The most memory that one of its runs had, as far as that was looked at, in bytes.
    peak_memory: u64,
}

impl Program {
    /// A router: writes `router.yaml` into `folder`; nothing runs yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn router(folder: &Path, settings: &RouterSettings) -> Result<Program> {
        Program::prepared("fairlead-router", "run", folder, &settings.yaml(), settings.admin_port)
    }

    /// A gateway: writes `gateway.yaml` into `folder`; nothing runs yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn gateway(folder: &Path, settings: &GatewaySettings) -> Result<Program> {
        Program::prepared("fairlead-gateway", "serve", folder, &settings.yaml(), settings.admin_port)
    }

    fn prepared(name: &'static str, verb: &'static str, folder: &Path, yaml: &str, admin: u16) -> Result<Program> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let admin = Client::new(&format!("http://127.0.0.1:{admin}"));
        let program = Program { name, verb, folder: folder.to_path_buf(), admin, child: None, peak_memory: 0 };
        std::fs::write(program.config(), yaml).with_context(|| format!("write {}", program.config().display()))?;
        Ok(program)
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.yaml", self.name.trim_start_matches("fairlead-")))
    }

    /// The file with its output of all runs.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name.trim_start_matches("fairlead-")))
    }

    /// Changes its configuration file for the next start.
    ///
    /// # Errors
    /// When the file has no such text or cannot be written.
    pub fn reconfigure(&self, old: &str, new: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.config()).context("read the configuration")?;
        ensure!(text.contains(old), "{} is not in {}", old, self.config().display());
        std::fs::write(self.config(), text.replace(old, new)).context("write the configuration")
    }

    /// Starts it; does not wait.
    ///
    /// # Errors
    /// When the binary is not there or runs already.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let mut command = Command::new(binary(self.name)?);
        command.arg(self.verb).arg("--config").arg(self.config());
        self.child = Some(Child::start(self.name, &command, &self.log())?);
        Ok(())
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// When it ends before, or is not ready in a minute; its last lines are in the message.
    pub fn wait_ready(&mut self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        let mut last = String::new();
        let mut ended = None;
        let ready = wait_until(&what, READY_WITHIN, || {
            ended = self.child.as_mut().and_then(Child::ended);
            let answer = self.admin.get("/readyz");
            let ready = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            last = answer.map_or_else(|error| error.to_string(), |answer| answer.body);
            ready || ended.is_some()
        });
        let ready = ready.and_then(|()| match ended {
            Some(status) => Err(anyhow::anyhow!("{} ended: {status}", self.name)),
            None => Ok(()),
        });
        ready.with_context(|| format!("/readyz: {last}\n{}", self.log_tail()))
    }

    /// [`Program::start`] and [`Program::wait_ready`].
    ///
    /// # Errors
    /// As those two.
    pub fn start_ready(&mut self) -> Result<()> {
        self.start()?;
        self.wait_ready()
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it had to be killed, or ended with another code than 0.
    pub fn terminate(&mut self) -> Result<()> {
        self.peak_memory = self.peak_memory();
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let status = child.terminate(ENDS_WITHIN)?;
        ensure!(status.success(), "{} ended with {status} on SIGTERM:\n{}", self.name, child.log_tail(20));
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or ended before by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.peak_memory = self.peak_memory();
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let ended = child.ended();
        ensure!(ended.is_none(), "{} had ended by itself: {ended:?}\n{}", self.name, child.log_tail(20));
        child.kill();
        Ok(())
    }

    /// Forgets a run that has ended by itself, so that it can be started again.
    ///
    /// # Errors
    /// When it still runs.
    pub fn forget(&mut self) -> Result<()> {
        ensure!(self.child.is_none() || self.ended().is_some(), "{} runs", self.name);
        self.child = None;
        Ok(())
    }

    /// Forgets how much memory earlier runs had.
    pub fn forget_memory(&mut self) {
        self.peak_memory = 0;
    }

    /// How it ended, if it has by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(Child::ended)
    }

    /// The running process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn child(&self) -> Result<&Child> {
        self.child.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    /// The admin port.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// The sum of a metric over all its series; 0 while it does not answer.
    pub fn metric(&self, name: &str) -> f64 {
        self.admin.get("/metrics").map_or(0.0, |answer| crate::metrics::sum(&answer.body, name))
    }

    /// The most memory that any of its runs had, in bytes; of runs that ended by themselves nothing is known.
    pub fn peak_memory(&self) -> u64 {
        let running = self.child.as_ref().map_or(0, |child| crate::soak::peak_memory(child.pid()));
        running.max(self.peak_memory)
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        self.child.as_ref().map(|child| child.log_tail(40)).unwrap_or_default()
    }

    /// Runs another verb of the same program on the same configuration and waits for its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run_verb(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary(self.name)?);
        command.args(words).arg("--config").arg(self.config());
        command.output().with_context(|| format!("run {} {}", self.name, words.join(" ")))
    }

    /// [`Program::run_verb`] that must succeed; gives standard output without the newline.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let output = self.run_verb(words)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {}: {}\n{error}", self.name, words.join(" "), output.status);
        Ok(String::from_utf8(output.stdout).context("text")?.trim_end().to_owned())
    }
}
