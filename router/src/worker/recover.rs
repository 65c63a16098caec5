//! Start: stored positions and held links become instances again. Whatever is damaged or missing costs repeats, never lines.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_contract::{record::LossReason, topic::Route};
use fairlead_service_kit::telemetry::field;
use tracing::{info, warn};

use super::{Worker, WorkerError, instance::Link, owed::OwedNotice, place::Reason};
use crate::{
    checkpoint::{EpochState, FileState, InstanceKey, InstanceState},
    discover::parse_pod_folder,
    hold::HeldFolder,
    parse::{Grammar, docker},
    pipeline::{Break, ends},
    tail::{Epoch, Place, Positions, Source, is_gzip, is_same},
};

impl Worker {
    /// Takes up stored positions and held links. Returns whether this is the very first start: nothing was stored and nothing is held.
    pub(super) fn recover(
        &mut self,
        states: BTreeMap<InstanceKey, InstanceState>,
        ended_clean: bool,
        is_new: bool,
    ) -> Result<bool, WorkerError> {
        let links = self.held.list()?;
        let first_start = is_new && links.is_empty();
        if is_new && !links.is_empty() {
            self.state_lost = true;
            warn!(
                links = links.len(),
                "the positions are lost; all held files are read again from their beginning, under new epochs"
            );
        }
        let mut by_key: BTreeMap<InstanceKey, BTreeSet<u32>> =
            states.keys().map(|key| (key.clone(), BTreeSet::new())).collect();
        for held in links {
            by_key.entry(held.key).or_default().insert(held.link);
        }
        let mut states = states;
        for (key, links) in by_key {
            self.take_up(&key, states.remove(&key), &links, ended_clean);
        }
        Ok(first_start)
    }

    fn take_up(&mut self, key: &InstanceKey, state: Option<InstanceState>, links: &BTreeSet<u32>, ended_clean: bool) {
        let route = parse_pod_folder(&key.pod_folder).map(|(namespace, _, _)| self.settings.topics.route(&namespace));
        if matches!(route, None | Some(Route::Excluded)) {
            info!(source = %key, "excluded now: held files are let go unread");
            links.iter().for_each(|link| self.let_go_of(key, *link));
            self.held.tidy(key);
            self.store.remove(key);
            return;
        }
        let held = self.held.clone();
        let links = &self.hold_again(key, state.as_ref(), links);
        if self.instance(key).is_none() {
            return;
        }
        let were_told = state.is_some() && self.pods.were_told(&key.pod_folder);
        let Some(instance) = self.instances.get_mut(key) else { return };
        instance.faults_told |= were_told;
        instance.next_link = state
            .as_ref()
            .map_or(0, |state| state.next_link)
            .max(links.last().map_or(0, |link| link.saturating_add(1)));
        for number in links {
            if let Ok(stat) = held.stat(key, *number) {
                // After a clean end nothing beyond the positions was sent; only what has no position may have been.
                let compressed = held.file(key, *number).and_then(|file| is_gzip(&file)).unwrap_or(false);
                let bytes_at_start = if compressed { u64::MAX } else { stat.bytes };
                let grammar = grammar_of(state.as_ref(), &held, key, *number);
                instance.links.insert(*number, Link { inode: stat.inode, name: None, bytes_at_start, grammar });
            }
        }
        let (epochs, owed) = state.map(|state| (state.epochs, state.owed)).unwrap_or_default();
        instance.owed = owed.into_iter().map(OwedNotice::recovered).collect();
        // This router's account begins with what it still has to announce.
        instance.owed.iter().for_each(|owed| instance.counters.take_in_hand(owed.announces()));
        let placed: BTreeSet<_> = epochs.iter().flat_map(|epoch| epoch.files.iter().map(|file| file.link)).collect();
        instance.unplaced = links.difference(&placed).copied().collect();
        for epoch in epochs {
            self.take_up_epoch(key, epoch, links, ended_clean);
        }
        self.dirty.insert(key.clone());
        self.queue(key);
    }

