//! A Docker host's containers under the names that a kubelet would give them: for each container with a json-file log a symlink
//! `<pods>/<namespace>_<pod>_<uid>/<container>/0.log` to it, as cri-dockerd makes them.
//!
//! A compose project is a namespace and its service a container; other containers are in the namespace `docker`.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// Of containers that are in no project.
const NAMESPACE: &str = "docker";

/// The folders of a Docker host, and of the names.
pub(super) struct DockerHost {
    containers: PathBuf,
    pods: PathBuf,
    /// The project that we belong to: its own lines are left out, tokens are among them.
    own: Option<String>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    pod_folder: String,
    container: String,
    log: PathBuf,
}

impl DockerHost {
    /// Docker's folder of containers, and where the names go.
    ///
    /// # Errors
    /// When Docker's folder cannot be read.
    pub(super) fn new(containers: &Path, pods: &Path) -> Result<DockerHost> {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        DockerHost::seen_by(containers, pods, hostname.trim())
    }

    /// As [`DockerHost::new`], from a container whose hostname is the first part of its id.
    fn seen_by(containers: &Path, pods: &Path, hostname: &str) -> Result<DockerHost> {
        let mut host = DockerHost { containers: containers.to_owned(), pods: pods.to_owned(), own: None };
        let own = host.ids()?.into_iter().find(|id| hostname.len() >= 12 && id.starts_with(hostname));
        host.own = own.and_then(|id| label(&host.description(&id)?, PROJECT));
        Ok(host)
    }

