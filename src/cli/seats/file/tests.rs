//! Files of seats, good and bad: what is read of them, and which line is blamed.
#![allow(clippy::unwrap_used)]

use super::*;

fn read(text: impl AsRef<[u8]>) -> Result<Vec<NewSeat>, String> {
    parse(Path::new("seats.csv"), text.as_ref(), IMPORT_FILE_BYTES_MAX).map_err(|failure| {
        assert_eq!(failure.code, crate::cli::exit::USAGE);
        failure.message
    })
}

#[track_caller]
fn assert_reported(text: impl AsRef<[u8]>, wanted: &[&str]) {
    let said = read(text).unwrap_err();
    for wanted in wanted {
        assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
    }
}

fn seat(id: &str, section: &str, row: &str, number: &str, price: Option<(i64, &str)>) -> NewSeat {
    NewSeat {
        seat_id: id.to_owned(),
        section: section.to_owned(),
        row: row.to_owned(),
        number: number.to_owned(),
        price: price.map(|(amount, currency)| Price { amount, currency: currency.to_owned() }),
    }
}

#[test]
fn csv_of_spreadsheets_is_read() {
    let text = "\u{feff}seat_id,section, row ,number,price,currency\r\n\
                A-1,\"Balcony, left\",A,1,45.50,USD\r\n\
                \r\n\
                A-2,Ränge, B ,2,120000,KRW\r\n\
                A-3,,,,,\r\n";
    let expected = [
        seat("A-1", "Balcony, left", "A", "1", Some((4_550, "USD"))),
        seat("A-2", "Ränge", "B", "2", Some((120_000, "KRW"))),
        seat("A-3", "", "", "", None),
    ];
    assert_eq!(read(text).unwrap(), expected);
    // Columns may be fewer and in another order.
    let text = "currency,price_amount,seat_id\nUSD,4550,A-1\n,,A-2";
    let expected = [seat("A-1", "", "", "", Some((4_550, "USD"))), seat("A-2", "", "", "", None)];
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn json_lines_accept_numbers_and_strings() {
    let text = r#"
{"seat_id": "A-1", "section": "Balcony", "row": 1, "number": "7", "price": 45.50, "currency": "USD"}

{"seat_id": "A-2", "price": "45.50", "currency": "USD"}
{"seat_id": "A-3", "price_amount": 4550, "currency": "USD", "section": null}
"#;
    let expected = [
        seat("A-1", "Balcony", "1", "7", Some((4_550, "USD"))),
        seat("A-2", "", "", "", Some((4_550, "USD"))),
        seat("A-3", "", "", "", Some((4_550, "USD"))),
    ];
    assert_eq!(read(text).unwrap(), expected);
    let marked = "\u{feff}{\"seat_id\": \"A-1\"}";
    assert_eq!(read(marked).unwrap(), [seat("A-1", "", "", "", None)]);
}

#[test]
fn all_errors_of_an_invalid_line_are_reported_with_its_number() {
    let text = "seat_id,section,price,currency\n\
                A-1,Balcony,1,KRW\n\
                A 2,Balcony,1,KRW\n\
                \"A-3\",\"two\nlines\",1,KRW\n\
                ,Balcony,x,KRW\n\
                A-5,Balcony,1,won\n\
                A-6,Balcony,1\n\
                A-7,Balcony,1.5,KRW\n";
    assert_reported(
        text,
        &[
            "seats.csv is not as it should be; nothing was sent",
            "line 3: seat_id has ' ' at byte 1",
            "line 4: section has '\\n'; want no control characters",
            // A line break in quotes counts as a line.
            "line 6: seat_id is empty; want 1 to 128 bytes of [A-Za-z0-9._:-]; price is \"x\"",
            "line 7: currency is \"won\"; want three capital letters",
            "line 8: has 3 fields; want 4",
            "line 9: price has 1 decimals; want at most 0 in KRW",
        ],
    );
}

#[test]
fn invalid_json_line_is_reported_with_its_number() {
    let long = format!("{{\"seat_id\": \"A-1\", \"row\": \"{}\"}}", "x".repeat(65));
    let lines = [
        "{\"seat_id\": \"A-0\"}",
        "{\"seat_id\": ",
        "[1]",
        "{\"seat\": \"A-1\"}",
        "{\"seat_id\": [\"A-1\"]}",
        "{\"section\": \"Balcony\"}",
        "{\"seat_id\": \"A-1\", \"price\": 1, \"price_amount\": 1, \"currency\": \"KRW\"}",
        "{\"seat_id\": \"A-1\", \"price_amount\": -1, \"currency\": \"KRW\"}",
        "{\"seat_id\": \"A-1\", \"price_amount\": 1}",
        &long,
    ];
    assert_reported(
        lines.join("\n"),
        &[
            "line 2: is no JSON",
            "line 3: is no JSON object",
            "line 4: \"seat\" is no key; want some of seat_id, section",
            "line 5: seat_id is no text and no number",
            "line 6: seat_id is empty",
            "line 7: has both price and price_amount",
            "line 8: price_amount is \"-1\"; want 0 to",
            "line 9: currency is \"\"",
            "line 10: row has 65 bytes; want at most 64",
        ],
    );
}

#[test]
fn a_seat_twice_names_both_lines() {
    assert_reported("seat_id\nA-1\nA-2\n\nA-1\n", &["line 5: seat_id A-1 was on line 2 already"]);
    assert_reported(
        "{\"seat_id\":\"A-1\"}\n{\"seat_id\":\"A-1\"}",
        &["line 2: seat_id A-1 was on line 1 already"],
    );
}

#[test]
fn twenty_problems_are_listed_and_the_rest_counted() {
    let text = format!("seat_id\n{}", "a b\n".repeat(33));
    let said = read(text).unwrap_err();
    assert_eq!(said.matches("line ").count(), 20, "{said}");
    assert!(said.ends_with("and 13 more"), "{said}");
}

#[test]
fn missing_column_names_are_reported() {
    assert_reported("A-1,Balcony\nA-2,Balcony\n", &["line 1: \"A-1\" is no column"]);
    assert_reported("section,row\nA,1\n", &["line 1: has no column seat_id"]);
    assert_reported("seat_id,row,row\nA,1,2\n", &["line 1: names the column row twice"]);
    assert_reported("Seat_ID\nA\n", &["\"Seat_ID\" is no column"]);
    assert_reported("", &["seat_id"]);
    assert_reported("seat_id\n", &["has no seats"]);
}

#[test]
fn invalid_utf8_is_reported_with_its_line() {
    assert_reported(b"seat_id,row\nA-1,\xff\n", &["line 2: row is not UTF-8"]);
    assert_reported(b"{\"seat_id\":\"A\xff\"}\n", &["line 1: is no JSON"]);
}

#[test]
fn more_seats_than_the_maximum_are_reported() {
    let seats = |count: usize| {
        let lines = (0..count).map(|n| format!("S{n}\n"));
        format!("seat_id\n{}", lines.collect::<String>())
    };
    assert_eq!(read(seats(SEATS_PER_EVENT_MAX)).unwrap().len(), SEATS_PER_EVENT_MAX);
    assert_reported(
        seats(SEATS_PER_EVENT_MAX + 5),
        &["line 200002: is seat 200001; want at most 200000"],
    );
}

#[test]
fn line_numbers_equal_those_of_an_editor() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["", "seat_id,row", "A-1,1", "", "", "A-2,\"a", "b\"", "A 3,1"].join(end);
        let said = read(text).unwrap_err();
        assert!(said.contains("line 6: row has"), "{end:?}: {said}");
        assert!(said.contains("line 8: seat_id has"), "{end:?}: {said}");
    }
    assert_reported("\n\nseat,row\n", &["line 3: \"seat\" is no column"]);
}

#[test]
fn endless_input_is_read_up_to_a_limit() {
    let endless = io::repeat(b'x');
    let failure = parse(Path::new("-"), endless, 100_000).unwrap_err();
    let said = failure.message;
    assert!(said.contains("standard input has over 100000 bytes"), "{said}");
}

#[test]
fn missing_file_is_reported() {
    let failure = seats(Path::new("no/such/file.csv")).unwrap_err();
    assert!(failure.message.contains("no/such/file.csv cannot be read"));
}
