//! The `kubernetes` block: whether the API server is asked, how it is reached, and what of its answers goes into records.

use std::{fmt, time::Duration};

use fairlead_service_kit::{config_source::Reader, units::show_duration};
use globset::{Glob, GlobSet, GlobSetBuilder};

use super::access::Access;

const ENABLED: &str = "kubernetes.enabled";
const KUBECONFIG_FILE: &str = "kubernetes.kubeconfig_file";
const METADATA_WAIT: Duration = Duration::from_secs(5);
const METADATA_WAIT_MAX: Duration = Duration::from_secs(60);
/// Names or globs in one list.
const NAMES_MAX: usize = 64;
/// A label's or annotation's name: a prefix of 253 bytes, a slash and 63 more.
const NAME_BYTES_MAX: usize = 317;

/// The block, validated.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// How the API server is reached; none if it is not asked.
    pub access: Option<Access>,
    /// How long a new container's first line waits for what is known of its pod.
    pub metadata_wait: Duration,
    /// Which annotations of a pod go into its records.
    pub annotations: Names,
    /// Which labels of the namespace do.
    pub namespace_labels: Names,
    /// Which labels of the node do.
    pub node_labels: Names,
}

impl Kubernetes {
    /// Reads the block. Where it is enabled, the files that it needs are opened; no request is made. `node`: the node's name, if that is well.
    pub fn read(reader: &mut Reader, node: Option<&str>) -> Kubernetes {
        let enabled = reader.bool(ENABLED).unwrap_or(false);
        let kubeconfig = reader.path(KUBECONFIG_FILE);
        let written = reader.has(KUBECONFIG_FILE);
        let access = match kubeconfig {
            _ if !enabled => None,
            Some(path) => Some(Access::Kubeconfig(path)),
            None if written => None,
            None => Some(Access::ServiceAccount),
        };
        if let Some(Err(problem)) = access.as_ref().map(Access::check) {
            reader.fault(if written { KUBECONFIG_FILE } else { ENABLED }, problem);
        }
        if enabled && node.is_some_and(|node| !is_node_name(node)) {
            let problem = "is no name of a node in a cluster, which kubernetes.enabled needs: small letters, digits, dashes and dots";
            reader.fault("node_name", problem);
        }
        Kubernetes {
            access,
            metadata_wait: reader
                .duration("kubernetes.metadata_wait", Duration::ZERO..=METADATA_WAIT_MAX)
                .unwrap_or(METADATA_WAIT),
            annotations: Names::read(reader, "kubernetes.annotations"),
            namespace_labels: Names::read(reader, "kubernetes.namespace_labels"),
            node_labels: Names::read(reader, "kubernetes.node_labels"),
        }
    }

    /// What is asked of whom, for people.
    pub fn summary(&self, node: &str) -> String {
        let Some(access) = &self.access else {
            return "not asked: records say what the kubelet's paths say".to_owned();
        };
        let mut text = format!(
            "pods of {node}, from {access}; a new container waits for at most {}",
            show_duration(self.metadata_wait)
        );
        for (names, of) in [
            (&self.annotations, "annotations"),
            (&self.namespace_labels, "namespace labels"),
            (&self.node_labels, "node labels"),
        ] {
            if !names.is_empty() {
                text.push_str(&format!("; {of} {}", names.written.join(", ")));
            }
        }
        text
    }
}

/// A node's name is a DNS subdomain in small letters.
fn is_node_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let well = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = |byte: Option<&u8>| byte.is_some_and(|byte| well(*byte));
        ends(label.as_bytes().first())
            && ends(label.as_bytes().last())
            && label.bytes().all(|byte| well(byte) || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Names of labels or annotations, or globs of them; `*` also matches a slash.
#[derive(Clone, Default)]
pub struct Names {
    written: Vec<String>,
    globs: GlobSet,
}

impl Names {
    /// The names that the texts say.
    ///
    /// # Errors
    /// The index of the text that is no name and no glob, and what is wrong with it.
    pub fn parse(written: Vec<String>) -> Result<Names, (usize, String)> {
        let mut globs = GlobSetBuilder::new();
        for (index, text) in written.iter().enumerate() {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./*?[]{},!".contains(c);
            if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(is_plain) {
                return Err((index, "is neither a label's or annotation's name nor a glob".to_owned()));
            }
            globs.add(Glob::new(text).map_err(|error| (index, error.kind().to_string()))?);
        }
        let globs = globs.build().map_err(|error| (0, error.to_string()))?;
        Ok(Names { written, globs })
    }

    fn read(reader: &mut Reader, key: &str) -> Names {
        let written = reader.texts(key).unwrap_or_default();
        if written.len() > NAMES_MAX {
            reader.fault(key, format!("at most {NAMES_MAX} names"));
            return Names::default();
        }
        Names::parse(written).unwrap_or_else(|(index, problem)| {
            reader.fault(&format!("{key}[{index}]"), problem);
            Names::default()
        })
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether this name is taken.
    pub fn take(&self, name: &str) -> bool {
        self.globs.is_match(name)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_globs() {
        let check = |written: &[&str], name: &str, expected: bool| {
            let names = Names::parse(written.iter().map(ToString::to_string).collect()).unwrap();
            assert_eq!(names.take(name), expected, "{written:?} {name}");
        };
        check(&[], "team", false);
        check(&["team"], "team", true);
        check(&["team"], "team2", false);
        check(&["team"], "example.com/team", false);
        check(&["example.com/*", "team"], "example.com/owner", true);
        check(&["*"], "example.com/owner", true);
        check(&["*/owner"], "example.com/owner", true);
        check(&["TEAM"], "team", false);
        let fault = |written: &[&str]| Names::parse(written.iter().map(ToString::to_string).collect()).unwrap_err();
        assert_eq!(fault(&["a", ""]).0, 1);
        assert_eq!(fault(&["a b"]).0, 0);
        assert!(fault(&["a["]).1.contains("unclosed"), "{}", fault(&["a["]).1);
        assert_eq!(fault(&[&"a".repeat(318)]).0, 0);
    }

    #[test]
    fn names_of_nodes() {
        for name in ["node-1", "ip-10-0-0-1.eu-west-1.compute.internal", "n", "1"] {
            assert!(is_node_name(name), "{name}");
        }
        for name in ["", "Node-1", "a,spec.nodeName=b", "a=b", "a_b", "-a", "a-", "a..b", "a.", "ä", &"a".repeat(254)]
        {
            assert!(!is_node_name(name), "{name}");
        }
    }
}
