//! Access of the control plane to the shards: admin calls and scrapes, as messages.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use futures::StreamExt;
use futures::channel::oneshot;
use tokio::sync::watch;

use super::shard_pool::{JobError, ShardPool};
use crate::control_plane::admin::{
    AdminBackend, AdminError, EventCreation, EventStock, Pages, Refund, Stock,
};
use crate::control_plane::{MetricsSource, Readiness, RefusedAdminCalls};
use crate::limits;
use crate::shard::driver::{Driver, ShardMessage};
use crate::telemetry::aggregate::{HeartbeatMetrics, ServerMetrics, SpanMetrics};
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::membership::MembershipReport;
use crate::telemetry::recorder::ShardMetrics;
use crate::telemetry::store_health::StoreHealth;
use crate::telemetry::trace::SpanCounts;
use crate::tls::PortTls;
use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::query::{EventStatus, Query, QueryResult};
use inventory_core::seats::{SeatFacts, SeatItem};
use inventory_core::time::Micros;
use inventory_core::transaction::{ReservationState, SeatsRead, StockTotals, StripesRead};
use inventory_runtime::clock;
use inventory_store::{
    AwsAccess, CreateEventOutcome, EventAbout, NewEvent, Page, PageToken, SeatComparison,
    SeatOutcome, SetTotalOutcome, StoreError, StoredRecord,
};

/// Access of the control plane to the shards.
#[derive(Clone)]
pub(super) struct ShardGateway {
    shards: Arc<ShardPool>,
    heartbeats: Heartbeats,
    store_health: StoreHealth,
    readiness: Readiness,
    spans: Option<Arc<SpanCounts>>,
    /// `None` for the embedded engine.
    aws: Option<AwsAccess>,
    membership: watch::Receiver<MembershipReport>,
    tls: Vec<PortTls>,
    admin_refusals: Arc<RefusedAdminCalls>,
}

impl ShardGateway {
    pub(super) fn new(
        shards: Arc<ShardPool>,
        heartbeats: Heartbeats,
        store_health: StoreHealth,
        readiness: Readiness,
        spans: Option<Arc<SpanCounts>>,
        aws: Option<AwsAccess>,
        membership: watch::Receiver<MembershipReport>,
    ) -> Self {
        let tls = Vec::new();
        Self {
            shards,
            heartbeats,
            store_health,
            readiness,
            spans,
            aws,
            membership,
            tls,
            admin_refusals: Arc::default(),
        }
    }

    /// The ports with TLS, for metrics.
    pub(super) fn with_tls(self, tls: Vec<PortTls>) -> Self {
        Self { tls, ..self }
    }

    /// Where the admin port counts the calls that it refuses.
    pub(super) fn admin_refusals(&self) -> Arc<RefusedAdminCalls> {
        Arc::clone(&self.admin_refusals)
    }

    /// When the credentials of the store expire: Unix time in seconds.
    fn credentials_expiry(&self) -> Option<f64> {
        let expiry = self.aws.as_ref()?.credentials_expiry()?;
        Some(expiry.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    }

    /// Runs `job` on a shard. The job runs to its end, even if this future is dropped.
    async fn on_shard<T, F>(
        &self,
        job: impl FnOnce(Rc<Driver>) -> F + Send + 'static,
    ) -> Result<T, AdminError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, AdminError>> + 'static,
    {
        match self.shards.run(job).await {
            Ok(result) => result,
            Err(JobError::InboxFull) => Err(busy()),
            Err(JobError::Stopped) => Err(unavailable()),
        }
    }

    /// Invalidates the caches of an event on every shard, before this returns.
    async fn invalidate_event(&self, event: &EventId) {
        let event = event.clone();
        let job = move |driver: &Driver| driver.invalidate_event(&event);
        self.shards.run_on_all(job).await;
    }

    /// Completes a call that wrote to an event: invalidates its caches, also after a failure, because a part may be
    /// stored, and returns the event.
    async fn changed_event<T>(
        &self,
        event: EventId,
        changed: Result<T, AdminError>,
    ) -> Result<(T, EventStock), AdminError> {
        self.invalidate_event(&event).await;
        let changed = changed?;
        let stock = self.get_event(event).await.map_err(AdminError::after_write)?;
        Ok((changed, stock))
    }
}

#[tonic::async_trait]
impl AdminBackend for ShardGateway {
    async fn create_event(&self, event: NewEvent) -> Result<EventCreation, AdminError> {
        let id = event.event.clone();
        let (total, name, venue) = (event.total, event.name.clone(), event.venue.clone());
        let created = self
            .on_shard(async move |driver| match driver.store().create_event(&event).await {
                Ok(CreateEventOutcome::Created(_)) => Ok(true),
                Ok(CreateEventOutcome::Existing(_)) => Ok(false),
                Ok(CreateEventOutcome::Conflict(stripes)) => {
                    let about = driver.store().describe_event(&event.event).await;
                    let about = about.map_err(store_error)?.ok_or(AdminError::EventNotFound)?;
                    let total = StockTotals::of(&stripes).capacity;
                    Err(AdminError::EventExists(Box::new(NewEvent {
                        event: about.event,
                        total,
                        stripes: about.stripes,
                        seat_keys: about.seat_keys,
                        name: about.name,
                        venue: about.venue,
                    })))
                }
                Err(error) => Err(write_error(error)),
            })
            .await;
        let (created, stock) = self.changed_event(id, created).await?;
        let about = &stock.about;
        let differs = |given: &str, stored: &str| !given.is_empty() && given != stored;
        if !created && (differs(&name, &about.name) || differs(&venue, &about.venue)) {
            return Err(AdminError::EventExists(Box::new(NewEvent {
                event: about.event.clone(),
                total,
                stripes: about.stripes,
                seat_keys: about.seat_keys,
                name: about.name.clone(),
                venue: about.venue.clone(),
            })));
        }
        Ok(EventCreation { stock, created })
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        self.on_shard(async move |driver| stock(&driver, &event).await).await
    }

