//! Compares the store with the answers that the buyers received.

use std::collections::HashMap;
use std::rc::Rc;

use inventory_client::sale::SaleReport;
use inventory_client::sale::ledger::ReservationOutcome;

use inventory_core::audit::{
    self, AuditRecord, CounterReads, EventRecords, KnownBalances, StripeReads,
};
use inventory_core::ids::EventId;
use inventory_core::transaction::ReservationState;
use inventory_runtime::clock;
use inventory_store::{NoObserver, Store, StoreSettings};

/// Findings quoted in full.
const QUOTED_MAX: usize = 20;

/// What the store holds, and where it differs.
#[derive(Debug, Default)]
pub(super) struct SaleAudit {
    /// Units of confirmed records.
    pub(super) sold: u64,
    /// Units left on all stripes.
    pub(super) remaining: u64,
    /// Units confirmed beyond the capacity.
    pub(super) oversold: u64,
    broken: Vec<String>,
    count: usize,
}

impl SaleAudit {
    /// Reads the event's stripes and every record of it, strongly.
    ///
    /// # Errors
    /// When the store cannot be read; that is no finding.
    pub(super) fn read(
        settings: &StoreSettings,
        event: &str,
        report: &SaleReport,
    ) -> Result<Self, String> {
        let event: EventId = event.parse().map_err(|error| format!("event_id {error}"))?;
        let read = inventory_runtime::run_unpinned(async {
            let store = Store::connect(settings.clone(), Rc::new(NoObserver))
                .await
                .map_err(|error| error.to_string())?;
            read(&store, &event).await
        });
        let (books, records) = read.map_err(|error| error.to_string())??;
        let mut audit = Self::default();
        audit.stock(&audit::judge(&books, &KnownBalances::default(), clock::now().unix).at_rest());
        audit.answers(&records, report);
        Ok(audit)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.count == 0
    }

    /// The first findings, as sentences.
    pub(super) fn broken(&self) -> &[String] {
        &self.broken
    }

    fn found(&mut self, what: String) {
        self.count += 1;
        if self.broken.len() < QUOTED_MAX {
            self.broken.push(what);
        }
    }

    /// Adds the totals and breaches of an audit.
    fn stock(&mut self, report: &audit::AuditReport) {
        for stripe in &report.stripes {
            let claimed = stripe.held + stripe.confirmed;
            self.sold += stripe.confirmed;
            self.remaining += u64::try_from(stripe.remaining).unwrap_or(0);
            self.oversold += claimed.saturating_sub(stripe.capacity);
        }
        for breach in &report.breaches {
            self.found(breach.to_string());
        }
    }

    /// Compares the answer of every buyer with the store.
    fn answers(&mut self, records: &[AuditRecord], report: &SaleReport) {
        let by_id: HashMap<&str, &AuditRecord> =
            records.iter().map(|record| (record.reservation.as_str(), record)).collect();
        let mut told = 0_usize;
        for entry in report.ledger.entries() {
            let id = entry.reservation_id;
            let record = by_id.get(id.as_str());
            told += usize::from(record.is_some());
            let state = record.map(|record| record.state);
            let agrees = match &entry.outcome {
                ReservationOutcome::Confirmed { order_id } => {
                    state == Some(ReservationState::Confirmed)
                        && record.and_then(|r| r.order).map(|o| o.to_string()).as_deref()
                            == Some(order_id)
                        && record.map(|r| i64::from(r.qty)) == Some(i64::from(entry.quantity))
                }
                ReservationOutcome::Released => state == Some(ReservationState::Released),
                ReservationOutcome::SoldOut | ReservationOutcome::NotRequested => state.is_none(),
                ReservationOutcome::Unknown => true,
            };
            if !agrees {
                self.found(format!(
                    "{id} was answered {:?}, the store has {state:?}",
                    entry.outcome
                ));
            }
        }
        if told != records.len() {
            self.found(format!("{} records belong to no buyer", records.len() - told));
        }
    }
}

/// Every stripe and every record of the event, at rest.
async fn read(store: &Store, event: &EventId) -> Result<(EventRecords, Vec<AuditRecord>), String> {
    let stripes = store.audit_stripes(event).await;
    let stripes = stripes.map_err(|error| error.to_string())?;
    let stripes = stripes.ok_or("the event is gone")?;
    let sights = StripeReads::pair(&stripes.stripes, stripes.stripes.clone());
    let mut books = EventRecords::new(event.clone(), sights, stripes.seat_keys);
    books.counters = CounterReads::pair(&stripes.counters, stripes.counters.clone());
    let mut records = Vec::new();
    let mut page = None;
    loop {
        let found = store.audit_records(event, page.as_ref()).await;
        let found = found.map_err(|error| error.to_string())?;
        for item in found.items {
            match item {
                Ok(record) => {
                    books.record(record.clone());
                    records.push(record);
                }
                Err(unread) => books.unreadable_records.push(unread),
            }
        }
        page = found.next;
        if page.is_none() {
            return Ok((books, records));
        }
    }
}
