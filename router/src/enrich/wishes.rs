//! What a pod's owners wish, said by annotations of the pod: `fairlead.dev/exclude` and `fairlead.dev/parse-json`.
//!
//! Both have one grammar: `true`, `false`, or a list of `CONTAINER`, `CONTAINER:STREAM`, `*` and `*:STREAM`, separated by commas. A value that is
//! none of this counts as absent, and its pod's readers are told.

use std::collections::BTreeMap;

use fairlead_contract::record::Stream;
use serde::{Deserialize, Serialize};

/// What the names of our annotations begin with.
pub(super) const PREFIX: &str = "fairlead.dev/";
const EXCLUDE: &str = "exclude";
const PARSE_JSON: &str = "parse-json";
/// So many annotations that nobody understands are named.
const FAULTS_MAX: usize = 4;
/// A longer value is taken for a mistake.
const VALUE_BYTES_MAX: usize = 4_096;
/// Kubernetes allows no longer name for a container.
const NAME_BYTES_MAX: usize = 63;

/// Some of the streams of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdout: bool,
    /// Standard error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stderr: bool,
}

impl Streams {
    /// Both.
    pub const ALL: Self = Self { stdout: true, stderr: true };

    /// Whether a stream is among them.
    #[inline]
    pub fn has(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, stream: Option<Stream>) {
        self.stdout |= stream != Some(Stream::Stderr);
        self.stderr |= stream != Some(Stream::Stdout);
    }
}

/// What the owners of a pod wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    exclude: Vec<Wish>,
    parse_json: Vec<Wish>,
    faults: Vec<String>,
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    /// None: every container.
    container: Option<String>,
    /// None: both streams.
    stream: Option<Stream>,
}

impl Wishes {
    /// Reads annotations: their names without the prefix, and their values.
    pub fn read(annotations: &BTreeMap<String, String>) -> Self {
        let mut wishes = Self::default();
        for (name, value) in annotations {
            let list = match name.as_str() {
                EXCLUDE => Some(&mut wishes.exclude),
                PARSE_JSON => Some(&mut wishes.parse_json),
                _ => None,
            };
            match (list, parse(value)) {
                (Some(list), Some(parsed)) => *list = parsed,
                _ => wishes.faults.push(format!("{PREFIX}{name}")),
            }
        }
        wishes.faults.truncate(FAULTS_MAX);
        wishes
    }

    /// The streams of a container that are not to be read.
    pub fn excluded(&self, container: &str) -> Streams {
        streams_of(&self.exclude, container)
    }

    /// The streams of a container whose lines are looked at for JSON objects.
    pub fn parsed(&self, container: &str) -> Streams {
        streams_of(&self.parse_json, container)
    }

    /// The annotations that nobody understands, the first few.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

fn streams_of(wishes: &[Wish], container: &str) -> Streams {
    let mut streams = Streams::default();
    let of_container = wishes.iter().filter(|wish| wish.container.as_deref().is_none_or(|name| name == container));
    of_container.for_each(|wish| streams.add(wish.stream));
    streams
}

fn parse(value: &str) -> Option<Vec<Wish>> {
    if value.len() > VALUE_BYTES_MAX {
        return None;
    }
    match value.trim() {
        "true" => Some(vec![Wish { container: None, stream: None }]),
        "false" => Some(Vec::new()),
        list => list.split(',').map(|entry| parse_entry(entry.trim())).collect(),
    }
}

fn parse_entry(entry: &str) -> Option<Wish> {
    let (name, stream) = match entry.split_once(':') {
        None => (entry, None),
        Some((name, "stdout")) => (name, Some(Stream::Stdout)),
        Some((name, "stderr")) => (name, Some(Stream::Stderr)),
        Some(_) => return None,
    };
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match name {
        "*" => Some(Wish { container: None, stream }),
        _ if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_letter) => None,
        _ => Some(Wish { container: Some(name.to_owned()), stream }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Streams = Streams { stdout: true, stderr: false };
    const ERR: Streams = Streams { stdout: false, stderr: true };
    const NONE: Streams = Streams { stdout: false, stderr: false };

    fn read(name: &str, value: &str) -> Wishes {
        Wishes::read(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn a_list_says_containers_and_streams() {
        let check = |value: &str, of_api: Streams, of_side: Streams| {
            let (exclude, parse_json) = (read(EXCLUDE, value), read(PARSE_JSON, value));
            assert_eq!((exclude.excluded("api"), exclude.excluded("side")), (of_api, of_side), "{value:?}");
            assert_eq!((parse_json.parsed("api"), parse_json.parsed("side")), (of_api, of_side), "{value:?}");
            assert_eq!((exclude.parsed("api"), parse_json.excluded("api")), (NONE, NONE), "{value:?}");
            assert!(exclude.faults().is_empty() && parse_json.faults().is_empty(), "{value:?}");
        };
        check("true", Streams::ALL, Streams::ALL);
        check(" true\n", Streams::ALL, Streams::ALL);
        check("false", NONE, NONE);
        check("*", Streams::ALL, Streams::ALL);
        check("*:stderr", ERR, ERR);
        check("api", Streams::ALL, NONE);
        check("api:stdout", OUT, NONE);
        check("api:stdout, side:stderr", OUT, ERR);
        check("api:stdout,api:stderr", Streams::ALL, NONE);
        check("*:stdout,side", OUT, Streams::ALL);
        check("other", NONE, NONE);
        // In a list these are names.
        check("true,side", NONE, Streams::ALL);
    }

    #[test]
    fn what_nobody_understands_counts_as_absent_and_is_named() {
        let long = "a,".repeat(3_000) + "a";
        let bad =
            ["", ",", "api,", "yes please", "API", "api:", "api:out", "api:stdout:x", ":stdout", "*api", "a_b", &long];
        for value in bad {
            let wishes = read(EXCLUDE, value);
            assert_eq!(wishes.excluded("api"), NONE, "{value:?}");
            assert_eq!(wishes.faults(), ["fairlead.dev/exclude"], "{value:?}");
        }
        assert_eq!(read(EXCLUDE, &"a".repeat(64)).faults().len(), 1);
        assert_eq!(read("exlude", "true").faults(), ["fairlead.dev/exlude"]);
        let both = [(EXCLUDE.to_owned(), "api".to_owned()), (PARSE_JSON.to_owned(), "?".to_owned())];
        let wishes = Wishes::read(&both.into());
        assert_eq!((wishes.excluded("api"), wishes.parsed("api")), (Streams::ALL, NONE));
        assert_eq!(wishes.faults(), ["fairlead.dev/parse-json"]);
    }
}
