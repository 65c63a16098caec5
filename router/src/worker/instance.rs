//! One container instance: its held files and its epochs.

use std::{collections::BTreeMap, time::Instant};

use fairlead_contract::{
    record::LossReason,
    topic::{Delivery, TopicName},
};

use super::owed::OwedNotice;

use super::guilty::Guilty;
use crate::{
    checkpoint::{EpochState, InstanceKey, InstanceState},
    discover::{DockerId, LogEntry, NameEvent},
    hold::HeldFolder,
    metrics::NamespaceMetrics,
    parse::Grammar,
    pipeline::{Break, Identity, Known, Origin, Pipeline},
    tail::{Epoch, Place},
};

/// A held file of the instance.
#[derive(Clone, Debug)]
pub struct Link {
    /// Device and inode number.
    pub inode: (u64, u64),
    /// Its name in the container's folder when that was last looked at.
    pub name: Option<String>,
    /// Bytes that it had when the router started, if it was held then.
    pub bytes_at_start: u64,
    /// What decides which of its lines parse.
    pub grammar: Grammar,
}

/// One container instance.
#[derive(Debug)]
pub struct Instance {
    /// Which one.
    pub key: InstanceKey,
    /// Who writes.
    pub identity: Identity,
    /// What is known of its pod.
    pub known: Known,
    /// When this router saw it first.
    pub since: Instant,
    /// Whether its first read waits for nothing any more.
    pub begun: bool,
    /// Whether nothing of it is sent, because its pod is another namespace's by what the API server says.
    pub is_elsewhere: bool,
    /// What nobody understands of its pod's wishes.
    pub faults: Vec<String>,
    /// Whether its readers are told of that.
    pub faults_told: bool,
    /// Where its lines go.
    pub topic: TopicName,
    /// Whose files of Docker's are its own, if it is reached through a link.
    pub docker: Option<DockerId>,
    /// Whether its files had no lasting names when they were last looked at: then none is placed.
    pub is_moving: bool,
    /// Since when.
    pub moving_since: Option<Instant>,
    /// The number of its next link.
    pub next_link: u32,
    /// What is held.
    pub links: BTreeMap<u32, Link>,
    /// Held files that stand in no epoch yet.
    pub unplaced: Vec<u32>,
    /// Its epochs, oldest first.
    pub epochs: Vec<Epoch>,
    /// Events since new files were last placed.
    pub events: Vec<NameEvent>,
    /// Whether `events` are all that happened since then.
    pub gapless: bool,
    /// Whether no file will follow: a higher restart count exists, or the folder is gone.
    pub ended: bool,
    /// All its names in the container's folder when that was last looked at, compressed files too.
    pub names: Vec<LogEntry>,
    /// Whether held files of it were lost: what is held from now on may have been sent before.
    pub lost_links: bool,
    /// Whether the kubelet's folder still has files of it.
    pub has_names: bool,
    /// Whether it stands in the queue of those to be read.
    pub queued: bool,
    /// Notices that Kafka does not have yet, in order.
    pub owed: Vec<OwedNotice>,
    /// Whether its lines may be left out to keep up.
    pub delivery: Delivery,
    /// A record that was refused alone, on its way to the dead letters.
    pub guilty: Option<Guilty>,
    /// The latest record that was sent alone.
    pub alone: Vec<u8>,
    /// The counters of its namespace.
    pub counters: NamespaceMetrics,
}

impl Instance {
    /// An instance of which nothing is held yet.
    pub fn new(key: InstanceKey, identity: Identity, topic: TopicName, counters: NamespaceMetrics) -> Self {
        Self {
            key,
            identity,
            known: Known::default(),
            since: Instant::now(),
            begun: false,
            is_elsewhere: false,
            faults: Vec::new(),
            faults_told: true,
            topic,
            docker: None,
            is_moving: false,
            moving_since: None,
            next_link: 0,
            links: BTreeMap::new(),
            unplaced: Vec::new(),
            epochs: Vec::new(),
            events: Vec::new(),
            gapless: false,
            ended: false,
            names: Vec::new(),
            lost_links: false,
            has_names: false,
            queued: false,
            owed: Vec::new(),
            delivery: Delivery::AtLeastOnce,
            guilty: None,
            alone: Vec::new(),
            counters,
        }
    }

