//! Notices: records that say what happened to lines. They lie in the team's own topic, under the key of the container they speak of, and take no
//! number of their own.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use super::{Head, timestamp};

/// What a notice says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Lines are lost, or may be.
    Gap,
    /// A line was cut short.
    Truncated,
    /// Lines could not be parsed.
    ParseErrors,
    /// Lines were left out because the namespace wrote more than its rate.
    Throttled,
    /// Nothing follows, as far as the router knows.
    EndOfStream,
    /// Annotations of the pod are not understood and count as absent.
    Settings,
}

impl NoticeKind {
    /// The value of `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Truncated => "truncated",
            Self::ParseErrors => "parse_errors",
            Self::Throttled => "throttled",
            Self::EndOfStream => "end_of_stream",
            Self::Settings => "settings",
        }
    }

    /// Whether `lines` from `seq` on are numbers that no record covers.
    pub fn announces_lines(self) -> bool {
        matches!(self, Self::Gap | Self::ParseErrors | Self::Throttled)
    }
}

/// Why lines are lost, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// Held bytes were released because the budget was reached.
    Budget,
    /// A file could not be shown to follow the one before it.
    CannotFollow,
    /// A held file is gone.
    LinkLost,
    /// A file became shorter.
    Truncated,
    /// A file is not the one that was read before.
    Changed,
    /// What was remembered of the container was lost.
    StateLost,
    /// The namespace was excluded for a time.
    Excluded,
    /// A compressed file is damaged.
    Damaged,
    /// Kafka takes no record of this size.
    TooLarge,
    /// Kafka takes no such record; it is among the dead letters.
    InvalidRecord,
    /// Kafka takes no such record, and the topic of dead letters did not take it either.
    NotKept,
    /// The namespace goes to another topic now; nothing is lost.
    TopicChanged,
    /// Lines are told apart by other rules now; nothing is lost.
    GrammarChanged,
}

impl LossReason {
    /// The value of `reason`, also in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::CannotFollow => "cannot_follow",
            Self::LinkLost => "link_lost",
            Self::Truncated => "truncated",
            Self::Changed => "changed",
            Self::StateLost => "state_lost",
            Self::Excluded => "excluded",
            Self::Damaged => "damaged",
            Self::TooLarge => "too_large",
            Self::InvalidRecord => "invalid_record",
            Self::NotKept => "not_kept",
            Self::TopicChanged => "topic_changed",
            Self::GrammarChanged => "grammar_changed",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Budget => "the node kept as many undelivered bytes as it may, and released the oldest",
            Self::CannotFollow => "files were rotated away unseen",
            Self::LinkLost => "a file that was held is gone",
            Self::Truncated => "a log file was cut short before it was delivered",
            Self::Changed => "a log file is not the one that was read before",
            Self::StateLost => "the node's positions were lost",
            Self::Excluded => "the namespace was excluded for a time",
            Self::Damaged => "a compressed log file is damaged",
            Self::TooLarge => "Kafka takes no record of this size",
            Self::InvalidRecord => "Kafka refuses the record; it is among the dead letters",
            Self::NotKept => "Kafka refuses the record, and the topic of dead letters did not take it either",
            Self::TopicChanged => "the namespace goes to another topic now",
            Self::GrammarChanged => "lines are told apart by other rules now",
        }
    }
}

/// `fairlead.notice`. One that is sent again is equal in kind, source and seq.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice<'a> {
    /// What it says.
    pub kind: NoticeKind,
    /// The source that it speaks of.
    pub source: Cow<'a, str>,
    /// The first number that it speaks of; for an end the number that would follow.
    pub seq: u64,
    /// How many physical lines from `seq` on; for an end all of the source. Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// Their bytes in the log files; of a truncated line those that were cut off. Absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Where the first of them begins in its file, in bytes, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Why, on a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<LossReason>,
    /// The source that goes on where this one ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_source: Option<Cow<'a, str>>,
    /// The annotations that are not understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

impl<'a> Notice<'a> {
    /// A notice that says no more than where.
    pub fn new(kind: NoticeKind, source: impl Into<Cow<'a, str>>, seq: u64) -> Self {
        Self {
            kind,
            source: source.into(),
            seq,
            lines: None,
            bytes: None,
            offset: None,
            reason: None,
            next_source: None,
            annotations: Vec::new(),
        }
    }

    /// The numbers that it announces as not covered by any record: first and behind the last. `None` for kinds that announce none, and where
    /// the number is unknown.
    pub fn announced(&self) -> Option<(u64, u64)> {
        let lines = self.lines.filter(|_| self.kind.announces_lines())?;
        Some((self.seq, self.seq.saturating_add(lines)))
    }

    /// Parses `fairlead.notice`; `None` for what is no notice of a known kind.
    pub fn parse(json: &str) -> Option<Notice<'static>> {
        serde_json::from_str(json).ok()
    }
}

