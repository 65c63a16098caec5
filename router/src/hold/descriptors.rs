//! Log files that cannot be linked: an open descriptor holds each of them for as long as this process lives.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rustix::{
    fs::{AtFlags, CWD, OFlags, linkat},
    process::{Resource, getrlimit},
};

use crate::checkpoint::{DescriptorState, InstanceKey};

/// The part of the limit of open files that may hold files; the rest is for reading them, and for Kafka.
const SHARE_OF_LIMIT: u64 = 2;

/// The open descriptors.
#[derive(Debug)]
pub struct Descriptors {
    open: BTreeMap<(InstanceKey, u32), File>,
    max: usize,
}

impl Descriptors {
    /// None yet, and as many as the process's limit of open files lets there be.
    pub fn new() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self { open: BTreeMap::new(), max: usize::try_from(limit / SHARE_OF_LIMIT).unwrap_or(usize::MAX) }
    }

    /// Holds a log file.
    ///
    /// # Errors
    /// `NotFound` when the name is gone, `InvalidInput` when it is no regular file's; `EMFILE` when no more may be open.
    pub fn hold(&mut self, from: &Path, key: &InstanceKey, link: u32) -> io::Result<()> {
        if self.is_full() {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(from)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.open.insert((key.clone(), link), file);
        Ok(())
    }

    /// Holds a log file that is open already.
    ///
    /// # Errors
    /// `EMFILE` when no more may be open.
    pub fn hold_open(&mut self, file: File, key: &InstanceKey, link: u32) -> io::Result<()> {
        if self.is_full() {
            return Err(rustix::io::Errno::MFILE.into());
        }
        self.open.insert((key.clone(), link), file);
        Ok(())
    }

    /// The file of a link, if a descriptor holds it.
    pub fn get(&self, key: &InstanceKey, link: u32) -> Option<&File> {
        // Almost always empty: no key is made for nothing.
        if self.open.is_empty() { None } else { self.open.get(&(key.clone(), link)) }
    }

    /// Lets a file go. Returns whether a descriptor held it.
    pub fn release(&mut self, key: &InstanceKey, link: u32) -> bool {
        !self.open.is_empty() && self.open.remove(&(key.clone(), link)).is_some()
    }

    /// How many files are held so.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no more may be open.
    pub fn is_full(&self) -> bool {
        self.open.len() >= self.max
    }

    /// What tells the held files of an instance from others after a restart.
    pub fn states(&self, key: &InstanceKey) -> Vec<DescriptorState> {
        let of_key = self.open.range((key.clone(), 0)..=(key.clone(), u32::MAX));
        of_key.filter_map(|((_, link), file)| state_of(*link, file).ok()).collect()
    }

    /// Tries to link what is held so. Returns how many files have a link now, and no descriptor any more.
    pub fn link_all(&mut self, path: impl Fn(&InstanceKey, u32) -> PathBuf) -> usize {
        let mut linked = Vec::new();
        for ((key, link), file) in &self.open {
            let to = path(key, *link);
            let made = to.parent().is_none_or(|folder| std::fs::create_dir_all(folder).is_ok());
            match link_open(file, &to) {
                Ok(()) => linked.push((key.clone(), *link)),
                // A file without any name cannot get one.
                Err(rustix::io::Errno::NOENT) if made => {}
                // It is on a mount of its own, as Docker's files are; others need not be.
                Err(rustix::io::Errno::XDEV) => {}
                // Where one cannot be linked, the others cannot either.
                Err(_) => break,
            }
        }
        for held in &linked {
            self.open.remove(held);
        }
        linked.len()
    }

    /// Lets only so many be open.
    #[cfg(test)]
    pub fn limit(&mut self, max: usize) {
        self.max = max;
    }
}

/// Gives an open file a name.
///
/// # Errors
/// The error of linking; `ENOENT` also where the file has no name at all.
pub fn link_open(file: &File, to: &Path) -> rustix::io::Result<()> {
    linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, to, AtFlags::SYMLINK_FOLLOW)
}

/// What is stored of a file that a descriptor holds.
///
/// # Errors
/// The error of looking at the file.
pub fn state_of(link: u32, file: &File) -> io::Result<DescriptorState> {
    let metadata = file.metadata()?;
    let since = metadata.created().ok().and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    let born = since.and_then(|since| i128::try_from(since.as_nanos()).ok());
    Ok(DescriptorState { link, device: metadata.dev(), inode: metadata.ino(), born })
}