    async fn describe_event(&self, event: EventId) -> Result<EventAbout, AdminError> {
        self.on_shard(async move |driver| about(&driver, &event).await).await
    }

    fn list_events(&self) -> Pages<EventAbout> {
        let gateway = self.clone();
        pages(move |from| {
            let gateway = gateway.clone();
            async move {
                gateway
                    .on_shard(async move |driver| {
                        let page = driver.store().list_events(from.as_ref()).await;
                        page.map_err(store_error)
                    })
                    .await
            }
        })
    }

    async fn set_total(&self, event: EventId, total: u64) -> Result<EventStock, AdminError> {
        let id = event.clone();
        let set = self.on_shard(async move |driver| {
            let set = driver.store().set_total(&id, total).await;
            match set.map_err(write_error)? {
                SetTotalOutcome::Set(_) => Ok(()),
                SetTotalOutcome::Refused { total, taken } => {
                    Err(AdminError::TotalTooSmall { total, taken })
                }
                SetTotalOutcome::Seated => Err(AdminError::Seated),
                SetTotalOutcome::NotFound => Err(AdminError::EventNotFound),
            }
        });
        let ((), stock) = self.changed_event(event, set.await).await?;
        Ok(stock)
    }

    async fn close_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        let id = event.clone();
        let closed = self.on_shard(async move |driver| {
            let closed = driver.store().close_event(&id).await;
            match closed.map_err(write_error)? {
                true => Ok(()),
                false => Err(AdminError::EventNotFound),
            }
        });
        let ((), stock) = self.changed_event(event, closed.await).await?;
        Ok(stock)
    }

