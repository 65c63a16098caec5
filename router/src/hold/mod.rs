//! Holds log files until they are delivered. Input: a log file's path. Output: a hard link under `state_dir/held/` whose place tells all.
//!
//! `held/<pod folder>/<container>/<restart count>.<k>`: with no other state, a held file is still known and readable. The link is the file's
//! identity: while it stands, its inode number cannot be used again. Where a file cannot be linked, an open descriptor holds it for as long as the
//! process lives. Nothing is ever created, renamed or removed outside of `state_dir`.

mod budget;
mod chain;
mod descriptors;
mod follow;
mod lease;
mod reach;
mod shift;

pub use budget::{Budget, COUNT_BYTES_MAX, FreeMin, positions_behind};
pub use chain::{LastFile, chain};
pub use descriptors::state_of as descriptor_state;
pub use follow::{NewFile, Order, by_first_time, order};
pub use lease::{Writers, ignore_lease_breaks, writers};
pub use reach::{Reach, reach};
pub use shift::{rotations, shifted};

use std::{
    cell::RefCell,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{
    checkpoint::{DescriptorState, InstanceKey},
    discover::parse_pod_folder,
};
use descriptors::{Descriptors, link_open};

#[cfg(test)]
thread_local! {
    /// What every link of this thread fails with.
    pub static FAIL_LINKS: std::cell::Cell<Option<rustix::io::Errno>> = const { std::cell::Cell::new(None) };
}

/// The folder of links, and the descriptors of what cannot be linked. Clones share them.
#[derive(Clone, Debug)]
pub struct HeldFolder {
    path: PathBuf,
    descriptors: Rc<RefCell<Descriptors>>,
}

/// Why nothing can be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The folder of links cannot be made or read.
    #[error("cannot use {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A link found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLink {
    /// Whose file it is.
    pub key: InstanceKey,
    /// The last part of its name.
    pub link: u32,
}

/// What the file system says of a held file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldStat {
    /// Device and inode number.
    pub inode: (u64, u64),
    /// Bytes.
    pub bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// How many names it has; 1: ours alone, which a descriptor counts as.
    pub names: u64,
}

/// A file that was taken hold of.
#[derive(Debug)]
pub struct Taken {
    /// What the file system says of it.
    pub stat: HeldStat,
    /// Why a descriptor holds it, if no link does.
    pub without_link: Option<io::Error>,
}

impl HeldFolder {
    /// Makes the folder of links where it is missing.
    ///
    /// # Errors
    /// [`HoldError::Folder`].
    pub fn open(state_dir: &Path) -> Result<Self, HoldError> {
        let path = state_dir.join("held");
        fs::create_dir_all(&path).map_err(|source| HoldError::Folder { path: path.clone(), source })?;
        Ok(Self { path, descriptors: Rc::new(RefCell::new(Descriptors::new())) })
    }

    /// The path of a link.
    pub fn path(&self, key: &InstanceKey, link: u32) -> PathBuf {
        self.folder(key).join(format!("{}.{link}", key.restart))
    }

    /// The folder of a container's links.
    pub fn folder(&self, key: &InstanceKey) -> PathBuf {
        self.path.join(&key.pod_folder).join(&key.container)
    }

    /// Takes hold of a log file, by a link if it can be linked. The file that the name leads to at that instant is held, whatever the name led to
    /// before.
    ///
    /// # Errors
    /// `NotFound` when the name is gone; `AlreadyExists` when the link's name is taken; else the file can be neither linked nor opened.
    pub fn take(&self, from: &Path, key: &InstanceKey, link: u32) -> io::Result<Taken> {
        let without_link = match self.link(from, key, link) {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(error) => {
                self.descriptors.borrow_mut().hold(from, key, link)?;
                Some(error)
            }
        };
        Ok(Taken { stat: self.stat(key, link)?, without_link })
    }

    /// Takes hold of an open log file as [`HeldFolder::take`] does.
    ///
    /// # Errors
    /// `AlreadyExists` when the link's name is taken; `EMFILE` when it cannot be linked and no more may be open.
    pub fn take_open(&self, file: File, key: &InstanceKey, link: u32) -> io::Result<Taken> {
        let without_link = match self.link_by(key, link, |to| Ok(link_open(&file, to)?)) {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(error) => {
                self.descriptors.borrow_mut().hold_open(file, key, link)?;
                Some(error)
            }
        };
        Ok(Taken { stat: self.stat(key, link)?, without_link })
    }

