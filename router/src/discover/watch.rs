//! The inotify watch: one instance, one watch for each folder, never one for a file.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, poll};

use super::{ContainerDir, DockerDir, DockerId};

/// What could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No inotify instance is left on this node (`fs.inotify.max_user_instances`).
    #[error("cannot make an inotify instance")]
    Init(#[source] io::Error),
    /// A folder cannot be watched; `ENOSPC` means that `fs.inotify.max_user_watches` is used up.
    #[error("cannot watch {}", path.display())]
    Add {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One event on a name in a container's folder, in the order in which the kernel saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameEvent {
    /// A file was made under this name.
    Created(String),
    /// A file lost this name; the same cookie tells where it went.
    MovedFrom(String, u32),
    /// A file got this name.
    MovedTo(String, u32),
    /// A name was removed.
    Deleted(String),
}

/// What happened since the last read.
#[derive(Debug, Default)]
pub struct DirChange {
    /// Events on the names of files, in order.
    pub names: Vec<NameEvent>,
    /// The same in Docker's folders, by the names that the kubelet's folder would have, each with the restart count of its instance.
    pub docker: Vec<(u32, NameEvent)>,
    /// Whether something was written to a file.
    pub written: bool,
}

impl DirChange {
    /// Whether names changed.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty() || !self.docker.is_empty()
    }

    /// Takes out what is known of names.
    pub fn take_names(&mut self) -> Self {
        Self { names: std::mem::take(&mut self.names), docker: std::mem::take(&mut self.docker), written: false }
    }
}

/// What a watched folder is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Root,
    Pod(String),
    Container(ContainerDir),
    /// Docker's folder of a container, with its restart count.
    Docker(ContainerDir, u32, DockerId),
}

/// Watches the pods folder, the pods' folders and the containers' folders.
#[derive(Debug)]
pub struct Watcher {
    /// None while no instance can be made.
    inotify: Option<Inotify>,
    places: HashMap<WatchDescriptor, Place>,
    descriptors: HashMap<Place, WatchDescriptor>,
    buffer: Vec<u8>,
    /// Changes of containers' folders since they were last taken.
    pub changes: HashMap<ContainerDir, DirChange>,
    /// Pods' folders whose list of containers may have changed; the pods folder itself is the empty name.
    pub folders: Vec<String>,
    /// Whether the kernel's queue ran over: everything must be looked at again.
    pub overflowed: bool,
}

const BUFFER_BYTES: usize = 64 << 10;

impl Default for Watcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Watcher {
    /// Watches nothing yet.
    pub fn new() -> Self {
        Self {
            inotify: None,
            places: HashMap::new(),
            descriptors: HashMap::new(),
            buffer: vec![0; BUFFER_BYTES],
            changes: HashMap::new(),
            folders: Vec::new(),
            overflowed: false,
        }
    }

