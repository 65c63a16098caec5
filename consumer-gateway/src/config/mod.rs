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
use std::fmt::Write as _;
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
    /// What is not wrong, but probably not meant.
    pub warnings: Vec<String>,
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

        let listen = reader.address("listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let admin_listen = reader.address("admin.listen").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9599)));
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
        let warnings = reader.warnings();
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
            warnings,
        })
    }

    /// What this configuration amounts to, for people; one line a matter.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut lines = |name: &str, values: &[String]| {
            for (index, value) in values.iter().enumerate() {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "{:<12}{value}", if index == 0 { name } else { "" });
            }
        };
        lines("listens on", &[self.listen.to_string()]);
        lines("reached at", &[self.public_url.to_string()]);
        lines("reads from", &[self.kafka.bootstrap_servers().to_owned()]);
        lines("topics", &self.topics.lines());
        let auth = &self.auth.settings;
        let mut believed: Vec<String> = auth.issuers.iter().map(|issuer| issuer.issuer.clone()).collect();
        if !auth.local_public_key_files.is_empty() {
            believed.push(format!("local tokens of {} key(s)", auth.local_public_key_files.len()));
        }
        lines("believes", &believed);
        let tenants: Vec<String> = self
            .tenants
            .names()
            .filter_map(|name| Some((name, self.tenants.tenant(name)?)))
            .map(|(name, tenant)| format!("{name}: {}", tenant.namespaces.join(", ")))
            .collect();
        lines("tenants", &tenants);
        lines("admin", &[format!("http://{}", self.admin_listen)]);
        text
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
    let Ok(url) = Url::parse(&reader.text(key)?) else {
        reader.fault(key, "must be a URL, such as https://logs.example.org");
        return None;
    };
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

/// Whose words end a fault of a key file that is not there.
fn how_to_make_it(reader: &Reader) -> String {
    let file = reader.file().map_or_else(|| "FILE".to_owned(), |file| file.display().to_string());
    format!("; fairlead-gateway keys init --config {file} makes it")
}

/// The key is fixed and comes later; until then nobody shall believe that it does something.
fn refuse_tls(reader: &mut Reader) {
    if reader.deserialize::<serde_json::Value>("tls").is_some() {
        reader.fault("tls", "is not available yet: put a proxy that ends TLS in front, and leave this out");
    }
}
