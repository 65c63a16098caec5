//! Where settings come from: defaults in the code, then one YAML file, then environment variables.
//!
//! The whole configuration is read before anything is believed: [`load`] gathers file and environment, a [`Reader`]
//! takes leaf after leaf and collects what is wrong with each, and [`Reader::finish`] gives all faults at once,
//! unknown keys among them. Each [`Fault`] names its key, what was written, and the file or variable that wrote it.
//!
//! `FAIRLEAD_ROUTER__KAFKA__BOOTSTRAP_SERVERS` sets `kafka.bootstrap_servers`: two underscores stand between levels.
//! Lists cannot come from the environment. Secrets come from files only.

mod reader;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::reader::names_a_secret;
pub use self::reader::{Reader, Secret};
pub use self::tree::os_words;
use self::tree::{Kind, Node, Origin, Stray};

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, levels joined by dots: `kafka.linger`.
    pub key: String,
    /// What was written there; none if nothing was, or if it may be a secret.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// The file or variable that says it (`router.yaml`, `env FAIRLEAD_ROUTER__KAFKA__LINGER`), or could have.
    pub origin: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {} ({})", self.problem, self.origin)
    }
}

/// All that is wrong with the configuration; shown as one fault a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The file's and the environment's settings, each still remembering where it came from.
#[derive(Debug, Clone)]
pub struct Source {
    prefix: String,
    file: Option<PathBuf>,
    from_file: Node,
    from_environment: Node,
    /// Variables that begin with the prefix and one underscore only.
    strays: Vec<Stray>,
    faults: Vec<Fault>,
}

/// Reads the YAML file, if one is given, and the environment variables that begin with `prefix` and two underscores.
///
/// # Errors
/// If the file cannot be read or is no YAML mapping, or a variable of ours is not UTF-8: nothing else can be judged.
pub fn load(prefix: &str, file: Option<&Path>) -> Result<Source, Faults> {
    let mut variables = Vec::new();
    let mut faults = Vec::new();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if !tree::begins_with(&name, prefix) {
            continue;
        }
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) => faults.push(Fault {
                key: name.clone(),
                value: None,
                problem: "is not UTF-8".to_owned(),
                origin: Origin::Environment(name).to_string(),
            }),
        }
    }
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    let (path, text) = match file {
        Some(path) => (Some(path), tree::read(path).map_err(|problem| file_fault(path, problem))?),
        None => (None, String::new()),
    };
    Source::assemble(prefix, path, &text, variables)
}

impl Source {
    /// Builds a source from a YAML text and named variables, without touching disk or environment: for tests.
    ///
    /// # Errors
    /// If the text is no YAML mapping.
    pub fn from_parts(
        prefix: &str,
        file: &Path,
        yaml: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Source, Faults> {
        Source::assemble(prefix, Some(file), yaml, variables.into_iter().collect())
    }

    /// Reads the YAML file that `file_key` names, if any, and puts its content where `at` stands.
    ///
    /// The file holds what would stand under `at`; if its only top-level key is `at` itself, what stands under that.
    /// Whatever is wrong with it becomes a fault that [`Reader::finish`] reports.
    pub fn include(&mut self, file_key: &str, at: &str) {
        let named = self.from_environment.find(file_key).or_else(|| self.from_file.find(file_key)).cloned();
        let Some(named) = named else { return };
        let Some(path) = named.path() else { return };
        let fault = |problem: String| Fault {
            key: file_key.to_owned(),
            value: Some(path.display().to_string()),
            problem,
            origin: named.origin.to_string(),
        };
        if self.from_file.find(at).is_some_and(|node| !matches!(node.kind, Kind::Nil)) {
            self.faults.push(fault(format!("`{at}` is set too: only one of both can be")));
            return;
        }
        match tree::read(&path).and_then(|text| tree::parse_yaml(&path, &text)) {
            Ok(content) => self.from_file.insert(at, content.unwrapped(at)),
            Err(problem) => self.faults.push(fault(problem)),
        }
    }

    /// Merges file and environment, the environment winning, and begins to read.
    pub fn reader(&self) -> Reader {
        let merged = self.from_file.clone().merged(self.from_environment.clone());
        Reader::new(self.prefix.clone(), self.file.clone(), merged, &self.strays, self.faults.clone())
    }

    fn assemble(
        prefix: &str,
        file: Option<&Path>,
        yaml: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Source, Faults> {
        let from_file = match file {
            Some(path) => tree::parse_yaml(path, yaml).map_err(|problem| file_fault(path, problem))?,
            None => {
                Node { origin: Arc::new(Origin::Environment(prefix.to_owned())), kind: Kind::Table(Default::default()) }
            }
        };
        let mut faults = Vec::new();
        let strays = tree::strays(prefix, &variables);
        let from_environment = tree::from_environment(prefix, variables, &mut faults);
        let (prefix, file) = (prefix.to_owned(), file.map(Path::to_owned));
        Ok(Source { prefix, file, from_file, from_environment, strays, faults })
    }
}

/// The one fault of a file that cannot be used at all.
fn file_fault(path: &Path, problem: String) -> Faults {
    Faults(vec![Fault {
        key: "configuration file".to_owned(),
        value: None,
        problem,
        origin: path.display().to_string(),
    }])
}

#[cfg(test)]
mod tests;