    async fn count_new_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
    ) -> Result<usize, AdminError> {
        self.on_shard(async move |driver| {
            let seats = seats.into();
            match run_query(&driver, &event, Query::Seats { seats }).await? {
                QueryResult::Seats { unknown, .. } => Ok(unknown.len()),
                other => Err(unexpected_result(&other)),
            }
        })
        .await
    }

    async fn put_seats(
        &self,
        event: EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
        may_exist: bool,
    ) -> Result<SeatComparison, AdminError> {
        self.on_shard(async move |driver| {
            let store = driver.store();
            let found = match may_exist {
                true => store.compare_seats(&event, seat_keys, seats).await.map_err(store_error)?,
                false => SeatComparison::of_new_seats(seats),
            };
            let put = store.put_seats(&event, seat_keys, &found.to_write).await;
            put.map_err(write_error)?;
            Ok(found)
        })
        .await
    }

    async fn list_seats(&self, event: EventId) -> Result<Vec<SeatItem>, AdminError> {
        self.on_shard(async move |driver| {
            let seat_keys = about(&driver, &event).await?.seat_keys;
            match driver.store().read_seats(&event, seat_keys).await {
                SeatsRead::Found(seats) => Ok(seats),
                SeatsRead::Unavailable => Err(unavailable()),
                SeatsRead::Throttled => Err(busy()),
            }
        })
        .await
    }

    async fn seats_changed(&self, event: EventId) {
        self.invalidate_event(&event).await;
        // Loads the seat map again now, so that the next call does not wait for it.
        let _ = self
            .on_shard(async move |driver| run_query(&driver, &event, Query::Status).await)
            .await;
    }

    async fn block_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
        block: bool,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, AdminError> {
        let id = event.clone();
        let outcomes = self
            .on_shard(async move |driver| {
                let seat_keys = about(&driver, &id).await?.seat_keys;
                if seat_keys == 0 {
                    return Err(AdminError::NotSeated);
                }
                let store = driver.store();
                let outcomes = match block {
                    true => store.block_seats(&id, seat_keys, &seats).await,
                    false => store.unblock_seats(&id, seat_keys, &seats).await,
                };
                outcomes.map_err(write_error)
            })
            .await;
        // Also after a failure, because some of the seats may have changed.
        self.invalidate_event(&event).await;
        outcomes
    }

    async fn refund(&self, reservation: ReservationId) -> Result<Refund, AdminError> {
        let id = reservation.clone();
        let refunded = self.on_shard(async move |driver| {
            let before = read_reservation(&driver, &reservation).await?;
            let (event, refunded) = (before.event, before.view.state != ReservationState::Refunded);
            let (selection, deadline) = (Selection::AsRecorded, clock::monotonic().plus(CALL_TIME));
            let id = reservation.clone();
            let operation = Operation {
                expectation: RecordExpectation::Present,
                ..Operation::new(Verb::Refund, id, event, selection, deadline)
            };
            match driver.submit(operation, None).await {
                Ok(Answer::Refunded) => {
                    let record = read_reservation(&driver, &reservation).await;
                    Ok(Refund { record: record.map_err(AdminError::after_write)?, refunded })
                }
                Ok(Answer::Rejected(rejection)) => Err(admin_error(&rejection)),
                Ok(other) => {
                    tracing::error!(answer = ?other, "unexpected answer to a refund");
                    Err(AdminError::Internal)
                }
                Err(_) => Err(unavailable()),
            }
        });
        let refunded = refunded.await;
        // The shard that confirmed the reservation has its answer in the cache.
        let job = move |driver: &Driver| driver.invalidate_reservation(&id);
        self.shards.run_on_all(job).await;
        refunded
    }

    async fn get_reservation(
        &self,
        reservation: ReservationId,
    ) -> Result<StoredRecord, AdminError> {
        self.on_shard(async move |driver| read_reservation(&driver, &reservation).await).await
    }

    fn members(&self) -> (MembershipReport, Micros) {
        (self.membership.borrow().clone(), clock::monotonic())
    }

    fn list_reservations(&self, event: EventId) -> Pages<StoredRecord> {
        let gateway = self.clone();
        pages(move |from| {
            let (gateway, event) = (gateway.clone(), event.clone());
            async move {
                gateway
                    .on_shard(async move |driver| {
                        let store = driver.store();
                        let page = store.scan_reservations(&event, from.as_ref()).await;
                        let mut page = page.map_err(store_error)?;
                        // No client has made these: expired holds share them while their stock returns.
                        page.items.retain(|record| !record.reservation.is_release_record());
                        Ok(page)
                    })
                    .await
            }
        })
    }
}

/// The deadline of an admin call's operation: the time-out of the admin call.
const CALL_TIME: Micros = Micros(limits::ADMIN_CALL_TIMEOUT.as_micros() as u64);

