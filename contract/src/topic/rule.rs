//! One rule of the list: which namespaces, and which topic they go to.

use globset::{Glob, GlobMatcher};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::{RESERVED_PREFIX, TopicName, name};
use crate::namespace::{NAMESPACE_BYTES_MAX, Namespace};

const VARIABLE: &str = "{namespace}";
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A rule as it is written in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicRule {
    /// Names or globs (`*`, `?`, `[…]`, `{a,b}`) of namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// A regular expression on the namespace, instead of `namespaces`; it is not anchored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// The topic, with at most one `{namespace}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Leaves these namespaces out altogether.
    pub exclude: bool,
    /// Says that several namespaces may meet in this topic.
    pub shared: bool,
    /// Bytes of log files that the router reads of each of these namespaces in a second at most; what is more waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_bytes_per_second: Option<u64>,
    /// What becomes of what is more than that.
    pub delivery: Delivery,
}

/// Whether lines may be left out to keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Never: lines wait in their files.
    #[default]
    AtLeastOnce,
    /// The oldest lines are left out once too many wait, which a notice announces.
    BestEffort,
}

/// What is wrong with a rule list, and at which key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct TopicFault {
    /// The key in the configuration, for example `topics.rules[1].topic`.
    pub key: String,
    /// What is wrong, as a clause.
    pub problem: String,
}

/// How one entry of a rule matches a namespace.
#[derive(Clone, Debug)]
pub enum RuleMatch {
    /// This name alone.
    Exact(String),
    /// A shell glob.
    Glob(GlobMatcher),
    /// A regular expression.
    Pattern(Regex),
}

impl RuleMatch {
    /// Parses a namespace name or a glob.
    ///
    /// # Errors
    /// A clause that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if Namespace::parse(text).is_ok() {
            return Ok(Self::Exact(text.to_owned()));
        }
        if !text.contains(['*', '?', '[', '{']) {
            return Err(format!("`{text}` is neither a namespace name nor a glob"));
        }
        Glob::new(text)
            .map(|glob| Self::Glob(glob.compile_matcher()))
            .map_err(|error| format!("`{text}`: {}", error.kind()))
    }

    /// Whether a namespace name matches.
    pub fn matches(&self, namespace: &str) -> bool {
        match self {
            Self::Exact(name) => name == namespace,
            Self::Glob(glob) => glob.is_match(namespace),
            Self::Pattern(regex) => regex.is_match(namespace),
        }
    }
}

/// A checked rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub key: String,
    pub matches: Vec<RuleMatch>,
    pub target: Option<Target>,
    pub rate_bytes_per_second: Option<u64>,
    pub delivery: Delivery,
}

/// A topic with at most one place for the namespace.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub prefix: String,
    /// `None`: the name is constant and stands whole in `prefix`.
    pub suffix: Option<String>,
    pub shared: bool,
}

impl Rule {
    pub fn check(index: usize, raw: &TopicRule) -> Result<Self, Vec<TopicFault>> {
        let key = format!("topics.rules[{index}]");
        let mut faults = Vec::new();
        let mut fault = |at: &str, problem: String| faults.push(TopicFault { key: format!("{key}{at}"), problem });
        let mut matches = Vec::new();
        for (place, text) in raw.namespaces.iter().enumerate() {
            match RuleMatch::parse(text) {
                Ok(one) => matches.push(one),
                Err(problem) => fault(&format!(".namespaces[{place}]"), problem),
            }
        }
        if let Some(text) = &raw.regex {
            match RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build() {
                Ok(regex) => matches.push(RuleMatch::Pattern(regex)),
                Err(error) => fault(".regex", last_line(&error.to_string())),
            }
        }
        match (raw.namespaces.is_empty(), raw.regex.is_some()) {
            (true, false) => fault("", "needs `namespaces` or `regex`".to_owned()),
            (false, true) => fault("", "has both `namespaces` and `regex`; only one of them may stand".to_owned()),
            (true, true) | (false, false) => {}
        }
        let target = match (&raw.topic, raw.exclude) {
            (Some(topic), false) => Target::parse(topic, raw.shared).map_err(|problem| fault(".topic", problem)).ok(),
            (None, true) => None,
            (Some(_), true) => {
                fault("", "has both `topic` and `exclude: true`; only one of them may stand".to_owned());
                None
            }
            (None, false) => {
                fault("", "needs `topic` or `exclude: true`".to_owned());
                None
            }
        };
        if let Some(target) = &target
            && !target.has_variable()
            && !target.shared
            && !matches!(matches.as_slice(), [RuleMatch::Exact(_)])
        {
            fault(
                ".topic",
                "several namespaces would meet in one topic; use {namespace} or say `shared: true`".to_owned(),
            );
        }
        let rate_bytes_per_second = raw.rate_bytes_per_second;
        if target.is_none() && rate_bytes_per_second.is_some() {
            fault(".rate", "says nothing where `exclude: true` stands".to_owned());
        }
        if raw.delivery == Delivery::BestEffort && rate_bytes_per_second.is_none() {
            fault(".delivery", "best_effort says nothing without a `rate`".to_owned());
        }
        if faults.is_empty() {
            Ok(Self { key, matches, target, rate_bytes_per_second, delivery: raw.delivery })
        } else {
            Err(faults)
        }
    }

