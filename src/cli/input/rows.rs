//! Tables and lists as text: separators, header, rows.

use super::value::clean;
use super::{Record, RecordPlace, RecordSink};
use crate::cli::views::counted;

/// Separators that spreadsheets write, the first one preferred.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// Passes each row with a value to `take`. Columns without a name, rows without a value and values after the last
/// column are dropped if they are empty.
pub(super) fn records(
    text: &str,
    columns: &[&str],
    key: &str,
    notes: &mut Vec<String>,
    take: &mut RecordSink<'_>,
) {
    let (separator, start) = separator(text, columns);
    let Ok(delimiter) = u8::try_from(separator) else {
        let problem =
            format!("has the separator {separator:?}; want a comma, a semicolon or a tab");
        take(RecordPlace::Line(1), Err(problem));
        return;
    };
    if let Some(line) = unclosed_quote(text, start, separator) {
        let problem = "has a quotation mark that is not closed; a value with a quotation mark in it needs two of them, \
                       and quotation marks around it";
        take(RecordPlace::Line(line), Err(problem.to_owned()));
        return;
    }
    let mut lines = RecordLines::new(text, start);
    let mut reader = csv::ReaderBuilder::new()
        // Counted here, so that an invalid line is reported and the next ones are checked.
        .flexible(true)
        .has_headers(false)
        .delimiter(delimiter)
        .from_reader(text.get(start..).unwrap_or_default().as_bytes());
    let mut header: Option<Vec<Option<usize>>> = None;
    let mut dropped = 0_i64;
    let mut row = csv::StringRecord::new();
    // The text is in memory and is UTF-8: reading cannot fail.
    while reader.read_record(&mut row).is_ok_and(|has_row| has_row) {
        if row.iter().all(|cell| clean(cell).is_empty()) {
            dropped += 1;
            continue;
        }
        let place = RecordPlace::Line(lines.of(&row));
        let Some(header) = &header else {
            match header_of(&row, columns, key, separator) {
                Ok(found) => header = Some(found),
                Err(problem) => {
                    take(place, Err(problem));
                    return;
                }
            }
            continue;
        };
        if !take(place, record(header, &row, columns)) {
            break;
        }
    }
    if separator != ',' {
        notes.push(format!("read with {} as the separator", separator_name(separator)));
    }
    if dropped > 0 {
        notes.push(format!("{} without a value skipped", counted(dropped, "line")));
    }
}

