//! The side thread's way to the shards: admin calls and scrapes, as messages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::domain::ids::EventId;
use crate::domain::transaction::{EventRead, StripeView};
use crate::limits;
use crate::shard::ask;
use crate::shard::inbox::{Mailbox, Work};
use crate::side::Scrape;
use crate::side::admin::{AdminBackend, AdminError, Created, EventStock};
use crate::store::{CreateEvent, StoreError};
use crate::telemetry::recorder::Snapshot;

/// See the module's head.
pub(super) struct Bridge {
    mailboxes: Vec<Mailbox>,
    /// Admin calls go round the shards.
    next: AtomicUsize,
}

impl Bridge {
    pub(super) fn new(mailboxes: Vec<Mailbox>) -> Self {
        Self {
            mailboxes,
            next: AtomicUsize::new(0),
        }
    }

    /// Hands work to some shard.
    fn post(&self, work: Work) -> Result<(), AdminError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len().max(1);
        let shard = self.mailboxes.get(turn).ok_or_else(unavailable)?;
        shard.post(work).map_err(|_| AdminError::Busy {
            retry_after: limits::RETRY_AFTER,
        })
    }
}

#[tonic::async_trait]
impl AdminBackend for Bridge {
    async fn create_event(
        &self,
        event: EventId,
        total: u64,
        stripes: u16,
    ) -> Result<Created, AdminError> {
        let (reply, answer) = ask();
        self.post(Work::CreateEvent {
            event: event.clone(),
            total,
            stripes,
            reply,
        })?;
        let (created, stripes) = match answer.await.map_err(|_| unavailable())? {
            Ok(CreateEvent::Created(stripes)) => (true, stripes),
            Ok(CreateEvent::Existing(stripes)) => (false, stripes),
            Ok(CreateEvent::Conflict(found)) => {
                return Err(AdminError::EventExists {
                    total: found.iter().map(|stripe| stripe.capacity).sum(),
                    stripes: found.len() as u16,
                });
            }
            Err(error) => return Err(admin_error(&error)),
        };
        let stock = EventStock { event, stripes };
        Ok(Created { stock, created })
    }

    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError> {
        let (reply, answer) = ask();
        self.post(Work::GetEvent {
            event: event.clone(),
            reply,
        })?;
        let stripes: Vec<StripeView> = match answer.await.map_err(|_| unavailable())? {
            EventRead::Found(stripes) => stripes,
            EventRead::NotFound => return Err(AdminError::EventNotFound),
            EventRead::Unavailable => return Err(unavailable()),
            EventRead::Throttled => return Err(busy()),
        };
        Ok(EventStock { event, stripes })
    }
}

#[tonic::async_trait]
impl Scrape for Bridge {
    fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    async fn take(&self, shard: usize) -> Option<Snapshot> {
        let (reply, answer) = ask();
        self.mailboxes.get(shard)?.post(Work::Scrape(reply)).ok()?;
        answer.await.ok()
    }
}

fn admin_error(error: &StoreError) -> AdminError {
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
