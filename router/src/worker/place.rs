//! New files find their place: behind the last one, or in a new epoch.

use std::{fs::File, os::unix::fs::FileExt};

use fairlead_contract::record::{LossReason, Notice, NoticeKind, Timestamp};
use fairlead_service_kit::telemetry::field;
use memchr::{memchr, memrchr};
use tracing::{info, warn};

use super::Worker;
use crate::{
    checkpoint::{EpochState, InstanceKey},
    discover::parse_log_name,
    hold::{HeldFolder, NewFile, Order, order, rotations, shifted},
    parse::{Grammar, docker},
    tail::{Epoch, Place, Positions, Source, StreamPosition},
};

/// Why an epoch begins, as the metric and the log have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The instance is seen for the first time.
    FirstSeen,
    /// New files cannot be shown to follow the last one.
    CannotFollow,
    /// Held files had no position.
    Adopted,
    /// A held file that a position needs is gone.
    LinkLost,
    /// A file became shorter.
    Truncated,
    /// A file is not the one that the position was stored for.
    Changed,
    /// The namespace goes to another topic now.
    TopicChanged,
    /// Another grammar decides what parses.
    GrammarChanged,
    /// Bytes came to a file after it was complete.
    LateBytes,
    /// A held file was released uncounted.
    Released,
    /// A compressed file cannot be decompressed to its end.
    Damaged,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::FirstSeen => "first_seen",
            Self::CannotFollow => "cannot_follow",
            Self::Adopted => "adopted",
            Self::LinkLost => "link_lost",
            Self::Truncated => "truncated",
            Self::Changed => "changed",
            Self::TopicChanged => "topic_changed",
            Self::GrammarChanged => "grammar_changed",
            Self::LateBytes => "late_bytes",
            Self::Released => "released",
            Self::Damaged => "damaged",
        }
    }

    /// What the readers of the runs that end here are told.
    pub(super) fn loss(self) -> Option<LossReason> {
        match self {
            Self::CannotFollow => Some(LossReason::CannotFollow),
            Self::LinkLost => Some(LossReason::LinkLost),
            Self::Truncated => Some(LossReason::Truncated),
            Self::Changed => Some(LossReason::Changed),
            Self::Damaged => Some(LossReason::Damaged),
            Self::TopicChanged => Some(LossReason::TopicChanged),
            Self::GrammarChanged => Some(LossReason::GrammarChanged),
            Self::Released => Some(LossReason::Budget),
            Self::FirstSeen | Self::Adopted | Self::LateBytes => None,
        }
    }

    /// Whether lines may be missing or repeated under other numbers, which an operator should hear of.
    fn is_break(self) -> bool {
        !matches!(self, Self::FirstSeen | Self::TopicChanged | Self::GrammarChanged | Self::LateBytes)
    }
}

const FIRST_BYTES: usize = 64;

impl Worker {
    /// Places the new files of an instance. With `skip`, an instance that is seen for the first time is read from its end.
    pub(super) fn place_new(&mut self, key: &InstanceKey, skip: bool) {
        let Some(instance) = self.instances.get_mut(key).filter(|instance| !instance.is_moving) else { return };
        let Some(grammar) = instance.unplaced.first().map(|link| instance.grammar_of(*link)) else { return };
        let links = std::mem::take(&mut instance.unplaced);
        // One epoch has one grammar.
        let (unplaced, others): (Vec<_>, Vec<_>) =
            links.into_iter().partition(|link| instance.grammar_of(*link) == grammar);
        let new: Vec<_> = unplaced
            .iter()
            .map(|link| NewFile {
                link: *link,
                name: instance.links.get(link).and_then(|link| link.name.clone()),
                first_time: first_time(&self.held, key, *link, grammar),
            })
            .collect();
        let events = std::mem::take(&mut instance.events);
        let gapless = std::mem::replace(&mut instance.gapless, true);
        let last = instance.growing().filter(|epoch| epoch.pipeline.grammar() == grammar);
        let last = last.and_then(|epoch| epoch.last_link());
        let last_name = last.and_then(|link| instance.links.get(&link)).and_then(|link| link.name.clone());
        let is_first = instance.epochs.is_empty();
        // What was held, was lost and is held again may repeat what was sent: only an epoch that begins with it can mark it.
        let bytes_at_start = |link: &u32| instance.links.get(link).map_or(0, |link| link.bytes_at_start);
        let read_before = instance.lost_links && unplaced.iter().any(|link| bytes_at_start(link) > 0);
        let gapless = gapless && last.is_some();
        let mut order = match grammar {
            Grammar::Cri => {
                let names: Vec<_> = instance.names.iter().map(|entry| entry.log.clone()).collect();
                order(&new, last_name.as_deref(), &names, key.restart, &events, gapless)
            }
            Grammar::Docker => shifted(&new, last_name.as_deref().and_then(rotations), key.restart, &events, gapless),
        };
        if matches!(order, Order::Breaks(_)) && !(skip && is_first) {
            order = self.fill_in(key, grammar, &new, last);
        }
        let Some(instance) = self.instances.get_mut(key) else { return };
        match order {
            Order::Follows(links) if last.is_some() && !read_before => {
                if let Some(epoch) = instance.growing() {
                    links.into_iter().for_each(|link| epoch.append(link));
                }
                self.urgent = true;
                self.dirty.insert(key.clone());
                self.queue(key);
            }
            Order::Follows(links) | Order::Breaks(links) => {
                let adopted =
                    links.iter().any(|link| instance.links.get(link).is_some_and(|link| link.bytes_at_start > 0));
                let reason = match (is_first, adopted) {
                    (true, true) => Reason::Adopted,
                    (true, false) => Reason::FirstSeen,
                    (false, _) => Reason::CannotFollow,
                };
                // A file that turns up beside the live one closes nothing: the live file goes on where it stands.
                let is_live =
                    |name: &Option<String>| name.as_deref().and_then(parse_log_name).is_some_and(|name| name.is_live());
                let aside = is_live(&last_name) && !new.iter().any(|file| is_live(&file.name));
                let mut state = Epoch::fresh(instance.topic.as_str(), grammar, &links, aside);
                if skip && is_first {
                    self.start_at_end(key, &mut state);
                }
                self.begin(key, &state, reason);
            }
        }
        if !others.is_empty() {
            self.instances.entry(key.clone()).and_modify(|instance| instance.unplaced = others);
            self.place_new(key, skip);
        }
    }

