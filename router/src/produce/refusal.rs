//! What Kafka's error codes mean for a record: send it again, park its namespace, or make a new producer.

use rdkafka::types::RDKafkaErrorCode as Code;

/// Why a topic or a record is refused for good, as labels of metrics have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The topic or the partition does not exist.
    TopicMissing,
    /// The router may not write, describe or create it.
    NotAuthorized,
    /// Kafka does not take the topic's name or settings.
    InvalidTopic,
    /// The record or its batch is larger than the topic takes.
    TooLarge,
    /// Kafka does not take the record.
    InvalidRecord,
    /// A policy of the cluster forbids it.
    Policy,
    /// No broker answers, or the topic has no leader now.
    Unavailable,
    /// Records wait longer for their acknowledgement than those of other topics.
    Slow,
    /// Anything else.
    Other,
}

impl Refusal {
    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::TopicMissing => "topic_missing",
            Refusal::NotAuthorized => "not_authorized",
            Refusal::InvalidTopic => "invalid_topic",
            Refusal::TooLarge => "too_large",
            Refusal::InvalidRecord => "invalid_record",
            Refusal::Policy => "policy",
            Refusal::Unavailable => "unavailable",
            Refusal::Slow => "slow",
            Refusal::Other => "other",
        }
    }
}

/// What to do about a record that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Send it again.
    Retry,
    /// Kafka will refuse it again: park its namespace and look at the topic.
    Refused(Refusal),
    /// The producer is dead: make a new one and send again.
    Fatal,
}

impl FailureKind {
    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Retry => "retry",
            FailureKind::Fatal => "fatal",
            FailureKind::Refused(refusal) => refusal.as_str(),
        }
    }
}

/// Judges the error of a delivery report. What is not known to be for good is sent again: nothing is dropped.
pub(super) fn of_delivery(code: Code) -> FailureKind {
    match (code, refusal(code)) {
        (Code::Fatal, _) => FailureKind::Fatal,
        (_, Some(refusal)) => FailureKind::Refused(refusal),
        (_, None) => FailureKind::Retry,
    }
}

/// The refusal that a code stands for; none if trying again may help.
pub(super) fn refusal(code: Code) -> Option<Refusal> {
    match code {
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::NoEnt => Some(Refusal::TopicMissing),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Some(Refusal::NotAuthorized),
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidRequest => Some(Refusal::InvalidTopic),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => Some(Refusal::TooLarge),
        // The latter is a good record beside a bad one: sent alone, each shows what it is.
        Code::InvalidRecord | Code::InvalidDifferentRecord => Some(Refusal::InvalidRecord),
        // Whatever the record, the topic takes none like it.
        Code::InvalidTimestamp | Code::UnsupportedForMessageFormat | Code::UnsupportedCompressionType => {
            Some(Refusal::Policy)
        }
        Code::PolicyViolation => Some(Refusal::Policy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_judged() {
        let check = |code: Code, expected: FailureKind| assert_eq!(of_delivery(code), expected, "{code:?}");
        check(Code::Fatal, FailureKind::Fatal);
        check(Code::TopicAuthorizationFailed, FailureKind::Refused(Refusal::NotAuthorized));
        check(Code::UnknownTopicOrPartition, FailureKind::Refused(Refusal::TopicMissing));
        check(Code::UnknownTopic, FailureKind::Refused(Refusal::TopicMissing));
        check(Code::MessageSizeTooLarge, FailureKind::Refused(Refusal::TooLarge));
        check(Code::InvalidTimestamp, FailureKind::Refused(Refusal::Policy));
        check(Code::InvalidRecord, FailureKind::Refused(Refusal::InvalidRecord));
        check(Code::PolicyViolation, FailureKind::Refused(Refusal::Policy));
        check(Code::InvalidDifferentRecord, FailureKind::Refused(Refusal::InvalidRecord));
        // What passes by itself is sent again.
        check(Code::PurgeQueue, FailureKind::Retry);
        check(Code::PurgeInflight, FailureKind::Retry);
        check(Code::MessageTimedOut, FailureKind::Retry);
        check(Code::NotEnoughReplicas, FailureKind::Retry);
        check(Code::KafkaStorageError, FailureKind::Retry);
        check(Code::ThrottlingQuotaExceeded, FailureKind::Retry);
        check(Code::Unknown, FailureKind::Retry);
    }
}
