//! The block `cursors`: files with the keys that seal cursors. Each holds 32 random bytes as base64.

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairlead_service_kit::config_source::{Reader, os_words};

use super::KeyFiles;
use crate::read::cursor::Keys;

/// A cursor key file that cannot be used. Never carries key material.
#[derive(Debug, thiserror::Error)]
pub enum CursorKeyError {
    /// It cannot be read.
    #[error("cannot be read: {}", os_words(.source))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not hold base64 of 32 bytes.
    #[error("holds no cursor key (32 bytes as base64)")]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// The library gave no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// A new key, as its file holds it.
///
/// # Errors
/// [`CursorKeyError::NoRandomness`].
pub fn new_cursor_key() -> Result<String, CursorKeyError> {
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| CursorKeyError::NoRandomness)?;
    Ok(format!("{}\n", STANDARD.encode(key)))
}

pub(super) fn read(reader: &mut Reader, key_files: KeyFiles) -> Vec<PathBuf> {
    let key = "cursors.key_files";
    let paths = reader.paths(key);
    if key_files == KeyFiles::Judged {
        for (index, path) in paths.iter().enumerate() {
            if let Err(error) = read_key(path) {
                let hint = if path.exists() { String::new() } else { super::how_to_make_it(reader) };
                reader.fault(&format!("{key}[{index}]"), format!("{error}{hint}"));
            }
        }
    }
    if reader.len(key) == 0 {
        reader.warn(
            key,
            "",
            "is not set: cursors end with the process that made them, and no replica understands another's",
        );
    }
    paths
}

pub(super) fn keys(paths: &[PathBuf]) -> Result<Keys, CursorKeyError> {
    let keys = paths.iter().map(|path| read_key(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(Keys::new(keys).unwrap_or_else(|_| Keys::ephemeral()))
}

fn read_key(path: &Path) -> Result<[u8; 32], CursorKeyError> {
    let text = std::fs::read(path).map_err(|source| CursorKeyError::Unreadable { path: path.to_owned(), source })?;
    let bytes = STANDARD.decode(text.trim_ascii()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| CursorKeyError::NotAKey { path: path.to_owned() })
}
