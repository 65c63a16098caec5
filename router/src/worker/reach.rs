//! How the files of an instance are reached: as ordinary files in the kubelet's folder, or through a link to Docker's. Other links are not followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use fairlead_service_kit::telemetry::field;
use tracing::warn;

use super::Worker;
use crate::{
    checkpoint::InstanceKey,
    discover::{ContainerDir, DockerDir, DockerId, LogEntry, LogLink, list_logs_and_links},
    hold::{Taken, rotations},
};

/// How often the files of a container are listed again while Docker renames them.
pub(super) const LOOKS_MAX: usize = 5;
/// How long a number may be missing among the names of a container's files before it is taken to be missing for good: in the midst of a rotation one is.
const SHIFT_MAX: Duration = Duration::from_secs(1);
/// More links of a container that are not followed are not remembered.
const UNFOLLOWED_MAX: usize = 16;

/// Why a link is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotFollowed {
    #[error("logs.docker_containers_dir is not set")]
    NotSet,
    #[error("it leads to no live log file in logs.docker_containers_dir")]
    Elsewhere,
    #[error("its name is not a live log file's")]
    NotLive,
    #[error("another link leads to the same file")]
    Taken,
}

impl Worker {
    pub(super) fn folder(&self, key: &InstanceKey) -> PathBuf {
        self.settings.pods_dir.join(&key.pod_folder).join(&key.container)
    }

    /// Reads the links of a container's folder. Gives those that lead to Docker's files, by restart count, and says of the others why they do not.
    pub(super) fn read_links(&mut self, dir: &ContainerDir, links: &[LogLink]) -> BTreeMap<u32, DockerId> {
        let said = self.unfollowed.remove(dir).unwrap_or_default();
        let (mut followed, mut unfollowed) = (BTreeMap::new(), BTreeMap::new());
        for link in links {
            match self.follow(dir, link) {
                Ok(id) => _ = followed.insert(link.log.restart, id),
                Err(why) => _ = unfollowed.insert(link.name.clone(), why),
            }
        }
        while unfollowed.len() > UNFOLLOWED_MAX {
            unfollowed.pop_last();
        }
        // On a node with Docker this holds for all its containers.
        let mut not_set_said =
            self.unfollowed.values().chain([&said]).flat_map(BTreeMap::values).any(|why| *why == NotFollowed::NotSet);
        for link in links {
            let Some(why) = unfollowed.get(&link.name).filter(|why| said.get(&link.name) != Some(why)) else {
                continue;
            };
            if *why == NotFollowed::NotSet && std::mem::replace(&mut not_set_said, true) {
                continue;
            }
            let path = self.settings.pods_dir.join(&dir.pod_folder).join(&dir.container).join(&link.name);
            let (path, target) = (path.display().to_string(), link.target.display().to_string());
            warn!({ field::FILE_PATH } = path, target, { field::REASON } = %why, "a link among log files is not followed");
        }
        if !unfollowed.is_empty() {
            self.unfollowed.insert(dir.clone(), unfollowed);
        }
        followed
    }

    fn follow(&self, dir: &ContainerDir, link: &LogLink) -> Result<DockerId, NotFollowed> {
        let docker = self.settings.docker_containers_dir.as_ref().ok_or(NotFollowed::NotSet)?;
        if !link.log.is_live() {
            return Err(NotFollowed::NotLive);
        }
        let id = DockerId::of_link(docker.path(), &link.target).ok_or(NotFollowed::Elsewhere)?;
        let is_own = |key: &InstanceKey| {
            (&key.pod_folder, &key.container, key.restart) == (&dir.pod_folder, &dir.container, link.log.restart)
        };
        // One file under two names would be two runs of the same lines, and one of them in the wrong hands.
        let taken = self.instances.iter().any(|(key, instance)| instance.docker.as_ref() == Some(&id) && !is_own(key));
        if taken { Err(NotFollowed::Taken) } else { Ok(id) }
    }

    /// Tells metrics and readiness how many links are not followed.
    pub(super) fn report_unfollowed(&self) {
        let count: usize = self.unfollowed.values().map(BTreeMap::len).sum();
        self.parts.metrics.unfollowed_links.set(count as i64);
        let first = self.unfollowed.iter().find_map(|(dir, links)| Some((dir, links.first_key_value()?)));
        match first {
            None => self.parts.readiness.clear("links"),
            Some((dir, (name, why))) => {
                let text = format!(
                    "{count} links among log files are not followed: {}/{}/{name}: {why}",
                    dir.pod_folder, dir.container
                );
                self.parts.readiness.note("links", text);
            }
        }
    }

