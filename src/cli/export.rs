//! `export`: streams the reservations of an event into a file or to standard output. Memory holds one page.

use std::collections::HashMap;

use inventory_proto::inventory::v1 as pb;

use super::CommandError;
use super::admin::{AdminClient, AdminPort};
use super::args::{ExportArgs, ExportStatus};
use super::event::silent;
use super::seats::list;
use super::table_file::TableFile;
use super::views::ExportedReservation;
use crate::limits::COMMAND_CALL_TIMEOUT;
use inventory_core::ids::EventId;

pub(super) fn run(args: &ExportArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.server)?;
    let mut file = TableFile::open(&args.table)?;
    let has_temporary_file = file.has_temporary_file();
    let work = async |admin| copy_all(&mut file, &port, args, admin).await;
    match has_temporary_file {
        true => port.long_with_files(work),
        false => port.long(work),
    }?;
    Ok(file.finish("reservation")?)
}

/// Reads the listing to its end.
async fn copy_all(
    file: &mut TableFile,
    port: &AdminPort<'_>,
    args: &ExportArgs,
    mut admin: AdminClient,
) -> Result<(), CommandError> {
    let failed = |status| port.explain(&args.event, &status);
    let request = pb::GetEventRequest { event_id: args.event.to_string() };
    let event = admin.get_event(request).await.map_err(failed)?.into_inner().event;
    let event = event.ok_or_else(|| port.half_an_answer())?;
    let names = match event.seated {
        true => seat_names(port, &args.event, &mut admin).await?,
        false => HashMap::new(),
    };
    let request = pb::ListReservationsRequest {
        event_id: args.event.to_string(),
        status: args.status.map_or(0, |status| wanted(status).into()),
    };
    let mut pages = admin.list_reservations(request).await.map_err(failed)?.into_inner();
    file.head::<ExportedReservation>()?;
    loop {
        let next = tokio::time::timeout(COMMAND_CALL_TIMEOUT, pages.message()).await;
        let next = next.map_err(|_| silent(port))?;
        let Some(page) = next.map_err(failed)? else {
            return Ok(());
        };
        let rows = page.reservations.into_iter();
        file.rows(rows.map(|one| ExportedReservation::new(one, &event, &names)))?;
    }
}

/// Section, row and number of each seat of an event.
async fn seat_names(
    port: &AdminPort<'_>,
    event: &EventId,
    admin: &mut AdminClient,
) -> Result<HashMap<String, String>, CommandError> {
    let mut names = HashMap::new();
    let take = |page: Vec<pb::StoredSeat>| {
        names.extend(page.into_iter().map(|seat| {
            let parts = [seat.section, seat.row, seat.number];
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            (seat.seat_id, parts.join(" "))
        }));
    };
    list::read_pages(port, event, pb::SeatState::Unspecified, admin, take).await?;
    Ok(names)
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
