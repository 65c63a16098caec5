//! What a pod is to be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A pod's manifest as far as scenarios vary it.
#[derive(Clone, Debug)]
pub struct PodPlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Kind and name of the controller that made it.
    owner: Option<(String, String)>,
    /// Kind and name of the workload that people know: a ReplicaSet's Deployment.
    pub workload: Option<(String, String)>,
    init: Vec<(String, String)>,
    containers: Vec<(String, String)>,
}

impl PodPlan {
    /// A pod with one container, `app`.
    pub fn new(namespace: &str, name: &str) -> PodPlan {
        PodPlan {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            owner: None,
            workload: None,
            init: Vec::new(),
            containers: vec![("app".to_owned(), "registry.example/app:1".to_owned())],
        }
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> PodPlan {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> PodPlan {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Controlled by a workload.
    #[must_use]
    pub fn owner(mut self, kind: &str, name: &str) -> PodPlan {
        self.owner = Some((kind.to_owned(), name.to_owned()));
        self.workload = self.owner.clone();
        self
    }

    /// Of a Deployment: controlled by the ReplicaSet of that hash.
    #[must_use]
    pub fn deployment(self, name: &str, hash: &str) -> PodPlan {
        let mut plan = self.owner("ReplicaSet", &format!("{name}-{hash}")).label("pod-template-hash", hash);
        plan.workload = Some(("Deployment".to_owned(), name.to_owned()));
        plan
    }

    /// With one more container.
    #[must_use]
    pub fn container(mut self, name: &str, image: &str) -> PodPlan {
        self.containers.push((name.to_owned(), image.to_owned()));
        self
    }

    /// With an init container.
    #[must_use]
    pub fn init(mut self, name: &str, image: &str) -> PodPlan {
        self.init.push((name.to_owned(), image.to_owned()));
        self
    }

    /// The mirror that a kubelet makes of a static pod: the pods folder has `hash` where the API server has a UID.
    #[must_use]
    pub fn mirror_of(self, hash: &str) -> PodPlan {
        self.annotation(MIRROR, hash)
            .annotation("kubernetes.io/config.hash", hash)
            .annotation("kubernetes.io/config.source", "file")
    }

    /// What the pods folder has instead of the UID, if it is a static pod.
    pub fn hash(&self) -> Option<&str> {
        self.annotations.get(MIRROR).map(String::as_str)
    }

    /// The image of each container, init containers too.
    pub fn images(&self) -> BTreeMap<String, String> {
        self.init.iter().chain(&self.containers).cloned().collect()
    }

    /// Is it an init container?
    pub(super) fn is_init(&self, container: &str) -> bool {
        self.init.iter().any(|(name, _)| name == container)
    }

    /// The manifest of this pod, bound to a node.
    pub(super) fn manifest(&self, node: &str) -> Value {
        let containers = |of: &[(String, String)]| -> Value {
            of.iter().map(|(name, image)| json!({"name": name, "image": image})).collect()
        };
        let mut manifest = json!({
            "metadata": {"name": self.name, "labels": self.labels, "annotations": self.annotations},
            "spec": {
                "nodeName": node,
                "initContainers": containers(&self.init),
                "containers": containers(&self.containers),
            },
        });
        if let Some((kind, name)) = &self.owner {
            let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
            manifest["metadata"]["ownerReferences"] =
                json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "0", "controller": true}]);
        }
        manifest
    }
}

/// The annotation by which a mirror names the static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
