//! Lays out tables for people: columns aligned, numbers to the right.

use std::fmt::Write as _;

/// Rows under a head; columns whose cells are all numbers stand to the right.
#[derive(Debug)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with these column names.
    pub fn new(names: &[&str]) -> Self {
        Self { rows: vec![names.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table's lines, each with its newline; nothing where there is no row.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.rows.len() < 2 {
            return text;
        }
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let is_number = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit() || b",-+".contains(&byte));
        let right: Vec<bool> = (0..widths.len()).map(|column| cells(column).skip(1).all(is_number)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let (width, gap) = (widths[column], if column == 0 { "" } else { "  " });
                // Writing to a text cannot fail.
                let _ = if right[column] {
                    write!(line, "{gap}{cell:>width$}")
                } else {
                    write!(line, "{gap}{cell:<width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number with its thousands apart: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 line`, `2 lines`: a number and what it counts.
pub fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let mut table = Columns::new(&["NAME", "LINES", "WORD"]);
        assert_eq!(table.text(), "");
        table.row(["a".to_owned(), "1".to_owned(), "é".to_owned()]);
        table.row(["longer".to_owned(), "12,345".to_owned(), String::new()]);
        assert_eq!(table.text(), "NAME     LINES  WORD\na            1  é\nlonger  12,345\n");
    }

    #[test]
    fn numbers_read_well() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567"), (100_000, "100,000")];
        for (number, expected) in cases {
            assert_eq!(thousands(number), expected);
        }
        assert_eq!((counted(1, "line"), counted(2_000, "line")), ("1 line".to_owned(), "2,000 lines".to_owned()));
    }
}
