//! What an operator does with this program besides `serve`: judge a configuration, make keys, mint tokens.
//!
//! Results go to standard output, everything else to standard error; 0 is success, 1 a failure that was said in one clear text.

mod keys;
mod token;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::authenticate::local::LocalKeyError;
use crate::config::{Config, CursorKeyError};
use fairlead_service_kit::config_source::{Faults, os_words};

/// Makes key files.
#[derive(Debug, clap::Args)]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// Makes the key files that the configuration names and that do not exist; never overwrites
    Init {
        /// The gateway's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Makes local tokens.
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Makes a token for a tenant and prints it alone on standard output
    Mint(token::Mint),
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Config(#[from] Faults),
    #[error("auth.local.private_key_file is not set in {}: there is no key to mint with", .0.display())]
    NoPrivateKey(PathBuf),
    #[error("cannot read {}: {}{}", .path.display(), os_words(.source), if source.kind() == std::io::ErrorKind::NotFound { " (`fairlead-gateway keys init` makes it)" } else { "" })]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {}", .path.display(), os_words(.source))]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot use {}: {source}", .path.display())]
    Key { path: PathBuf, source: LocalKeyError },
    #[error("{} is missing but its public key {} is there: a new private key would not belong to it", .private.display(), .public.display())]
    PrivateKeyLost { private: PathBuf, public: PathBuf },
    #[error("{} is missing and cannot be made: it belongs to a private key that is not here", .0.display())]
    ForeignPublicKey(PathBuf),
    #[error("no file of auth.local.public_key_files holds the public key of {}: `serve` would not believe the token", .0.display())]
    NotBelieved(PathBuf),
    #[error("no tenant {name:?} in this configuration; there are: {known}")]
    UnknownTenant { name: String, known: String },
    #[error("--ttl {text}: {problem}")]
    Lifetime { text: String, problem: String },
    #[error("--subject must have 1 to 512 bytes and no control characters")]
    Subject,
    #[error("cannot make a cursor key: {0}")]
    CursorKey(#[from] CursorKeyError),
    #[error("cannot mint: {0}")]
    Mint(#[source] LocalKeyError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs `keys …`.
pub fn keys(keys: Keys) -> ExitCode {
    let KeysCommand::Init { config } = keys.command;
    finish(keys::init(&config, &mut std::io::stdout().lock()))
}

/// Runs `token …`.
pub fn token(token: Token) -> ExitCode {
    let TokenCommand::Mint(mint) = token.command;
    finish(token::mint(&mint, &mut std::io::stdout().lock()))
}

/// Runs `check`: all faults of the configuration and of the key files it names.
pub fn check(config: &Path) -> ExitCode {
    finish(check_to(config, &mut std::io::stdout().lock()))
}

fn check_to(config: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let config = Config::load(config)?;
    for warning in &config.warnings {
        warn(warning);
    }
    writeln!(out, "{}the configuration is well", config.summary())?;
    Ok(())
}

/// Says on standard error what is not wrong, but probably not meant.
fn warn(warning: &str) {
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "warning: {warning}");
}

/// What to say of a private key that others than its owner can read; none if they cannot.
fn exposed(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let name = path.display();
    (mode & 0o044 != 0).then(|| format!("{name} can be read by others (mode {mode:04o}): chmod 600 {name}"))
}

fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
