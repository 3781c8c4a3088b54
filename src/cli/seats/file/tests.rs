//! Valid and invalid seat files: the seats read from them, and the lines reported.
#![allow(clippy::unwrap_used)]

use std::io;

use encoding_rs::EUC_KR;

use super::*;
use crate::exit::{self, Exit};

fn read(text: impl AsRef<[u8]>) -> Result<Vec<NewSeat>, String> {
    read_with_notes(text).0
}

/// The seats, or the message of the error, and the notes about the file.
fn read_with_notes(text: impl AsRef<[u8]>) -> (Result<Vec<NewSeat>, String>, String) {
    let place = "seats.csv".to_owned();
    let message = |failure: CommandError| {
        assert_eq!(failure.exit, Exit::Code(exit::USAGE));
        failure.message
    };
    match InputFile::read_from(place, text.as_ref(), IMPORT_FILE_BYTES_MAX) {
        Ok(mut file) => {
            let seats = seats_of(&mut file).map_err(message);
            (seats, file.notes().join("\n"))
        }
        Err(failure) => (Err(message(failure)), String::new()),
    }
}

/// Reads seats of a file that is not as the documentation describes it; the notes must say `noted`.
#[track_caller]
fn assert_taken(text: impl AsRef<[u8]>, expected: &[NewSeat], noted: &[&str]) {
    let (seats, notes) = read_with_notes(text);
    assert_eq!(seats.unwrap(), expected);
    for noted in noted {
        assert!(notes.contains(noted), "no {noted:?} in:\n{notes}");
    }
    assert_eq!(notes.is_empty(), noted.is_empty(), "{notes}");
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
                A-5,Balcony,1,won€\n\
                A-6,Balcony,1\n\
                A-7,Balcony,1.5,KRW\n";
    assert_reported(
        text,
        &[
            "seats.csv has errors; nothing was sent",
            "line 3: seat_id has ' ' at byte 1",
            "line 4: section has '\\n'; want no control characters",
            // A line break in quotes counts as a line.
            "line 6: seat_id is empty; must be 1 to 128 bytes of [A-Za-z0-9._:-]; price is \"x\"",
            "line 7: currency is \"WON€\"; want an ISO 4217 code, such as KRW",
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
fn unclosed_quotation_mark_is_reported_with_its_line() {
    let text = "seat_id,section,row,number\nA-1,\"S \"\"1\"\"\",A,1\nA-2,\"S,A,2\nA-3,S,A,3\n";
    assert_reported(text, &["line 3: has a quotation mark that is not closed"]);
    // A mark inside a value opens nothing.
    let seats = read("seat_id,section,row\nA-1,4\" pipe,A\n").unwrap();
    assert_eq!(seats, [seat("A-1", "4\" pipe", "A", "", None)]);
}

#[test]
fn missing_column_names_are_reported() {
    assert_reported("A-1,Balcony\nA-2,Balcony\n", &["line 1: \"A-1\", \"Balcony\" are no columns"]);
    assert_reported("section,row\nA,1\n", &["line 1: has no column seat_id", "required"]);
    // Two unknown names, as one file of an office has them.
    let korean = EUC_KR.encode("구역;열;seat_id\nA;1;A-1\n").0.into_owned();
    let said = "line 1: \"구역\", \"열\" are no columns (separated by a semicolon); want a first line with \
                seat_id, which is required, and any of section, row";
    assert_reported(korean, &[said]);
    let korean = EUC_KR.encode("좌석;구역;열\nA-1;A;1\n").0.into_owned();
    assert_reported(
        korean,
        &["\"좌석\", \"구역\", \"열\" are no columns (separated by a semicolon)"],
    );
    assert_reported("seat_id,row,row\nA,1,2\n", &["line 1: names the column row twice"]);
    assert_reported("", &["seat_id"]);
    assert_reported("seat_id\n", &["has no seats"]);
}

#[test]
fn invalid_utf8_is_reported_with_its_line() {
    assert_reported(b"seat_id,row\nA-1,\xff\n", &["on line 2", "CSV UTF-8"]);
    assert_reported(b"{\"seat_id\":\"A\xff\"}\n", &["on line 1"]);
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
    let place = "standard input".to_owned();
    let failure = InputFile::read_from(place, endless, 100_000).unwrap_err();
    let said = failure.message;
    assert!(said.contains("standard input has over 100000 bytes"), "{said}");
}

#[test]
fn missing_file_is_reported() {
    let failure = seats(Path::new("no/such/file.csv")).unwrap_err();
    assert!(failure.message.contains("no/such/file.csv cannot be read"));
}

// ---- Files as offices write them ----------------------------------------------------------------

/// Two seats as a table of the separator.
fn table(separator: &str) -> String {
    let lines = [
        "seat_id,section,row,number,price,currency",
        "A-1,무대 앞,A,1,120000,KRW",
        "A-2,무대 앞,A,2,120000,KRW",
        "",
    ];
    lines.join("\n").replace(',', separator)
}

fn table_seats() -> [NewSeat; 2] {
    let price = Some((120_000, "KRW"));
    [seat("A-1", "무대 앞", "A", "1", price), seat("A-2", "무대 앞", "A", "2", price)]
}

#[test]
fn every_separator_of_a_spreadsheet_is_read() {
    let expected = table_seats();
    assert_taken(table(","), &expected, &[]);
    assert_taken(table(";"), &expected, &["semicolon"]);
    assert_taken(table("\t"), &expected, &["a tab"]);
    assert_taken(format!("sep=;\r\n{}", table(";")), &expected, &["semicolon"]);
    assert_taken(format!("SEP=\t\n{}", table("\t")), &expected, &["a tab"]);
    assert_taken(format!("sep=,\n{}", table(",")), &expected, &[]);
    // Values keep the other separators.
    let text = "seat_id;section;row\nA-1;\"Left; upper, back\";A\n";
    assert_taken(text, &[seat("A-1", "Left; upper, back", "A", "", None)], &["semicolon"]);
    assert_taken("seat_id|row\nA-1|A\n", &[seat("A-1", "", "A", "", None)], &["'|'"]);
    assert_reported("sep=\u{2502}\nseat_id\n", &["has the separator '\u{2502}'", "a semicolon"]);
    assert_reported(format!("sep=;\n{}", "seat_id;row\nA 1;A\n"), &["line 3: seat_id has"]);
}

#[test]
fn every_encoding_of_a_spreadsheet_is_read() {
    let expected = table_seats();
    let utf16 = |bytes_of: fn(u16) -> [u8; 2]| {
        let text = format!("\u{feff}{}", table("\t").replace('\n', "\r\n"));
        text.encode_utf16().flat_map(bytes_of).collect::<Vec<_>>()
    };
    assert_taken(utf16(u16::to_le_bytes), &expected, &["UTF-16LE", "a tab"]);
    assert_taken(utf16(u16::to_be_bytes), &expected, &["UTF-16BE", "a tab"]);
    assert_taken(EUC_KR.encode(&table(",")).0, &expected, &["CP949"]);
    assert_reported(b"PK\x03\x04\x14\0", &[".xlsx", "CSV UTF-8"]);
}

#[test]
fn empty_columns_and_rows_are_skipped() {
    let text = "seat_id,section,row,number,price,currency,,\n\
                A-1,S,A,1,120000,KRW,,\n\
                ,,,,,,,\n\
                \u{20}\u{20} \n\
                \n\
                A-2,S,A,2,120000,KRW, ,\n\
                A-3,S,A,3,120000,KRW\n\
                A-4,S,A,4,120000,KRW,,,,,\n";
    let price = Some((120_000, "KRW"));
    let expected = ["1", "2", "3", "4"].map(|n| seat(&format!("A-{n}"), "S", "A", n, price));
    assert_taken(text, &expected, &["2 lines without a value skipped"]);
    // The end of a file of DOS.
    assert_eq!(read("seat_id,row\r\nA-1,A\r\n\u{1a}").unwrap().len(), 1);
    assert_reported("seat_id,row,number\nA-1\n", &["line 2: has 1 field; want 3"]);
    assert_reported(",,\nseat_id,row,,\nA-1,A,,left\n", &["line 3: has \"left\" in field 4"]);
    assert_reported("seat_id,row\nA-1,A,left\n", &["line 2: has \"left\" in field 3"]);
    assert_reported("seat_id,row\n,,\n", &["has no seats"]);
}

#[test]
fn header_names_are_read_in_any_case() {
    let text = "\u{a0}Seat ID ,SECTION,Row,Number,PRICE,Currency\nA-1,S,A,1,45.50,usd\n";
    let expected = [seat("A-1", "S", "A", "1", Some((4_550, "USD")))];
    assert_taken(
        text,
        &expected,
        &["1 currency code read in capital letters, on line 2: \"usd\" as \"USD\""],
    );
}

#[test]
fn json_of_programs_is_read() {
    let expected = table_seats();
    let objects = [
        r#"{"seat_id":"A-1","section":"무대 앞","row":"A","number":1,"price":120000,"currency":"KRW"}"#,
        r#"{"Seat_ID":"A-2","section":"무대 앞","row":"A","number":"2","price":120000.0,"currency":"KRW"}"#,
    ];
    let both = objects.join(",\n");
    assert_taken(format!("[{both}]"), &expected, &[]);
    assert_taken(format!("{{\"seats\": [\n{both}\n]}}"), &expected, &["list in \"seats\""]);
    // Objects over several lines, one after the other.
    assert_taken(objects.join("\n").replace(',', ",\n  "), &expected, &[]);
    let broken = both.replace("A-2", "A 2");
    assert_reported(format!("[{broken}]"), &["element 2: seat_id has ' '"]);
    assert_reported(
        format!("{{\"event\": 1, \"seats\": [{both}]}}"),
        &["line 1: has \"event\" beside"],
    );
    assert_reported("{\"seats\": {}}", &["\"seats\" is no list"]);
    assert_reported("[\n{\"seat_id\": \"A-1\",}\n]", &["line 2: is no JSON"]);
    assert_reported("[\"A-1\"]", &["element 1: is no JSON object"]);
    assert_reported("[]", &["has no seats"]);
    assert_reported("{\"seat_id\":\"A\",\"Seat ID\":\"B\"}", &["seat_id twice"]);
}

#[test]
fn values_that_look_equal_are_one_value() {
    let text = "seat_id,section,row,number\n\
                A-1,STALLS,A,1\nA-2,STALLS\u{a0},A,2\nA-3,STA\u{200b}LLS,A,\u{feff}3\n";
    let expected = ["1", "2", "3"].map(|n| seat(&format!("A-{n}"), "STALLS", "A", n, None));
    assert_taken(
        text,
        &expected,
        &["3 values read without invisible characters", "first one on line 3", "as \"STALLS\""],
    );
    assert_reported("seat_id,section\nA-1,S\u{202e}A\n", &["line 2: section has '\\u{202e}'"]);
}

#[test]
fn sections_that_differ_only_in_case_are_refused_once() {
    let text = "seat_id,section\nA-1,STALLS\nA-2,Stalls\nA-3,Stalls\nA-4,Balcony\n";
    let error = read(text).unwrap_err();
    let expected = "line 3: section \"Stalls\" differs only in case from \"STALLS\" on line 2";
    assert!(error.contains(expected), "{error}");
    assert_eq!(error.matches("differs only").count(), 1, "{error}");
}

#[test]
fn several_currencies_in_a_section_are_noted() {
    let text = "seat_id,section,price,currency\nA-1,S,1,KRW\nA-2,S,1,USD\nB-1,T,1,USD\n";
    let expected =
        [("A-1", "S", (1, "KRW")), ("A-2", "S", (100, "USD")), ("B-1", "T", (100, "USD"))];
    let expected = expected.map(|(id, section, price)| seat(id, section, "", "", Some(price)));
    assert_taken(text, &expected, &["section \"S\" has prices in KRW and USD"]);
}

#[test]
fn one_chair_under_two_ids_is_refused() {
    let text = "seat_id,section,row,number\nA-1,S,A,1\nB-1,S,B,1\nA-9,S,A,1\n";
    assert_reported(
        text,
        &["line 4: seat A-9 has the section, row and number of seat A-1 on line 2"],
    );
    // Standing room: no numbers.
    let text = "seat_id,section,row,number\nA-1,S,,\nA-2,S,,\n";
    assert_eq!(read(text).unwrap().len(), 2);
}

#[test]
fn prices_of_spreadsheets_are_read_where_they_have_one_meaning() {
    let text =
        "seat_id,price,currency\nA-1,120000.00,KRW\nA-2,\"120,000\",KRW\nA-3,\"45,50\",EUR\n";
    let expected = [
        seat("A-1", "", "", "", Some((120_000, "KRW"))),
        seat("A-2", "", "", "", Some((120_000, "KRW"))),
        seat("A-3", "", "", "", Some((4_550, "EUR"))),
    ];
    assert_taken(text, &expected, &["2 prices", "\"120,000\" as \"120000\""]);
    assert_reported(
        "seat_id,price,currency\nA-1,\"120,000\",USD\nA-2,-5000,KRW\nA-3,5000,WON\n",
        &[
            "line 2: price is \"120,000\", which may be 120000 or 120.000",
            "line 3: price is \"-5000\"; want 0 or more",
            "line 4: currency is \"WON\"; want an ISO 4217 code, such as KRW",
        ],
    );
    assert_reported("seat_id,price,currency\nA-1,120000.50,KRW\n", &["2 decimals; want at most 0"]);
}

#[test]
fn ids_are_read_from_a_list_a_seat_file_or_json() {
    let ids = |text: &str| {
        let mut ids = Vec::new();
        let bytes = text.as_bytes();
        let mut file = InputFile::read_from("list".to_owned(), bytes, 1_000).unwrap();
        file.list(&COLUMNS, KEY, &mut |_, record| {
            ids.push(record.unwrap()[0].clone());
            true
        });
        ids.join(" ")
    };
    for text in [
        "A-1\nA-2\n",
        "\u{feff}A-1\r\n\r\n A-2 \r\n",
        "A-1,A-2",
        "A-1;\nA-2;;\n",
        "\"A-1\"\tA-2",
        "seat_id\nA-1\nA-2\n",
        "sep=;\nsection;seat_id\nS;A-1\nS;A-2\n",
        "[\"A-1\", \"A-2\"]",
        "{\"seats\":[{\"seat_id\":\"A-1\"},{\"seat_id\":\"A-2\"}]}",
        "{\"seat_id\":\"A-1\"}\n{\"seat_id\":\"A-2\"}",
    ] {
        assert_eq!(ids(text), "A-1 A-2", "{text:?}");
    }
}

/// The time was that of the square: minutes for this file, more than an hour for the largest hall.
#[test]
fn objects_over_several_lines_are_read_in_time() {
    let objects = (0..20_000).map(|n| format!("{{\n  \"seat_id\":\n  \"A-{n}\"\n}}\n"));
    let text: String = objects.collect();
    let begun = std::time::Instant::now();
    assert_eq!(read(&text).unwrap().len(), 20_000);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    let last = text.replace("A-19999", "A 19999");
    assert_reported(last, &["line 79997: seat_id has ' '"]);
}

#[test]
fn long_values_are_clipped_in_messages() {
    let long = "x".repeat(100_000);
    for text in
        [format!("seat_id,{long}\nA-1,1\n"), format!("seat_id,currency,price\nA-1,{long},1\n")]
    {
        let message = read(text).unwrap_err();
        assert!(message.len() < 1_000 && message.contains('…'), "{message}");
    }
}
