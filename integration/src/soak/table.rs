//! The rows as a table for people, in a document between two markers.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::Row;

/// The line of a document behind which the table stands.
pub const BEGIN: &str = "<!-- soak table: begin (made by `make soak`) -->";
/// The line before which it ends.
pub const END: &str = "<!-- soak table: end -->";

/// The table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| case | lines written | delivered | announced as lost | repeated | unexplained | peak memory | its bound |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let memory = format!("{} MiB | {} MiB", row.peak_memory.div_ceil(1 << 20), row.memory_bound >> 20);
        let counted = row.figures.as_ref().map_or("| failed | | | ".to_owned(), |figures| {
            let numbers =
                [figures.written, figures.delivered, figures.announced, figures.repeated, figures.unexplained];
            numbers.map(grouped).join(" | ")
        });
        let _ = writeln!(text, "| {} | {counted} | {memory} |", row.case);
    }
    text
}

/// Puts the table between the document's markers, in place of what stands there.
///
/// # Errors
/// When the document has no such markers.
pub fn insert(document: &str, table: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("the document has no line where the table begins")?;
    let (_, after) = rest.split_once(END).context("the document has no line where the table ends")?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::Figures;

    #[test]
    fn stands_between_its_markers() {
        let figures = Figures { written: 1_234_567, delivered: 999, announced: 1_000, repeated: 0, unexplained: 0 };
        let row = Row { case: "kills".to_owned(), figures: Some(figures), peak_memory: 3 << 20, memory_bound: 9 << 20 };
        let failed = Row { case: "never".to_owned(), figures: None, ..row.clone() };
        let table = table(&[row, failed]);
        assert!(table.contains("| kills | 1,234,567 | 999 | 1,000 | 0 | 0 | 3 MiB | 9 MiB |\n"), "{table}");
        let columns: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
        assert!(columns.iter().all(|&count| count == 9), "{table}");
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = insert(&document, &table).unwrap();
        assert_eq!(insert(&once, &table).unwrap(), once);
        assert!(once.starts_with("before\n") && once.ends_with("after\n") && !once.contains("old"), "{once}");
        assert!(insert("no markers", &table).is_err());
    }
}
