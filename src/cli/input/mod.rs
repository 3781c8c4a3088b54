//! Input files of the commands, in the encodings, separators and JSON forms that spreadsheets and programs write.
//!
//! Unambiguous input is read, with a note if it was converted. Anything else is an error with the place in the file and
//! the correction. Not here: the meaning of the values (`seats::file`).

mod encoding;
mod json;
mod rows;
mod value;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub(super) use value::clean;

use super::CommandError;
use crate::limits::{IMPORT_PROBLEMS_SHOWN, PROBLEM_BYTES_MAX};
use crate::output;
use crate::text::clip;

/// The text of a file, and notes on its conversion.
#[derive(Debug)]
pub(super) struct InputFile {
    /// Name for messages.
    place: String,
    /// With `\n` for line ends of any kind.
    text: String,
    notes: Vec<String>,
}

/// The values of a record, one per requested column; empty if missing.
pub(super) type Record = Vec<String>;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordPlace {
    Line(u64),
    /// Of a JSON array, from 1.
    Element(usize),
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Element(number) => write!(f, "element {number}"),
        }
    }
}

/// Receives each record, or its error; returns whether to continue.
pub(super) type RecordSink<'a> = dyn FnMut(RecordPlace, Result<Record, String>) -> bool + 'a;

impl InputFile {
    /// Reads a file, or standard input for `-`.
    pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Self, CommandError> {
        let place = match path == Path::new("-") {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let input: io::Result<Box<dyn Read>> = match path == Path::new("-") {
            true => Ok(Box::new(io::stdin().lock())),
            false => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
        };
        let input = input.map_err(|error| unreadable(&place, &error))?;
        Self::read_from(place, input, bytes_max)
    }

    pub(super) fn read_from(
        place: String,
        input: impl Read,
        bytes_max: u64,
    ) -> Result<Self, CommandError> {
        let mut bytes = Vec::new();
        let read = input.take(bytes_max + 1).read_to_end(&mut bytes);
        if read.map_err(|error| unreadable(&place, &error))? as u64 > bytes_max {
            return Err(CommandError::usage(format!(
                "{place} has over {bytes_max} bytes; want one event's seats"
            )));
        }
        match encoding::decode(&bytes) {
            Ok((text, note)) => {
                let text = match text.contains('\r') {
                    true => text.replace("\r\n", "\n").replace('\r', "\n"),
                    false => text,
                };
                Ok(Self { place, text, notes: note.into_iter().collect() })
            }
            Err(problem) => Err(CommandError::usage(format!("{place} {problem}"))),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Passes each record of a table or of JSON to `take`, with the values of `columns`. `key` is the column that every
    /// table has.
    pub(super) fn records(&mut self, columns: &[&str], key: &str, take: &mut RecordSink<'_>) {
        match self.text.trim_start().starts_with(['{', '[']) {
            true => json::records(&self.text, columns, None, &mut self.notes, take),
            false => rows::records(&self.text, columns, key, &mut self.notes, take),
        }
    }

    /// As [`InputFile::records`] with the key only; also reads a plain list with one or more values per line.
    pub(super) fn list(&mut self, columns: &[&str], key: &str, take: &mut RecordSink<'_>) {
        let is_json = self.text.trim_start().starts_with(['{', '[']);
        if is_json {
            json::records(&self.text, columns, Some(key), &mut self.notes, take);
        } else if rows::has_header(&self.text, columns, key) {
            rows::records(&self.text, columns, key, &mut self.notes, take);
        } else {
            rows::list(&self.text, columns, key, take);
        }
    }

    /// Adds a note about the file.
    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(clip(note, PROBLEM_BYTES_MAX).into_owned());
    }

    /// Prints the notes on standard error.
    pub(super) fn report_notes(&self) {
        for note in &self.notes {
            output::report(format_args!("note: {}: {note}", self.place));
        }
    }

    #[cfg(test)]
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn unreadable(place: &str, error: &io::Error) -> CommandError {
    CommandError::usage(format!("{place} cannot be read: {error}"))
}

/// Problems of a file, up to a limit.
#[derive(Default)]
pub(super) struct FileProblems {
    shown: Vec<String>,
    count: usize,
}

impl FileProblems {
    pub(super) fn add(&mut self, place: RecordPlace, problem: impl AsRef<str>) {
        self.count += 1;
        if self.shown.len() < IMPORT_PROBLEMS_SHOWN {
            let problem = clip(problem.as_ref(), PROBLEM_BYTES_MAX);
            self.shown.push(format!("{place}: {problem}"));
        }
    }

    /// # Errors
    /// The problems, if there are any.
    pub(super) fn end(self, file: &str) -> Result<(), CommandError> {
        if self.count == 0 {
            return Ok(());
        }
        let mut text = format!("{file} has errors; nothing was sent\n  ");
        text.push_str(&self.shown.join("\n  "));
        match self.count - self.shown.len() {
            0 => {}
            more => text.push_str(&format!("\n  and {more} more")),
        }
        Err(CommandError::usage(text))
    }
}
