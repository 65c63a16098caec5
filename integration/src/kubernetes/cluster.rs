//! etcd and kube-apiserver as child processes, started, killed and started again on the same ports and data.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{ListParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Program, answer};
use crate::child::Child;
use crate::folders;
use crate::http::RUNTIME;
use crate::identity::pem;
use crate::ports::free_port;
use crate::wait::wait_until;

/// Three seconds on an idle machine.
const UP_WITHIN: Duration = Duration::from_secs(90);
const SERVICE_RANGE: &str = "10.0.0.0/24";
/// Of each request who made it, its verb and its resource; of a watch when it began and when it ended.
const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// What an API server may be told besides.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Further flags of kube-apiserver.
    pub flags: Vec<String>,
}

/// An API server and its store, with ports and data of their own. Both end when it is dropped.
pub struct Cluster {
    server: Option<Child>,
    etcd: Option<Child>,
    server_port: u16,
    etcd_ports: [u16; 2],
    shape: Shape,
    token: String,
    client: Option<Client>,
    /// Removed last.
    folder: TempDir,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("port", &self.server_port).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster that answers, with nothing in it.
    ///
    /// # Errors
    /// When Go cannot build it, or it does not come up.
    pub fn started() -> Result<Cluster> {
        Cluster::started_as(&Shape::default())
    }

