//! Tables in columns of display widths: a Korean syllable takes two places of a terminal, not one.

use std::fmt;

use unicode_width::UnicodeWidthStr as _;

use crate::text;

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells. `Display` renders each column as wide as its widest cell, without spaces at the ends of lines and
/// without a final line end.
#[derive(Clone, Debug)]
pub(crate) struct TextTable {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
    separator: &'static str,
}

impl TextTable {
    /// A table without rows; two spaces separate its columns.
    pub(crate) fn new(columns: &[Align]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), separator: "  " }
    }

    pub(crate) fn separated_by(self, separator: &'static str) -> Self {
        Self { separator, ..self }
    }

    /// Adds a row. Control characters are escaped, also line ends.
    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        let cells = cells.into_iter().map(|cell| text::escape(cell.as_ref()).into_owned());
        self.rows.push(cells.collect());
        self
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, (width, align))) in
                row.iter().zip(widths.iter().zip(&self.columns)).enumerate()
            {
                if column > 0 {
                    line.push_str(self.separator);
                }
                let padding = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([&padding, cell.as_str()]),
                }
            }
            let end = if number > 0 { "\n" } else { "" };
            write!(f, "{end}{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_are_displayed() {
        let mut table = TextTable::new(&[Align::Left, Align::Right, Align::Left]);
        table.row(["name", "total", "place"]);
        table.row(["봄 음악회", "1,000", "예술의전당"]);
        table.row(["Ränge", "5", "-"]);
        let expected = "\
name       total  place
봄 음악회  1,000  예술의전당
Ränge          5  -";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn cells_never_control_the_terminal() {
        let mut table = TextTable::new(&[Align::Left, Align::Left]);
        table.row(["a\u{1b}[2Jb", "x"]).row(["two\nlines", "\u{202e}y"]);
        let expected = "a\\u001b[2Jb     x\ntwo\\u000alines  \\u202ey";
        assert_eq!(table.to_string(), expected);
    }
}
