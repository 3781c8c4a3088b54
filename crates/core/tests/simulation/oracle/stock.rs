//! What a shard may answer about the units of an event: from one of its reads that began within the allowed
//! age before the query, with the writes that the shard has learned of since.
//!
//! The rule, written a second time. Take any instant at which the read may have been executed, and the stock at
//! that instant. Add what the shard has learned since and that stock does not contain. The answer must not be
//! higher, and must not be lower by more than the writes that the read may have seen already. A write that the
//! shard knew before the read began is contained; a write sent after the read had ended is not.

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
    /// The versions of the stock that the read may have seen.
    states: (usize, usize),
    /// How many writes the shard knew when the read began.
    heard: usize,
}

/// A write that a shard has learned of.
#[derive(Debug)]
struct KnownWrite {
    event: EventId,
    /// `None`: the shard does not know when.
    sent: Option<Micros>,
    /// What the write added to each stripe.
    moved: Vec<(usize, i64)>,
    /// What the write added to the held units.
    held: i64,
    /// The version of the stock that the write made, if it made one.
    state: Option<usize>,
    /// The largest error of a shard that does not know whether its read has seen the write.
    doubt: u64,
}

#[derive(Debug, Default)]
struct ShardView {
    reads: Vec<Read>,
    heard: Vec<KnownWrite>,
    /// The takes among the known writes, by reservation and version, so that none counts twice.
    takes: BTreeSet<(ReservationId, usize)>,
}

/// What each shard knows about stock.
#[derive(Debug, Default)]
pub(super) struct StockViews {
    shards: BTreeMap<ShardRef, ShardView>,
    /// When each transaction was first sent, by token.
    sent: BTreeMap<u128, Micros>,
    /// Tokens with an attempt whose outcome stayed unknown.
    unknown: BTreeSet<u128>,
}

/// The range of correct answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct StockBounds {
    pub(super) least: u64,
    /// What is available as far as the shard can know.
    pub(super) most: u64,
    /// What is held as far as the shard can know; without meaning for torn reads.
    pub(super) held: i64,
}

impl StockViews {
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

    /// `failed`: the read returned nothing.
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

    /// The process that executed an operator's change must not answer from older reads.
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
            let takes = written.map(|record| (record.reservation().clone(), state));
            memory.takes.extend(takes);
        }
        let moved: Vec<(usize, i64)> = transaction
            .stripes
            .iter()
            .map(|u| (usize::from(u.stripe), u.give as i64 - u.take as i64))
            .collect();
        memory.heard.push(KnownWrite {
            event: transaction.event.clone(),
            sent,
            doubt: moved.iter().map(|(_, net)| net.unsigned_abs()).sum(),
            moved,
            held: transaction.stripes.iter().map(|update| update.held).sum::<i64>()
                - transaction.counter.map_or(0, |update| update.units as i64),
            state,
        });
    }

    /// Another shard has answered a call of this one.
    pub(super) fn forward_answered(
        &mut self,
        at: ShardRef,
        event: &EventId,
        reservation: &ReservationId,
        learned: &RecordView,
        store: &Store,
    ) {
        let has_units =
            matches!(learned.state, ReservationState::Held | ReservationState::Confirmed);
        if !has_units || learned.draws.is_empty() {
            return;
        }
        let memory = self.shards.entry(at).or_default();
        let took = store.last_take_of(reservation);
        let state = took.filter(|state| memory.takes.insert((reservation.clone(), *state)));
        let draws = learned.draws.iter();
        let taken = draws.map(|d| (usize::from(d.stripe), -i64::from(d.units)));
        memory.heard.push(KnownWrite {
            event: event.clone(),
            sent: None,
            moved: taken.collect(),
            // The shard answers no status before its next read.
            held: 0,
            state,
            doubt: learned.draws.iter().map(|d| u64::from(d.units)).sum(),
        });
    }

    /// The ranges of correct answers to a query, one for each read and version that the answer may rest on.
    pub(super) fn spans(
        &self,
        at: ShardRef,
        event: &EventId,
        not_before: Micros,
        torn: bool,
        store: &Store,
    ) -> Vec<StockBounds> {
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
            let heard: Vec<&KnownWrite> = heard.filter(|heard| heard.event == *event).collect();
            let is_after = |heard: &&&KnownWrite| heard.sent.is_some_and(|sent| sent > ended);
            let doubts = heard.iter().filter(|heard| !is_after(heard));
            let doubt: u64 = doubts.map(|heard| heard.doubt).sum();
            let queries = (read.states.0..=read.states.1).map(|state| {
                let (mut left, capacity) = store.state(event, state);
                let mut held = store.held(event, state);
                for heard in &heard {
                    let is_in = heard.state.is_none_or(|made| made <= state);
                    if is_in && !is_after(&heard) {
                        continue;
                    }
                    held += heard.held;
                    for (stripe, net) in &heard.moved {
                        let moved = left[*stripe].saturating_add(*net);
                        left[*stripe] = moved.min(capacity[*stripe]);
                    }
                }
                (left, held)
            });
            let queries: Vec<(Vec<i64>, i64)> = queries.collect();
            let sum = |units: i64| u64::try_from(units).unwrap_or(0);
            let span = |most: u64, least: u64, held: i64| StockBounds {
                least: least.saturating_sub(doubt),
                most,
                held,
            };
            if torn {
                let per_stripe = |pick: fn(i64, i64) -> i64| -> u64 {
                    let stripes = 0..queries[0].0.len();
                    let of = |i: usize| queries.iter().map(|(look, _)| look[i]).reduce(pick);
                    sum(stripes.filter_map(of).sum())
                };
                spans.push(span(per_stripe(i64::max), per_stripe(i64::min), 0));
            } else {
                let sums = queries.iter().map(|(look, held)| (sum(look.iter().sum()), *held));
                spans.extend(sums.map(|(sum, held)| span(sum, sum, held)));
            }
        }
        spans
    }
}
