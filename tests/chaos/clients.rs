//! Clients that call the servers and record every attempt: what was sent, when, and what came back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inventory_client::{CallOutcome, InventoryClient, code_name, reason};
use inventory_history::{CallEffect, CallOperation, FinalStatus, HistoryRecorder, StockSelection};
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use inventory_proto::inventory::v1::{
    CommitReq, GetReservationReq, PlaceHoldReq, RefundReservationRequest, ReleaseReq, SeatRef,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// Deadline of a call.
pub(crate) const CALL_TIMEOUT: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(3) } else { Duration::from_secs(1) };

/// Time after its deadline at which the client gives up a call.
const DEADLINE_SLACK: Duration = Duration::from_millis(200);

/// The two ports of a server that clients call.
#[derive(Clone)]
struct ServerChannels {
    grpc: InventoryClient,
    admin: InventoryAdminClient<Channel>,
}

/// One client, with a connection to each port of each server.
#[derive(Clone)]
pub(crate) struct RecordingClient {
    number: u32,
    servers: Vec<ServerChannels>,
    recorder: HistoryRecorder,
    failures: FailureCounts,
}

/// Where a server is called.
pub(crate) struct ServerEndpoints {
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: String,
}

/// Failed attempts by status and reason.
pub(crate) type FailureCounts = Arc<Mutex<BTreeMap<String, u64>>>;

/// A call that can be repeated: the same reservation, the same payload.
#[derive(Clone, Debug)]
pub(crate) struct RepeatableCall {
    pub(crate) reservation: String,
    pub(crate) event: String,
    pub(crate) operation: CallOperation,
}

impl RecordingClient {
    /// Connects with the first call, and again after a loss.
    pub(crate) fn new(
        number: u32,
        addresses: &[ServerEndpoints],
        recorder: HistoryRecorder,
        failures: FailureCounts,
    ) -> Self {
        let connect = |address: &dyn Display| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            endpoint.tcp_nodelay(true).connect_timeout(CALL_TIMEOUT).connect_lazy()
        };
        let channels = |server: &ServerEndpoints| ServerChannels {
            grpc: InventoryClient::new(connect(&server.grpc)),
            admin: InventoryAdminClient::new(connect(&server.admin)),
        };
        let servers = addresses.iter().map(channels).collect();
        Self { number, servers, recorder, failures }
    }

    /// One attempt at one server.
    pub(crate) async fn attempt(&self, server: usize, call: &RepeatableCall) -> CallEffect {
        let client = self.servers[server].clone();
        let RepeatableCall { reservation, event, operation } = call.clone();
        let id = self.recorder.begin(self.number, &reservation, &event, operation);
        let answer = tokio::time::timeout(CALL_TIMEOUT + DEADLINE_SLACK, send(client, call));
        let effect = match answer.await {
            Ok(Ok(effect)) => effect,
            Ok(Err(status)) => {
                self.count_failure(&status);
                effect_of(&status)
            }
            Err(_) => {
                self.count_failure(&Status::deadline_exceeded("the client gave up"));
                CallEffect::Unknown
            }
        };
        self.recorder.end(id, effect.clone());
        effect
    }

    fn count_failure(&self, status: &Status) {
        let name = match (CallOutcome::of(status), reason(status)) {
            (CallOutcome::NeverProcessed, _) => "never processed".to_owned(),
            (CallOutcome::Lost, reason) if reason.is_empty() => "no answer".to_owned(),
            (_, reason) => format!("{} {reason}", code_name(status.code())),
        };
        *self.failures.lock().unwrap().entry(name).or_default() += 1;
    }
}

async fn send(server: ServerChannels, call: &RepeatableCall) -> Result<CallEffect, Status> {
    let ServerChannels { grpc: mut client, mut admin } = server;
    let (reservation_id, event_id) = (call.reservation.clone(), call.event.clone());
    match &call.operation {
        CallOperation::Commit { selection } => {
            let (qty, seat_ids) = payload(selection);
            let payment_intent_id = "pi_1".to_owned();
            let commit = CommitReq { reservation_id, event_id, qty, seat_ids, payment_intent_id };
            let answer = client.commit_reservation(with_timeout(commit)).await?.into_inner();
            Ok(CallEffect::Confirmed { order_id: answer.order_id })
        }
        CallOperation::Hold { selection, expires_at_ms } => {
            let (qty, seat_ids) = payload(selection);
            let expiry = expires_at_ms.map(|at| UNIX_EPOCH + Duration::from_millis(at));
            let hold = PlaceHoldReq {
                reservation_id,
                event_id,
                qty,
                seat_ids,
                section: String::new(),
                hold_expires_at: expiry.map(Into::into),
            };
            let answer = client.place_hold(with_timeout(hold)).await?.into_inner();
            let expiry = answer.hold_expires_at.unwrap_or_default();
            let expires_at_ms = expiry.seconds as u64 * 1_000 + expiry.nanos as u64 / 1_000_000;
            let seats = answer.seat_ids.into_iter().map(|seat| seat.seat_id).collect();
            Ok(CallEffect::Held { expires_at_ms, seats })
        }
        CallOperation::Release { selection } => {
            let (qty, seat_ids) = payload(selection);
            let release = ReleaseReq { reservation_id, event_id, qty, seat_ids };
            client.release_hold(with_timeout(release)).await?;
            Ok(CallEffect::Released)
        }
        CallOperation::Read => {
            let read = GetReservationReq { reservation_id };
            let answer = client.get_reservation(with_timeout(read)).await?.into_inner();
            let status = FinalStatus::of_name(&answer.status).unwrap();
            Ok(CallEffect::Read { status })
        }
        CallOperation::Refund => {
            let refund = RefundReservationRequest { reservation_id };
            admin.refund_reservation(with_timeout(refund)).await?;
            Ok(CallEffect::Refunded)
        }
    }
}

fn payload(selection: &StockSelection) -> (i32, Vec<SeatRef>) {
    match selection {
        StockSelection::Units(units) | StockSelection::AnySeats(units) => {
            (i32::try_from(*units).unwrap(), Vec::new())
        }
        StockSelection::Seats(seats) => {
            let seats = seats.iter().map(|seat| SeatRef { seat_id: seat.clone() });
            (0, seats.collect())
        }
        StockSelection::AsRecorded => (0, Vec::new()),
    }
}

fn with_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// What a failed attempt has done, by docs/reference/statuses.md.
fn effect_of(status: &Status) -> CallEffect {
    let reason = reason(status);
    match CallOutcome::of(status) {
        CallOutcome::NeverProcessed => CallEffect::Refused,
        CallOutcome::Lost => CallEffect::Unknown,
        // "the request was not executed"
        CallOutcome::Busy { .. } if ["OVERLOADED", "STORE_BUSY"].contains(&&*reason) => {
            CallEffect::Refused
        }
        CallOutcome::Busy { .. } => CallEffect::Unknown,
        CallOutcome::Answered if status.code() == Code::InvalidArgument => CallEffect::Refused,
        CallOutcome::Answered => {
            let info = status.get_details_error_info();
            let seats = info.as_ref().and_then(|info| info.metadata.get("seat_ids"));
            let seats: BTreeSet<&str> = seats.iter().flat_map(|ids| ids.split(',')).collect();
            let seats: Vec<&str> = seats.into_iter().collect();
            CallEffect::of_reason(&reason, &seats).unwrap_or(CallEffect::Unknown)
        }
    }
}

/// The wall clock of the clients, in milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