    fn take_up_epoch(&mut self, key: &InstanceKey, mut state: EpochState, links: &BTreeSet<u32>, ended_clean: bool) {
        if std::mem::take(&mut state.abandoned) {
            if state.files.pop().is_some_and(|file| !links.contains(&file.link)) {
                self.instances.entry(key.clone()).and_modify(|instance| instance.lost_links = true);
            }
            let over = state.files.last().is_none_or(|file| file.place < state.at.lowest().file);
            if over
                && !state.finished
                && let Some(Break { reason, next }) = state.broken.clone()
            {
                self.owe_end(key, &state, Some(reason), next.as_deref());
            }
            state.finished |= over;
        }
        let lowest = state.at.lowest().file;
        let lost =
            !state.finished && state.files.iter().any(|file| file.place >= lowest && !links.contains(&file.link));
        state.files.retain(|file| links.contains(&file.link));
        if state.finished || state.files.is_empty() && !lost {
            if !state.files.is_empty() {
                self.resume(key, &state, ended_clean);
            }
            return;
        }
        if lost {
            // What the kubelet still has of it is read again.
            self.instances.entry(key.clone()).and_modify(|instance| instance.lost_links = true);
            let left: Vec<_> = state.files.iter().filter(|file| file.place >= lowest).map(|file| file.link).collect();
            self.begin_again(key, &left, &state, Reason::LinkLost);
        } else if !state.is_sound() || !self.is_unchanged(key, &state) {
            let left: Vec<_> = state.files.iter().filter(|file| file.place >= lowest).map(|file| file.link).collect();
            self.begin_again(key, &left, &state, Reason::Changed);
        } else if let Some(reason) = self.other_rules(key, &state) {
            let fresh = EpochState {
                epoch: crate::tail::new_epoch_id(),
                topic: self.topic_of(key),
                partition: None,
                grammar: self.grammar_of_first(key, &state).version(),
                at: state.at.renumbered(),
                // Their first numbers were those of the run that ends here.
                files: state.files.iter().map(|file| FileState { first: None, ..*file }).collect(),
                ..state.clone()
            };
            let old = state;
            self.owe_end(key, &old, reason.loss(), Some(&fresh.epoch));
            self.begin(key, &fresh, reason);
        } else {
            self.resume(key, &state, ended_clean);
        }
    }

