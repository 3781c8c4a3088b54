//! What a shard may say of the units of an event: from one of its reads that began no longer before
//! the question than the bound, with what it has been told since of writes to them.
//!
//! The rule, written out a second time. Take any instant at which the read may have looked, and the
//! stock as it was then. What the shard has heard of since and that was not in it is added. No more
//! than that may be said, and no less but for what the read may have seen already. What was heard of
//! before the read began is in it, and what was sent after it had ended is not.

use std::collections::{BTreeMap, BTreeSet};

use inventory_core::ids::{EventId, ReservationId};
use inventory_core::time::Micros;
use inventory_core::transaction::{RecordView, ReservationState, Transaction, TransactionOutcome};

use super::super::model::Store;
use super::super::world::ShardRef;

#[derive(Debug)]
struct Read {
    event: EventId,
    began: Micros,
    ended: Option<Micros>,
    /// The states of the stock that it may have seen, by number.
    states: (usize, usize),
    /// How much had been heard of when it began.
    heard: usize,
}

/// A write that a shard was told of.
#[derive(Debug)]
struct Heard {
    event: EventId,
    /// `None`: nobody here knows.
    sent: Option<Micros>,
    /// What it added to each stripe.
    moved: Vec<(usize, i64)>,
    /// The state of the stock that it made; `None`: none.
    state: Option<usize>,
    /// How far off the shard may be that does not know whether its read has seen it.
    doubt: u64,
}

#[derive(Debug, Default)]
struct Memory {
    reads: Vec<Read>,
    heard: Vec<Heard>,
    /// Takes among what was heard, so that none counts twice: by reservation and state.
    takes: BTreeSet<(ReservationId, usize)>,
}

/// What every shard knows of stock.
#[derive(Debug, Default)]
pub(super) struct Stocks {
    shards: BTreeMap<ShardRef, Memory>,
    /// When each body was first sent, by token.
    sent: BTreeMap<u128, Micros>,
    /// Tokens of which some try ended without an outcome.
    unknown: BTreeSet<u128>,
}

/// What may be said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) least: u64,
    /// What there is, as far as the shard can know.
    pub(super) most: u64,
}

impl Stocks {
    pub(super) fn read_begins(
        &mut self,
        at: ShardRef,
        event: &EventId,
        now: Micros,
        store: &Store,
    ) {
        let memory = self.shards.entry(at).or_default();
        let state = store.states(event);
        memory.reads.push(Read {
            event: event.clone(),
            began: now,
            ended: None,
            states: (state, state),
            heard: memory.heard.len(),
        });
    }

    /// `failed`: it has found nothing.
    pub(super) fn read_ends(
        &mut self,
        at: ShardRef,
        event: &EventId,
        failed: bool,
        now: Micros,
        store: &Store,
    ) {
        let memory = self.shards.entry(at).or_default();
        let open = |read: &Read| read.event == *event && read.ended.is_none();
        if failed {
            memory.reads.retain(|read| !open(read));
        } else if let Some(read) = memory.reads.iter_mut().find(|read| open(read)) {
            read.ended = Some(now);
            read.states.1 = store.states(event);
        }
    }

    /// An operator's change is seen at once where it was made.
    pub(super) fn forgets(&mut self, at: ShardRef, event: &EventId) {
        let memory = self.shards.entry(at).or_default();
        memory.reads.retain(|read| read.event != *event);
    }

    pub(super) fn sends(&mut self, transaction: &Transaction, now: Micros) {
        self.sent.entry(transaction.token.0).or_insert(now);
    }