/// A stream of pages; `read` reads the page at a token when the stream is polled for it.
fn pages<T, F>(read: impl Fn(Option<PageToken>) -> F + Send + 'static) -> Pages<T>
where
    T: Send + 'static,
    F: Future<Output = Result<Page<T>, AdminError>> + Send + 'static,
{
    // `Some(None)` is the first page, `None` is the end.
    futures::stream::unfold((read, Some(None)), async |(read, from)| match read(from?).await {
        Ok(page) => Some((Ok(page.items), (read, page.next.map(Some)))),
        Err(error) => Some((Err(error), (read, None))),
    })
    .boxed()
}

async fn about(driver: &Driver, event: &EventId) -> Result<EventAbout, AdminError> {
    let about = driver.store().describe_event(event).await;
    about.map_err(store_error)?.ok_or(AdminError::EventNotFound)
}

/// The stock of an event: stripes from the store, seats from the seat map of the owning shard.
async fn stock(driver: &Rc<Driver>, event: &EventId) -> Result<EventStock, AdminError> {
    let about = about(driver, event).await?;
    let stock = if about.seat_keys > 0 {
        match run_query(driver, event, Query::Status).await? {
            QueryResult::Status(status) => Stock::Seats(*status),
            other => return Err(unexpected_result(&other)),
        }
    } else {
        let as_of = clock::now().unix;
        match driver.store().read_event_with_counters(event, Some(about.stripes)).await {
            StripesRead::Found(stripes) => Stock::Units { stripes, as_of },
            StripesRead::NotFound => return Err(AdminError::EventNotFound),
            StripesRead::Unavailable => return Err(unavailable()),
            StripesRead::Throttled => return Err(busy()),
        }
    };
    Ok(EventStock { about, stock })
}

async fn run_query(
    driver: &Rc<Driver>,
    event: &EventId,
    query: Query,
) -> Result<QueryResult, AdminError> {
    match driver.query(event.clone(), query, None).await {
        Ok(result) => result.map_err(|rejection| admin_error(&rejection)),
        Err(_) => Err(unavailable()),
    }
}

fn unexpected_result(result: &QueryResult) -> AdminError {
    tracing::error!(?result, "unexpected query result");
    AdminError::Internal
}

async fn read_reservation(driver: &Driver, id: &ReservationId) -> Result<StoredRecord, AdminError> {
    let found = driver.store().read_reservation(id).await;
    let found = found.map_err(store_error)?;
    found.ok_or(AdminError::ReservationNotFound)
}

/// The admin error of a rejection.
fn admin_error(rejection: &Rejection) -> AdminError {
    match rejection {
        Rejection::EventNotFound => AdminError::EventNotFound,
        Rejection::ReservationNotFound => AdminError::ReservationNotFound,
        Rejection::ReservationNotConfirmed => AdminError::ReservationNotConfirmed,
        Rejection::Overloaded { .. }
        | Rejection::StoreBusy { .. }
        | Rejection::DeadlineExceeded => busy(),
        Rejection::StoreUnavailable { .. } => unavailable(),
        Rejection::OutcomeUnknown { .. } => busy().after_write(),
        other => {
            tracing::error!(rejection = ?other, "unexpected rejection of an admin call");
            AdminError::Internal
        }
    }
}

#[tonic::async_trait]
impl MetricsSource for ShardGateway {
    fn shards(&self) -> usize {
        self.shards.mailboxes().len()
    }

    async fn take(&self, shard: usize) -> Option<ShardMetrics> {
        let (reply, answer) = oneshot::channel();
        let shard = self.shards.mailboxes().get(shard)?;
        shard.send(ShardMessage::Scrape(reply)).ok()?;
        answer.await.ok()
    }

    async fn event_status(&self, event: EventId) -> Option<EventStatus> {
        let status =
            self.on_shard(async move |driver| run_query(&driver, &event, Query::Status).await);
        match status.await {
            Ok(QueryResult::Status(status)) => Some(*status),
            _ => None,
        }
    }

    fn server_metrics(&self) -> ServerMetrics {
        let now = clock::monotonic();
        let of_shard = |shard| HeartbeatMetrics {
            age: now.since(self.heartbeats.last_beat(shard).unwrap_or(now)),
            stalls: self.heartbeats.stalls(shard),
        };
        ServerMetrics {
            ready: self.readiness.is_ready(),
            spans: match &self.spans {
                Some(counts) => counts.read(),
                None => SpanMetrics::default(),
            },
            clock_skew: self.store_health.clock_skew().map(|skew| skew.ahead),
            credentials_expiry: self.credentials_expiry(),
            membership: Some((self.membership.borrow().clone(), now)),
            tls: self.tls.iter().map(PortTls::metrics).collect(),
            admin_refusals: [&self.admin_refusals.no_token, &self.admin_refusals.wrong_token]
                .map(|count| count.load(Ordering::Relaxed)),
            heartbeats: (0..self.heartbeats.shards()).map(of_shard).collect(),
            ..ServerMetrics::default()
        }
    }
}

fn store_error(error: StoreError) -> AdminError {
    tracing::warn!(error = %error, "admin call failed in the store");
    match error {
        StoreError::Throttled(_) => busy(),
        StoreError::Unavailable(_) | StoreError::Refused(_) => unavailable(),
        StoreError::Invalid(_) | StoreError::Rejected(_) | StoreError::Corrupt(_) => {
            AdminError::Internal
        }
    }
}

/// The error of a write that the store may have executed.
fn write_error(error: StoreError) -> AdminError {
    store_error(error).after_write()
}

fn busy() -> AdminError {
    AdminError::Busy { retry_after: limits::RETRY_AFTER }
}

fn unavailable() -> AdminError {
    AdminError::Unavailable { retry_after: Duration::from_secs(1) }
}
