//! Seat files: all records are checked, invalid ones are reported with their place.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use inventory_proto::inventory::v1::{NewSeat, Price};

use crate::cli::input::{FileProblems, InputFile, Record, RecordPlace, clean};
use crate::cli::{CommandError, money};
use crate::control_plane::admin::check::{is_currency, text_problem};
use crate::limits::{
    IMPORT_FILE_BYTES_MAX, PRICE_AMOUNT_MAX, SEAT_TEXT_BYTES_MAX, SEATS_PER_EVENT_MAX,
};
use inventory_core::ids::SeatId;

/// What a column, or a key, can be called.
const COLUMNS: [&str; 7] =
    ["seat_id", "section", "row", "number", "price", "price_amount", "currency"];

/// The column that every table has.
const KEY: &str = "seat_id";

/// The seats of a file, distinct and valid. Notes about the file are reported on standard error.
///
/// # Errors
/// The file cannot be read, or some records are invalid; these are listed.
pub(super) fn seats(path: &Path) -> Result<Vec<NewSeat>, CommandError> {
    let mut file = InputFile::read(path, IMPORT_FILE_BYTES_MAX)?;
    let seats = seats_of(&mut file);
    file.report_notes();
    seats
}

fn seats_of(file: &mut InputFile) -> Result<Vec<NewSeat>, CommandError> {
    let mut reader = SeatReader::default();
    file.records(&COLUMNS, KEY, &mut |place, record| reader.take(place, record));
    reader.cleaned.report(file);
    reader.problems.end(file.place())?;
    if reader.seats.is_empty() {
        return Err(CommandError::usage(format!(
            "{} has no seats; want a first line that names some of {}, and a line for each seat",
            file.place(),
            COLUMNS.join(", ")
        )));
    }
    Ok(reader.seats)
}

/// The seat ids of a list or of a seat file. Notes about the file are reported on standard error.
///
/// # Errors
/// As [`seats`].
pub(super) fn seat_ids(path: &Path) -> Result<Vec<SeatId>, CommandError> {
    let mut file = InputFile::read(path, IMPORT_FILE_BYTES_MAX)?;
    let mut seats = Vec::new();
    let mut problems = FileProblems::default();
    file.list(&COLUMNS, KEY, &mut |place, record| {
        let id = record.and_then(|record| {
            let id = record.first().map(|id| clean(id)).unwrap_or_default();
            id.parse().map_err(|error| format!("the seat {error}"))
        });
        match id {
            Ok(id) => seats.push(id),
            Err(problem) => problems.add(place, problem),
        }
        seats.len() <= SEATS_PER_EVENT_MAX
    });
    file.report_notes();
    problems.end(file.place())?;
    if seats.is_empty() || seats.len() > SEATS_PER_EVENT_MAX {
        return Err(CommandError::usage(format!(
            "{} names {} seats; want 1 to {SEATS_PER_EVENT_MAX}",
            file.place(),
            seats.len()
        )));
    }
    Ok(seats)
}

/// What has been read so far.
#[derive(Default)]
struct SeatReader {
    seats: Vec<NewSeat>,
    /// Where each seat was.
    places: HashMap<String, RecordPlace>,
    /// Where each section, row and number was, and under which id.
    chairs: HashMap<[String; 3], (RecordPlace, String)>,
    /// Sections in lower case, as first written.
    sections: HashMap<String, (RecordPlace, String)>,
    /// Sections that were reported.
    reported: HashSet<String>,
    cleaned: ChangedValues,
    problems: FileProblems,
}

/// Values that were read as something else than what the file has.
#[derive(Default)]
struct ChangedValues {
    count: usize,
    first: Option<(RecordPlace, String, String)>,
}

impl ChangedValues {
    fn add(&mut self, place: RecordPlace, before: &str, after: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (place, before.to_owned(), after.to_owned()));
    }

    fn report(&self, file: &mut InputFile) {
        if let Some((place, before, after)) = &self.first {
            file.note(format!(
                "{} values read without invisible characters or separators, the first one on {place}: \
                 \"{before}\" as {after:?}",
                self.count
            ));
        }
    }
}

impl SeatReader {
    /// Takes one record; whether to go on.
    fn take(&mut self, place: RecordPlace, record: Result<Record, String>) -> bool {
        let line = record.map(|record| self.line(place, &record));
        let seat = match line.and_then(SeatLine::check) {
            Ok(seat) => seat,
            Err(problem) => {
                self.problems.add(place, problem);
                return true;
            }
        };
        self.compare(place, &seat);
        self.seats.push(seat);
        let fits = self.seats.len() <= SEATS_PER_EVENT_MAX;
        if !fits {
            let most = SEATS_PER_EVENT_MAX;
            self.problems.add(place, format!("is seat {}; want at most {most}", most + 1));
        }
        fits
    }

    /// The values of a record as they are meant.
    fn line(&mut self, place: RecordPlace, record: &Record) -> SeatLine {
        let mut value = |column: usize, meaning: fn(&str) -> Option<String>| {
            let written = record.get(column).map_or("", String::as_str);
            let cleaned = clean(written);
            let read = meaning(&cleaned).unwrap_or_else(|| cleaned.into_owned());
            if read != written.trim_matches(|c: char| c.is_ascii_whitespace()) {
                self.cleaned.add(place, written, &read);
            }
            read
        };
        let as_it_is = |_: &str| None;
        SeatLine {
            seat_id: value(0, as_it_is),
            section: value(1, as_it_is),
            row: value(2, as_it_is),
            number: value(3, as_it_is),
            price: value(4, money::without_separators),
            price_amount: value(5, as_it_is),
            currency: value(6, |text| Some(text.to_ascii_uppercase())),
        }
    }

    /// Compares a valid seat with those before it.
    fn compare(&mut self, place: RecordPlace, seat: &NewSeat) {
        let id = &seat.seat_id;
        match self.places.entry(id.clone()) {
            Entry::Occupied(before) => {
                let before = before.get();
                self.problems.add(place, format!("seat_id {id} was on {before} already"));
                return;
            }
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
        }
        let section = &seat.section;
        match self.sections.entry(section.to_lowercase()) {
            Entry::Occupied(before) => {
                let (first, written) = before.get();
                if written != section && self.reported.insert(section.clone()) {
                    self.problems.add(
                        place,
                        format!(
                            "section {section:?} differs only in case from {written:?} on {first}: \
                             write it in one way"
                        ),
                    );
                }
            }
            Entry::Vacant(entry) => {
                entry.insert((place, section.clone()));
            }
        }
        // Without a number, the seats of a row may be alike on purpose.
        if seat.number.is_empty() {
            return;
        }
        let chair = [section, &seat.row, &seat.number].map(String::clone);
        match self.chairs.entry(chair) {
            Entry::Occupied(before) => {
                let (first, other) = before.get();
                self.problems.add(
                    place,
                    format!(
                        "seat {id} has the section, row and number of seat {other} on {first}: remove one of \
                         them, or correct its number"
                    ),
                );
            }
            Entry::Vacant(entry) => {
                entry.insert((place, id.clone()));
            }
        }
    }
}

/// One record before it is checked. What is missing is empty.
#[derive(Debug)]
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
    /// All that is wrong with the record, in one text.
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

#[cfg(test)]
mod tests;
