//! An audit in words and columns, for people.

use std::fmt::Write as _;

use super::{
    explain::What,
    report::{
        HoleReport, Report, RowReport, SourceReport, SpotReport, StrangersReport, Summary, ToldReport, TopicReport,
    },
    source::Wrong,
};
use crate::columns::{Columns, counted, thousands};

/// With more sources than this, only those with something to say are listed, unless all are asked for.
const SOURCES_LISTED_MAX: usize = 200;

/// The whole report; the last line is the summary.
pub fn report(report: &Report, all: bool) -> String {
    let mut text = String::new();
    for topic in &report.topics {
        text += &topic_text(topic, all);
        text.push('\n');
    }
    text + &summary(&report.summary, report.topics.len() as u64)
}

/// The run of one container.
pub fn explanation(container: &str, rows: &[RowReport], topics: &[TopicReport], is_cut: bool) -> String {
    let mut text = format!("container {container}\n\n");
    let mut table = Columns::new(&["SENT", "PARTITION", "OFFSETS", "RUN", "NUMBERS", "RECORDS", "WHAT"]);
    for row in rows {
        let (first, last) = (&row.first, &row.last);
        let mut what = match &row.what {
            What::Lines => "lines".to_owned(),
            What::LinesMarked => "lines, marked as possible repeats, that did not come before".to_owned(),
            What::Repeat => "repeated".to_owned(),
            What::RepeatUnmarked => "repeated without a mark".to_owned(),
            What::Pieces => "pieces of a long line".to_owned(),
            What::Notice(said) => said.clone(),
        };
        if row.left_out > 0 {
            what += &format!(", {} left out", thousands(row.left_out));
        }
        table.row([
            first.sent.clone(),
            first.partition.to_string(),
            span(first.offset.unsigned_abs(), last.offset.unsigned_abs().saturating_add(1)),
            row.source.strip_prefix(container).unwrap_or(&row.source).trim_start_matches('/').to_owned(),
            span(row.from, row.to),
            row.records.to_string(),
            what,
        ]);
    }
    text += &table.text();
    if is_cut {
        text += "… more came; only the first rows are kept\n";
    }
    text.push('\n');
    let prefix = format!("{container}/");
    for topic in topics {
        let sources: Vec<&SourceReport> =
            topic.sources.iter().filter(|source| source.source.starts_with(&prefix)).collect();
        if !sources.is_empty() {
            text += &sources_text(&sources);
        }
    }
    text
}

/// One line that says what was read and whether it is well.
pub fn summary(summary: &Summary, topics: u64) -> String {
    let Summary { complete, open, head, hole, .. } = summary;
    let sources = complete + open + head + hole;
    let mut text = format!(
        "{}, {}, {}: {complete} complete, {open} open, {head} head, {hole} hole; {} covered, {} left out, {} announced as lost{}; {}{}; ",
        counted(topics, "topic"),
        counted(summary.records, "record"),
        counted(sources, "source"),
        counted(summary.lines, "line"),
        thousands(summary.left_out),
        thousands(summary.announced),
        if summary.announced_unknown > 0 {
            format!(" and {} of unknown size", counted(summary.announced_unknown, "gap"))
        } else {
            String::new()
        },
        counted(summary.repeats, "repeat"),
        if summary.not_compared > 0 {
            format!(" ({} not compared)", thousands(summary.not_compared))
        } else {
            String::new()
        },
    );
    text += &if summary.is_wrong() {
        format!("WRONG: {} missing, {}", counted(summary.missing, "line"), counted(summary.faults, "fault"))
    } else {
        "nothing is wrong".to_owned()
    };
    text.push('\n');
    text
}

fn topic_text(topic: &TopicReport, all: bool) -> String {
    let records = counted(topic.summary.records, "record");
    let mut text =
        format!("topic {}: {}, {records}\n", topic.topic, counted(topic.partitions.len() as u64, "partition"));
    let short = !all && topic.sources.len() > SOURCES_LISTED_MAX;
    let listed: Vec<&SourceReport> = topic.sources.iter().filter(|source| !short || source.is_remarkable()).collect();
    text += &sources_text(&listed);
    if short {
        let rest = (topic.sources.len() - listed.len()) as u64;
        let _ = writeln!(text, "{} more, of which nothing is to be said; --all lists them", counted(rest, "source"));
    }
    for (strangers, what) in [
        (&topic.no_records, "is no record"),
        (&topic.foreign, "is a record of a namespace that does not belong here"),
        (&topic.other_key, "has a key that is not that of its container"),
    ] {
        text += &strangers_text(strangers, what);
    }
    text
}

