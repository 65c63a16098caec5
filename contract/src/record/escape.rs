//! Text into a JSON string: the shortest escapes, everything else as it is.

use std::str;

/// Appends a JSON string without its quotes. Bytes that are not UTF-8 become U+FFFD, one for each maximal run that begins like a character
/// (as `String::from_utf8_lossy` does); returns how many.
#[inline]
pub(super) fn push_lossy(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    match str::from_utf8(bytes) {
        Ok(text) => {
            push_text(out, text);
            0
        }
        Err(_) => push_repaired(out, bytes),
    }
}

#[cold]
fn push_repaired(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let mut replaced = 0;
    for piece in bytes.utf8_chunks() {
        push_text(out, piece.valid());
        if !piece.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            replaced += 1;
        }
    }
    replaced
}

/// Appends a JSON string without its quotes.
#[inline]
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = next_special(bytes, at) {
        out.extend_from_slice(&bytes[done..found]);
        push_escape(out, bytes[found]);
        done = found + 1;
        at = done;
    }
    out.extend_from_slice(&bytes[done..]);
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES * 0x80;

/// The place of the next byte that must be escaped, eight at a time.
#[inline]
fn next_special(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(word) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        let hits = below_space(word) | equal_to(word, b'"') | equal_to(word, b'\\');
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| is_special(*byte)).map(|place| at + place)
}

#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The high bit of the lowest byte below 0x20 is set; bits above it mean nothing.
#[inline]
fn below_space(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word & HIGHS
}

/// The high bit of the lowest byte equal to `byte` is set; bits above it mean nothing.
#[inline]
fn equal_to(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * u64::from(byte));
    zero.wrapping_sub(ONES) & !zero & HIGHS
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short: &[u8] = match byte {
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        b'\t' => b"\\t",
        0x08 => b"\\b",
        0x0c => b"\\f",
        _ => {
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(short);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_come_back_as_lossy_text(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            check(&bytes)?;
        }

        #[test]
        fn text_with_many_specials(text in "[\"\\\\\\x00-\\x1f a-cé\u{10ffff}]{0,60}") {
            check(text.as_bytes())?;
        }
    }

    fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
        let mut out = vec![b'"'];
        let replaced = push_lossy(&mut out, bytes);
        out.push(b'"');
        let expected = String::from_utf8_lossy(bytes);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), &*expected);
        prop_assert_eq!(&out, &serde_json::to_vec(&expected).unwrap());
        prop_assert_eq!(replaced > 0, std::str::from_utf8(bytes).is_err());
        Ok(())
    }
}
