//! `export`: streams the reservations of an event.
//!
//! Memory holds one page. A file is written under a temporary name and renamed when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use inventory_proto::inventory::v1 as pb;

use super::admin::AdminPort;
use super::args::{ExportArgs, ExportFormat, ExportStatus};
use super::event::silent;
use super::{CommandError, show};
use crate::limits::COMMAND_CALL_TIMEOUT;

const COLUMNS: [&str; 10] = [
    "reservation_id",
    "event_id",
    "status",
    "quantity",
    "seat_ids",
    "order_id",
    "payment_intent_id",
    "expires_at",
    "created_at",
    "changed_at",
];

pub(super) fn run(args: &ExportArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.server)?;
    let Some(path) = &args.out else {
        let stdout = BufWriter::new(io::stdout().lock());
        return match ExportWriter::new(args.format, stdout).take_all(&port, args) {
            // A closed pipe (`| head`) is not an error.
            Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            ended => ended.map_err(|ended| ended.explain("standard output")),
        };
    };
    let part = part_of(path);
    let shown = path.display().to_string();
    let written = File::create(&part)
        .map_err(ExportError::Write)
        .and_then(|file| ExportWriter::new(args.format, BufWriter::new(file)).take_all(&port, args))
        .and_then(|()| fs::rename(&part, path).map_err(ExportError::Write));
    written.map_err(|ended| {
        // What is there is not whole.
        let _ = fs::remove_file(&part);
        ended.explain(&shown)
    })
}

/// Where a file is written until it is whole: beside its place, so that moving it there is one step.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// Why an export stopped.
enum ExportError {
    Write(io::Error),
    Failed(CommandError),
}

impl ExportError {
    fn explain(self, place: &str) -> CommandError {
        match self {
            Self::Write(error) => {
                CommandError::failed(format!("{place} cannot be written: {error}"))
            }
            Self::Failed(failure) => failure,
        }
    }
}

/// Where reservations are written to.
enum ExportWriter<W: Write> {
    Jsonl(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> ExportWriter<W> {
    fn new(format: ExportFormat, out: W) -> Self {
        match format {
            ExportFormat::Jsonl => Self::Jsonl(out),
            ExportFormat::Csv => Self::Csv(Box::new(csv::Writer::from_writer(out))),
        }
    }

    /// Reads the listing to its end.
    fn take_all(mut self, port: &AdminPort, args: &ExportArgs) -> Result<(), ExportError> {
        let request = pb::ListReservationsRequest {
            event_id: args.event.to_string(),
            status: args.status.map_or(0, |status| wanted(status).into()),
        };
        let mut stopped = None;
        let read = port.long(async |mut admin| {
            let failed = |status| port.explain(&args.event, &status);
            let answer = admin.list_reservations(request).await;
            let mut pages = answer.map_err(failed)?.into_inner();
            stopped = self.head().err();
            while stopped.is_none() {
                let next = tokio::time::timeout(COMMAND_CALL_TIMEOUT, pages.message()).await;
                let next = next.map_err(|_| silent(port))?;
                let Some(page) = next.map_err(failed)? else {
                    break;
                };
                stopped = self.page(&page.reservations).err();
            }
            Ok(())
        });
        read.map_err(ExportError::Failed)?;
        match stopped {
            Some(error) => Err(ExportError::Write(error)),
            None => Ok(()),
        }
    }

    fn head(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(out) => out.write_record(COLUMNS).map_err(io::Error::from),
        }
    }

    /// Flushes after each page, so that a reader of the pipe sees complete pages.
    fn page(&mut self, reservations: &[pb::Reservation]) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => {
                for one in reservations {
                    writeln!(out, "{}", show::reservation_json(one))?;
                }
                out.flush()
            }
            Self::Csv(out) => {
                for one in reservations {
                    out.write_record(row(one))?;
                }
                out.flush()
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

/// One reservation under [`COLUMNS`].
fn row(one: &pb::Reservation) -> [String; 10] {
    let when = |ms| show::time(ms).unwrap_or_default();
    [
        one.reservation_id.clone(),
        one.event_id.clone(),
        show::status(one).to_owned(),
        one.quantity.to_string(),
        one.seat_ids.join(" "),
        one.order_id.clone(),
        one.payment_intent_id.clone(),
        when(one.expires_at_ms),
        when(one.created_at_ms),
        when(one.changed_at_ms),
    ]
}
