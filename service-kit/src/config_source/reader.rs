//! Takes leaf after leaf, validates each and remembers every fault and every key that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::tree::{Kind, Node, Origin, SEPARATOR, Stray};
use super::{Fault, Faults, os_words};
use crate::units;

/// The longest secret that is read from a file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// The longest part of a value that a fault repeats.
const SHOWN_CHARS_MAX: usize = 120;

/// A password or key; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads settings by their dotted keys and collects what is wrong with them.
///
/// Keys look like `kafka.linger`, `auth.issuers[0].issuer` or `tenants.payments.rights`. A method gives `None` if the
/// key is absent (or null) or if it is faulty; the fault is then collected, so that the caller can go on with a
/// default and all faults come out together at [`Reader::finish`].
#[derive(Debug)]
pub struct Reader {
    prefix: String,
    file: Option<PathBuf>,
    root: Node,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// Variables with one underscore too few, unless Kubernetes made them.
    strays: Vec<String>,
    /// Keys that were read as a whole.
    taken: BTreeSet<String>,
    /// Mappings and lists whose members are read one by one.
    opened: BTreeSet<String>,
}

impl Reader {
    pub(super) fn new(
        prefix: String,
        file: Option<PathBuf>,
        root: Node,
        strays: &[Stray],
        faults: Vec<Fault>,
    ) -> Reader {
        let (of_services, strays): (Vec<&Stray>, Vec<&Stray>) = strays.iter().partition(|stray| stray.of_service);
        let ignored = |stray: &&Stray| Fault {
            key: stray.name.clone(),
            value: None,
            problem: "is ignored: Kubernetes makes it of a Service, unless enableServiceLinks is false".to_owned(),
            origin: Origin::Environment(stray.name.clone()).to_string(),
        };
        Reader {
            prefix,
            file,
            root,
            faults,
            warnings: of_services.iter().map(ignored).collect(),
            strays: strays.iter().map(|stray| stray.name.clone()).collect(),
            taken: BTreeSet::new(),
            opened: BTreeSet::new(),
        }
    }

