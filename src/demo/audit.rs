//! Reads the store back and compares it with what the buyers were told.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use inventory_bench::load::Report;
use inventory_bench::load::ledger::Outcome;

use crate::domain::ids::EventId;
use crate::domain::transaction::{EventRead, ReservationState, StripeView};
use crate::runtime;
use crate::store::{NoObserver, Store, StoreSettings, StoredRecord};

/// Findings quoted in full.
const QUOTED_MAX: usize = 20;

/// What the store holds, and where it differs.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// Units of confirmed records.
    pub(super) sold: u64,
    /// Units left on all stripes.
    pub(super) remaining: u64,
    /// Units confirmed beyond the capacity.
    pub(super) oversold: u64,
    broken: Vec<String>,
    count: usize,
}

impl Audit {
    /// Reads the event's stripes and every record of it, strongly.
    ///
    /// # Errors
    /// When the store cannot be read; that is no finding.
    pub(super) fn read(
        settings: &StoreSettings,
        event: &str,
        report: &Report,
    ) -> Result<Self, String> {
        let event: EventId = event.parse().map_err(|error| format!("event_id {error}"))?;
        let read = runtime::run_here(async {
            let store = Store::connect(settings.clone(), Rc::new(NoObserver))
                .await
                .map_err(|error| error.to_string())?;
            let EventRead::Found(stripes) = store.read_event(&event, None).await else {
                return Err("the event cannot be read".to_owned());
            };
            let mut records = Vec::new();
            let mut page = None;
            loop {
                let found = store
                    .scan_reservations(&event, page.as_ref())
                    .await
                    .map_err(|error| error.to_string())?;
                records.extend(found.records);
                page = found.next;
                if page.is_none() {
                    return Ok((stripes, records));
                }
            }
        });
        let (stripes, records) = read.map_err(|error| error.to_string())??;
        let mut audit = Self::default();
        audit.stock(&stripes, &records);
        audit.orders(&records);
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

    /// Per stripe: capacity = remaining + what confirmed records drew from it.
    fn stock(&mut self, stripes: &[StripeView], records: &[StoredRecord]) {
        let mut drawn = vec![0_u64; stripes.len()];
        for record in confirmed(records) {
            self.sold += u64::from(record.qty);
            let units: u64 = record.draws.iter().map(|d| u64::from(d.units)).sum();
            if units != u64::from(record.qty) {
                self.found(format!(
                    "{} drew {units} of {}",
                    record.reservation, record.qty
                ));
            }
            for draw in &record.draws {
                match drawn.get_mut(usize::from(draw.stripe)) {
                    Some(sum) => *sum += u64::from(draw.units),
                    None => self.found(format!("{} drew on no stripe", record.reservation)),
                }
            }
        }
        for (index, (stripe, drawn)) in stripes.iter().zip(drawn).enumerate() {
            self.remaining += stripe.remaining;
            self.oversold += drawn.saturating_sub(stripe.capacity);
            if stripe.capacity != stripe.remaining + drawn {
                self.found(format!(
                    "stripe {index}: capacity {} is not remaining {} + sold {drawn}",
                    stripe.capacity, stripe.remaining
                ));
            }
        }
    }

    /// No order id twice.
    fn orders(&mut self, records: &[StoredRecord]) {
        let mut seen = HashSet::new();
        for record in confirmed(records) {
            let order = record.view.order.map(|order| order.to_string());
            if order.is_none() || !seen.insert(order) {
                self.found(format!("{} has no order of its own", record.reservation));
            }
        }
    }

    /// What every buyer was told is what the store holds.
    fn answers(&mut self, records: &[StoredRecord], report: &Report) {
        let by_id: HashMap<&str, &StoredRecord> = records
            .iter()
            .map(|record| (record.reservation.as_str(), record))
            .collect();
        let mut told = 0_usize;
        for entry in report.ledger.entries() {
            let id = entry.reservation_id;
            let record = by_id.get(id.as_str());
            told += usize::from(record.is_some());
            let state = record.map(|record| record.view.state);
            let agrees = match &entry.outcome {
                Outcome::Confirmed { order_id } => {
                    state == Some(ReservationState::Confirmed)
                        && record
                            .and_then(|r| r.view.order)
                            .map(|o| o.to_string())
                            .as_deref()
                            == Some(order_id)
                        && record.map(|r| i64::from(r.qty)) == Some(i64::from(entry.quantity))
                }
                Outcome::Released => state == Some(ReservationState::Released),
                Outcome::SoldOut | Outcome::NotPlayed => state.is_none(),
                Outcome::Unknown => true,
            };
            if !agrees {
                self.found(format!(
                    "{id} was told {:?}, the store has {state:?}",
                    entry.outcome
                ));
            }
        }
        if told != records.len() {
            self.found(format!(
                "{} records belong to no buyer",
                records.len() - told
            ));
        }
    }
}

fn confirmed(records: &[StoredRecord]) -> impl Iterator<Item = &StoredRecord> {
    records
        .iter()
        .filter(|record| record.view.state == ReservationState::Confirmed)
}
