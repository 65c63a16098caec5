//! Events: what a stream says that is not a record. In NDJSON an object with the member `event`, in text a line that begins with `#`.

use serde::Serialize;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// All of the asked range was sent.
    Complete,
    /// The asked number of lines was sent; the cursor reads on.
    Limit,
    /// A search backwards for the last lines went as far back as this gateway goes.
    ScanLimit,
    /// The token expired.
    Expired,
    /// The caller may no longer read the namespace.
    Denied,
    /// This gateway stops; another one reads on from the cursor.
    Shutdown,
    /// The topic was deleted or made again; the cursor begins the new one.
    TopicChanged,
    /// This namespace's lines are not collected.
    Excluded,
    /// Kafka did not answer in time; the cursor reads on.
    Unavailable,
}

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// They are older than the topic keeps.
    Retention,
    /// A search backwards for the last lines did not go as far as this.
    ScanLimit,
}

/// The offsets of one partition that are missing: `from` to before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The partition.
    pub partition: i32,
    /// The first offset that is missing.
    pub from: i64,
    /// The first offset that is there again.
    pub to: i64,
}

/// What was kept back in a stream, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Withheld {
    /// Records that cover only lines sent before.
    pub repeats: u64,
    /// Values that are no records.
    pub unreadable: u64,
    /// Records of another namespace in this namespace's own topic.
    pub foreign: u64,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// All is well; sent at fixed intervals, and when a follow has reached the present.
    Heartbeat {
        /// Now.
        #[serde(serialize_with = "as_text")]
        time: jiff::Timestamp,
        /// Where the stream stands.
        cursor: &'a str,
    },
    /// Records are missing here.
    Gap {
        /// Why.
        reason: GapReason,
        /// How many offsets.
        records: i64,
        /// Which.
        partitions: &'a [Missing],
        /// Where the stream goes on.
        cursor: &'a str,
    },
    /// The last thing in a stream.
    End {
        /// Why.
        reason: EndReason,
        /// How many lines were sent.
        lines: u64,
        /// What was kept back.
        withheld: Withheld,
        /// Where the first line begins, for who reads backwards from it; absent where no line was sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        start: Option<&'a str>,
        /// Where another request reads on.
        cursor: &'a str,
    },
}

fn as_text<S: serde::Serializer>(time: &jiff::Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

impl EndReason {
    /// The word in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Limit => "limit",
            Self::ScanLimit => "scan_limit",
            Self::Expired => "expired",
            Self::Denied => "denied",
            Self::Shutdown => "shutdown",
            Self::TopicChanged => "topic_changed",
            Self::Excluded => "excluded",
            Self::Unavailable => "unavailable",
        }
    }
}

impl GapReason {
    /// The word in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::ScanLimit => "scan_limit",
        }
    }
}

impl Event<'_> {
    /// Appends the event as a line of NDJSON.
    pub fn write_ndjson(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("an event is written to memory");
        out.push(b'\n');
    }

    /// Appends the event as a line of text. A heartbeat is none.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        let line = match self {
            Self::Heartbeat { .. } => return,
            Self::Gap { reason, records, partitions, cursor } => {
                let places: Vec<_> =
                    partitions.iter().map(|p| format!("{}:{}-{}", p.partition, p.from, p.to - 1)).collect();
                let (reason, places) = (reason.as_str(), places.join(","));
                format!("# gap reason={reason} records={records} offsets={places} cursor={cursor}\n")
            }
            Self::End { reason, lines, cursor, .. } => {
                format!("# end reason={} lines={lines} cursor={cursor}\n", reason.as_str())
            }
        };
        out.extend_from_slice(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &Event<'_>, ndjson: &str, text: &str) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        event.write_ndjson(&mut a);
        event.write_text(&mut b);
        assert_eq!((String::from_utf8(a).unwrap().as_str(), String::from_utf8(b).unwrap().as_str()), (ndjson, text));
    }

    #[test]
    fn events_as_lines() {
        check(
            &Event::Heartbeat { time: jiff::Timestamp::UNIX_EPOCH, cursor: "c" },
            "{\"event\":\"heartbeat\",\"time\":\"1970-01-01T00:00:00Z\",\"cursor\":\"c\"}\n",
            "",
        );
        check(
            &Event::Gap {
                reason: GapReason::Retention,
                records: 7,
                partitions: &[Missing { partition: 1, from: 3, to: 10 }],
                cursor: "c",
            },
            "{\"event\":\"gap\",\"reason\":\"retention\",\"records\":7,\"partitions\":[{\"partition\":1,\"from\":3,\"to\":10}],\"cursor\":\"c\"}\n",
            "# gap reason=retention records=7 offsets=1:3-9 cursor=c\n",
        );
        check(
            &Event::Gap { reason: GapReason::ScanLimit, records: 0, partitions: &[], cursor: "c" },
            "{\"event\":\"gap\",\"reason\":\"scan_limit\",\"records\":0,\"partitions\":[],\"cursor\":\"c\"}\n",
            "# gap reason=scan_limit records=0 offsets= cursor=c\n",
        );
        check(
            &Event::End {
                reason: EndReason::Limit,
                lines: 2,
                withheld: Withheld { repeats: 1, ..Withheld::default() },
                start: Some("s"),
                cursor: "c",
            },
            "{\"event\":\"end\",\"reason\":\"limit\",\"lines\":2,\"withheld\":{\"repeats\":1,\"unreadable\":0,\"foreign\":0},\"start\":\"s\",\"cursor\":\"c\"}\n",
            "# end reason=limit lines=2 cursor=c\n",
        );
    }

    #[test]
    fn the_word_is_the_same_everywhere() {
        for reason in [
            EndReason::Complete,
            EndReason::Limit,
            EndReason::ScanLimit,
            EndReason::Expired,
            EndReason::Denied,
            EndReason::Shutdown,
            EndReason::TopicChanged,
            EndReason::Excluded,
            EndReason::Unavailable,
        ] {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.as_str()));
        }
    }
}
