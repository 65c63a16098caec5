//! Held bytes are let go before the disk is full: whole files, the oldest of the namespace that is most over its share, announced before they go.

use std::{collections::BTreeMap, time::SystemTime};

use fairlead_contract::{
    namespace::Namespace,
    record::{LossReason, Notice, NoticeKind},
};
use fairlead_service_kit::{telemetry::field, units::show_bytes};
use tracing::warn;

use super::{Instance, Worker, place::Reason};
use crate::{
    checkpoint::InstanceKey,
    hold::{Budget, COUNT_BYTES_MAX, HeldFolder, HeldStat, Writers, positions_behind},
    pipeline::ends,
    tail::{Count, Epoch, Place, Positions, Source},
};

/// Files released at one look, so that deliveries and events get their turn.
const RELEASES_MAX: usize = 64;

/// What a namespace holds that nobody else keeps.
#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    /// Files that may go, oldest first: by their last change.
    files: BTreeMap<FileId, Releasable>,
}

/// A held file by its age: its last change, whose it is, and the last part of its link's name.
type FileId = (SystemTime, InstanceKey, u32);

#[derive(Clone, Copy, Debug)]
struct Releasable {
    /// The place of its epoch among the instance's.
    epoch: usize,
    /// Its place in the epoch's list.
    file: u32,
    /// Its size in bytes, as it is read.
    bytes: u64,
    disk_bytes: u64,
}

impl Worker {
    /// Releases files while more is held than may be. Returns the bytes on disk that only the router keeps.
    pub(super) fn keep_budget(&mut self) -> u64 {
        let (mut held, going) = self.held_by_namespace();
        let mut total: u64 = held.values().map(|held| held.bytes).sum();
        let missing = if total > 0 { self.settings.budget.free_min.missing(&self.settings.state_dir) } else { 0 };
        // What was released before and waits for the store is on its way.
        let mut missing = missing.saturating_sub(going);
        let mut counted = 0;
        for _ in 0..RELEASES_MAX {
            if counted >= COUNT_BYTES_MAX {
                break;
            }
            let Some(namespace) = most_over(&held, total, missing, &self.settings.budget) else { break };
            let Some(of) = held.get_mut(&namespace) else { break };
            let Some(((_, key, link), file)) = of.files.pop_first() else {
                // Nothing of it can go now.
                held.remove(&namespace);
                continue;
            };
            counted += file.bytes;
            if self.release(&key, link, file) {
                of.bytes = of.bytes.saturating_sub(file.disk_bytes);
                total = total.saturating_sub(file.disk_bytes);
                missing = missing.saturating_sub(file.disk_bytes);
                // The file behind it is the first one now.
                of.files.extend(self.releasable(&key));
            }
        }
        total
    }

    /// What each namespace holds alone, and the bytes on disk of what was released and waits for the store.
    fn held_by_namespace(&self) -> (BTreeMap<Namespace, Held>, u64) {
        let mut held: BTreeMap<Namespace, Held> = BTreeMap::new();
        let mut going = 0;
        for (key, instance) in &self.instances {
            if instance.links.values().all(|link| link.name.is_some()) {
                continue;
            }
            let of = held.entry(instance.identity.namespace.clone()).or_default();
            for (link, stat) in self.only_held(key, instance) {
                let sum = if instance.is_released(link) { &mut going } else { &mut of.bytes };
                *sum += stat.disk_bytes;
            }
            of.files.extend(self.releasable(key));
        }
        (held, going)
    }

