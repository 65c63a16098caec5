//! A real Kubernetes API server with its etcd on loopback, and the parts of a cluster that are not there, played through
//! the ordinary client.
//!
//! [`Cluster`] starts, kills and restarts the two processes and compacts their store. `accounts.rs` makes namespaces,
//! service accounts, rights and tokens. [`Node`] is a node's kubelet as far as the API server sees it. [`requests`] counts
//! what was asked of the API server, by its own audit log; [`judge`] compares what records say of pods with what is true of them.

mod accounts;
mod cluster;
mod install;
mod node;
mod objects;
mod pod;
pub mod requests;
mod truth;

pub use accounts::{Account, Right};
pub use cluster::{Cluster, Shape, connect};
pub(crate) use install::Program;
pub use node::{Node, NodePod};
pub use pod::PodPlan;
pub use truth::{Told, Truth, judge};

use std::fmt::Display;

use anyhow::{Context as _, Result};

use crate::http::RUNTIME;

/// Waits for an answer of the API server, wherever it is asked from.
///
/// # Errors
/// The client's, with what was asked.
pub fn answer<T>(what: impl Display, asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T> {
    RUNTIME.block_on(asked).with_context(|| format!("API server: {what}"))
}
