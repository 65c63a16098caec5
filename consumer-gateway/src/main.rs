//! `fairlead-gateway`: reads its arguments and starts what they name.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use fairlead_gateway::{app, cli, config::Config};

/// HTTP API over the logs of namespaces in Kafka
#[derive(Parser)]
#[command(name = "fairlead-gateway", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API until a signal says to stop
    Serve {
        /// The gateway's configuration; environment variables FAIRLEAD_GATEWAY__… win over it
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prints every fault of the configuration
    Check {
        /// The gateway's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Makes key files
    Keys(cli::Keys),
    /// Makes local tokens
    Token(cli::Token),
    /// Prints the version
    Version,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => report(serve(config)),
        Command::Check { config } => cli::check(&config),
        Command::Keys(keys) => cli::keys(keys),
        Command::Token(token) => cli::token(token),
        Command::Version => report(version()),
    }
}

fn serve(config: PathBuf) -> anyhow::Result<()> {
    let config = Config::load(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(app::serve(config));
    // Readers that still wait for Kafka do not keep the process.
    runtime.shutdown_background();
    outcome
}

fn version() -> anyhow::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "fairlead-gateway {}", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            // Standard error may be closed; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}
