//! Namespaces, service accounts, what they may do, and their tokens.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Cluster, answer};
use crate::wait::wait_until;

const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Longer than any scenario.
const TOKEN_SECONDS: u64 = 24 * 3600;

/// A resource of the core group, and what may be done with it.
pub type Right<'a> = (&'a str, &'a [&'a str]);

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// As the API server calls it.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl Cluster {
    /// Makes a namespace and gives its UID.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn make_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<String> {
        let labels: Value = labels.iter().map(|&(key, value)| (key.to_owned(), json!(value))).collect();
        let wanted: Namespace = object(json!({"metadata": {"name": name, "labels": labels}}))?;
        let made = answer(format!("make namespace {name}"), self.all().create(&PostParams::default(), &wanted))?;
        made.metadata.uid.context("a namespace's UID")
    }

    /// Deletes a namespace with its pods, as a cluster's controllers would.
    ///
    /// # Errors
    /// When the API server refuses, or the namespace stays.
    pub fn delete_namespace(&self, name: &str) -> Result<()> {
        let at_once = DeleteParams::default().grace_period(0);
        let pods = self.objects::<Pod>(name);
        answer(format!("delete the pods of {name}"), pods.delete_collection(&at_once, &ListParams::default()))?;
        let namespaces = self.all::<Namespace>();
        answer(format!("delete namespace {name}"), namespaces.delete(name, &DeleteParams::default()))?;
        let mut ending = answer(format!("namespace {name}"), namespaces.get(name))?;
        ending.spec.get_or_insert_default().finalizers = Some(Vec::new());
        let plain = PostParams::default();
        let finalized = namespaces.replace_subresource("finalize", name, &plain, &ending);
        answer(format!("finalize namespace {name}"), finalized)?;
        wait_until("a namespace to be gone", GONE_WITHIN, || {
            answer("a namespace", namespaces.get_opt(name)).is_ok_and(|found| found.is_none())
        })
    }

    /// Makes a service account.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn make_account(&self, namespace: &str, name: &str) -> Result<Account> {
        let wanted: ServiceAccount = object(json!({"metadata": {"name": name}}))?;
        let accounts = self.objects::<ServiceAccount>(namespace);
        answer(format!("make account {name}"), accounts.create(&PostParams::default(), &wanted))?;
        Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Lets an account do this, and nothing else, in all namespaces.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn allow(&self, account: &Account, rights: &[Right<'_>]) -> Result<()> {
        let name = &account.name;
        let role = json!({"kind": "ClusterRole", "metadata": {"name": name}, "rules": rules(rights)});
        answer("a cluster role", self.all::<ClusterRole>().patch(name, &ours(), &Patch::Apply(versioned(role))))?;
        let binding = binding("ClusterRole", account);
        answer("its binding", self.all::<ClusterRoleBinding>().patch(name, &ours(), &Patch::Apply(binding)))?;
        Ok(())
    }

    /// Lets an account do this, and nothing else, in one namespace.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn allow_in(&self, namespace: &str, account: &Account, rights: &[Right<'_>]) -> Result<()> {
        let name = &account.name;
        let role = json!({"kind": "Role", "metadata": {"name": name}, "rules": rules(rights)});
        answer("a role", self.objects::<Role>(namespace).patch(name, &ours(), &Patch::Apply(versioned(role))))?;
        let bindings = self.objects::<RoleBinding>(namespace);
        answer("its binding", bindings.patch(name, &ours(), &Patch::Apply(binding("Role", account))))?;
        Ok(())
    }

    /// A token of an account for these audiences; for none, for the API server.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn token(&self, account: &Account, audiences: &[&str]) -> Result<String> {
        let request: TokenRequest =
            object(json!({"spec": {"audiences": audiences, "expirationSeconds": TOKEN_SECONDS}}))?;
        let accounts = self.objects::<ServiceAccount>(&account.namespace);
        let plain = PostParams::default();
        let made = answer("a token", accounts.create_token_request(&account.name, &plain, &request))?;
        Ok(made.status.context("a token")?.token)
    }

    /// What the API server says of a token that was presented to `audience`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn review(&self, token: &str, audience: &str) -> Result<TokenReviewStatus> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let made = answer("review a token", self.all::<TokenReview>().create(&PostParams::default(), &review))?;
        made.status.context("a reviewed token")
    }
}

/// An object from what a manifest would say of it.
pub(super) fn object<K: DeserializeOwned>(manifest: Value) -> Result<K> {
    serde_json::from_value(manifest).context("a manifest")
}

fn rules(rights: &[Right<'_>]) -> Value {
    rights.iter().map(|(resource, verbs)| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs})).collect()
}

fn binding(kind: &str, account: &Account) -> Value {
    let subject = json!({"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace});
    versioned(json!({
        "kind": format!("{kind}Binding"),
        "metadata": {"name": account.name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": account.name},
        "subjects": [subject],
    }))
}

fn versioned(mut manifest: Value) -> Value {
    manifest["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
    manifest
}

fn ours() -> PatchParams {
    PatchParams::apply("harness").force()
}
