//! `seats import`, `seats block` and `seats unblock`.

mod file;
mod progress;
mod send;

use std::time::{Duration, Instant};

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::admin::AdminPort;
use super::args::{BlockArgs, ImportArgs, SeatsCommand};
use super::views::{EventView, grouped, short_name};
use super::{CommandError, View, event, show};
use crate::limits::SEATS_PER_CHUNK_MAX;
use crate::output::{self, Align, TextTable};
use inventory_core::ids::SeatId;

pub(super) fn run(command: &SeatsCommand) -> Result<(), CommandError> {
    match command {
        SeatsCommand::Import(args) => import(args),
        SeatsCommand::Block(args) => block(args, SeatChange::Block),
        SeatsCommand::Unblock(args) => block(args, SeatChange::Unblock),
    }
}

// ---- Import -------------------------------------------------------------------------------------

fn import(args: &ImportArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    let seats = file::seats(&args.file)?;
    let count = seats.len();
    if args.check {
        let view = CheckedFileView { event_id: args.event.to_string(), seats: count };
        return show(&view, args.admin.json);
    }
    if args.create {
        create(&port, args)?;
    }
    let begun = Instant::now();
    let bar = progress::ImportProgress::new(count, args.admin.json);
    let answer = port.long(async |admin| {
        send::SeatSender::new(&port, &args.event, seats, &bar).send(admin).await
    });
    bar.finish(answer.is_ok());
    let pb::ImportSeatsResponse { written, unchanged, .. } = answer?;
    // The server also reads the seats here, so that the next query does not wait.
    let took = begun.elapsed();
    let event = event::read(&port, args.event.as_str());
    if let Err(error) = &event {
        output::report(format_args!("the event cannot be read: {}", error.message));
    }
    let event = event.ok().map(EventView::from);
    let view = ImportView { event_id: args.event.to_string(), written, unchanged, event, took };
    show(&view, args.admin.json)
}

/// A seat file that was checked and not sent.
#[derive(Debug, Serialize)]
struct CheckedFileView {
    event_id: String,
    seats: usize,
}

impl View for CheckedFileView {
    fn text(&self) -> String {
        format!("{} seats, and every line is good", count_text(self.seats))
    }
}

/// A completed import.
#[derive(Debug, Serialize)]
struct ImportView {
    event_id: String,
    /// Seats of the file that are stored.
    written: i64,
    /// Of those, seats that were stored already.
    unchanged: i64,
    /// After the import, if it could be read.
    event: Option<EventView>,
    #[serde(skip)]
    took: Duration,
}

impl View for ImportView {
    fn text(&self) -> String {
        let Self { written, unchanged, event, took, .. } = self;
        let text = format!("{} seats written in {:.1} s", grouped(*written), took.as_secs_f64());
        let text = match unchanged {
            0 => text,
            unchanged => format!("{text}, {} of them stored before", grouped(*unchanged)),
        };
        match event {
            Some(event) => format!("{text}\n\n{}", event.text()),
            None => text,
        }
    }
}

fn create(port: &AdminPort, args: &ImportArgs) -> Result<(), CommandError> {
    let about = &args.about;
    let wanted = pb::CreateEventRequest {
        event_id: args.event.to_string(),
        total: 0,
        stripes: 0,
        seat_keys: about.seat_keys.unwrap_or(1).into(),
        name: about.name.clone().unwrap_or_default(),
        venue: about.venue.clone().unwrap_or_default(),
    };
    event::create_at(port, wanted).map(drop)
}

fn count_text(count: usize) -> String {
    grouped(count as i64)
}

// ---- Block and unblock --------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatChange {
    Block,
    Unblock,
}

fn block(args: &BlockArgs, change: SeatChange) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    let seats = match &args.file {
        Some(path) => file::seat_ids(path)?,
        None => args.seats.clone(),
    };
    distinct(&seats)?;
    let mut results = Vec::with_capacity(seats.len());
    for part in seats.chunks(SEATS_PER_CHUNK_MAX) {
        match change_seats(&port, args, part, change) {
            Ok(done) => results.extend(done),
            Err(why) if results.is_empty() => return Err(why),
            // Changes are reported even after an error.
            Err(why) => {
                show(&BlockedSeatsView::of(args, &results), args.admin.json)?;
                return Err(why);
            }
        }
    }
    show(&BlockedSeatsView::of(args, &results), args.admin.json)?;
    let wrong = results.iter().filter(|one| !is_done(one)).count();
    match wrong {
        0 => Ok(()),
        _ => Err(CommandError::failed(format!(
            "{} of {} seats are not {}",
            count_text(wrong),
            count_text(results.len()),
            match change {
                SeatChange::Block => "blocked",
                SeatChange::Unblock => "unblocked",
            }
        ))),
    }
}

fn change_seats(
    port: &AdminPort,
    args: &BlockArgs,
    seats: &[SeatId],
    change: SeatChange,
) -> Result<Vec<pb::SeatResult>, CommandError> {
    let event_id = args.event.to_string();
    let seat_ids = seats.iter().map(SeatId::to_string).collect();
    match change {
        SeatChange::Block => {
            let request = pb::BlockSeatsRequest { event_id, seat_ids };
            let answer = port.call(&args.event, request, async |admin, request| {
                admin.block_seats(request).await
            })?;
            Ok(answer.seats)
        }
        SeatChange::Unblock => {
            let request = pb::UnblockSeatsRequest { event_id, seat_ids };
            let answer = port.call(&args.event, request, async |admin, request| {
                admin.unblock_seats(request).await
            })?;
            Ok(answer.seats)
        }
    }
}

fn is_done(result: &pb::SeatResult) -> bool {
    let outcome = result.outcome();
    matches!(outcome, pb::SeatOutcome::Changed | pb::SeatOutcome::Unchanged)
}

/// Outcome for each seat of a command.
#[derive(Debug, Serialize)]
struct BlockedSeatsView {
    event_id: String,
    seats: Vec<SeatOutcomeRow>,
}

#[derive(Debug, Serialize)]
struct SeatOutcomeRow {
    seat_id: String,
    outcome: String,
}

impl BlockedSeatsView {
    fn of(args: &BlockArgs, results: &[pb::SeatResult]) -> Self {
        let row = |one: &pb::SeatResult| SeatOutcomeRow {
            seat_id: one.seat_id.clone(),
            outcome: short_name(one.outcome().as_str_name(), "SEAT_OUTCOME_").to_owned(),
        };
        Self { event_id: args.event.to_string(), seats: results.iter().map(row).collect() }
    }
}

impl View for BlockedSeatsView {
    fn text(&self) -> String {
        let mut table = TextTable::new(&[Align::Left, Align::Left]);
        table.row(["seat", "outcome"]);
        for seat in &self.seats {
            table.row([&seat.seat_id, &seat.outcome.to_lowercase().replace('_', " ")]);
        }
        table.to_string()
    }
}

fn distinct(seats: &[SeatId]) -> Result<(), CommandError> {
    let mut seen = std::collections::HashSet::with_capacity(seats.len());
    match seats.iter().find(|seat| !seen.insert(*seat)) {
        Some(twice) => Err(CommandError::usage(format!("the seat {twice} is named twice"))),
        None => Ok(()),
    }
}
