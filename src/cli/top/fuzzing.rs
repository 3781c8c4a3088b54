//! Fuzz target of `top`: any text as two scrapes. Compiled for tests, which replay the corpus, and for the programs in
//! `tests/fuzz`.

use super::model::{TimedScrape, figures};
use super::parse::MetricSamples;
use super::view::Screen;
use crate::cli::View as _;
use crate::limits::TOP_SAMPLES_MAX;

/// Separates the two scrapes.
const SEPARATOR: char = '\u{1}';

/// Size of the message about a scrape that is not read.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A scrape is read, and rendered if asked for, or its first bad line is reported.
pub(in crate::cli) fn scrapes(text: &str, is_rendered: bool) {
    let (before, now) = text.split_once(SEPARATOR).unwrap_or((text, text));
    let mut scrapes = Vec::new();
    for (at, text) in [before, now].into_iter().enumerate() {
        match MetricSamples::parse(text) {
            Ok(samples) => {
                let at = at as f64;
                scrapes.push(TimedScrape { at, wall: at, samples });
            }
            Err(message) => {
                assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes: {message}", message.len());
                let most = TOP_SAMPLES_MAX;
                let is_line = message.starts_with("line ");
                assert!(is_line || message.contains(&most.to_string()), "{message}");
            }
        }
    }
    if let [before, now] = &scrapes[..]
        && is_rendered
    {
        let figures = Some(figures(before, now));
        let screen = Screen { server: "127.0.0.1:9090".to_owned(), figures, ..Screen::default() };
        assert!(!screen.text().is_empty(), "an empty screen");
        assert!(serde_json::to_string(&screen).is_ok(), "no JSON");
    }
}