fn separator_name(separator: char) -> String {
    match separator {
        ',' => "a comma".to_owned(),
        '\t' => "a tab".to_owned(),
        ';' => "a semicolon".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The line of a quotation mark that opens a value and is not closed.
fn unclosed_quote(text: &str, start: usize, separator: char) -> Option<u64> {
    let mut line = 1 + text.get(..start).unwrap_or_default().matches('\n').count() as u64;
    let mut opened = None;
    let mut is_value_start = true;
    for c in text.get(start..).unwrap_or_default().chars() {
        // Two marks in a value close it and open it again.
        opened = match (c, opened) {
            ('"', Some(_)) => None,
            ('"', None) if is_value_start => Some(line),
            (_, opened) => opened,
        };
        is_value_start = opened.is_none() && (c == separator || c == '\n' || c == '"');
        line += u64::from(c == '\n');
    }
    opened
}

/// Passes the values of a list, one or more per line, to `take`, each as a record with the key only.
pub(super) fn list(text: &str, columns: &[&str], key: &str, take: &mut RecordSink<'_>) {
    for (number, line) in (1..).zip(text.lines()) {
        for value in line.split(SEPARATORS) {
            let value = clean(value.trim().trim_matches('"'));
            let record = || {
                columns.iter().map(|column| match *column == key {
                    true => value.clone().into_owned(),
                    false => String::new(),
                })
            };
            if !value.is_empty() && !take(RecordPlace::Line(number), Ok(record().collect())) {
                return;
            }
        }
    }
}

/// Whether the first row with a value names `key`.
pub(super) fn has_header(text: &str, columns: &[&str], key: &str) -> bool {
    let (separator, start) = separator(text, columns);
    let first = first_line(text.get(start..).unwrap_or_default());
    first.split(separator).any(|cell| column_name(cell) == key)
}

/// The separator, and where the table starts: behind a line `sep=;` or at the beginning.
fn separator(text: &str, columns: &[&str]) -> (char, usize) {
    let first = text.lines().next().unwrap_or_default();
    let declared = first.trim_start_matches('"');
    if declared.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sep="))
        && let Some(separator) = declared.chars().nth(4)
    {
        let start = text.find('\n').map_or(text.len(), |end| end + 1);
        return (separator, start);
    }
    let header = first_line(text);
    // The separator that gives the most known names; without known names, the one that gives the most names.
    let names = |separator: char| {
        let cells = header.split(separator).map(column_name);
        let known = cells.filter(|cell| columns.contains(&cell.as_str())).count();
        (known, header.matches(separator).count())
    };
    // Of equal ones the first.
    let best = SEPARATORS.iter().rev().max_by_key(|separator| names(**separator));
    (best.copied().unwrap_or(SEPARATORS[0]), 0)
}

/// The first line that contains more than separators.
fn first_line(text: &str) -> &str {
    let is_blank = |c: char| SEPARATORS.contains(&c) || c.is_whitespace() || c == '\u{feff}';
    text.lines().find(|line| !line.chars().all(is_blank)).unwrap_or_default()
}

/// A column as the header may write it: in any case, with spaces.
pub(super) fn column_name(cell: &str) -> String {
    let cell = cell.trim().trim_matches('"');
    clean(cell).to_lowercase().replace([' ', '-'], "_")
}

/// For each cell of the header the column that it names; `None` for an empty one.
fn header_of(
    row: &csv::StringRecord,
    columns: &[&str],
    key: &str,
    separator: char,
) -> Result<Vec<Option<usize>>, String> {
    let mut found = Vec::with_capacity(row.len());
    let mut unknown = Vec::new();
    for cell in row {
        let name = column_name(cell);
        let at = columns.iter().position(|column| **column == name);
        match at {
            None if name.is_empty() => {}
            None => unknown.push(format!("{:?}", cell.trim())),
            Some(_) if found.contains(&at) => {
                return Err(format!("names the column {name} twice"));
            }
            Some(_) => {}
        }
        found.push(at);
    }
    let others: Vec<_> = columns.iter().copied().filter(|column| *column != key).collect();
    let wanted = || {
        format!("want a first line with {key}, which is required, and any of {}", others.join(", "))
    };
    if !unknown.is_empty() {
        let (is, column) = match unknown.len() {
            1 => ("is", "column"),
            _ => ("are", "columns"),
        };
        return Err(format!(
            "{} {is} no {column} (separated by {}); {}",
            unknown.join(", "),
            separator_name(separator),
            wanted()
        ));
    }
    let has_key = found.iter().flatten().any(|at| columns.get(*at) == Some(&key));
    has_key.then_some(found).ok_or_else(|| format!("has no column {key}; {}", wanted()))
}

fn record(
    header: &[Option<usize>],
    row: &csv::StringRecord,
    columns: &[&str],
) -> Result<Record, String> {
    let named = header.iter().rposition(Option::is_some).map_or(0, |at| at + 1);
    if row.len() < named {
        let (has, want) = (row.len(), named);
        let has = counted(has as i64, "field");
        return Err(format!("has {has}; want {want}, as the first line has"));
    }
    let mut record = vec![String::new(); columns.len()];
    for (number, cell) in row.iter().enumerate() {
        match header.get(number).copied().flatten() {
            Some(at) => {
                if let Some(value) = record.get_mut(at) {
                    cell.clone_into(value);
                }
            }
            None if clean(cell).is_empty() => {}
            None => {
                let (cell, number) = (cell.trim(), number + 1);
                return Err(format!(
                    "has {cell:?} in field {number}, for which the first line has no name; a value with the \
                     separator in it needs quotes"
                ));
            }
        }
    }
    Ok(record)
}

/// Finds the line on which a record begins. The reader's own count stops before blank lines.
struct RecordLines<'a> {
    bytes: &'a [u8],
    /// Where the table starts.
    start: usize,
    at: usize,
    line: u64,
}

impl<'a> RecordLines<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        Self { bytes: text.as_bytes(), start, at: 0, line: 1 }
    }

    /// Of records in their order.
    fn of(&mut self, record: &csv::StringRecord) -> u64 {
        let start = record.position().map_or(0, csv::Position::byte);
        let start = usize::try_from(start).map_or(usize::MAX, |at| at.saturating_add(self.start));
        while let Some(byte) = self.bytes.get(self.at) {
            let is_end = *byte == b'\n';
            if self.at >= start && !is_end {
                break;
            }
            self.line += u64::from(is_end);
            self.at += 1;
        }
        self.line
    }
}