    pub fn matches(&self, namespace: &str) -> bool {
        self.matches.iter().any(|one| one.matches(namespace))
    }

    pub fn exact_names(&self) -> impl Iterator<Item = &str> {
        self.matches.iter().filter_map(|one| if let RuleMatch::Exact(name) = one { Some(name.as_str()) } else { None })
    }
}

/// The gist of a regular expression's error, which draws a picture above it.
fn last_line(said: &str) -> String {
    let line = said.lines().last().unwrap_or(said).trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl Target {
    pub fn parse(text: &str, shared: bool) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let target = match text.split_once(VARIABLE) {
            Some((_, suffix)) if suffix.contains(VARIABLE) => {
                return Err(format!("`{text}` contains {VARIABLE} more than once"));
            }
            Some((prefix, suffix)) => Self { prefix: prefix.to_owned(), suffix: Some(suffix.to_owned()), shared },
            None => Self { prefix: text.to_owned(), suffix: None, shared },
        };
        target.check(text).map(|()| target)
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let longest = if self.has_variable() { NAMESPACE_BYTES_MAX } else { 0 };
        let bytes = self.prefix.len() + self.suffix_text().len() + longest;
        if !self.prefix.bytes().chain(self.suffix_text().bytes()).all(name::is_topic_byte) {
            return Err(format!(
                "`{text}` has characters that a topic name may not have (a-z, A-Z, 0-9, '.', '_', '-')"
            ));
        }
        if bytes > name::TOPIC_BYTES_MAX {
            return Err(format!(
                "`{text}` can reach {bytes} characters; a topic name has at most {}",
                name::TOPIC_BYTES_MAX
            ));
        }
        if !self.has_variable() && TopicName::parse(text).is_err() {
            return Err(format!("`{text}` is no topic name"));
        }
        if self.prefix.starts_with("__") {
            return Err(format!("`{text}`: names that begin with '__' are Kafka's own"));
        }
        if self.reaches_reserved() {
            return Err(format!("`{text}` could reach {RESERVED_PREFIX}*, which belongs to no namespace"));
        }
        Ok(())
    }

    /// Whether some namespace would lead below `fairlead.`, `.` and `_` being the same to Kafka's metric names.
    fn reaches_reserved(&self) -> bool {
        let prefix = self.prefix.replace('_', ".");
        let Some(rest) = RESERVED_PREFIX.strip_prefix(prefix.as_str()) else {
            return prefix.starts_with(RESERVED_PREFIX);
        };
        // The reserved prefix is a label and a dot: a namespace ends where the dot is, or before it.
        let label = rest.trim_end_matches('.');
        let suffix = self.suffix_text().replace('_', ".");
        rest.is_empty() || self.has_variable() && (1..=label.len()).any(|end| suffix.starts_with(&rest[end..]))
    }

    pub fn has_variable(&self) -> bool {
        self.suffix.is_some()
    }

    pub fn suffix_text(&self) -> &str {
        self.suffix.as_deref().unwrap_or("")
    }

    pub fn topic(&self, namespace: &Namespace) -> TopicName {
        let text = match &self.suffix {
            Some(suffix) => format!("{}{namespace}{suffix}", self.prefix),
            None => self.prefix.clone(),
        };
        TopicName::parse(&text).expect("a checked target and a namespace give a legal name")
    }

    /// The namespace that stands in a topic's name, if this target could have made it.
    pub fn namespace_in(&self, topic: &str) -> Option<Namespace> {
        let suffix = self.suffix.as_deref()?;
        let middle = topic.strip_prefix(self.prefix.as_str())?.strip_suffix(suffix)?;
        Namespace::parse(middle).ok()
    }
}