    /// A text. A number or a boolean in the file is a fault: YAML has changed it (`007` is 7), quotes keep it.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let node = self.take(key)?;
        match node.kind {
            Kind::Text(text) => Some(text),
            Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) => self.refuse(key, "must be a text: put it in quotes"),
            Kind::List(_) | Kind::Table(_) | Kind::Nil => self.refuse(key, "must be a text"),
        }
    }

    /// A text that must be there and not be empty.
    pub fn required_text(&mut self, key: &str) -> Option<String> {
        if !self.has(key) {
            self.taken.insert(key.to_owned());
            return self.refuse(key, "is required");
        }
        let text = self.text(key)?;
        if text.trim().is_empty() { self.refuse(key, "must not be empty") } else { Some(text) }
    }

    /// A path; a relative one starts at the folder of the file that says it, or, from a variable, at the working
    /// directory.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        if self.text(key)?.is_empty() {
            return self.refuse(key, "must not be empty");
        }
        self.root.find(key)?.path()
    }

    /// A list of paths, each as [`Reader::path`] reads it.
    pub fn paths(&mut self, key: &str) -> Vec<PathBuf> {
        let length = self.len(key);
        self.taken.insert(key.to_owned());
        (0..length).filter_map(|index| self.path(&format!("{key}[{index}]"))).collect()
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let there = self.has(key);
        let length = self.len(key);
        self.taken.insert(key.to_owned());
        there.then(|| (0..length).filter_map(|index| self.text(&format!("{key}[{index}]"))).collect())
    }

    /// `true` or `false`.
    pub fn bool(&mut self, key: &str) -> Option<bool> {
        match self.take(key)?.kind {
            Kind::Bool(value) => Some(value),
            Kind::Text(text) if text == "true" => Some(true),
            Kind::Text(text) if text == "false" => Some(false),
            _ => self.refuse(key, "must be true or false"),
        }
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, key: &str, within: RangeInclusive<i64>) -> Option<i64> {
        let number = match self.take(key)?.kind {
            Kind::Integer(number) => Some(number),
            Kind::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            None => self.refuse(key, "must be a whole number"),
            Some(number) if number < i128::from(*within.start()) => {
                self.refuse(key, format!("at least {}", within.start()))
            }
            Some(number) if number > i128::from(*within.end()) => self.refuse(key, format!("at most {}", within.end())),
            Some(number) => i64::try_from(number).ok(),
        }
    }

    /// A duration with its unit, within bounds.
    pub fn duration(&mut self, key: &str, within: RangeInclusive<Duration>) -> Option<Duration> {
        let written = self.take(key)?.scalar();
        match written.as_deref().map(units::parse_duration) {
            None => self.refuse(key, "must be a duration such as 30s"),
            Some(Err(error)) => self.refuse(key, error.to_string()),
            Some(Ok(value)) if value < *within.start() => {
                self.refuse(key, format!("at least {}", units::show_duration(*within.start())))
            }
            Some(Ok(value)) if value > *within.end() => {
                self.refuse(key, format!("at most {}", units::show_duration(*within.end())))
            }
            Some(Ok(value)) => Some(value),
        }
    }

    /// A size in bytes with its unit, within bounds.
    pub fn bytes(&mut self, key: &str, within: RangeInclusive<u64>) -> Option<u64> {
        let written = self.take(key)?.scalar();
        match written.as_deref().map(units::parse_bytes) {
            None => self.refuse(key, "must be a size such as 64MiB"),
            Some(Err(error)) => self.refuse(key, error.to_string()),
            Some(Ok(value)) if value < *within.start() => {
                self.refuse(key, format!("at least {}", units::show_bytes(*within.start())))
            }
            Some(Ok(value)) if value > *within.end() => {
                self.refuse(key, format!("at most {}", units::show_bytes(*within.end())))
            }
            Some(Ok(value)) => Some(value),
        }
    }

    /// A text that parses as `T`, such as an address.
    pub fn parsed<T: FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => self.refuse(key, error.to_string()),
        }
    }

    /// An address and port to listen on.
    pub fn address(&mut self, key: &str) -> Option<SocketAddr> {
        const PROBLEM: &str = "must be ADDRESS:PORT, such as 127.0.0.1:9598";
        match self.take(key)?.kind {
            Kind::Text(text) => text.parse().ok().or_else(|| self.refuse(key, PROBLEM)),
            // What YAML makes of `[::1]:9598`.
            Kind::List(_) | Kind::Table(_) => {
                self.refuse(key, format!("{PROBLEM}; quotes belong around an IPv6 address in brackets"))
            }
            Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Nil => self.refuse(key, PROBLEM),
        }
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Some(*value),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.refuse(key, format!("must be one of {}", words.join(", ")))
            }
        }
    }

    /// The content of the file that the key names, without the newline at its end.
    pub fn secret_file(&mut self, key: &str) -> Option<Secret> {
        let path = self.path(key)?;
        let mut content = String::new();
        let read =
            std::fs::File::open(&path).and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut content));
        let secret = content.trim_end_matches(['\r', '\n']);
        match read {
            Err(error) => self.refuse(key, format!("cannot be read: {}", os_words(&error))),
            Ok(length) if length as u64 > SECRET_BYTES_MAX => self.refuse(key, "names a file of more than 64KiB"),
            Ok(_) if secret.is_empty() => self.refuse(key, "names an empty file"),
            Ok(_) => Some(Secret(secret.to_owned())),
        }
    }

    /// The path of a file that can be opened for reading.
    pub fn readable_file(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.path(key)?;
        match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_dir() => self.refuse(key, "is a folder, not a file"),
            Ok(_) => Some(path),
            Err(error) => self.refuse(key, format!("cannot be read: {}", os_words(&error))),
        }
    }

    /// A mapping of free names to scalars, all as text. Nested mappings join their names with dots, so that
    /// `PREFIX__KAFKA__PROPERTIES__LINGER__MS` says `linger.ms`; what a variable says wins.
    pub fn scalars(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(node) = self.take(key) else { return BTreeMap::new() };
        if !matches!(node.kind, Kind::Table(_)) {
            self.fault(key, "must be a mapping of names to values");
            return BTreeMap::new();
        }
        let mut found = BTreeMap::new();
        self.flatten(key, "", &node, &mut found);
        found.into_iter().map(|(name, (_, value))| (name, value)).collect()
    }

    /// The names in a mapping of free names, whose members the caller then reads at `key.name`.
    pub fn names(&mut self, key: &str) -> Vec<String> {
        self.opened.insert(key.to_owned());
        match self.root.find(key).map(|node| &node.kind) {
            Some(Kind::Table(table)) => table.keys().cloned().collect(),
            None | Some(Kind::Nil) => Vec::new(),
            Some(_) => {
                self.fault(key, "must be a mapping of names");
                self.taken.insert(key.to_owned());
                Vec::new()
            }
        }
    }

    /// The length of a list, whose members the caller then reads at `key[index]`; 0 if it is absent.
    #[allow(clippy::len_without_is_empty)] // of a list in the configuration, not of the reader
    pub fn len(&mut self, key: &str) -> usize {
        self.opened.insert(key.to_owned());
        match self.root.find(key) {
            Some(Node { kind: Kind::List(items), .. }) => items.len(),
            None | Some(Node { kind: Kind::Nil, .. }) => 0,
            Some(Node { origin, .. }) => {
                let problem = match **origin {
                    Origin::File(_) => "must be a list",
                    Origin::Environment(_) => "is a list: only the file can set it",
                };
                self.fault(key, problem);
                self.taken.insert(key.to_owned());
                0
            }
        }
    }

    /// Whether anything but null is written there. Does not make the key known.
    pub fn has(&mut self, key: &str) -> bool {
        self.root.find(key).is_some_and(|node| !matches!(node.kind, Kind::Nil))
    }

    /// Whatever serde makes of it; names that `T` does not know are faults.
    pub fn deserialize<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.take(key)?.to_value();
        let mut unknown = Vec::new();
        let result = serde_ignored::deserialize(value, |path| unknown.push(path.to_string()));
        for name in unknown {
            self.unknown(&format!("{key}.{name}"));
        }
        match result {
            Ok(value) => Some(value),
            Err(error) => self.refuse(key, error.to_string()),
        }
    }

    /// Every key that was asked for so far, whether it is written or not: what a program knows.
    pub fn known(&self) -> Vec<String> {
        self.taken.iter().cloned().collect()
    }

    /// Collects a fault of the value at `key`, with what was written and by whom.
    pub fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let (value, origin) = match self.root.find(key) {
            Some(node) => (shown(key, node), node.origin.to_string()),
            None => (None, self.where_it_could_be(key)),
        };
        self.faults.push(Fault { key: key.to_owned(), value, problem: problem.into(), origin });
    }

    /// As [`Reader::fault`], of a setting that may not be written: then `default` is what is wrong.
    pub fn fault_of(&mut self, key: &str, default: impl fmt::Display, problem: impl Into<String>) {
        let fault = self.judged(key, default, problem.into());
        self.faults.push(fault);
    }

    /// Collects what is not wrong, but probably not meant; `default` is shown where nothing is written.
    pub fn warn(&mut self, key: &str, default: impl fmt::Display, problem: impl Into<String>) {
        let warning = self.judged(key, default, problem.into());
        self.warnings.push(warning);
    }

    /// All warnings so far, each as it is to be shown.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.iter().map(Fault::to_string).collect()
    }

    /// Whether a fault of this key, or of one below it, was collected or will be: a value of the wrong kind, or a name
    /// that is none of `members`.
    pub fn is_faulty(&self, key: &str, members: &[&str]) -> bool {
        let is_below = |fault: &Fault| {
            fault.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let is_stranger = match self.root.find(key).map(|node| &node.kind) {
            Some(Kind::Table(table)) => table.keys().any(|name| !members.contains(&name.as_str())),
            other => other.is_some(),
        };
        is_stranger || self.faults.iter().any(is_below)
    }

    /// The configuration file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Ends the reading: all faults, those of keys that nobody asked for among them, in the order of their keys.
    ///
    /// # Errors
    /// If there is any fault.
    pub fn finish(mut self) -> Result<(), Faults> {
        let root = std::mem::replace(&mut self.root.kind, Kind::Nil);
        if let Kind::Table(table) = &root {
            let mut strangers = Vec::new();
            for (name, node) in table {
                self.strangers(name, node, &mut strangers);
            }
            self.root.kind = root;
            for (key, problem) in strangers {
                match problem {
                    None => self.unknown(&key),
                    Some(problem) => self.fault(&key, problem),
                }
            }
        }
        for name in std::mem::take(&mut self.strays) {
            let problem = match self.meant(&name[self.prefix.len()..]) {
                Some(variable) => format!("unknown variable: two underscores stand between levels: {variable}"),
                None => format!("unknown variable: two underscores follow {}", self.prefix),
            };
            let origin = Origin::Environment(name.clone()).to_string();
            self.faults.push(Fault { key: name, value: None, problem, origin });
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.sort_by(|a, b| (&a.key, &a.problem).cmp(&(&b.key, &b.problem)));
        self.faults.dedup();
        Err(Faults(self.faults))
    }

    fn judged(&self, key: &str, default: impl fmt::Display, problem: String) -> Fault {
        let (value, origin) = match self.root.find(key).filter(|node| !matches!(node.kind, Kind::Nil)) {
            Some(node) => (shown(key, node), node.origin.to_string()),
            None => (Some(default.to_string()).filter(|text| !text.is_empty()), "default".to_owned()),
        };
        Fault { key: key.to_owned(), value, problem, origin }
    }

    /// The variable of the known key that differs from these words in the number of underscores only.
    fn meant(&self, words: &str) -> Option<String> {
        let plain = |text: &str| -> Vec<String> {
            text.split(['_', '.']).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
        };
        let words = plain(words);
        let key = self.taken.iter().find(|key| !self.is_from_file_only(key) && plain(key) == words)?;
        Some(self.variable(key))
    }

    /// Marks the key as known and gives what is written there, unless it is null.
    fn take(&mut self, key: &str) -> Option<Node> {
        self.taken.insert(key.to_owned());
        self.root.find(key).filter(|node| !matches!(node.kind, Kind::Nil)).cloned()
    }

    /// Collects a fault and gives nothing.
    fn refuse<T>(&mut self, key: &str, problem: impl Into<String>) -> Option<T> {
        self.fault(key, problem);
        None
    }

    fn flatten(&mut self, key: &str, prefix: &str, node: &Node, found: &mut BTreeMap<String, (bool, String)>) {
        let Kind::Table(table) = &node.kind else { return };
        for (name, child) in table {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Kind::Table(_) = child.kind {
                self.flatten(key, &name, child, found);
            } else if let Some(value) = child.scalar() {
                let from_environment = matches!(*child.origin, Origin::Environment(_));
                if from_environment || !found.get(&name).is_some_and(|(wins, _)| *wins) {
                    found.insert(name, (from_environment, value));
                }
            } else if !matches!(child.kind, Kind::Nil) {
                self.fault(&format!("{key}.{name}"), "must be a text, a number or a boolean");
            }
        }
    }

    /// Collects the keys that nobody asked for, each at its highest level, and values where a mapping must be.
    fn strangers(&self, key: &str, node: &Node, found: &mut Vec<(String, Option<&'static str>)>) {
        if self.taken.contains(key) {
            return;
        }
        if !self.opened.contains(key) && !self.asked_below(key) {
            found.push((key.to_owned(), None));
            return;
        }
        match &node.kind {
            Kind::Table(table) => {
                for (name, child) in table {
                    self.strangers(&format!("{key}.{name}"), child, found);
                }
            }
            Kind::List(items) => {
                for (index, child) in items.iter().enumerate() {
                    self.strangers(&format!("{key}[{index}]"), child, found);
                }
            }
            Kind::Nil => {}
            _ => found.push((key.to_owned(), Some("must be a mapping of keys"))),
        }
    }

    fn asked_below(&self, key: &str) -> bool {
        let below = |keys: &BTreeSet<String>| {
            ['.', '['].iter().any(|mark| {
                let start = format!("{key}{mark}");
                keys.range(start.clone()..).next().is_some_and(|next| next.starts_with(&start))
            })
        };
        below(&self.taken) || below(&self.opened)
    }

    /// Collects the fault of an unknown key; its value stays unsaid, for it may be a secret.
    fn unknown(&mut self, key: &str) {
        let origin = self.root.find(key).map_or_else(|| self.where_it_could_be(key), |node| node.origin.to_string());
        let as_file = format!("{key}_file");
        let problem = if self.taken.contains(&as_file) {
            format!("unknown key: a secret comes from a file, named by {as_file}")
        } else {
            let from_environment =
                self.root.find(key).is_some_and(|node| matches!(*node.origin, Origin::Environment(_)));
            match self.meant(key).filter(|_| from_environment) {
                Some(variable) => format!("unknown key: two underscores stand between levels: {variable}"),
                None => "unknown key".to_owned(),
            }
        };
        self.faults.push(Fault { key: key.to_owned(), value: None, problem, origin });
    }

    /// Names the file and the variable that could set the key.
    fn where_it_could_be(&self, key: &str) -> String {
        let file = self.file.as_deref().map(Path::display);
        let variable = format!("env {}", self.variable(key));
        match file {
            Some(file) if self.is_from_file_only(key) => file.to_string(),
            Some(file) => format!("{file} or {variable}"),
            None if self.is_from_file_only(key) => "configuration file".to_owned(),
            None => variable,
        }
    }

    fn variable(&self, key: &str) -> String {
        format!("{}{SEPARATOR}{}", self.prefix, key.replace('.', SEPARATOR).to_uppercase())
    }

    /// Lists, what is in them, and mappings: no variable holds one.
    fn is_from_file_only(&self, key: &str) -> bool {
        key.contains('[') || self.opened.contains(key) || self.asked_below(key)
    }
}

/// What a fault repeats of a value: scalars, cut short; nothing of what may be a secret.
fn shown(key: &str, node: &Node) -> Option<String> {
    if names_a_secret(key) {
        return None;
    }
    let text = node.scalar().filter(|text| !text.is_empty())?;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_CHARS_MAX {
        shown.push('…');
    }
    Some(shown)
}

/// Whether a key's name says that its value is a secret. A key that ends in `_file` or `.location` names a file.
pub(crate) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_file = key.ends_with("_file") || key.ends_with("_files") || key.ends_with(".location");
    !names_file
        && ["password", "secret", "passphrase", "key.pem", "jaas", "credential"].iter().any(|word| key.contains(word))
}
