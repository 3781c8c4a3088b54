//! `reservation show` and `reservation refund`.

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::admin::AdminPort;
use super::args::{ReservationArgs, ReservationCommand};
use super::views::ReservationView;
use super::{CommandError, View, show};

pub(super) fn run(command: &ReservationCommand) -> Result<(), CommandError> {
    let (ReservationCommand::Show(args) | ReservationCommand::Refund(args)) = command;
    let port = AdminPort::find(&args.admin.server)?;
    match command {
        ReservationCommand::Show(_) => {
            let found = read(&port, args)?.ok_or_else(|| port.half_an_answer())?;
            show(&ReservationView::from(found), args.admin.json)
        }
        ReservationCommand::Refund(_) => {
            let refund = refund(&port, args)?;
            let reservation = refund.reservation.ok_or_else(|| port.half_an_answer())?;
            let reservation = ReservationView::from(reservation);
            show(&RefundView { refunded: refund.refunded, reservation }, args.admin.json)
        }
    }
}

/// A reservation after `reservation refund`.
#[derive(Debug, Serialize)]
struct RefundView {
    /// False if it had been refunded before.
    refunded: bool,
    #[serde(flatten)]
    reservation: ReservationView,
}

impl View for RefundView {
    fn text(&self) -> String {
        let done = match self.refunded {
            true => format!("refunded: {} back on sale", self.reservation.stock()),
            false => "refunded before; nothing was changed".to_owned(),
        };
        format!("{done}\n\n{}", self.reservation.text())
    }
}

fn read(
    port: &AdminPort<'_>,
    args: &ReservationArgs,
) -> Result<Option<pb::Reservation>, CommandError> {
    let request = pb::GetReservationRequest { reservation_id: args.reservation.to_string() };
    let answer = port.call(&args.reservation, request, async |admin, request| {
        admin.get_reservation(request).await
    })?;
    Ok(answer.reservation)
}

fn refund(
    port: &AdminPort<'_>,
    args: &ReservationArgs,
) -> Result<pb::RefundReservationResponse, CommandError> {
    let request = pb::RefundReservationRequest { reservation_id: args.reservation.to_string() };
    port.call(&args.reservation, request, async |admin, request| {
        admin.refund_reservation(request).await
    })
}
