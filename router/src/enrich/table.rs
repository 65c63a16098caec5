//! What is known of the node's pods: pure, told the time, asking nobody.
//!
//! A pod is stored under its UID; a static pod's mirror also under the hash it mirrors. A pod that is gone stays for a while, as its lines may still
//! come. What is known of namespaces is in [`tenures`](super::tenures).

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    PodFacts, PodPath,
    prune::{self, Pruned},
    tenures::{Answer, Ask, Tenure, Tenures},
};

/// How long a pod is known after it is gone, and how many such pods.
pub const GONE_AGE_MAX: Duration = Duration::from_secs(600);
const GONE_MAX: usize = 1_000;
/// Pods, gone ones included, and the memory for them, about.
const PODS_MAX: usize = 4_000;
const BYTES_MAX: usize = 16 << 20;

/// All that is known.
#[derive(Debug, Default)]
pub struct Table {
    pods: HashMap<String, Entry>,
    /// Hash of a static pod to the UIDs of those that say to mirror it, the latest last.
    mirrors: HashMap<String, Vec<String>>,
    tenures: Tenures,
    node_labels: BTreeMap<String, String>,
    /// Those that are gone, the oldest first; one that came back is in it in vain.
    gone: VecDeque<(Instant, String)>,
    live: usize,
    bytes: usize,
    list: Option<List>,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<PodFacts>,
    name: String,
    created: Option<Timestamp>,
    mirror: Option<String>,
    tenure: Tenure,
    gone_at: Option<Instant>,
    bytes: usize,
}

/// A list of all pods that is being told.
#[derive(Debug)]
struct List {
    /// Whether no pod was there when it began.
    is_first: bool,
    seen: HashSet<String>,
    /// Those that were not known before.
    new: Vec<Pruned>,
}

/// What a change came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Some answer about a pod is another one now.
    pub facts: bool,
    /// Something of a pod was left out, which was not so before.
    pub cut: bool,
    /// Pods that were dropped to make room, though they are there.
    pub forgotten: usize,
}

impl Change {
    fn and(&mut self, other: Change) {
        self.facts |= other.facts;
        self.cut |= other.cut;
        self.forgotten += other.forgotten;
    }
}

impl Table {
    /// What is known of a pod.
    pub fn find(&self, path: PodPath<'_>) -> Option<Arc<PodFacts>> {
        if let Some(entry) = self.pods.get(path.uid) {
            return Some(Arc::clone(&entry.facts));
        }
        let mirrors = self.mirrors.get(path.uid)?.iter().rev().filter_map(|uid| self.pods.get(uid));
        let fits = |entry: &&Entry| entry.name == path.pod && entry.facts.namespace == path.namespace;
        let fitting: Vec<&Entry> = mirrors.filter(fits).collect();
        let best = fitting.iter().find(|entry| entry.gone_at.is_none()).or(fitting.first())?;
        Some(Arc::clone(&best.facts))
    }

    /// Pods that are there, and pods that are gone.
    pub fn counts(&self) -> (usize, usize) {
        (self.live, self.pods.len() - self.live)
    }

    /// What is known, and to be asked, of namespaces.
    pub fn tenures(&mut self) -> &mut Tenures {
        &mut self.tenures
    }

    /// A list of all pods begins.
    pub fn begin_list(&mut self) {
        self.list = Some(List { is_first: self.live == 0, seen: HashSet::new(), new: Vec::new() });
    }

    /// A pod of the list. One that is new to us waits for the list's end: if the pods that were in its namespace are gone, so may the namespace be.
    pub fn listed(&mut self, pod: Pruned) -> Change {
        let is_known = self.pods.get(&pod.uid).is_some_and(|entry| entry.gone_at.is_none());
        if let Some(list) = &mut self.list {
            if list.seen.len() < PODS_MAX {
                list.seen.insert(pod.uid.clone());
            }
            // The first list is told as it comes: whoever waits need not wait for all of it.
            if !list.is_first && !is_known {
                if list.new.len() < PODS_MAX {
                    list.new.push(pod);
                }
                return Change::default();
            }
        }
        self.apply(pod)
    }

