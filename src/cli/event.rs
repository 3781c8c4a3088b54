//! `event`: creating, showing, listing, restocking and closing events.

use std::io::{self, IsTerminal as _};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use inventory_proto::inventory::v1 as pb;
use tonic::Request;

use super::admin::{AdminClient, AdminPort};
use super::args::{
    AboutArgs, CloseArgs, CreateArgs, EventArgs, EventCommand, ListEventsArgs, RestockArgs,
};
use super::views::{CreatedEventView, EventListView, EventView, counted};
use super::{CommandError, show};
use crate::limits::{COMMAND_CALL_TIMEOUT, EVENTS_LISTED_MAX, EVENTS_READ_AT_ONCE};
use crate::output;

pub(super) fn run(command: &EventCommand) -> Result<(), CommandError> {
    match command {
        EventCommand::Create(args) => create(args),
        EventCommand::Show(args) => show_event(args),
        EventCommand::List(args) => list(args),
        EventCommand::Restock(args) => restock(args),
        EventCommand::Close(args) => close(args),
    }
}

fn create(args: &CreateArgs) -> Result<(), CommandError> {
    // 0: the server decides.
    let stripes = args.stripes.unwrap_or(0);
    let AboutArgs { seat_keys, name, venue } = &args.about;
    let (total, stripes, seat_keys) = match args.total {
        Some(total) if i64::from(stripes) > total => {
            return Err(CommandError::usage(format!(
                "--stripes {stripes} is more than --total {total}: a stripe needs at least one \
                 ticket"
            )));
        }
        Some(total) => (total, stripes, 0),
        None => (0, 0, seat_keys.unwrap_or(1)),
    };
    let port = AdminPort::find(&args.admin.server)?;
    let wanted = pb::CreateEventRequest {
        event_id: args.event.to_string(),
        total,
        stripes: stripes.into(),
        seat_keys: seat_keys.into(),
        name: name.clone(),
        venue: venue.clone(),
    };
    let (event, created) = create_at(&port, wanted)?;
    show(&CreatedEventView { created, event: event.into() }, args.admin.json)
}

/// The event, and whether it is new.
pub(super) fn create_at(
    port: &AdminPort<'_>,
    wanted: pb::CreateEventRequest,
) -> Result<(pb::EventStock, bool), CommandError> {
    let id = wanted.event_id.clone();
    let answer =
        port.call(&id, wanted, async |admin, request| admin.create_event(request).await)?;
    let event = answer.event.ok_or_else(|| port.half_an_answer())?;
    Ok((event, answer.created))
}

fn show_event(args: &EventArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    show(&EventView::from(read(&port, args.event.as_str())?), args.admin.json)
}

/// How the event stands.
pub(super) fn read(port: &AdminPort<'_>, event: &str) -> Result<pb::EventStock, CommandError> {
    let request = pb::GetEventRequest { event_id: event.to_owned() };
    let answer =
        port.call(event, request, async |admin, request| admin.get_event(request).await)?;
    answer.event.ok_or_else(|| port.half_an_answer())
}

fn list(args: &ListEventsArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    let events = port.long(async |admin| {
        let events = list_events(&port, admin.clone()).await?;
        match args.stock {
            false => Ok(events.into_iter().map(|event| (event, None)).collect()),
            true => read_stock(&port, admin, events).await,
        }
    })?;
    show(&EventListView::from_iter(events), args.admin.json)
}

