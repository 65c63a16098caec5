//! Which lines a request asks for. Input: a [`View`]. Output: yes or no. Only limits what is shown; it never widens what may be read.

use fairlead_contract::record::Timestamp;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, HirKind},
};

use super::scan::{Origin, View};

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// What a compiled pattern may take, in bytes: some classes of Unicode such as `\w`, which take 50 KiB each.
const PATTERN_SIZE_MAX: usize = 256 * 1024;
/// How many places of a line a pattern may keep in mind, repetitions written out. The worst line takes time in proportion to this and to its
/// length; a pattern of nothing but literals does not.
const PATTERN_PLACES_MAX: usize = 256;
/// How deep a pattern may be nested.
const PATTERN_NEST_MAX: u32 = 50;

/// A place in time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    seconds: i64,
    nanoseconds: u32,
}

/// What a line must be to be shown. Lists that are empty ask for nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of pods, of which one must be the line's.
    pub pods: Vec<String>,
    /// Names of containers, of which one must be the line's.
    pub containers: Vec<String>,
    /// `stdout`, `stderr` or `fairlead` (the notices).
    pub stream: Option<String>,
    /// The earliest `time`.
    pub since: Option<Moment>,
    /// The first `time` that is too late.
    pub until: Option<Moment>,
    /// Must match `log`.
    pub grep: Option<Regex>,
    /// Must not match `log`.
    pub grep_not: Option<Regex>,
}

/// A pattern that is not taken; the text may be shown to who wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Moment {
    /// The moment a line's `time` tells; `None` when it is not RFC 3339.
    pub fn of_line(time: &str) -> Option<Self> {
        let stamp = Timestamp::parse(time.as_bytes())?;
        Some(Self { seconds: stamp.epoch_seconds(), nanoseconds: stamp.nanoseconds() })
    }

    /// The moment of a timestamp.
    pub fn of(stamp: jiff::Timestamp) -> Self {
        let nanoseconds = stamp.as_nanosecond();
        let (seconds, nanoseconds) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
        Self { seconds: seconds as i64, nanoseconds: nanoseconds as u32 }
    }

    /// The moment so much earlier.
    pub fn earlier(self, by: std::time::Duration) -> Self {
        let borrow = i64::from(self.nanoseconds < by.subsec_nanos());
        let seconds =
            self.seconds.saturating_sub(i64::try_from(by.as_secs()).unwrap_or(i64::MAX)).saturating_sub(borrow);
        let nanoseconds = if borrow == 1 {
            self.nanoseconds + 1_000_000_000 - by.subsec_nanos()
        } else {
            self.nanoseconds - by.subsec_nanos()
        };
        Self { seconds, nanoseconds }
    }

    /// Milliseconds since 1970, rounded down.
    pub fn milliseconds(self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanoseconds / 1_000_000))
    }
}

impl Filter {
    /// Whether it looks at the text of lines, which may take long.
    pub fn has_pattern(&self) -> bool {
        self.grep.is_some() || self.grep_not.is_some()
    }

    /// Whether lines of this origin and stream are asked for.
    pub fn takes_origin(&self, origin: &Origin, stream: &str) -> bool {
        let among = |names: &[String], name: &str| names.is_empty() || names.iter().any(|asked| asked == name);
        among(&self.pods, &origin.pod)
            && among(&self.containers, &origin.container)
            && self.stream.as_deref().is_none_or(|asked| asked == stream)
    }

    /// Whether a line's own time is asked for. A time that cannot be read is.
    pub fn takes_time(&self, time: &str) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Some(moment) = Moment::of_line(time) else { return true };
        self.since.is_none_or(|since| since <= moment) && self.until.is_none_or(|until| moment < until)
    }

    /// Whether a line's text is asked for.
    pub fn takes_text(&self, view: &View<'_>) -> bool {
        if self.grep.is_none() && self.grep_not.is_none() {
            return true;
        }
        let log = view.log();
        self.grep.as_ref().is_none_or(|pattern| pattern.is_match(log.as_bytes()))
            && self.grep_not.as_ref().is_none_or(|pattern| !pattern.is_match(log.as_bytes()))
    }
}

/// Compiles a pattern within fixed limits.
///
/// # Errors
/// [`PatternError`] when it is too long, too large once compiled, or no regular expression.
pub fn pattern(text: &str) -> Result<Regex, PatternError> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(PatternError(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes")));
    }
    let compiled = RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE_MAX)
        .dfa_size_limit(PATTERN_SIZE_MAX)
        .nest_limit(PATTERN_NEST_MAX)
        .build();
    let compiled = compiled.map_err(|error| {
        PatternError(match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large once compiled".into(),
            regex::Error::Syntax(text) => {
                format!("not a regular expression: {}", text.lines().last().unwrap_or_default().trim())
            }
            _ => "not a regular expression".into(),
        })
    })?;
    let parsed = ParserBuilder::new().utf8(false).nest_limit(PATTERN_NEST_MAX).build().parse(text);
    let parsed = parsed.map_err(|_| PatternError("not a regular expression".into()))?;
    if !parsed.properties().is_alternation_literal() && places(&parsed) > PATTERN_PLACES_MAX {
        return Err(PatternError(format!(
            "the pattern is too large: with its repetitions written out it has more than {PATTERN_PLACES_MAX} places"
        )));
    }
    Ok(compiled)
}

