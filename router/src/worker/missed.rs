//! Rotated files that the router did not see: where only the kubelet's compressed file is left of one, it is read in its place in the run.

use std::fs::File;

use fairlead_contract::record::LossReason;
use fairlead_service_kit::telemetry::field;
use tracing::{info, warn};

use super::{
    Worker,
    instance::Link,
    place::{Reason, first_time},
};
use crate::{
    checkpoint::InstanceKey,
    discover::{LogEntry, LogKind, LogName, parse_log_name},
    hold::{LastFile, NewFile, Order, by_first_time, chain, rotations, shifted},
    parse::Grammar,
    pipeline::Break,
    tail::{Epoch, content_bytes_low, is_gzip},
};

/// No kubelet keeps more rotated files of a container; more are not looked into.
const COMPRESSED_FILES_MAX: usize = 1_000;

impl Worker {
    /// Looks for compressed files among and before the new ones, and orders all of them. They follow the last known file if none can be missing;
    /// else what is there is read in the order of its stamps.
    pub(super) fn fill_in(&mut self, key: &InstanceKey, grammar: Grammar, new: &[NewFile], last: Option<u32>) -> Order {
        let mut files = new.to_vec();
        let in_order = |files: &[NewFile]| match grammar {
            Grammar::Cri => Order::Breaks(by_first_time(files)),
            Grammar::Docker => shifted(files, None, key.restart, &[], false),
        };
        let Some(instance) = self.instances.get(key) else { return in_order(&files) };
        let is_first = instance.epochs.is_empty();
        let last_time = last.and_then(|link| first_time(&self.held, key, link, grammar));
        if !is_first && last_time.is_none() {
            // Nothing tells what was read before from what was not.
            return in_order(&files);
        }
        let names = instance.names.clone();
        let last_number = last
            .and_then(|link| instance.links.get(&link))
            .and_then(|link| rotations(link.name.as_deref()?))
            .filter(|_| grammar == Grammar::Docker);
        let mut last_suffix = last
            .and_then(|link| instance.links.get(&link))
            .and_then(|link| parse_log_name(link.name.as_deref()?)?.suffix().map(ToOwned::to_owned));
        let known = instance.links.iter().filter(|(_, link)| link.grammar == grammar);
        let known: Vec<_> = known.map(|(link, _)| (*link, self.identity_of(key, *link, grammar))).collect();
        let alone = names.iter().filter(|entry| entry.log.is_compressed() && !has_raw(&names, &entry.log));
        for entry in alone.take(COMPRESSED_FILES_MAX) {
            let suffix = entry.log.suffix().unwrap_or_default();
            let is_older = last_number.map(|last| rotations(&entry.name) > Some(last));
            if is_older == Some(true) {
                continue;
            }
            let Some(file) = self.hold_compressed(key, grammar, entry) else { continue };
            let identity = self.identity_of(key, file.link, grammar);
            let twin = known.iter().find(|(_, known)| known.is_some() && *known == identity).map(|(link, _)| *link);
            if twin.is_some() && twin == last {
                last_suffix = Some(suffix.to_owned());
            }
            let is_older = is_older.unwrap_or(file.first_time.is_none() || file.first_time < last_time);
            if twin.is_some() || is_older {
                self.let_go_of(key, file.link);
                if let Some(instance) = self.instances.get_mut(key) {
                    instance.links.remove(&file.link);
                }
            } else {
                files.push(file);
            }
        }
        let found = files.len() - new.len();
        if found > 0 {
            info!(source = %key, files = found, "rotated files that were missed are read from what is left of them, compressed");
        }
        if grammar == Grammar::Docker {
            let last = last_suffix.and_then(|suffix| suffix.parse().ok());
            return shifted(&files, last, key.restart, &[], false);
        }
        let last = last_time.zip(last_suffix).map(|(first_time, suffix)| LastFile { suffix, first_time });
        let names: Vec<_> = names.into_iter().map(|entry| entry.log).collect();
        match last.and_then(|last| chain(&last, &files, &names)) {
            Some(links) => Order::Follows(links),
            None => Order::Breaks(by_first_time(&files)),
        }
    }

