//! Members → one transaction within the store's limits.

use std::collections::VecDeque;

use super::{Head, Member};
use crate::domain::ids::EventId;
use crate::domain::time::{Micros, UnixMillis};
use crate::domain::transaction::{RecordWrite, StripeUpdate, Token, Transaction};
use crate::limits;

/// Members that go into one transaction, and those found to be too late for it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) members: Vec<Member>,
    pub(super) expired: Vec<Member>,
}

impl Batch {
    /// A group stays together: it was part of a legal transaction before.
    pub(super) fn of_group(members: Vec<Member>) -> Self {
        Self {
            members,
            expired: Vec::new(),
        }
    }

    /// Takes members from the front of the queue while one more fits the action limit. Those that
    /// only wait to be refused go together, for they would fail any others.
    pub(super) fn from_queue(queue: &mut VecDeque<Member>, now: Micros) -> Self {
        let room = queue.len().min(limits::BATCH_MEMBERS_MAX);
        let mut batch = Self {
            members: Vec::with_capacity(room),
            expired: Vec::new(),
        };
        let mut stripes = Vec::new();
        while let Some(member) = queue.front() {
            let late = member.head.deadline <= now;
            let alike = batch.members.last().is_none_or(|last: &Member| {
                last.head.too_few.is_some() == member.head.too_few.is_some()
            });
            let mut fits = || fits(&member.record, &mut stripes, batch.members.len());
            if !late && (!alike || !fits()) {
                break;
            }
            let Some(member) = queue.pop_front() else {
                break;
            };
            if late {
                batch.expired.push(member);
            } else {
                batch.members.push(member);
            }
        }
        batch
    }

    pub(super) fn drop_expired(&mut self, now: Micros) {
        if self.members.iter().all(|m| m.head.deadline > now) {
            return;
        }
        for member in std::mem::take(&mut self.members) {
            if member.head.deadline > now {
                self.members.push(member);
            } else {
                self.expired.push(member);
            }
        }
    }

    /// Moves the records into a transaction; the heads stay behind in the same order.
    pub(super) fn into_transaction(
        self,
        event: &EventId,
        token: Token,
        at: UnixMillis,
    ) -> (Vec<Head>, Transaction) {
        let mut heads = Vec::with_capacity(self.members.len());
        let mut records = Vec::with_capacity(self.members.len());
        for member in self.members {
            heads.push(member.head);
            records.push(member.record);
        }
        let transaction = Transaction {
            token,
            event: event.clone(),
            seat_keys: 0,
            stripes: takes(&records),
            records,
            at,
        };
        (heads, transaction)
    }
}

/// Whether one more record, and the stripes it is the first to draw on, fits; notes its stripes.
fn fits(record: &RecordWrite, stripes: &mut Vec<u16>, members: usize) -> bool {
    let known = stripes.len();
    for draw in &record.draws {
        if !stripes.contains(&draw.stripe) {
            stripes.push(draw.stripe);
        }
    }
    let fits = stripes.len() + members < limits::TRANSACTION_ACTIONS_MAX
        && members < limits::BATCH_MEMBERS_MAX;
    if !fits {
        stripes.truncate(known);
    }
    fits
}

/// One update per stripe, with the sum of what the records draw from it.
fn takes(records: &[RecordWrite]) -> Vec<StripeUpdate> {
    let mut updates: Vec<StripeUpdate> = Vec::with_capacity(1);
    for draw in records.iter().flat_map(|record| &record.draws) {
        match updates.iter_mut().find(|u| u.stripe == draw.stripe) {
            Some(update) => update.take += u64::from(draw.units),
            None => updates.push(StripeUpdate {
                stripe: draw.stripe,
                take: u64::from(draw.units),
                give: 0,
            }),
        }
    }
    updates
}
