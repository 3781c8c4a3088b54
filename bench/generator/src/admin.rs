//! Creates the events of a run through the admin port of the server.

use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{CreateEventRequest, ImportSeatsRequest, NewSeat, Price};
use tonic::transport::{Channel, Endpoint};

use crate::limits;
use crate::scenario::Scenario;
use crate::wire::request::{seat_id, seat_place};

/// Why the events could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateEventsError {
    #[error("no admin port answers at {address}: {source}")]
    Unreachable { address: String, source: tonic::transport::Error },
    #[error("event {event}: {status}")]
    Refused { event: String, status: Box<tonic::Status> },
    #[error("event {event} exists already: choose another --run")]
    CpuUse { event: String },
}

/// Creates `events` according to `scenario`, including seats.
///
/// # Errors
/// The first event that cannot be created.
pub(crate) async fn create(
    address: &str,
    scenario: &Scenario,
    events: &[String],
) -> Result<(), CreateEventsError> {
    let unreachable =
        |source| CreateEventsError::Unreachable { address: address.to_owned(), source };
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(unreachable)?
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .timeout(limits::ADMIN_TIMEOUT)
        .connect()
        .await
        .map_err(unreachable)?;
    let mut admin = InventoryAdminClient::new(channel);
    for event in events {
        let refused =
            |status| CreateEventsError::Refused { event: event.clone(), status: Box::new(status) };
        let seats = scenario.events.seats.unwrap_or(0);
        let bounded = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let request = CreateEventRequest {
            event_id: event.clone(),
            total: i64::try_from(scenario.events.stock.unwrap_or(0)).unwrap_or(i64::MAX),
            stripes: match seats {
                0 => bounded(scenario.stripes()),
                _ => 0,
            },
            seat_keys: match seats {
                0 => 0,
                _ => bounded(scenario.seat_keys()),
            },
            name: scenario.title.chars().take(60).collect(),
            venue: String::new(),
        };
        let created = admin.create_event(request).await.map_err(refused)?.into_inner();
        if !created.created {
            return Err(CreateEventsError::CpuUse { event: event.clone() });
        }
        if seats > 0 {
            import(&mut admin, event, seats).await.map_err(refused)?;
        }
    }
    Ok(())
}

async fn import(
    admin: &mut InventoryAdminClient<Channel>,
    event: &str,
    seats: u64,
) -> Result<(), tonic::Status> {
    let seats = u32::try_from(seats).unwrap_or(u32::MAX);
    let step = u32::try_from(limits::SEATS_PER_IMPORT).unwrap_or(1);
    let event = event.to_owned();
    let messages = (0..seats.div_ceil(step)).map(move |n| ImportSeatsRequest {
        event_id: event.clone(),
        seats: (n * step..((n + 1) * step).min(seats)).map(new_seat).collect(),
    });
    admin.import_seats(futures::stream::iter(messages)).await?;
    Ok(())
}

fn new_seat(n: u32) -> NewSeat {
    let (section, row, number) = seat_place(n);
    NewSeat {
        seat_id: seat_id(n),
        section: format!("S{section:03}"),
        row: format!("{row:05}"),
        number: format!("{number:02}"),
        price: Some(Price { amount: 10_000, currency: "KRW".to_owned() }),
    }
}
