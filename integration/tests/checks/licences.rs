//! Everything that is linked in may be given on under Apache-2.0. A licence that asks more of those who give the programs
//! on needs a decision, and that is made here, by name.

use cargo_metadata::Package;

/// Licences that may be combined with Apache-2.0 in a binary.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages taken under another licence, each with the reason.
const BY_NAME: [(&str, &str, &str); 2] = [
    ("smartstring", "MPL-2.0+", "file-level copyleft; only under the embedded broker of trial and tests"),
    ("tiny-keccak", "CC0-1.0", "public domain; only at build time, under the embedded broker"),
];

#[test]
fn every_package_may_be_given_on() {
    let metadata = super::metadata();
    let faults: Vec<String> =
        metadata.packages.iter().filter(|package| !may_be_given_on(package)).map(describe).collect();
    assert!(faults.is_empty(), "licences to decide on: {faults:#?}");
}

#[test]
fn exceptions_are_for_packages_that_are_there() {
    let metadata = super::metadata();
    for (name, _, _) in BY_NAME {
        let there = metadata.packages.iter().any(|package| package.name.as_str() == name);
        assert!(there, "{name} is not used any more: take it off the list");
    }
}

#[test]
fn our_own_crates_are_apache() {
    for package in super::metadata().workspace_packages() {
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{}", package.name);
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let check = |expression: &str, expected: bool| assert_eq!(allowed(expression), expected, "{expression}");
    check("MIT", true);
    check("GPL-3.0", false);
    check("MIT OR GPL-3.0", true);
    check("MIT AND GPL-3.0", false);
    check("MIT/GPL-2.0", true);
    check("(MIT OR GPL-3.0) AND Apache-2.0", true);
    check("MIT OR Apache-2.0 AND GPL-3.0", true);
    check("Apache-2.0 WITH LLVM-exception", true);
    check("Apache-2.0 WITH Classpath-exception-2.0", false);
    check("", false);
}

fn may_be_given_on(package: &Package) -> bool {
    let expression = package.license.as_deref().unwrap_or_default();
    allowed(expression)
        || BY_NAME.iter().any(|&(name, licence, _)| package.name.as_str() == name && expression == licence)
}

fn describe(package: &Package) -> String {
    format!("{} {}: {}", package.name, package.version, package.license.as_deref().unwrap_or("none"))
}

/// Is the expression met by allowed licences alone? `OR` is a choice, `AND` a sum that binds closer; `/` is an old `OR`.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = any(&words, &mut at);
    result && at == words.len()
}

fn any(words: &[&str], at: &mut usize) -> bool {
    let mut result = all(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all(words, at);
    }
    result
}

fn all(words: &[&str], at: &mut usize) -> bool {
    let mut result = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at);
    }
    result
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let result = any(words, at);
        *at += 1;
        return result;
    }
    match words.get(*at..*at + 2) {
        Some(["WITH", exception]) => {
            *at += 2;
            ALLOWED.contains(&format!("{word} WITH {exception}").as_str())
        }
        _ => ALLOWED.contains(&word),
    }
}