    /// The list is whole: whoever was not in it is gone.
    pub fn end_list(&mut self, now: Instant) -> Change {
        let Some(list) = self.list.take() else { return Change::default() };
        let is_gone = |uid: &String, entry: &Entry| entry.gone_at.is_none() && !list.seen.contains(uid);
        let gone: Vec<String> =
            self.pods.iter().filter(|(uid, entry)| is_gone(uid, entry)).map(|(uid, _)| uid.clone()).collect();
        let mut change = Change { facts: !gone.is_empty(), ..Change::default() };
        for uid in &gone {
            self.leave(uid, now);
        }
        for pod in list.new {
            change.and(self.apply(pod));
        }
        change
    }

    /// A pod is there, as told.
    pub fn apply(&mut self, pod: Pruned) -> Change {
        let there = self.pods.get(&pod.uid).filter(|entry| entry.gone_at.is_none()).map(|entry| entry.tenure);
        let tenure = there.unwrap_or_else(|| {
            self.live += 1;
            self.tenures.enter(&pod.facts.namespace)
        });
        let (uid, namespace) = (pod.uid.clone(), pod.facts.namespace.clone());
        let mut change = self.store(pod, tenure, None);
        if let Some(answer) = self.tenures.known(&namespace).cloned() {
            change.facts |= self.add_namespace(&uid, &answer);
        }
        change.forgotten = self.make_room();
        change
    }

    /// A pod is gone, and was as told when it was last seen. One that was never seen while it was there is remembered too: its lines may still come.
    pub fn delete(&mut self, pod: Pruned, now: Instant) -> Change {
        let uid = pod.uid.clone();
        let change = match self.pods.get(&uid).map(|entry| (entry.tenure, entry.gone_at)) {
            Some((tenure, gone_at)) => self.store(pod, tenure, gone_at),
            None => self.apply(pod),
        };
        Change { facts: self.leave(&uid, now) || change.facts, ..change }
    }

    /// What was answered about a namespace. It counts for those pods alone that were there when it was asked, or came while these were, and were made
    /// after the namespace was: another one may have taken its name since. `refresh_at`: when it is asked again.
    pub fn answer(&mut self, ask: &Ask, answer: Answer, refresh_at: Option<Instant>) -> bool {
        let is_of_it = |entry: &Entry| entry.tenure == ask.tenure;
        let uids: Vec<String> =
            self.pods.iter().filter(|(_, entry)| is_of_it(entry)).map(|(uid, _)| uid.clone()).collect();
        let mut changed = false;
        for uid in uids {
            changed |= self.add_namespace(&uid, &answer);
        }
        self.tenures.answered(ask, answer, refresh_at);
        changed
    }

    /// The node has these labels, of those that go into records.
    pub fn label_node(&mut self, labels: BTreeMap<String, String>) -> bool {
        if self.node_labels == labels {
            return false;
        }
        for entry in self.pods.values_mut().filter(|entry| entry.gone_at.is_none()) {
            Arc::make_mut(&mut entry.facts).node_labels.clone_from(&labels);
        }
        self.node_labels = labels;
        true
    }

    /// Forgets those that are gone for long, or are too many. Whether it forgot one, and when the next is due.
    pub fn forget_gone(&mut self, now: Instant) -> (bool, Option<Instant>) {
        let mut forgot = false;
        while let Some((at, uid)) = self.gone.front() {
            let (at, uid) = (*at, uid.clone());
            let is_it = self.pods.get(&uid).is_some_and(|entry| entry.gone_at == Some(at));
            if is_it && now < at + GONE_AGE_MAX && self.pods.len() - self.live <= GONE_MAX {
                return (forgot, Some(at + GONE_AGE_MAX));
            }
            self.gone.pop_front();
            if is_it {
                self.remove(&uid);
                forgot = true;
            }
        }
        (forgot, None)
    }