    /// The link that holds a file.
    pub fn link_of(&self, inode: (u64, u64)) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.inode == inode).map(|(number, _)| *number)
    }

    /// What decides which lines of a file parse.
    pub fn grammar_of(&self, link: u32) -> Grammar {
        self.links.get(&link).map_or_else(Grammar::default, |link| link.grammar)
    }

    /// Adds an epoch. What begins before `again_until` is marked as a possible repeat. Where lines may be missing before it, the runs that end
    /// here say so. One that takes the `place` of an epoch behind which others stand already goes between them, and changes nothing for those.
    pub fn begin(
        &mut self,
        state: &EpochState,
        host: &str,
        again_until: Place,
        loss: Option<LossReason>,
        place: Option<usize>,
    ) {
        let origin = self.origin(host, &state.epoch);
        // What another program's grammar decided is not read on, so it does not matter which one is taken for it.
        let grammar = Grammar::of_version(state.grammar).unwrap_or_default();
        let pipeline = Pipeline::new(origin, grammar, &state.at, again_until);
        let between = place.map(|place| place + 1).filter(|next| {
            !state.late && self.epochs.get(*next..).is_some_and(|later| later.iter().any(|epoch| !epoch.late))
        });
        if let Some(next) = between {
            let mut epoch = Epoch::new(state, pipeline);
            epoch.closed = true;
            self.epochs.insert(next, epoch);
            return;
        }
        if !state.late {
            // The numbers of what came before end here.
            for epoch in self.epochs.iter_mut().filter(|epoch| !epoch.late && !epoch.closed) {
                epoch.closed = true;
                if let Some(reason) = loss {
                    epoch.broken = Some(Break { reason, next: Some(state.epoch.clone()) });
                    epoch.awaits_store = true;
                }
            }
        }
        let mut epoch = Epoch::new(state, pipeline);
        epoch.closed |= self.ended;
        self.epochs.push(epoch);
    }

    /// What the records of one of its epochs have in common.
    pub fn origin(&self, host: &str, epoch: &str) -> Origin {
        Origin::new(self.topic.clone(), host, &self.identity, &self.known, epoch)
    }

    /// Takes what is known of its pod now.
    pub fn describe(&mut self, host: &str, known: Known) {
        let is_other = self.known != known;
        // Also where it is equal: what everybody knows is then kept once.
        self.known = known;
        if is_other {
            for epoch in &mut self.epochs {
                epoch.pipeline.origin_mut().describe(host, &self.identity, &self.known);
            }
        }
    }

    /// Takes what nobody understands of its pod's wishes. Returns whether that is something to tell.
    pub fn take_faults(&mut self, faults: &[String]) -> bool {
        if self.faults == faults {
            return false;
        }
        self.faults = faults.to_vec();
        self.faults_told = faults.is_empty();
        !self.faults_told
    }

    /// No file will follow the last one.
    pub fn end(&mut self) {
        self.ended = true;
        self.epochs.iter_mut().for_each(|epoch| epoch.closed = true);
    }

    /// The epoch that new files may be appended to.
    pub fn growing(&mut self) -> Option<&mut Epoch> {
        self.epochs.iter_mut().rev().find(|epoch| !epoch.late).filter(|epoch| !epoch.closed)
    }

    /// The places of the epochs that may be read now: the first unread one, and those of late bytes.
    pub fn readable(&self) -> Vec<usize> {
        let first = self.epochs.iter().position(|epoch| !epoch.late && !epoch.read_out);
        let late =
            self.epochs.iter().enumerate().filter(|(_, epoch)| epoch.late && !epoch.read_out).map(|(place, _)| place);
        first.into_iter().chain(late).collect()
    }

    /// Whether records are in flight.
    pub fn is_flying(&self) -> bool {
        self.epochs.iter().any(|epoch| !epoch.ledger.is_empty())
            || self.has_notice_in_flight()
            || self.guilty.as_ref().is_some_and(Guilty::is_flying)
    }

    /// What is to be stored now.
    pub fn snapshot(&mut self, held: &HeldFolder) -> InstanceState {
        let key = self.key.clone();
        let epochs = self.epochs.iter().map(|epoch| {
            let place = epoch.acknowledged.lowest();
            let link = epoch.file_at(place.file).map(|file| file.state.link);
            let file = link.filter(|_| !epoch.finished).and_then(|link| held.file(&key, link).ok());
            // Without a guard the position still holds; it only cannot be checked against a truncation while we were away.
            epoch.state(file.and_then(|file| epoch.guard(&file, place).ok()))
        });
        InstanceState {
            epochs: epochs.collect(),
            key: self.key.clone(),
            next_link: self.next_link,
            owed: self.owed.iter().map(|owed| owed.owed.clone()).collect(),
            descriptors: held.descriptor_states(&self.key),
        }
    }

    /// The state as it was last put is durable now. Returns whether reading had waited for that.
    pub fn stored(&mut self) -> bool {
        let mut waited = self.owed_stored();
        for epoch in &mut self.epochs {
            epoch.stored = epoch.acknowledged;
            epoch.stored_finished = epoch.finished;
            if epoch.stored_finished {
                epoch.files.retain(|file| self.links.contains_key(&file.state.link));
            }
            waited |= std::mem::take(&mut epoch.awaits_store);
        }
        self.epochs.retain(|epoch| !epoch.stored_finished || !epoch.files.is_empty() || !epoch.ledger.is_empty());
        waited
    }

    /// Whether reading, or a notice, waits until its state is stored.
    pub fn awaits_store(&self) -> bool {
        self.epochs.iter().any(|epoch| epoch.awaits_store) || self.owes_unstored()
    }

    /// Whether every byte that was in a link is durably done with.
    pub fn is_done_with(&self, link: u32) -> bool {
        !self.unplaced.contains(&link) && self.epochs.iter().all(|epoch| epoch.is_past(link))
    }

    /// How many bytes of a link the epochs account for; `None` while it stands in no epoch.
    pub fn covered(&self, link: u32) -> Option<u64> {
        self.epochs.iter().filter_map(|epoch| epoch.covers(link)).max()
    }

    /// Forgets a link that was let go.
    pub fn forget(&mut self, link: u32) {
        self.links.remove(&link);
        self.epochs.iter_mut().for_each(|epoch| epoch.forget(link));
    }

    /// Whether nothing is left to remember.
    pub fn is_over(&self) -> bool {
        self.ended
            && !self.has_names
            && self.links.is_empty()
            && self.unplaced.is_empty()
            && self.owed.is_empty()
            && !self.is_flying()
    }
}
