//! Seat files: checks all records, and reports invalid ones with their place in the file.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use inventory_proto::inventory::v1::{NewSeat, Price};

use crate::cli::input::{FileProblems, InputFile, Record, RecordPlace, clean};
use crate::cli::views::counted;
use crate::cli::{CommandError, money};
use crate::control_plane::admin::check::text_problem;
use crate::currency::{self, is_currency};
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
    report_currencies(file, &reader.seats);
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

/// Notes sections with prices in several currencies: GetInventoryStatus shows no price range for them.
fn report_currencies(file: &mut InputFile, seats: &[NewSeat]) {
    let mut currencies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for seat in seats {
        if let Some(price) = &seat.price {
            currencies.entry(&seat.section).or_default().insert(&price.currency);
        }
    }
    let mixed: Vec<_> = currencies.into_iter().filter(|(_, of)| of.len() > 1).collect();
    if let Some((section, of)) = mixed.first() {
        let of = of.iter().copied().collect::<Vec<_>>().join(" and ");
        let others = match mixed.len() {
            1 => String::new(),
            count => format!(", and {} more like it", counted(count as i64 - 1, "section")),
        };
        file.note(&format!(
            "section {section:?} has prices in {of}{others}; its price is shown as \"-\" and `seats list` has each"
        ));
    }
}

/// The seat ids of a list or of a seat file. Notes about the file are reported on standard error.
///
/// # Errors
/// As [`seats`].
pub(super) fn seat_ids(path: &Path) -> Result<Vec<SeatId>, CommandError> {
    let mut file = InputFile::read(path, IMPORT_FILE_BYTES_MAX)?;
    let seats = seat_ids_of(&mut file);
    file.report_notes();
    seats
}

fn seat_ids_of(file: &mut InputFile) -> Result<Vec<SeatId>, CommandError> {
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

/// Counts of values that were converted while reading, by kind of conversion.
#[derive(Default)]
struct ChangedValues {
    /// Invisible characters were dropped.
    invisible: ChangedValue,
    /// Separators in prices were read.
    separators: ChangedValue,
    /// Currencies were read in capital letters.
    case: ChangedValue,
}

/// Number of values with one kind of conversion, and the first of them.
#[derive(Default)]
struct ChangedValue {
    count: i64,
    first: Option<(RecordPlace, String, String)>,
}

impl ChangedValue {
    fn add(&mut self, place: RecordPlace, before: &str, after: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (place, before.to_owned(), after.to_owned()));
    }
}

impl ChangedValues {
    fn report(&self, file: &mut InputFile) {
        for (changed, name, how) in [
            (&self.invisible, "value", "without invisible characters"),
            (&self.separators, "price", "as numbers without separators"),
            (&self.case, "currency code", "in capital letters"),
        ] {
            let Some((place, before, after)) = &changed.first else {
                continue;
            };
            let count = counted(changed.count, name);
            let first = if changed.count == 1 { "" } else { "the first one " };
            file.note(&format!("{count} read {how}, {first}on {place}: \"{before}\" as {after:?}"));
        }
    }
}

impl SeatReader {
    /// Takes one record; returns whether to continue.
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

    /// The values of a record after conversion.
    fn line(&mut self, place: RecordPlace, record: &Record) -> SeatLine {
        let changed = &mut self.cleaned;
        let mut value = |column: usize| {
            let written = record.get(column).map_or("", String::as_str);
            let cleaned = clean(written);
            if cleaned != written.trim_matches(|c: char| c.is_ascii_whitespace()) {
                changed.invisible.add(place, written, &cleaned);
            }
            cleaned.into_owned()
        };
        let mut line = SeatLine {
            seat_id: value(0),
            section: value(1),
            row: value(2),
            number: value(3),
            price: value(4),
            price_amount: value(5),
            currency: value(6),
        };
        let currency = line.currency.to_ascii_uppercase();
        if currency != line.currency {
            changed.case.add(place, &line.currency, &currency);
            line.currency = currency;
        }
        if let Some(price) = money::without_separators(&line.price, &line.currency) {
            changed.separators.add(place, &line.price, &price);
            line.price = price;
        }
        line
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
                return Err(format!("currency is {currency:?}; want {}", currency::WANTED));
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

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
#[cfg(test)]
mod tests;
