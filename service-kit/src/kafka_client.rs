//! How to reach Kafka: the `kafka` block that both programs share, made into a client configuration.
//!
//! `kafka.properties` takes anything that librdkafka takes, but for what would break a promise (the table of
//! [`properties`]) and for secrets, which come from files only.

mod properties;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaType;

use crate::config_source::{Reader, Secret};

/// What the client mostly does, which decides what its properties must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Produces records: nothing may weaken delivery.
    Producer,
    /// Reads assigned partitions: nothing may bring in a consumer group.
    Consumer,
    /// Looks up and makes topics.
    Admin,
}

/// The `kafka` block, validated.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    bootstrap_servers: String,
    /// By librdkafka's name, aliases resolved.
    properties: BTreeMap<String, String>,
    sasl: Option<Sasl>,
    tls: Option<Tls>,
}

#[derive(Debug, Clone)]
struct Sasl {
    mechanism: &'static str,
    username: String,
    password: Secret,
}

#[derive(Debug, Clone, Default)]
struct Tls {
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    key_password: Option<Secret>,
}

impl KafkaSettings {
    /// Reads `kafka.bootstrap_servers`, `kafka.properties`, `kafka.sasl` and `kafka.tls`; other keys under `kafka` are
    /// the program's own. Nothing is given if there is a fault that keeps a client from being made.
    pub fn read(reader: &mut Reader, role: Role) -> Option<KafkaSettings> {
        let bootstrap_servers = read_bootstrap_servers(reader);
        let tls = read_tls(reader);
        let sasl = read_sasl(reader);
        let (has_sasl, has_tls) = (reader.has("kafka.sasl"), reader.has("kafka.tls"));
        let properties = properties::read(reader, role, has_sasl, has_tls);
        let settings =
            KafkaSettings { bootstrap_servers: bootstrap_servers?, properties: properties?, sasl: sasl?, tls: tls? };
        match settings.try_out(role) {
            Ok(()) => Some(settings),
            Err(error) => {
                reader.fault("kafka", format!("librdkafka refuses these settings: {}", settings.in_our_words(&error)));
                None
            }
        }
    }

    /// Settings without security or properties, for tests and for brokers on this machine.
    pub fn plaintext(bootstrap_servers: &str) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: bootstrap_servers.to_owned(),
            properties: BTreeMap::new(),
            sasl: None,
            tls: None,
        }
    }

    /// The brokers to begin with, as configured.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// What the operator set for a librdkafka property, under its usual name (`linger.ms`, `compression.type`).
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// A client configuration with connection, security and the operator's properties. What must hold is set by the
    /// caller afterwards; what is only a default, where [`KafkaSettings::property`] gives nothing.
    pub fn client_config(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", client_id);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        let protocol = match (&self.sasl, &self.tls) {
            (None, None) => None,
            (None, Some(_)) => Some("ssl"),
            (Some(_), None) => Some("sasl_plaintext"),
            (Some(_), Some(_)) => Some("sasl_ssl"),
        };
        if let Some(protocol) = protocol {
            config.set("security.protocol", protocol);
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism);
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", sasl.password.expose());
        }
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, file.to_string_lossy());
                }
            }
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password.expose());
            }
        }
        config
    }

    /// What librdkafka says of these settings, by the names that stand in the configuration.
    fn in_our_words(&self, error: &KafkaError) -> String {
        let said = match error {
            KafkaError::ClientCreation(said) | KafkaError::ClientConfig(_, said, _, _) => said.trim().to_owned(),
            other => other.to_string(),
        };
        if self.tls.is_none() {
            return said;
        }
        [
            ("ssl.ca.location", "kafka.tls.ca_file"),
            ("ssl.certificate.location", "kafka.tls.certificate_file"),
            ("ssl.key.location", "kafka.tls.key_file"),
            ("ssl.key.password", "kafka.tls.key_password_file"),
        ]
        .iter()
        .fold(said, |said, (theirs, ours)| said.replace(theirs, ours))
    }

    /// Makes a client that knows no broker and throws it away: librdkafka judges properties that do not go together,
    /// and files of keys and certificates, only then.
    fn try_out(&self, role: Role) -> Result<(), KafkaError> {
        let mut config = self.client_config("check");
        config.remove("bootstrap.servers");
        let kind = match role {
            Role::Producer => {
                config.set("enable.idempotence", "true");
                RDKafkaType::RD_KAFKA_PRODUCER
            }
            Role::Admin => RDKafkaType::RD_KAFKA_PRODUCER,
            Role::Consumer => {
                config.set("group.id", "check");
                RDKafkaType::RD_KAFKA_CONSUMER
            }
        };
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let native = config.create_native_config()?;
        Client::new(&config, native, kind, Silent).map(drop)
    }
}

