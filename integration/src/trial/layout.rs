//! Where the trial's parts lie and how they are configured.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Options, say};
use crate::ports::port_or_free;
use crate::settings::{GatewaySettings, RouterSettings, TenantSettings, reader_properties};

/// Folders, ports and teams of one trial.
pub(super) struct Layout {
    pub(super) folder: PathBuf,
    pub(super) pods: PathBuf,
    pub(super) bootstrap: String,
    pub(super) broker_port: u16,
    pub(super) page_port: u16,
    /// The first namespace of a team is the one that the greeting shows.
    pub(super) teams: [Team; 2],
    pub(super) router_admin: u16,
    pub(super) gateway_admin: u16,
    state: PathBuf,
    embedded: bool,
    temporary: Option<TempDir>,
    temporary_state: Option<PathBuf>,
}

pub(super) struct Team {
    pub(super) name: String,
    pub(super) namespaces: Vec<String>,
}

impl Layout {
    pub(super) fn new(options: &Options) -> Result<Layout> {
        let temporary = match &options.data {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("fairlead-trial-").tempdir().context("a temporary folder")?),
        };
        let folder = match (&options.data, &temporary) {
            (Some(data), _) => absolute(data)?,
            (None, Some(temporary)) => temporary.path().to_path_buf(),
            (None, None) => unreachable!("one of the two is there"),
        };
        let made = |name: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
            Ok(path)
        };
        made("keys")?;
        let (pods, state, temporary_state) = match &options.logs {
            Some(logs) => {
                ensure!(logs.is_dir(), "LOGS={}: not a folder", logs.display());
                let logs = absolute(logs)?;
                let (state, temporary) = state_beside(&logs, &folder, options.data.is_some())?;
                (logs, state, temporary)
            }
            None => {
                // Pods of an earlier trial in the same folder are gone, as on a node that was started again.
                let _ = std::fs::remove_dir_all(folder.join("log/pods"));
                (made("log/pods")?, made("log/fairlead")?, None)
            }
        };
        let teams = match &options.logs {
            Some(_) => teams_of(&pods)?,
            None => [team("payments", &["payments", "payments-*"]), team("shop", &["shop", "shop-*"])],
        };
        let broker_port = port_or_free(9092);
        Ok(Layout {
            bootstrap: options.kafka.clone().unwrap_or_else(|| format!("127.0.0.1:{broker_port}")),
            broker_port,
            page_port: port_or_free(8080),
            router_admin: port_or_free(9598),
            gateway_admin: port_or_free(9599),
            embedded: options.kafka.is_none(),
            folder,
            pods,
            state,
            teams,
            temporary,
            temporary_state,
        })
    }

    pub(super) fn broker_data(&self) -> Result<PathBuf> {
        let path = self.folder.join("broker");
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.page_port)
    }

    pub(super) fn router_settings(&self) -> RouterSettings {
        RouterSettings {
            node_name: node_name(),
            state_dir: self.state.clone(),
            pods_dir: self.pods.clone(),
            bootstrap: self.bootstrap.clone(),
            properties: Vec::new(),
            kafka: Vec::new(),
            kubernetes: Vec::new(),
            hold: Vec::new(),
            template: "logs.{namespace}".to_owned(),
            partitions: 1,
            admin_port: self.router_admin,
            logs: Vec::new(),
            extra: Vec::new(),
        }
    }

    pub(super) fn gateway_settings(&self) -> GatewaySettings {
        let tenant =
            |team: &Team| TenantSettings { name: team.name.clone(), namespaces: team.namespaces.clone(), group: None };
        GatewaySettings {
            port: self.page_port,
            bootstrap: self.bootstrap.clone(),
            properties: reader_properties(self.embedded),
            template: "logs.{namespace}".to_owned(),
            issuer: None,
            keys: self.folder.join("keys"),
            tenants: self.teams.iter().map(tenant).collect(),
            admin_port: self.gateway_admin,
            extra: Vec::new(),
        }
    }

    /// Removes what was temporary and says what stays.
    pub(super) fn finish(self, out: &mut impl Write) -> Result<()> {
        if let Some(state) = &self.temporary_state {
            std::fs::remove_dir_all(state).with_context(|| format!("remove {}", state.display()))?;
        }
        match self.temporary {
            Some(temporary) => {
                temporary.close().context("remove the temporary folder")?;
                say(out, "stopped; everything temporary is removed")
            }
            None => say(out, &format!("stopped; the data stays in {}", self.folder.display())),
        }
    }
}

fn team(name: &str, namespaces: &[&str]) -> Team {
    Team { name: name.to_owned(), namespaces: namespaces.iter().map(|&namespace| namespace.to_owned()).collect() }
}

/// The router holds files by hard links, which work within one mount only: its state goes beside a node's own pods
/// folder, never into it (the kubelet clears that). Where it cannot be made there, into the trial's folder.
fn state_beside(logs: &Path, folder: &Path, keep: bool) -> Result<(PathBuf, Option<PathBuf>)> {
    let name = if keep { "fairlead-trial".to_owned() } else { format!("fairlead-trial-{}", std::process::id()) };
    let beside = logs.parent().unwrap_or(logs).join(name);
    if std::fs::create_dir_all(&beside).is_ok() {
        return Ok((beside.clone(), (!keep).then_some(beside)));
    }
    let within = folder.join("state");
    std::fs::create_dir_all(&within).with_context(|| format!("make {}", within.display()))?;
    Ok((within, None))
}

/// Two teams over the namespaces that are there, alternately.
fn teams_of(pods: &Path) -> Result<[Team; 2]> {
    let mut namespaces = BTreeSet::new();
    for entry in std::fs::read_dir(pods).with_context(|| format!("read {}", pods.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let (Some((namespace, _)), 3) = (name.split_once('_'), name.split('_').count()) {
            namespaces.insert(namespace.to_owned());
        }
    }
    ensure!(!namespaces.is_empty(), "LOGS={}: no folder of a pod is in it", pods.display());
    let half = |which: usize| namespaces.iter().skip(which).step_by(2).cloned().collect::<Vec<_>>();
    let spare = |found: Vec<String>| if found.is_empty() { vec!["another-team".to_owned()] } else { found };
    Ok([
        Team { name: "team-one".to_owned(), namespaces: half(0) },
        Team { name: "team-two".to_owned(), namespaces: spare(half(1)) },
    ])
}

fn node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_lowercase();
    if name.is_empty() { "this-node".to_owned() } else { name }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("the whole path of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_a_nodes_namespaces_between_two_teams() {
        let pods = crate::folders::scratch("teams").unwrap();
        assert!(teams_of(pods.path()).is_err());
        for folder in ["a_p_1", "a_q_2", "b_p_3", "c_p_4", "lost+found"] {
            std::fs::create_dir(pods.path().join(folder)).unwrap();
        }
        let [one, two] = teams_of(pods.path()).unwrap();
        assert_eq!((one.namespaces, two.namespaces), (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]));
    }
}
