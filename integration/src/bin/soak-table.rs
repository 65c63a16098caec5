//! Writes the table of the soak run's rows into `docs/reliability.md`, and fails where a row does not prove what it should.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use anyhow::{Context, Result, ensure};
use fairlead_integration::folders::repository;
use fairlead_integration::soak::{Row, insert, rows, rows_folder, table};

fn main() -> Result<()> {
    let rows = rows(&rows_folder(true)?)?;
    ensure!(!rows.is_empty(), "no case has left a row");
    let made = table(&rows);
    let document = repository().join("docs/reliability.md");
    let text = std::fs::read_to_string(&document).with_context(|| format!("read {}", document.display()))?;
    std::fs::write(&document, insert(&text, &made)?).with_context(|| format!("write {}", document.display()))?;
    println!("{made}");
    let fault = |row: &Row| Some(format!("{}: {}", row.case, row.fault()?));
    let faults: Vec<String> = rows.iter().filter_map(fault).collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