    /// [`Cluster::started`] of a certain shape.
    ///
    /// # Errors
    /// When Go cannot build it, or it does not come up.
    pub fn started_as(shape: &Shape) -> Result<Cluster> {
        let folder = folders::scratch("kubernetes")?;
        let token = Uuid::new_v4().simple().to_string();
        let file = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).with_context(|| format!("write {name}"))
        };
        file("tokens.csv", format!("{token},admin,1,\"system:masters\"\n"))?;
        file("audit-policy.yaml", AUDIT_POLICY.to_owned())?;
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|error| anyhow!("an RSA key: {error}"))?;
        let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|error| anyhow!("PKCS#8: {error}"))?;
        file("accounts.key", pem("PRIVATE KEY", private.as_ref()))?;
        let mut cluster = Cluster {
            server: None,
            etcd: None,
            server_port: free_port(),
            etcd_ports: [free_port(), free_port()],
            shape: shape.clone(),
            token,
            client: None,
            folder,
        };
        cluster.start()?;
        Ok(cluster)
    }

    /// Starts what does not run, again on the same data and ports, and waits until it is ready.
    ///
    /// # Errors
    /// When a process ends or is not ready in time; its last lines are in the message.
    pub fn start(&mut self) -> Result<()> {
        if self.etcd.is_none() {
            self.etcd = Some(self.start_etcd()?);
        }
        if self.server.is_none() {
            self.server = Some(self.start_server()?);
        }
        let certificate = self.place("certificates/apiserver.crt");
        wait_until("the API server's certificate", UP_WITHIN, || certificate.metadata().is_ok_and(|it| it.len() > 0))
            .with_context(|| self.log_tail())?;
        if self.client.is_none() {
            self.kubeconfig(&self.place("admin.kubeconfig"), self.address(), &self.token)?;
            self.client = Some(connect(&self.place("admin.kubeconfig"))?);
        }
        wait_until("the API server to be ready", UP_WITHIN, || {
            let ended = self.server.as_mut().and_then(Child::ended).or(self.etcd.as_mut().and_then(Child::ended));
            ended.is_some() || self.is_ready()
        })
        .with_context(|| self.log_tail())?;
        ensure!(self.is_ready(), "the API server or etcd ended:\n{}", self.log_tail());
        Ok(())
    }

    /// Kills the API server; its data stays.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the API server does not run")?.kill();
        Ok(())
    }

    /// Stops the API server's process: connections stay, nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.server.as_ref().context("the API server does not run")?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.server.as_ref().context("the API server does not run")?.signal(Signal::CONT)
    }

    /// Makes etcd forget all revisions but the latest. A server that is started after that can continue no older watch.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub fn compact(&self) -> Result<()> {
        let now = self.ask_etcd("kv/range", &json!({"key": STANDARD.encode(b"\0")}))?;
        let revision = now.pointer("/header/revision").context("a revision")?;
        self.ask_etcd("kv/compaction", &json!({"revision": revision, "physical": true})).map(|_| ())
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server_port).into()
    }

    /// A client with all rights.
    ///
    /// # Panics
    /// Never: a cluster that was started has one.
    pub fn client(&self) -> Client {
        self.client.clone().expect("made at the first start")
    }

    /// Objects of one kind in a namespace, with all rights.
    pub fn objects<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client(), namespace)
    }

    /// Objects of one kind that lie in no namespace, with all rights.
    pub fn all<K: Resource>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::all(self.client())
    }

    /// Writes a kubeconfig file for whoever has `token` and reaches the API server through `address`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig(&self, file: &Path, address: SocketAddr, token: &str) -> Result<()> {
        let certificate =
            std::fs::read(self.place("certificates/apiserver.crt")).context("the API server's certificate")?;
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": STANDARD.encode(certificate),
            }}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        });
        std::fs::write(file, text.to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.place("audit.log")
    }

    fn start_etcd(&self) -> Result<Child> {
        let [clients, peers] = self.etcd_ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(Program::Etcd.path()?);
        command.arg("--data-dir").arg(self.place("etcd"));
        for (flag, value) in [
            ("--listen-client-urls", clients.as_str()),
            ("--advertise-client-urls", &clients),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
            ("--initial-cluster", &format!("default={peers}")),
            ("--log-level", "warn"),
        ] {
            command.args([flag, value]);
        }
        // What is not on the disk survives the death of the process all the same.
        command.arg("--unsafe-no-fsync");
        Child::start("etcd", &command, &self.place("etcd.log"))
    }

    fn start_server(&self) -> Result<Child> {
        let mut command = Command::new(Program::ApiServer.path()?);
        let place = |name: &str| self.place(name).display().to_string();
        for (flag, value) in [
            ("etcd-servers", format!("http://127.0.0.1:{}", self.etcd_ports[0])),
            ("bind-address", Ipv4Addr::LOCALHOST.to_string()),
            ("advertise-address", Ipv4Addr::LOCALHOST.to_string()),
            ("secure-port", self.server_port.to_string()),
            ("cert-dir", place("certificates")),
            ("service-cluster-ip-range", SERVICE_RANGE.to_owned()),
            ("authorization-mode", "RBAC".to_owned()),
            ("token-auth-file", place("tokens.csv")),
            ("service-account-issuer", format!("https://{}/", self.address())),
            ("service-account-signing-key-file", place("accounts.key")),
            ("service-account-key-file", place("accounts.key")),
            // No controller makes the accounts that it would put into each pod.
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("allow-privileged", "true".to_owned()),
            // Nobody reaches it as a service, least of all on loopback.
            ("endpoint-reconciler-type", "none".to_owned()),
            ("audit-policy-file", place("audit-policy.yaml")),
            ("audit-log-path", place("audit.log")),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        command.args(&self.shape.flags);
        Child::start("kube-apiserver", &command, &self.place("kube-apiserver.log"))
    }

    fn is_ready(&self) -> bool {
        // A GET of that path.
        let request = Request::new("/readyz").list(&ListParams::default()).expect("constant parameters");
        self.client.as_ref().is_some_and(|client| answer("readyz", client.request_text(request)).is_ok())
    }

    fn ask_etcd(&self, what: &str, body: &Value) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/v3/{what}", self.etcd_ports[0]);
        RUNTIME.block_on(async {
            let answer = crate::http::connections().post(&url).json(body).send().await.context("etcd")?;
            let status = answer.status();
            let text = answer.text().await.context("etcd's answer")?;
            ensure!(status.is_success(), "etcd: {what}: {status} {text}");
            serde_json::from_str(&text).context("etcd's answer")
        })
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log_tail(&self) -> String {
        let tail = |child: &Option<Child>| child.as_ref().map(|child| child.log_tail(20)).unwrap_or_default();
        format!("etcd:\n{}\nkube-apiserver:\n{}", tail(&self.etcd), tail(&self.server))
    }
}

/// A client as a kubeconfig file says.
///
/// # Errors
/// When the file is none.
pub fn connect(file: &Path) -> Result<Client> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    RUNTIME.block_on(async {
        let read = Kubeconfig::read_from(file).context("a kubeconfig file")?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        Client::try_from(config).context("a client")
    })
}
