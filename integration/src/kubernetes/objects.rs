//! Objects from manifests, whatever their kind.

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::Value;

use super::{Cluster, answer};

impl Cluster {
    /// Makes or changes an object, as `kubectl apply --server-side` does. Fields that the API server does not know are faults.
    ///
    /// # Errors
    /// When the API server refuses it or does not know its kind.
    pub fn apply(&self, manifest: &Value) -> Result<()> {
        self.send(manifest, &PatchParams::apply("harness").force().validation_strict())
    }

    /// Would [`Cluster::apply`] do it? Changes nothing.
    ///
    /// # Errors
    /// When the API server would refuse it or does not know its kind.
    pub fn would_apply(&self, manifest: &Value) -> Result<()> {
        self.send(manifest, &PatchParams::apply("harness").force().validation_strict().dry_run())
    }

    fn send(&self, manifest: &Value, how: &PatchParams) -> Result<()> {
        let text = |path: &str| manifest.pointer(path).and_then(Value::as_str);
        let (version, kind) = (text("/apiVersion").context("apiVersion")?, text("/kind").context("kind")?);
        let name = text("/metadata/name").context("a name")?;
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let objects: Api<DynamicObject> = match text("/metadata/namespace") {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        };
        answer(format!("{kind} {name}"), objects.patch(name, how, &Patch::Apply(manifest))).map(|_| ())
    }
}
