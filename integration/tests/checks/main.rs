//! Rules of the repository, each checked and each saying why.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod layers;
mod licences;
mod tracked;

use cargo_metadata::{Metadata, MetadataCommand};

/// The packages that are built on this platform, as the lock file has them.
fn metadata() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(fairlead_integration::folders::repository().join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), platform])
        .exec()
        .unwrap()
}
