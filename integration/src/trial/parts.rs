//! The trial's parts as containers of `docker-compose.yml`: one that writes log files, and one that greets.
//!
//! With the variable `LOGS`, files are not written but named: the Docker host's own containers, as the kubelet would name them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::docker_host::DockerHost;
use super::greeting;
use super::layout::Team;
use super::say;
use super::signals::Stop;
use crate::generator::fleet::{Fleet, trial_workloads};
use crate::wait::wait_for;

const PODS: &str = "/var/log/pods";
const CONTAINERS: &str = "/var/lib/docker/containers";
const GATEWAY_CONFIG: &str = "/etc/fairlead/config/gateway.yaml";
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Writes log files, or names those of the Docker host, until it is asked to stop.
///
/// # Errors
/// When the folder of logs cannot be written, or the host's cannot be read.
pub fn logs(out: &mut impl Write) -> Result<()> {
    let stop = Stop::listen()?;
    let pods = Path::new(PODS);
    // Pods of an earlier trial in the same volume are gone, as on a node that was started again.
    let _ = std::fs::remove_dir_all(pods);
    std::fs::create_dir_all(pods).with_context(|| format!("make {PODS}"))?;
    if of_host() {
        let host = DockerHost::new(Path::new(CONTAINERS), pods)?;
        say(out, "naming the containers of this Docker host")?;
        while !stop.wait(LOOK_EVERY) {
            let (named, forgotten) = host.bring_up_to_date()?;
            if named + forgotten > 0 {
                say(out, &format!("{named} containers named, {forgotten} forgotten"))?;
            }
        }
        return Ok(());
    }
    let mut fleet = Fleet::start(pods, &trial_workloads())?;
    say(out, "writing log files")?;
    while !stop.wait(Duration::from_secs(60)) {
        say(out, &format!("{} lines written", fleet.lines()))?;
    }
    fleet.stop()
}

/// Prints the page's address, tokens and lines to paste.
///
/// # Errors
/// When the gateway's program makes no token, or the host has no container to read.
pub fn greet(out: &mut impl Write) -> Result<()> {
    let url = std::env::var("URL").context("URL says where the gateway is")?;
    let text = if of_host() {
        let namespaces = wait_for("a container of this host", Duration::from_secs(60), || {
            Some(namespaces(Path::new(PODS))).filter(|found| !found.is_empty())
        })?;
        greeting::text_for_host(&url, &namespaces, &token("host")?)
    } else {
        let teams = ["payments", "shop"].map(|name| Team { name: name.to_owned(), namespaces: vec![name.to_owned()] });
        greeting::text(&url, &teams, &[token("payments")?, token("shop")?])
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("print")
}

fn of_host() -> bool {
    std::env::var_os("LOGS").is_some_and(|value| !value.is_empty())
}

fn namespaces(pods: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(pods).into_iter().flatten().flatten();
    let names = folders.filter_map(|folder| Some(folder.file_name().to_str()?.split_once('_')?.0.to_owned()));
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn token(tenant: &str) -> Result<String> {
    let words = ["token", "mint", "--config", GATEWAY_CONFIG, "--tenant", tenant, "--ttl", "24h"];
    let output = Command::new("fairlead-gateway").args(words).output().context("run fairlead-gateway")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fairlead-gateway {}: {said}", words.join(" "));
    Ok(String::from_utf8(output.stdout).context("a token")?.trim_end().to_owned())
}
