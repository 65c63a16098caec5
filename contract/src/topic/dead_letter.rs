//! Where records go that their topic refuses for good.

use super::{TopicFault, TopicName, disjoint, rule::Target};

const VARIABLE: &str = "{topic}";
const KEY: &str = "topics.dead_letter";

/// A topic's name made of another one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeadLetter {
    prefix: String,
    suffix: String,
}

impl DeadLetter {
    /// Checks a template against all targets: no dead-letter topic may hold a namespace's lines.
    pub(super) fn check<'a>(
        template: &str,
        targets: impl Iterator<Item = &'a Target> + Clone,
    ) -> Result<Self, TopicFault> {
        let fault = |problem: String| TopicFault { key: KEY.to_owned(), problem };
        let one = template.split_once(VARIABLE).filter(|(_, suffix)| !suffix.contains(VARIABLE));
        let Some((prefix, suffix)) = one else { return Err(fault(format!("must contain {VARIABLE} once"))) };
        if prefix.is_empty() && suffix.is_empty() {
            return Err(fault("must differ from the topic itself".to_owned()));
        }
        let made = Self { prefix: prefix.to_owned(), suffix: suffix.to_owned() };
        for target in targets.clone() {
            let dead = made.target(target).map_err(fault)?;
            if targets.clone().any(|other| disjoint::targets_meet(&dead, other)) {
                return Err(fault("could be the topic of a namespace".to_owned()));
            }
        }
        Ok(made)
    }

    /// The dead-letter topic of a topic.
    pub(super) fn topic(&self, of: &TopicName) -> Option<TopicName> {
        TopicName::parse(&format!("{}{of}{}", self.prefix, self.suffix)).ok()
    }

    fn target(&self, of: &Target) -> Result<Target, String> {
        let written = match &of.suffix {
            Some(suffix) => format!("{}{}{{namespace}}{suffix}{}", self.prefix, of.prefix, self.suffix),
            None => format!("{}{}{}", self.prefix, of.prefix, self.suffix),
        };
        Target::parse(&written, of.shared)
    }
}