    /// The files of an instance that nobody else keeps.
    fn only_held<'a>(&'a self, key: &'a InstanceKey, instance: &'a Instance) -> impl Iterator<Item = (u32, HeldStat)> {
        let nameless = instance.links.iter().filter(|(_, link)| link.name.is_none()).map(|(link, _)| *link);
        let stats = nameless.filter_map(|link| Some((link, self.held.stat(key, link).ok()?)));
        stats.filter(|(_, stat)| stat.names == 1)
    }

    /// The files of an instance that may go now.
    fn releasable(&self, key: &InstanceKey) -> Vec<(FileId, Releasable)> {
        let Some(instance) = self.instances.get(key) else { return Vec::new() };
        let of_file = |(link, stat): (u32, HeldStat)| {
            let (epoch, file) = front_of(instance, link)?;
            // The numbers behind it were made with the size that it had when it was complete.
            let known = instance.epochs.get(epoch)?.file_at(file)?.state.complete;
            let bytes = known.or_else(|| complete_bytes(&self.held, key, link))?;
            let changed = self.held.file(key, link).and_then(|file| file.metadata()?.modified());
            let id = (changed.unwrap_or(SystemTime::UNIX_EPOCH), key.clone(), link);
            Some((id, Releasable { epoch, file, bytes, disk_bytes: stat.disk_bytes }))
        };
        self.only_held(key, instance).filter_map(of_file).collect()
    }

    /// Lets one file go: counts its lines, owes the notice, and moves the positions behind it. The link goes once that is durable.
    fn release(&mut self, key: &InstanceKey, link: u32, of: Releasable) -> bool {
        let Some(instance) = self.instances.get_mut(key) else { return false };
        let namespace = instance.identity.namespace.clone();
        let Some(epoch) = instance.epochs.get_mut(of.epoch) else { return false };
        let at = epoch.acknowledged;
        let next = epoch.files.iter().map(|file| file.state.place).find(|place| *place > of.file);
        let behind = next.map_or(Place { file: of.file, offset: of.bytes }, |file| Place { file, offset: 0 });
        let grammar = epoch.pipeline.grammar();
        let unread = of.bytes.saturating_sub(if at.lowest().file == of.file { at.lowest().offset } else { 0 });
        let counted = (unread <= COUNT_BYTES_MAX).then(|| {
            self.held.file(key, link).and_then(|file| positions_behind(file, grammar, of.file, of.bytes, &at, behind))
        });
        let Some(Ok(to)) = counted else { return self.release_uncounted(key, of) };
        let notices = lost_between(epoch, &at, &to, LossReason::Budget);
        let lines: u64 = notices.iter().filter_map(|(_, notice)| notice.lines).sum();
        let counters = instance.counters.clone();
        epoch.completes(of.file, of.bytes);
        let unread = epoch.release(&to, next.is_none());
        counters.take_in_hand(unread);
        let (id, partition) = (epoch.id.clone(), epoch.partition);
        let mut all = notices;
        if next.is_none() {
            all.extend(ends(epoch.pipeline.origin(), &to.counts(), epoch.broken.as_ref()));
        }
        self.owe(key, &id, partition, all, &at);
        self.say_released(&namespace, key, of, Some(lines));
        true
    }

    /// Too long to be counted: the run ends in front of the file, and another one begins behind it.
    fn release_uncounted(&mut self, key: &InstanceKey, of: Releasable) -> bool {
        let Some(instance) = self.instances.get_mut(key) else { return false };
        let namespace = instance.identity.namespace.clone();
        let topic = instance.topic.clone();
        let Some(epoch) = instance.epochs.get_mut(of.epoch) else { return false };
        let left: Vec<_> =
            epoch.files.iter().filter(|file| file.state.place > of.file).map(|file| file.state.link).collect();
        let fresh = Epoch::fresh(topic.as_str(), epoch.pipeline.grammar(), &left, epoch.late);
        let old = epoch.state(None);
        let end = Place { file: of.file, offset: of.bytes };
        let to =
            Positions(old.at.0.map(|stream| crate::tail::StreamPosition { place: stream.place.max(end), ..stream }));
        let given_up = epoch.pipeline.in_hand(&epoch.acknowledged);
        epoch.files.retain(|file| file.state.place <= of.file);
        epoch.completes(of.file, of.bytes);
        epoch.release(&to, true);
        epoch.closed = true;
        epoch.pipeline.give_up(&epoch.acknowledged);
        instance.counters.take_from_hand(given_up);
        self.parts.metrics.lost(&namespace, LossReason::Budget.as_str(), given_up);
        self.owe_end(key, &old, Some(LossReason::Budget), (!left.is_empty()).then_some(fresh.epoch.as_str()));
        if !left.is_empty() {
            self.begin_at(key, Some(of.epoch), &fresh, Reason::Released);
        }
        self.say_released(&namespace, key, of, None);
        true
    }

    fn say_released(&mut self, namespace: &Namespace, key: &InstanceKey, of: Releasable, lines: Option<u64>) {
        let (namespace, source) = (namespace.clone(), key.to_string());
        let bytes = show_bytes(of.disk_bytes);
        self.complain(&format!("budget {namespace}"), |left_out| {
            warn!({ field::K8S_NAMESPACE_NAME } = %namespace, source, bytes, ?lines, left_out, "a held file is released undelivered: the budget of held bytes is reached");
        });
    }
}