/// All events by id.
async fn list_events(
    port: &AdminPort<'_>,
    mut admin: AdminClient,
) -> Result<Vec<pb::EventSummary>, CommandError> {
    let failed = |status| port.explain(&"list", &status);
    let answer = admin.list_events(pb::ListEventsRequest {}).await;
    let mut pages = answer.map_err(failed)?.into_inner();
    let mut events: Vec<pb::EventSummary> = Vec::new();
    loop {
        let next = tokio::time::timeout(COMMAND_CALL_TIMEOUT, pages.message()).await;
        let next = next.map_err(|_| silent(port))?;
        let Some(page) = next.map_err(failed)? else {
            events.sort_by(|a, b| a.event_id.cmp(&b.event_id));
            return Ok(events);
        };
        events.extend(page.events);
        if events.len() > EVENTS_LISTED_MAX {
            return Err(CommandError::failed(format!(
                "there are more than {EVENTS_LISTED_MAX} events: too many to sort and list"
            )));
        }
    }
}

/// Reads the stock of each event, in the order given.
async fn read_stock(
    port: &AdminPort<'_>,
    admin: AdminClient,
    events: Vec<pb::EventSummary>,
) -> Result<Vec<(pb::EventSummary, Option<pb::EventStock>)>, CommandError> {
    let read = stream::iter(events).map(|event| {
        let mut admin = admin.clone();
        async move {
            let mut request =
                Request::new(pb::GetEventRequest { event_id: event.event_id.clone() });
            request.set_timeout(COMMAND_CALL_TIMEOUT);
            let answer = tokio::time::timeout(COMMAND_CALL_TIMEOUT, admin.get_event(request)).await;
            let answer = answer.map_err(|_| silent(port))?;
            let answer = answer.map_err(|status| port.explain(&event.event_id, &status))?;
            let stock = answer.into_inner().event.ok_or_else(|| port.half_an_answer())?;
            Ok((event, Some(stock)))
        }
    });
    read.buffered(EVENTS_READ_AT_ONCE).try_collect().await
}

/// A server that stopped in the middle of a listing.
pub(super) fn silent(port: &AdminPort<'_>) -> CommandError {
    CommandError::failed(format!(
        "the server at {} has said nothing more for {COMMAND_CALL_TIMEOUT:?}",
        port.shown()
    ))
}

fn restock(args: &RestockArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    let id = args.event.as_str();
    let total = match (args.total, args.add) {
        (Some(total), _) => total,
        (None, added) => {
            let event = read(&port, id)?;
            if event.seated {
                return Err(CommandError::failed(format!(
                    "event {id} has seats: add more with `{}`",
                    port.command(format_args!("seats import {id} FILE"))
                )));
            }
            event.total.saturating_add(added.unwrap_or(0))
        }
    };
    let request = pb::SetTotalRequest { event_id: id.to_owned(), total };
    let answer = port.call(id, request, async |admin, request| admin.set_total(request).await)?;
    let event = answer.event.ok_or_else(|| port.half_an_answer())?;
    if event.closed {
        output::report(format_args!(
            "note: event {id} is closed and cannot be opened again: none of its tickets is on sale"
        ));
    }
    show(&EventView::from(event), args.admin.json)
}

fn close(args: &CloseArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.admin.server)?;
    if !args.yes && io::stdin().is_terminal() {
        let event = read(&port, args.event.as_str())?;
        if !event.closed {
            confirm_close(&event)?;
        }
    }
    let request = pb::CloseEventRequest { event_id: args.event.to_string() };
    let answer =
        port.call(&args.event, request, async |admin, request| admin.close_event(request).await)?;
    let event = answer.event.ok_or_else(|| port.half_an_answer())?;
    show(&EventView::from(event), args.admin.json)
}

/// Asks whether an event is to be closed.
fn confirm_close(event: &pb::EventStock) -> Result<(), CommandError> {
    let thing = if event.seated { "seat" } else { "ticket" };
    let left = counted(event.remaining, thing);
    let name = match event.name.as_str() {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    output::report(format_args!(
        "Event {}{name} has {left} available. A closed event cannot be opened again.\n\
         Close it? Type yes to confirm:",
        event.event_id
    ));
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(CommandError::failed)?;
    match line.trim() {
        "yes" => Ok(()),
        _ => Err(CommandError::failed("nothing was changed; --yes closes without a question")),
    }
}
