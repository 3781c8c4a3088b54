//! Progress of a seat import on stderr: a bar on a terminal, otherwise a few plain lines.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::views::{counted, grouped};
use crate::output;

/// Most plain lines of one import.
const LINES: usize = 10;

/// Reports the progress of one import.
pub(super) struct ImportProgress {
    seats: usize,
    output: ProgressOutput,
}

enum ProgressOutput {
    Bar(ProgressBar),
    /// The number of seats at which the next line is due.
    Lines(Cell<usize>),
    Silent,
}

impl ImportProgress {
    /// `quiet`: nothing but a bar on a terminal.
    pub(super) fn new(seats: usize, quiet: bool) -> Self {
        let output = if io::stderr().is_terminal() {
            ProgressOutput::Bar(bar(seats))
        } else if quiet {
            ProgressOutput::Silent
        } else {
            ProgressOutput::Lines(Cell::new(seats.div_ceil(LINES)))
        };
        Self { seats, output }
    }

    /// `stored` of the seats are durable.
    pub(super) fn at(&self, stored: i64) {
        let sent = usize::try_from(stored).unwrap_or(0);
        match &self.output {
            ProgressOutput::Bar(bar) => bar.set_position(sent as u64),
            ProgressOutput::Lines(due) => {
                if sent >= due.get() || sent == self.seats {
                    let step = self.seats.div_ceil(LINES).max(1);
                    due.set((sent / step + 1) * step);
                    self.line(sent);
                }
            }
            ProgressOutput::Silent => {}
        }
    }

    fn line(&self, sent: usize) {
        let (sent, seats) = (grouped(sent as i64), counted(self.seats as i64, "seat"));
        output::report(format_args!("{sent} of {seats}"));
    }

    pub(super) fn finish(&self, well: bool) {
        if let ProgressOutput::Bar(bar) = &self.output {
            match well {
                true => bar.finish_and_clear(),
                // The bar stays visible, because it shows where the import stopped.
                false => bar.abandon(),
            }
        }
    }
}

fn bar(seats: usize) -> ProgressBar {
    let bar = ProgressBar::new(seats as u64);
    let shape = "{bar:40} {human_pos} of {human_len} seats, {eta} left";
    // The template is a constant; if it is wrong, the default style is used.
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
