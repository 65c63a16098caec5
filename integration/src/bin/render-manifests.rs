//! `make manifests`: writes what the chart renders to into `deploy/manifests`.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use anyhow::{Context, Result};
use fairlead_integration::{folders, helm};

fn main() -> Result<()> {
    for (name, text) in helm::manifests()? {
        let path = folders::repository().join("deploy/manifests").join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
