//! What most scenarios stand on: a broker, a folder of pods, a router and a gateway over them, tokens of two teams.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::broker::{Broker, Kind};
use crate::folders;
use crate::http::Client;
use crate::identity::Issuer;
use crate::ports::free_port;
use crate::process::Program;
use crate::settings::{GatewaySettings, RouterSettings, TenantSettings, reader_properties};

/// The teams' namespaces and the group that the issuer states for their members.
pub const TEAMS: [(&str, &str); 2] = [("payments", "team-payments"), ("shop", "team-shop")];

/// A whole system in a scratch folder. Programs stop when it is dropped, the broker last.
#[derive(Debug)]
pub struct Stage {
    /// The router.
    pub router: Program,
    /// The gateway.
    pub gateway: Program,
    /// The broker.
    pub broker: Broker,
    /// The identity provider that the gateway trusts.
    pub issuer: Issuer,
    template: String,
    url: String,
    pods: PathBuf,
    folder: TempDir,
}

/// What a scenario may want otherwise.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Further keys of the router's `logs`.
    pub router_logs: Vec<String>,
    /// Further keys of the router's `kafka`.
    pub router_kafka: Vec<String>,
    /// Keys of the router's `hold`.
    pub router_hold: Vec<String>,
    /// Keys of the router's `kubernetes`; none: it asks no API server.
    pub router_kubernetes: Vec<String>,
    /// Further top-level lines of the router's file.
    pub router_extra: Vec<String>,
    /// Where logs and state are; none for the scratch folder.
    pub place: Option<PathBuf>,
    /// Partitions of the topics that the router makes; 0 for one.
    pub partitions: u32,
    /// Further top-level lines of the gateway's file.
    pub gateway_extra: Vec<String>,
}

impl Stage {
    /// Writes all configuration and makes keys; neither broker nor programs run yet.
    ///
    /// # Errors
    /// When something cannot be written or the gateway's `keys init` fails.
    pub fn prepared(kind: Kind, wishes: &Wishes) -> Result<Stage> {
        Stage::over(Broker::prepared(kind)?, wishes)
    }

    /// A broker, router and gateway that are ready.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn started(kind: Kind) -> Result<Stage> {
        Stage::started_with(kind, &Wishes::default())
    }

    /// [`Stage::started`] with wishes.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn started_with(kind: Kind, wishes: &Wishes) -> Result<Stage> {
        let mut stage = Stage::prepared(kind, wishes)?;
        stage.broker.start()?;
        stage.router.start()?;
        stage.gateway.start()?;
        stage.router.wait_ready()?;
        stage.gateway.wait_ready()?;
        Ok(stage)
    }

    /// [`Stage::prepared`] over a broker that is prepared already. Where a broker asks for rights, it asks the router only.
    ///
    /// # Errors
    /// When something cannot be written or the gateway's `keys init` fails.
    pub fn over(broker: Broker, wishes: &Wishes) -> Result<Stage> {
        let folder = folders::scratch("stage")?;
        let place = |name: &str| folder.path().join(name);
        let logs = wishes.place.clone().unwrap_or_else(|| folder.path().to_path_buf()).join("log");
        let pods = logs.join("pods");
        for made in [pods.clone(), place("keys")] {
            std::fs::create_dir_all(&made).with_context(|| format!("make {}", made.display()))?;
        }
        let issuer = Issuer::new("https://issuer.example", "key-1")?;
        issuer.publish(&place("keys/jwks.json"))?;
        let template = "logs.{namespace}".to_owned();
        let bootstrap = broker.bootstrap();
        let mut router_kafka = wishes.router_kafka.clone();
        let guarded = broker.guarded();
        if let Some((_, user, password)) = &guarded {
            let file = place("keys/kafka-password");
            std::fs::write(&file, password).context("write the password")?;
            let file = file.display();
            router_kafka
                .push(format!("sasl: {{mechanism: SCRAM-SHA-512, username: {user}, password_file: \"{file}\"}}"));
        }
        let router = RouterSettings {
            node_name: "node-1".to_owned(),
            state_dir: logs.join("fairlead"),
            pods_dir: pods.clone(),
            bootstrap: guarded.map_or_else(|| broker.entrance(), |(bootstrap, ..)| bootstrap),
            properties: vec![("compression.type".to_owned(), "lz4".to_owned())],
            kafka: router_kafka,
            template: template.clone(),
            partitions: wishes.partitions.max(1),
            admin_port: free_port(),
            logs: wishes.router_logs.clone(),
            // However full this machine's disk is, nothing is released for it.
            hold: [vec!["free_min: 0%".to_owned()], wishes.router_hold.clone()].concat(),
            kubernetes: wishes.router_kubernetes.clone(),
            extra: wishes.router_extra.clone(),
        };
        let port = free_port();
        let gateway = GatewaySettings {
            port,
            bootstrap,
            properties: reader_properties(matches!(broker, Broker::Tansu(_))),
            template: template.clone(),
            issuer: Some((issuer.name.clone(), place("keys/jwks.json"))),
            keys: place("keys"),
            tenants: TEAMS.iter().map(|&(namespace, group)| tenant(namespace, group)).collect(),
            admin_port: free_port(),
            extra: wishes.gateway_extra.clone(),
        };
        let router = Program::router(folder.path(), &router)?;
        let gateway = Program::gateway(folder.path(), &gateway)?;
        gateway.ask(&["keys", "init"])?;
        let url = format!("http://127.0.0.1:{port}");
        Ok(Stage { router, gateway, broker, issuer, template, url, pods, folder })
    }

    /// The folder that the router watches.
    pub fn pods(&self) -> &Path {
        &self.pods
    }

    /// The folder with everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The gateway's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A namespace's topic.
    pub fn topic(&self, namespace: &str) -> String {
        self.template.replace("{namespace}", namespace)
    }

    /// A caller of the gateway without a token.
    pub fn anyone(&self) -> Client {
        Client::new(&self.url)
    }

    /// A caller with a token minted for a tenant.
    ///
    /// # Errors
    /// When no token can be minted.
    pub fn team(&self, tenant: &str) -> Result<Client> {
        let token = self.gateway.ask(&["token", "mint", "--tenant", tenant, "--ttl", "1h"])?;
        Ok(self.anyone().with_token(&token))
    }

    /// A caller with a token of the issuer, of one team's group.
    ///
    /// # Errors
    /// When no token can be signed.
    pub fn member(&self, subject: &str, group: &str) -> Result<Client> {
        let token = self.issuer.sign(&self.issuer.claims(subject, &[group]))?;
        Ok(self.anyone().with_token(&token))
    }
}

fn tenant(namespace: &str, group: &str) -> TenantSettings {
    TenantSettings {
        name: namespace.to_owned(),
        namespaces: vec![namespace.to_owned(), format!("{namespace}-*")],
        group: Some(group.to_owned()),
    }
}
