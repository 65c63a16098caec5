//! File systems of a test's own: small ones that run full, and ones that can be made read-only.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::folders;

/// Why nothing can be mounted on this machine; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can mount".to_owned());
    }
    Mount::memory(1).err().map(|error| format!("a tmpfs cannot be mounted: {error:#}"))
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    folder: TempDir,
}

impl Mount {
    /// A file system in memory of so many MiB.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn memory(mebibytes: u32) -> Result<Mount> {
        let folder = folders::scratch("mount")?;
        mount(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755"), "tmpfs"], folder.path())?;
        Ok(Mount { folder })
    }

    /// The same files as another mount's, under another path; made read-only it leaves the other as it is.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn bind(other: &Mount) -> Result<Mount> {
        let folder = folders::scratch("mount")?;
        mount(&["--bind", &other.path().display().to_string()], folder.path())?;
        Ok(Mount { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a bind mount read-only, or writable again. Nothing may be open for writing under it.
    ///
    /// # Errors
    /// When it cannot be changed.
    pub fn read_only(&self, on: bool) -> Result<()> {
        mount(&["-o", if on { "remount,bind,ro" } else { "remount,bind,rw" }], self.path())
    }

    /// Fills it to its last byte.
    ///
    /// # Errors
    /// When it cannot be written for another reason.
    pub fn fill(&self) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).context("the filler")?;
        // Smaller and smaller pieces, down to a byte.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("fill the file system"),
                }
            }
        }
        Ok(())
    }

    /// Ends [`Mount::fill`].
    ///
    /// # Errors
    /// When the filler cannot be removed.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("remove the filler")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(words: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new("mount").args(words).arg(folder).output().context("run mount")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "mount {}: {}", words.join(" "), said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Component;

    #[test]
    fn fills_and_turns_read_only() {
        if !Component::Mounts.usable() {
            return;
        }
        let mount = Mount::memory(2).unwrap();
        mount.fill().unwrap();
        let full = std::fs::write(mount.path().join("more"), "more").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        mount.free().unwrap();
        let bind = Mount::bind(&mount).unwrap();
        bind.read_only(true).unwrap();
        let refused = std::fs::write(bind.path().join("a"), "a").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        std::fs::write(mount.path().join("a"), "a").unwrap();
        bind.read_only(false).unwrap();
        std::fs::write(bind.path().join("b"), "b").unwrap();
    }
}
