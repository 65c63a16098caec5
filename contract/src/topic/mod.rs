//! Namespace to topic and back. Input: the `topics` block of a configuration. Output: [`TopicMap`], the same in router and gateway.

mod dead_letter;
mod disjoint;
mod name;
mod rule;

pub use name::{TopicName, TopicNameError};
pub use rule::{Delivery, RuleMatch, TopicFault, TopicRule};

use crate::namespace::Namespace;
use dead_letter::DeadLetter;
use rule::{Rule, Target};

/// The template that is used where none is configured.
pub const DEFAULT_TEMPLATE: &str = "logs.{namespace}";

/// Where dead letters go where nothing is configured.
pub const DEFAULT_DEAD_LETTER: &str = "{topic}.dlq";

/// Topics with this prefix are Fairlead's own and belong to no namespace.
pub const RESERVED_PREFIX: &str = "fairlead.";

/// A checked rule list: which topic holds the lines of which namespace.
///
/// Two namespaces never meet in one topic unless the rules that lead there say `shared: true`.
#[derive(Clone, Debug)]
pub struct TopicMap {
    rules: Vec<Rule>,
    template: Target,
    dead_letter: Option<DeadLetter>,
}

/// Where a namespace's lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this topic. A shared topic holds other namespaces' lines too.
    Topic {
        /// The topic's name.
        topic: TopicName,
        /// Whether other namespaces may write there.
        shared: bool,
    },
    /// Nowhere: the files are not even opened.
    Excluded,
}

impl TopicMap {
    /// Checks a template and its rules as a whole.
    ///
    /// # Errors
    /// All faults at once, each with its key (`topics.rules[1].topic`): a template without exactly one `{namespace}`, illegal or too long
    /// topic names, bad globs or regular expressions, names that reach `fairlead.*`, and two rules in which different namespaces could meet.
    pub fn new(template: &str, rules: &[TopicRule]) -> Result<Self, Vec<TopicFault>> {
        let mut faults = Vec::new();
        let template =
            Target::parse(template, false)
                .and_then(|target| {
                    if target.has_variable() { Ok(target) } else { Err("must contain {namespace} once".to_owned()) }
                })
                .map_err(|problem| faults.push(TopicFault { key: "topics.template".to_owned(), problem }))
                .ok();
        let mut checked = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match Rule::check(index, rule) {
                Ok(rule) => checked.push(rule),
                Err(found) => faults.extend(found),
            }
        }
        match template {
            Some(template) if faults.is_empty() => {
                let map = Self { rules: checked, template, dead_letter: None };
                let faults = disjoint::faults(&map.rules, &map.template);
                if faults.is_empty() { Ok(map) } else { Err(faults) }
            }
            _ => Err(faults),
        }
    }

    /// The topic of a namespace; the first rule that matches wins, then the template.
    pub fn route(&self, namespace: &Namespace) -> Route {
        match self.rules.iter().find(|rule| rule.matches(namespace.as_str())) {
            Some(Rule { target: None, .. }) => Route::Excluded,
            Some(Rule { target: Some(target), .. }) => {
                Route::Topic { topic: target.topic(namespace), shared: target.shared }
            }
            None => Route::Topic { topic: self.template.topic(namespace), shared: false },
        }
    }

    /// Says where records go that their topic refuses for good: a name with one `{topic}`.
    ///
    /// # Errors
    /// A name that is none, or that could be a namespace's own topic.
    pub fn set_dead_letter(&mut self, template: &str) -> Result<(), TopicFault> {
        let targets = self.rules.iter().filter_map(|rule| rule.target.as_ref()).chain([&self.template]);
        self.dead_letter = Some(DeadLetter::check(template, targets)?);
        Ok(())
    }

    /// The topic of records that this topic refuses for good; none if there is none.
    pub fn dead_letter(&self, topic: &TopicName) -> Option<TopicName> {
        self.dead_letter.as_ref()?.topic(topic)
    }

    /// How many bytes of a namespace's log files are read in a second at most; none: as many as there are.
    pub fn rate_bytes_per_second(&self, namespace: &Namespace) -> Option<u64> {
        self.rules.iter().find(|rule| rule.matches(namespace.as_str()))?.rate_bytes_per_second
    }

    /// Whether lines of a namespace may be left out to keep up with its rate.
    pub fn delivery(&self, namespace: &Namespace) -> Delivery {
        let rule = self.rules.iter().find(|rule| rule.matches(namespace.as_str()));
        rule.map_or(Delivery::AtLeastOnce, |rule| rule.delivery)
    }

    /// The one namespace whose lines a topic holds; `None` for a shared topic and for one that no namespace leads to.
    pub fn namespace_of(&self, topic: &str) -> Option<Namespace> {
        let targets = self.rules.iter().filter_map(|rule| rule.target.as_ref()).chain([&self.template]);
        let named = self.rules.iter().flat_map(Rule::exact_names).filter_map(|name| Namespace::parse(name).ok());
        let candidates = targets.filter_map(|target| target.namespace_in(topic)).chain(named);
        candidates.into_iter().find(|namespace| match self.route(namespace) {
            Route::Topic { topic: routed, shared } => !shared && routed.as_str() == topic,
            Route::Excluded => false,
        })
    }

    /// Whether a rule that says `shared: true` can lead to a topic.
    pub fn is_shared(&self, topic: &str) -> bool {
        let leads = |target: &Target| match target.has_variable() {
            true => target.namespace_in(topic).is_some(),
            false => target.prefix == topic,
        };
        self.rules.iter().filter_map(|rule| rule.target.as_ref()).any(|target| target.shared && leads(target))
    }
}

