//! Access of the control plane to the shards: admin calls and scrapes, as messages.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt};

use crate::control_plane::admin::{
    AdminBackend, AdminError, EventCreation, EventStock, Pages, Stock,
};
use crate::control_plane::{MetricsSource, Readiness};
use crate::limits;
use crate::shard::ask;
use crate::shard::driver::Driver;
use crate::shard::inbox::{Mailbox, ShardMessage};
use crate::telemetry::aggregate::{HeartbeatMetrics, ServerMetrics, SpanMetrics};
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::recorder::ShardMetrics;
use crate::telemetry::trace::SpanCounts;
use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::query::{EventStatus, Query, QueryResult};
use inventory_core::seats::SeatFacts;
use inventory_core::time::Micros;
use inventory_core::transaction::StripesRead;
use inventory_runtime::clock;
use inventory_store::{
    CreateEventOutcome, EventAbout, NewEvent, Page, PageToken, SeatOutcome, SetTotalOutcome,
    StoreError, StoredRecord,
};

/// See the module's head.
#[derive(Clone)]
pub(super) struct ShardGateway {
    shards: Arc<ShardPool>,
    heartbeats: Heartbeats,
    readiness: Readiness,
    spans: Option<Arc<SpanCounts>>,
}

struct ShardPool {
    mailboxes: Vec<Mailbox>,
    /// Admin calls go round the shards.
    next: AtomicUsize,
}

impl ShardGateway {
    pub(super) fn new(
        mailboxes: Vec<Mailbox>,
        heartbeats: Heartbeats,
        readiness: Readiness,
        spans: Option<Arc<SpanCounts>>,
    ) -> Self {
        let next = AtomicUsize::new(0);
        Self {
            shards: Arc::new(ShardPool { mailboxes, next }),
            heartbeats,
            readiness,
            spans,
        }
    }

    /// Runs `job` on some shard, to its end even if nobody waits for it any more.
    async fn on_shard<T, F>(
        &self,
        job: impl FnOnce(Rc<Driver>) -> F + Send + 'static,
    ) -> Result<T, AdminError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, AdminError>> + 'static,
    {
        let (reply, answer) = ask();
        let work = ShardMessage::Job(Box::new(move |driver| {
            async move {
                // Whoever asked may have gone.
                let _ = reply.send(job(driver).await);
            }
            .boxed_local()
        }));
        let ShardPool { mailboxes, next } = &*self.shards;
        let turn = next.fetch_add(1, Ordering::Relaxed) % mailboxes.len().max(1);
        let shard = mailboxes.get(turn).ok_or_else(unavailable)?;
        shard.send(work).map_err(|_| busy())?;
        answer.await.map_err(|_| unavailable())?
    }

    /// Has every shard forget what it remembers of an event, before this returns.
    async fn forget(&self, event: &EventId) {
        let event = event.clone();
        self.everywhere(move |driver| driver.invalidate_event(&event))
            .await;
    }

    /// Does something on every shard, and waits until it is done.
    async fn everywhere(&self, work: impl Fn(&Driver) + Clone + Send + 'static) {
        let told = self.shards.mailboxes.iter().filter_map(|shard| {
            let (done, heard) = ask();
            let work = work.clone();
            let forget = ShardMessage::Job(Box::new(move |driver: Rc<Driver>| {
                work(&driver);
                let _ = done.send(());
                async {}.boxed_local()
            }));
            // A shard with a full inbox finds out when what it remembers is too old.
            shard.send(forget).ok().map(|()| heard)
        });
        futures::future::join_all(told.collect::<Vec<_>>()).await;
    }

    /// The rest of a call that changed an event: the shards hear of it, and how it stands now is
    /// the answer.
    async fn changed(&self, event: EventId) -> Result<EventStock, AdminError> {
        self.forget(&event).await;
        self.get_event(event).await
    }
}

#[tonic::async_trait]
impl AdminBackend for ShardGateway {
    async fn create_event(&self, event: NewEvent) -> Result<EventCreation, AdminError> {
        let id = event.event.clone();
        let created = self
            .on_shard(
                async move |driver| match driver.store().create_event(&event).await {
                    Ok(CreateEventOutcome::Created(_)) => Ok(true),
                    Ok(CreateEventOutcome::Existing(_)) => Ok(false),
                    Ok(CreateEventOutcome::Conflict(stripes)) => {
                        let about = driver.store().describe_event(&event.event).await;
                        let about = about.map_err(failed)?.ok_or(AdminError::EventNotFound)?;
                        let total = stripes.iter().map(|stripe| stripe.capacity).sum();
                        Err(AdminError::EventExists(Box::new(NewEvent {
                            event: about.event,
                            total,
                            stripes: about.stripes,
                            seat_keys: about.seat_keys,
                            name: about.name,
                            venue: about.venue,
                        })))
                    }
                    Err(error) => Err(failed(error)),
                },
            )
            .await?;
        let stock = self.changed(id).await?;
        Ok(EventCreation { stock, created })
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        self.on_shard(async move |driver| stock(&driver, &event).await)
            .await
    }

