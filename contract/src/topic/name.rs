//! A legal Kafka topic name (Kafka's `Topic.java`: `[a-zA-Z0-9._-]`, 1 to 249, not `.` or `..`).

use std::{fmt, sync::Arc};

/// The longest topic name in bytes.
pub const TOPIC_BYTES_MAX: usize = 249;

/// A legal Kafka topic name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A text that Kafka does not take as a topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a topic name has 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', and is not '.' or '..'")]
pub struct TopicNameError;

impl TopicName {
    /// Parses a topic name.
    ///
    /// # Errors
    /// [`TopicNameError`] when Kafka would refuse the name.
    pub fn parse(text: &str) -> Result<Self, TopicNameError> {
        let legal = !text.is_empty()
            && text.len() <= TOPIC_BYTES_MAX
            && text != "."
            && text != ".."
            && text.bytes().all(is_topic_byte);
        if legal { Ok(Self(text.into())) } else { Err(TopicNameError) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a byte may stand in a topic name.
pub(super) fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
