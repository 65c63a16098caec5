//! JSON objects in which no member stands twice.
//!
//! RFC 8259 leaves it open which of two equal members counts, so a signer and a verifier may read one token differently (RFC 7515 §4 and
//! RFC 7519 §4 allow a verifier to refuse such a text). Tokens and key sets are read through this module only.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

/// Parses `bytes`, refusing a member that stands twice in any object at any depth.
///
/// # Errors
/// Not JSON, not shaped as `T`, or a repeated member. The error's text can quote the input's member names: it is for the log only.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice::<Unique>(bytes)?;
    serde_json::from_slice(bytes)
}

/// Reads any JSON value, keeps nothing, and fails on a repeated member.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value without repeated members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Unique>()?;
            if let Some(name) = seen.replace(name) {
                return Err(A::Error::custom(format_args!("member {name:?} stands twice")));
            }
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::from_slice;

    #[test]
    fn refuses_repeated_members_at_any_depth() {
        let check = |text: &str, accepted: bool| {
            assert_eq!(from_slice::<Value>(text.as_bytes()).is_ok(), accepted, "{text}");
        };
        check(r#"{"a":1,"b":{"a":2},"c":[{"a":1},{"a":2}]}"#, true);
        check(r#"{"a":-1,"b":1.5,"c":null,"d":true,"e":"x","f":[],"g":{}}"#, true);
        check(r#"{"a":1,"a":1}"#, false);
        check(r#"{"a":1,"\u0061":1}"#, false);
        check(r#"{"a":{"b":1,"b":2}}"#, false);
        check(r#"{"a":[1,{"b":1,"b":2}]}"#, false);
        check(r#"{"a":1} "#, true);
        check(r#"{"a":1}x"#, false);
        check("{", false);
        check("", false);
        check(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000)), false);
    }
}