impl Default for TopicMap {
    fn default() -> Self {
        Self::new(DEFAULT_TEMPLATE, &[]).expect("the default template is legal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(namespaces: &[&str], topic: &str) -> TopicRule {
        TopicRule {
            namespaces: namespaces.iter().map(|&n| n.to_owned()).collect(),
            topic: Some(topic.to_owned()),
            ..TopicRule::default()
        }
    }

    fn example() -> TopicMap {
        let rules = [
            rule(&["kube-system", "kube-*"], "infra.{namespace}"),
            TopicRule { regex: Some("^scratch-".to_owned()), exclude: true, ..TopicRule::default() },
            rule(&["audit"], "audit-log"),
            TopicRule { shared: true, ..rule(&["tiny-*"], "logs.shared.tiny") },
        ];
        TopicMap::new(DEFAULT_TEMPLATE, &rules).unwrap()
    }

    #[test]
    fn first_match_wins_and_maps_back() {
        let map = example();
        let check = |namespace: &str, expected: Option<(&str, bool)>| {
            let route = map.route(&Namespace::parse(namespace).unwrap());
            let got = match &route {
                Route::Topic { topic, shared } => Some((topic.as_str(), *shared)),
                Route::Excluded => None,
            };
            assert_eq!(got, expected, "{namespace}");
            if let Some((topic, shared)) = expected {
                let back = map.namespace_of(topic);
                assert_eq!(back.as_ref().map(Namespace::as_str), (!shared).then_some(namespace), "{topic}");
            }
        };
        check("payments", Some(("logs.payments", false)));
        check("kube-system", Some(("infra.kube-system", false)));
        check("kube-public", Some(("infra.kube-public", false)));
        check("scratch-1", None);
        check("my-scratch-1", Some(("logs.my-scratch-1", false)));
        check("audit", Some(("audit-log", false)));
        check("tiny-a", Some(("logs.shared.tiny", true)));
        assert!(map.is_shared("logs.shared.tiny") && !map.is_shared("logs.payments") && !map.is_shared("audit-log"));
        for foreign in [
            "logs.kube-system",
            "infra.payments",
            "logs.",
            "logs.A",
            "logs.scratch-1",
            "logs.audit",
            "other",
            "fairlead.control",
            "",
        ] {
            assert_eq!(map.namespace_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn faults_name_their_key() {
        let check = |template: &str, rules: &[TopicRule], expected: &[&str]| {
            let faults = TopicMap::new(template, rules).map(|_| ()).unwrap_err();
            let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
            assert_eq!(keys, expected, "{faults:?}");
        };
        check("logs", &[], &["topics.template"]);
        check("logs.{namespace}.{namespace}", &[], &["topics.template"]);
        check("logs/{namespace}", &[], &["topics.template"]);
        check("{namespace}.logs", &[], &["topics.template"]);
        check("fairlead.{namespace}", &[], &["topics.template"]);
        check("__{namespace}", &[], &["topics.template"]);
        check(&format!("{}.{{namespace}}", "x".repeat(190)), &[], &["topics.template"]);
        check("logs.{namespace}", &[rule(&[], "x.{namespace}")], &["topics.rules[0]"]);
        check("logs.{namespace}", &[rule(&["a", "b"], "ab")], &["topics.rules[0].topic"]);
        check("logs.{namespace}", &[rule(&["a*"], "a")], &["topics.rules[0].topic"]);
        check("logs.{namespace}", &[rule(&["a"], "logs.b")], &["topics.rules[0].topic"]);
        check("logs.{namespace}", &[rule(&["a"], "logs_b")], &["topics.rules[0].topic"]);
        check("logs.{namespace}", &[rule(&["a", "b*"], "logs.x{namespace}")], &["topics.rules[0].topic"]);
        check("logs.{namespace}", &[rule(&["a"], "x"), rule(&["b"], "x")], &["topics.rules[1].topic"]);
        check(
            "logs.{namespace}",
            &[rule(&["A"], "x.{namespace}"), rule(&["b["], "y.{namespace}")],
            &["topics.rules[0].namespaces[0]", "topics.rules[1].namespaces[0]"],
        );
        let both = TopicRule { exclude: true, ..rule(&["a"], "x") };
        check("logs.{namespace}", &[both], &["topics.rules[0]"]);
        let bad_regex = TopicRule { regex: Some("(".to_owned()), exclude: true, ..TopicRule::default() };
        check("logs.{namespace}", &[bad_regex], &["topics.rules[0].regex"]);
        check("a.{namespace}.foo.bar", &[rule(&["z*"], "a.kube.{namespace}.bar")], &["topics.rules[0].topic"]);
    }

    #[test]
    fn faults_of_a_rule_say_what_it_has_and_what_it_lacks_in_one_line() {
        let check = |rule: TopicRule, expected: &str| {
            let faults = TopicMap::new(DEFAULT_TEMPLATE, &[rule]).unwrap_err();
            assert_eq!(faults.iter().map(|fault| fault.problem.as_str()).collect::<Vec<_>>(), [expected]);
        };
        let regex = |text: &str| Some(text.to_owned());
        check(
            TopicRule { exclude: true, ..rule(&["a"], "x") },
            "has both `topic` and `exclude: true`; only one of them may stand",
        );
        check(TopicRule { topic: None, ..rule(&["a"], "") }, "needs `topic` or `exclude: true`");
        check(
            TopicRule { regex: regex("b"), ..rule(&["a"], "x.{namespace}") },
            "has both `namespaces` and `regex`; only one of them may stand",
        );
        check(rule(&[], "x.{namespace}"), "needs `namespaces` or `regex`");
        check(rule(&["a"], ""), "must not be empty");
        check(TopicRule { regex: regex("("), exclude: true, ..TopicRule::default() }, "unclosed group");
        let problem = &TopicMap::new("", &[]).unwrap_err()[0].problem;
        assert_eq!(problem, "must not be empty");
    }

    #[test]
    fn dead_letters_are_nobodys_lines() {
        let check = |rules: &[TopicRule], template: &str, expected: Result<&str, &str>| {
            let mut map = TopicMap::new(DEFAULT_TEMPLATE, rules).unwrap();
            let made = map.set_dead_letter(template).map_err(|fault| fault.problem);
            let topic = TopicName::parse("logs.a").unwrap();
            let dead = made.map(|()| map.dead_letter(&topic).unwrap().to_string());
            assert_eq!(dead.as_deref().map_err(String::as_str), expected, "{template}");
        };
        check(&[], DEFAULT_DEAD_LETTER, Ok("logs.a.dlq"));
        check(&[], "dead.{topic}", Ok("dead.logs.a"));
        check(&[rule(&["a"], "x")], DEFAULT_DEAD_LETTER, Ok("logs.a.dlq"));
        check(&[], "dead", Err("must contain {topic} once"));
        check(&[], "{topic}{topic}", Err("must contain {topic} once"));
        check(&[], "{topic}", Err("must differ from the topic itself"));
        check(&[], "{topic}-dlq", Err("could be the topic of a namespace"));
        check(&[rule(&["b"], "logs.a.dlq")], DEFAULT_DEAD_LETTER, Err("could be the topic of a namespace"));
        let reserved = "`fairlead.logs.{namespace}` could reach fairlead.*, which belongs to no namespace";
        check(&[], "fairlead.{topic}", Err(reserved));
    }

    #[test]
    fn shared_must_be_said_by_all_who_meet() {
        let shared = |names: &[&str], topic: &str| TopicRule { shared: true, ..rule(names, topic) };
        assert!(TopicMap::new(DEFAULT_TEMPLATE, &[shared(&["a", "b"], "x"), shared(&["c*"], "x")]).is_ok());
        assert!(TopicMap::new(DEFAULT_TEMPLATE, &[shared(&["a", "b"], "x"), rule(&["c"], "x")]).is_err());
        assert!(TopicMap::new(DEFAULT_TEMPLATE, &[shared(&["a", "b"], "logs.c")]).is_err());
        // An exact topic that the template could only give to the namespace that has it is no meeting.
        assert!(TopicMap::new(DEFAULT_TEMPLATE, &[rule(&["a"], "logs.a")]).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_injective(
            template in "[a-c.]{0,3}\\{namespace\\}[a-c.]{0,3}",
            targets in proptest::collection::vec(("[ab*-]{1,3}", "([ab.]{0,3}\\{namespace\\}[ab.]{0,3}|[ab.]{1,4})"), 0..4),
            names in proptest::collection::vec("[ab]([ab-]{0,3}[ab])?", 2..40),
        ) {
            let rules: Vec<_> = targets.iter().map(|(glob, topic)| rule(&[glob.as_str()], topic)).collect();
            if let Ok(map) = TopicMap::new(&template, &rules) {
                let mut seen = std::collections::BTreeMap::new();
                for name in &names {
                    let namespace = Namespace::parse(name).unwrap();
                    if let Route::Topic { topic, .. } = map.route(&namespace) {
                        let folded = topic.as_str().replace('_', ".");
                        prop_assert!(!topic.as_str().starts_with(RESERVED_PREFIX));
                        prop_assert_eq!(map.namespace_of(topic.as_str()), Some(namespace.clone()));
                        let first = seen.entry(folded).or_insert_with(|| namespace.clone());
                        prop_assert_eq!(&*first, &namespace);
                    }
                }
            }
        }
    }
}
