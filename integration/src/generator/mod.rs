//! Real CRI files without a container runtime: what containerd writes and the kubelet does with it.
//!
//! [`cri::CriWriter`] writes one container's file, [`rotation`] is the kubelet's part, [`lines`] has what services print,
//! [`fleet`] keeps some namespaces of pods busy, short-lived ones too. [`docker`] plays Docker's logger instead.

pub mod cri;
pub mod dice;
pub mod docker;
pub mod fleet;
pub mod kept;
pub mod lines;
pub mod rotation;

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Who a container's log belongs to: everything in its path but the restart count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The container's name.
    pub container: String,
}

impl Identity {
    /// A container of a new pod.
    pub fn new(namespace: &str, pod: &str, container: &str) -> Identity {
        Identity {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: Uuid::new_v4().to_string(),
            container: container.to_owned(),
        }
    }

    /// The pod's folder.
    pub fn pod_folder(&self, pods: &Path) -> PathBuf {
        pods.join(format!("{}_{}_{}", self.namespace, self.pod, self.uid))
    }

    /// The live file of one run of the container.
    pub fn log(&self, pods: &Path, restart: u32) -> PathBuf {
        self.pod_folder(pods).join(&self.container).join(format!("{restart}.log"))
    }
}