    /// Holds what is new of a container's files in Docker's folder. Until their names were seen to stand still while all of them were held, none is
    /// placed: a rotation gives each of them the name of another.
    pub(super) fn hold_docker(
        &mut self,
        dir: &ContainerDir,
        restart: u32,
        id: &DockerId,
        touched: &mut BTreeSet<InstanceKey>,
    ) {
        let Some(docker) = self.settings.docker_containers_dir.clone() else { return };
        let key = InstanceKey { pod_folder: dir.pod_folder.clone(), container: dir.container.clone(), restart };
        let was_watched = self.watcher.is_docker_watched(dir, restart, id);
        if let Err(error) = self.watcher.watch_docker(&docker, dir, restart, id) {
            self.cannot_watch(&error);
        }
        for look in 1..=LOOKS_MAX {
            let entries = match docker.list(id, restart) {
                Ok(entries) => entries,
                Err(error) => return self.cannot_list_docker(&docker, id, &error),
            };
            self.hold_entries(&key, &entries, Some(id), was_watched, touched);
            let stands_still = docker.list(id, restart).is_ok_and(|now| are_same(&entries, &now));
            let Some(instance) = self.instances.get_mut(&key) else { return };
            let waited = instance.moving_since.is_some_and(|since| since.elapsed() >= SHIFT_MAX);
            let may_place = stands_still && (waited || instance.unplaced.is_empty() || have_all_numbers(&entries));
            instance.is_moving = !may_place;
            if may_place {
                instance.moving_since = None;
                return;
            }
            instance.moving_since.get_or_insert_with(Instant::now);
            if look == LOOKS_MAX {
                self.watcher.folders.push(dir.pod_folder.clone());
            }
        }
    }

    fn cannot_list_docker(&mut self, docker: &DockerDir, id: &DockerId, error: &io::Error) {
        let shown = docker.folder(id).display().to_string();
        self.complain(&shown, |left_out| {
            warn!({ field::FILE_PATH } = shown, { field::ERROR } = %error, left_out, "cannot list the log files that a link leads to");
        });
    }

    /// From now on the instance's files are reached in this way.
    pub(super) fn reached_by(&mut self, key: &InstanceKey, id: Option<&DockerId>) {
        let Some(instance) = self.instances.get_mut(key).filter(|instance| instance.docker.as_ref() != id) else {
            return;
        };
        // What was seen of other files' names proves nothing of these.
        instance.gapless = false;
        instance.events.clear();
        let before = std::mem::replace(&mut instance.docker, id.cloned());
        self.unwatch_docker(key, before.as_ref());
    }

    pub(super) fn unwatch_docker(&mut self, key: &InstanceKey, id: Option<&DockerId>) {
        if let Some(id) = id {
            let dir = ContainerDir { pod_folder: key.pod_folder.clone(), container: key.container.clone() };
            self.watcher.unwatch_docker(&dir, key.restart, id);
        }
    }

    /// Takes hold of the file that one of an instance's names leads to.
    pub(super) fn take(&self, key: &InstanceKey, id: Option<&DockerId>, name: &str, link: u32) -> io::Result<Taken> {
        match id.zip(self.settings.docker_containers_dir.as_ref()) {
            Some((id, docker)) => self.held.take_open(docker.open(id, name)?, key, link),
            None => self.held.take(&self.folder(key).join(name), key, link),
        }
    }

    /// What an instance's files are now, before anything is known of it: through which link they are reached, and their names.
    pub(super) fn names_of(&self, key: &InstanceKey) -> (Option<DockerId>, Vec<LogEntry>) {
        let (entries, links) = list_logs_and_links(&self.folder(key)).unwrap_or_default();
        let dir = ContainerDir { pod_folder: key.pod_folder.clone(), container: key.container.clone() };
        let mut own = links.iter().filter(|link| link.log.restart == key.restart);
        let id = own.find_map(|link| self.follow(&dir, link).ok());
        match id.as_ref().zip(self.settings.docker_containers_dir.as_ref()) {
            Some((found, docker)) => {
                let list = || docker.list(found, key.restart).unwrap_or_default();
                let mut entries = list();
                for _ in 1..LOOKS_MAX {
                    let before = std::mem::replace(&mut entries, list());
                    if are_same(&before, &entries) {
                        break;
                    }
                }
                (id, entries)
            }
            None => (None, entries),
        }
    }
}

/// Whether no number is missing. The live file's may be: it is made last, when all others have their new names.
fn have_all_numbers(entries: &[LogEntry]) -> bool {
    let numbers: BTreeSet<u32> = entries.iter().filter_map(|entry| rotations(&entry.name)).collect();
    let ends = numbers.first().zip(numbers.last());
    ends.is_none_or(|(first, last)| *first <= 1 && numbers.len() as u64 == u64::from(last - first) + 1)
}

/// Whether these are the same files under the same names.
fn are_same(one: &[LogEntry], other: &[LogEntry]) -> bool {
    one.iter().map(|entry| (&entry.name, entry.inode)).eq(other.iter().map(|entry| (&entry.name, entry.inode)))
}