/// How many bytes and classes a pattern has once its repetitions are written out.
fn places(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(_) => 1,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            places(&repetition.sub).saturating_mul(usize::try_from(times).unwrap_or(usize::MAX))
        }
        HirKind::Capture(capture) => places(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(0, |sum, part| sum.saturating_add(places(part)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::repeats::Id;

    fn origin() -> Origin {
        Origin { namespace: "payments".into(), pod: "api-1".into(), container: "api".into(), source: Id::of("s") }
    }

    #[test]
    fn origins() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        type Case = (&'static [&'static str], &'static [&'static str], Option<&'static str>, bool);
        let cases: [Case; 8] = [
            (&[], &[], None, true),
            (&["api-1"], &[], None, true),
            (&["api"], &[], None, false),
            (&["other", "api-1"], &["api"], Some("stdout"), true),
            (&[], &["ap"], None, false),
            (&[], &[], Some("stderr"), false),
            (&[], &[], Some("fairlead"), false),
            (&[""], &[], None, false),
        ];
        for (pods, containers, stream, expected) in cases {
            let filter = Filter {
                pods: names(pods),
                containers: names(containers),
                stream: stream.map(Into::into),
                ..Filter::default()
            };
            assert_eq!(filter.takes_origin(&origin(), "stdout"), expected, "{pods:?} {containers:?} {stream:?}");
        }
    }

    #[test]
    fn times() {
        let moment = |text: &str| Some(Moment::of(text.parse::<jiff::Timestamp>().unwrap()));
        let filter = Filter {
            since: moment("2026-11-20T10:00:00.5Z"),
            until: moment("2026-11-20T10:00:01Z"),
            ..Filter::default()
        };
        let cases = [
            ("2026-11-20T10:00:00.499999999Z", false),
            ("2026-11-20T10:00:00.5Z", true),
            ("2026-11-20T10:00:00.500Z", true),
            ("2026-11-20T12:00:00.6+02:00", true),
            ("2026-11-20T10:00:00.999999999Z", true),
            ("2026-11-20T10:00:01Z", false),
            ("not a time", true),
        ];
        for (time, expected) in cases {
            assert_eq!(filter.takes_time(time), expected, "{time}");
        }
        assert_eq!(Moment::of_line("1969-12-31T23:59:59.75Z"), moment("1969-12-31T23:59:59.75Z"));
        assert_eq!(moment("1970-01-01T00:00:01.0019Z").unwrap().milliseconds(), 1001);
        let by = std::time::Duration::from_millis(1500);
        assert_eq!(
            moment("1970-01-01T00:00:03.25Z").map(|moment| moment.earlier(by)),
            moment("1970-01-01T00:00:01.75Z")
        );
        assert_eq!(
            moment("1970-01-01T00:00:03.75Z").map(|moment| moment.earlier(by)),
            moment("1970-01-01T00:00:02.25Z")
        );
    }

    #[test]
    fn patterns_are_bounded() {
        let literals = format!("{}|{}", "x".repeat(1000), "y".repeat(1000));
        for good in [
            "GET",
            "(?i)error|warn",
            r"^\d+ ms$",
            "é",
            "",
            r"user=\w+ path=\S+",
            "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            &literals,
        ] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        for bad in ["(", "a{100000}", r"(\w{300}){300}", r"\1", &"a".repeat(PATTERN_BYTES_MAX + 1), &"(".repeat(2000)] {
            assert!(pattern(bad).is_err(), "{bad:.20}");
        }
        for hostile in
            ["(?-u)(?s).*a[ab]{7000}c", "((a{9}){9}){9}[bc]", &format!("[ab]{}", "a".repeat(2000)), "(?:a?){300}"]
        {
            assert!(pattern(hostile).is_err(), "{hostile:.20}");
        }
    }

    #[test]
    fn the_worst_pattern_on_the_worst_line_is_bounded() {
        // Random enough that the matcher cannot remember what it saw.
        let mut state = 1_u32;
        let mixed: Vec<u8> = (0..128 * 1024)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 31 == 0 { b'a' } else { b'b' }
            })
            .collect();
        let same = vec![b'a'; 128 * 1024];
        for text in
            ["(?-u)(?s).*a[ab]{250}c", "[ab]a{250}c", "(?:a?){120}(?:a{120})c", "(?i)a.{250}é", r"\w{1,4}[ab]{250}!"]
        {
            let pattern = pattern(text).unwrap();
            for line in [&mixed, &same] {
                let begun = std::time::Instant::now();
                pattern.is_match(line);
                let took = begun.elapsed();
                assert!(took < std::time::Duration::from_secs(3), "{text} took {took:?}");
            }
        }
    }
}