/// Hears nothing of what a client that is only tried out has to say.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

/// Each entry without the spaces around it.
fn read_bootstrap_servers(reader: &mut Reader) -> Option<String> {
    const KEY: &str = "kafka.bootstrap_servers";
    let written = reader.required_text(KEY)?;
    let servers: Vec<&str> = written.split(',').map(str::trim).collect();
    let problem = servers.iter().find_map(|server| fault_of_server(server));
    match problem {
        None => Some(servers.join(",")),
        Some(problem) => {
            reader.fault(KEY, format!("{problem}; it must be host:port, several of them separated by commas"));
            None
        }
    }
}

/// What keeps an entry from being `host:port`; none if nothing does.
fn fault_of_server(server: &str) -> Option<String> {
    if server.is_empty() {
        return Some("an entry is empty".to_owned());
    }
    if let Some((scheme, _)) = server.split_once("://") {
        return Some(format!("`{server}` begins with {scheme}://, which kafka.tls and kafka.sasl say"));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return Some(format!("`{server}` has no port")),
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Some(format!("`{server}` has no port from 1 to 65535"));
    }
    if host.contains(':') && host.bytes().all(|byte| byte == b':' || byte.is_ascii_hexdigit()) {
        return Some(format!("`{server}`: an IPv6 address stands in brackets"));
    }
    let well = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(address) => address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)),
    };
    (!well).then(|| format!("`{server}` has no host"))
}

/// The outer option: whether the block is without fault; the inner: whether it is there.
fn read_sasl(reader: &mut Reader) -> Option<Option<Sasl>> {
    const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let there = reader.has("kafka.sasl");
    let mechanism = reader.choice("kafka.sasl.mechanism", &MECHANISMS.map(|name| (name, name)));
    let username = if there { reader.required_text("kafka.sasl.username") } else { reader.text("kafka.sasl.username") };
    let password = reader.secret_file("kafka.sasl.password_file");
    if !there {
        return Some(None);
    }
    for key in ["kafka.sasl.mechanism", "kafka.sasl.password_file"] {
        if !reader.has(key) {
            reader.fault(key, "is required where kafka.sasl is set");
        }
    }
    Some(Some(Sasl { mechanism: mechanism?, username: username?, password: password? }))
}

/// As [`read_sasl`]. `kafka.tls: {enabled: true}` alone trusts the system's certificate authorities.
fn read_tls(reader: &mut Reader) -> Option<Option<Tls>> {
    let there = reader.has("kafka.tls");
    let enabled = reader.bool("kafka.tls.enabled").unwrap_or(there);
    let mut well = true;
    let mut file = |key: &str| {
        let path = reader.readable_file(key);
        well &= path.is_some() || !reader.has(key);
        path
    };
    let mut tls = Tls {
        ca_file: file("kafka.tls.ca_file"),
        certificate_file: file("kafka.tls.certificate_file"),
        key_file: file("kafka.tls.key_file"),
        key_password: None,
    };
    tls.key_password = reader.secret_file("kafka.tls.key_password_file");
    well &= tls.key_password.is_some() || !reader.has("kafka.tls.key_password_file");
    let (certificate, key) = (reader.has("kafka.tls.certificate_file"), reader.has("kafka.tls.key_file"));
    if certificate != key {
        let missing = if certificate { "kafka.tls.key_file" } else { "kafka.tls.certificate_file" };
        reader.fault(missing, "is required: a certificate and its key come together");
        well = false;
    }
    well.then_some(enabled.then_some(tls))
}

#[cfg(test)]
mod tests;
