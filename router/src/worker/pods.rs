//! What Kubernetes knows of the pods that write here: waited for by not reading, compared with the path, kept beside the positions.
//!
//! It decorates: no number, no topic and no key depends on it. It is looked at when its version changes, and the beginnings of records are encoded
//! anew only where something of them did.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_contract::record::{Metadata, Notice, NoticeKind};
use fairlead_service_kit::telemetry::field;
use tracing::{error, info, warn};

use super::Worker;
use crate::{
    checkpoint::{InstanceKey, PodState, Store},
    discover::parse_pod_folder,
    enrich::{Expected, PodFacts, PodPath, Pods, Standing, Wishes},
    pipeline::Known,
};

/// How often it is looked whether there is news.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pods that `/readyz` names where they are held back.
const NAMED_MAX: usize = 3;

/// The pods that write here, by their folders' names.
#[derive(Debug)]
pub(super) struct KnownPods {
    pods: BTreeMap<String, KnownPod>,
    /// Of what was asked last.
    version: u64,
    expected: Expected,
    looked_at: Instant,
    /// Instances whose first read waits.
    waiting: BTreeSet<InstanceKey>,
    /// Pods that the API server has in another namespace than their path.
    elsewhere: BTreeSet<String>,
    /// Pods that changed since they were stored.
    dirty: BTreeSet<String>,
}

/// What is known of one pod.
#[derive(Debug, Default)]
struct KnownPod {
    facts: Option<Arc<PodFacts>>,
    wishes: Wishes,
    /// What the last router told of, as nobody understands it.
    told: Vec<String>,
}

/// What became of what is known of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    None,
    /// The same, kept once by those who know it.
    Same,
    Other,
}

impl KnownPod {
    /// Asks for what is known now. What was known once stays known: a pod that is gone still has lines to be sent.
    fn ask(&mut self, folder: &str, pods: &dyn Pods) -> News {
        let Some((namespace, pod, uid)) = parse_pod_folder(folder) else { return News::None };
        let Some(facts) = pods.pod(PodPath { namespace: namespace.as_str(), pod, uid }) else { return News::None };
        let news = match &self.facts {
            Some(known) if Arc::ptr_eq(known, &facts) => News::None,
            Some(known) if *known == facts => News::Same,
            _ => News::Other,
        };
        if news == News::Other {
            self.wishes = Wishes::read(&facts.wishes);
        }
        self.facts = Some(facts);
        news
    }

    /// Whether the API server has a pod in another namespace than its path.
    fn is_elsewhere(&self, folder: &str) -> bool {
        let Some((namespace, _, _)) = parse_pod_folder(folder) else { return false };
        self.facts.as_ref().is_some_and(|facts| facts.namespace != namespace.as_str())
    }

    /// What the records of an instance say of it.
    fn known(&self, key: &InstanceKey, expected: Expected) -> Known {
        let metadata = match &self.facts {
            Some(facts) => facts.metadata(&key.container, key.restart),
            None if expected.pods == Standing::Known => Metadata::Partial,
            None => Metadata::Path,
        };
        Known { facts: self.facts.clone(), metadata, parse_json: self.wishes.parsed(&key.container) }
    }
}

