//! A line that is one JSON object, as `log_processed` has it.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep an object may be nested: most readers take that much.
pub const OBJECT_DEPTH_MAX: u32 = 32;

/// The text of one JSON object, checked: any reader of JSON takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonObject<'a>(&'a str);

/// Why a line is not taken for a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoObject {
    /// It is none.
    Other,
    /// It is nested deeper than [`OBJECT_DEPTH_MAX`].
    TooDeep,
}

impl<'a> JsonObject<'a> {
    /// Takes a line that is one JSON object and nothing else but spaces around it.
    ///
    /// # Errors
    /// [`NoObject`]: also where it is not UTF-8, has half a surrogate pair, or a number beyond what a double can hold.
    pub fn parse(line: &'a [u8]) -> Result<Self, NoObject> {
        let line = line.trim_ascii();
        if line.first() != Some(&b'{') || line.last() != Some(&b'}') {
            return Err(NoObject::Other);
        }
        let text = std::str::from_utf8(line).map_err(|_| NoObject::Other)?;
        let too_deep = Cell::new(false);
        let mut json = serde_json::Deserializer::from_str(text);
        let checked = Check { left: OBJECT_DEPTH_MAX, too_deep: &too_deep }.deserialize(&mut json);
        match checked.and_then(|()| json.end()) {
            Ok(()) => Ok(Self(text)),
            Err(_) if too_deep.get() => Err(NoObject::TooDeep),
            Err(_) => Err(NoObject::Other),
        }
    }

    /// Appends it. Control characters can only stand between its parts, where a space says the same.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.0.as_bytes());
        out[start..].iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
    }
}

/// Goes through a value and keeps nothing.
#[derive(Clone, Copy)]
struct Check<'c> {
    left: u32,
    too_deep: &'c Cell<bool>,
}

impl Check<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left, ..self }),
            None => {
                self.too_deep.set(true);
                Err(E::custom("nested too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        while members.next_key_seed(inside)?.is_some() {
            members.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: u32) -> String {
        let (open, close) = (r#"{"a":"#.repeat(depth as usize - 1), "}".repeat(depth as usize - 1));
        format!("{open}{{}}{close}")
    }

    #[test]
    fn what_is_an_object_and_what_is_not() {
        let check = |line: &[u8], expected: Result<&str, NoObject>| {
            let written = JsonObject::parse(line).map(|object| {
                let mut out = Vec::new();
                object.write(&mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(written, expected.map(ToOwned::to_owned), "{}", String::from_utf8_lossy(line));
        };
        for same in [
            "{}",
            r#"{"a":1,"b":[true,null,-2.5e3,"\u00e9\ud83d\ude00"],"a":{}}"#,
            r#"{ "spaces" : [ ] }"#,
            r#"{"é":"🚢"}"#,
        ] {
            check(same.as_bytes(), Ok(same));
        }
        check(b" \t{\"a\":1}\r", Ok(r#"{"a":1}"#));
        check(b"{\t\"a\":\r1}", Ok(r#"{ "a": 1}"#));
        for other in [
            "",
            "{",
            "}",
            "[1]",
            "7",
            "null",
            "text",
            r#"{"a":1}{"b":2}"#,
            r#"{"a":1} {}"#,
            r#"{"a":1}x}"#,
            r#"{"a":}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":1,}"#,
            r#"{"a":NaN}"#,
            "{\"a\":\"tab\there\"}",
        ] {
            check(other.as_bytes(), Err(NoObject::Other));
        }
        check(b"{\"a\":\"\xff\"}", Err(NoObject::Other));
        let deepest = nested(OBJECT_DEPTH_MAX);
        check(deepest.as_bytes(), Ok(&deepest));
        check(nested(OBJECT_DEPTH_MAX + 1).as_bytes(), Err(NoObject::TooDeep));
        check(format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)).as_bytes(), Err(NoObject::TooDeep));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_a_json_reader_reads(text in "\\{[\"a-b:,\\[\\]{}0-9.e\\-\\\\u \t]{0,24}\\}") {
            let read = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).ok();
            let taken = JsonObject::parse(text.as_bytes()).ok().map(|object| {
                let mut out = Vec::new();
                object.write(&mut out);
                serde_json::from_slice(&out).unwrap()
            });
            prop_assert_eq!(taken, read);
        }
    }
}
