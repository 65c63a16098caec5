//! The trial: the whole system on one machine, from files to browser, without any other step.
//!
//! Embedded broker, generator, router and gateway as child processes of the real binaries; what it prints is the only
//! thing a newcomer needs to read. `KAFKA=host:port` uses a real broker, `LOGS=folder` this node's own containers,
//! `DATA=folder` keeps what is otherwise removed on exit.

mod docker_host;
mod greeting;
mod layout;
pub mod parts;
mod signals;
mod status;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::admin;
use crate::generator::fleet::{Fleet, trial_workloads};
use crate::process::Program;
use crate::tansu::Tansu;
use crate::wait::wait_for;
use layout::Layout;
use signals::Stop;

/// What the environment asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `KAFKA`: a broker to use in place of the embedded one.
    pub kafka: Option<String>,
    /// `LOGS`: a folder of pods' logs to read in place of the generator's.
    pub logs: Option<PathBuf>,
    /// `DATA`: where to keep everything.
    pub data: Option<PathBuf>,
}

impl Options {
    /// Reads `KAFKA`, `LOGS` and `DATA`; empty is unset.
    pub fn from_environment() -> Options {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Options {
            kafka: named("KAFKA").map(|value| value.to_string_lossy().into_owned()),
            logs: named("LOGS").map(PathBuf::from),
            data: named("DATA").map(PathBuf::from),
        }
    }
}

/// Runs the trial until Ctrl-C or SIGTERM; prints to `out`.
///
/// # Errors
/// When a part does not come up or ends by itself; its last lines are in the message.
pub fn run(options: &Options, out: &mut impl std::io::Write) -> Result<()> {
    let stop = Stop::listen()?;
    let layout = Layout::new(options)?;
    let mut trial = Trial::start(&layout, options, &stop, out)?;
    if !stop.asked() {
        greeting::print(out, &layout, &trial.gateway)?;
        trial.watch(&stop, out)?;
    }
    trial.stop(out)?;
    layout.finish(out)
}

struct Trial {
    fleet: Option<Fleet>,
    router: Program,
    gateway: Program,
    tansu: Option<Tansu>,
}

impl Trial {
    fn start(layout: &Layout, options: &Options, stop: &Stop, out: &mut impl std::io::Write) -> Result<Trial> {
        let mut tansu = None;
        match &options.kafka {
            Some(address) => {
                say(out, &format!("broker      {address}"))?;
                wait_for("the broker's answer", Duration::from_secs(30), || admin::topics(address).ok())
                    .with_context(|| format!("KAFKA={address}"))?;
            }
            None => {
                say(out, &format!("broker      embedded, {}", layout.bootstrap))?;
                let mut embedded = Tansu::prepared_in(&layout.broker_data()?, layout.broker_port);
                embedded.start()?;
                tansu = Some(embedded);
            }
        }
        let fleet = match &options.logs {
            Some(_) => None,
            None => Some(Fleet::start(&layout.pods, &trial_workloads())?),
        };
        say(out, &format!("log files   {}", layout.pods.display()))?;
        let router = Program::router(&layout.folder, &layout.router_settings())?;
        let gateway = Program::gateway(&layout.folder, &layout.gateway_settings())?;
        gateway.ask(&["keys", "init"])?;
        let mut trial = Trial { fleet, router, gateway, tansu };
        let beside = |config: std::path::PathBuf, admin: u16| {
            format!("{}, log beside it; admin http://127.0.0.1:{admin}", config.display())
        };
        say(out, &format!("router      {}", beside(trial.router.config(), layout.router_admin)))?;
        trial.router.start()?;
        say(out, &format!("gateway     {}", beside(trial.gateway.config(), layout.gateway_admin)))?;
        trial.gateway.start()?;
        for program in [&mut trial.router, &mut trial.gateway] {
            if !stop.asked() {
                program.wait_ready()?;
            }
        }
        Ok(trial)
    }

    /// Keeps a line of figures up to date until asked to stop.
    fn watch(&mut self, stop: &Stop, out: &mut impl std::io::Write) -> Result<()> {
        let mut status = status::Status::new();
        while !stop.wait(status.every()) {
            for program in [&mut self.router, &mut self.gateway] {
                if let Some(how) = program.ended() {
                    bail!("a program ended by itself: {how}\n{}", program.log_tail());
                }
            }
            let written = self.fleet.as_ref().map(Fleet::lines);
            status.print(out, written, &self.router, &self.gateway)?;
        }
        status.finish(out)
    }

    /// In the order in which lines flow, so that what was written is delivered.
    fn stop(mut self, out: &mut impl std::io::Write) -> Result<()> {
        say(out, "stopping: generator, router, gateway, broker")?;
        if let Some(mut fleet) = self.fleet.take() {
            fleet.stop()?;
        }
        let router = self.router.terminate();
        let gateway = self.gateway.terminate();
        if let Some(mut tansu) = self.tansu.take() {
            tansu.stop()?;
        }
        router.and(gateway)
    }
}

fn say(out: &mut impl std::io::Write, text: &str) -> Result<()> {
    writeln!(out, "{text}").and_then(|()| out.flush()).context("print")
}
