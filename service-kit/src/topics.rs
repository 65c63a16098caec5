//! The `topics` block that router and gateway share: which topic holds which namespace, and how missing topics are
//! made. `topics_file` names a file that holds the block for both; see
//! [`Source::include`](crate::config_source::Source::include).

use std::collections::BTreeMap;

use fairlead_contract::topic::{DEFAULT_DEAD_LETTER, DEFAULT_TEMPLATE, Delivery, TopicMap, TopicRule};

use crate::config_source::Reader;
use crate::units::show_bytes;

/// The key that names a file with the block, in the place of the block.
pub const FILE_KEY: &str = "topics_file";

/// The block's own key.
pub const KEY: &str = "topics";

/// Replication as the brokers' `default.replication.factor` says.
pub const REPLICATION_OF_BROKER: i32 = -1;

const DELIVERIES: [(&str, Delivery); 2] =
    [("at_least_once", Delivery::AtLeastOnce), ("best_effort", Delivery::BestEffort)];
const RULE_KEYS: [&str; 7] = ["namespaces", "regex", "topic", "exclude", "shared", "rate", "delivery"];

/// Bounds of a rule's rate, in bytes a second. One read alone has up to 256 KiB.
const RATE_MIN: u64 = 64 << 10;
const RATE_MAX: u64 = 1 << 40;

const DEAD_LETTER_KEY: &str = "topics.dead_letter";

const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";

/// The `topics` block, validated.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// Namespace to topic and back.
    pub map: TopicMap,
    /// How missing topics are made.
    pub create: CreateTopics,
    /// The topic of a namespace that no rule names, as it is written.
    pub template: String,
    /// The rules as they are written.
    pub rules: Vec<TopicRule>,
}

impl TopicSettings {
    /// The template and each rule for people, in the order in which they decide; one line each.
    pub fn lines(&self) -> Vec<String> {
        let line = |rule: &TopicRule| {
            let namespaces =
                rule.regex.as_ref().map_or_else(|| rule.namespaces.join(", "), |regex| format!("/{regex}/"));
            let topic = rule.topic.as_deref().unwrap_or("left out");
            let rate = rule.rate_bytes_per_second.map(|rate| format!(" (at most {} a second)", show_bytes(rate)));
            let shared = if rule.shared { " (shared)" } else { "" };
            format!("{namespaces} -> {topic}{shared}{}", rate.unwrap_or_default())
        };
        let rest = if self.rules.is_empty() { "all" } else { "all others" };
        self.rules.iter().map(line).chain([format!("{rest} -> {}", self.template)]).collect()
    }
}

/// The `topics.create` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopics {
    /// Whether missing topics are made at all; default true.
    pub enabled: bool,
    /// Partitions of a new topic; default 1.
    pub partitions: i32,
    /// Replicas of each partition; default [`REPLICATION_OF_BROKER`].
    pub replication_factor: i32,
    /// Kafka's settings of a new topic. `message.timestamp.type` is always `LogAppendTime`: a wrong clock cannot
    /// poison the search by time.
    pub config: BTreeMap<String, String>,
}

impl Default for CreateTopics {
    fn default() -> Self {
        CreateTopics {
            enabled: true,
            partitions: 1,
            replication_factor: REPLICATION_OF_BROKER,
            config: BTreeMap::from([(TIMESTAMP_TYPE.to_owned(), LOG_APPEND_TIME.to_owned())]),
        }
    }
}

/// Reads the block; nothing is given if its rules have a fault.
pub fn read(reader: &mut Reader) -> Option<TopicSettings> {
    reader.text(FILE_KEY);
    let template = reader.text("topics.template");
    let rules: Vec<TopicRule> =
        (0..reader.len("topics.rules")).map(|index| read_rule(reader, &format!("topics.rules[{index}]"))).collect();
    let create = read_create(reader);
    let dead_letter = reader.text(DEAD_LETTER_KEY);
    let template = template.unwrap_or_else(|| DEFAULT_TEMPLATE.to_owned());
    match TopicMap::new(&template, &rules) {
        Ok(mut map) => {
            let dead_letter = dead_letter.unwrap_or_else(|| DEFAULT_DEAD_LETTER.to_owned());
            if let Err(fault) = map.set_dead_letter(&dead_letter) {
                reader.fault_of(DEAD_LETTER_KEY, DEFAULT_DEAD_LETTER, fault.problem);
                return None;
            }
            Some(TopicSettings { map, create, template, rules })
        }
        Err(faults) => {
            // A rule that could not be read as it is written is not judged on what is left of it.
            let unread: Vec<String> = (0..rules.len())
                .map(|index| format!("topics.rules[{index}]"))
                .filter(|rule| reader.is_faulty(rule, &RULE_KEYS))
                .collect();
            for fault in faults {
                let follows = |rule: &String| {
                    fault.key.strip_prefix(rule.as_str()).is_some_and(|rest| matches!(rest, "" | ".topic"))
                };
                if !unread.iter().any(follows) {
                    reader.fault(&fault.key, fault.problem);
                }
            }
            None
        }
    }
}

fn read_rule(reader: &mut Reader, key: &str) -> TopicRule {
    TopicRule {
        namespaces: reader.texts(&format!("{key}.namespaces")).unwrap_or_default(),
        regex: reader.text(&format!("{key}.regex")),
        topic: reader.text(&format!("{key}.topic")),
        exclude: reader.bool(&format!("{key}.exclude")).unwrap_or(false),
        shared: reader.bool(&format!("{key}.shared")).unwrap_or(false),
        rate_bytes_per_second: reader.bytes(&format!("{key}.rate"), RATE_MIN..=RATE_MAX),
        delivery: reader.choice(&format!("{key}.delivery"), &DELIVERIES).unwrap_or_default(),
    }
}