impl Instance {
    /// Whether a file was released and only waits for the store.
    fn is_released(&self, link: u32) -> bool {
        let behind = |epoch: &Epoch| {
            let mut files = epoch.files.iter().filter(|file| file.state.link == link);
            files.all(|file| epoch.finished || file.state.place < epoch.acknowledged.lowest().file)
        };
        !self.unplaced.contains(&link) && self.epochs.iter().all(behind)
    }
}

/// The namespace to take from: one over its own bound first, else the one that holds most.
fn most_over(held: &BTreeMap<Namespace, Held>, total: u64, missing: u64, budget: &Budget) -> Option<Namespace> {
    let most = held.iter().max_by_key(|(_, held)| held.bytes).filter(|(_, held)| held.bytes > 0)?;
    let over = most.1.bytes > budget.namespace_bytes_max || total > budget.bytes_max || missing > 0;
    over.then(|| most.0.clone())
}

/// Where a file is the first that its epoch still needs: which epoch, and its place there.
fn front_of(instance: &Instance, link: u32) -> Option<(usize, u32)> {
    let mut fronts = instance.epochs.iter().enumerate().filter_map(|(place, epoch)| {
        let lowest = epoch.acknowledged.lowest().file;
        let file = epoch.files.iter().find(|file| file.state.place >= lowest && !epoch.finished)?;
        let is_last = file.state.place == epoch.files.back()?.state.place;
        (file.state.link == link && (!is_last || epoch.closed) && !epoch.awaits_store)
            .then_some((place, file.state.place))
    });
    let front = fronts.next()?;
    // A file that two epochs need (late bytes) is left to the reading.
    fronts.next().is_none().then_some(front)
}

/// How many bytes a file has for good; `None` while somebody writes to it.
fn complete_bytes(held: &HeldFolder, key: &InstanceKey, link: u32) -> Option<u64> {
    let source = Source::new(held.file(key, link).ok()?).ok()?;
    (source.writers() != Writers::Some).then(|| source.bytes().ok())?
}

/// Gaps for what each stream has between two positions, by `fd`.
pub(super) fn lost_between(
    epoch: &Epoch,
    from: &Positions,
    to: &Positions,
    reason: LossReason,
) -> Vec<(usize, Notice<'static>)> {
    let (before, after) = (from.counts(), to.counts());
    let lost = |fd: usize| -> Option<(usize, Notice<'static>)> {
        let count: Count = after[fd].less(before[fd]);
        let notice = Notice {
            lines: Some(count.lines),
            bytes: Some(count.bytes),
            reason: Some(reason),
            ..Notice::new(NoticeKind::Gap, epoch.pipeline.origin().source(fd), before[fd].lines)
        };
        (!count.is_none()).then_some((fd, notice))
    };
    (0..3).filter_map(lost).collect()
}
