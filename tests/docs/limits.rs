//! `docs/reference/limits.md` has the bounds of connections and of shared pools with the values of the code.

use std::collections::BTreeMap;

use super::generated::read;
use super::source::{constants, sources};

const DOCUMENT: &str = "docs/reference/limits.md";

/// Bounds of single fields, and memory that no client can occupy for others.
const ELSEWHERE: [&str; 11] = [
    "CALL_SLOTS_SPARE_MAX",
    "EVENT_TEXT_BYTES_MAX",
    "FIELD_VIOLATIONS_MAX",
    "FRAME_BYTES_MAX",
    "LINGER_BYTES_MAX",
    "LINGER_MAX",
    "PRICE_AMOUNT_MAX",
    "ROUNDS_PER_POLL_MAX",
    "SEAT_TEXT_BYTES_MAX",
    "STREAM_SEND_BUFFER_BYTES_MAX",
    "WRITE_BUFFERS_SPARE_MAX",
];

/// The constants of all files of limits: name and value as written.
fn limits() -> BTreeMap<String, String> {
    let files = sources().into_iter().filter(|(path, _)| path.contains("limits"));
    let all = files.flat_map(|(_, text)| constants(&text));
    all.map(|constant| (constant.name, constant.value)).collect()
}

/// The value of an expression: a number, a product, a quotient, or a duration in microseconds.
fn value(text: &str, limits: &BTreeMap<String, String>) -> u128 {
    if let Some((left, right)) = text.rsplit_once(" / ") {
        return value(left, limits) / value(right, limits);
    }
    if let Some(span) = text.strip_prefix("Duration::from_") {
        let (unit, amount) = span.trim_end_matches(')').split_once('(').unwrap();
        let unit = match unit {
            "secs" => 1_000_000,
            "millis" => 1_000,
            _ => 1,
        };
        return unit * value(amount, limits);
    }
    let factor = |factor: &str| match factor.replace('_', "").parse() {
        Ok(number) => number,
        Err(_) => value(limits.get(factor).unwrap_or_else(|| panic!("{factor}")), limits),
    };
    text.split(" * ").map(factor).product()
}

/// As the page shows it.
fn shown(name: &str, limits: &BTreeMap<String, String>) -> Option<String> {
    let text = limits.get(name)?;
    let number = value(text, limits);
    let unit = |size: u128, unit: &str| {
        (number >= size && number.is_multiple_of(size)).then(|| format!("{} {unit}", number / size))
    };
    if text.starts_with("Duration") {
        let minutes = unit(60_000_000, "min").filter(|_| number > 60_000_000);
        let seconds = minutes.or_else(|| unit(1_000_000, "s"));
        return seconds.or_else(|| unit(1_000, "ms")).or_else(|| unit(1, "µs"));
    }
    if name.contains("BYTES") {
        return unit(1 << 20, "MiB").or_else(|| unit(1 << 10, "KiB"));
    }
    let digits = number.to_string();
    let grouped = digits.char_indices().map(|(at, digit)| {
        let gap = at > 0 && (digits.len() - at).is_multiple_of(3);
        if gap { format!(",{digit}") } else { digit.to_string() }
    });
    Some(grouped.collect())
}

#[test]
fn documented_bounds_have_the_values_of_the_code() {
    let (text, limits) = (read(DOCUMENT), limits());
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| ") && line.contains("_")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, name, value, _, _] = cells[..] else { panic!("{DOCUMENT}: {line}") };
        let name = name.trim_matches('`');
        assert_eq!(shown(name, &limits).as_deref(), Some(value), "{DOCUMENT}: {name}");
        rows += 1;
    }
    assert!(rows > 30, "{rows} rows are not all");
}

#[test]
fn bounds_in_the_text_of_a_row_have_the_values_of_the_code() {
    let (text, limits) = (read(DOCUMENT), limits());
    let mentions = text.split('`').skip(1).step_by(2).filter(|name| limits.contains_key(*name));
    let mut found = 0;
    for name in mentions {
        let after = text.split(&format!("`{name}` (")).nth(1);
        if let Some(value) = after.and_then(|after| after.split(')').next()) {
            assert_eq!(shown(name, &limits).as_deref(), Some(value), "{DOCUMENT}: {name}");
            found += 1;
        }
    }
    assert!(found >= 5, "{found} values are not all");
}

#[test]
fn every_bound_of_a_connection_or_pool_is_documented() {
    let (text, sources) = (read(DOCUMENT), sources());
    let mut missing = Vec::new();
    for file in ["crates/grpc/src/limits.rs", "src/limits/control_plane.rs"] {
        for constant in constants(&sources[file]) {
            let name = constant.name;
            let is_bound = name.ends_with("_MAX") && !name.starts_with("SEAT");
            if is_bound && !ELSEWHERE.contains(&&*name) && !text.contains(&format!("`{name}`")) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "not in {DOCUMENT}: {missing:?}");
}
