//! What a topic's own settings will do to lines. Input: what brokers say of a topic. Output: [`Warning`]s, worst first. Pure.
//!
//! The same judgement serves `plan`, which prints it, and the thread that looks up topics, which must not produce to a topic that eats lines
//! ([`Harm::Compacted`]).

use std::time::Duration;

use fairlead_service_kit::units::{show_bytes, show_duration};

/// What JSON makes of the worst byte of a line: `\u0000`.
const ESCAPED_BYTES_PER_BYTE: u64 = 6;
/// Room for what stands before and behind the line in a record, and for Kafka's own framing.
const RECORD_HEAD_BYTES: u64 = 64 << 10;

/// What brokers say of a topic; `None` where they do not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicConfig {
    /// The fewest replicas of a partition.
    pub replicas_min: Option<u64>,
    /// The fewest replicas in sync of a partition.
    pub in_sync_min: Option<u64>,
    /// `min.insync.replicas`.
    pub min_in_sync: Option<u64>,
    /// `cleanup.policy`.
    pub cleanup_policy: Option<String>,
    /// `retention.ms`; negative for no bound.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` of a partition; negative for no bound.
    pub retention_bytes: Option<i64>,
    /// `max.message.bytes`.
    pub message_bytes_max: Option<u64>,
    /// `message.timestamp.type`.
    pub timestamp_type: Option<String>,
}

impl TopicConfig {
    /// Takes one of the topic's settings, as Kafka writes it. Others than those above are of no matter.
    pub fn set(&mut self, name: &str, value: &str) {
        match name {
            "min.insync.replicas" => self.min_in_sync = value.parse().ok(),
            "cleanup.policy" => self.cleanup_policy = Some(value.to_owned()),
            "retention.ms" => self.retention_ms = value.parse().ok(),
            "retention.bytes" => self.retention_bytes = value.parse().ok(),
            "max.message.bytes" => self.message_bytes_max = value.parse().ok(),
            "message.timestamp.type" => self.timestamp_type = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// What the router needs of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// `logs.record_bytes_max`.
    pub record_bytes_max: u64,
    /// How long readers may be away without losing lines.
    pub outage: Duration,
}

/// What would happen to lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Compaction keeps the last record of each key, and all lines of a container have one key. The router does not produce to it.
    Compacted,
    /// Kafka refuses every record: fewer replicas than `acks=all` needs.
    TooFewReplicas,
    /// One broker more away, and Kafka refuses every record.
    NoReplicaToSpare,
    /// A broker's disk is all that keeps acknowledged lines.
    OneReplica,
    /// Lines go before readers come back.
    ShortRetention,
    /// Long lines do not fit.
    SmallRecords,
    /// Records carry the writers' clocks: retention and the search by time go by them.
    WritersClocks,
}

impl Harm {
    /// Whether records would not be taken as the topic is now.
    pub fn refuses(self) -> bool {
        matches!(self, Self::Compacted | Self::TooFewReplicas)
    }
}

/// One thing that would hurt lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub harm: Harm,
    /// The same for people: what is set, and what it does.
    pub text: String,
}

/// All that would hurt lines in a topic, worst first.
pub fn hurts(topic: &TopicConfig, needs: &Needs) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |harm: Harm, text: String| found.push(Warning { harm, text });
    if let Some(policy) = &topic.cleanup_policy
        && policy.split(',').any(|one| one.trim() == "compact")
    {
        let text = format!(
            "cleanup.policy is {policy}: compaction keeps one record of each key, and all lines of a container have one key; \
             nothing is produced to it until it is delete"
        );
        warn(Harm::Compacted, text);
    }
    replicas(topic, &mut warn);
    if let Some(retention_ms) = topic.retention_ms.and_then(|ms| u64::try_from(ms).ok())
        && Duration::from_millis(retention_ms) < needs.outage
    {
        let (kept, outage) = (show_duration(Duration::from_millis(retention_ms)), show_duration(needs.outage));
        warn(Harm::ShortRetention, format!("retention.ms is {kept}: readers that are away for {outage} lose lines"));
    }
    let needed = needs.record_bytes_max.saturating_mul(ESCAPED_BYTES_PER_BYTE).saturating_add(RECORD_HEAD_BYTES);
    if let Some(allowed) = topic.message_bytes_max
        && allowed < needed
    {
        let line = show_bytes(needs.record_bytes_max);
        let text = format!(
            "max.message.bytes is {allowed}, but a line of logs.record_bytes_max = {line} can need {needed}: what does not fit is \
             cut into smaller pieces or refused"
        );
        warn(Harm::SmallRecords, text);
    }
    if topic.timestamp_type.as_deref() == Some("CreateTime") {
        let text = "message.timestamp.type is CreateTime: retention and the search by time go by the nodes' clocks, and a wrong one \
                    hides or ends lines; LogAppendTime is better";
        warn(Harm::WritersClocks, text.to_owned());
    }
    found.sort_by_key(|warning| warning.harm);
    found
}

