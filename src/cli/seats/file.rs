//! Reads a seat file, CSV or JSON lines: all lines are checked, invalid ones are reported with their number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use inventory_proto::inventory::v1::{NewSeat, Price};
use serde_json::Value;

use crate::cli::{CommandError, money};
use crate::control_plane::admin::check::{is_currency, text_problem};
use crate::limits::{
    IMPORT_FILE_BYTES_MAX, IMPORT_PROBLEMS_SHOWN, PRICE_AMOUNT_MAX, SEAT_TEXT_BYTES_MAX,
    SEATS_PER_EVENT_MAX,
};
use inventory_core::ids::SeatId;

/// What a column, or a key, can be called.
const COLUMNS: [&str; 7] =
    ["seat_id", "section", "row", "number", "price", "price_amount", "currency"];

/// The seats of a file, distinct and good.
///
/// # Errors
/// The file cannot be read, or some lines are invalid; these are listed.
pub(super) fn seats(path: &Path) -> Result<Vec<NewSeat>, CommandError> {
    parse(path, open(path)?, IMPORT_FILE_BYTES_MAX)
}

/// Opens a file, or standard input for `-`.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, CommandError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    Ok(Box::new(file))
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> CommandError {
    CommandError::usage(format!("{} cannot be read: {error}", shown(path)))
}

/// What a file is called in messages.
pub(super) fn shown(path: &Path) -> String {
    match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

fn parse(path: &Path, input: impl Read, bytes_max: u64) -> Result<Vec<NewSeat>, CommandError> {
    let mut bytes = Vec::new();
    let read = input.take(bytes_max + 1).read_to_end(&mut bytes);
    if read.map_err(|error| unreadable(path, &error))? as u64 > bytes_max {
        return Err(CommandError::usage(format!(
            "{} has over {bytes_max} bytes; want one event's seats",
            shown(path)
        )));
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let mut found = SeatFileReader {
        seats: Vec::new(),
        lines: HashMap::new(),
        problems: FileProblems::new(path),
    };
    match bytes.trim_ascii_start().first() {
        Some(b'{') => jsonl(bytes, &mut found),
        _ => csv(bytes, &mut found).map_err(|error| unreadable(path, &error))?,
    }
    found.problems.end()?;
    if found.seats.is_empty() {
        let file = shown(path);
        return Err(CommandError::usage(format!("{file} has no seats")));
    }
    Ok(found.seats)
}

/// What some spreadsheets put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Problems of a file, up to a limit.
pub(super) struct FileProblems {
    place: String,
    told: Vec<String>,
    count: usize,
}

impl FileProblems {
    pub(super) fn new(path: &Path) -> Self {
        Self { place: shown(path), told: Vec::new(), count: 0 }
    }

    pub(super) fn add(&mut self, line: u64, problem: impl AsRef<str>) {
        self.count += 1;
        if self.told.len() < IMPORT_PROBLEMS_SHOWN {
            self.told.push(format!("line {line}: {}", problem.as_ref()));
        }
    }

    pub(super) fn end(self) -> Result<(), CommandError> {
        if self.count == 0 {
            return Ok(());
        }
        let mut said = format!("{} is not as it should be; nothing was sent\n  ", self.place);
        said.push_str(&self.told.join("\n  "));
        match self.count - self.told.len() {
            0 => {}
            more => said.push_str(&format!("\n  and {more} more")),
        }
        Err(CommandError::usage(said))
    }
}

/// What has been read so far.
struct SeatFileReader {
    seats: Vec<NewSeat>,
    /// Where each seat was.
    lines: HashMap<String, u64>,
    problems: FileProblems,
}

impl SeatFileReader {
    /// Takes one line; whether to go on.
    fn line(&mut self, line: u64, raw: Result<SeatLine, String>) -> bool {
        let seat = match raw.and_then(SeatLine::check) {
            Ok(seat) => seat,
            Err(problem) => {
                self.problems.add(line, problem);
                return true;
            }
        };
        if let Some(before) = self.lines.insert(seat.seat_id.clone(), line) {
            let id = &seat.seat_id;
            self.problems.add(line, format!("seat_id {id} was on line {before} already"));
        }
        self.seats.push(seat);
        let fits = self.seats.len() <= SEATS_PER_EVENT_MAX;
        if !fits {
            let most = SEATS_PER_EVENT_MAX;
            self.problems.add(line, format!("is seat {}; want at most {most}", most + 1));
        }
        fits
    }
}

/// One line before it is checked. What is missing is empty.
#[derive(Debug, Default)]
struct SeatLine {
    seat_id: String,
    section: String,
    row: String,
    number: String,
    price: String,
    price_amount: String,
    currency: String,
}

impl SeatLine {
    fn field(&mut self, column: &str) -> Option<&mut String> {
        match column {
            "seat_id" => Some(&mut self.seat_id),
            "section" => Some(&mut self.section),
            "row" => Some(&mut self.row),
            "number" => Some(&mut self.number),
            "price" => Some(&mut self.price),
            "price_amount" => Some(&mut self.price_amount),
            "currency" => Some(&mut self.currency),
            _ => None,
        }
    }

    /// All that is wrong with the line, in one text.
    fn check(self) -> Result<NewSeat, String> {
        let mut wrong = Vec::new();
        if let Err(error) = self.seat_id.parse::<SeatId>() {
            wrong.push(format!("seat_id {error}"));
        }
        for (name, text) in
            [("section", &self.section), ("row", &self.row), ("number", &self.number)]
        {
            if let Some(problem) = text_problem(text, SEAT_TEXT_BYTES_MAX) {
                wrong.push(format!("{name} {problem}"));
            }
        }
        let price = self.price().unwrap_or_else(|problem| {
            wrong.push(problem);
            None
        });
        match wrong.is_empty() {
            true => Ok(NewSeat {
                seat_id: self.seat_id,
                section: self.section,
                row: self.row,
                number: self.number,
                price,
            }),
            false => Err(wrong.join("; ")),
        }
    }

    fn price(&self) -> Result<Option<Price>, String> {
        let currency = self.currency.clone();
        let amount = match (self.price.as_str(), self.price_amount.as_str()) {
            ("", "") => return Ok(None),
            (_, _) if !is_currency(&currency) => {
                return Err(format!(
                    "currency is {currency:?}; want three capital letters, as in KRW"
                ));
            }
            (price, "") => {
                let amount = money::smallest_unit(price, &currency);
                amount.map_err(|problem| format!("price {problem}"))?
            }
            ("", amount) => {
                let digits = amount.bytes().all(|b| b.is_ascii_digit());
                let parsed = amount.parse().ok().filter(|n| digits && *n <= PRICE_AMOUNT_MAX);
                parsed.ok_or_else(|| {
                    format!("price_amount is {amount:?}; want 0 to {PRICE_AMOUNT_MAX}")
                })?
            }
            (_, _) => return Err("has both price and price_amount; want one of them".to_owned()),
        };
        Ok(Some(Price { amount, currency }))
    }
}

// ---- CSV ----------------------------------------------------------------------------------------

fn csv(bytes: &[u8], found: &mut SeatFileReader) -> io::Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        // Counted here, so that an invalid line is reported and the next ones are checked.
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut lines = RecordLines { bytes, at: 0, line: 1 };
    let head = reader.byte_headers().map_err(io::Error::from)?;
    let columns = match columns(head) {
        Ok(columns) => columns,
        Err(problem) => {
            found.problems.add(lines.of(head), problem);
            return Ok(());
        }
    };
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(io::Error::from)? {
        if !found.line(lines.of(&record), csv_line(&columns, &record)) {
            break;
        }
    }
    Ok(())
}

/// Finds the line on which a record begins. The reader's own count stops before blank lines and
/// between the two characters of a Windows line end.
struct RecordLines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl RecordLines<'_> {
    /// Of records in their order.
    fn of(&mut self, record: &csv::ByteRecord) -> u64 {
        let start = record.position().map_or(0, csv::Position::byte);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.at) {
            let is_end = matches!(byte, b'\r' | b'\n');
            if self.at >= start && !is_end {
                break;
            }
            let is_half = *byte == b'\r' && self.bytes.get(self.at + 1) == Some(&b'\n');
            self.line += u64::from(is_end && !is_half);
            self.at += 1;
        }
        self.line
    }
}