fn sources_text(sources: &[&SourceReport]) -> String {
    let mut table = Columns::new(&["POD", "SOURCE", "VERDICT", "LINES", "LEFT OUT", "ANNOUNCED", "REPEATS", "MISSING"]);
    for source in sources {
        let unknown = if source.announced_unknown > 0 { "+" } else { "" };
        table.row([
            format!("{}/{}", source.namespace, source.pod),
            source.source.clone(),
            source.verdict.as_str().to_owned(),
            thousands(source.lines),
            thousands(source.left_out),
            thousands(source.announced) + unknown,
            thousands(source.repeats),
            thousands(source.missing),
        ]);
    }
    let mut text = table.text();
    for source in sources {
        text += &details(source);
    }
    text
}

/// What there is to say of a source beside its row; a line each.
fn details(source: &SourceReport) -> String {
    let mut text = String::new();
    let mut say = |word: &str, said: String| {
        let _ = writeln!(text, "{word:<5} {}: {said}", source.source);
    };
    for told in &source.notices {
        say("said", said(told));
    }
    if let Some(head) = &source.head {
        let why = if source.came_from_elsewhere {
            "in the topic that the namespace had before"
        } else {
            "before the beginning of the topic's log"
        };
        say("head", format!("{} {why}{}", missing(head), beside(head)));
    }
    for hole in &source.holes {
        let hint = if hole.from == 0 && hole.before.is_none() {
            "; the topic's log begins at offset 0: if the topic was made anew, --made-anew says so"
        } else {
            ""
        };
        say("HOLE", format!("{} missing{}{hint}", missing(hole), beside(hole)));
    }
    let more = source.hole_count - source.holes.len() as u64;
    if more > 0 {
        say("HOLE", format!("{} more", counted(more, "hole")));
    }
    if source.in_pieces > 0 {
        say("HOLE", format!("of {} only some chunks came", counted(source.in_pieces, "line")));
    }
    for fault in &source.faults {
        let numbers = span(fault.from, fault.to);
        let what = match fault.wrong {
            Wrong::OtherContent => "came before with another text or time",
            Wrong::UnmarkedRepeat => "came before, and this is not marked as a repeat",
            Wrong::OtherPartition => "lies in another partition than what came before",
        };
        say("FAULT", format!("{numbers} {what}: {}", place(&fault.at)));
    }
    text
}

fn said(told: &ToldReport) -> String {
    let mut text = format!("{} at number {}", told.kind.as_str(), told.seq);
    match told.lines {
        Some(lines) => text += &format!(", {}", counted(lines, "line")),
        None if told.kind.announces_lines() => text += ", nobody knows how many lines",
        None => {}
    }
    if let Some(reason) = told.reason {
        text += &format!(", {}", reason.as_str());
    }
    if let Some(next) = &told.next_source {
        text += &format!(", goes on as {next}");
    }
    format!("{text}: {}", place(&told.at))
}

fn missing(hole: &HoleReport) -> String {
    format!("{} ({})", span(hole.from, hole.to), counted(hole.to - hole.from, "line"))
}

fn beside(hole: &HoleReport) -> String {
    let mut text = String::new();
    if let Some(before) = &hole.before {
        text += &format!(", after {}", place(before));
    }
    if let Some(after) = &hole.after {
        text += &format!(", before {}", place(after));
    }
    text
}

fn place(spot: &SpotReport) -> String {
    let SpotReport { partition, offset, time, .. } = spot;
    format!("partition {partition} offset {offset} ({time})")
}

/// `3-5` for 3, 4 and 5; the second number is the one after.
fn span(from: u64, to: u64) -> String {
    if to <= from + 1 { from.to_string() } else { format!("{from}-{}", to - 1) }
}

fn strangers_text(strangers: &StrangersReport, what: &str) -> String {
    let mut text = String::new();
    for place in &strangers.places {
        let _ = writeln!(text, "FAULT partition {} offset {} {what}", place.partition, place.offset);
    }
    let more = strangers.count - strangers.places.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "FAULT {} more like this", thousands(more));
    }
    text
}
