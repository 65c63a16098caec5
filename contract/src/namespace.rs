//! A validated Kubernetes namespace name. Input: text from a path, a URL or a configuration. Output: [`Namespace`].

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest namespace name in bytes (RFC 1123 label).
pub const NAMESPACE_BYTES_MAX: usize = 63;

/// A Kubernetes namespace name: an RFC 1123 label, 1 to 63 bytes of `[a-z0-9-]` that begin and end with a letter or digit.
///
/// Cheap to clone. Nothing is ever normalised: what is not a label is refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// Why a text is not a namespace name. It does not repeat the text, which may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// The text is empty.
    #[error("a namespace name is not empty")]
    Empty,
    /// The text has more than 63 bytes.
    #[error("a namespace name has at most 63 characters")]
    TooLong,
    /// A byte is not one of `[a-z0-9-]`, or a hyphen stands first or last.
    #[error("a namespace name has only a-z, 0-9 and '-', and begins and ends with a letter or digit")]
    BadCharacter,
}

impl Namespace {
    /// Parses an RFC 1123 label.
    ///
    /// # Errors
    /// [`NamespaceError`] when the text is empty, longer than 63 bytes, or has any byte that a label may not have at that place.
    pub fn parse(text: &str) -> Result<Self, NamespaceError> {
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return Err(NamespaceError::Empty) };
        if bytes.len() > NAMESPACE_BYTES_MAX {
            return Err(NamespaceError::TooLong);
        }
        if *first == b'-' || *last == b'-' || !bytes.iter().copied().all(is_label_byte) {
            return Err(NamespaceError::BadCharacter);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a byte may stand inside a namespace name.
pub(crate) fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Namespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_what_is_none() {
        let long = "a".repeat(63);
        let too_long = "a".repeat(64);
        for good in ["a", "0", "payments", "team-b", "a--b", "kube-system", long.as_str()] {
            assert_eq!(Namespace::parse(good).map(|n| n.as_str().to_owned()), Ok(good.to_owned()));
        }
        let bad = [
            "-a",
            "a-",
            "-",
            "A",
            "team_b",
            "a.b",
            "..",
            ".",
            "a/b",
            "a b",
            " a",
            "a ",
            "a\0",
            "a\n",
            "a\r",
            "a\t",
            "a\u{7f}",
            "ａ",
            "а",
            "é",
            "a%2e",
            "*",
            "__consumer_offsets",
            "a\u{200b}",
            "a\u{202e}",
            "a;x",
        ];
        for bad in bad {
            assert_eq!(Namespace::parse(bad), Err(NamespaceError::BadCharacter), "{bad:?}");
        }
        assert_eq!(Namespace::parse(""), Err(NamespaceError::Empty));
        assert_eq!(Namespace::parse(&too_long), Err(NamespaceError::TooLong));
    }
}
