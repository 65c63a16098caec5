//! Shows that no two namespaces can meet in one topic, over a whole rule list.
//!
//! Two targets `p1 N s1` and `p2 N s2` are laid over each other at every possible length of the common name: where a literal meets a literal
//! they must be equal, where a literal meets a namespace it must be a character that a namespace may have. If no length fits, the targets
//! never meet. Kafka treats `.` and `_` as equal in metric names and refuses a topic that collides so; hence both count as one here.

use super::rule::{Rule, RuleMatch, Target, TopicFault};
use crate::namespace::{NAMESPACE_BYTES_MAX, Namespace, is_label_byte};

/// All pairs of targets in which two namespaces could meet, each reported at the later rule.
pub(super) fn faults(rules: &[Rule], template: &Target) -> Vec<TopicFault> {
    let mut faults = Vec::new();
    let routed: Vec<_> = rules.iter().filter_map(|rule| rule.target.as_ref().map(|target| (rule, target))).collect();
    for (place, &(rule, target)) in routed.iter().enumerate() {
        let earlier = routed[..place].iter().map(|&(other, target)| (Some(other), target));
        let meets = earlier.chain([(None, template)]).find(|&(other, other_target)| {
            let both_shared = target.shared && other_target.shared;
            !both_shared && can_meet((Some(rule), target), (other, other_target), rules)
        });
        if let Some((other, _)) = meets {
            let with = other.map_or("topics.template", |other| other.key.as_str());
            let problem = format!("a namespace of this rule and another one of {with} could meet in one topic");
            faults.push(TopicFault { key: format!("{}.topic", rule.key), problem });
        }
    }
    faults
}

type Side<'a> = (Option<&'a Rule>, &'a Target);

fn can_meet(a: Side<'_>, b: Side<'_>, rules: &[Rule]) -> bool {
    match (single_name(a.0), single_name(b.0)) {
        (Some(a_name), Some(b_name)) => {
            a_name != b_name && fold(&topic_of(a.1, a_name)) == fold(&topic_of(b.1, b_name))
        }
        (Some(name), None) => name_meets(name, a, b, rules),
        (None, Some(name)) => name_meets(name, b, a, rules),
        (None, None) => targets_meet(a.1, b.1),
    }
}

/// Whether another namespace could reach the topic that one exactly named namespace has.
fn name_meets(name: &str, own: Side<'_>, other: Side<'_>, rules: &[Rule]) -> bool {
    let topic = fold(&topic_of(own.1, name));
    if !other.1.has_variable() {
        return fold(&other.1.prefix) == topic;
    }
    let (prefix, suffix) = (fold(&other.1.prefix), fold(other.1.suffix_text()));
    let Some(middle) = topic.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix)) else { return false };
    let first_match = |namespace: &str| rules.iter().find(|rule| rule.matches(namespace)).map(|rule| &rule.key);
    Namespace::parse(middle)
        .is_ok_and(|found| found.as_str() != name && first_match(found.as_str()) == other.0.map(|rule| &rule.key))
}

pub(super) fn targets_meet(a: &Target, b: &Target) -> bool {
    let (a, b) = (Shape::of(a), Shape::of(b));
    if a.variable && b.variable && a.prefix == b.prefix && a.suffix == b.suffix {
        return false; // the same place for the namespace: equal topics mean equal namespaces
    }
    (a.bytes_min().max(b.bytes_min())..=a.bytes_max().min(b.bytes_max())).any(|length| fits(&a, &b, length))
}

fn fits(a: &Shape, b: &Shape, length: usize) -> bool {
    (0..length).all(|at| match (a.at(at, length), b.at(at, length)) {
        (Some(x), Some(y)) => x == y,
        (Some(literal), None) | (None, Some(literal)) => is_label_byte(literal),
        (None, None) => true,
    })
}

struct Shape {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    variable: bool,
}

impl Shape {
    fn of(target: &Target) -> Self {
        Self {
            prefix: fold(&target.prefix).into_bytes(),
            suffix: fold(target.suffix_text()).into_bytes(),
            variable: target.has_variable(),
        }
    }

    fn bytes_min(&self) -> usize {
        self.prefix.len() + self.suffix.len() + usize::from(self.variable)
    }

    fn bytes_max(&self) -> usize {
        self.prefix.len() + self.suffix.len() + if self.variable { NAMESPACE_BYTES_MAX } else { 0 }
    }

    /// The literal byte at a place of a name of this length; `None` where the namespace stands.
    fn at(&self, at: usize, length: usize) -> Option<u8> {
        let suffix_start = length - self.suffix.len();
        match at {
            at if at < self.prefix.len() => Some(self.prefix[at]),
            at if at >= suffix_start => Some(self.suffix[at - suffix_start]),
            _ => None,
        }
    }
}

fn single_name(rule: Option<&Rule>) -> Option<&str> {
    match rule?.matches.as_slice() {
        [RuleMatch::Exact(name)] => Some(name),
        _ => None,
    }
}

fn topic_of(target: &Target, name: &str) -> String {
    match &target.suffix {
        Some(suffix) => format!("{}{name}{suffix}", target.prefix),
        None => target.prefix.clone(),
    }
}

fn fold(text: &str) -> String {
    text.replace('_', ".")
}
