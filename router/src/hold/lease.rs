//! Does anybody still write to this file? Asked of the kernel by a read lease that is given back at once.

use std::{fs::File, io, os::fd::AsRawFd};

/// What the kernel says about a file's writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody has it open for writing.
    None,
    /// Somebody has.
    Some,
    /// Leases do not work here (not the owner and no `CAP_LEASE`, or a file system without them).
    Unknown,
}

/// Asks whether anybody has a file open for writing. The file must be open for reading only.
///
/// Rule: `fcntl(F_SETLEASE, F_RDLCK)` fails with `EAGAIN` while a writer has the file open, under whatever name.
pub fn writers(file: &File) -> Writers {
    match set_lease(file, libc::F_RDLCK) {
        Ok(()) => {
            // Giving back cannot fail while the descriptor is open; if it did, closing it gives the lease back.
            let _ = set_lease(file, libc::F_UNLCK);
            Writers::None
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

/// Ignores the signal that the kernel sends when a writer opens a file during the instant of a lease; by default it would end the process.
///
/// # Errors
/// The error of `sigaction`.
pub fn ignore_lease_breaks() -> io::Result<()> {
    ignore_signal(libc::SIGIO)
}

#[allow(unsafe_code)]
fn set_lease(file: &File, kind: i32) -> io::Result<()> {
    // SAFETY: `fcntl` with `F_SETLEASE` takes an open descriptor, which `file` keeps open, and a plain number; no memory is passed.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn ignore_signal(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler of ours, so no code runs in signal context.
    let previous = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};

    #[test]
    fn a_writer_is_seen_under_any_name() {
        ignore_lease_breaks().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let renamed = folder.path().join("0.log.1");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(writers(&reader), Writers::Some);
        fs::rename(&path, &renamed).unwrap();
        assert_eq!(writers(&reader), Writers::Some);
        drop(writer);
        assert_eq!(writers(&reader), Writers::None);
        let again = OpenOptions::new().append(true).open(&renamed).unwrap();
        assert_eq!(writers(&reader), Writers::Some);
        drop(again);
        fs::remove_file(&renamed).unwrap();
        assert_eq!(writers(&reader), Writers::None);
    }
}
