//! `seats list`: every seat of an event with its state, as text, CSV or JSON lines.

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use crate::cli::admin::{AdminClient, AdminPort};
use crate::cli::args::{SeatListArgs, SeatListState};
use crate::cli::event::silent;
use crate::cli::table_file::{TableCell, TableFile, TableRow};
use crate::cli::views::{counted, or_dash, short_name, time};
use crate::cli::{CommandError, money};
use crate::limits::COMMAND_CALL_TIMEOUT;
use crate::output::{self, Align, TextTable};
use inventory_core::ids::EventId;

pub(super) fn run(args: &SeatListArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.server)?;
    // Without a file and a format the output is text.
    if args.table.out.is_none() && args.table.format.is_none() {
        let seats = read(&port, args)?;
        return Ok(output::print(text(&seats))?);
    }
    let mut file = TableFile::open(&args.table)?;
    let seats = read(&port, args)?;
    file.head::<ListedSeat>()?;
    file.rows(seats)?;
    Ok(file.finish("seat")?)
}

/// All requested seats.
fn read(port: &AdminPort<'_>, args: &SeatListArgs) -> Result<Vec<ListedSeat>, CommandError> {
    let state = args.state.map_or(pb::SeatState::Unspecified, wanted);
    port.long_with_files(async |mut admin| {
        let mut seats = Vec::new();
        let take = |page: Vec<pb::StoredSeat>| seats.extend(page.into_iter().map(ListedSeat::from));
        read_pages(port, &args.event, state, &mut admin, take).await?;
        Ok(seats)
    })
}

/// Passes the seats of an event in this state to `take`, page by page.
pub(in crate::cli) async fn read_pages(
    port: &AdminPort<'_>,
    event: &EventId,
    state: pb::SeatState,
    admin: &mut AdminClient,
    mut take: impl FnMut(Vec<pb::StoredSeat>),
) -> Result<(), CommandError> {
    let failed = |status| port.explain(event, &status);
    let request = pb::ListSeatsRequest { event_id: event.to_string(), state: state.into() };
    let mut pages = admin.list_seats(request).await.map_err(failed)?.into_inner();
    loop {
        let next = tokio::time::timeout(COMMAND_CALL_TIMEOUT, pages.message()).await;
        let next = next.map_err(|_| silent(port))?;
        let Some(page) = next.map_err(failed)? else {
            return Ok(());
        };
        take(page.seats);
    }
}

fn wanted(state: SeatListState) -> pb::SeatState {
    match state {
        SeatListState::Available => pb::SeatState::Available,
        SeatListState::Held => pb::SeatState::Held,
        SeatListState::Sold => pb::SeatState::Sold,
        SeatListState::Blocked => pb::SeatState::Blocked,
    }
}

/// A seat as it is stored.
#[derive(Debug, Serialize)]
struct ListedSeat {
    seat_id: String,
    section: String,
    row: String,
    number: String,
    /// Decimal, as in a seat file.
    price: Option<String>,
    currency: Option<String>,
    state: String,
    reservation_id: Option<String>,
    hold_expires_at: Option<String>,
}

impl From<pb::StoredSeat> for ListedSeat {
    fn from(of: pb::StoredSeat) -> Self {
        let state = of.state().as_str_name();
        let price = of.price.as_ref();
        Self {
            state: short_name(state, "SEAT_STATE_").to_owned(),
            price: price.map(|price| money::decimal(price.amount, &price.currency)),
            currency: price.map(|price| price.currency.clone()),
            reservation_id: (!of.reservation_id.is_empty()).then_some(of.reservation_id),
            hold_expires_at: time(of.hold_expires_at_ms),
            seat_id: of.seat_id,
            section: of.section,
            row: of.row,
            number: of.number,
        }
    }
}

impl TableRow for ListedSeat {
    const COLUMNS: &'static [&'static str] = &[
        "seat_id",
        "section",
        "row",
        "number",
        "price",
        "currency",
        "state",
        "reservation_id",
        "hold_expires_at",
    ];

    fn cells(&self) -> Vec<TableCell> {
        let text = |text: &str| TableCell::Text(text.to_owned());
        let value = |of: &Option<String>| TableCell::Value(of.clone().unwrap_or_default());
        vec![
            text(&self.seat_id),
            text(&self.section),
            text(&self.row),
            text(&self.number),
            value(&self.price),
            value(&self.currency),
            text(&self.state),
            text(self.reservation_id.as_deref().unwrap_or_default()),
            value(&self.hold_expires_at),
        ]
    }
}

fn text(seats: &[ListedSeat]) -> String {
    const LEFT: Align = Align::Left;
    let mut table = TextTable::new(&[LEFT, LEFT, LEFT, LEFT, Align::Right, LEFT, LEFT, LEFT, LEFT]);
    table.row([
        "seat",
        "section",
        "row",
        "number",
        "price",
        "",
        "state",
        "reservation",
        "hold ends",
    ]);
    let maybe = |text: &Option<String>| text.clone().unwrap_or_default();
    for seat in seats {
        table.row([
            seat.seat_id.as_str(),
            or_dash(&seat.section),
            or_dash(&seat.row),
            or_dash(&seat.number),
            or_dash(&maybe(&seat.price)),
            &maybe(&seat.currency),
            &seat.state.to_lowercase(),
            &maybe(&seat.reservation_id),
            &maybe(&seat.hold_expires_at),
        ]);
    }
    format!("{table}\n\n{}", counted(seats.len() as i64, "seat"))
}
