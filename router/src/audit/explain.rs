//! The run of one container: what came, in the order in which it lies in the topic. Numbers and places only, never a line.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::{
    source::{SourceState, Spot, Taken},
    topic::Event,
};

/// Rows that are kept at most.
const ROWS_MAX: usize = 100_000;
/// Containers that are named when a text means several.
const CONTAINERS_MAX: usize = 10;

/// What a row tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Lines that came for the first time.
    Lines,
    /// Lines that came for the first time, marked as possible repeats.
    LinesMarked,
    /// Lines that came before, marked.
    Repeat,
    /// Lines that came before, not marked.
    RepeatUnmarked,
    /// Pieces of a long line.
    Pieces,
    /// A notice, in words.
    Notice(String),
}

/// Something that came, and where: records in a row with numbers that follow each other are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which source.
    pub source: String,
    /// What.
    pub what: What,
    /// The first number, and the one after the last.
    pub numbers: (u64, u64),
    /// Lines that policy left out among them.
    pub left_out: u64,
    /// Records.
    pub records: u64,
    /// The first and the last record.
    pub spots: (Spot, Spot),
}

/// Gathers the rows of the sources whose name begins with a text.
#[derive(Debug)]
pub struct Explanation {
    wanted: String,
    containers: BTreeSet<String>,
    rows: Vec<Row>,
    /// The row of a source that may go on.
    open: HashMap<u32, usize>,
    /// Whether rows are missing at the end.
    pub is_cut: bool,
}

impl Explanation {
    /// Begins. `wanted`: a source, or what it begins with.
    pub fn new(wanted: &str) -> Self {
        let (containers, rows, open) = Default::default();
        Self { wanted: wanted.to_owned(), containers, rows, open, is_cut: false }
    }

    /// Takes what a record was.
    pub fn take(&mut self, state: &SourceState, spot: Spot, event: Event<'_>) {
        if !state.name.starts_with(&self.wanted) {
            return;
        }
        if self.containers.len() < CONTAINERS_MAX {
            let parts: Vec<&str> = state.name.splitn(3, '/').collect();
            self.containers.insert(parts[..parts.len().min(2)].join("/"));
        }
        let (what, numbers, left_out) = match event {
            Event::Notice(told, taken) => {
                let mut text = told.kind.as_str().to_owned();
                match told.lines {
                    Some(lines) => text += &format!(", {lines} lines"),
                    None if told.is_of_unknown_size() => text += ", nobody knows how many lines",
                    None => {}
                }
                if let Some(reason) = told.reason {
                    text += &format!(", {}", reason.as_str());
                }
                if let Some(next) = &told.next_source {
                    text += &format!(", goes on as {next}");
                }
                if taken == Taken::Repeat {
                    text += " (again)";
                }
                let lines = told.lines.filter(|_| told.kind.announces_lines()).unwrap_or(0);
                (What::Notice(text), (told.seq, told.seq.saturating_add(lines)), 0)
            }
            Event::Lines(numbers, taken) => {
                let what = match (taken, numbers.again, numbers.chunk) {
                    (Taken::Repeat, true, _) => What::Repeat,
                    (Taken::Repeat, false, _) => What::RepeatUnmarked,
                    (Taken::New, _, Some(chunk)) if !chunk.last => What::Pieces,
                    (Taken::New, true, _) => What::LinesMarked,
                    (Taken::New, false, _) => What::Lines,
                };
                (what, (numbers.seq - numbers.left_out, numbers.seq.saturating_add(numbers.lines)), numbers.left_out)
            }
        };
        self.put(state, what, numbers, left_out, spot);
    }

    fn put(&mut self, state: &SourceState, what: What, numbers: (u64, u64), left_out: u64, spot: Spot) {
        if let Some(row) = self.open.get(&state.id).and_then(|place| self.rows.get_mut(*place))
            && row.what == what
            && row.spots.1.partition == spot.partition
            && (row.numbers.1 == numbers.0 || what == What::Pieces && row.numbers.0 == numbers.0)
            && !matches!(what, What::Notice(_))
        {
            row.numbers.1 = row.numbers.1.max(numbers.1);
            row.left_out += left_out;
            row.records += 1;
            row.spots.1 = spot;
            return;
        }
        if self.rows.len() >= ROWS_MAX {
            self.is_cut = true;
            return;
        }
        self.open.insert(state.id, self.rows.len());
        let source = state.name.clone();
        self.rows.push(Row { source, what, numbers, left_out, records: 1, spots: (spot, spot) });
    }

    /// The containers that the text means.
    pub fn containers(&self) -> &BTreeSet<String> {
        &self.containers
    }

    /// The rows in the order of their first records.
    pub fn rows(mut self) -> Vec<Row> {
        self.rows.sort_by_key(|row| (row.spots.0.sent_ms, row.spots.0.partition, row.spots.0.offset));
        self.rows
    }
}