    /// Begins an epoch, says so, and has it stored before it is read.
    pub(super) fn begin(&mut self, key: &InstanceKey, state: &EpochState, reason: Reason) {
        self.begin_at(key, None, state, reason);
    }

    /// Begins an epoch that goes on where the one at a place broke off.
    pub(super) fn begin_at(&mut self, key: &InstanceKey, place: Option<usize>, state: &EpochState, reason: Reason) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let again_until = again_until(state, |link| instance.links.get(&link).map_or(0, |link| link.bytes_at_start));
        instance.begin(state, &self.settings.node_name, again_until, reason.loss(), place);
        if let Some(epoch) = instance.epochs.iter_mut().find(|epoch| epoch.id == state.epoch) {
            epoch.awaits_store = true;
        }
        let adopted_after_loss = reason == Reason::Adopted && self.state_lost;
        let namespace = instance.identity.namespace.clone();
        self.parts.metrics.epochs_started(&namespace, reason.as_str()).inc();
        let (path, files) = (key.to_string(), state.files.len());
        if reason.is_break() {
            warn!({ field::K8S_NAMESPACE_NAME } = %namespace, source = path, epoch = state.epoch, files, { field::REASON } = reason.as_str(), "the run of numbers is broken: a new epoch begins");
        } else {
            info!({ field::K8S_NAMESPACE_NAME } = %namespace, source = path, epoch = state.epoch, files, { field::REASON } = reason.as_str(), "a new epoch begins");
        }
        if adopted_after_loss {
            self.owe_state_lost(key, state);
        }
        self.urgent = true;
        self.dirty.insert(key.clone());
        self.queue(key);
    }

    /// What was delivered of these files under other numbers is not known any more.
    fn owe_state_lost(&mut self, key: &InstanceKey, state: &EpochState) {
        let Some(instance) = self.instances.get(key) else { return };
        let source = format!("{}/1", instance.identity.run(&state.epoch));
        let notice = Notice { reason: Some(LossReason::StateLost), ..Notice::new(NoticeKind::Gap, source, 0) };
        self.owe(key, &state.epoch, None, vec![(1, notice)], &state.at);
    }

    /// Moves a new epoch's positions behind what is there: rotated files are passed over whole, the last one up to its last newline.
    fn start_at_end(&self, key: &InstanceKey, state: &mut EpochState) {
        let count = state.files.len();
        for file in &mut state.files[..count.saturating_sub(1)] {
            file.complete = self.held.stat(key, file.link).ok().map(|stat| stat.bytes);
        }
        if let Some(last) = state.files.last() {
            let offset = self.held.file(key, last.link).ok().map_or(0, |file| behind_last_newline(&file));
            let place = Place { file: last.place, offset };
            state.at = Positions([StreamPosition { place, ..StreamPosition::default() }; 3]);
        }
    }
}

/// What begins before this place may have been sent before the router started.
pub(super) fn again_until(state: &EpochState, bytes_at_start: impl Fn(u32) -> u64) -> Place {
    let held = state.files.iter().map(|file| Place { file: file.place, offset: bytes_at_start(file.link) });
    held.filter(|place| place.offset > 0).max().unwrap_or_default()
}

/// The stamp of a held file's first line.
pub(super) fn first_time(held: &HeldFolder, key: &InstanceKey, link: u32, grammar: Grammar) -> Option<(i64, u32)> {
    let mut source = held.file(key, link).and_then(Source::new).ok()?;
    let of = |time: Timestamp<'_>| (time.epoch_seconds(), time.nanoseconds());
    if grammar == Grammar::Docker {
        // The stamp stands at the end of the line.
        let mut bytes = vec![0; docker::LINE_BYTES_MAX + 1];
        let got = source.read_at(&mut bytes, 0).ok()?;
        let end = memchr(b'\n', &bytes[..got])?;
        return docker::parse(&bytes[..end], &mut Vec::new()).map(|line| of(line.time));
    }
    let mut bytes = [0; FIRST_BYTES];
    let got = source.read_at(&mut bytes, 0).ok()?;
    let end = memchr(b' ', &bytes[..got])?;
    Timestamp::parse(&bytes[..end]).map(of)
}

fn behind_last_newline(file: &File) -> u64 {
    let mut end = file.metadata().map_or(0, |metadata| metadata.len());
    let mut buffer = vec![0; 64 << 10];
    while end > 0 {
        let from = end.saturating_sub(buffer.len() as u64);
        let bytes = &mut buffer[..(end - from) as usize];
        if file.read_exact_at(bytes, from).is_err() {
            break;
        }
        if let Some(newline) = memrchr(b'\n', bytes) {
            return from + newline as u64 + 1;
        }
        end = from;
    }
    0
}
