//! `contract` is pure, `service-kit` knows no program, and the programs do not know each other: what one of them needs of
//! another is either part of the contract or a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, PackageId};
use fairlead_integration::folders::repository;
use regex::Regex;

const CONTRACT: &str = "fairlead-contract";
const KIT: &str = "fairlead-service-kit";

/// Of our own crates, what each may depend on; integration sees all.
const MAY_SEE: [(&str, &[&str]); 4] = [
    (CONTRACT, &[]),
    (KIT, &[CONTRACT]),
    ("fairlead-router", &[CONTRACT, KIT]),
    ("fairlead-gateway", &[CONTRACT, KIT]),
];

/// What does input, output or configuration has no place below the contract.
const NO_PLACE_IN_CONTRACT: [&str; 16] = [
    "tokio",
    "async-std",
    "mio",
    "rdkafka",
    "config",
    "axum",
    "hyper",
    "reqwest",
    "inotify",
    "notify",
    "rustix",
    "libc",
    "nix",
    "socket2",
    "clap",
    "tracing-subscriber",
];

#[test]
fn crates_see_only_what_they_may() {
    let metadata = super::metadata();
    let own: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    for (name, may_see) in MAY_SEE {
        let package = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == name);
        let package = package.unwrap_or_else(|| panic!("{name} is not in the workspace"));
        // Tests and build scripts count too: what they see, they tie together.
        for dependency in package.dependencies.iter().filter(|dependency| own.contains(dependency.name.as_str())) {
            assert!(may_see.contains(&dependency.name.as_str()), "{name} must not depend on {}", dependency.name);
        }
    }
}

#[test]
fn contract_depends_on_nothing_that_does_input_or_output() {
    let below = all_below(&super::metadata(), CONTRACT);
    for name in NO_PLACE_IN_CONTRACT {
        assert!(!below.contains(name), "{CONTRACT} pulls in {name}; it has: {below:?}");
    }
}

#[test]
fn contract_does_no_input_or_output_itself() {
    let doing = Regex::new(r"\bstd::(fs|net|env|process|thread|time::SystemTime|io::std)\b|\bprint(ln)?!").unwrap();
    let imported = Regex::new(r"use std::\{[^;]*\b(fs|net|env|process|thread|SystemTime)\b").unwrap();
    let mut looked_at = 0;
    for path in sources(&repository().join("contract/src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests may read examples from disk.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for rule in [&doing, &imported] {
            let found = rule.find(code).map(|found| found.as_str());
            assert_eq!(found, None, "{}: the contract is pure", path.display());
        }
        looked_at += 1;
    }
    assert!(looked_at > 0, "no sources of the contract were found");
}

#[test]
fn every_crate_inherits_the_workspaces_lints_and_edition() {
    for package in super::metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let inherits = |section: &str| {
            manifest.split("\n[").any(|part| part.starts_with(section) && part.contains("workspace = true"))
        };
        assert!(inherits("lints]"), "{}: [lints] workspace = true", package.name);
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(manifest.contains(&format!("{key}.workspace = true")), "{}: {key}.workspace = true", package.name);
        }
    }
}

/// The names of all packages that `name` needs to run, at any depth.
fn all_below(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.packages.iter().find(|package| package.name.as_str() == name).unwrap();
    let (mut waiting, mut seen) = (vec![&start.id], BTreeSet::new());
    while let Some(id) = waiting.pop() {
        for dependency in &nodes[id].deps {
            let runs = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if runs && seen.insert(&dependency.pkg) {
                waiting.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
