//! What Kubernetes knows of the pods on this node.
//!
//! Input: the API server. Output: [`PodFacts`], pruned before they are stored, keyed by the UID in the kubelet's path. Waiting for them, keeping them
//! beside the positions and encoding them are the worker's; identity never comes from here.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use fairlead_contract::record::Owner;

/// Where the worker asks what is known of a pod. Asking never blocks.
pub trait Pods: Send + Sync {
    /// Changes whenever another answer may have changed.
    fn version(&self) -> u64;

    /// What is known of a pod: by its UID, whatever namespace and name the API server has for it; a static pod by the hash that its mirror names,
    /// if the mirror has this namespace and name. Anybody may write such an annotation; nobody can take the name of a mirror that is there.
    fn pod(&self, path: PodPath<'_>) -> Option<Arc<PodFacts>>;

    /// Whether answers can be expected.
    fn standing(&self) -> Standing;

    /// The same of what is asked about namespaces, which needs a right of its own: away, it keeps nobody waiting for [`PodFacts::namespace_id`].
    fn namespaces(&self) -> Standing;
}

/// A pod as the kubelet's path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodPath<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// The pod's UID, or a static pod's hash.
    pub uid: &'a str,
}

/// Whether the API server can be expected to say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody asks it: `kubernetes.enabled` is false.
    Off,
    /// The first answer is awaited.
    Starting,
    /// All pods of the node are known, and changes are told.
    Known,
    /// It does not answer, or refuses; what was known before stays.
    Away,
}

/// What is taken of a pod; everything else is dropped where it is parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFacts {
    /// The pod's own namespace, to compare with the path's.
    pub namespace: String,
    /// The namespace's UID, once that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_id: Option<String>,
    /// The pod's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Those annotations that `kubernetes.annotations` allows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the namespace that `kubernetes.namespace_labels` allows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_labels: BTreeMap<String, String>,
    /// Labels of the node that `kubernetes.node_labels` allows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, String>,
    /// The workload that owns the pod; for a Deployment's pod the Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// By name: ordinary, init, sidecar and ephemeral containers.
    pub containers: BTreeMap<String, ContainerFacts>,
    /// What its owners wish, as annotations of ours say: name (without the prefix `fairlead.dev/`) to value, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wishes: BTreeMap<String, String>,
    /// Whether something was left out because there was too much of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// What is taken of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// Its image as the pod's specification has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The runtime's id, without its scheme, by restart count: of the present instance and some before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ids: BTreeMap<u32, String>,
}

impl PodFacts {
    /// The runtime's id of one instance of a container.
    pub fn container_id(&self, container: &str, restart: u32) -> Option<&str> {
        self.containers.get(container)?.ids.get(&restart).map(String::as_str)
    }
}

/// Nobody asks the API server.
#[derive(Debug)]
pub struct NoPods;

impl Pods for NoPods {
    fn version(&self) -> u64 {
        0
    }

    fn pod(&self, _: PodPath<'_>) -> Option<Arc<PodFacts>> {
        None
    }

    fn standing(&self) -> Standing {
        Standing::Off
    }

    fn namespaces(&self) -> Standing {
        Standing::Off
    }
}
