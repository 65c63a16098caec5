//! A child process that never outlives us: its output goes to a file, it is ended by its own id, and it dies with us.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

/// A running child process.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: Process,
    log: PathBuf,
    exit: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` in a process group of its own, standard output and error appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Child> {
        let open = || {
            OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))
        };
        let mut wrapped = dying_with_us(command);
        wrapped.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let process = spawn_from_lasting_thread(wrapped).with_context(|| format!("start {name}"))?;
        Ok(Child { name: name.to_owned(), process, log: log.to_path_buf(), exit: None })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The file with the child's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        anyhow::ensure!(self.exit.is_none(), "{} has ended", self.name);
        let pid = Pid::from_raw(self.pid().cast_signed()).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.process.try_wait().ok().flatten();
        }
        self.exit
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for(&what, within, || self.ended())
    }

    /// SIGTERM, and SIGKILL if it has not ended within `within`.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(within).inspect_err(|_| self.kill())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.process.kill();
            self.exit = self.process.wait().ok();
        }
    }

    /// The last lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        let Ok(file) = File::open(&self.log) else { return String::new() };
        let all: Vec<String> = std::io::BufReader::new(file).lines().map_while(Result::ok).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// CPU seconds (user and system, all threads) used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(&format!("/proc/{}/stat", self.pid()))
    }

    /// Bytes of memory that are resident now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).context("its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let tail = self.log_tail(40);
            let _ = writeln!(std::io::stderr(), "---- {} ({}) ended with\n{tail}\n----", self.name, self.log.display());
        }
    }
}

/// CPU seconds of this process so far.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn own_cpu_seconds() -> Result<f64> {
    cpu_seconds("/proc/self/stat")
}

fn cpu_seconds(stat: &str) -> Result<f64> {
    let text = std::fs::read_to_string(stat).with_context(|| format!("read {stat}"))?;
    // The command's name may hold spaces and brackets: fields count from the last bracket (proc(5): utime is 14, stime 15).
    let after = text.rsplit_once(") ").context("a stat line")?.1;
    let mut ticks = after.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (ticks.next().context("utime")??, ticks.next().context("stime")??);
    #[allow(clippy::cast_precision_loss, reason = "ticks of a test stay far below 2^52")]
    Ok((user + system) as f64 / USER_HZ)
}

/// Ticks a second in `/proc/PID/stat`; 100 on every Linux that a JDK and this harness run on.
const USER_HZ: f64 = 100.0;

/// The same command under `setpriv --pdeathsig KILL` (util-linux, part of every Debian): the kernel kills it when we die.
fn dying_with_us(command: &Command) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    // A Ctrl-C in the terminal reaches us alone; we end the children in order.
    wrapped.process_group(0);
    wrapped
}

/// The parent-death signal is sent when the *thread* that started the child ends, and libtest ends a thread with each
/// test. One thread that lasts as long as the process starts them all.
fn spawn_from_lasting_thread(command: Command) -> Result<Process> {
    type Order = (Command, Sender<std::io::Result<Process>>);
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (sender, receiver) = channel();
    orders.lock().expect("no holder of this lock panics").send((command, sender)).context("the starting thread")?;
    Ok(receiver.recv().context("the starting thread")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlives_the_thread_that_asked_and_ends_on_demand() {
        let folder = crate::folders::scratch("child").unwrap();
        let log = folder.path().join("log");
        let asked = log.clone();
        let mut child = std::thread::spawn(move || {
            let mut command = Command::new("sh");
            command.args(["-c", "echo $WORD; exec sleep 60"]).env("WORD", "up");
            Child::start("sleeper", &command, &asked).unwrap()
        })
        .join()
        .unwrap();
        wait_for("its output", Duration::from_secs(5), || (child.log_tail(1) == "up").then_some(())).unwrap();
        assert!(child.ended().is_none());
        assert!(child.cpu_seconds().unwrap() < 1.0);
        let status = child.terminate(Duration::from_secs(5)).unwrap();
        assert!(!status.success());
    }
}
