//! A node's kubelet as far as the API server sees it: pods that are bound to it, their status, their end.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::object;
use super::{Cluster, PodPlan, Truth, answer};
use crate::generator::Identity;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
}

/// A pod on a node.
#[derive(Debug)]
pub struct NodePod {
    /// What it was made from.
    pub plan: PodPlan,
    /// Its UID at the API server.
    pub uid: String,
    pods: Api<Pod>,
    /// What runs, by container.
    instances: BTreeMap<String, Instance>,
    /// Containers that were put into the running pod.
    debuggers: Vec<String>,
    /// Labels that it had before.
    before: Vec<BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Instance {
    /// The runtime's ids by restart count; the last one is present.
    ids: Vec<String>,
    over: bool,
}

impl Node {
    /// A node that the API server knows.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn join(cluster: &Cluster, name: &str, labels: &[(&str, &str)]) -> Result<Node> {
        let labels: Value = labels.iter().map(|&(key, value)| (key.to_owned(), json!(value))).collect();
        let wanted: NodeObject = object(json!({"metadata": {"name": name, "labels": labels}}))?;
        answer(format!("make node {name}"), cluster.all().create(&PostParams::default(), &wanted))?;
        Ok(Node { name: name.to_owned() })
    }

    /// A new pod that is bound to this node. None of its containers runs yet.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn pod(&self, cluster: &Cluster, plan: &PodPlan) -> Result<NodePod> {
        let pods = cluster.objects::<Pod>(&plan.namespace);
        let wanted: Pod = object(plan.manifest(&self.name))?;
        let what = format!("make pod {}/{}", plan.namespace, plan.name);
        let made = answer(what, pods.create(&PostParams::default(), &wanted))?;
        let uid = made.metadata.uid.context("a pod's UID")?;
        Ok(NodePod {
            plan: plan.clone(),
            uid,
            pods,
            instances: BTreeMap::new(),
            debuggers: Vec::new(),
            before: Vec::new(),
        })
    }
}

impl NodePod {
    /// Whose log a container's is, as the pods folder has it.
    pub fn identity(&self, container: &str) -> Identity {
        let uid = self.plan.hash().unwrap_or(&self.uid).to_owned();
        let (namespace, pod) = (self.plan.namespace.clone(), self.plan.name.clone());
        Identity { namespace, pod, uid, container: container.to_owned() }
    }

    /// A container begins, for the first time or again, and the API server is told; gives the runtime's id of it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn started(&mut self, container: &str) -> Result<String> {
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.started_as(container, &id)?;
        Ok(id)
    }

    /// [`NodePod::started`] with an id that the runtime gave.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn started_as(&mut self, container: &str, id: &str) -> Result<()> {
        let instance = self.instances.entry(container.to_owned()).or_insert(Instance { ids: Vec::new(), over: false });
        instance.ids.push(id.to_owned());
        instance.over = false;
        self.tell()
    }

    /// The runtime's id of one run of a container.
    pub fn id(&self, container: &str, restart: usize) -> Option<&str> {
        self.instances.get(container)?.ids.get(restart).map(String::as_str)
    }

    /// What records must say of it; `namespace_id` is its namespace's UID.
    pub fn truth(&self, namespace_id: &str) -> Truth {
        let ids = self.instances.iter().flat_map(|(name, instance)| {
            instance.ids.iter().enumerate().map(|(restart, id)| ((name.clone(), restart), id.clone()))
        });
        Truth {
            namespace: self.plan.namespace.clone(),
            namespace_id: namespace_id.to_owned(),
            pod: self.plan.name.clone(),
            uid: self.plan.hash().unwrap_or(&self.uid).to_owned(),
            labels: self.plan.labels.clone(),
            labels_before: self.before.clone(),
            workload: self.plan.workload.clone(),
            images: self.plan.images(),
            ids: ids.collect(),
        }
    }

    /// A container has ended, and the API server is told.
    ///
    /// # Errors
    /// When the API server refuses, or no such container runs.
    pub fn ended(&mut self, container: &str) -> Result<()> {
        self.instances.get_mut(container).with_context(|| format!("{container} does not run"))?.over = true;
        self.tell()
    }

    /// Puts an ephemeral container into the pod; it does not run yet.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn debug(&mut self, container: &str, image: &str) -> Result<()> {
        let name = &self.plan.name;
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [{"name": container, "image": image}]}}));
        let plain = PatchParams::default();
        answer(format!("debug pod {name}"), self.pods.patch_ephemeral_containers(name, &plain, &patch))?;
        self.debuggers.push(container.to_owned());
        Ok(())
    }

    /// Sets a label of the running pod.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn relabel(&mut self, key: &str, value: &str) -> Result<()> {
        self.patch_metadata(json!({"labels": {key: value}}))?;
        self.before.push(self.plan.labels.clone());
        self.plan.labels.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Sets an annotation of the running pod, or takes it away.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn annotate(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.patch_metadata(json!({"annotations": {key: value}}))
    }

    fn patch_metadata(&self, metadata: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let name = &self.plan.name;
        answer(format!("patch pod {name}"), self.pods.patch(name, &PatchParams::default(), &patch)).map(|_| ())
    }

    /// The kubelet has done all for the deleted pod: the API server forgets it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn delete(&self) -> Result<()> {
        let name = &self.plan.name;
        let at_once = DeleteParams::default().grace_period(0);
        answer(format!("delete pod {name}"), self.pods.delete(name, &at_once)).map(|_| ())
    }

    /// Patches the status as the kubelet does: all containers of a list at once.
    fn tell(&self) -> Result<()> {
        let list = |wanted: &dyn Fn(&str) -> bool| -> Value {
            let of = self.instances.iter().filter(|(name, _)| wanted(name));
            of.map(|(name, instance)| instance.status(name)).collect()
        };
        let debugger = |name: &str| self.debuggers.iter().any(|debugger| debugger == name);
        let status = json!({
            "phase": "Running",
            "initContainerStatuses": list(&|name| self.plan.is_init(name)),
            "containerStatuses": list(&|name| !self.plan.is_init(name) && !debugger(name)),
            "ephemeralContainerStatuses": list(&debugger),
        });
        let name = &self.plan.name;
        let patch = Patch::Merge(json!({"status": status}));
        answer(format!("status of pod {name}"), self.pods.patch_status(name, &PatchParams::default(), &patch))
            .map(|_| ())
    }
}

impl Instance {
    fn status(&self, name: &str) -> Value {
        let before = self.ids.len().checked_sub(2).map(|place| &self.ids[place]);
        let id = self.ids.last().map_or("", String::as_str);
        let ended = |id: &str| json!({"terminated": {"exitCode": 0, "containerID": runtime(id)}});
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        json!({
            "name": name,
            "image": "registry.example/as-pulled",
            "imageID": "sha256:0",
            "ready": !self.over,
            "restartCount": self.ids.len().saturating_sub(1),
            "containerID": runtime(id),
            "state": if self.over { ended(id) } else { running },
            "lastState": before.map_or_else(|| json!({}), |id| ended(id)),
        })
    }
}

fn runtime(id: &str) -> String {
    format!("containerd://{id}")
}
