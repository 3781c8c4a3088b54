//! Fuzz target of seat files: any bytes as a file of `seats import` and as one of `seats block`. Compiled for tests, which
//! replay the corpus, and for the programs in `tests/fuzz`.

use std::collections::HashSet;

use inventory_proto::inventory::v1::NewSeat;

use super::{seat_ids_of, seats_of};
use crate::cli::CommandError;
use crate::cli::input::InputFile;
use crate::control_plane::admin::check::new_seats;
use crate::exit::{self, Exit};
use crate::limits::{
    IMPORT_FILE_BYTES_MAX, IMPORT_PROBLEMS_SHOWN, SEATS_PER_CHUNK_MAX, SEATS_PER_EVENT_MAX,
};

/// Name of the file in messages.
const PLACE: &str = "seats.csv";

/// Size of a message about one record: what a terminal shows in a few lines.
const PROBLEM_BYTES_MAX: usize = 2 * 1024;

/// Seats that the command accepts are distinct, the server accepts them too, and a file written from them has the same
/// seats. A rejected file gets a message of limited size that names the file.
pub fn seat_file(input: &[u8]) {
    let mut file = match InputFile::read_from(PLACE.to_owned(), input, IMPORT_FILE_BYTES_MAX) {
        Ok(file) => file,
        Err(error) => return assert_helpful(&error),
    };
    match seats_of(&mut file) {
        Ok(seats) => {
            assert_valid(&seats);
            assert_same(&seats, &csv_of(&seats), "CSV");
            assert_same(&seats, &json_lines_of(&seats), "JSON lines");
        }
        Err(error) => assert_helpful(&error),
    }
    match seat_ids_of(&mut file) {
        Ok(ids) => assert!((1..=SEATS_PER_EVENT_MAX).contains(&ids.len()), "{} ids", ids.len()),
        Err(error) => assert_helpful(&error),
    }
}

fn assert_helpful(error: &CommandError) {
    assert_eq!(error.exit, Exit::Code(exit::USAGE));
    let CommandError { message, .. } = error;
    assert!(message.starts_with(PLACE), "does not name the file: {message}");
    let most = PROBLEM_BYTES_MAX * (1 + IMPORT_PROBLEMS_SHOWN);
    assert!(message.len() <= most, "a message of {} bytes", message.len());
}

fn assert_valid(seats: &[NewSeat]) {
    assert!((1..=SEATS_PER_EVENT_MAX).contains(&seats.len()), "{} seats", seats.len());
    let ids: HashSet<&str> = seats.iter().map(|seat| seat.seat_id.as_str()).collect();
    assert_eq!(ids.len(), seats.len(), "a seat twice");
    for chunk in seats.chunks(SEATS_PER_CHUNK_MAX) {
        let refused = new_seats(chunk.to_vec()).err();
        assert!(refused.is_none(), "the server refuses what the command accepts: {refused:?}");
    }
}

/// The file of these seats has these seats.
fn assert_same(seats: &[NewSeat], written: &[u8], form: &str) {
    let file = InputFile::read_from(PLACE.to_owned(), written, IMPORT_FILE_BYTES_MAX);
    let read = file.and_then(|mut file| seats_of(&mut file));
    let text = String::from_utf8_lossy(written);
    match read {
        Ok(read) => assert_eq!(read, seats, "{form} has other seats:\n{text}"),
        Err(error) => panic!("{form} is not read: {}\n{text}", error.message),
    }
}

fn csv_of(seats: &[NewSeat]) -> Vec<u8> {
    let mut file = csv::Writer::from_writer(Vec::new());
    let mut write = |row: [&str; 6]| assert!(file.write_record(row).is_ok(), "writing to memory");
    write(["seat_id", "section", "row", "number", "price_amount", "currency"]);
    for seat in seats {
        let amount = seat.price.as_ref().map_or_else(String::new, |price| price.amount.to_string());
        let currency = seat.price.as_ref().map_or("", |price| &price.currency);
        write([&seat.seat_id, &seat.section, &seat.row, &seat.number, &amount, currency]);
    }
    file.into_inner().unwrap_or_default()
}

fn json_lines_of(seats: &[NewSeat]) -> Vec<u8> {
    let line = |seat: &NewSeat| {
        let (amount, currency) = match &seat.price {
            Some(price) => (Some(price.amount), Some(&price.currency)),
            None => (None, None),
        };
        let object = serde_json::json!({
            "seat_id": seat.seat_id, "section": seat.section, "row": seat.row,
            "number": seat.number, "price_amount": amount, "currency": currency,
        });
        format!("{object}\n")
    };
    seats.iter().map(line).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_seat_files_is_read_or_refused_with_a_message() {
        inventory_testkit::corpus::replay("seat_file", super::seat_file);
    }
}