fn known() -> String {
    COLUMNS.join(", ")
}

/// The columns that the first line names.
fn columns(head: &csv::ByteRecord) -> Result<Vec<&'static str>, String> {
    let mut columns: Vec<&'static str> = Vec::with_capacity(head.len());
    for name in head {
        let name = String::from_utf8_lossy(name);
        let Some(column) = COLUMNS.iter().find(|column| **column == name) else {
            return Err(format!(
                "{name:?} is no column; want a first line that names some of {}",
                known()
            ));
        };
        if columns.contains(column) {
            return Err(format!("names the column {column} twice"));
        }
        columns.push(column);
    }
    match columns.contains(&"seat_id") {
        true => Ok(columns),
        false => Err(format!(
            "has no column seat_id; want a first line that names it, and some of {}",
            known()
        )),
    }
}

fn csv_line(columns: &[&'static str], record: &csv::ByteRecord) -> Result<SeatLine, String> {
    if record.len() != columns.len() {
        return Err(format!(
            "has {} fields; want {}, as the first line has",
            record.len(),
            columns.len()
        ));
    }
    let mut raw = SeatLine::default();
    for (column, bytes) in columns.iter().zip(record) {
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| format!("{column} is not UTF-8"))?;
        if let Some(field) = raw.field(column) {
            text.clone_into(field);
        }
    }
    Ok(raw)
}

// ---- JSON lines ---------------------------------------------------------------------------------

fn jsonl(bytes: &[u8], found: &mut SeatFileReader) {
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if !line.is_empty() && !found.line(number, json_line(line)) {
            break;
        }
    }
}

fn json_line(text: &[u8]) -> Result<SeatLine, String> {
    let object = match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("is no JSON object".to_owned()),
        Err(error) => return Err(format!("is no JSON: {error}")),
    };
    let mut raw = SeatLine::default();
    for (key, value) in object {
        let Some(field) = raw.field(&key) else {
            return Err(format!("{key:?} is no key; want some of {}", known()));
        };
        *field = match value {
            Value::String(text) => text.trim().to_owned(),
            // As it was written, but for zeros at the end: 45.50 is 45.5.
            Value::Number(number) => number.to_string(),
            Value::Null => String::new(),
            _ => return Err(format!("{key} is no text and no number")),
        };
    }
    Ok(raw)
}

#[cfg(test)]
mod tests;
