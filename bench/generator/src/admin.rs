//! Creates the events of a run through the admin port of the server.

use std::path::Path;

use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{CreateEventRequest, ImportSeatsRequest, NewSeat, Price};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

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
    #[error("{path}: {why}; want a file with a token of the admin port")]
    Token { path: String, why: String },
    #[error("event {event} exists already: choose another --run")]
    CpuUse { event: String },
}

/// Creates `events` according to `scenario`, including seats.
///
/// # Errors
/// The first event that cannot be created.
pub(crate) async fn create(
    address: &str,
    token: Option<&Path>,
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
    let token = TokenHeader::read(token)?;
    let mut admin = InventoryAdminClient::with_interceptor(channel, token);
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

/// Adds the first token of a file to each call.
#[derive(Clone)]
struct TokenHeader(Option<MetadataValue<Ascii>>);

impl TokenHeader {
    fn read(path: Option<&Path>) -> Result<Self, CreateEventsError> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let wrong = |why: String| {
            let path = path.display().to_string();
            CreateEventsError::Token { path, why }
        };
        let text = std::fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        // The name of the holder may be in front.
        let token = line.split_whitespace().last();
        let token = token.ok_or_else(|| wrong("no token".to_owned()))?;
        let header = MetadataValue::try_from(format!("Bearer {token}"));
        Ok(Self(Some(header.map_err(|_| wrong("a token with other characters".to_owned()))?)))
    }
}

impl Interceptor for TokenHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

async fn import(
    admin: &mut InventoryAdminClient<InterceptedService<Channel, TokenHeader>>,
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