    /// Holds a compressed file.
    fn hold_compressed(&mut self, key: &InstanceKey, grammar: Grammar, entry: &LogEntry) -> Option<NewFile> {
        let name = entry.name.clone();
        let instance = self.instances.get(key)?;
        let (number, id) = (instance.next_link, instance.docker.clone());
        let stat = match self.take(key, id.as_ref(), &name, number) {
            Ok(taken) => taken.stat,
            Err(error) => {
                let shown = self.folder(key).join(&name).display().to_string();
                self.complain(&shown, |left_out| warn!({ field::FILE_PATH } = shown, { field::ERROR } = %error, left_out, "cannot hold compressed log file"));
                return None;
            }
        };
        let instance = self.instances.get_mut(key)?;
        instance.next_link += 1;
        // Docker gives a name to another file at each rotation.
        let is_other = grammar == Grammar::Docker && stat.inode != entry.inode;
        if is_other
            || instance.link_of(stat.inode).is_some()
            || !self.held.file(key, number).is_ok_and(|file| is_compressed(&file))
        {
            self.let_go_of(key, number);
            return None;
        }
        // Whether it was read before a loss of state or a step of the clock is not known: it is marked as what may be a repeat.
        let bytes_at_start =
            if instance.epochs.is_empty() && !self.state_lost && !instance.lost_links { 0 } else { u64::MAX };
        instance.links.insert(number, Link { inode: stat.inode, name: Some(name.clone()), bytes_at_start, grammar });
        Some(NewFile { link: number, name: Some(name), first_time: first_time(&self.held, key, number, grammar) })
    }

    /// What tells a file's content from another's, the same for the raw file and for what the kubelet made of it.
    fn identity_of(&self, key: &InstanceKey, link: u32, grammar: Grammar) -> Option<FileIdentity> {
        let file = self.held.file(key, link).ok()?;
        let bytes_low = match is_gzip(&file).ok()? {
            true => content_bytes_low(&file).ok()?,
            false => file.metadata().ok()?.len() as u32,
        };
        Some(FileIdentity { first_time: first_time(&self.held, key, link, grammar)?, bytes_low })
    }

    /// A compressed file ends before its end: what is behind it goes on under a new epoch.
    pub(super) fn damaged(&mut self, key: &InstanceKey, place: usize, bytes: u64) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let Some(epoch) = instance.epochs.get_mut(place) else { return };
        let mut fresh = Epoch::fresh(instance.topic.as_str(), epoch.pipeline.grammar(), &[], epoch.late);
        let link = epoch.current_link();
        let behind = epoch.cut_short(bytes);
        let next = (!behind.is_empty()).then(|| fresh.epoch.clone());
        epoch.broken = Some(Break { reason: LossReason::Damaged, next });
        self.urgent = true;
        self.dirty.insert(key.clone());
        warn!(source = %key, link, bytes, "a compressed log file is damaged: what could not be decompressed is lost");
        if !behind.is_empty() {
            fresh.files = Epoch::files_of(&behind);
            self.begin_at(key, Some(place), &fresh, Reason::Damaged);
        }
    }
}

/// The stamp of a file's first line, and the lower half of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    first_time: (i64, u32),
    bytes_low: u32,
}

fn is_compressed(file: &File) -> bool {
    is_gzip(file).unwrap_or(false)
}

/// Whether a compressed file's raw file is there as well: the kubelet is about to remove it, and it is held.
fn has_raw(names: &[LogEntry], compressed: &LogName) -> bool {
    let suffix = compressed.suffix().unwrap_or_default();
    let raw = LogName { restart: compressed.restart, kind: LogKind::Rotated { suffix: suffix.to_owned() } };
    names.iter().any(|entry| entry.log == raw)
}
