//! The tree of what was written, each value with its origin.
//!
//! The `config` crate reads YAML and the environment; this keeps what its merge would lose: which file or variable
//! said what.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{FileFormat, Source as _, Value, ValueKind};

use super::Fault;

/// Between the prefix and the first level, and between levels.
pub(super) const SEPARATOR: &str = "__";
const NO_MAPPING: &str = "must be a mapping of keys";

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    File(PathBuf),
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "env {name}"),
        }
    }
}

/// A value and who said it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Arc<Origin>,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Nil,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    /// Finds the value at a dotted key (`a.b[0].c`); names that hold dots themselves are found too.
    pub(super) fn find(&self, key: &str) -> Option<&Node> {
        if key.is_empty() {
            return Some(self);
        }
        if let Some(rest) = key.strip_prefix('[') {
            let (index, rest) = rest.split_once(']')?;
            let Kind::List(items) = &self.kind else { return None };
            let item = items.get(index.parse::<usize>().ok()?)?;
            return item.find(rest.strip_prefix('.').unwrap_or(rest));
        }
        let Kind::Table(table) = &self.kind else { return None };
        let ends = key.char_indices().filter(|(_, c)| matches!(c, '.' | '[')).map(|(at, _)| at);
        ends.chain([key.len()]).find_map(|end| {
            let rest = &key[end..];
            table.get(&key[..end])?.find(rest.strip_prefix('.').unwrap_or(rest))
        })
    }

    /// Puts a value at a top-level name of this mapping.
    pub(super) fn insert(&mut self, name: &str, node: Node) {
        if let Kind::Table(table) = &mut self.kind {
            table.insert(name.to_owned(), node);
        }
    }

    /// This tree with `over` laid upon it: mappings are joined, anything else is replaced.
    pub(super) fn merged(self, over: Node) -> Node {
        match (self.kind, over.kind) {
            (Kind::Table(mut table), Kind::Table(upper)) => {
                for (name, node) in upper {
                    let node = match table.remove(&name) {
                        Some(lower) => lower.merged(node),
                        None => node,
                    };
                    table.insert(name, node);
                }
                Node { origin: self.origin, kind: Kind::Table(table) }
            }
            (_, kind) => Node { origin: over.origin, kind },
        }
    }

    /// What stands under `name` if that is the only name here; else the mapping itself.
    pub(super) fn unwrapped(self, name: &str) -> Node {
        let kind = match self.kind {
            Kind::Table(mut table) if table.len() == 1 => match table.remove(name) {
                Some(only) => return only,
                None => Kind::Table(table),
            },
            kind => kind,
        };
        Node { origin: self.origin, kind }
    }

    /// The text as a path, relative to the folder of the file that says it (a variable: to the working directory).
    pub(super) fn path(&self) -> Option<PathBuf> {
        let Kind::Text(text) = &self.kind else { return None };
        match &*self.origin {
            Origin::File(file) => Some(file.parent().unwrap_or(Path::new("")).join(text)),
            Origin::Environment(_) => Some(PathBuf::from(text)),
        }
    }

    /// A scalar as text; none for mappings, lists and null.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.kind {
            Kind::Bool(value) => Some(value.to_string()),
            Kind::Integer(value) => Some(value.to_string()),
            Kind::Float(value) => Some(value.to_string()),
            Kind::Text(value) => Some(value.clone()),
            Kind::Nil | Kind::List(_) | Kind::Table(_) => None,
        }
    }

    /// The value as the `config` crate's, for serde.
    pub(super) fn to_value(&self) -> Value {
        let kind = match &self.kind {
            Kind::Nil => ValueKind::Nil,
            Kind::Bool(value) => ValueKind::Boolean(*value),
            Kind::Integer(value) => i64::try_from(*value).map_or(ValueKind::I128(*value), ValueKind::I64),
            Kind::Float(value) => ValueKind::Float(*value),
            Kind::Text(value) => ValueKind::String(value.clone()),
            Kind::List(items) => ValueKind::Array(items.iter().map(Node::to_value).collect()),
            Kind::Table(table) => {
                ValueKind::Table(table.iter().map(|(name, node)| (name.clone(), node.to_value())).collect())
            }
        };
        Value::new(None, kind)
    }

    fn from_value(origin: &Arc<Origin>, value: Value) -> Node {
        let node = |value| Node::from_value(origin, value);
        let kind = match value.kind {
            ValueKind::Nil => Kind::Nil,
            ValueKind::Boolean(value) => Kind::Bool(value),
            ValueKind::I64(value) => Kind::Integer(value.into()),
            ValueKind::I128(value) => Kind::Integer(value),
            ValueKind::U64(value) => Kind::Integer(value.into()),
            ValueKind::U128(value) => Kind::Integer(i128::try_from(value).unwrap_or(i128::MAX)),
            ValueKind::Float(value) => Kind::Float(value),
            ValueKind::String(value) => Kind::Text(value),
            ValueKind::Array(items) => Kind::List(items.into_iter().map(node).collect()),
            ValueKind::Table(table) => {
                Kind::Table(table.into_iter().map(|(name, value)| (name, node(value))).collect())
            }
        };
        Node { origin: Arc::clone(origin), kind }
    }
}

/// Reads a configuration file as text; the error is the problem in words.
pub(super) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {}", os_words(&error)))
}

