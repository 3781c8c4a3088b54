//! Repairs: each is one transaction with the audited state as its condition. Idempotent: after a repair is written
//! its condition no longer holds, and the stored state is the repaired one.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};

use super::{Attributes, attributes, record_key, stripe, text};
use crate::failure::{CallFailure, FailureKind};
use crate::{Store, StoreError, codec};
use inventory_core::audit::{self, Repair, SeatClaim, StripeBalance};
use inventory_core::ids::{EventId, OrderId, ReservationId, SeatId, counter_key, stripe_key};
use inventory_core::seats::SeatState;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::ReservationState;
use inventory_runtime::clock;

/// Outcome of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairOutcome {
    /// The item is as the repair requires, by this call or an earlier one.
    Done,
    /// Something that the repair depends on has changed since the audit: nothing was written.
    Stale,
}

impl Store {
    /// Applies one repair of `event`, if everything it depends on is as audited.
    ///
    /// # Errors
    /// When the store does not answer; the repair may or may not have been applied and can be repeated.
    pub async fn repair(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: &Repair,
    ) -> Result<RepairOutcome, StoreError> {
        let at = codec::timestamp(clock::now().unix);
        let actions = self.repair_actions(event, seat_keys, repair, &at);
        let actions = actions.map_err(|error| StoreError::Invalid(error.to_string()))?;
        if actions.is_empty() {
            return Ok(RepairOutcome::Stale);
        }
        let written =
            self.call_with_retries("TransactWriteItems", &self.tables().inventory, || {
                self.client()
                    .transact_write_items()
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .set_transact_items(Some(actions.clone()))
                    .send()
            });
        match written.await {
            Ok(_) => Ok(RepairOutcome::Done),
            Err(failure) if failure.kind == FailureKind::Cancelled => {
                repair_failure(repair, failure)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The update first, then the condition check on the record it depends on. Empty if the audited state is not
    /// sufficient.
    fn repair_actions(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: &Repair,
        at: &str,
    ) -> Result<Vec<TransactWriteItem>, BuildError> {
        let tables = self.tables();
        let seat_action = |seat: &SeatId, seen: &SeatState, to: &SeatState| {
            let key = codec::seat_item_key(event, seat, seat_keys);
            seat_update(seen, to, at).action(&tables.seats, key)
        };
        match repair {
            Repair::Remaining { seen, to } => {
                let key = [(codec::EVENT_ID, text(stripe_key(event, seen.index)))];
                let update = stripe_update(seen, *to, at);
                Ok(vec![update.action(&tables.inventory, attributes(key))?])
            }
            Repair::Counter { counter, seen, to } => {
                let key = [(codec::EVENT_ID, text(counter_key(event, *counter)))];
                let update = counter_update(*seen, *to, at);
                Ok(vec![update.action(&tables.inventory, attributes(key))?])
            }
            Repair::Moved { stripe, seen, to } => {
                let key = [(codec::EVENT_ID, text(stripe_key(event, *stripe)))];
                let update = moved_update(*seen, *to, at);
                Ok(vec![update.action(&tables.inventory, attributes(key))?])
            }
            Repair::Free { seat, seen, named } => {
                let (Some(holder), Some(state)) = (audit::holder(seen), named.state()) else {
                    return Ok(Vec::new());
                };
                Ok(vec![
                    seat_action(seat, seen, &SeatState::Available)?,
                    record_check(&tables.idempotency, holder, state, None)?,
                ])
            }
            Repair::Give { seat, seen, claim } => {
                let Some(to) = claim.seat_state() else {
                    return Ok(Vec::new());
                };
                let SeatClaim { reservation, until, .. } = claim;
                let until = until.filter(|_| !claim.confirmed);
                let state = Some(claim.state());
                Ok(vec![
                    seat_action(seat, seen, &to)?,
                    record_check(&tables.idempotency, reservation, state, until)?,
                ])
            }
        }
    }
}

/// An update with its condition, names and values.
struct RepairWrite {
    update: &'static str,
    condition: String,
    names: Vec<(&'static str, &'static str)>,
    values: Vec<(&'static str, AttributeValue)>,
}

impl RepairWrite {
    fn action(self, table: &str, key: Attributes) -> Result<TransactWriteItem, BuildError> {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .update_expression(self.update)
            .condition_expression(self.condition)
            .set_expression_attribute_names(Some(aliases(&self.names)))
            .set_expression_attribute_values(Some(attributes(self.values)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

fn stripe_update(seen: &StripeBalance, to: u64, at: &str) -> RepairWrite {
    let version = match seen.version {
        // An item without a version reads as 0.
        0 => "(attribute_not_exists(#v) OR #v = :v)",
        _ => "#v = :v",
    };
    RepairWrite {
        // The version shows other readers that units have moved.
        update: "SET #r = :to, #u = :u ADD #v :one",
        condition: format!("#r = :r AND #c = :c AND {version}"),
        names: vec![
            ("#r", codec::REMAINING),
            ("#c", codec::TOTAL_SEATS),
            ("#v", codec::VERSION),
            ("#u", codec::UPDATED_AT),
        ],
        values: vec![
            (":to", number(to)),
            (":u", text(at)),
            (":one", number(1)),
            (":r", number(seen.remaining)),
            (":c", number(seen.capacity)),
            (":v", number(seen.version)),
        ],
    }
}

fn counter_update(seen: i64, to: i64, at: &str) -> RepairWrite {
    let condition = match seen {
        // A missing item, or one without units, reads as 0.
        0 => "(attribute_not_exists(#n) OR #n = :n)",
        _ => "#n = :n",
    };
    RepairWrite {
        update: "SET #n = :to, #u = :u",
        condition: condition.to_owned(),
        names: vec![("#n", codec::CONFIRMED_UNITS), ("#u", codec::UPDATED_AT)],
        values: vec![(":to", number(to)), (":u", text(at)), (":n", number(seen))],
    }
}

fn moved_update(seen: i64, to: i64, at: &str) -> RepairWrite {
    let condition = match seen {
        // A missing number reads as 0. The item must exist.
        0 => "attribute_exists(#r) AND (attribute_not_exists(#m) OR #m = :m)",
        _ => "attribute_exists(#r) AND #m = :m",
    };
    RepairWrite {
        // The version shows another audit that the stripe has changed.
        update: "SET #m = :to, #u = :u ADD #v :one",
        condition: condition.to_owned(),
        names: vec![
            ("#m", codec::MOVED),
            ("#r", codec::REMAINING),
            ("#v", codec::VERSION),
            ("#u", codec::UPDATED_AT),
        ],
        values: vec![
            (":to", number(to)),
            (":u", text(at)),
            (":one", number(1)),
            (":m", number(seen)),
        ],
    }
}

fn seat_update(seen: &SeatState, to: &SeatState, at: &str) -> RepairWrite {
    let names = vec![
        ("#s", codec::STATUS),
        ("#u", codec::UPDATED_AT),
        ("#r", codec::RESERVATION_ID),
        ("#x", codec::HOLD_EXPIRES_AT),
        ("#o", codec::ORDER_ID),
    ];
    let mut values = vec![(":u", text(at))];
    let mut condition = "#s = :was".to_owned();
    values.push((":was", text(status(seen))));
    if let Some(holder) = audit::holder(seen) {
        condition.push_str(" AND #r = :holder");
        values.push((":holder", text(holder.as_str())));
    }
    if let SeatState::Hold { until, .. } = seen {
        match until.0 {
            // The stored form of a hold without an expiry time.
            u64::MAX => condition.push_str(" AND NOT attribute_type(#x, :n)"),
            _ => condition.push_str(" AND #x = :x"),
        }
        values.push(match until.0 {
            u64::MAX => (":n", text("N")),
            until => (":x", number(until)),
        });
    }
    values.push((":to", text(status(to))));
    let update = match to {
        SeatState::Hold { reservation, until } => {
            values.push((":r", text(reservation.as_str())));
            values.push((":until", number(until.0)));
            "SET #s = :to, #u = :u, #r = :r, #x = :until REMOVE #o"
        }
        SeatState::Sold { reservation } => {
            values.push((":r", text(reservation.as_str())));
            values.push((":o", text(OrderId::of(reservation).to_text())));
            "SET #s = :to, #u = :u, #r = :r, #o = :o REMOVE #x"
        }
        SeatState::Available | SeatState::Blocked => "SET #s = :to, #u = :u REMOVE #r, #x, #o",
    };
    RepairWrite { update, condition, names, values }
}

/// Checks that a record is still in `state` (`None`: that there is no record), with the hold expiry `until`.
fn record_check(
    table: &str,
    reservation: &ReservationId,
    state: Option<ReservationState>,
    until: Option<UnixMillis>,
) -> Result<TransactWriteItem, BuildError> {
    let check = ConditionCheck::builder().table_name(table).set_key(Some(record_key(reservation)));
    let check = match state {
        None => check
            .condition_expression("attribute_not_exists(#k)")
            .expression_attribute_names("#k", codec::RESERVATION_ID),
        Some(state) => {
            let check = check
                .expression_attribute_names("#s", codec::STATUS)
                .expression_attribute_values(":s", text(state.name()));
            match until {
                None => check.condition_expression("#s = :s"),
                Some(until) => check
                    .condition_expression("#s = :s AND #x = :x")
                    .expression_attribute_names("#x", codec::EXPIRES_AT)
                    .expression_attribute_values(":x", number(until.0)),
            }
        }
    };
    let check = check.build()?;
    Ok(TransactWriteItem::builder().condition_check(check).build())
}

/// A condition failed, possibly because this repair was written before and its answer was lost.
fn repair_failure(
    repair: &Repair,
    failure: CallFailure<TransactWriteItemsError>,
) -> Result<RepairOutcome, StoreError> {
    let error = failure.error.as_ref().and_then(|error| error.as_service_error());
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error else {
        return Err(failure.into());
    };
    let reasons = cancelled.cancellation_reasons();
    let failed = |reason: &&CancellationReason| reason.code() == Some("ConditionalCheckFailed");
    if !reasons.iter().any(|reason| failed(&reason)) {
        let codes: Vec<&str> = reasons.iter().filter_map(|reason| reason.code()).collect();
        return Err(
            match codes.iter().all(|code| *code != "AccessDenied" && *code != "ValidationError") {
                true => StoreError::Unavailable(codes.join(", ")),
                false => StoreError::Refused(failure.text()),
            },
        );
    }
    let there = reasons.first().and_then(|reason| reason.item());
    let done = there.is_some_and(|item| is_done(repair, item));
    Ok(if done { RepairOutcome::Done } else { RepairOutcome::Stale })
}

fn is_done(repair: &Repair, item: &Attributes) -> bool {
    match repair {
        Repair::Remaining { seen, to } => stripe(Some(item)).read().is_some_and(|now| {
            now.version == seen.version + 1
                && now.capacity == seen.capacity
                && i64::try_from(*to) == Ok(now.remaining)
        }),
        Repair::Counter { to, .. } => codec::confirmed_units(item) == Ok(*to),
        Repair::Moved { to, .. } => stripe(Some(item)).read().is_some_and(|now| now.moved == *to),
        Repair::Free { .. } => codec::seat_state(item) == Ok(SeatState::Available),
        Repair::Give { claim, .. } => codec::seat_state(item).ok() == claim.seat_state(),
    }
}

fn status(state: &SeatState) -> &'static str {
    match state {
        SeatState::Available => codec::AVAILABLE,
        SeatState::Hold { .. } => codec::HOLD,
        SeatState::Sold { .. } => codec::SOLD,
        SeatState::Blocked => codec::BLOCKED,
    }
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn aliases(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(alias, name): &(&str, &str)| ((*alias).to_owned(), (*name).to_owned());
    pairs.iter().map(owned).collect()
}
