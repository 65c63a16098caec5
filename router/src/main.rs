//! The router's command line: starts, waits and gives an exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fairlead_router::config::Config;
use fairlead_router::{app, audit, plan};
use fairlead_service_kit::telemetry;

/// Reads the container log files of one node and produces each line to the Kafka topic of its namespace.
#[derive(Debug, Parser)]
#[command(name = "fairlead-router", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs until SIGTERM.
    Run(Settings),
    /// Prints every fault of the configuration and exits 1, or a summary.
    Check(Settings),
    /// Tells which namespaces and pods of this node go to which topic, and what would hurt their lines there.
    #[command(after_help = plan::HELP)]
    Plan(plan::Arguments),
    /// Proves from the data in Kafka that no line is missing, and prints what is.
    #[command(after_help = audit::HELP)]
    Audit(audit::Arguments),
    /// Prints the version.
    Version,
}

#[derive(Debug, Args)]
struct Settings {
    /// The YAML file; environment variables FAIRLEAD_ROUTER__… win over it, and can do without it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    // The one provider of cryptography; it can only be there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match CommandLine::parse().command {
        Command::Run(settings) => run(&settings),
        Command::Check(settings) => check(&settings),
        Command::Plan(arguments) => return ExitCode::from(plan::run(&arguments)),
        Command::Audit(arguments) => return ExitCode::from(audit::run(&arguments)),
        Command::Version => {
            say(&mut std::io::stdout(), concat!("fairlead-router ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&mut std::io::stderr(), &message);
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), String> {
    let config = Config::load(settings.config.as_deref()).map_err(|faults| faults.to_string())?;
    telemetry::init(&config.log).map_err(|error| telemetry::chain(&error))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    config.make_state_dir().map_err(|problem| format!("fairlead-router: {problem}"))?;
    app::run(config).map_err(|error| format!("fairlead-router: {}", telemetry::chain(&error)))
}

fn check(settings: &Settings) -> Result<(), String> {
    let config = Config::load(settings.config.as_deref()).map_err(|faults| faults.to_string())?;
    for warning in &config.warnings {
        say(&mut std::io::stderr(), &format!("warning: {warning}"));
    }
    say(&mut std::io::stdout(), &format!("{}the configuration is well", config.summary()));
    Ok(())
}

/// Writes a line; nobody is left to hear that it failed.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}
