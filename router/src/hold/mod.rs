//! Holds log files until they are delivered. Input: a log file's path. Output: a hard link under `state_dir/held/` whose place tells all.
//!
//! `held/<pod folder>/<container>/<restart count>.<k>`: with no other state, a held file is still known and readable. The link is the file's
//! identity: while it stands, its inode number cannot be used again. Nothing is ever created, renamed or removed outside of `state_dir`.

mod budget;
mod chain;
mod follow;
mod lease;

pub use budget::{Budget, COUNT_BYTES_MAX, FreeMin, positions_behind};
pub use chain::{LastFile, chain};
pub use follow::{NewFile, Order, by_first_time, order};
pub use lease::{Writers, ignore_lease_breaks, writers};

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{checkpoint::InstanceKey, discover::parse_pod_folder};

/// The folder of links.
#[derive(Clone, Debug)]
pub struct HeldFolder(PathBuf);

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
    /// Hard links cannot cross file systems.
    #[error("state_dir {} and logs.pods_dir {} are not on one file system, so log files cannot be held by hard links", state.display(), pods.display())]
    OtherFileSystem {
        /// The state folder.
        state: PathBuf,
        /// The pods folder.
        pods: PathBuf,
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
    /// How many names it has; 1: ours alone.
    pub names: u64,
}

impl HeldFolder {
    /// Makes the folder of links where it is missing.
    ///
    /// # Errors
    /// [`HoldError::Folder`].
    pub fn open(state_dir: &Path) -> Result<Self, HoldError> {
        let path = state_dir.join("held");
        fs::create_dir_all(&path).map_err(|source| HoldError::Folder { path: path.clone(), source })?;
        Ok(Self(path))
    }

    /// Whether files of the pods folder can be linked here at all.
    ///
    /// # Errors
    /// [`HoldError::OtherFileSystem`].
    pub fn check_reach(&self, pods_dir: &Path) -> Result<(), HoldError> {
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        match (device(&self.0), device(pods_dir)) {
            (Some(held), Some(pods)) if held != pods => {
                Err(HoldError::OtherFileSystem { state: self.0.clone(), pods: pods_dir.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// The path of a link.
    pub fn path(&self, key: &InstanceKey, link: u32) -> PathBuf {
        self.folder(key).join(format!("{}.{link}", key.restart))
    }

    /// The folder of a container's links.
    pub fn folder(&self, key: &InstanceKey) -> PathBuf {
        self.0.join(&key.pod_folder).join(&key.container)
    }

    /// Links a log file. The file that the name leads to at that instant is held, whatever the name led to before.
    ///
    /// # Errors
    /// `NotFound` when the name is gone; `AlreadyExists` when the link's name is taken.
    pub fn link(&self, from: &Path, key: &InstanceKey, link: u32) -> io::Result<HeldStat> {
        let to = self.path(key, link);
        let linked = fs::hard_link(from, &to);
        if let Err(error) = &linked
            && error.kind() == io::ErrorKind::NotFound
            && !self.folder(key).is_dir()
        {
            fs::create_dir_all(self.folder(key))?;
            fs::hard_link(from, &to)?;
        } else {
            linked?;
        }
        self.stat(key, link)
    }

    /// Opens a held file for reading.
    ///
    /// # Errors
    /// `NotFound` when there is no such link.
    pub fn file(&self, key: &InstanceKey, link: u32) -> io::Result<File> {
        File::open(self.path(key, link))
    }

    /// Looks at a held file.
    ///
    /// # Errors
    /// `NotFound` when there is no such link.
    pub fn stat(&self, key: &InstanceKey, link: u32) -> io::Result<HeldStat> {
        let metadata = fs::symlink_metadata(self.path(key, link))?;
        Ok(HeldStat {
            inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            disk_bytes: metadata.blocks() * 512,
            names: metadata.nlink(),
        })
    }

    /// Lets a file go.
    ///
    /// # Errors
    /// The error of unlinking; a link that is not there is none.
    pub fn release(&self, key: &InstanceKey, link: u32) -> io::Result<()> {
        match fs::remove_file(self.path(key, link)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
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
        for pod_folder in crate::discover::list_folders(&self.0).map_err(failed(&self.0))? {
            if parse_pod_folder(&pod_folder).is_none() {
                continue;
            }
            let pod = self.0.join(&pod_folder);
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
