//! What is constant for an epoch: who writes, where it goes, the encoded beginnings of its records, and what is said where it ends.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use fairlead_contract::{
    namespace::Namespace,
    record::{self, Head, KubernetesHead, LossReason, Metadata, Notice, NoticeKind, Source},
    topic::TopicName,
};
use serde::{Deserialize, Serialize};

use crate::{
    enrich::{PodFacts, Streams},
    tail::Count,
};

/// What JSON makes of the worst byte: `\u0000`.
const ESCAPED_BYTES_PER_BYTE: usize = 6;
/// What a record has behind its number besides the line, and what Kafka puts around a batch and a record.
const RECORD_REST_BYTES: usize = 512;
/// A record of less than that is of no use.
const LOG_BYTES_MIN: usize = 256;

/// What an epoch's records have in common.
#[derive(Debug)]
pub struct Origin {
    /// Where they go.
    pub topic: TopicName,
    /// The record's key.
    pub key: Vec<u8>,
    /// `pod uid/container/restart count/epoch`.
    run: String,
    head: Head,
    /// The streams whose lines are looked at for JSON objects.
    pub parse_json: Streams,
}

impl Origin {
    /// Encodes what is constant for an epoch of a container instance.
    pub fn new(topic: TopicName, host: &str, identity: &Identity, known: &Known, epoch: &str) -> Self {
        let key = record::key(&identity.namespace, &identity.pod, &identity.container).into_bytes();
        let head = head(host, identity, known, epoch);
        Self { topic, key, run: identity.run(epoch), head, parse_json: known.parse_json }
    }

    /// Takes what is known of the pod now; records that are made from here on say it.
    pub fn describe(&mut self, host: &str, identity: &Identity, known: &Known) {
        let epoch = self.run.rsplit('/').next().unwrap_or_default();
        self.head = head(host, identity, known, epoch);
        self.parse_json = known.parse_json;
    }

    /// Leaves out what is known of the pod, where a record of a topic that takes so many bytes has no room beside it. Returns whether it did.
    pub fn make_room(&mut self, host: &str, identity: &Identity, message_bytes_max: u64) -> bool {
        if self.log_bytes_max(message_bytes_max).is_some() {
            return false;
        }
        let before = self.head.bytes();
        let known = Known { metadata: Metadata::Partial, parse_json: self.parse_json, ..Known::default() };
        self.describe(host, identity, &known);
        self.head.bytes() < before
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Encodes a notice about one of these sources.
    pub fn encode_notice(&self, value: &mut Vec<u8>, notice: &Notice<'_>, again: bool) {
        value.clear();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos());
        record::encode_notice(value, &self.head, notice, again, time);
    }

    /// How many bytes of a line surely fit a record, where Kafka takes batches of so many bytes; none if that is too few to be of use.
    pub fn log_bytes_max(&self, message_bytes_max: u64) -> Option<usize> {
        let head = self.head.bytes() + self.key.len() + RECORD_REST_BYTES;
        let room = usize::try_from(message_bytes_max).unwrap_or(usize::MAX).checked_sub(head)? / ESCAPED_BYTES_PER_BYTE;
        (room >= LOG_BYTES_MIN).then_some(room)
    }

    /// The text in `fairlead.source`.
    pub fn source(&self, fd: usize) -> String {
        format!("{}/{fd}", self.run)
    }
}

/// Encodes the beginning of an epoch's records.
fn head(host: &str, identity: &Identity, known: &Known, epoch: &str) -> Head {
    let facts = known.facts.as_deref();
    let kubernetes = KubernetesHead {
        namespace_name: identity.namespace.as_str(),
        namespace_id: facts.and_then(|facts| facts.namespace_id.as_deref()),
        pod_name: &identity.pod,
        pod_id: &identity.pod_uid,
        container_name: &identity.container,
        host,
        docker_id: facts.and_then(|facts| facts.container_id(&identity.container, identity.restart)),
        container_image: facts.and_then(|facts| facts.containers.get(&identity.container)?.image.as_deref()),
        labels: facts.map(|facts| &facts.labels),
        annotations: facts.map(|facts| &facts.annotations),
        owner: facts.and_then(|facts| facts.owner.as_ref()),
        namespace_labels: facts.map(|facts| &facts.namespace_labels).filter(|labels| !labels.is_empty()),
        node_labels: facts.map(|facts| &facts.node_labels).filter(|labels| !labels.is_empty()),
    };
    let source = Source {
        pod_uid: identity.pod_uid.clone(),
        container: identity.container.clone(),
        restart: identity.restart,
        epoch: epoch.to_owned(),
        fd: 0,
    };
    Head::new(&kubernetes, known.metadata, &source)
}

/// What is known of the pod of an instance, besides its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What Kubernetes says of it.
    pub facts: Option<Arc<PodFacts>>,
    /// How its records are marked.
    pub metadata: Metadata,
    /// The streams whose lines are to be looked at for JSON objects.
    pub parse_json: Streams,
}

impl Default for Known {
    fn default() -> Self {
        Self { facts: None, metadata: Metadata::Path, parse_json: Streams::default() }
    }
}

/// Who wrote the lines, as the kubelet's path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// How often it had been restarted.
    pub restart: u32,
}

impl Identity {
    /// `pod uid/container/restart count/epoch`: a source without its last part.
    pub fn run(&self, epoch: &str) -> String {
        format!("{}/{}/{}/{epoch}", self.pod_uid, self.container, self.restart)
    }
}

/// Why a run of files ends where another one begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// Why.
    pub reason: LossReason,
    /// The epoch that goes on, if any does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What is said of each stream where a run ends, by `fd`.
pub fn ends(origin: &Origin, counts: &[Count; 3], end: Option<&Break>) -> Vec<(usize, Notice<'static>)> {
    let said = |fd: usize, count: Count| {
        let source = origin.source(fd);
        match end {
            None => Notice {
                lines: Some(count.lines),
                bytes: Some(count.bytes),
                ..Notice::new(NoticeKind::EndOfStream, source, count.lines)
            },
            Some(end) => {
                let (run, _) = origin.run.rsplit_once('/').unwrap_or_default();
                let keeps_all = matches!(end.reason, LossReason::TopicChanged | LossReason::GrammarChanged);
                Notice {
                    lines: keeps_all.then_some(0),
                    reason: Some(end.reason),
                    next_source: end.next.as_ref().map(|next| format!("{run}/{next}/{fd}").into()),
                    ..Notice::new(NoticeKind::Gap, source, count.lines)
                }
            }
        }
    };
    let keeps_all = end.is_none_or(|end| matches!(end.reason, LossReason::TopicChanged | LossReason::GrammarChanged));
    // Where lines may be missing they may be of either stream.
    let is_told = |fd: usize| !counts[fd].is_none() || (fd > 0 && !keeps_all);
    let mut notices: Vec<_> = (0..3).filter(|fd| is_told(*fd)).map(|fd| (fd, said(fd, counts[fd]))).collect();
    if notices.is_empty() && end.is_some() {
        notices.push((1, said(1, counts[1])));
    }
    notices
}
