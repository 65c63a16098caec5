//! What Kubernetes knows of the pods on this node.
//!
//! Input: the API server. Output: [`PodFacts`], pruned before they are stored, keyed by the UID in the kubelet's path. Waiting for them, keeping them
//! beside the positions and encoding them are the worker's; identity never comes from here.

mod access;
mod api;
mod asks;
mod client;
#[cfg(test)]
pub mod fake;
mod meter;
mod metrics;
mod object;
mod prune;
mod settings;
mod table;
mod tenures;
mod trouble;
mod watch;
mod wishes;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use fairlead_contract::record::Metadata;
use serde::{Deserialize, Serialize};

pub use self::{
    access::Access,
    api::ApiPods,
    metrics::KubernetesMetrics,
    settings::{Kubernetes, Names},
};
pub use fairlead_contract::record::Owner;
pub use wishes::{Streams, Wishes};

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
    /// Whether the pod is deleted: nothing more will be told of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
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

    /// Whether the runtime's id of an instance may still be told: the pod is there, and no later instance of the container is known.
    fn may_tell_id(&self, container: &str, restart: u32) -> bool {
        let later = |facts: &ContainerFacts| facts.ids.keys().any(|known| *known > restart);
        !self.gone && !self.containers.get(container).is_some_and(later)
    }

    /// How much is known for the records of an instance.
    pub fn metadata(&self, container: &str, restart: u32) -> Metadata {
        let all = self.namespace_id.is_some() && !self.cut && self.container_id(container, restart).is_some();
        if all { Metadata::Complete } else { Metadata::Partial }
    }
}

/// What can be expected to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of pods.
    pub pods: Standing,
    /// Of their namespaces.
    pub namespaces: Standing,
}

impl Expected {
    /// What can be expected now.
    pub fn of(pods: &dyn Pods) -> Self {
        Self { pods: pods.standing(), namespaces: pods.namespaces() }
    }

    /// Whether an instance's first line is worth a wait: its pod, or something of it, may be told soon.
    pub fn is_awaited(self, facts: Option<&PodFacts>, container: &str, restart: u32) -> bool {
        let Some(facts) = facts else { return self.pods.may_answer() };
        let awaits_id = facts.container_id(container, restart).is_none() && facts.may_tell_id(container, restart);
        let awaits_namespace = facts.namespace_id.is_none() && self.namespaces.may_answer();
        self.pods.may_answer() && !facts.gone && (awaits_id || awaits_namespace)
    }
}

impl Standing {
    fn may_answer(self) -> bool {
        matches!(self, Self::Starting | Self::Known)
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

/// A random time, shorter than this.
fn spread(longest: Duration) -> Duration {
    // The standard library's hashers begin with random keys.
    let random = RandomState::new().hash_one(0u8) >> 11;
    longest.mul_f64(random as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(ids: &[u32]) -> PodFacts {
        let ids = ids.iter().map(|restart| (*restart, format!("id-{restart}"))).collect();
        PodFacts {
            namespace: "payments".to_owned(),
            namespace_id: Some("n".to_owned()),
            containers: [("api".to_owned(), ContainerFacts { image: None, ids })].into(),
            ..PodFacts::default()
        }
    }

    const STANDINGS: [(Standing, bool); 4] =
        [(Standing::Off, false), (Standing::Away, false), (Standing::Starting, true), (Standing::Known, true)];

    #[test]
    fn what_is_complete_and_what_is_waited_for() {
        let check = |facts: &PodFacts, restart: u32, metadata: Metadata, awaited: bool| {
            assert_eq!(facts.metadata("api", restart), metadata, "{facts:?} {restart}");
            for (pods, may_answer) in STANDINGS {
                let expected = Expected { pods, namespaces: Standing::Known };
                let waits = expected.is_awaited(Some(facts), "api", restart);
                assert_eq!(waits, awaited && may_answer, "{facts:?} {restart} {pods:?}");
            }
        };
        let (complete, partial) = (Metadata::Complete, Metadata::Partial);
        check(&facts(&[0]), 0, complete, false);
        check(&facts(&[2, 1]), 1, complete, false);
        // The container's id: not told yet, of the next instance, of one that is too long ago, of a pod that is gone.
        check(&facts(&[]), 0, partial, true);
        check(&facts(&[0]), 1, partial, true);
        check(&facts(&[3, 2]), 1, partial, false);
        check(&PodFacts { gone: true, ..facts(&[]) }, 0, partial, false);
        check(&PodFacts { containers: BTreeMap::new(), ..facts(&[]) }, 0, partial, true);
        check(&PodFacts { cut: true, ..facts(&[0]) }, 0, partial, false);
        check(&PodFacts { namespace_id: None, ..facts(&[0]) }, 0, partial, true);
    }

    #[test]
    fn what_is_not_answered_keeps_nobody_waiting() {
        let without_namespace = PodFacts { namespace_id: None, ..facts(&[0]) };
        for (standing, may_answer) in STANDINGS {
            let of_namespaces = Expected { pods: Standing::Known, namespaces: standing };
            assert_eq!(of_namespaces.is_awaited(Some(&without_namespace), "api", 0), may_answer, "{standing:?}");
            assert!(!of_namespaces.is_awaited(Some(&facts(&[0])), "api", 0), "{standing:?}");
            let of_pods = Expected { pods: standing, namespaces: Standing::Known };
            assert_eq!(of_pods.is_awaited(None, "api", 0), may_answer, "{standing:?}");
        }
    }

    #[test]
    fn facts_are_stored_in_few_words_and_read_again() {
        let all = PodFacts {
            labels: [("app".to_owned(), "api".to_owned())].into(),
            owner: Some(Owner { kind: "Deployment".to_owned(), name: "api".to_owned() }),
            gone: true,
            cut: true,
            ..facts(&[1, 0])
        };
        for facts in [PodFacts::default(), facts(&[]), all] {
            let text = serde_json::to_string(&facts).unwrap();
            assert_eq!(serde_json::from_str::<PodFacts>(&text).unwrap(), facts, "{text}");
        }
        assert_eq!(serde_json::to_string(&PodFacts::default()).unwrap(), r#"{"namespace":"","containers":{}}"#);
    }
}