impl KnownPods {
    /// No pod writes here yet.
    pub(super) fn new(pods: &dyn Pods) -> Self {
        Self {
            pods: BTreeMap::new(),
            // Asked before anything else, so that whatever comes later is news.
            version: pods.version(),
            expected: Expected::of(pods),
            looked_at: Instant::now(),
            waiting: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Whether some instance waits for news.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether something is not stored yet.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What nobody understands of a pod's wishes.
    pub(super) fn faults_of(&self, folder: &str) -> &[String] {
        self.pods.get(folder).map_or(&[], |pod| pod.wishes.faults())
    }

    /// Whether the readers of a pod were told of that by the last router.
    pub(super) fn were_told(&self, folder: &str) -> bool {
        self.pods.get(folder).is_none_or(|pod| pod.told == pod.wishes.faults())
    }

    /// Puts what changed into the next write. Returns of which pods.
    pub(super) fn put_into(&mut self, store: &mut Store) -> BTreeSet<String> {
        let changed = std::mem::take(&mut self.dirty);
        for folder in &changed {
            match self.pods.get(folder).and_then(|pod| pod.facts.as_ref()) {
                Some(facts) => {
                    store.put_pod(&PodState { pod_folder: folder.clone(), facts: PodFacts::clone(facts) });
                }
                None => store.remove_pod(folder),
            }
        }
        changed
    }

    /// What was put is not durable yet.
    pub(super) fn not_stored(&mut self, changed: BTreeSet<String>) {
        self.dirty.extend(changed);
    }
}

impl Worker {
    /// Takes up what the last router knew, unless nobody asks the API server any more.
    pub(super) fn take_up_pods(&mut self, stored: BTreeMap<String, PodState>) {
        let is_off = self.pods.expected.pods == Standing::Off;
        for (folder, PodState { facts, .. }) in stored {
            if is_off {
                self.pods.dirty.insert(folder);
                continue;
            }
            let wishes = Wishes::read(&facts.wishes);
            let told = wishes.faults().to_vec();
            let mut pod = KnownPod { facts: Some(Arc::new(facts)), wishes, told };
            if pod.ask(&folder, self.parts.pods.as_ref()) == News::Other {
                self.pods.dirty.insert(folder.clone());
            }
            self.pods.pods.insert(folder, pod);
        }
    }

    /// Looks whether there is news of pods, now and then.
    pub(super) fn look_at_pods(&mut self) {
        if self.pods.looked_at.elapsed() >= LOOK_EVERY {
            self.take_news();
        }
    }

    /// Takes in what became known of pods.
    pub(super) fn take_news(&mut self) {
        self.pods.looked_at = Instant::now();
        let version = self.parts.pods.version();
        if std::mem::replace(&mut self.pods.version, version) == version {
            return;
        }
        let expected = Expected::of(self.parts.pods.as_ref());
        let expects_other = std::mem::replace(&mut self.pods.expected, expected) != expected;
        let mut news_of = Vec::new();
        for (folder, pod) in &mut self.pods.pods {
            let news = pod.ask(folder, self.parts.pods.as_ref());
            if news == News::Other {
                self.pods.dirty.insert(folder.clone());
            }
            if news != News::None || expects_other {
                news_of.push(folder.clone());
            }
        }
        for folder in news_of {
            self.describe_pod(&folder);
        }
    }

    /// Tells a pod's instances what is known of it now.
    fn describe_pod(&mut self, folder: &str) {
        let Some(pod) = self.pods.pods.get(folder) else { return };
        let (is_elsewhere, expected) = (pod.is_elsewhere(folder), self.pods.expected);
        let mut held_back = Vec::new();
        for (key, instance) in self.instances.range_mut(first_of(folder)..) {
            if key.pod_folder != folder {
                break;
            }
            instance.describe(&self.settings.node_name, pod.known(key, expected));
            let was_elsewhere = std::mem::replace(&mut instance.is_elsewhere, is_elsewhere);
            let has_news = instance.take_faults(pod.wishes.faults());
            if was_elsewhere || has_news || !instance.begun {
                held_back.push(key.clone());
            }
        }
        held_back.iter().for_each(|key| self.queue(key));
        self.note_elsewhere(folder, is_elsewhere);
    }

    fn keys_of(&self, folder: &str) -> Vec<InstanceKey> {
        let of_pod = self.instances.range(first_of(folder)..).map(|(key, _)| key);
        of_pod.take_while(|key| key.pod_folder == folder).cloned().collect()
    }

    /// What is known for an instance that is new, and whether its pod is another namespace's.
    pub(super) fn know(&mut self, key: &InstanceKey) -> (Known, bool) {
        let folder = &key.pod_folder;
        if !self.pods.pods.contains_key(folder) {
            let mut pod = KnownPod::default();
            if pod.ask(folder, self.parts.pods.as_ref()) == News::Other {
                self.pods.dirty.insert(folder.clone());
            }
            self.pods.pods.insert(folder.clone(), pod);
        }
        let Some(pod) = self.pods.pods.get(folder) else { return (Known::default(), false) };
        let (known, is_elsewhere) = (pod.known(key, self.pods.expected), pod.is_elsewhere(folder));
        self.note_elsewhere(folder, is_elsewhere);
        (known, is_elsewhere)
    }

    /// Owes an instance's readers what nobody understands of its pod's wishes.
    pub(super) fn tell_faults(&mut self, key: &InstanceKey) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(epoch) = instance.epochs.last().filter(|_| !instance.faults_told) else { return };
        instance.faults_told = true;
        let annotations = instance.faults.clone();
        let source = epoch.pipeline.origin().source(1);
        let seq = epoch.pipeline.next_numbers()[1];
        let notice = Notice { annotations, ..Notice::new(NoticeKind::Settings, source, seq) };
        let (id, partition, at) = (epoch.id.clone(), epoch.partition, epoch.acknowledged);
        let (namespace, folder) = (instance.identity.namespace.clone(), key.pod_folder.clone());
        let names = instance.faults.join(", ");
        self.parts.metrics.annotations_refused(&namespace).inc();
        self.complain(&format!("annotations of {folder}"), |left_out| {
            warn!({ field::K8S_NAMESPACE_NAME } = %namespace, { field::FILE_PATH } = folder, annotations = names, left_out, "annotations of a pod are not understood and count as absent");
        });
        self.owe(key, &id, partition, vec![(1, notice)], &at);
    }

    /// Whether an instance is not read, nor anything of it sent: its first line waits a while for what is known of its pod, or its pod is another
    /// namespace's.
    pub(super) fn holds_back(&mut self, key: &InstanceKey) -> bool {
        let Some(instance) = self.instances.get_mut(key) else { return false };
        if instance.begun || instance.is_elsewhere {
            return instance.is_elsewhere;
        }
        let facts = instance.known.facts.as_deref();
        let now = Instant::now();
        let wait = (instance.since + self.settings.metadata_wait).saturating_duration_since(now);
        if !wait.is_zero() && self.pods.expected.is_awaited(facts, &key.container, key.restart) {
            self.pods.waiting.insert(key.clone());
            self.later(key, wait);
            return true;
        }
        instance.begun = true;
        self.parts.metrics.first_read(instance.known.metadata).inc();
        self.pods.waiting.remove(key);
        false
    }

    /// An instance is gone; its pod is forgotten with the last one.
    pub(super) fn forget_pod_of(&mut self, key: &InstanceKey) {
        self.pods.waiting.remove(key);
        let folder = &key.pod_folder;
        if self.keys_of(folder).is_empty() {
            self.forget_pod(folder);
        }
    }

    fn forget_pod(&mut self, folder: &str) {
        self.pods.elsewhere.remove(folder);
        if self.pods.pods.remove(folder).is_some() {
            self.pods.dirty.insert(folder.to_owned());
        }
    }

    /// Forgets the pods of which nothing is left to be read or sent.
    pub(super) fn forget_pods(&mut self) {
        let folders: Vec<_> = self.pods.pods.keys().cloned().collect();
        for folder in folders {
            if self.keys_of(&folder).is_empty() {
                self.forget_pod(&folder);
            }
        }
    }

    fn note_elsewhere(&mut self, folder: &str, is_elsewhere: bool) {
        if !is_elsewhere {
            self.pods.elsewhere.remove(folder);
            return;
        }
        self.pods.elsewhere.insert(folder.to_owned());
        self.say_elsewhere(folder);
    }

    fn say_elsewhere(&mut self, folder: &str) {
        let facts = self.pods.pods.get(folder).and_then(|pod| pod.facts.clone());
        let namespace = facts.map(|facts| facts.namespace.clone()).unwrap_or_default();
        self.complain(&format!("namespace of {folder}"), |left_out| {
            error!(
                { field::FILE_PATH } = folder,
                namespace,
                left_out,
                "the API server has this pod in another namespace than its path: nothing of it is sent"
            );
        });
    }

    /// Tells metrics and readiness who waits and who is held back.
    pub(super) fn report_pods(&mut self) {
        self.parts.metrics.waiting_for_metadata.set(self.pods.waiting.len() as i64);
        let elsewhere = self.pods.elsewhere.clone();
        let before = self.parts.metrics.pods_elsewhere.set(elsewhere.len() as i64);
        if elsewhere.is_empty() {
            self.parts.readiness.clear("pod_namespaces");
            if before > 0 {
                info!("no pod is in another namespace than its path any more");
            }
            return;
        }
        elsewhere.iter().for_each(|folder| self.say_elsewhere(folder));
        let named: Vec<_> = elsewhere.iter().take(NAMED_MAX).map(String::as_str).collect();
        let text = format!(
            "nothing is sent of {} pods that the API server has in another namespace than their path: {}",
            elsewhere.len(),
            named.join(", ")
        );
        self.parts.readiness.note("pod_namespaces", text);
    }
}

/// Before every instance of a pod.
fn first_of(folder: &str) -> InstanceKey {
    InstanceKey { pod_folder: folder.to_owned(), container: String::new(), restart: 0 }
}
