//! What the scenarios of `make soak` report: one row each, and the table that `docs/reliability.md` shows of them.
//!
//! A scenario begins a [`Case`], runs in its short form or, with `FAIRLEAD_SOAK` set, in its long one, and finishes the
//! case with what was counted. That writes the row under `target/soak` and fails where lines are unexplained or the
//! router had more memory than it may. The program `soak-table` makes the table of the rows of the long forms.

mod judge;
mod memory;
mod table;
mod witness;

pub use judge::figures;
pub use memory::{memory_bound, peak_memory};
pub use table::{BEGIN, END, insert, table};
pub use witness::{Witness, judge};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::folders;
use crate::process::Program;

/// Is the long form wanted?
pub fn long() -> bool {
    std::env::var_os("FAIRLEAD_SOAK").is_some_and(|value| !value.is_empty())
}

/// `short` in the tests, `long` under `make soak`.
pub fn pick<T>(short: T, long: T) -> T {
    if self::long() { long } else { short }
}

/// What was counted in a case. Lines are lines of text as the applications wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Lines that the containers wrote.
    pub written: u64,
    /// Of these, those that are in the topics, each counted once.
    pub delivered: u64,
    /// Lines that notices announce as lost, or as not readable.
    pub announced: u64,
    /// Records that repeat an earlier one.
    pub repeated: u64,
    /// Lines neither delivered nor announced, and everything else that must not be.
    pub unexplained: u64,
}

impl Figures {
    /// Both together.
    #[must_use]
    pub fn and(&self, other: &Figures) -> Figures {
        Figures {
            written: self.written + other.written,
            delivered: self.delivered + other.delivered,
            announced: self.announced + other.announced,
            repeated: self.repeated + other.repeated,
            unexplained: self.unexplained + other.unexplained,
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What happened, in words.
    pub case: String,
    /// What was counted; none while the case runs, and after it failed before counting.
    pub figures: Option<Figures>,
    /// The most memory that a router of this case had at any time, in bytes.
    pub peak_memory: u64,
    /// The most that it may have had.
    pub memory_bound: u64,
}

impl Row {
    /// What is wrong with it; `None` if it proves what it should.
    pub fn fault(&self) -> Option<String> {
        let Some(figures) = &self.figures else { return Some("failed before anything was counted".to_owned()) };
        if figures.unexplained > 0 {
            return Some(format!("{} lines unexplained", figures.unexplained));
        }
        (self.peak_memory > self.memory_bound)
            .then(|| format!("{} bytes of memory, {} are allowed", self.peak_memory, self.memory_bound))
    }
}

/// A case that runs. Rows are sorted by its key.
#[derive(Debug)]
pub struct Case {
    file: PathBuf,
    row: Row,
}

impl Case {
    /// Begins a case: from now on there is a row, which is a fault until the case is finished.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub fn begin(key: &str, case: &str) -> Result<Case> {
        let folder = rows_folder(long())?;
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let row = Row { case: case.to_owned(), figures: None, peak_memory: 0, memory_bound: 0 };
        let case = Case { file: folder.join(format!("{key}.json")), row };
        case.write()?;
        Ok(case)
    }

    /// Ends a case with what was counted and with the router that ran in it.
    ///
    /// # Errors
    /// When the row cannot be written, or has a fault: unexplained lines, or too much memory.
    pub fn finish(mut self, figures: Figures, router: &Program) -> Result<()> {
        self.row.figures = Some(figures);
        self.row.peak_memory = router.peak_memory();
        self.row.memory_bound = memory_bound(&std::fs::read_to_string(router.config()).context("the router's file")?);
        self.write()?;
        let fault = self.row.fault();
        ensure!(fault.is_none(), "{}: {}", self.row.case, fault.unwrap_or_default());
        Ok(())
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.row).context("a row")?;
        std::fs::write(&self.file, text).with_context(|| format!("write {}", self.file.display()))
    }
}

/// Where the rows of the long or of the short forms are.
///
/// # Errors
/// When the target folder is not known.
pub fn rows_folder(long: bool) -> Result<PathBuf> {
    let target = folders::binaries()?;
    Ok(target.parent().context("the target folder")?.join("soak").join(if long { "long" } else { "short" }))
}

/// All rows of a folder, by key.
///
/// # Errors
/// When the folder is not there or a row cannot be read.
pub fn rows(folder: &Path) -> Result<Vec<Row>> {
    let listed = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("a row in {}", file.display()))
    };
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_fault_until_it_proves_something() {
        let counted = |unexplained| Some(Figures { written: 9, delivered: 9, unexplained, ..Figures::default() });
        let row = |figures, peak_memory| Row { case: "c".to_owned(), figures, peak_memory, memory_bound: 100 };
        let check = |row: Row, expected: Option<&str>| match (row.fault(), expected) {
            (None, None) => {}
            (Some(fault), Some(part)) => assert!(fault.contains(part), "{fault}"),
            (fault, _) => panic!("{fault:?}, not {expected:?}"),
        };
        check(row(counted(0), 100), None);
        check(row(counted(0), 101), Some("memory"));
        check(row(counted(1), 1), Some("1 lines unexplained"));
        check(row(None, 1), Some("before anything"));
    }
}