/// What the system says, without its number.
pub fn os_words(error: &io::Error) -> String {
    let said = error.to_string();
    match said.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => said,
    }
}

/// Parses a YAML mapping; the error is the problem in words, with its position where the parser knows it.
pub(super) fn parse_yaml(path: &Path, text: &str) -> Result<Node, String> {
    let origin = Arc::new(Origin::File(path.to_owned()));
    let collected = config::File::from_str(text, FileFormat::Yaml).collect();
    match collected {
        Ok(table) => Ok(Node::from_value(&origin, Value::new(None, ValueKind::Table(table)))),
        Err(config::ConfigError::FileParse { cause, .. }) => Err(yaml_problem(&cause.to_string())),
        Err(_) => Err(NO_MAPPING.to_owned()),
    }
}

/// The parser's words with the position first: it says `… at byte 4 line 1 column 5`.
fn yaml_problem(said: &str) -> String {
    let placed = said.rsplit_once(" at byte ").and_then(|(what, at)| {
        let (_, at) = at.split_once(" line ")?;
        let (line, column) = at.split_once(" column ")?;
        Some(format!("is not valid YAML: line {line}, column {column}: {what}"))
    });
    match placed {
        Some(problem) => problem,
        None if said.contains("expected a map") => NO_MAPPING.to_owned(),
        None => format!("is not valid YAML: {said}"),
    }
}

/// A variable of ours but for one underscore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) name: String,
    /// Whether Kubernetes makes such variables of a Service.
    pub(super) of_service: bool,
}

/// The variables that begin with the prefix and one underscore only.
pub(super) fn strays(prefix: &str, variables: &[(String, String)]) -> Vec<Stray> {
    let is_stray = |name: &str, value: &str| {
        begins_with(name, prefix) && !name[prefix.len()..].starts_with(SEPARATOR) && !value.is_empty()
    };
    let mut strays: Vec<Stray> = variables
        .iter()
        .filter(|(name, value)| is_stray(name, value))
        .map(|(name, value)| Stray { name: name.clone(), of_service: is_of_service(name, value) })
        .collect();
    strays.sort_by(|a, b| a.name.cmp(&b.name));
    strays
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT`, `X_SERVICE_PORT_NAME`, `X_PORT=tcp://…`, `X_PORT_80_TCP` and what follows on it.
fn is_of_service(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_of_port = |rest: &str| {
        rest.split_once('_').is_some_and(|(port, protocol)| {
            port.parse::<u16>().is_ok() && PROTOCOLS.iter().any(|known| protocol.starts_with(known))
        })
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && value.contains("://")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| is_of_port(rest))
}

/// Whether a variable's name begins with the prefix and an underscore, in whatever case.
pub(super) fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        && name.as_bytes().get(prefix.len()) == Some(&b'_')
}

/// Makes the tree that the variables describe; what contradicts itself becomes a fault.
pub(super) fn from_environment(prefix: &str, variables: Vec<(String, String)>, faults: &mut Vec<Fault>) -> Node {
    let names: BTreeMap<String, String> = variables
        .iter()
        .filter_map(|(name, _)| {
            let rest = begins_with(name, prefix).then(|| &name[prefix.len()..])?.strip_prefix(SEPARATOR)?;
            Some((rest.to_lowercase().replace(SEPARATOR, "."), name.clone()))
        })
        .collect();
    let environment = config::Environment::with_prefix(prefix)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .ignore_empty(true)
        .try_parsing(false)
        .source(Some(variables.into_iter().collect()));
    let mut collected: Vec<(String, Value)> = match environment.collect() {
        Ok(table) => table.into_iter().collect(),
        Err(_) => Vec::new(), // only for what is not Unicode; ours is
    };
    collected.sort_by(|a, b| a.0.cmp(&b.0));
    let mut root =
        Node { origin: Arc::new(Origin::Environment(prefix.to_owned())), kind: Kind::Table(BTreeMap::new()) };
    for (key, value) in collected {
        let usual = || format!("{prefix}{SEPARATOR}{}", key.replace('.', SEPARATOR).to_uppercase());
        let variable = names.get(&key).cloned().unwrap_or_else(usual);
        let origin = Arc::new(Origin::Environment(variable));
        let leaf = Node::from_value(&origin, value);
        if let Err(taken) = plant(&mut root, &key, leaf) {
            let problem = format!("has keys below it, but a value is set by {taken}");
            faults.push(Fault { key, value: None, problem, origin: origin.to_string() });
        }
    }
    root
}

/// Puts a leaf at a dotted key, making the mappings on the way; the error names who set a value in its way.
fn plant(at: &mut Node, key: &str, leaf: Node) -> Result<(), Arc<Origin>> {
    let Kind::Table(table) = &mut at.kind else { return Err(Arc::clone(&at.origin)) };
    match key.split_once('.') {
        None => match table.get(key) {
            Some(taken) => Err(Arc::clone(&taken.origin)),
            None => {
                table.insert(key.to_owned(), leaf);
                Ok(())
            }
        },
        Some((name, rest)) => {
            let origin = Arc::clone(&leaf.origin);
            let child = table.entry(name.to_owned()).or_insert(Node { origin, kind: Kind::Table(BTreeMap::new()) });
            plant(child, rest, leaf)
        }
    }
}
