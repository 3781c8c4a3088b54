//! Holds that expired long ago: placed before an outage and moved into the past during it, as if the outage had lasted
//! for up to a day. All of their stock must be back soon after the store's return.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inventory_core::expiry_search::ExpiryBucket;
use inventory_core::ids::{EventId, SeatId, seat_key};
use inventory_core::time::UnixMillis;
use inventory_history::{CallEffect, CallOperation, StockSelection};
use serde_json::{Value, json};

use crate::clients::{RecordingClient, RepeatableCall, unix_ms};
use crate::http::call_store;
use crate::load::seat_id;
use crate::server::SERVERS;
use crate::stored_state::{MOVED_HALL, MOVED_UNITS, SEAT_KEYS};

/// Holds of units, and of one seat each.
const UNIT_HOLDS: usize = 20;
const SEAT_HOLDS: usize = 8;

/// Length of the holds: longer than the outage.
const HOLD: Duration = Duration::from_secs(600);

/// Ages of the expiries: from just beyond the scan interval of the reclaimer (`RECLAIM_SCAN_EVERY_MAX`, 10 min), the
/// longest of its windows, to a day.
const AGES: [Duration; 4] = [
    Duration::from_secs(11 * 60),
    Duration::from_secs(45 * 60),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(24 * 3_600),
];

/// Time limit of placing one hold.
const PLACE_MAX: Duration = Duration::from_secs(20);

/// Holds by their reservation, with the seat if they have one.
pub(crate) struct MovedHolds(Vec<(String, Option<String>)>);

impl MovedHolds {
    /// Places the holds through all servers. `generation` distinguishes those of several outages.
    ///
    /// # Errors
    /// A hold that cannot be placed.
    pub(crate) async fn place(client: &RecordingClient, generation: usize) -> Result<Self, String> {
        let mut holds = Vec::new();
        for n in 0..UNIT_HOLDS + SEAT_HOLDS {
            let reservation = format!("moved-{generation}-{n}");
            let seat = n.checked_sub(UNIT_HOLDS).map(seat_id);
            let (event, selection) = match &seat {
                None => (MOVED_UNITS, StockSelection::Units(1)),
                Some(seat) => (MOVED_HALL, StockSelection::seats([seat.clone()])),
            };
            let expires_at_ms = Some(unix_ms() + HOLD.as_millis() as u64);
            let operation = CallOperation::Hold { selection, expires_at_ms };
            let (reservation, event) = (reservation, event.to_owned());
            let call = RepeatableCall { reservation, event, operation };
            let began = Instant::now();
            for attempt in n.. {
                let effect = client.attempt(attempt % SERVERS, &call).await;
                if matches!(effect, CallEffect::Held { .. }) {
                    break;
                }
                if began.elapsed() > PLACE_MAX {
                    return Err(format!("{}: not held, but {effect}", call.reservation));
                }
            }
            holds.push((call.reservation, seat));
        }
        Ok(Self(holds))
    }

    /// Moves the expiries into the past.
    pub(crate) async fn move_back(&self, store: SocketAddr) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        for (n, (reservation, seat)) in self.0.iter().enumerate() {
            let expires_at = UnixMillis((now - AGES[n % AGES.len()]).as_millis() as u64);
            let bucket = ExpiryBucket::of(&reservation.parse().unwrap(), expires_at).to_string();
            let (millis, bucket) =
                (json!({ "N": expires_at.0.to_string() }), json!({ "S": bucket }));
            let key = json!({ "reservation_id": { "S": reservation } });
            let change = "SET expires_at = :at, expiry_bucket = :bucket";
            let values = json!({ ":at": millis, ":bucket": bucket });
            update(store, "idempotency", key, change, values).await;
            if let Some(seat) = seat {
                let hall: EventId = MOVED_HALL.parse().unwrap();
                let id: SeatId = seat.parse().unwrap();
                let key = seat_key(&hall, &id, SEAT_KEYS);
                let key = json!({ "event_id": { "S": key }, "seat_id": { "S": seat } });
                let change = "SET hold_expires_at = :at";
                update(store, "inventory_seats", key, change, json!({ ":at": millis })).await;
            }
        }
    }

    /// Number of holds that are still held.
    pub(crate) async fn held(&self, store: SocketAddr) -> usize {
        let mut held = 0;
        for (reservation, _) in &self.0 {
            let key = json!({ "reservation_id": { "S": reservation } });
            let get = json!({ "TableName": "idempotency", "Key": key, "ConsistentRead": true });
            let (_, answer) = call_store(store, "GetItem", &get).await.unwrap();
            held += usize::from(answer["Item"]["status"]["S"] == "HELD");
        }
        held
    }
}

async fn update(store: SocketAddr, table: &str, key: Value, change: &str, values: Value) {
    let body = json!({
        "TableName": table,
        "Key": key,
        "UpdateExpression": change,
        "ExpressionAttributeValues": values,
    });
    let (status, answer) = call_store(store, "UpdateItem", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
}
