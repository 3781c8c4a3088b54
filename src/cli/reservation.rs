//! `reservation show` and `reservation refund`.

use inventory_proto::inventory::v1 as pb;

use super::admin::AdminPort;
use super::args::{ReservationArgs, ReservationCommand};
use super::views::ReservationView;
use super::{CommandError, show};

pub(super) fn run(command: &ReservationCommand) -> Result<(), CommandError> {
    let (ReservationCommand::Show(args) | ReservationCommand::Refund(args)) = command;
    let port = AdminPort::find(&args.admin.server)?;
    let found = match command {
        ReservationCommand::Show(_) => read(&port, args)?,
        ReservationCommand::Refund(_) => refund(&port, args)?,
    };
    let found = found.ok_or_else(|| port.half_an_answer())?;
    show(&ReservationView::from(found), args.admin.json)
}

fn read(port: &AdminPort, args: &ReservationArgs) -> Result<Option<pb::Reservation>, CommandError> {
    let request = pb::GetReservationRequest { reservation_id: args.reservation.to_string() };
    let answer = port.call(&args.reservation, request, async |admin, request| {
        admin.get_reservation(request).await
    })?;
    Ok(answer.reservation)
}

fn refund(
    port: &AdminPort,
    args: &ReservationArgs,
) -> Result<Option<pb::Reservation>, CommandError> {
    let request = pb::RefundReservationRequest { reservation_id: args.reservation.to_string() };
    let answer = port.call(&args.reservation, request, async |admin, request| {
        admin.refund_reservation(request).await
    })?;
    Ok(answer.reservation)
}
