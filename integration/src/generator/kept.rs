//! A container's log of which a copy of every byte is kept: what a judge must find whatever happens to the files.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::Identity;
use super::cri::{Stream, open};

/// Writes one container's files and keeps their bytes.
#[derive(Debug)]
pub struct KeptLog {
    /// Whose log it is.
    pub identity: Identity,
    path: PathBuf,
    file: File,
    /// The bytes of each file, oldest first; the last is live.
    pub files: Vec<Vec<u8>>,
    /// Rotated files that are still there, oldest first.
    rotated: Vec<PathBuf>,
}

impl KeptLog {
    /// Makes the folders and the first file of a container.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(pods: &Path, identity: &Identity) -> Result<KeptLog> {
        let path = identity.log(pods, 0);
        let folder = path.parent().context("a container's folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let file = open(&path)?;
        let files = vec![Vec::new()];
        Ok(KeptLog { identity: identity.clone(), path, file, files, rotated: Vec::new() })
    }

    /// Appends bytes as they are. Where the disk is full as many as it takes, which is what is kept; says whether all were
    /// written.
    ///
    /// # Errors
    /// When they cannot be written for another reason.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<bool> {
        let kept = self.files.last_mut().context("a live file")?;
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(written) => {
                    kept.extend_from_slice(&bytes[..written]);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(false),
                Err(error) => return Err(error).with_context(|| format!("write {}", self.path.display())),
            }
        }
        Ok(true)
    }

    /// Appends one physical line with the time of now: `tag` is `F`, or `P` for a fragment.
    ///
    /// # Errors
    /// As [`KeptLog::write`].
    pub fn line(&mut self, stream: Stream, tag: char, content: &[u8]) -> Result<bool> {
        let mut line = format!("{} {} {tag} ", Timestamp::now(), stream.as_str()).into_bytes();
        line.extend_from_slice(content);
        line.push(b'\n');
        self.write(&line)
    }

    /// Bytes in the live file.
    pub fn live_bytes(&self) -> u64 {
        self.files.last().map_or(0, |file| file.len() as u64)
    }

    /// Gives the live file a name of its own and begins the next; keeps the latest `keep` rotated files. Names count up, so
    /// that there may be many in a second.
    ///
    /// # Errors
    /// When files cannot be renamed, removed or made.
    pub fn rotate(&mut self, keep: usize) -> Result<()> {
        let name = format!("{}.20260101-{:06}", self.path.display(), self.files.len());
        std::fs::rename(&self.path, &name).with_context(|| format!("rename {}", self.path.display()))?;
        self.file = open(&self.path)?;
        self.files.push(Vec::new());
        self.rotated.push(name.into());
        while self.rotated.len() > keep {
            let oldest = self.rotated.remove(0);
            std::fs::remove_file(&oldest).with_context(|| format!("remove {}", oldest.display()))?;
        }
        Ok(())
    }

    /// Is the live file held: has it another name than this?
    pub fn is_held(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 1)
    }

    /// Removes the pod's folder, as the kubelet does with a deleted pod.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_pod(&self) -> Result<()> {
        let folder = self.path.parent().and_then(Path::parent).context("a pod's folder")?;
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_wrote() {
        let pods = crate::folders::scratch("kept").unwrap();
        let mut log = KeptLog::create(pods.path(), &Identity::new("a", "p", "c")).unwrap();
        assert!(log.line(Stream::Stdout, 'P', b"one").unwrap());
        log.rotate(1).unwrap();
        assert!(log.write(b"half").unwrap());
        log.rotate(1).unwrap();
        let folder = log.path.parent().unwrap().to_path_buf();
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.20260101-000002"]);
        assert_eq!(log.files[1], b"half");
        assert!(log.files[0].ends_with(b" stdout P one\n"));
        assert_eq!((log.live_bytes(), log.is_held()), (0, false));
        log.remove_pod().unwrap();
        assert!(!folder.exists());
    }
}
