//! Fuzz targets of the commands: files, and texts of arguments, headers and answers. Compiled for tests, which replay the
//! corpus, and for the programs in `tests/fuzz`.

use std::time::Duration;

use super::address::{parse_address, shown};
use super::input::clean;
use super::{money, top};
use crate::config::{cpus, format_span, parse_with_unit};
use crate::currency;
use crate::limits::PRICE_AMOUNT_MAX;
use crate::telemetry::trace::parse_traceparent;
use crate::text;
use inventory_core::membership::ProcessId;
use inventory_store::without_credentials;

pub use super::seats::seat_file;

/// Currencies with 0, 2, 3 and 4 decimals.
const CURRENCIES: [&str; 4] = ["KRW", "USD", "KWD", "CLF"];

/// CPUs that a process may use.
const CPUS: [usize; 4] = [0, 1, 2, 5];

/// From this format on a scrape is rendered, too, which takes longer than everything else.
const RENDERED: u8 = 128;

/// One byte for the format, and the rest is the text. What is read is written and read again as the same value; what is
/// shown has no control characters and no password.
pub fn texts(input: &[u8]) {
    let Some((format, text)) = input.split_first() else {
        return;
    };
    let text = &*String::from_utf8_lossy(text);
    match format % 10 {
        0 => span(text),
        1 => traceparent(text),
        2 => top::fuzzing::scrapes(text, *format >= RENDERED),
        3 => amount(text, CURRENCIES[usize::from(format / 10) % CURRENCIES.len()]),
        4 => shards(text),
        5 => address(text),
        6 => url(text),
        7 => displayed(text),
        8 => cleaned(text),
        _ => process_id(text),
    }
}

fn span(text: &str) {
    // Longer ones, more than five centuries, are no value of any setting or option.
    if let Ok(span) = parse_with_unit(text)
        && u64::try_from(span.as_nanos()).is_ok()
    {
        let written = format_span(span);
        assert_eq!(parse_with_unit(&written), Ok(span), "{text:?} is written as {written:?}");
    }
    // Every duration can be written.
    let nanos =
        text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let span = Duration::from_nanos(nanos);
    assert_eq!(parse_with_unit(&format_span(span)), Ok(span));
}

fn traceparent(text: &str) {
    if let Some(context) = parse_traceparent(text.as_bytes()) {
        let sampled = u8::from(context.is_sampled());
        let written = format!("00-{}-{}-{sampled:02x}", context.trace_id(), context.span_id());
        assert_eq!(parse_traceparent(written.as_bytes()), Some(context), "{written}");
    }
}

fn amount(text: &str, currency: &str) {
    if let Ok(amount) = money::smallest_unit(text, currency) {
        assert!((0..=PRICE_AMOUNT_MAX).contains(&amount), "{text:?} is {amount}");
        let written = money::decimal(amount, currency);
        assert_eq!(money::smallest_unit(&written, currency), Ok(amount), "{written}");
    }
    if let Some(plain) = money::without_separators(text, currency) {
        let is_plain = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        assert!(is_plain && plain.matches('.').count() <= 1, "{text:?} is read as {plain:?}");
    }
    assert!(!currency::is_currency(text) || text.len() == 3, "{text:?} is a currency");
}

fn shards(text: &str) {
    if let Ok(spec) = text.parse::<cpus::ShardSpec>() {
        assert_eq!(spec.to_string().parse(), Ok(spec.clone()), "{spec}");
        if let Ok(chosen) = cpus::resolve(&spec, &CPUS) {
            assert!(!chosen.is_empty() && chosen.is_sorted_by(|a, b| a < b), "{spec}: {chosen:?}");
            assert!(chosen.iter().all(|cpu| CPUS.contains(cpu)), "{spec}: {chosen:?}");
        }
    }
}

fn address(text: &str) {
    if let Ok(server) = parse_address(text) {
        let written = shown(&server);
        assert_eq!(parse_address(&written).as_ref(), Ok(&server), "{text:?} is shown as {written}");
        let host = server.authority().map_or("", |authority| authority.as_str());
        assert!(!host.contains('@'), "a password in {written}");
    }
}

fn url(text: &str) {
    let shown = without_credentials(text);
    let start = shown.find("://").map_or(0, |scheme| scheme + 3);
    assert!(!shown[start..].contains('@'), "{text:?} is shown as {shown:?}");
    assert_eq!(without_credentials(&shown), shown, "{text:?}");
}

fn displayed(text: &str) {
    let cell = text::spreadsheet_cell(text);
    assert!(!cell.starts_with(['=', '+', '-', '@']), "a formula: {cell}");
    for shown in [text::escape(text), cell] {
        assert!(!shown.chars().any(text::is_control), "{text:?} is displayed as {shown:?}");
    }
    assert!(!text::escape_lines(text).replace('\n', "").chars().any(text::is_control), "{text:?}");
}

fn cleaned(text: &str) {
    let once = clean(text);
    assert_eq!(clean(&once), once, "{text:?}");
}

fn process_id(text: &str) {
    if let Ok(id) = text.parse::<ProcessId>() {
        assert_eq!(id.to_string(), text);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_texts_is_read_and_written_alike() {
        inventory_testkit::corpus::replay("texts", super::texts);
    }
}
