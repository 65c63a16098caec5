//! `gateway.yaml` -> [`Config`], everything in it validated and every fault named at once.
//!
//! Reading and unit parsing are the service kit's; what is said here is which keys exist, what they default to and what they must be.

mod auth;
mod cursors;
mod limits;
mod tenants;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fairlead_contract::tenant::Tenants;
use fairlead_service_kit::config_source::{self, Faults, Reader, Source};
use fairlead_service_kit::kafka_client::{KafkaSettings, Role};
use fairlead_service_kit::telemetry::{self, LogSettings};
use fairlead_service_kit::topics::{self, TopicSettings};
use url::Url;

pub use self::auth::{Auth, LocalTokens};
pub use self::cursors::{CursorKeyError, new_cursor_key};
use crate::authorize::AccountLimits;
use crate::read;

/// Environment variables that begin with this and two underscores set keys.
pub const ENVIRONMENT_PREFIX: &str = "FAIRLEAD_GATEWAY";

/// Everything the gateway is told from outside, ready to run with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API and the page are served.
    pub listen: SocketAddr,
    /// Under which address callers reach it; no slash at its end unless it has a path.
    pub public_url: Url,
    /// How Kafka is reached.
    pub kafka: KafkaSettings,
    /// Which topic holds which namespace.
    pub topics: TopicSettings,
    /// Who is believed.
    pub auth: Auth,
    /// Files with the keys that seal cursors; the first seals, all open. None: made at start and kept in memory.
    pub cursor_key_files: Vec<PathBuf>,
    /// Who may read what.
    pub tenants: Tenants,
    /// What each tenant may use at once.
    pub tenant_limits: BTreeMap<String, AccountLimits>,
    /// Where health and metrics are served.
    pub admin_listen: SocketAddr,
    /// Bounds and pace of reading.
    pub read: read::Settings,
    /// How this process logs.
    pub log: LogSettings,
}

/// Whether key files are opened while the configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyFiles {
    /// `serve` and `check`: each must be there and right.
    Judged,
    /// `keys init` and `token mint`: they may not be there yet.
    Untouched,
}

impl Config {
    /// Reads file and environment, and judges every key file that they name. The private key of local tokens is not opened.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load(path: &Path) -> Result<Config, Faults> {
        Config::from_source(config_source::load(ENVIRONMENT_PREFIX, Some(path))?, KeyFiles::Judged)
    }

    /// The same without opening any key file, for the commands that make or use them.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load_without_keys(path: &Path) -> Result<Config, Faults> {
        Config::from_source(config_source::load(ENVIRONMENT_PREFIX, Some(path))?, KeyFiles::Untouched)
    }

    fn from_source(mut source: Source, key_files: KeyFiles) -> Result<Config, Faults> {
        source.include("topics_file", "topics");
        source.include("tenants_file", "tenants");
        let mut reader = source.reader();
        for file_key in ["topics_file", "tenants_file"] {
            reader.path(file_key);
        }

        let listen = reader.parsed("listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let admin_listen = reader.parsed("admin.listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9599)));
        if listen == admin_listen && listen.port() != 0 {
            reader.fault("admin.listen", "is the same as listen");
        }
        let public_url = public_url(&mut reader, listen);
        refuse_tls(&mut reader);
        let kafka = KafkaSettings::read(&mut reader, Role::Consumer);
        let topics = topics::read(&mut reader);
        let (auth, issuers) = auth::read(&mut reader, key_files);
        let cursor_key_files = cursors::read(&mut reader, key_files);
        let (tenants, tenant_limits) = tenants::read(&mut reader, &issuers);
        let read = limits::read(&mut reader);
        let log = telemetry::read(&mut reader);
        reader.finish()?;

        let reported = "what cannot be read is a fault, and faults have ended the reading";
        Ok(Config {
            listen,
            public_url: public_url.expect(reported),
            kafka: kafka.expect(reported),
            topics: topics.expect(reported),
            auth,
            cursor_key_files,
            tenants: tenants.expect(reported),
            tenant_limits,
            admin_listen,
            read,
            log,
        })
    }

    /// The keys that seal and open cursors. Without configured files they are new, and a warning says what that means.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key.
    pub fn cursor_keys(&self) -> Result<read::cursor::Keys, CursorKeyError> {
        cursors::keys(&self.cursor_key_files)
    }
}

fn public_url(reader: &mut Reader, listen: SocketAddr) -> Option<Url> {
    let key = "public_url";
    if !reader.has(key) {
        return Url::parse(&format!("http://{listen}")).ok();
    }
    let url: Url = reader.parsed(key)?;
    let problem = if !matches!(url.scheme(), "http" | "https") {
        "must begin with http:// or https://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "must not hold a user or password"
    } else if url.query().is_some() || url.fragment().is_some() {
        "must not hold `?` or `#`"
    } else {
        return Some(url);
    };
    reader.fault(key, problem);
    None
}

/// The key is fixed and comes later; until then nobody shall believe that it does something.
fn refuse_tls(reader: &mut Reader) {
    if reader.deserialize::<serde_json::Value>("tls").is_some() {
        reader.fault("tls", "is not available yet: put a proxy that ends TLS in front, and leave this out");
    }
}
