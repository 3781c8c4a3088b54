//! `seats import`, `seats list`, `seats block` and `seats unblock`.

mod check;
mod file;
pub(super) mod list;
mod progress;
mod send;

#[cfg(any(test, fuzzing))]
pub use file::fuzzing::seat_file;

use std::time::{Duration, Instant};

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::admin::AdminPort;
use super::args::{BlockArgs, ImportArgs, SeatsCommand};
use super::views::{EventView, counted, grouped, short_name};
use super::{CommandError, View, event, show};
use crate::limits::SEATS_PER_CHUNK_MAX;
use crate::output::{self, Align, TextTable};
use inventory_core::ids::SeatId;

pub(super) fn run(command: &SeatsCommand) -> Result<(), CommandError> {
    match command {
        SeatsCommand::Import(args) => import(args),
        SeatsCommand::List(args) => list::run(args),
        SeatsCommand::Block(args) => block(args, SeatChange::Block),
        SeatsCommand::Unblock(args) => block(args, SeatChange::Unblock),
    }
}

// ---- Import -------------------------------------------------------------------------------------

fn import(args: &ImportArgs) -> Result<(), CommandError> {
    let seats = file::seats(&args.file)?;
    if args.check {
        return show(&check::CheckedFileView::of(args, &seats), args.admin.json);
    }
    let port = AdminPort::find(&args.admin.server)?;
    let created = match args.create {
        true => Some(create(&port, args)?),
        false => None,
    };
    if created == Some(false) {
        output::report(format_args!(
            "note: event {} exists; its seats stay, and those of the file are added or changed",
            args.event
        ));
    }
    let begun = Instant::now();
    let bar = progress::ImportProgress::new(seats.len(), args.admin.json);
    let answer = port.long(async |admin| {
        send::SeatSender::new(&port, &args.event, seats, &bar).send(admin).await
    });
    bar.finish(answer.is_ok());
    let stored = answer?;
    // The server also reads the seats here, so that the next query does not wait.
    let took = begun.elapsed();
    let event = event::read(&port, args.event.as_str());
    if let Err(error) = &event {
        output::report(format_args!("the event cannot be read: {}", error.message));
    }
    let event = event.ok().map(EventView::from);
    show(&ImportView::of(args, &stored, event, took), args.admin.json)
}

/// A completed import.
#[derive(Debug, Serialize)]
struct ImportView {
    event_id: String,
    /// Seats of the file that are stored: the sum of the next three.
    written: i64,
    added: i64,
    changed: i64,
    unchanged: i64,
    /// Of the changed seats.
    changed_held: i64,
    changed_sold: i64,
    /// After the import, if it could be read.
    event: Option<EventView>,
    #[serde(skip)]
    took: Duration,
}

impl ImportView {
    fn of(
        args: &ImportArgs,
        stored: &pb::ImportSeatsResponse,
        event: Option<EventView>,
        took: Duration,
    ) -> Self {
        Self {
            event_id: args.event.to_string(),
            written: stored.written,
            added: stored.added,
            changed: stored.changed,
            unchanged: stored.unchanged,
            changed_held: stored.changed_held,
            changed_sold: stored.changed_sold,
            event,
            took,
        }
    }
}

impl View for ImportView {
    fn text(&self) -> String {
        let parts = [("new", self.added), ("changed", self.changed), ("unchanged", self.unchanged)];
        let parts = parts.iter().filter(|(_, number)| *number > 0);
        let parts = parts.map(|(name, number)| format!("{} {name}", grouped(*number)));
        let mut text = format!(
            "{} stored in {:.1} s: {}",
            counted(self.written, "seat"),
            self.took.as_secs_f64(),
            parts.collect::<Vec<_>>().join(", ")
        );
        let taken = [("held", self.changed_held), ("sold", self.changed_sold)];
        let taken = taken.iter().filter(|(_, number)| *number > 0);
        let taken: Vec<_> =
            taken.map(|(name, number)| format!("{} {name}", grouped(*number))).collect();
        if !taken.is_empty() {
            text.push_str(&format!(
                "\nchanged while taken: {}; their reservations keep the price that they recorded",
                taken.join(", ")
            ));
        }
        match &self.event {
            Some(event) => format!("{text}\n\n{}", event.text()),
            None => text,
        }
    }
}

/// Creates the event; false if it existed.
fn create(port: &AdminPort<'_>, args: &ImportArgs) -> Result<bool, CommandError> {
    let about = &args.about;
    let wanted = pb::CreateEventRequest {
        event_id: args.event.to_string(),
        total: 0,
        stripes: 0,
        seat_keys: about.seat_keys.unwrap_or(1).into(),
        name: about.name.clone().unwrap_or_default(),
        venue: about.venue.clone().unwrap_or_default(),
    };
    event::create_at(port, wanted).map(|(_, created)| created)
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
            "{} of {} not {}",
            grouped(wrong as i64),
            counted(results.len() as i64, "seat"),
            match change {
                SeatChange::Block => "blocked",
                SeatChange::Unblock => "unblocked",
            }
        ))),
    }
}

fn change_seats(
    port: &AdminPort<'_>,
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
