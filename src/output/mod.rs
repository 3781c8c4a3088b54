//! Standard output, standard error and files: the only place that writes them.
//!
//! Every write reports its error: a reader that has gone is [`OutputError::Closed`], anything else names the
//! place. Text is printed with control characters escaped, so that no stored text controls a terminal. Must not be
//! put here: what is printed.

mod file;
mod table;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

pub(crate) use file::OutputFile;
pub(crate) use table::{Align, TextTable};

use crate::text;

/// Name of standard output in messages.
const STANDARD_OUTPUT: &str = "standard output";

/// Why output was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The reader of a pipe has gone. No message: a reader that has enough is not a failure.
    #[error("the reader of the output has gone")]
    Closed,
    #[error("{place} cannot be written: {source}{}", fix(source))]
    Failed { place: String, source: io::Error },
    /// The output was not written, for a reason other than the system's.
    #[error("{0}")]
    Refused(String),
}

impl OutputError {
    fn of(place: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed { place: place.to_owned(), source },
        }
    }
}

fn fix(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another place"
        }
        io::ErrorKind::PermissionDenied => "; choose a place that this user may write",
        _ => "",
    }
}

/// Standard output, unbuffered and without the exceptions that the standard library makes: a descriptor that is
/// open for reading only is an error.
pub(crate) struct StandardOutput(File);

impl StandardOutput {
    pub(crate) fn open() -> Result<Self, OutputError> {
        let copy = io::stdout().as_fd().try_clone_to_owned();
        copy.map(|fd| Self(File::from(fd))).map_err(|error| OutputError::of(STANDARD_OUTPUT, error))
    }

    /// Writes `text`; nothing is buffered.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), OutputError> {
        self.0.write_all(text.as_bytes()).map_err(|error| OutputError::of(STANDARD_OUTPUT, error))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A standard stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputStream {
    Output,
    Error,
}

/// Whether output to `stream` is coloured: on a terminal, unless the user wants none.
pub(crate) fn is_coloured(stream: OutputStream) -> bool {
    let is_terminal = match stream {
        OutputStream::Output => io::stdout().is_terminal(),
        OutputStream::Error => io::stderr().is_terminal(),
    };
    is_terminal && wants_colours()
}

/// False if NO_COLOR is set and not empty (<https://no-color.org>).
pub(crate) fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Prints `text` and a line end. Control characters other than line ends are escaped.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), OutputError> {
    let text = text.to_string();
    print_verbatim(&format!("{}\n", text::escape_lines(&text)))
}

/// Prints `text` as it is. For text of the program only.
pub(crate) fn print_verbatim(text: &str) -> Result<(), OutputError> {
    StandardOutput::open()?.write(text)
}

/// Writes a line to standard error. There is nowhere to report a failure to.
pub(crate) fn report(text: impl fmt::Display) {
    let text = text.to_string();
    report_verbatim(&format!("{}\n", text::escape_lines(&text)));
}

/// [`report`] without a line end and without escapes. For text of the program only.
pub(crate) fn report_verbatim(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// A JSON document for programs.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), OutputError> {
    // Control characters occur in strings only, where the escape means the same.
    print(format_args!("{value:#}"))
}
