//! Where the harness puts things: scratch folders under cargo's own `target/tmp`, and the cache that outlives a build.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

/// Where cargo put this executable and its siblings: `target/release`.
///
/// # Errors
/// When the executable's own path is not known.
pub fn binaries() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this executable")?;
    let folder = own.parent().context("the folder of this executable")?;
    // Tests and benchmarks lie in `target/release/deps`.
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_path_buf() } else { folder.to_path_buf() })
}

/// The path of one of the workspace's programs.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binaries()?.join(name);
    anyhow::ensure!(path.is_file(), "{} is not there: cargo build --release --workspace --all-targets", path.display());
    Ok(path)
}

/// A fresh folder that is removed when dropped. Folders left by processes that were killed go at the next start.
///
/// # Errors
/// When it cannot be made.
pub fn scratch(name: &str) -> Result<TempDir> {
    static SWEPT: OnceLock<()> = OnceLock::new();
    let parent = scratch_root()?;
    SWEPT.get_or_init(|| sweep(&parent));
    tempfile::Builder::new()
        .prefix(&format!("{}-{name}-", std::process::id()))
        .tempdir_in(&parent)
        .with_context(|| format!("a scratch folder in {}", parent.display()))
}

fn scratch_root() -> Result<PathBuf> {
    let root = binaries()?.parent().context("the target folder")?.join("tmp");
    std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
    Ok(root)
}

/// Removes scratch folders whose process is gone.
fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.split('-').next()?.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What is fetched once and kept between runs and builds: `$FAIRLEAD_CACHE`, else `~/.cache/fairlead`.
pub fn cache() -> PathBuf {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("FAIRLEAD_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|home| home.join("fairlead")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/fairlead")))
        .unwrap_or_else(|| std::env::temp_dir().join("fairlead-cache"))
}
