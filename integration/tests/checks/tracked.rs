//! What is in the repository works on any machine: no path of the machine it was written on, no address of a package
//! registry (which one is used is the reader's own setting).

use std::path::PathBuf;
use std::process::Command;

use fairlead_integration::folders::repository;

/// Paths that only exist where something was developed. Written in two halves, so that this file passes its own check.
const MACHINE_PATHS: [[&str; 2]; 4] = [["/wo", "rk/"], ["/ro", "ot/"], ["/home", "/"], ["/Use", "rs/"]];

/// Hosts of package registries and their mirrors.
const REGISTRIES: [[&str; 2]; 11] = [
    ["crates", ".io"],
    ["registry.npmjs", ".org"],
    ["pypi", ".org"],
    ["pythonhosted", ".org"],
    ["proxy.golang", ".org"],
    ["repo1.maven", ".org"],
    ["repo.maven", ".apache.org"],
    ["deb.debian", ".org"],
    ["security.debian", ".org"],
    ["archive.ubuntu", ".com"],
    ["artifact", "ory"],
];

#[test]
fn no_file_names_a_machine_or_a_registry() {
    let mut faults = Vec::new();
    for path in tracked() {
        let Ok(text) = std::fs::read_to_string(repository().join(&path)) else { continue };
        // Cargo writes the standard registry into its lock file, whichever mirror it uses.
        let lock_file = path.ends_with("Cargo.lock");
        for (number, line) in text.lines().enumerate() {
            if lock_file && line.starts_with("source = ") {
                continue;
            }
            let found =
                MACHINE_PATHS.iter().chain(&REGISTRIES).map(|halves| halves.concat()).find(|word| line.contains(word));
            if let Some(word) = found {
                faults.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn lock_file_has_the_standard_registry_only() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let sources: std::collections::BTreeSet<&str> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
}

/// Files under version control; in an unpacked archive, all that is not built.
fn tracked() -> Vec<PathBuf> {
    let listed =
        Command::new("git").arg("-C").arg(repository()).args(["ls-files", "-co", "--exclude-standard"]).output();
    match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
        }
        _ => walk(&repository()),
    }
}

fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "target" || name == ".git" || name == ".cache" {
            continue;
        }
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