    /// Puts the facts in their place, with what was known besides.
    fn store(&mut self, mut pod: Pruned, tenure: Tenure, gone_at: Option<Instant>) -> Change {
        let before = self.pods.get(&pod.uid);
        pod.facts.node_labels.clone_from(match (gone_at, before) {
            (Some(_), Some(before)) => &before.facts.node_labels,
            _ => &self.node_labels,
        });
        pod.facts.gone = gone_at.is_some();
        if let Some(before) = before {
            prune::remember_ids(&mut pod.facts, &before.facts);
            pod.facts.namespace_id.clone_from(&before.facts.namespace_id);
            pod.facts.namespace_labels.clone_from(&before.facts.namespace_labels);
        }
        let change = Change {
            facts: before.is_none_or(|before| *before.facts != pod.facts),
            cut: pod.facts.cut && !before.is_some_and(|before| before.facts.cut),
            forgotten: 0,
        };
        let bytes = prune::cost(&pod);
        let Pruned { uid, name, created, mirror, facts } = pod;
        let facts = match before {
            Some(before) if !change.facts => Arc::clone(&before.facts),
            _ => Arc::new(facts),
        };
        let entry = Entry { facts, name, created, mirror: mirror.clone(), tenure, gone_at, bytes };
        let old = self.pods.insert(uid.clone(), entry);
        self.bytes += bytes;
        self.bytes -= old.as_ref().map_or(0, |old| old.bytes);
        let old_mirror = old.and_then(|old| old.mirror);
        if old_mirror != mirror {
            self.unmirror(old_mirror, &uid);
            if let Some(hash) = mirror {
                self.mirrors.entry(hash).or_default().push(uid);
            }
        }
        change
    }

    /// A pod gets its namespace's UID and labels, if they are of the namespace that it was made in. Whether that changed it.
    fn add_namespace(&mut self, uid: &str, answer: &Answer) -> bool {
        let Some(entry) = self.pods.get_mut(uid) else { return false };
        let facts = &entry.facts;
        let is_gone = entry.gone_at.is_some();
        let fits = match (&facts.namespace_id, answer.created, entry.created) {
            (Some(known), ..) => *known == answer.uid && !is_gone,
            // Times are whole seconds. Of a pod that is gone the namespace may be gone too, and made again within the same second.
            (None, Some(namespace), Some(pod)) if is_gone => namespace < pod,
            (None, Some(namespace), Some(pod)) => namespace <= pod,
            (None, ..) => false,
        };
        if !fits || facts.namespace_id.is_some() && facts.namespace_labels == answer.labels {
            return false;
        }
        let facts = Arc::make_mut(&mut entry.facts);
        facts.namespace_id = Some(answer.uid.clone());
        facts.namespace_labels.clone_from(&answer.labels);
        true
    }

    /// A pod is gone now. Whether it was not before.
    fn leave(&mut self, uid: &str, now: Instant) -> bool {
        let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.gone_at.is_none()) else { return false };
        entry.gone_at = Some(now);
        Arc::make_mut(&mut entry.facts).gone = true;
        self.gone.push_back((now, uid.to_owned()));
        self.live -= 1;
        self.tenures.leave(&entry.facts.namespace);
        true
    }

    fn remove(&mut self, uid: &str) {
        let Some(entry) = self.pods.remove(uid) else { return };
        self.bytes -= entry.bytes;
        self.unmirror(entry.mirror, uid);
        if entry.gone_at.is_none() {
            self.live -= 1;
            self.tenures.leave(&entry.facts.namespace);
        }
    }

    fn unmirror(&mut self, hash: Option<String>, uid: &str) {
        let Some(hash) = hash else { return };
        if let Some(uids) = self.mirrors.get_mut(&hash) {
            uids.retain(|other| other != uid);
            if uids.is_empty() {
                self.mirrors.remove(&hash);
            }
        }
    }

    /// Drops pods while there are too many: first those that are gone, the oldest first; then the largest of the namespace that takes most room.
    /// How many that are there.
    fn make_room(&mut self) -> usize {
        let mut forgotten = 0;
        while self.pods.len() > PODS_MAX || self.bytes > BYTES_MAX {
            if let Some((at, uid)) = self.gone.pop_front() {
                if self.pods.get(&uid).is_some_and(|entry| entry.gone_at == Some(at)) {
                    self.remove(&uid);
                }
                continue;
            }
            let Some(uid) = self.largest() else { return forgotten };
            self.remove(&uid);
            forgotten += 1;
        }
        forgotten
    }

    fn largest(&self) -> Option<String> {
        let mut bytes: HashMap<&str, usize> = HashMap::new();
        for entry in self.pods.values() {
            *bytes.entry(&entry.facts.namespace).or_default() += entry.bytes;
        }
        let (namespace, _) = bytes.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        let of_it = self.pods.iter().filter(|(_, entry)| entry.facts.namespace == namespace);
        of_it.max_by_key(|(_, entry)| entry.bytes).map(|(uid, _)| uid.clone())
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