    /// Goes on where the epoch was left.
    fn resume(&mut self, key: &InstanceKey, state: &EpochState, ended_clean: bool) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let again = if ended_clean {
            Place::default()
        } else {
            super::place::again_until(state, |link| instance.links.get(&link).map_or(0, |link| link.bytes_at_start))
        };
        instance.begin(state, &self.settings.node_name, again, None, None);
        let known = state.guard.as_ref().zip(instance.epochs.last_mut());
        if let Some((guard, epoch)) = known.filter(|_| !state.finished)
            && let Some(file) = epoch.file_at(guard.place)
            && let Err(error) = self.held.file(key, file.state.link).and_then(|file| epoch.known_by(&file, guard))
        {
            warn!(source = %key, { field::ERROR } = %error, "cannot take up the proof of a held file; it is read on without");
        }
    }

    /// Reads these files again from their beginning, as nothing is known of them for sure.
    fn begin_again(&mut self, key: &InstanceKey, links: &[u32], old: &EpochState, reason: Reason) {
        if links.is_empty() {
            self.owe_end(key, old, reason.loss(), None);
            warn!(source = %key, epoch = old.epoch, { field::REASON } = reason.as_str(), "an epoch ends here: its held files are gone");
            if let Some(instance) = self.instances.get(key) {
                self.parts.metrics.epochs_started(&instance.identity.namespace, "files_lost").inc();
            }
            return;
        }
        let grammar = self.instances.get(key).map_or_else(Grammar::default, |instance| instance.grammar_of(links[0]));
        let fresh = Epoch::fresh(&self.topic_of(key), grammar, links, old.late);
        self.owe_end(key, old, reason.loss(), Some(&fresh.epoch));
        self.begin(key, &fresh, reason);
    }

    /// An epoch is not gone on with: its readers are told where it ends, and what goes on.
    pub(super) fn owe_end(
        &mut self,
        key: &InstanceKey,
        old: &EpochState,
        loss: Option<LossReason>,
        next: Option<&str>,
    ) {
        let Some(reason) = loss else { return };
        let Some(instance) = self.instances.get(key) else { return };
        let origin = instance.origin(&self.settings.node_name, &old.epoch);
        let end = Break { reason, next: next.map(str::to_owned) };
        let notices = ends(&origin, &old.at.counts(), Some(&end));
        self.owe(key, &old.epoch, old.partition, notices, &old.at);
    }

    fn topic_of(&self, key: &InstanceKey) -> String {
        self.instances.get(key).map(|instance| instance.topic.to_string()).unwrap_or_default()
    }

    fn is_unchanged(&self, key: &InstanceKey, state: &EpochState) -> bool {
        let Some(guard) = &state.guard else { return true };
        let Some(file) = state.files.iter().find(|file| file.place == guard.place) else { return true };
        let opened = self.held.file(key, file.link);
        match opened.and_then(|file| is_same(&file, guard)) {
            Ok(same) => same,
            Err(error) => {
                warn!(source = %key, link = file.link, { field::ERROR } = %error, "cannot check a held file against its position");
                false
            }
        }
    }

    /// What decides which lines of an epoch's files parse now.
    fn grammar_of_first(&self, key: &InstanceKey, state: &EpochState) -> Grammar {
        let first = self.instances.get(key).zip(state.files.first());
        first.map_or_else(Grammar::default, |(instance, file)| instance.grammar_of(file.link))
    }

    /// Whether another topic or another grammar breaks the run of numbers.
    fn other_rules(&self, key: &InstanceKey, state: &EpochState) -> Option<Reason> {
        if state.topic != self.topic_of(key) {
            Some(Reason::TopicChanged)
        } else if state.grammar != self.grammar_of_first(key, state).version() {
            Some(Reason::GrammarChanged)
        } else {
            None
        }
    }

    /// After everything was looked at: links that no name and no position leads to are adopted.
    pub(super) fn place_orphans(&mut self) {
        let with_orphans: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, instance)| !instance.unplaced.is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        for key in with_orphans {
            self.place_new(&key, false);
        }
        let all: Vec<_> = self.instances.keys().cloned().collect();
        for key in all {
            self.let_go(&key);
        }
    }
}

/// What decided which lines of a held file parse, where its positions say so. Where they are lost and it has no name but ours any more, its first line
/// that is one tells by which grammar it is one; before there is any, a brace is what Docker's begin with.
fn grammar_of(state: Option<&InstanceState>, held: &HeldFolder, key: &InstanceKey, link: u32) -> Grammar {
    let mut epochs = state.into_iter().flat_map(|state| &state.epochs);
    let placed = epochs.find(|epoch| epoch.files.iter().any(|file| file.link == link));
    if let Some(grammar) = placed.and_then(|epoch| Grammar::of_version(epoch.grammar)) {
        return grammar;
    }
    let (mut bytes, mut scratch) = (vec![0; docker::LINE_BYTES_MAX + 1], Vec::new());
    let read = held.file(key, link).and_then(Source::new).and_then(|mut file| file.read_at(&mut bytes, 0));
    bytes.truncate(read.unwrap_or(0));
    let lines = || bytes.split(|byte| *byte == b'\n');
    let mut of_line =
        |line| [Grammar::Cri, Grammar::Docker].into_iter().find(|grammar| grammar.parse(line, &mut scratch).is_some());
    let has_brace = lines().any(|line| line.starts_with(b"{"));
    lines().find_map(&mut of_line).unwrap_or(if has_brace { Grammar::Docker } else { Grammar::Cri })
}

/// Where a late epoch of a file begins.
pub(super) fn late_epoch(topic: &str, grammar: Grammar, link: u32, offset: u64) -> EpochState {
    EpochState { at: Positions::start_at(Place { file: 0, offset }), ..Epoch::fresh(topic, grammar, &[link], true) }
}
