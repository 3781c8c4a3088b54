//! Invariants over everything that is stored.

use std::collections::{BTreeMap, BTreeSet};

use inventory_core::ids::{EventId, OrderId, SeatId};
use inventory_core::seats::SeatState;
use inventory_core::transaction::ReservationState;

use super::super::violation::{Violation, ensure};
use super::{Store, StoredRecord};

impl Store {
    /// Per stripe: capacity = remaining + units of held and confirmed records; per event: the held units of the stripes
    /// less the confirmation counters = units of held records. By running sums, which are cheap enough for every write.
    pub(super) fn check_conservation(&self, event: &EventId) -> Result<(), Violation> {
        let Some(found) = self.events.get(event) else {
            return Ok(());
        };
        for (index, (item, sold)) in found.stripes.iter().zip(&found.sold).enumerate() {
            ensure!(
                item.capacity == item.remaining + sold,
                "oversold or leaked: {event}#{index} has capacity {} != remaining {} + sold {sold}",
                item.capacity,
                item.remaining
            );
        }
        let held = found.held_units();
        ensure!(
            held == found.held,
            "held units that differ from the records: {event} has {held}, its records have {}",
            found.held
        );
        Ok(())
    }

    /// The same from the records themselves, and every seat against its record.
    pub(crate) fn check_all_conservation(&self) -> Result<(), Violation> {
        let mut sold: BTreeMap<(&EventId, u16), u64> = BTreeMap::new();
        let mut held: BTreeMap<&EventId, i64> = BTreeMap::new();
        let mut orders = BTreeSet::new();
        for (id, record) in &self.records {
            if let Some(order) = record.view.order {
                ensure!(
                    order == OrderId::of(id) && orders.insert(order.to_text()),
                    "an order id of another reservation: {id}"
                );
            }
            *held.entry(&record.event).or_default() += super::counted_units(&record.view);
            if !has_stock(record) {
                continue;
            }
            let units: u32 = record.view.draws.iter().map(|d| d.units).sum();
            let seats = record.view.seats.as_ref().map_or(0, |seats| seats.len());
            ensure!(
                units as usize + seats == record.view.qty as usize,
                "a record whose stock does not add up: {id} has {units} units and {seats} seats of {}",
                record.view.qty
            );
            for draw in &record.view.draws {
                *sold.entry((&record.event, draw.stripe)).or_default() += u64::from(draw.units);
            }
        }
        for (id, event) in &self.events {
            self.check_conservation(id)?;
            let (held, counted) = (held.get(id).copied().unwrap_or(0), event.held_units());
            ensure!(
                held == counted,
                "held units that differ from the records: {id} has {counted}, its records have {held}"
            );
            for (index, item) in event.stripes.iter().enumerate() {
                let sold = sold.get(&(id, index as u16)).copied().unwrap_or(0);
                ensure!(
                    item.capacity == item.remaining + sold,
                    "oversold or leaked: {id}#{index} has capacity {} != remaining {} + records {sold}",
                    item.capacity,
                    item.remaining
                );
            }
        }
        self.seats_and_records_agree()
    }

    /// Every held or sold seat has the record that it names, and the reverse.
    fn seats_and_records_agree(&self) -> Result<(), Violation> {
        let mut owners: BTreeMap<(&EventId, &SeatId), _> = BTreeMap::new();
        for (id, record) in self.records.iter().filter(|(_, record)| has_stock(record)) {
            for seat in record.view.seats.iter().flat_map(|seats| seats.iter()) {
                let other = owners.insert((&record.event, seat), (id, record));
                ensure!(
                    other.is_none(),
                    "a seat of two reservations: {seat} is in {id} and {other:?}"
                );
            }
        }
        for (event, found) in &self.events {
            for (seat, stored) in &found.seats {
                let owner = owners.remove(&(event, seat));
                let due = owner.map(|(id, record)| match record.view.state {
                    ReservationState::Held => SeatState::Hold {
                        reservation: id.clone(),
                        until: record.view.expires_at.unwrap_or_default(),
                    },
                    _ => SeatState::Sold { reservation: id.clone() },
                });
                let agrees = match &due {
                    Some(due) => stored.state == *due,
                    None => matches!(stored.state, SeatState::Available | SeatState::Blocked),
                };
                ensure!(
                    agrees,
                    "a seat that differs from its record: {seat} of {event} is {:?}, its record wants {due:?}",
                    stored.state
                );
            }
        }
        ensure!(owners.is_empty(), "records with seats that do not exist: {owners:?}");
        Ok(())
    }
}

fn has_stock(record: &StoredRecord) -> bool {
    matches!(record.view.state, ReservationState::Held | ReservationState::Confirmed)
}
