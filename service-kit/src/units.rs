//! Durations and sizes as people write them: `30s`, `1h30m`, `64MiB`.
//!
//! A bare number is refused: whoever writes `30` may mean seconds or milliseconds, bytes or kilobytes.

use std::time::Duration;

/// Why a text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number where one must be.
    #[error("must be a number and its unit, such as {example}")]
    Malformed {
        /// A text that would have been taken.
        example: &'static str,
    },
    /// A number without a unit.
    #[error("needs its unit, such as {example}")]
    NoUnit {
        /// A text that would have been taken.
        example: &'static str,
    },
    /// A unit that is not one of ours.
    #[error("unknown unit `{unit}`: use one of {units}")]
    UnknownUnit {
        /// What stands behind the number.
        unit: String,
        /// The units that exist.
        units: &'static str,
    },
    /// More than 64 bits hold.
    #[error("is too large")]
    TooLarge,
}

const DURATION_EXAMPLE: &str = "30s, 250ms or 1h30m";
const DURATION_UNITS: &str = "ms, s, m, h, d";
const BYTES_EXAMPLE: &str = "64MiB or 128KiB";
const BYTES_UNITS: &str = "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB";

/// Reads a duration: one or more whole numbers with `ms`, `s`, `m`, `h` or `d`, added up (`1h30m`).
///
/// # Errors
/// If the text is empty, a number lacks its unit, a unit is unknown, or the sum exceeds 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(UnitError::Malformed { example: DURATION_EXAMPLE });
    }
    while !rest.is_empty() {
        let (number, unit, tail) = split(rest, DURATION_EXAMPLE)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(UnitError::NoUnit { example: DURATION_EXAMPLE }),
            other => return Err(UnitError::UnknownUnit { unit: other.to_owned(), units: DURATION_UNITS }),
        };
        let part_ms = number.checked_mul(unit_ms).ok_or(UnitError::TooLarge)?;
        total_ms = total_ms.checked_add(part_ms).ok_or(UnitError::TooLarge)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size in bytes: one whole number with `B`, a binary unit (`KiB` … `TiB`) or a decimal one (`kB` … `TB`).
/// `0` needs no unit.
///
/// # Errors
/// If the text is empty, the number lacks its unit, the unit is unknown, or the product exceeds 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit, tail) = split(text.trim(), BYTES_EXAMPLE)?;
    if !tail.is_empty() {
        return Err(UnitError::Malformed { example: BYTES_EXAMPLE });
    }
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "" if number == 0 => 1,
        "" => return Err(UnitError::NoUnit { example: BYTES_EXAMPLE }),
        other => return Err(UnitError::UnknownUnit { unit: other.to_owned(), units: BYTES_UNITS }),
    };
    number.checked_mul(unit_bytes).ok_or(UnitError::TooLarge)
}

/// Writes a duration as [`parse_duration`] reads it, in the fewest parts; below a millisecond as `0ms`.
pub fn show_duration(duration: Duration) -> String {
    let mut rest_ms = duration.as_millis();
    let mut shown = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest_ms >= unit_ms {
            shown.push_str(&format!("{}{unit}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    if shown.is_empty() { "0ms".to_owned() } else { shown }
}

/// Writes a size as [`parse_bytes`] reads it, in the largest binary unit that divides it.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Splits `12ab34…` into 12, `ab` and `34…`.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(u64, &'a str, &'a str), UnitError> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits_end);
    if digits.is_empty() {
        return Err(UnitError::Malformed { example });
    }
    let number = digits.parse().map_err(|_| UnitError::TooLarge)?;
    let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(unit_end);
    Ok((number, unit.trim(), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let got = parse_duration(text).map(|d| d.as_millis() as u64).map_err(|e| e.to_string());
            match expected {
                Ok(ms) => assert_eq!(got, Ok(ms), "{text}"),
                Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{text}: {got:?}"),
            }
        };
        check("30s", Ok(30_000));
        check("250ms", Ok(250));
        check("5m", Ok(300_000));
        check("1h30m", Ok(5_400_000));
        check("2d", Ok(172_800_000));
        check(" 1s ", Ok(1_000));
        check("0s", Ok(0));
        check("30", Err("needs its unit"));
        check("1m30", Err("needs its unit"));
        check("", Err("must be a number"));
        check("s", Err("must be a number"));
        check("-1s", Err("must be a number"));
        check("1.5s", Err("unknown unit `.`"));
        check("3 weeks", Err("unknown unit `weeks`"));
        check("99999999999999999999s", Err("too large"));
        check("18446744073709551615d", Err("too large"));
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let got = parse_bytes(text).map_err(|e| e.to_string());
            match expected {
                Ok(bytes) => assert_eq!(got, Ok(bytes), "{text}"),
                Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{text}: {got:?}"),
            }
        };
        check("64MiB", Ok(64 << 20));
        check("128KiB", Ok(128 << 10));
        check("1GB", Ok(1_000_000_000));
        check("12 kB", Ok(12_000));
        check("7B", Ok(7));
        check("0", Ok(0));
        check("64", Err("needs its unit"));
        check("64M", Err("unknown unit `M`"));
        check("64mib", Err("unknown unit `mib`"));
        check("1MiB2", Err("must be a number"));
        check("MiB", Err("must be a number"));
        check("99999999TiB", Err("too large"));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [0, 1, 999, 1_000, 61_001, 90_061_001, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 1025, 64 << 20, 3 << 40, u64::MAX] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(show_bytes(64 << 20), "64MiB");
    }
}
