//! `keys init`: the key files that a configuration names, made once.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{CliError, exposed, warn};
use crate::authenticate::local::Signer;
use crate::config::{Config, new_cursor_key};

/// Only the owner.
const SECRET_MODE: u32 = 0o600;

/// Only the owner may enter a folder that is made for keys.
const FOLDER_MODE: u32 = 0o700;

/// Everyone may read.
const PUBLIC_MODE: u32 = 0o644;

/// Makes what is missing, leaves alone what is there, and says which is which.
pub(super) fn init(config: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let config = Config::load_without_keys(config)?;
    local_keys(&config, out)?;
    let mut seen = BTreeSet::new();
    for path in config.cursor_key_files.iter().filter(|path| seen.insert(*path)) {
        if path.exists() {
            kept(out, path)?;
        } else {
            create(path, SECRET_MODE, &new_cursor_key()?)?;
            made(out, path, "key that seals cursors; every replica needs the same")?;
        }
    }
    if config.auth.local.private_key_file.is_none() && config.cursor_key_files.is_empty() {
        writeln!(out, "nothing to make: the configuration names no private key file and no cursor key file")?;
    }
    Ok(())
}

fn local_keys(config: &Config, out: &mut impl Write) -> Result<(), CliError> {
    let Some(private) = &config.auth.local.private_key_file else { return Ok(()) };
    let (there, missing): (Vec<_>, Vec<_>) =
        config.auth.settings.local_public_key_files.iter().partition(|path| path.exists());

    let signer = match std::fs::read(private) {
        Ok(text) => {
            kept(out, private)?;
            exposed(private).as_deref().map(warn);
            Signer::from_pem(&text).map_err(|source| CliError::Key { path: private.clone(), source })?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match (there.first(), missing.is_empty()) {
            (Some(public), true) => {
                return Err(CliError::PrivateKeyLost { private: private.clone(), public: (*public).clone() });
            }
            _ => {
                let signer = Signer::generate().map_err(|source| CliError::Key { path: private.clone(), source })?;
                create(private, SECRET_MODE, &signer.private_pem())?;
                made(out, private, "private Ed25519 key; `token mint` needs it, `serve` does not")?;
                signer
            }
        },
        Err(source) => return Err(CliError::Read { path: private.clone(), source }),
    };
    for path in &there {
        kept(out, path)?;
    }
    let text = signer.public_pem().map_err(|source| CliError::Key { path: private.clone(), source })?;
    let has_its_own = there.iter().any(|path| std::fs::read(path).is_ok_and(|found| found == text.as_bytes()));
    let mut missing = missing.into_iter();
    if !has_its_own && let Some(path) = missing.next() {
        create(path, PUBLIC_MODE, &text)?;
        made(out, path, "its public key; `serve` needs it")?;
    }
    match missing.next() {
        Some(path) => Err(CliError::ForeignPublicKey(path.clone())),
        None => Ok(()),
    }
}

fn made(out: &mut impl Write, path: &Path, what: &str) -> Result<(), CliError> {
    Ok(writeln!(out, "made {} ({what})", path.display())?)
}

fn kept(out: &mut impl Write, path: &Path) -> Result<(), CliError> {
    Ok(writeln!(out, "kept {}", path.display())?)
}

/// Writes a new file, with the folders above it that are missing. One that appeared meanwhile is an error and stays; half a file is taken away again.
pub(super) fn create(path: &Path, mode: u32, text: &str) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder_of(path)).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(failed)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
