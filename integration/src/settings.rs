//! Configuration files for our own programs, as a person would write them.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Topic rules that both programs are given: the cluster's own components go to `infra.`, scratch space nowhere.
const RULES: &str = r#"  rules:
    - {namespaces: [kube-system, "kube-*"], topic: "infra.{namespace}"}
    - {regex: "^scratch-", exclude: true}
"#;

/// What varies in a router's file.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    /// `node_name`.
    pub node_name: String,
    /// `state_dir`.
    pub state_dir: PathBuf,
    /// `logs.pods_dir`.
    pub pods_dir: PathBuf,
    /// `kafka.bootstrap_servers`.
    pub bootstrap: String,
    /// `kafka.properties`.
    pub properties: Vec<(String, String)>,
    /// Further keys of `kafka`, each `key: value`.
    pub kafka: Vec<String>,
    /// `topics.template`.
    pub template: String,
    /// `topics.create.partitions`.
    pub partitions: u32,
    /// The port of `admin.listen`.
    pub admin_port: u16,
    /// Further keys of `logs`, each `key: value`.
    pub logs: Vec<String>,
    /// Keys of `hold`, each `key: value`.
    pub hold: Vec<String>,
    /// Keys of `kubernetes`, each `key: value`; none: the API server is not asked.
    pub kubernetes: Vec<String>,
    /// Further top-level lines.
    pub extra: Vec<String>,
}

impl RouterSettings {
    /// The file's text.
    pub fn yaml(&self) -> String {
        let logs: Vec<String> = std::iter::once(format!("pods_dir: \"{}\"", self.pods_dir.display()))
            .chain(self.logs.iter().cloned())
            .collect();
        let mut text = format!(
            "node_name: {}\nstate_dir: \"{}\"\nlogs: {{{}}}\n",
            self.node_name,
            self.state_dir.display(),
            logs.join(", ")
        );
        text += &kafka(&self.bootstrap, &self.properties);
        for key in &self.kafka {
            let _ = writeln!(text, "  {key}");
        }
        let _ = write!(
            text,
            "topics:\n  template: \"{}\"\n{RULES}  create: {{enabled: true, partitions: {}, replication_factor: 1, \
             config: {{retention.ms: \"604800000\"}}}}\n",
            self.template, self.partitions
        );
        let asked = format!("enabled: {}", !self.kubernetes.is_empty());
        let kubernetes = [vec![asked], self.kubernetes.clone()].concat().join(", ");
        let _ = write!(text, "kubernetes: {{{kubernetes}}}\nadmin: {{listen: \"127.0.0.1:{}\"}}\n", self.admin_port);
        if !self.hold.is_empty() {
            let _ = writeln!(text, "hold: {{{}}}", self.hold.join(", "));
        }
        text.push_str(&lines(&self.extra));
        text
    }
}

/// A tenant with its namespaces.
#[derive(Clone, Debug)]
pub struct TenantSettings {
    /// The tenant's name.
    pub name: String,
    /// Names or globs.
    pub namespaces: Vec<String>,
    /// The group whose members, by the test's issuer, belong to it.
    pub group: Option<String>,
}

/// What varies in a gateway's file.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The port of `listen`.
    pub port: u16,
    /// `kafka.bootstrap_servers`.
    pub bootstrap: String,
    /// `kafka.properties`.
    pub properties: Vec<(String, String)>,
    /// `topics.template`.
    pub template: String,
    /// The issuer and its key set's file, if one is trusted.
    pub issuer: Option<(String, PathBuf)>,
    /// Where the keys lie.
    pub keys: PathBuf,
    /// `tenants`.
    pub tenants: Vec<TenantSettings>,
    /// The port of `admin.listen`.
    pub admin_port: u16,
    /// Further top-level lines.
    pub extra: Vec<String>,
}

impl GatewaySettings {
    /// The file's text.
    pub fn yaml(&self) -> String {
        let (port, template, keys) = (self.port, &self.template, self.keys.display());
        let mut text = format!("listen: 127.0.0.1:{port}\npublic_url: http://127.0.0.1:{port}\n");
        text += &kafka(&self.bootstrap, &self.properties);
        let _ = write!(text, "topics:\n  template: \"{template}\"\n{RULES}auth:\n");
        if let Some((issuer, key_set)) = &self.issuer {
            let _ = write!(
                text,
                "  issuers:\n    - issuer: {issuer}\n      audiences: [fairlead]\n      algorithms: [RS256]\n      \
                 jwks_file: \"{}\"\n      claims: {{subject: sub, groups: groups}}\n",
                key_set.display()
            );
        }
        let _ = write!(
            text,
            "  local: {{private_key_file: \"{keys}/local.key\", public_key_files: [\"{keys}/local.pub\"]}}\n\
             cursors: {{key_files: [\"{keys}/cursor.key\"]}}\ntenants:\n"
        );
        for tenant in &self.tenants {
            let namespaces: Vec<String> = tenant.namespaces.iter().map(|name| format!("\"{name}\"")).collect();
            let _ = write!(text, "  {}:\n    namespaces: [{}]\n", tenant.name, namespaces.join(", "));
            if let (Some(group), Some((issuer, _))) = (&tenant.group, &self.issuer) {
                let _ = write!(text, "    members:\n      - {{from: {issuer}, groups: [{group}]}}\n");
            }
            text += "    rights: [read]\n    limits: {streams: 20, bytes_per_second: 50MiB}\n";
        }
        let _ = writeln!(text, "admin: {{listen: \"127.0.0.1:{}\"}}", self.admin_port);
        text.push_str(&lines(&self.extra));
        text
    }
}

fn kafka(bootstrap: &str, properties: &[(String, String)]) -> String {
    let mut text = format!("kafka:\n  bootstrap_servers: {bootstrap}\n");
    if !properties.is_empty() {
        let written: Vec<String> = properties.iter().map(|(key, value)| format!("{key}: \"{value}\"")).collect();
        let _ = writeln!(text, "  properties: {{{}}}", written.join(", "));
    }
    text
}

fn lines(extra: &[String]) -> String {
    extra.iter().map(|line| format!("{line}\n")).collect()
}

/// How a broker's quirks are met in `kafka.properties`: Tansu does not wake a waiting fetch, so it must ask often.
pub fn reader_properties(embedded: bool) -> Vec<(String, String)> {
    if embedded { vec![("fetch.wait.max.ms".to_owned(), "20".to_owned())] } else { Vec::new() }
}