/// The sentence in `log`.
impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = match self.source.rsplit('/').next() {
            Some("1") => "stdout",
            Some("2") => "stderr",
            _ => "unparsable lines",
        };
        let count = |lines: u64| if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
        let why = self.reason.map_or("", LossReason::in_words);
        match (self.kind, self.lines) {
            (NoticeKind::Gap, Some(0)) => write!(f, "no line of {stream} is lost, but its numbers begin anew: {why}"),
            (NoticeKind::Gap, Some(lines)) => {
                write!(f, "{} of {stream} from number {} on lost: {why}", count(lines), self.seq)
            }
            (NoticeKind::Gap, None) if self.reason == Some(LossReason::StateLost) => {
                write!(f, "lines may have come under other numbers before, and some may be missing: {why}")
            }
            (NoticeKind::Gap, None) if self.next_source.is_some() => {
                write!(
                    f,
                    "lines of {stream} may be missing from number {} on, and its numbers begin anew: {why}",
                    self.seq
                )
            }
            (NoticeKind::Gap, None) => write!(f, "lines of {stream} may be missing from number {} on: {why}", self.seq),
            (NoticeKind::Truncated, _) => {
                write!(
                    f,
                    "line {} of {stream} is cut short by {} bytes: it is longer than allowed",
                    self.seq,
                    self.bytes.unwrap_or(0)
                )
            }
            (NoticeKind::ParseErrors, lines) => {
                write!(f, "{} ({} bytes) could not be parsed", count(lines.unwrap_or(0)), self.bytes.unwrap_or(0))
            }
            (NoticeKind::Throttled, lines) => {
                write!(
                    f,
                    "{} of {stream} from number {} on left out: the namespace writes more than its rate",
                    count(lines.unwrap_or(0)),
                    self.seq
                )
            }
            (NoticeKind::EndOfStream, lines) => {
                write!(f, "end of {stream}: {}, {} bytes", count(lines.unwrap_or(0)), self.bytes.unwrap_or(0))
            }
            (NoticeKind::Settings, _) => {
                write!(
                    f,
                    "annotations of the pod are not understood and count as absent: {}",
                    self.annotations.join(", ")
                )
            }
        }
    }
}

/// Appends a notice's value. `head` is that of its source's run; `time` the router's clock in seconds and nanoseconds since 1970.
pub fn encode_notice(out: &mut Vec<u8>, head: &Head, notice: &Notice<'_>, again: bool, time: (i64, u32)) {
    let fd = notice.source.bytes().next_back().filter(u8::is_ascii_digit).map_or(0, |digit| digit - b'0');
    head.write(out, fd);
    out.extend_from_slice(notice.seq.to_string().as_bytes());
    out.extend_from_slice(b",\"lines\":0");
    if again {
        out.extend_from_slice(b",\"again\":true");
    }
    out.extend_from_slice(b",\"notice\":");
    serde_json::to_writer(&mut *out, notice).expect("plain data is written to memory");
    out.extend_from_slice(b"},\"time\":\"");
    timestamp::write_unix(out, time.0, time.1);
    out.extend_from_slice(b"\",\"stream\":\"fairlead\",\"log\":");
    serde_json::to_writer(&mut *out, &notice.to_string()).expect("text is written to memory");
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{KubernetesHead, Metadata, Record, Source};

    fn gap() -> Notice<'static> {
        Notice {
            lines: Some(12),
            bytes: Some(900),
            reason: Some(LossReason::Budget),
            ..Notice::new(NoticeKind::Gap, "u/c/0/e/1", 41)
        }
    }

    #[test]
    fn a_notice_reads_as_a_record_that_covers_nothing() {
        let source = Source { pod_uid: "u".into(), container: "c".into(), restart: 0, epoch: "e".into(), fd: 1 };
        let head = Head::new(
            &KubernetesHead {
                namespace_name: "payments",
                pod_name: "p",
                pod_id: "u",
                container_name: "c",
                host: "n",
                ..KubernetesHead::default()
            },
            Metadata::Path,
            &source,
        );
        let mut out = Vec::new();
        encode_notice(&mut out, &head, &gap(), true, (1_795_255_200, 5_000_000));
        let record = Record::parse(&out).unwrap();
        assert_eq!((record.fairlead.seq, record.fairlead.lines, record.fairlead.again), (41, 0, true));
        assert_eq!((record.stream.as_ref(), record.time.as_ref()), ("fairlead", "2026-11-21T10:00:00.005Z"));
        let notice = Notice::parse(record.fairlead.notice.unwrap().get()).unwrap();
        assert_eq!(notice, gap());
        assert_eq!(notice.announced(), Some((41, 53)));
        assert!(record.log.contains("12 lines of stdout from number 41 on lost"), "{}", record.log);
    }

    #[test]
    fn only_ranges_are_announced() {
        let check =
            |notice: Notice<'_>, expected: Option<(u64, u64)>| assert_eq!(notice.announced(), expected, "{notice:?}");
        check(gap(), Some((41, 53)));
        check(Notice { lines: None, ..gap() }, None);
        for (kind, expected) in [
            (NoticeKind::ParseErrors, Some((41, 53))),
            (NoticeKind::Throttled, Some((41, 53))),
            (NoticeKind::Truncated, None),
            (NoticeKind::EndOfStream, None),
            (NoticeKind::Settings, None),
        ] {
            check(Notice { kind, ..gap() }, expected);
        }
    }

    #[test]
    fn what_is_not_known_is_no_notice() {
        for bad in ["{}", "7", r#"{"kind":"party","source":"a","seq":1}"#, r#"{"kind":"gap","source":"a","seq":-1}"#] {
            assert_eq!(Notice::parse(bad), None, "{bad}");
        }
        let names = [
            NoticeKind::Gap,
            NoticeKind::Truncated,
            NoticeKind::ParseErrors,
            NoticeKind::Throttled,
            NoticeKind::EndOfStream,
            NoticeKind::Settings,
        ];
        for kind in names {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
    }
}
