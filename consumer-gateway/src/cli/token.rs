//! `token mint`: a token for a team without an issuer.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fairlead_service_kit::units::{parse_duration, show_duration};

use super::{CliError, exposed, warn};
use crate::authenticate::local::{Grant, Signer};
use crate::authenticate::{self, NAME_BYTES_MAX};
use crate::config::Config;

/// The arguments of `token mint`.
#[derive(Debug, clap::Args)]
pub(super) struct Mint {
    /// The gateway's configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The tenant whose rights the token carries
    #[arg(long, value_name = "NAME")]
    pub tenant: String,
    /// How long it is good, for example 24h or 30d; at most auth.local.ttl_max
    #[arg(long, value_name = "DURATION")]
    pub ttl: String,
    /// Who will hold it, as logs show it; the tenant's name where nothing is said
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
}

/// Prints the token alone.
pub(super) fn mint(mint: &Mint, out: &mut impl Write) -> Result<(), CliError> {
    let config = Config::load_without_keys(&mint.config)?;
    if config.tenants.tenant(&mint.tenant).is_none() {
        let known: Vec<&str> = config.tenants.names().collect();
        return Err(CliError::UnknownTenant { name: mint.tenant.clone(), known: known.join(", ") });
    }
    let lifetime = lifetime(&mint.ttl, config.auth.local.ttl_max)?;
    let subject = mint.subject.as_deref().unwrap_or(&mint.tenant);
    if subject.is_empty() || subject.len() > NAME_BYTES_MAX || subject.chars().any(char::is_control) {
        return Err(CliError::Subject);
    }
    let path =
        config.auth.local.private_key_file.as_ref().ok_or_else(|| CliError::NoPrivateKey(mint.config.clone()))?;
    let text = std::fs::read(path).map_err(|source| CliError::Read { path: path.clone(), source })?;
    exposed(path).as_deref().map(warn);
    let signer = Signer::from_pem(&text).map_err(|source| CliError::Key { path: path.clone(), source })?;
    let believed = config
        .auth
        .settings
        .local_public_key_files
        .iter()
        .any(|public| authenticate::check_local_key(public).is_ok_and(|id| id == signer.key_id()));
    if !believed {
        return Err(CliError::NotBelieved(path.clone()));
    }
    let grant = Grant { tenant: &mint.tenant, subject, lifetime };
    let token = signer.mint(&grant, SystemTime::now()).map_err(CliError::Mint)?;
    writeln!(out, "{token}")?;
    Ok(())
}

fn lifetime(text: &str, most: Duration) -> Result<Duration, CliError> {
    let refused = |problem: String| CliError::Lifetime { text: text.to_owned(), problem };
    let lifetime = parse_duration(text).map_err(|error| refused(error.to_string()))?;
    if lifetime < Duration::from_secs(1) {
        return Err(refused("at least 1s".to_owned()));
    }
    if lifetime > most {
        return Err(refused(format!("at most {} (auth.local.ttl_max)", show_duration(most))));
    }
    Ok(lifetime)
}