    async fn describe_event(&self, event: EventId) -> Result<EventAbout, AdminError> {
        self.on_shard(async move |driver| about(&driver, &event).await)
            .await
    }

    fn list_events(&self) -> Pages<EventAbout> {
        let gateway = self.clone();
        page_by_page(move |from| {
            let gateway = gateway.clone();
            async move {
                gateway
                    .on_shard(async move |driver| {
                        let page = driver.store().list_events(from.as_ref()).await;
                        page.map_err(failed)
                    })
                    .await
            }
        })
    }

    async fn set_total(&self, event: EventId, total: u64) -> Result<EventStock, AdminError> {
        let id = event.clone();
        self.on_shard(async move |driver| {
            match driver.store().set_total(&id, total).await.map_err(failed)? {
                SetTotalOutcome::Set(_) => Ok(()),
                SetTotalOutcome::Refused { total, taken } => {
                    Err(AdminError::TotalTooSmall { total, taken })
                }
                SetTotalOutcome::Seated => Err(AdminError::Seated),
                SetTotalOutcome::NotFound => Err(AdminError::EventNotFound),
            }
        })
        .await?;
        self.changed(event).await
    }

    async fn close_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        let id = event.clone();
        self.on_shard(async move |driver| {
            match driver.store().close_event(&id).await.map_err(failed)? {
                true => Ok(()),
                false => Err(AdminError::EventNotFound),
            }
        })
        .await?;
        self.changed(event).await
    }

    async fn count_new_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
    ) -> Result<usize, AdminError> {
        self.on_shard(async move |driver| {
            let seats = seats.into();
            match asked(&driver, &event, Query::Seats { seats }).await? {
                QueryResult::Seats { unknown, .. } => Ok(unknown.len()),
                other => Err(odd(&other)),
            }
        })
        .await
    }

    async fn put_seats(
        &self,
        event: EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
    ) -> Result<(), AdminError> {
        self.on_shard(async move |driver| {
            let put = driver.store().put_seats(&event, seat_keys, &seats).await;
            put.map_err(failed)
        })
        .await
    }

    async fn seats_changed(&self, event: EventId) {
        self.forget(&event).await;
        // Read anew at once: whoever looks next does not wait for it.
        let _ = self
            .on_shard(async move |driver| {
                asked(&driver, &event, Query::Status { section: None }).await
            })
            .await;
    }

    async fn block_seats(
        &self,
        event: EventId,
        seats: Vec<SeatId>,
        block: bool,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, AdminError> {
        let id = event.clone();
        let done = self
            .on_shard(async move |driver| {
                let seat_keys = about(&driver, &id).await?.seat_keys;
                if seat_keys == 0 {
                    return Err(AdminError::NotSeated);
                }
                let store = driver.store();
                let done = match block {
                    true => store.block_seats(&id, seat_keys, &seats).await,
                    false => store.unblock_seats(&id, seat_keys, &seats).await,
                };
                done.map_err(failed)
            })
            .await;
        // Also after a failure half way.
        self.forget(&event).await;
        done
    }

    async fn refund(&self, reservation: ReservationId) -> Result<StoredRecord, AdminError> {
        let about = reservation.clone();
        let refunded = self.on_shard(async move |driver| {
            let event = read(&driver, &reservation).await?.event;
            let selection = Selection::AsRecorded;
            let operation = Operation {
                verb: Verb::Refund,
                reservation: reservation.clone(),
                fingerprint: Operation::fingerprint_of(&event, &selection),
                event,
                selection,
                section: None,
                payment_intent: String::new(),
                hold_until: None,
                expectation: RecordExpectation::Present,
                deadline: clock::monotonic().plus(CALL_TIME),
            };
            match driver.submit(operation, None).await {
                Ok(Answer::Refunded) => read(&driver, &reservation).await,
                Ok(Answer::Rejected(why)) => Err(refused(&why)),
                Ok(other) => {
                    tracing::error!(answer = ?other, "an odd answer to a refund");
                    Err(AdminError::Internal)
                }
                Err(_) => Err(unavailable()),
            }
        });
        let refunded = refunded.await;
        // The shard that confirmed it would go on saying so from memory.
        self.everywhere(move |driver| driver.invalidate_reservation(&about))
            .await;
        refunded
    }

    async fn get_reservation(
        &self,
        reservation: ReservationId,
    ) -> Result<StoredRecord, AdminError> {
        self.on_shard(async move |driver| read(&driver, &reservation).await)
            .await
    }

    fn list_reservations(&self, event: EventId) -> Pages<StoredRecord> {
        let gateway = self.clone();
        page_by_page(move |from| {
            let (gateway, event) = (gateway.clone(), event.clone());
            async move {
                gateway
                    .on_shard(async move |driver| {
                        let store = driver.store();
                        let page = store.scan_reservations(&event, from.as_ref()).await;
                        page.map_err(failed)
                    })
                    .await
            }
        })
    }
}

