//! `seats import`, `seats block` and `seats unblock`.

mod file;
mod progress;
mod send;

use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use inventory_proto::inventory::v1 as pb;
use serde_json::json;

use super::admin::AdminPort;
use super::args::{BlockArgs, ImportArgs, SeatsCommand};
use super::{CommandError, event, say, say_json, show};
use crate::limits::{IMPORT_FILE_BYTES_MAX, SEATS_PER_CHUNK_MAX, SEATS_PER_EVENT_MAX};
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
        match args.admin.json {
            true => say_json(&json!({ "event_id": args.event.as_str(), "seats": count })),
            false => say(&format!("{} seats, and every line is good", grouped(count))),
        }
        return Ok(());
    }
    if args.create {
        create(&port, args)?;
    }
    let begun = Instant::now();
    let bar = progress::ImportProgress::new(count, args.admin.json);
    let answer = port.long(async |admin| {
        let sent = send::all(admin, &args.event, seats, &bar).await;
        sent.map_err(|stopped| stopped.explain(&port, args.event.as_str()))
    });
    bar.finish(answer.is_ok());
    let written = answer?.written;
    // The server also reads the seats here, so that the next query does not wait.
    let stands = event::read(&port, args.event.as_str());
    if args.admin.json {
        let stands = stands.ok().map(|event| show::event_json(&event));
        say_json(&json!({ "event_id": args.event.as_str(), "written": written, "event": stands }));
        return Ok(());
    }
    let took = begun.elapsed().as_secs_f64();
    let stands = match stands {
        Ok(event) => show::event(&event),
        Err(why) => format!("how the event stands cannot be said: {}", why.message),
    };
    say(&format!("{} seats written in {took:.1} s\n\n{stands}", show::grouped(written)));
    Ok(())
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

fn grouped(count: usize) -> String {
    show::grouped(count as i64)
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
        Some(path) => listed(path)?,
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
                tell(args, &results);
                return Err(why);
            }
        }
    }
    tell(args, &results);
    let wrong = results.iter().filter(|one| !is_done(one)).count();
    match wrong {
        0 => Ok(()),
        _ => Err(CommandError::failed(format!(
            "{} of {} seats are not {}",
            grouped(wrong),
            grouped(results.len()),
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

fn tell(args: &BlockArgs, results: &[pb::SeatResult]) {
    if args.admin.json {
        let one =
            |one: &pb::SeatResult| json!({ "seat_id": one.seat_id, "outcome": show::outcome(one) });
        let seats: Vec<_> = results.iter().map(one).collect();
        say_json(&json!({ "event_id": args.event.as_str(), "seats": seats }));
        return;
    }
    let row = |one: &pb::SeatResult| {
        let outcome = show::outcome(one).to_lowercase().replace('_', " ");
        vec![one.seat_id.clone(), outcome]
    };
    let rows: Vec<_> = results.iter().map(row).collect();
    say(&show::table(&["seat", "outcome"], &rows, &[0, 1]));
}

/// The seats of a file with one per line.
fn listed(path: &Path) -> Result<Vec<SeatId>, CommandError> {
    let mut text = String::new();
    let read = file::open(path)?.take(IMPORT_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| file::unreadable(path, &error))?;
    let mut seats = Vec::new();
    let mut problems = file::FileProblems::new(path);
    for (number, line) in (1..).zip(text.lines()) {
        match line.trim() {
            "" => {}
            line => match line.parse() {
                Ok(seat) => seats.push(seat),
                Err(error) => problems.add(number, format!("the seat {error}")),
            },
        }
    }
    problems.end()?;
    if seats.is_empty() || seats.len() > SEATS_PER_EVENT_MAX {
        return Err(CommandError::usage(format!(
            "{} names {} seats; want 1 to {SEATS_PER_EVENT_MAX}",
            file::shown(path),
            seats.len()
        )));
    }
    Ok(seats)
}

fn distinct(seats: &[SeatId]) -> Result<(), CommandError> {
    let mut seen = std::collections::HashSet::with_capacity(seats.len());
    match seats.iter().find(|seat| !seen.insert(*seat)) {
        Some(twice) => Err(CommandError::usage(format!("the seat {twice} is named twice"))),
        None => Ok(()),
    }
}