    /// Names containers that came, and forgets those that went. Says how many.
    ///
    /// # Errors
    /// When a folder cannot be read or written.
    pub(super) fn bring_up_to_date(&self) -> Result<(usize, usize)> {
        let wanted: BTreeSet<Named> = self.ids()?.iter().filter_map(|id| self.named(id)).collect();
        let mut made = 0;
        for named in &wanted {
            let folder = self.pods.join(&named.pod_folder).join(&named.container);
            std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            let link = folder.join("0.log");
            match std::os::unix::fs::symlink(&named.log, &link) {
                Ok(()) => made += 1,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("make {}", link.display())),
            }
        }
        let mut removed = 0;
        for folder in std::fs::read_dir(&self.pods).context("the folder of pods")? {
            let folder = folder.context("the folder of pods")?;
            let is_wanted = wanted.iter().any(|named| *named.pod_folder == *folder.file_name());
            if !is_wanted {
                std::fs::remove_dir_all(folder.path())
                    .with_context(|| format!("remove {}", folder.path().display()))?;
                removed += 1;
            }
        }
        Ok((made, removed))
    }

    /// What a container is called, if its log is a file.
    fn named(&self, id: &str) -> Option<Named> {
        let log = self.containers.join(id).join(format!("{id}-json.log"));
        let description = self.description(id).filter(|_| log.exists())?;
        let project = label(&description, PROJECT);
        if project.is_some() && project == self.own {
            return None;
        }
        let name = description["Name"].as_str()?.trim_start_matches('/').to_owned();
        let namespace = project.map_or_else(|| NAMESPACE.to_owned(), |project| plain(&project));
        let container = plain(&label(&description, SERVICE).unwrap_or_else(|| name.clone()));
        // The whole id does not fit a file's name beside long names; half of it is one of a kind too.
        let uid = id.get(..32)?;
        Some(Named { pod_folder: format!("{namespace}_{}_{uid}", plain(&name)), container, log })
    }

    fn ids(&self) -> Result<Vec<String>> {
        let folders =
            std::fs::read_dir(&self.containers).with_context(|| format!("read {}", self.containers.display()))?;
        let names = folders.flatten().filter_map(|folder| folder.file_name().into_string().ok());
        Ok(names.filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).collect())
    }

    /// What Docker keeps of a container. It may be gone meanwhile, or be written just now.
    fn description(&self, id: &str) -> Option<Value> {
        let text = std::fs::read(self.containers.join(id).join("config.v2.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn label(description: &Value, name: &str) -> Option<String> {
    description["Config"]["Labels"][name].as_str().filter(|value| !value.is_empty()).map(str::to_owned)
}

/// An RFC 1123 label of what Docker allows in a name.
fn plain(name: &str) -> String {
    let letters = name.bytes().map(|byte| match byte.to_ascii_lowercase() {
        letter @ (b'a'..=b'z' | b'0'..=b'9') => char::from(letter),
        _ => '-',
    });
    let text: String = letters.take(63).collect();
    let text = text.trim_matches('-');
    if text.is_empty() { "unnamed".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Host {
        folder: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Host {
            let folder = crate::folders::scratch("docker-host").unwrap();
            std::fs::create_dir_all(folder.path().join("pods")).unwrap();
            std::fs::create_dir_all(folder.path().join("containers/not-a-container")).unwrap();
            Host { folder }
        }

        fn container(&self, digit: char, name: &str, labels: &Value) -> String {
            let id = digit.to_string().repeat(64);
            let folder = self.folder.path().join("containers").join(&id);
            std::fs::create_dir_all(&folder).unwrap();
            let text = json!({"ID": id, "Name": name, "Config": {"Labels": labels}}).to_string();
            std::fs::write(folder.join("config.v2.json"), text).unwrap();
            std::fs::write(folder.join(format!("{id}-json.log")), "").unwrap();
            id
        }

        fn seen_by(&self, hostname: &str) -> DockerHost {
            DockerHost::seen_by(&self.folder.path().join("containers"), &self.folder.path().join("pods"), hostname)
                .unwrap()
        }

        /// Links with what they lead to, below their folders.
        fn links(&self) -> Vec<(String, PathBuf)> {
            let mut found = Vec::new();
            for pod in std::fs::read_dir(self.folder.path().join("pods")).unwrap().flatten() {
                for container in std::fs::read_dir(pod.path()).unwrap().flatten() {
                    let link = container.path().join("0.log");
                    let name = format!("{}/{}", pod.file_name().display(), container.file_name().display());
                    found.push((name, std::fs::read_link(link).unwrap()));
                }
            }
            found.sort();
            found
        }
    }

    #[test]
    fn names_containers_as_a_kubelet_would_and_keeps_up() {
        let host = Host::new();
        let shop = host.container('a', "/shop-web-1", &json!({PROJECT: "shop", SERVICE: "web"}));
        host.container('b', "/lone_Wolf.1", &json!({}));
        // Another driver than json-file: no file.
        let silent = host.container('c', "/silent", &json!({}));
        std::fs::remove_file(host.folder.path().join(format!("containers/{silent}/{silent}-json.log"))).unwrap();
        // Written just now.
        let torn = host.container('d', "/torn", &json!({}));
        std::fs::write(host.folder.path().join(format!("containers/{torn}/config.v2.json")), "{\"Na").unwrap();
        let docker = host.seen_by("elsewhere");
        assert_eq!(docker.bring_up_to_date().unwrap(), (2, 0));
        assert_eq!(docker.bring_up_to_date().unwrap(), (0, 0));
        let links = host.links();
        let expected = [
            format!("docker_lone-wolf-1_{}/lone-wolf-1", "b".repeat(32)),
            format!("shop_shop-web-1_{}/web", "a".repeat(32)),
        ];
        assert_eq!(links.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(links[1].1, host.folder.path().join(format!("containers/{shop}/{shop}-json.log")));

        std::fs::remove_dir_all(host.folder.path().join("containers").join(&shop)).unwrap();
        host.container('d', "/torn", &json!({}));
        assert_eq!(docker.bring_up_to_date().unwrap(), (1, 1));
        assert!(host.links().iter().all(|(name, _)| !name.starts_with("shop")));
    }

    #[test]
    fn leaves_out_the_project_that_it_is_part_of() {
        let host = Host::new();
        host.container('a', "/trial-generator-1", &json!({PROJECT: "trial", SERVICE: "generator"}));
        host.container('b', "/trial-greeting-1", &json!({PROJECT: "trial", SERVICE: "greeting"}));
        host.container('c', "/other-web-1", &json!({PROJECT: "other", SERVICE: "web"}));
        host.container('d', "/alone", &json!({}));
        let own = host.seen_by("aaaaaaaaaaaa");
        assert_eq!(own.bring_up_to_date().unwrap(), (2, 0));
        assert!(host.links().iter().all(|(name, _)| !name.contains("trial")));
    }

    #[test]
    fn every_name_becomes_a_label() {
        let check = |name: &str, expected: &str| assert_eq!(plain(name), expected, "{name}");
        check("web", "web");
        check("My_App.web", "my-app-web");
        check("-x-", "x");
        check("___", "unnamed");
        check(&"a".repeat(80), &"a".repeat(63));
    }
}
