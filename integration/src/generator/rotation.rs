//! The kubelet's part in a log's life (`pkg/kubelet/logs/container_log_manager.go`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use jiff::Zoned;

/// Steps 2 and 3: removes what an interrupted run left, the oldest beyond `files - 2`, and zips the rest, so that only
/// the file rotated next stays plain.
///
/// # Errors
/// When a file cannot be removed or zipped.
pub fn tidy(log: &Path, files: usize) -> Result<()> {
    let mut rotated = rotated(log)?;
    rotated.retain(|path| {
        let name = path.to_string_lossy();
        let left_over = name.ends_with(".tmp") || Path::new(&format!("{name}.gz")).exists();
        if left_over {
            let _ = std::fs::remove_file(path);
        }
        !left_over
    });
    let surplus = rotated.len().saturating_sub(files.saturating_sub(2));
    for path in rotated.drain(..surplus) {
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    rotated.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")).try_for_each(|p| zip(p))
}

/// Step 4, first half: gives the live file a dated name. False if that name is taken: it has a resolution of a second,
/// and the kubelet, which rotates at most every three seconds, would overwrite.
///
/// # Errors
/// When it cannot be renamed.
pub fn move_away(log: &Path) -> Result<bool> {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{}", Zoned::now().strftime("%Y%m%d-%H%M%S")));
    let name = PathBuf::from(name);
    if name.exists() || with_suffix(&name, ".gz").exists() {
        return Ok(false);
    }
    std::fs::rename(log, &name).with_context(|| format!("rename {}", log.display()))?;
    Ok(true)
}

/// Rotated files of a log, oldest name first.
///
/// # Errors
/// When the folder cannot be read.
pub fn rotated(log: &Path) -> Result<Vec<PathBuf>> {
    let folder = log.parent().context("a container's folder")?;
    let prefix = format!("{}.", log.file_name().context("a log's name")?.to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// `X` to `X.tmp`, renamed to `X.gz`, then `X` unlinked: another inode, and for a moment both.
fn zip(path: &Path) -> Result<()> {
    let (temporary, zipped) = (with_suffix(path, ".tmp"), with_suffix(path, ".gz"));
    let output = File::create(&temporary).with_context(|| format!("make {}", temporary.display()))?;
    let status = Command::new("gzip").arg("-c").arg(path).stdout(output).status().context("run gzip")?;
    ensure!(status.success(), "gzip {}: {status}", path.display());
    std::fs::rename(&temporary, &zipped).with_context(|| format!("rename {}", temporary.display()))?;
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_zips_all_but_the_last() {
        let folder = crate::folders::scratch("rotation").unwrap();
        let log = folder.path().join("0.log");
        for (name, content) in [("0.log.20260101-000001.gz", "z"), ("0.log.20260101-000002", "two"), ("0.log", "live")]
        {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        std::fs::write(folder.path().join("0.log.20260101-000002.tmp"), "half").unwrap();
        tidy(&log, 3).unwrap();
        assert!(move_away(&log).unwrap());
        let names: Vec<String> = rotated(&log)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(names[0], "0.log.20260101-000002.gz");
        assert!(!log.exists());
    }
}