    fn link(&self, from: &Path, key: &InstanceKey, link: u32) -> io::Result<()> {
        self.link_by(key, link, |to| fs::hard_link(from, to))
    }

    fn link_by(&self, key: &InstanceKey, link: u32, by: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = FAIL_LINKS.get() {
            return Err(errno.into());
        }
        let to = self.path(key, link);
        let linked = by(&to);
        if let Err(error) = &linked
            && error.kind() == io::ErrorKind::NotFound
            && !self.folder(key).is_dir()
        {
            fs::create_dir_all(self.folder(key))?;
            return by(&to);
        }
        linked
    }

    /// Opens a held file for reading.
    ///
    /// # Errors
    /// `NotFound` when there is no such link.
    pub fn file(&self, key: &InstanceKey, link: u32) -> io::Result<File> {
        if let Some(file) = self.descriptors.borrow().get(key, link) {
            return file.try_clone();
        }
        File::open(self.path(key, link))
    }

    /// Looks at a held file.
    ///
    /// # Errors
    /// `NotFound` when there is no such link.
    pub fn stat(&self, key: &InstanceKey, link: u32) -> io::Result<HeldStat> {
        let stat = |metadata: &Metadata, ours| HeldStat {
            inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            disk_bytes: metadata.blocks() * 512,
            names: metadata.nlink() + ours,
        };
        if let Some(file) = self.descriptors.borrow().get(key, link) {
            return Ok(stat(&file.metadata()?, 1));
        }
        Ok(stat(&fs::symlink_metadata(self.path(key, link))?, 0))
    }

    /// Lets a file go.
    ///
    /// # Errors
    /// The error of unlinking; a link that is not there is none.
    pub fn release(&self, key: &InstanceKey, link: u32) -> io::Result<()> {
        if self.descriptors.borrow_mut().release(key, link) {
            return Ok(());
        }
        match fs::remove_file(self.path(key, link)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// How many files descriptors hold.
    pub fn descriptors(&self) -> usize {
        self.descriptors.borrow().len()
    }

    /// Whether no more files can be held by descriptors.
    pub fn is_full(&self) -> bool {
        self.descriptors.borrow().is_full()
    }

    /// What tells the files of an instance that descriptors hold from others after a restart.
    pub fn descriptor_states(&self, key: &InstanceKey) -> Vec<DescriptorState> {
        self.descriptors.borrow().states(key)
    }

    /// Tries again to link what descriptors hold. Returns how many files have a link now.
    pub fn link_descriptors(&self) -> usize {
        #[cfg(test)]
        if FAIL_LINKS.get().is_some() {
            return 0;
        }
        self.descriptors.borrow_mut().link_all(|key, link| self.path(key, link))
    }

    /// Lets only so many files be held by descriptors.
    #[cfg(test)]
    pub fn limit_descriptors(&self, max: usize) {
        self.descriptors.borrow_mut().limit(max);
    }

    /// Removes the folders of a container that holds nothing any more.
    pub fn tidy(&self, key: &InstanceKey) {
        let folder = self.folder(key);
        // A folder that is not empty stays, which is what is wanted.
        if fs::remove_dir(&folder).is_ok()
            && let Some(pod) = folder.parent()
        {
            let _ = fs::remove_dir(pod);
        }
    }

    /// All links, sorted by their place. What does not read as a link is left alone.
    ///
    /// # Errors
    /// [`HoldError::Folder`].
    pub fn list(&self) -> Result<Vec<HeldLink>, HoldError> {
        let mut links = Vec::new();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| HoldError::Folder { path, source }
        };
        for pod_folder in crate::discover::list_folders(&self.path).map_err(failed(&self.path))? {
            if parse_pod_folder(&pod_folder).is_none() {
                continue;
            }
            let pod = self.path.join(&pod_folder);
            for container in crate::discover::list_folders(&pod).map_err(failed(&pod))? {
                let folder = pod.join(&container);
                for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
                    let name = entry.map_err(failed(&folder))?.file_name();
                    let parsed = name.to_str().and_then(|name| name.split_once('.'));
                    if let Some((Ok(restart), Ok(link))) = parsed.map(|(restart, link)| (restart.parse(), link.parse()))
                    {
                        let key = InstanceKey { pod_folder: pod_folder.clone(), container: container.clone(), restart };
                        links.push(HeldLink { key, link });
                    }
                }
            }
        }
        links.sort_by(|a, b| (&a.key, a.link).cmp(&(&b.key, b.link)));
        Ok(links)
    }
}