/// What an admin call gives the domain: what the service gives the call.
const CALL_TIME: Micros = Micros(limits::ADMIN_CALL_TIMEOUT.as_micros() as u64);

/// A stream of pages; `read` reads the page at a token when the stream is polled for it.
fn page_by_page<T, F>(read: impl Fn(Option<PageToken>) -> F + Send + 'static) -> Pages<T>
where
    T: Send + 'static,
    F: Future<Output = Result<Page<T>, AdminError>> + Send + 'static,
{
    // `Some(None)` is the first page, `None` is the end.
    futures::stream::unfold((read, Some(None)), async |(read, from)| {
        match read(from?).await {
            Ok(page) => Some((Ok(page.items), (read, page.next.map(Some)))),
            Err(error) => Some((Err(error), (read, None))),
        }
    })
    .boxed()
}

async fn about(driver: &Driver, event: &EventId) -> Result<EventAbout, AdminError> {
    let about = driver.store().describe_event(event).await;
    about.map_err(failed)?.ok_or(AdminError::EventNotFound)
}

/// How an event stands: stripes as the store has them, seats as the owner's map has them.
async fn stock(driver: &Rc<Driver>, event: &EventId) -> Result<EventStock, AdminError> {
    let about = about(driver, event).await?;
    let stock = if about.seat_keys > 0 {
        match asked(driver, event, Query::Status { section: None }).await? {
            QueryResult::Status(status) => Stock::Seats(*status),
            other => return Err(odd(&other)),
        }
    } else {
        let as_of = clock::now().unix;
        match driver.store().read_event(event, Some(about.stripes)).await {
            StripesRead::Found(stripes) => Stock::Units { stripes, as_of },
            StripesRead::NotFound => return Err(AdminError::EventNotFound),
            StripesRead::Unavailable => return Err(unavailable()),
            StripesRead::Throttled => return Err(busy()),
        }
    };
    Ok(EventStock { about, stock })
}

async fn asked(
    driver: &Rc<Driver>,
    event: &EventId,
    question: Query,
) -> Result<QueryResult, AdminError> {
    match driver.query(event.clone(), question, None).await {
        Ok(told) => told.map_err(|why| refused(&why)),
        Err(_) => Err(unavailable()),
    }
}

fn odd(found: &QueryResult) -> AdminError {
    tracing::error!(?found, "an odd answer to a question about an event");
    AdminError::Internal
}

async fn read(driver: &Driver, id: &ReservationId) -> Result<StoredRecord, AdminError> {
    let found = driver.store().read_reservation(id).await;
    let found = found.map_err(failed)?;
    found.ok_or(AdminError::ReservationNotFound)
}

/// Why the domain did not do what an admin call wanted.
fn refused(why: &Rejection) -> AdminError {
    match why {
        Rejection::EventNotFound => AdminError::EventNotFound,
        Rejection::ReservationNotFound => AdminError::ReservationNotFound,
        Rejection::ReservationNotConfirmed => AdminError::ReservationNotConfirmed,
        Rejection::Overloaded { .. }
        | Rejection::StoreBusy { .. }
        | Rejection::DeadlineExceeded => busy(),
        Rejection::StoreUnavailable { .. } => unavailable(),
        other => {
            tracing::error!(refusal = ?other, "an odd refusal of an admin call");
            AdminError::Internal
        }
    }
}

#[tonic::async_trait]
impl MetricsSource for ShardGateway {
    fn shards(&self) -> usize {
        self.shards.mailboxes.len()
    }

    async fn take(&self, shard: usize) -> Option<ShardMetrics> {
        let (reply, answer) = ask();
        let shard = self.shards.mailboxes.get(shard)?;
        shard.send(ShardMessage::Scrape(reply)).ok()?;
        answer.await.ok()
    }

    async fn event_status(&self, event: EventId) -> Option<EventStatus> {
        let asked = self.on_shard(async move |driver| {
            asked(&driver, &event, Query::Status { section: None }).await
        });
        match asked.await {
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
            heartbeats: (0..self.heartbeats.shards()).map(of_shard).collect(),
            ..ServerMetrics::default()
        }
    }
}

fn failed(error: StoreError) -> AdminError {
    tracing::warn!(error = %error, "an admin call failed at the store");
    match error {
        StoreError::Throttled(_) => busy(),
        StoreError::Unavailable(_) => unavailable(),
        StoreError::Invalid(_) | StoreError::Refused(_) | StoreError::Corrupt(_) => {
            AdminError::Internal
        }
    }
}

fn busy() -> AdminError {
    AdminError::Busy {
        retry_after: limits::RETRY_AFTER,
    }
}

fn unavailable() -> AdminError {
    AdminError::Unavailable {
        retry_after: Duration::from_secs(1),
    }
}