    pub(super) fn settles(
        &mut self,
        at: ShardRef,
        transaction: &Transaction,
        outcome: &TransactionOutcome,
        store: &Store,
    ) {
        let token = transaction.token.0;
        let sent = match outcome {
            TransactionOutcome::Committed => self.sent.get(&token).copied(),
            TransactionOutcome::Cancelled(_) | TransactionOutcome::Rejected
                if self.unknown.contains(&token) =>
            {
                None
            }
            TransactionOutcome::Unknown => {
                self.unknown.insert(token);
                return;
            }
            _ => return,
        };
        let memory = self.shards.entry(at).or_default();
        let state = store.state_made_by(token);
        if let Some(state) = state {
            let written = transaction.records.iter();
            let takes = written.map(|record| (record.reservation.clone(), state));
            memory.takes.extend(takes);
        }
        let moved: Vec<(usize, i64)> = transaction
            .stripes
            .iter()
            .map(|u| (usize::from(u.stripe), u.give as i64 - u.take as i64))
            .collect();
        memory.heard.push(Heard {
            event: transaction.event.clone(),
            sent,
            doubt: moved.iter().map(|(_, net)| net.unsigned_abs()).sum(),
            moved,
            state,
        });
    }

    /// Another shard has answered for this one.
    pub(super) fn is_told(
        &mut self,
        at: ShardRef,
        event: &EventId,
        reservation: &ReservationId,
        learned: &RecordView,
        store: &Store,
    ) {
        let has_units = matches!(
            learned.state,
            ReservationState::Held | ReservationState::Confirmed
        );
        if !has_units || learned.draws.is_empty() {
            return;
        }
        let memory = self.shards.entry(at).or_default();
        let took = store.last_take_of(reservation);
        let state = took.filter(|state| memory.takes.insert((reservation.clone(), *state)));
        let draws = learned.draws.iter();
        let taken = draws.map(|d| (usize::from(d.stripe), -i64::from(d.units)));
        memory.heard.push(Heard {
            event: event.clone(),
            sent: None,
            moved: taken.collect(),
            state,
            doubt: learned.draws.iter().map(|d| u64::from(d.units)).sum(),
        });
    }

    /// What the shard may say of the event to a question, one span for each read and state it may
    /// rest on.
    pub(super) fn spans(
        &self,
        at: ShardRef,
        event: &EventId,
        not_before: Micros,
        torn: bool,
        store: &Store,
    ) -> Vec<Span> {
        let Some(memory) = self.shards.get(&at) else {
            return Vec::new();
        };
        let mut spans = Vec::new();
        for read in &memory.reads {
            let Some(ended) = read.ended else { continue };
            if read.event != *event || read.began < not_before {
                continue;
            }
            let heard = memory.heard[read.heard..].iter();
            let heard: Vec<&Heard> = heard.filter(|heard| heard.event == *event).collect();
            let is_after = |heard: &&&Heard| heard.sent.is_some_and(|sent| sent > ended);
            let doubts = heard.iter().filter(|heard| !is_after(heard));
            let doubt: u64 = doubts.map(|heard| heard.doubt).sum();
            let looks = (read.states.0..=read.states.1).map(|state| {
                let (mut left, capacity) = store.state(event, state);
                for heard in &heard {
                    let is_in = heard.state.is_none_or(|made| made <= state);
                    if is_in && !is_after(&heard) {
                        continue;
                    }
                    for (stripe, net) in &heard.moved {
                        let moved = left[*stripe].saturating_add_signed(*net);
                        left[*stripe] = moved.min(capacity[*stripe]);
                    }
                }
                left
            });
            let looks: Vec<Vec<u64>> = looks.collect();
            let span = |most: u64, least: u64| Span {
                least: least.saturating_sub(doubt),
                most,
            };
            if torn {
                let per_stripe = |pick: fn(u64, u64) -> u64| -> u64 {
                    let stripes = 0..looks[0].len();
                    let of = |i: usize| looks.iter().map(|look| look[i]).reduce(pick);
                    stripes.filter_map(of).sum()
                };
                spans.push(span(per_stripe(u64::max), per_stripe(u64::min)));
            } else {
                let sums = looks.iter().map(|look| look.iter().sum());
                spans.extend(sums.map(|sum| span(sum, sum)));
            }
        }
        spans
    }
}