    /// Watches the pods folder; doing it again costs nothing.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch_root(&mut self, path: &Path) -> Result<(), WatchError> {
        self.add(path, folder_mask(), Place::Root)
    }

    /// Watches a pod's folder.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch_pod(&mut self, path: &Path, folder: &str) -> Result<(), WatchError> {
        self.add(path, folder_mask(), Place::Pod(folder.to_owned()))
    }

    /// Watches a container's folder, and writing to its files.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch_container(&mut self, path: &Path, dir: &ContainerDir) -> Result<(), WatchError> {
        self.add(path, folder_mask() | WatchMask::MOVED_FROM | WatchMask::MODIFY, Place::Container(dir.clone()))
    }

    /// Whether a container's folder is watched.
    pub fn is_watched(&self, dir: &ContainerDir) -> bool {
        self.descriptors.contains_key(&Place::Container(dir.clone()))
    }

    /// Watches the folder in which Docker has the files of a container with this restart count, and writing to them.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch_docker(
        &mut self,
        docker: &DockerDir,
        dir: &ContainerDir,
        restart: u32,
        id: &DockerId,
    ) -> Result<(), WatchError> {
        let mask = folder_mask() | WatchMask::MOVED_FROM | WatchMask::MODIFY | WatchMask::DONT_FOLLOW;
        self.add(&docker.folder(id), mask, Place::Docker(dir.clone(), restart, id.clone()))
    }

    /// Whether Docker's folder of a container is watched.
    pub fn is_docker_watched(&self, dir: &ContainerDir, restart: u32, id: &DockerId) -> bool {
        self.descriptors.contains_key(&Place::Docker(dir.clone(), restart, id.clone()))
    }

    /// Watches Docker's folder of a container no more.
    pub fn unwatch_docker(&mut self, dir: &ContainerDir, restart: u32, id: &DockerId) {
        if let Some(descriptor) = self.descriptors.remove(&Place::Docker(dir.clone(), restart, id.clone())) {
            self.places.remove(&descriptor);
            if let Some(inotify) = &self.inotify {
                // A folder that is gone took its watch with it.
                let _ = inotify.watches().remove(descriptor);
            }
        }
    }

    /// How many folders are watched.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn add(&mut self, path: &Path, mask: WatchMask, place: Place) -> Result<(), WatchError> {
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            none => none.insert(Inotify::init().map_err(WatchError::Init)?),
        };
        let added = inotify.watches().add(path, mask);
        let descriptor = added.map_err(|source| WatchError::Add { path: path.to_owned(), source })?;
        self.descriptors.insert(place.clone(), descriptor.clone());
        self.places.insert(descriptor, place);
        Ok(())
    }

    /// Waits until there is something to read here or at `other`, at most this long.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, longest: Duration) {
        let own = self.inotify.as_ref().map(AsFd::as_fd);
        let descriptors = own.into_iter().chain(other);
        let mut descriptors: Vec<_> = descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = longest.try_into().ok();
        // An interrupted or failed wait is an early end of it: the caller looks at everything anyway.
        let _ = poll(&mut descriptors, timeout.as_ref());
    }

    /// Takes all events that are there into `changes`, `folders` and `overflowed`, without waiting.
    ///
    /// # Errors
    /// The error of reading the inotify descriptor.
    pub fn read(&mut self) -> io::Result<()> {
        let Some(inotify) = &mut self.inotify else { return Ok(()) };
        loop {
            let events = match inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    self.overflowed = true;
                    continue;
                }
                let Some(place) = self.places.get(&event.wd) else { continue };
                match place {
                    Place::Root => {
                        let name = event.name.and_then(|name| name.to_str()).unwrap_or_default();
                        self.folders.push(name.to_owned());
                    }
                    Place::Pod(folder) => self.folders.push(folder.clone()),
                    Place::Container(dir) => {
                        if !self.changes.contains_key(dir) {
                            self.changes.insert(dir.clone(), DirChange::default());
                        }
                        if let Some(change) = self.changes.get_mut(dir) {
                            let name = event.name.and_then(|name| name.to_str());
                            change.written |= event.mask.contains(EventMask::MODIFY);
                            change.names.extend(name.and_then(|name| name_event(event.mask, event.cookie, name)));
                        }
                    }
                    Place::Docker(dir, restart, id) => {
                        // Other files of Docker's in that folder are of no interest.
                        let name = event.name.and_then(|name| id.log_name(*restart, name.to_str()?));
                        if let Some(name) = name {
                            let change = self.changes.entry(dir.clone()).or_default();
                            change.written |= event.mask.contains(EventMask::MODIFY);
                            let event = name_event(event.mask, event.cookie, &name);
                            change.docker.extend(event.map(|event| (*restart, event)));
                        }
                    }
                }
                if event.mask.contains(EventMask::IGNORED)
                    && let Some(place) = self.places.remove(&event.wd)
                    && self.descriptors.get(&place) == Some(&event.wd)
                {
                    self.descriptors.remove(&place);
                }
            }
        }
    }
}

fn folder_mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn name_event(mask: EventMask, cookie: u32, name: &str) -> Option<NameEvent> {
    let name = || name.to_owned();
    if mask.contains(EventMask::CREATE) {
        Some(NameEvent::Created(name()))
    } else if mask.contains(EventMask::MOVED_FROM) {
        Some(NameEvent::MovedFrom(name(), cookie))
    } else if mask.contains(EventMask::MOVED_TO) {
        Some(NameEvent::MovedTo(name(), cookie))
    } else if mask.contains(EventMask::DELETE) {
        Some(NameEvent::Deleted(name()))
    } else {
        None
    }
}
