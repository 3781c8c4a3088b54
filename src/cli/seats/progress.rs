//! How far an import is: a bar on a terminal, a few plain lines elsewhere. On stderr.

use std::cell::Cell;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::grouped;

/// Plain lines of one import.
const LINES: usize = 10;

/// See the module's head.
pub(super) struct Progress {
    seats: usize,
    how: How,
}

enum How {
    Bar(ProgressBar),
    /// The number of seats at which the next line is due.
    Lines(Cell<usize>),
    Silent,
}

impl Progress {
    /// `quiet`: nothing but a bar on a terminal.
    pub(super) fn new(seats: usize, quiet: bool) -> Self {
        let how = if io::stderr().is_terminal() {
            How::Bar(bar(seats))
        } else if quiet {
            How::Silent
        } else {
            How::Lines(Cell::new(seats.div_ceil(LINES)))
        };
        Self { seats, how }
    }

    /// The server has taken `sent` of the seats.
    pub(super) fn at(&self, sent: usize) {
        match &self.how {
            How::Bar(bar) => bar.set_position(sent as u64),
            How::Lines(due) => {
                if sent >= due.get() {
                    let step = self.seats.div_ceil(LINES).max(1);
                    due.set((sent / step + 1) * step);
                    self.line(sent);
                }
            }
            How::Silent => {}
        }
    }

    /// Nobody left to tell when stderr is closed.
    fn line(&self, sent: usize) {
        let (sent, seats) = (grouped(sent), grouped(self.seats));
        let _ = writeln!(io::stderr(), "{sent} of {seats} seats");
    }

    pub(super) fn finish(&self, well: bool) {
        if let How::Bar(bar) = &self.how {
            match well {
                true => bar.finish_and_clear(),
                // Where it stopped stays to be seen.
                false => bar.abandon(),
            }
        }
    }
}

fn bar(seats: usize) -> ProgressBar {
    let bar = ProgressBar::new(seats as u64);
    let shape = "{bar:40} {human_pos} of {human_len} seats, {eta} left";
    // The shape is a constant; should it ever be wrong, the default one serves.
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
