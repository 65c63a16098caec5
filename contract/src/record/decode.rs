//! The reader of the value. It takes any order of members and ignores members that it does not know.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Chunk;

/// One record of a namespace's topic.
#[derive(Debug, Deserialize)]
pub struct Record<'a> {
    /// Where the line comes from.
    #[serde(borrow)]
    pub kubernetes: Kubernetes<'a>,
    /// Its number and how it came here.
    #[serde(borrow)]
    pub fairlead: Provenance<'a>,
    /// The line's own time, RFC 3339 in UTC.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// `stdout`, `stderr`, or `fairlead` for a notice.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// The line.
    #[serde(borrow)]
    pub log: Cow<'a, str>,
    /// The line once more as the JSON object that it is, where the pod asked for that.
    #[serde(borrow)]
    pub log_processed: Option<&'a RawValue>,
}

/// What is known of the pod.
#[derive(Debug, Deserialize)]
pub struct Kubernetes<'a> {
    /// The namespace in the kubelet's path.
    #[serde(borrow)]
    pub namespace_name: Cow<'a, str>,
    /// The namespace's UID, where known.
    pub namespace_id: Option<Cow<'a, str>>,
    /// The pod's name.
    #[serde(borrow)]
    pub pod_name: Cow<'a, str>,
    /// The pod's UID in the kubelet's path.
    #[serde(borrow)]
    pub pod_id: Cow<'a, str>,
    /// The container's name.
    #[serde(borrow)]
    pub container_name: Cow<'a, str>,
    /// The node.
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    /// The container's id in the runtime.
    pub docker_id: Option<Cow<'a, str>>,
    /// The container's image.
    pub container_image: Option<Cow<'a, str>>,
    /// The pod's labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Those annotations of the pod that the router was told to take.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The workload that owns the pod.
    pub owner: Option<Owner>,
    /// Those labels of the namespace that the router was told to take.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// Those labels of the node that the router was told to take.
    pub node_labels: Option<BTreeMap<String, String>>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its kind, for example `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Provenance: which physical lines the record covers.
#[derive(Debug, Deserialize)]
pub struct Provenance<'a> {
    /// `path` or `partial`; absent where all was known.
    pub metadata: Option<Cow<'a, str>>,
    /// `pod uid/container/restart count/epoch/fd`; see [`super::Source`].
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The number of the first physical line.
    pub seq: u64,
    /// How many physical lines it covers.
    #[serde(default = "one")]
    pub lines: u64,
    /// How many lines directly before it were left out.
    #[serde(default)]
    pub left_out: u64,
    /// Whether it may repeat an earlier record.
    #[serde(default)]
    pub again: bool,
    /// Set on a piece of a long line.
    pub chunk: Option<Chunk>,
    /// Set on a notice: its kind and numbers.
    #[serde(borrow)]
    pub notice: Option<&'a RawValue>,
}

fn one() -> u64 {
    1
}

/// A Kafka value that is not a record. Its text names the place, never the content.
#[derive(Debug, thiserror::Error)]
#[error("not a record at line {line}, column {column} of the value")]
pub struct RecordError {
    line: usize,
    column: usize,
}

impl<'a> Record<'a> {
    /// Parses one Kafka value.
    ///
    /// # Errors
    /// [`RecordError`] where the value is not JSON or a member that is always there is missing or of another type.
    pub fn parse(value: &'a [u8]) -> Result<Self, RecordError> {
        serde_json::from_slice(value).map_err(|error| RecordError { line: error.line(), column: error.column() })
    }
}
