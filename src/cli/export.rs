//! `export`: streams the reservations of an event into a file or to standard output. Memory holds one page.

use std::io::{self, Write};
use std::path::Path;

use inventory_proto::inventory::v1 as pb;

use super::CommandError;
use super::admin::{AdminClient, AdminPort};
use super::args::{ExportArgs, ExportFormat, ExportStatus};
use super::event::silent;
use super::views::ReservationView;
use crate::limits::COMMAND_CALL_TIMEOUT;
use crate::output::{OutputError, OutputFile};
use crate::text;

pub(super) fn run(args: &ExportArgs) -> Result<(), CommandError> {
    if args.raw && args.format == ExportFormat::Jsonl {
        return Err(CommandError::usage("--raw goes with --format csv: JSON lines are as stored"));
    }
    let port = AdminPort::find(&args.server)?;
    let file = OutputFile::open(args.out.as_deref().unwrap_or(Path::new("-")))?;
    let has_temporary_file = file.has_temporary_file();
    let mut writer = ExportWriter::new(args, file);
    let work = async |admin| copy_all(&mut writer, &port, args, admin).await;
    match has_temporary_file {
        true => port.long_with_files(work),
        false => port.long(work),
    }?;
    Ok(writer.finish()?)
}

/// Reads the listing to its end.
async fn copy_all(
    writer: &mut ExportWriter,
    port: &AdminPort,
    args: &ExportArgs,
    mut admin: AdminClient,
) -> Result<(), CommandError> {
    let failed = |status| port.explain(&args.event, &status);
    let request = pb::ListReservationsRequest {
        event_id: args.event.to_string(),
        status: args.status.map_or(0, |status| wanted(status).into()),
    };
    let mut pages = admin.list_reservations(request).await.map_err(failed)?.into_inner();
    writer.head()?;
    loop {
        let next = tokio::time::timeout(COMMAND_CALL_TIMEOUT, pages.message()).await;
        let next = next.map_err(|_| silent(port))?;
        let Some(page) = next.map_err(failed)? else {
            return Ok(());
        };
        writer.page(page.reservations)?;
    }
}

/// Where reservations are written to.
enum ExportWriter {
    Jsonl(Box<OutputFile>),
    Csv {
        out: Box<csv::Writer<OutputFile>>,
        /// Cells as they are stored.
        raw: bool,
    },
}

impl ExportWriter {
    fn new(args: &ExportArgs, file: OutputFile) -> Self {
        match args.format {
            ExportFormat::Jsonl => Self::Jsonl(Box::new(file)),
            ExportFormat::Csv => {
                Self::Csv { out: Box::new(csv::Writer::from_writer(file)), raw: args.raw }
            }
        }
    }

    fn error(&self, error: io::Error) -> OutputError {
        match self {
            Self::Jsonl(file) => file.error(error),
            Self::Csv { out, .. } => out.get_ref().error(error),
        }
    }

    fn head(&mut self) -> Result<(), OutputError> {
        let written = match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv { out, .. } => {
                out.write_record(ReservationView::COLUMNS).map_err(io::Error::from)
            }
        };
        written.map_err(|error| self.error(error))
    }

    fn page(&mut self, reservations: Vec<pb::Reservation>) -> Result<(), OutputError> {
        let written = self.write(reservations);
        written.map_err(|error| self.error(error))
    }

    /// Flushes after the page, so that a reader of a pipe sees complete pages.
    fn write(&mut self, reservations: Vec<pb::Reservation>) -> io::Result<()> {
        for one in reservations.into_iter().map(ReservationView::from) {
            match self {
                Self::Jsonl(out) => {
                    let line = serde_json::to_string(&one)?;
                    writeln!(out, "{}", text::escape(&line))?;
                }
                Self::Csv { out, raw: true } => out.write_record(one.cells())?,
                Self::Csv { out, raw: false } => {
                    let cells = one.cells();
                    let cells = cells.iter().map(|cell| text::spreadsheet_cell(cell));
                    out.write_record(cells.map(|cell| cell.into_owned()))?;
                }
            }
        }
        match self {
            Self::Jsonl(out) => out.flush(),
            Self::Csv { out, .. } => out.flush(),
        }
    }

    fn finish(self) -> Result<(), OutputError> {
        match self {
            Self::Jsonl(file) => file.finish(),
            Self::Csv { mut out, .. } => {
                let flushed = out.flush();
                flushed.map_err(|error| out.get_ref().error(error))?;
                match out.into_inner() {
                    Ok(file) => file.finish(),
                    Err(failed) => {
                        let kind = failed.error().kind();
                        Err(failed.into_inner().get_ref().error(kind.into()))
                    }
                }
            }
        }
    }
}

fn wanted(status: ExportStatus) -> pb::ReservationStatus {
    match status {
        ExportStatus::Held => pb::ReservationStatus::Held,
        ExportStatus::Confirmed => pb::ReservationStatus::Confirmed,
        ExportStatus::Released => pb::ReservationStatus::Released,
        ExportStatus::Expired => pb::ReservationStatus::Expired,
        ExportStatus::Refunded => pb::ReservationStatus::Refunded,
    }
}
