//! Finds container log files. Input: the kubelet's pods folder. Output: [`ContainerDir`]s and what happened in them.
//!
//! Identity comes from the path alone: `<namespace>_<pod>_<uid>/<container>/<restart count>.log`. The watch says where to look; what is there
//! is always read from the folder itself, so a lost event costs time and never a line.

mod names;
mod watch;

pub use names::{ContainerDir, LogKind, LogName, is_container_name, parse_log_name, parse_pod_folder};
pub use watch::{DirChange, NameEvent, WatchError, Watcher};

use std::{fs, io, path::Path};

/// A directory entry that is a log file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The file name.
    pub name: String,
    /// What the name says.
    pub log: LogName,
    /// Device and inode number.
    pub inode: (u64, u64),
    /// Its size in bytes.
    pub bytes: u64,
}

/// Lists the log files of a container's folder, compressed ones without their inode's content being of interest.
///
/// Symbolic links and everything that is no regular file are left out.
///
/// # Errors
/// The error of reading the folder; a file that vanishes meanwhile is none.
pub fn list_logs(folder: &Path) -> io::Result<Vec<LogEntry>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(log) = parse_log_name(&name) else { continue };
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_file() {
            found.push(LogEntry { name, log, inode: (metadata.dev(), metadata.ino()), bytes: metadata.len() });
        }
    }
    Ok(found)
}

/// The names of the folders directly inside a folder, sorted; symbolic links are not followed.
///
/// # Errors
/// The error of reading the folder.
pub fn list_folders(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}
