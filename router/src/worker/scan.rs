//! Discovery: what the watch tells, and what is really there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use fairlead_contract::topic::Route;
use fairlead_service_kit::telemetry::field;
use tracing::{debug, info, warn};

use super::{Instance, Worker, instance::Link};
use crate::{
    checkpoint::InstanceKey,
    discover::{
        ContainerDir, DirChange, DockerId, LogEntry, NameEvent, WatchError, is_container_name, list_folders,
        list_logs_and_links, parse_pod_folder,
    },
    parse::Grammar,
    pipeline::Identity,
};

/// How often a folder that changes while it is looked at is looked at again before what was seen has to do.
const LOOKS_MAX: usize = 5;
/// How often everything is looked at while something cannot be watched.
const UNWATCHED_RESCAN: Duration = Duration::from_secs(1);
const EVENTS_MAX: usize = 4_096;

impl Worker {
    /// Takes in what the watch has to tell, and looks at everything when it is time or the watch lost events.
    pub(super) fn look(&mut self) {
        if let Err(error) = self.watcher.read() {
            self.watcher.overflowed = true;
            self.complain("watch", |left_out| warn!({ field::ERROR } = %error, left_out, "cannot read file events"));
        }
        let interval = if self.unwatched > 0 { UNWATCHED_RESCAN } else { self.settings.rescan_interval };
        if std::mem::take(&mut self.watcher.overflowed) {
            self.parts.metrics.watch_overflows.inc();
            warn!("the kernel's queue of file events ran over; looking at all folders");
            self.distrust_events();
            self.scan_all(false);
        } else if self.scanned_at.elapsed() >= interval {
            self.scan_all(false);
        } else {
            self.take_changes();
        }
    }

