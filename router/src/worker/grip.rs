//! What is not as it should be with links and the store is said, and ends by itself: where files cannot be linked, descriptors hold them.

use std::{collections::BTreeSet, io, path::Path};

use fairlead_service_kit::telemetry::field;
use tracing::{info, warn};

use super::{Worker, reach::LOOKS_MAX};
use crate::{
    checkpoint::{InstanceKey, InstanceState},
    hold::descriptor_state,
};

impl Worker {
    /// Says once that files cannot be linked.
    pub(super) fn not_linked(&mut self, path: &Path, error: &io::Error) {
        let why = error.to_string();
        if self.not_linked.as_ref() != Some(&why) {
            warn!({ field::FILE_PATH } = %path.display(), { field::ERROR } = why, "log files cannot be linked into state_dir; open descriptors hold them, and what is rotated while the router is away may be lost");
        }
        self.not_linked = Some(why);
    }

    /// Tries again to link what descriptors hold.
    pub(super) fn link_descriptors(&mut self) {
        let linked = self.held.link_descriptors();
        if linked > 0 {
            info!(files = linked, "log files that descriptors held are linked now");
        }
    }

    /// Tells metrics and readiness how files are held.
    pub(super) fn report_descriptors(&mut self) {
        let count = self.held.descriptors();
        self.parts.metrics.held_by_descriptor.set(count as i64);
        if count == 0 {
            self.not_linked = None;
            self.parts.readiness.clear("hold");
            return;
        }
        let why = self.not_linked.as_deref().unwrap_or("not tried again yet");
        let full =
            if self.held.is_full() { "; no more can be held, as the limit of open files is reached" } else { "" };
        let text = format!(
            "{count} log files are held by open descriptors because they cannot be linked into state_dir ({why}): what is rotated while the router is away may be lost{full}"
        );
        self.parts.readiness.note("hold", text);
    }

    /// Tells metrics and readiness how positions are stored.
    pub(super) fn report_store(&mut self) {
        let is_tight = self.store.is_tight();
        let was_tight = self.parts.metrics.store_tight.set(i64::from(is_tight)) == 1;
        match (was_tight, is_tight) {
            (false, true) => warn!(
                "the disk of state_dir is full; positions are stored in room that was taken beforehand, and less often"
            ),
            (true, false) => info!("the disk of state_dir has room again"),
            _ => {}
        }
        if is_tight {
            let text = "the disk of state_dir is full; positions are stored in room that was taken beforehand";
            self.parts.readiness.note("store", text);
        } else {
            self.parts.readiness.clear("store");
        }
    }

    /// Holds anew, under their old numbers, the files that descriptors of the last router held and that still have a name. Returns all links of
    /// the instance that there are.
    pub(super) fn hold_again(
        &mut self,
        key: &InstanceKey,
        state: Option<&InstanceState>,
        links: &BTreeSet<u32>,
    ) -> BTreeSet<u32> {
        let mut links = links.clone();
        let Some(state) = state.filter(|state| !state.descriptors.is_empty()) else { return links };
        for _ in 0..LOOKS_MAX {
            // Where Docker renamed a file under the look, it is looked for again under its new name.
            if self.hold_named(key, state, &mut links) {
                break;
            }
        }
        links
    }

    /// Holds those of the files whose names are found. Returns whether every name that was found still led to its file.
    fn hold_named(&mut self, key: &InstanceKey, state: &InstanceState, links: &mut BTreeSet<u32>) -> bool {
        let mut stood_still = true;
        let (id, named) = self.names_of(key);
        let folder = self.folder(key);
        let guarded = |link| {
            let guards = state.epochs.iter().filter_map(|epoch| Some((epoch, epoch.guard.as_ref()?)));
            guards
                .flat_map(|(epoch, guard)| epoch.files.iter().filter(|file| file.place == guard.place))
                .any(|file| file.link == link)
        };
        for known in &state.descriptors {
            let placed = state.epochs.iter().any(|epoch| epoch.files.iter().any(|file| file.link == known.link));
            let Some(entry) = named.iter().find(|entry| entry.inode == (known.device, known.inode)) else { continue };
            if links.contains(&known.link) || !placed {
                continue;
            }
            // An inode number alone tells nothing: it is used again. Without a birth time the guard has to do.
            if known.born.is_none() && !guarded(known.link) {
                continue;
            }
            match self.take(key, id.as_ref(), &entry.name, known.link) {
                Ok(taken) => {
                    let found = self.held.file(key, known.link).and_then(|file| descriptor_state(known.link, &file));
                    if !found.is_ok_and(|found| found == *known) {
                        self.let_go_of(key, known.link);
                        stood_still = false;
                        continue;
                    }
                    links.insert(known.link);
                    if let Some(error) = taken.without_link {
                        self.not_linked(&folder.join(&entry.name), &error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => stood_still = false,
                Err(error) => {
                    warn!(source = %key, { field::ERROR } = %error, "cannot hold a log file again");
                }
            }
        }
        stood_still
    }
}