/// What `acks=all` needs, and what is there.
fn replicas(topic: &TopicConfig, warn: &mut impl FnMut(Harm, String)) {
    let Some(needed) = topic.min_in_sync else { return };
    match (topic.replicas_min, topic.in_sync_min) {
        (Some(replicas), _) if replicas < needed => {
            let text =
                format!("min.insync.replicas is {needed}, but partitions have {replicas}: Kafka refuses every record");
            warn(Harm::TooFewReplicas, text);
        }
        (_, Some(in_sync)) if in_sync < needed => {
            let text = format!(
                "min.insync.replicas is {needed}, but only {in_sync} are in sync: Kafka refuses records until more brokers are back"
            );
            warn(Harm::TooFewReplicas, text);
        }
        (Some(1), _) => {
            warn(
                Harm::OneReplica,
                "partitions have one replica: lines that were acknowledged go with that broker's disk".to_owned(),
            );
        }
        (Some(replicas), _) if needed == 1 => {
            let text = format!(
                "min.insync.replicas is 1 of {replicas}: a line can be acknowledged by one broker alone and go with its disk; 2 is better"
            );
            warn(Harm::OneReplica, text);
        }
        (Some(replicas), Some(in_sync)) if in_sync == needed && (replicas > in_sync || replicas == needed) => {
            let text = format!(
                "min.insync.replicas is {needed} and {in_sync} of {replicas} are in sync: with one broker more away Kafka refuses every record"
            );
            warn(Harm::NoReplicaToSpare, text);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { record_bytes_max: 128 << 10, outage: Duration::from_secs(24 * 3600) };

    fn good() -> TopicConfig {
        TopicConfig {
            replicas_min: Some(3),
            in_sync_min: Some(3),
            min_in_sync: Some(2),
            cleanup_policy: Some("delete".to_owned()),
            retention_ms: Some(604_800_000),
            retention_bytes: Some(-1),
            message_bytes_max: Some(1_048_588),
            timestamp_type: Some("LogAppendTime".to_owned()),
        }
    }

    #[test]
    fn what_would_hurt_lines_is_told_and_nothing_else() {
        let check = |change: &dyn Fn(&mut TopicConfig), expected: &[Harm]| {
            let mut topic = good();
            change(&mut topic);
            let harms: Vec<Harm> = hurts(&topic, &NEEDS).iter().map(|warning| warning.harm).collect();
            assert_eq!(harms, expected, "{topic:?}");
        };
        let policy = |text: &'static str| move |topic: &mut TopicConfig| topic.cleanup_policy = Some(text.to_owned());
        check(&|_| {}, &[]);
        check(&|topic| *topic = TopicConfig::default(), &[]);
        check(&policy("compact"), &[Harm::Compacted]);
        check(&policy("delete,compact"), &[Harm::Compacted]);
        check(&policy("delete, compact"), &[Harm::Compacted]);
        check(&|topic| topic.min_in_sync = Some(4), &[Harm::TooFewReplicas]);
        check(&|topic| topic.in_sync_min = Some(1), &[Harm::TooFewReplicas]);
        check(&|topic| topic.in_sync_min = Some(2), &[Harm::NoReplicaToSpare]);
        check(&|topic| topic.min_in_sync = Some(3), &[Harm::NoReplicaToSpare]);
        check(&|topic| topic.min_in_sync = Some(1), &[Harm::OneReplica]);
        let one = |topic: &mut TopicConfig| {
            (topic.replicas_min, topic.in_sync_min, topic.min_in_sync) = (Some(1), Some(1), Some(1));
        };
        check(&one, &[Harm::OneReplica]);
        check(&|topic| topic.retention_ms = Some(3_600_000), &[Harm::ShortRetention]);
        check(&|topic| topic.retention_ms = Some(-1), &[]);
        check(&|topic| topic.retention_ms = Some(86_400_000), &[]);
        check(&|topic| topic.message_bytes_max = Some(851_967), &[Harm::SmallRecords]);
        check(&|topic| topic.message_bytes_max = Some(851_968), &[]);
        check(&|topic| topic.timestamp_type = Some("CreateTime".to_owned()), &[Harm::WritersClocks]);
        let worst = |topic: &mut TopicConfig| {
            topic.timestamp_type = Some("CreateTime".to_owned());
            topic.cleanup_policy = Some("compact".to_owned());
        };
        check(&worst, &[Harm::Compacted, Harm::WritersClocks]);
    }

    #[test]
    fn settings_are_taken_by_kafkas_names() {
        let mut topic = TopicConfig { replicas_min: Some(3), in_sync_min: Some(3), ..TopicConfig::default() };
        for (name, value) in [
            ("min.insync.replicas", "2"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.type", "LogAppendTime"),
            ("segment.ms", "1"),
        ] {
            topic.set(name, value);
        }
        assert_eq!(topic, good());
    }

    #[test]
    fn only_what_takes_no_record_refuses() {
        let refusing = [Harm::Compacted, Harm::TooFewReplicas];
        let others =
            [Harm::NoReplicaToSpare, Harm::OneReplica, Harm::ShortRetention, Harm::SmallRecords, Harm::WritersClocks];
        assert!(refusing.iter().all(|harm| harm.refuses()) && !others.iter().any(|harm| harm.refuses()));
    }
}