    fn take_changes(&mut self) {
        let folders: BTreeSet<_> = std::mem::take(&mut self.watcher.folders).into_iter().collect();
        if folders.contains("") {
            self.scan_pods(false);
        } else {
            for folder in &folders {
                self.scan_pod(folder, false);
            }
        }
        if self.watcher.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.watcher.changes);
        let mut named = Vec::new();
        for (dir, change) in changes {
            if change.written {
                self.wake(&dir);
            }
            if change.has_names() {
                self.note_events(&dir, &change);
                named.push(dir);
            }
        }
        self.look_at(named, false);
    }

    /// Looks at everything.
    pub(super) fn scan_all(&mut self, skip: bool) {
        self.scanned_at = Instant::now();
        self.parts.metrics.rescans.inc();
        self.link_descriptors();
        self.unwatched = 0;
        self.watcher.folders.clear();
        let changes = std::mem::take(&mut self.watcher.changes);
        for (dir, change) in changes {
            self.note_events(&dir, &change);
        }
        self.scan_pods(skip);
        self.parts.metrics.watched_directories.set(self.watcher.len() as i64);
        self.parts.metrics.unwatched_directories.set(self.unwatched as i64);
        if self.unwatched == 0 {
            self.parts.readiness.clear("watch");
        } else {
            let text = format!("{} folders cannot be watched; all are looked at every second", self.unwatched);
            self.parts.readiness.note("watch", text);
        }
    }

    fn scan_pods(&mut self, skip: bool) {
        let root = self.settings.pods_dir.clone();
        if let Err(error) = self.watcher.watch_root(&root) {
            self.cannot_watch(&error);
        }
        let pods = match list_folders(&root) {
            Ok(pods) => {
                self.parts.readiness.clear("pods_dir");
                pods
            }
            Err(error) => {
                self.unwatched += 1;
                self.parts
                    .readiness
                    .block("pods_dir", format!("cannot read logs.pods_dir {}: {error}", root.display()));
                return;
            }
        };
        self.unfollowed.retain(|dir, _| pods.binary_search(&dir.pod_folder).is_ok());
        let gone: Vec<_> =
            self.instances.keys().filter(|key| pods.binary_search(&key.pod_folder).is_err()).cloned().collect();
        for key in gone {
            self.end_instance(&key);
        }
        let mut dirs = Vec::new();
        for pod in &pods {
            dirs.extend(self.dirs_of_pod(pod));
        }
        self.look_at(dirs, skip);
    }

    fn scan_pod(&mut self, folder: &str, skip: bool) {
        let dirs = self.dirs_of_pod(folder);
        self.look_at(dirs, skip);
    }

    /// The containers' folders of a pod that are to be read, watched from now on.
    fn dirs_of_pod(&mut self, folder: &str) -> Vec<ContainerDir> {
        let Some((namespace, _, _)) = parse_pod_folder(folder) else {
            if !folder.is_empty() {
                info!({ field::FILE_PATH } = folder, "a folder that is no pod's is left alone");
            }
            return Vec::new();
        };
        if self.settings.topics.route(&namespace) == Route::Excluded {
            return Vec::new();
        }
        let path = self.settings.pods_dir.join(folder);
        if let Err(error) = self.watcher.watch_pod(&path, folder) {
            self.cannot_watch(&error);
        }
        let containers = match list_folders(&path) {
            Ok(containers) => containers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                // What cannot be read has not ended.
                let shown = path.display().to_string();
                self.complain(&shown, |left_out| {
                    warn!({ field::FILE_PATH } = shown, { field::ERROR } = %error, left_out, "cannot list a pod's folder");
                });
                return Vec::new();
            }
        };
        let is_there =
            |dir: &ContainerDir| dir.pod_folder != folder || containers.binary_search(&dir.container).is_ok();
        self.unfollowed.retain(|dir, _| is_there(dir));
        let first = InstanceKey { pod_folder: folder.to_owned(), container: String::new(), restart: 0 };
        let of_pod = self.instances.range(first..).map(|(key, _)| key).take_while(|key| key.pod_folder == folder);
        let gone: Vec<_> = of_pod.filter(|key| containers.binary_search(&key.container).is_err()).cloned().collect();
        for key in gone {
            self.end_instance(&key);
        }
        let dirs = containers.into_iter().filter(|name| is_container_name(name));
        dirs.map(|container| ContainerDir { pod_folder: folder.to_owned(), container }).collect()
    }

    /// Looks at containers' folders until none of them changes under the look, then places what is new.
    fn look_at(&mut self, mut dirs: Vec<ContainerDir>, skip: bool) {
        let mut touched = BTreeSet::new();
        let mut newest = BTreeMap::new();
        for look in 1..=LOOKS_MAX {
            for dir in &dirs {
                if let Some(restart) = self.hold_new(dir, &mut touched) {
                    newest.insert(dir.clone(), restart);
                }
            }
            // What was made during the look is told by now: placing needs every event up to what was seen.
            if touched.is_empty() || look == LOOKS_MAX || self.watcher.read().is_err() {
                break;
            }
            if self.watcher.overflowed {
                self.distrust_events();
            }
            let mut told = Vec::new();
            for (dir, change) in self.watcher.changes.iter_mut().filter(|(_, change)| change.has_names()) {
                told.push((dir.clone(), change.take_names()));
            }
            if told.is_empty() {
                break;
            }
            told.iter().for_each(|(dir, change)| self.note_events(dir, change));
            dirs = told.into_iter().map(|(dir, _)| dir).collect();
        }
        for key in touched {
            self.place_new(&key, skip);
        }
        // Only now: a file that is placed may still be the last one of an instance that ends here.
        for (dir, restart) in newest {
            self.end_dir(&dir, restart);
        }
    }

    /// Some event was lost: none proves anything until the folders were looked at.
    fn distrust_events(&mut self) {
        self.instances.values_mut().for_each(|instance| instance.gapless = false);
    }

    /// Holds what is new in a container's folder, and learns the names of what is held. Returns the highest restart count there.
    fn hold_new(&mut self, dir: &ContainerDir, touched: &mut BTreeSet<InstanceKey>) -> Option<u32> {
        let path = self.settings.pods_dir.join(&dir.pod_folder).join(&dir.container);
        let was_watched = self.watcher.is_watched(dir);
        if let Err(error) = self.watcher.watch_container(&path, dir) {
            self.cannot_watch(&error);
        }
        let (entries, links) = match list_logs_and_links(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.unfollowed.remove(dir);
                let gone: Vec<_> = self.instances_of(dir).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| self.end_instance(key));
                return None;
            }
            Err(error) => {
                let shown = path.display().to_string();
                self.complain(&shown, |left_out| warn!({ field::FILE_PATH } = shown, { field::ERROR } = %error, left_out, "cannot list log files"));
                return None;
            }
        };
        let mut by_restart: BTreeMap<u32, Vec<LogEntry>> = BTreeMap::new();
        for entry in entries {
            by_restart.entry(entry.log.restart).or_default().push(entry);
        }
        let linked = self.read_links(dir, &links);
        let newest = by_restart.keys().chain(linked.keys()).max().copied();
        self.forget_names(dir);
        for (restart, id) in linked {
            if by_restart.remove(&restart).is_some() {
                let shown = path.display().to_string();
                self.complain(&shown, |left_out| {
                    warn!(
                        { field::FILE_PATH } = shown,
                        restart, left_out, "ordinary log files beside a link to Docker's are not read"
                    )
                });
            }
            self.hold_docker(dir, restart, &id, touched);
        }
        for (restart, entries) in by_restart {
            let key = InstanceKey { pod_folder: dir.pod_folder.clone(), container: dir.container.clone(), restart };
            self.hold_entries(&key, &entries, None, was_watched, touched);
        }
        self.settle_names(dir);
        self.forget_old_events(dir);
        newest
    }

    /// Holds what is new among the files of an instance, and learns the names of what is held.
    pub(super) fn hold_entries(
        &mut self,
        key: &InstanceKey,
        entries: &[LogEntry],
        docker: Option<&DockerId>,
        was_watched: bool,
        touched: &mut BTreeSet<InstanceKey>,
    ) {
        if entries.iter().all(|entry| entry.log.is_compressed()) && !self.instances.contains_key(key) {
            return;
        }
        if self.instance(key).is_none() {
            return;
        }
        self.reached_by(key, docker);
        let Some(instance) = self.instances.get_mut(key) else { return };
        instance.gapless &= was_watched;
        instance.has_names = !entries.is_empty();
        instance.names = entries.to_vec();
        instance.links.values_mut().for_each(|link| link.name = None);
        for entry in entries.iter().filter(|entry| !entry.log.is_compressed()) {
            self.hold(key, entry, touched);
        }
        let Some(instance) = self.instances.get_mut(key) else { return };
        for entry in entries.iter().filter(|entry| entry.log.is_compressed()) {
            if let Some(link) = instance.link_of(entry.inode).and_then(|link| instance.links.get_mut(&link)) {
                link.name = Some(entry.name.clone());
            }
        }
        // What could not be placed at the last look is tried again.
        if !instance.unplaced.is_empty() {
            touched.insert(key.clone());
        }
    }

    /// Where the live file is the last one that is placed, all that was told so far is accounted for, and nothing can be missing.
    fn forget_old_events(&mut self, dir: &ContainerDir) {
        let is_watched = self.watcher.is_watched(dir);
        let docker = self.instances_of(dir).filter_map(|(key, instance)| Some((key.restart, instance.docker.clone()?)));
        let docker: Vec<_> = docker.collect();
        let is_docker_watched = |(restart, id): &(u32, DockerId)| self.watcher.is_docker_watched(dir, *restart, id);
        let docker: BTreeMap<_, _> = docker.iter().map(|of| (of.0, is_docker_watched(of))).collect();
        for (key, instance) in self.instances_of(dir) {
            let live = format!("{}.log", key.restart);
            let last = instance.growing().and_then(|epoch| epoch.last_link());
            let is_live =
                last.and_then(|link| instance.links.get(&link)).is_some_and(|link| link.name.as_deref() == Some(&live));
            if is_live && instance.unplaced.is_empty() && !instance.is_moving {
                instance.events.clear();
                instance.gapless = docker.get(&key.restart).copied().unwrap_or(is_watched);
            }
        }
    }

    /// Holds one file, unless it is held already.
    fn hold(&mut self, key: &InstanceKey, entry: &LogEntry, touched: &mut BTreeSet<InstanceKey>) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        let grammar = if instance.docker.is_some() { Grammar::Docker } else { Grammar::Cri };
        if let Some(number) = instance.link_of(entry.inode) {
            let is_placed = !instance.unplaced.contains(&number);
            if let Some(link) = instance.links.get_mut(&number) {
                link.name = Some(entry.name.clone());
                // How it is reached says more than what a lost position left to guess.
                link.grammar = if is_placed { link.grammar } else { grammar };
            }
            let unread = instance
                .epochs
                .iter()
                .any(|epoch| epoch.current_link() == Some(number) && entry.bytes != epoch.cursor.offset);
            if unread {
                self.queue(key);
            }
            return;
        }
        let number = instance.next_link;
        instance.next_link += 1;
        let id = instance.docker.clone();
        let path = self.folder(key).join(&entry.name);
        let taken = self.take(key, id.as_ref(), &entry.name, number);
        let stat = taken.as_ref().map(|taken| taken.stat);
        let Some(instance) = self.instances.get_mut(key) else { return };
        match stat {
            Ok(stat) if instance.link_of(stat.inode).is_some() => {
                // The name leads to another file by now, which is held already.
                let _ = self.held.release(key, number);
            }
            Ok(stat) => {
                debug!({ field::FILE_PATH } = %path.display(), link = number, "holding log file");
                let bytes_at_start = if instance.lost_links { stat.bytes } else { 0 };
                let name = Some(entry.name.clone());
                instance.links.insert(number, Link { inode: stat.inode, name, bytes_at_start, grammar });
                instance.unplaced.push(number);
                touched.insert(key.clone());
                if let Ok(crate::hold::Taken { without_link: Some(error), .. }) = &taken {
                    self.not_linked(&path, error);
                }
            }
            // Gone between the look and the link: what followed it is seen by the next event.
            Err(error) if error.kind() == io::ErrorKind::NotFound => instance.gapless = false,
            Err(error) => {
                instance.gapless = false;
                let shown = path.display().to_string();
                self.complain(&shown, |left_out| warn!({ field::FILE_PATH } = shown, { field::ERROR } = %error, left_out, "cannot hold log file; it is tried again"));
            }
        }
    }

    /// The instance of a key, made when it is new; `None` for what is no pod's folder.
    pub(super) fn instance(&mut self, key: &InstanceKey) -> Option<&mut Instance> {
        if !self.instances.contains_key(key) {
            let (namespace, pod, pod_uid) = parse_pod_folder(&key.pod_folder)?;
            let Route::Topic { topic, .. } = self.settings.topics.route(&namespace) else { return None };
            let identity = Identity {
                namespace: namespace.clone(),
                pod: pod.to_owned(),
                pod_uid: pod_uid.to_owned(),
                container: key.container.clone(),
                restart: key.restart,
            };
            self.parts.destinations.want(&topic);
            if let Some(rate) = self.settings.topics.rate_bytes_per_second(&namespace) {
                self.fair.set_rate(&namespace, rate, Instant::now());
            }
            let counters = self.parts.metrics.namespace(&namespace);
            let delivery = self.settings.topics.delivery(&namespace);
            let (known, is_elsewhere) = self.know(key);
            let mut new = Instance::new(key.clone(), identity, topic, counters);
            new.take_faults(self.pods.faults_of(&key.pod_folder));
            self.instances.insert(key.clone(), Instance { delivery, known, is_elsewhere, ..new });
        }
        self.instances.get_mut(key)
    }

    /// Before names are learned anew, the old ones are forgotten.
    fn forget_names(&mut self, dir: &ContainerDir) {
        for (_, instance) in self.instances_of(dir) {
            instance.has_names = false;
            instance.is_moving = false;
            instance.links.values_mut().for_each(|link| link.name = None);
        }
    }

    /// Looks whether files of a container lost their last name but ours.
    fn settle_names(&mut self, dir: &ContainerDir) {
        let keys: Vec<_> = self
            .instances_of(dir)
            .filter(|(_, instance)| !instance.has_names || instance.links.values().any(|link| link.name.is_none()))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.let_go(&key);
        }
    }

    /// Ends the instances of a container below a restart count, which will be written no more.
    fn end_dir(&mut self, dir: &ContainerDir, below: u32) {
        let ended: Vec<_> = self
            .instances_of(dir)
            .filter(|(key, instance)| key.restart < below && !instance.ended)
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            if let Some(instance) = self.instances.get_mut(&key) {
                instance.end();
                self.queue(&key);
            }
        }
    }

    /// Ends an instance whose folder is gone.
    fn end_instance(&mut self, key: &InstanceKey) {
        let Some(instance) = self.instances.get_mut(key) else { return };
        instance.has_names = false;
        instance.links.values_mut().for_each(|link| link.name = None);
        if !instance.ended {
            instance.end();
            self.queue(key);
        }
        self.let_go(key);
    }

    fn instances_of(&mut self, dir: &ContainerDir) -> impl Iterator<Item = (&InstanceKey, &mut Instance)> {
        let bound =
            |restart| InstanceKey { pod_folder: dir.pod_folder.clone(), container: dir.container.clone(), restart };
        self.instances.range_mut(bound(0)..=bound(u32::MAX))
    }

    fn note_events(&mut self, dir: &ContainerDir, change: &DirChange) {
        for (key, instance) in self.instances_of(dir) {
            // A link has names of its own, which say nothing of the file.
            let names: Vec<&NameEvent> = match &instance.docker {
                None => change.names.iter().collect(),
                Some(_) => {
                    let of_instance = change.docker.iter().filter(|(restart, _)| *restart == key.restart);
                    of_instance.map(|(_, event)| event).collect()
                }
            };
            if instance.events.len() + names.len() > EVENTS_MAX {
                instance.gapless = false;
                instance.events.clear();
            }
            instance.events.extend(names.into_iter().cloned());
        }
    }

    /// Something was written in a container's folder.
    fn wake(&mut self, dir: &ContainerDir) {
        let keys: Vec<_> =
            self.instances_of(dir).filter(|(_, instance)| !instance.queued).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.queue(&key);
        }
    }

    pub(super) fn cannot_watch(&mut self, error: &WatchError) {
        let (shown, source) = match error {
            WatchError::Add { source, .. } if source.kind() == io::ErrorKind::NotFound => return,
            WatchError::Add { path, source } => (path.display().to_string(), source),
            WatchError::Init(source) => (String::new(), source),
        };
        self.unwatched += 1;
        self.complain("add-watch", |left_out| {
            warn!({ field::FILE_PATH } = shown, { field::ERROR } = %source, left_out, "{error}; all folders are looked at every second instead");
        });
    }
}