fn read_create(reader: &mut Reader) -> CreateTopics {
    let mut create = CreateTopics::default();
    let number = |number: Option<i64>, default: i32| number.and_then(|n| i32::try_from(n).ok()).unwrap_or(default);
    create.enabled = reader.bool("topics.create.enabled").unwrap_or(create.enabled);
    create.partitions = number(reader.integer("topics.create.partitions", 1..=10_000), create.partitions);
    create.replication_factor =
        number(reader.integer("topics.create.replication_factor", 1..=100), create.replication_factor);
    for (name, value) in reader.scalars("topics.create.config") {
        if name == TIMESTAMP_TYPE && value != LOG_APPEND_TIME {
            let problem = "must be LogAppendTime: with the writers' clocks the search by time cannot be trusted";
            reader.fault(&format!("topics.create.config.{name}"), problem);
        } else {
            create.config.insert(name, value);
        }
    }
    create
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fairlead_contract::namespace::Namespace;
    use fairlead_contract::topic::Route;

    use super::*;
    use crate::config_source::Source;

    fn parse(yaml: &str) -> Result<TopicSettings, String> {
        let mut reader = Source::from_parts("P", Path::new("p.yaml"), yaml, []).unwrap().reader();
        let settings = read(&mut reader);
        reader.finish().map(|()| settings.expect("no fault")).map_err(|faults| faults.to_string())
    }

    fn topic_of(settings: &TopicSettings, namespace: &str) -> String {
        match settings.map.route(&Namespace::parse(namespace).unwrap()) {
            Route::Topic { topic, .. } => topic.as_str().to_owned(),
            Route::Excluded => "excluded".to_owned(),
        }
    }

    #[test]
    fn the_block_of_the_documentation_is_read() {
        let settings = parse(
            "topics:
  template: 'logs.{namespace}'
  rules:
    - {namespaces: [kube-system, 'kube-*'], topic: 'infra.{namespace}', rate: 1MiB}
    - {regex: '^scratch-', exclude: true}
  create: {enabled: false, partitions: 3, replication_factor: 2, config: {retention.ms: '604800000', segment.ms: 5}}",
        )
        .unwrap();
        assert_eq!(topic_of(&settings, "kube-system"), "infra.kube-system");
        assert_eq!(topic_of(&settings, "scratch-1"), "excluded");
        assert_eq!(topic_of(&settings, "payments"), "logs.payments");
        let lines = [
            "kube-system, kube-* -> infra.{namespace} (at most 1MiB a second)",
            "/^scratch-/ -> left out",
            "all others -> logs.{namespace}",
        ];
        assert_eq!(settings.lines(), lines);
        let rate = |name: &str| settings.map.rate_bytes_per_second(&Namespace::parse(name).unwrap());
        assert_eq!((rate("kube-system"), rate("payments")), (Some(1 << 20), None));
        let create = settings.create;
        assert_eq!((create.enabled, create.partitions, create.replication_factor), (false, 3, 2));
        let config: Vec<_> = create.config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected =
            [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "604800000"), ("segment.ms", "5")];
        assert_eq!(config, expected);
    }

    #[test]
    fn nothing_written_means_defaults() {
        let settings = parse("{}").unwrap();
        assert_eq!(settings.create, CreateTopics::default());
        assert_eq!(topic_of(&settings, "a"), "logs.a");
    }

    #[test]
    fn faults_name_their_rule() {
        let check = |yaml: &str, expected: &[&str]| {
            let faults = parse(yaml).unwrap_err();
            for part in expected {
                assert!(faults.lines().any(|line| line.starts_with(part)), "{part} in {faults}");
            }
        };
        check("topics: {dead_letter: '{topic}-dlq'}", &["topics.dead_letter = {topic}-dlq: could be the topic"]);
        check("topics: {template: logs}", &["topics.template = logs: "]);
        let alone = |yaml: &str, expected: &str| {
            let faults = parse(yaml).unwrap_err();
            assert!(faults.lines().count() == 1 && faults.starts_with(expected), "{faults}");
        };
        alone(
            "topics: {rules: [{namespaces: [a, b], topic: x, sharde: true}]}",
            "topics.rules[0].sharde: unknown key (p.yaml)",
        );
        alone("topics: {rules: [{namespaces: [a], topic: 5}]}", "topics.rules[0].topic = 5: must be a text");
        alone(
            "topics: {rules: [{namespaces: [a], topic: x, rate: 1KiB}]}",
            "topics.rules[0].rate = 1KiB: at least 64KiB",
        );
        alone(
            "topics: {rules: [{namespaces: [a], exclude: true, rate: 1MiB}]}",
            "topics.rules[0].rate = 1MiB: says nothing where `exclude: true` stands",
        );
        alone("topics: {rules: [x]}", "topics.rules[0] = x: must be a mapping of keys");
        alone(
            "topics: {rules: [{namespaces: [a], topic: x, exclude: true}]}",
            "topics.rules[0]: has both `topic` and `exclude: true`; only one of them may stand (p.yaml)",
        );
        check(
            "topics: {rules: [{namespaces: [a], topic: x}, {regex: '(', topic: y, sharde: true}]}",
            &["topics.rules[1].regex = (: ", "topics.rules[1].sharde: unknown key"],
        );
        check(
            "topics: {create: {partitions: 0, replicas: 3, config: {message.timestamp.type: CreateTime}}}",
            &[
                "topics.create.partitions = 0: at least 1",
                "topics.create.replicas: unknown key",
                "topics.create.config.message.timestamp.type = CreateTime: must be LogAppendTime",
            ],
        );
    }
}
