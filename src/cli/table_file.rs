//! Rows written as CSV or as JSON lines, to a file or to standard output. Memory holds a few rows.
//!
//! Not here: which rows (`export`, `seats::list`), and how a file is replaced (`output::OutputFile`).

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::args::{TableArgs, TableFormat};
use super::views::counted;
use super::{CommandError, output};
use crate::output::{OutputError, OutputFile};
use crate::text;

/// Byte order mark, without which spreadsheets do not read a file as UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// One row: an object in JSON, cells in CSV.
pub(super) trait TableRow: Serialize {
    /// Names of the cells, which are keys in JSON too.
    const COLUMNS: &'static [&'static str];

    /// One per column; missing values are empty.
    fn cells(&self) -> Vec<TableCell>;
}

/// A cell of a CSV file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TableCell {
    /// Text of a client or operator, which a spreadsheet must not evaluate or change.
    Text(String),
    /// A number or a time that the program formats.
    Value(String),
}

/// An output file with rows.
pub(super) struct TableFile {
    out: TableOutput,
    /// Cells as they are stored.
    raw: bool,
    rows: i64,
    /// The name to report; `None` for standard output.
    place: Option<String>,
    has_temporary_file: bool,
}

enum TableOutput {
    Jsonl(Box<OutputFile>),
    Csv(Box<csv::Writer<OutputFile>>),
}

/// The format: the given one, or that of the file name.
pub(super) fn format_of(args: &TableArgs) -> TableFormat {
    let extension = args.out.as_deref().and_then(Path::extension);
    let is_csv = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    args.format.unwrap_or(if is_csv { TableFormat::Csv } else { TableFormat::Jsonl })
}

impl TableFile {
    /// Opens the output; nothing is written yet, except the byte order mark of a CSV file.
    ///
    /// # Errors
    /// The options contradict each other, or the file cannot be opened.
    pub(super) fn open(args: &TableArgs) -> Result<Self, CommandError> {
        let format = format_of(args);
        for (is_set, name) in [(args.raw, "--raw"), (args.no_bom, "--no-bom")] {
            if is_set && format == TableFormat::Jsonl {
                return Err(CommandError::usage(format!(
                    "{name} needs --format csv: JSON lines have the values as stored"
                )));
            }
        }
        let path = args.out.as_deref().unwrap_or(Path::new("-"));
        let mut file = OutputFile::open(path)?;
        // Pipes and devices are read by programs.
        let has_temporary_file = file.has_temporary_file();
        let out = match format {
            TableFormat::Jsonl => TableOutput::Jsonl(Box::new(file)),
            TableFormat::Csv => {
                if has_temporary_file && !args.no_bom {
                    let written = file.write_all(BYTE_ORDER_MARK.as_bytes());
                    written.map_err(|error| file.error(error))?;
                }
                TableOutput::Csv(Box::new(csv::Writer::from_writer(file)))
            }
        };
        let place = (path != Path::new("-")).then(|| path.display().to_string());
        Ok(Self { out, raw: args.raw, rows: 0, place, has_temporary_file })
    }

    /// Whether there is something to remove if the output is not completed.
    pub(super) fn has_temporary_file(&self) -> bool {
        self.has_temporary_file
    }

    fn error(&self, error: io::Error) -> OutputError {
        match &self.out {
            TableOutput::Jsonl(file) => file.error(error),
            TableOutput::Csv(out) => out.get_ref().error(error),
        }
    }

    /// Writes the names of the columns of a CSV file.
    pub(super) fn head<R: TableRow>(&mut self) -> Result<(), OutputError> {
        let written = match &mut self.out {
            TableOutput::Jsonl(_) => Ok(()),
            TableOutput::Csv(out) => out.write_record(R::COLUMNS).map_err(io_error),
        };
        written.map_err(|error| self.error(error))
    }

    /// Writes rows and flushes, so that a reader of a pipe sees complete pages.
    pub(super) fn rows<R: TableRow>(
        &mut self,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<(), OutputError> {
        let written = self.write(rows);
        written.map_err(|error| self.error(error))
    }

    fn write<R: TableRow>(&mut self, rows: impl IntoIterator<Item = R>) -> io::Result<()> {
        for row in rows {
            self.rows += 1;
            match &mut self.out {
                TableOutput::Jsonl(out) => {
                    let line = serde_json::to_string(&row)?;
                    writeln!(out, "{}", text::escape(&line))?;
                }
                TableOutput::Csv(out) => {
                    let cell = |cell| match cell {
                        TableCell::Text(text) if !self.raw => {
                            text::spreadsheet_cell(&text).into_owned()
                        }
                        TableCell::Text(text) | TableCell::Value(text) => text,
                    };
                    out.write_record(row.cells().into_iter().map(cell)).map_err(io_error)?;
                }
            }
        }
        match &mut self.out {
            TableOutput::Jsonl(out) => out.flush(),
            TableOutput::Csv(out) => out.flush(),
        }
    }

    /// Completes the output and reports the number of rows in a file on standard error.
    pub(super) fn finish(self, row: &str) -> Result<(), OutputError> {
        match self.out {
            TableOutput::Jsonl(file) => file.finish()?,
            TableOutput::Csv(mut out) => {
                let flushed = out.flush();
                flushed.map_err(|error| out.get_ref().error(error))?;
                match out.into_inner() {
                    Ok(file) => file.finish()?,
                    Err(failed) => {
                        let kind = failed.error().kind();
                        return Err(failed.into_inner().get_ref().error(kind.into()));
                    }
                }
            }
        }
        if let Some(place) = self.place {
            output::report(format_args!("{} written to {place}", counted(self.rows, row)));
        }
        Ok(())
    }
}

/// The error of the file below. The conversion of the library would hide that the reader of a pipe has gone.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
