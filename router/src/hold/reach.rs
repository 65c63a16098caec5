//! Can log files be linked into the state folder at all?

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

/// What stands between two folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing that is known.
    Same,
    /// They are on different file systems.
    OtherFileSystem,
    /// They are on one file system, reached by different mounts, which no link crosses.
    OtherMount,
}

/// Looks at what stands between two folders; `Same` where one of them cannot be looked at.
pub fn reach(one: &Path, other: &Path) -> Reach {
    let look = |path: &Path| statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::MNT_ID);
    let (Ok(one), Ok(other)) = (look(one), look(other)) else { return Reach::Same };
    let device = |at: &Statx| (at.stx_dev_major, at.stx_dev_minor);
    let knows_mount = |at: &Statx| at.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    if device(&one) != device(&other) {
        Reach::OtherFileSystem
    } else if knows_mount(&one) && knows_mount(&other) && one.stx_mnt_id != other.stx_mnt_id {
        Reach::OtherMount
    } else {
        Reach::Same
    }
}
