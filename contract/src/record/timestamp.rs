//! The runtime's stamp of a line: RFC 3339 with any fraction and offset, written to the record in UTC.

/// A timestamp as a container runtime wrote it, checked and borrowed.
///
/// Grammar: `YYYY-MM-DDThh:mm:ss[.f…]` and `Z` or `±hh:mm`; the fraction has 1 to 9 digits where there is one (CRI's Go layout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp<'a> {
    text: &'a [u8],
    /// `YYYY-MM-DDThh:mm:ss`, and the fraction with its point: how much of `text`.
    local_bytes: usize,
    /// Seconds east of UTC.
    offset_seconds: i32,
}

const SECONDS_BYTES: usize = 19;
const FRACTION_DIGITS_MAX: usize = 9;

impl<'a> Timestamp<'a> {
    /// Parses a whole timestamp; `None` when it is none.
    #[inline]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(SECONDS_BYTES)?;
        if !is_date_time(head) {
            return None;
        }
        let fraction = match rest.split_first() {
            Some((b'.', digits)) => {
                let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if count == 0 || count > FRACTION_DIGITS_MAX {
                    return None;
                }
                count + 1
            }
            _ => 0,
        };
        let offset_seconds = offset(&rest[fraction..])?;
        Some(Self { text, local_bytes: SECONDS_BYTES + fraction, offset_seconds })
    }

    /// The text that was parsed.
    pub fn as_written(&self) -> &'a [u8] {
        self.text
    }

    #[inline]
    fn local(&self) -> &'a [u8] {
        &self.text[..self.local_bytes]
    }

    /// Appends the timestamp in UTC with `Z`, its fraction as it was written.
    #[inline]
    pub fn write_utc(&self, out: &mut Vec<u8>) {
        if self.offset_seconds == 0 {
            out.extend_from_slice(self.local());
        } else {
            self.write_shifted(out);
        }
        out.push(b'Z');
    }

    /// Seconds since 1970 in UTC, the fraction left out. Used to order files.
    pub fn epoch_seconds(&self) -> i64 {
        let number = |from: usize, to: usize| {
            self.text[from..to].iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'))
        };
        let days = days_from_civil(number(0, 4), number(5, 7), number(8, 10));
        days * 86_400 + number(11, 13) * 3_600 + number(14, 16) * 60 + number(17, 19) - i64::from(self.offset_seconds)
    }

    /// The fraction of the second in nanoseconds.
    pub fn nanoseconds(&self) -> u32 {
        let digits = self.local().get(SECONDS_BYTES + 1..).unwrap_or_default();
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(FRACTION_DIGITS_MAX);
        padded.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
    }

    #[cold]
    fn write_shifted(&self, out: &mut Vec<u8>) {
        write_seconds(out, self.epoch_seconds());
        out.extend_from_slice(&self.local()[SECONDS_BYTES..]);
    }
}

/// Appends a moment in UTC with `Z` and milliseconds.
pub(super) fn write_unix(out: &mut Vec<u8>, seconds: i64, nanoseconds: u32) {
    write_seconds(out, seconds);
    out.extend_from_slice(format!(".{:03}Z", nanoseconds / 1_000_000).as_bytes());
}

fn write_seconds(out: &mut Vec<u8>, seconds: i64) {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let in_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (in_day / 3_600, in_day / 60 % 60, in_day % 60);
    // A year before 0 or after 9999 cannot be written in RFC 3339: it is clamped to the edge.
    let text = format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", year.clamp(0, 9999));
    out.extend_from_slice(text.as_bytes());
}

#[inline]
fn is_date_time(text: &[u8]) -> bool {
    const SHAPE: &[u8; SECONDS_BYTES] = b"0000-00-00T00:00:00";
    let shaped =
        text.iter().zip(SHAPE).all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape });
    if !shaped {
        return false;
    }
    let two = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
    let (month, day) = (two(5), two(8));
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && two(11) <= 23 && two(14) <= 59 && two(17) <= 59;
    in_range && (day <= 28 || day <= days_in_month(u16::from(two(0)) * 100 + u16::from(two(2)), month))
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[inline]
fn offset(text: &[u8]) -> Option<i32> {
    match text {
        b"Z" | b"+00:00" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) => {
            let digit = |byte: &u8| i32::from(byte - b'0');
            let (hours, minutes) = (digit(h1) * 10 + digit(h2), digit(m1) * 10 + digit(m2));
            let seconds = hours * 3_600 + minutes * 60;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant, `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_runtimes_write() {
        let check = |text: &str, expected: Option<&str>| {
            let written = Timestamp::parse(text.as_bytes()).map(|timestamp| {
                let mut out = Vec::new();
                timestamp.write_utc(&mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(written.as_deref(), expected, "{text}");
        };
        for same in [
            "2026-11-20T10:00:00Z",
            "2026-11-20T10:00:00.1Z",
            "2026-11-20T10:00:00.123456789Z",
            "2024-02-29T00:00:00Z",
            "0000-01-01T00:00:00Z",
        ] {
            check(same, Some(same));
        }
        check("2026-11-20T10:00:00.100000000+00:00", Some("2026-11-20T10:00:00.100000000Z"));
        check("2026-11-20T10:00:00.1+02:00", Some("2026-11-20T08:00:00.1Z"));
        check("2026-01-01T00:30:00+05:45", Some("2025-12-31T18:45:00Z"));
        check("2024-02-28T23:59:59.999-00:01", Some("2024-02-29T00:00:59.999Z"));
        check("2026-11-20T10:00:00-00:00", Some("2026-11-20T10:00:00Z"));
        let bad = [
            "",
            "2026-11-20",
            "2026-11-20T10:00:00",
            "2026-11-20 10:00:00Z",
            "2026-13-20T10:00:00Z",
            "2026-02-30T10:00:00Z",
            "2023-02-29T10:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T10:60:00Z",
            "2026-11-20T10:00:60Z",
            "2026-11-20T10:00:00.Z",
            "2026-11-20T10:00:00.1234567890Z",
            "2026-11-20T10:00:00+0200",
            "2026-11-20T10:00:00+24:00",
            "2026-11-20T10:00:00z",
            "2026-11-20T10:00:00ZZ",
            "2026-11-2éT10:00:00Z",
        ];
        for bad in bad {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_calendar_library(seconds in -62_000_000_000_i64..253_000_000_000, offset_minutes in -1439_i32..1439) {
            let zone = jiff::tz::Offset::from_seconds(offset_minutes * 60).unwrap();
            let moment = jiff::Timestamp::from_second(seconds).unwrap();
            let text = moment.display_with_offset(zone).to_string();
            prop_assume!(text.len() == 25); // a year of four digits without a sign
            let parsed = Timestamp::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(parsed.epoch_seconds(), seconds);
            let mut out = Vec::new();
            parsed.write_utc(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), moment.to_string());
        }
    }
}
