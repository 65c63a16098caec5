//! Finds container log files. Input: the kubelet's pods folder. Output: [`ContainerDir`]s and what happened in them.
//!
//! Identity comes from the path alone: `<namespace>_<pod>_<uid>/<container>/<restart count>.log`. The watch says where to look; what is there
//! is always read from the folder itself, so a lost event costs time and never a line. Where `<restart count>.log` is a link to a file of Docker's,
//! that file and the rotated ones beside it are the instance's.

mod docker;
mod names;
mod watch;

pub use docker::{DockerDir, DockerId, LogLink};
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

/// Lists the log files of a container's folder.
///
/// # Errors
/// As [`list_logs_and_links`].
pub fn list_logs(folder: &Path) -> io::Result<Vec<LogEntry>> {
    Ok(list_logs_and_links(folder)?.0)
}

/// Lists the log files of a container's folder, and the symbolic links with such names. What is neither a regular file nor a link is left out.
///
/// # Errors
/// The error of reading the folder; what vanishes meanwhile is none.
pub fn list_logs_and_links(folder: &Path) -> io::Result<(Vec<LogEntry>, Vec<LogLink>)> {
    use std::os::unix::fs::MetadataExt;
    let (mut found, mut links) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(log) = parse_log_name(&name) else { continue };
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_file() {
            found.push(LogEntry { name, log, inode: (metadata.dev(), metadata.ino()), bytes: metadata.len() });
        } else if metadata.is_symlink()
            && let Ok(target) = fs::read_link(entry.path())
        {
            links.push(LogLink { name, log, target });
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, links))
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
