//! Search for a linearization: an order of the calls that a sequential model explains and that respects their times.
//!
//! The algorithm is the one of Wing and Gong with the memoization of Lowe, with two reductions that keep a search short
//! where a history cannot be explained:
//!
//! 1. A call that only reads is put next as soon as its answer fits. Any order that has it later remains valid with the
//!    call moved here, because no other call sees a difference. (This does not hold for a write that changes nothing
//!    now: the order may need it later, where it changes something.)
//! 2. Of several equal calls that can be next, only the one with the first end is tried. Any order that has another one
//!    here remains valid with the two exchanged: the other one ends later, so it may take the later place.
//!
//! What is left grows with the ways in which the state can change, not with the subsets of overlapping calls. The work
//! is bounded in any case: beyond the bound the history is reported as not decided.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

/// The sequential specification of one object.
pub(crate) trait SequentialModel {
    type State: Clone + Eq + Hash;
    type Op: Eq;

    fn initial(&self) -> Self::State;

    /// The state after a call with its answer; `None` if this state does not allow the answer.
    fn answered(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether the call with its answer changes no state.
    fn only_reads(&self, op: &Self::Op) -> bool;

    /// The state after a call without an answer has taken effect: the same state if it has none.
    fn effect(&self, state: &Self::State, op: &Self::Op) -> Self::State;
}

/// A call with its times.
#[derive(Clone, Debug)]
pub(crate) struct TimedOp<O> {
    pub(crate) started: Duration,
    /// `None`: may take effect at any time after the start, or never.
    pub(crate) ended: Option<Duration>,
    pub(crate) op: O,
}

/// Result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchVerdict {
    Linearizable,
    NotLinearizable,
    /// More steps than allowed.
    NotDecided,
}

/// The calls that were put in order, as a bit set by index.
type CallSet = Vec<u64>;

/// Searches for an order of `calls`, looking at a call at most `steps_max` times.
pub(crate) fn linearize<M: SequentialModel>(
    model: &M,
    calls: &[TimedOp<M::Op>],
    steps_max: u64,
) -> SearchVerdict {
    let mut search = OrderSearch { model, calls, classes: classes(calls), steps: 0, steps_max };
    let mut work = vec![(vec![0; calls.len().div_ceil(64)], model.initial())];
    let mut seen: HashSet<(CallSet, M::State)> = HashSet::new();
    while let Some((mut done, state)) = work.pop() {
        let Some(first_end) = search.put_readers(&mut done, &state) else {
            return SearchVerdict::Linearizable;
        };
        if search.steps > steps_max {
            return SearchVerdict::NotDecided;
        }
        if seen.insert((done.clone(), state.clone())) {
            search.push_successors(&done, &state, first_end, &mut work);
        }
    }
    SearchVerdict::NotLinearizable
}

/// The calls that show why a history has no order: those of its shortest prefix without one, as indexes in the order of
/// their starts, and the index of the call whose answer ends it. Left out is what only reads and is not needed.
///
/// A prefix ends with an answer; calls that are in flight at that time count as unanswered. If a prefix has an order, so
/// have all shorter ones.
pub(crate) fn shortest_prefix<M: SequentialModel>(
    model: &M,
    calls: &[TimedOp<M::Op>],
    steps_max: u64,
) -> (Vec<usize>, usize)
where
    M::Op: Clone,
{
    let mut ends: Vec<(Duration, usize)> =
        calls.iter().enumerate().filter_map(|(at, call)| Some((call.ended?, at))).collect();
    ends.sort_unstable();
    let is_wrong = |kept: &[usize], until: Duration| {
        let cut = |at: &usize| {
            let call = calls[*at].clone();
            TimedOp { ended: call.ended.filter(|end| *end <= until), ..call }
        };
        let prefix: Vec<_> = kept.iter().map(cut).collect();
        linearize(model, &prefix, steps_max) == SearchVerdict::NotLinearizable
    };
    let started_by = |until: Duration| -> Vec<usize> {
        (0..calls.len()).filter(|at| calls[*at].started <= until).collect()
    };
    let first_wrong = ends.partition_point(|(until, _)| !is_wrong(&started_by(*until), *until));
    let (until, last) = ends[first_wrong.min(ends.len() - 1)];
    let mut kept = started_by(until);
    for at in kept.clone() {
        // Removing a call that may change the state would make a history wrong that is right.
        if at != last
            && calls[at].ended.is_some_and(|end| end <= until)
            && model.only_reads(&calls[at].op)
        {
            let fewer: Vec<usize> = kept.iter().copied().filter(|kept| *kept != at).collect();
            if is_wrong(&fewer, until) {
                kept = fewer;
            }
        }
    }
    kept.sort_by_key(|at| calls[*at].started);
    (kept, last)
}

struct OrderSearch<'a, M: SequentialModel> {
    model: &'a M,
    calls: &'a [TimedOp<M::Op>],
    /// For each call the number of the first one that is equal.
    classes: Vec<usize>,
    /// Calls that were looked at.
    steps: u64,
    steps_max: u64,
}

/// See [`OrderSearch::classes`].
fn classes<O: Eq>(calls: &[TimedOp<O>]) -> Vec<usize> {
    let mut firsts: Vec<usize> = Vec::new();
    let class_of = |index: usize, firsts: &mut Vec<usize>| {
        let is_equal = |first: &&usize| {
            let (a, b) = (&calls[**first], &calls[index]);
            a.ended.is_some() == b.ended.is_some() && a.op == b.op
        };
        firsts.iter().find(is_equal).copied().unwrap_or_else(|| {
            firsts.push(index);
            index
        })
    };
    (0..calls.len()).map(|index| class_of(index, &mut firsts)).collect()
}

impl<M: SequentialModel> OrderSearch<'_, M> {
    /// Puts every call next that can be next and changes nothing. Returns the first end of the calls that are left;
    /// `None` if no call with an answer is left.
    fn put_readers(&mut self, done: &mut CallSet, state: &M::State) -> Option<Duration> {
        loop {
            let first_end = self.first_end(done)?;
            let mut has_put = false;
            self.steps += self.calls.len() as u64;
            for (index, call) in self.calls.iter().enumerate() {
                let can_be_next = call.ended.is_some() && call.started <= first_end;
                if !can_be_next || contains(done, index) || !self.model.only_reads(&call.op) {
                    continue;
                }
                if self.model.answered(state, &call.op).is_some() {
                    insert(done, index);
                    has_put = true;
                }
            }
            if !has_put || self.steps > self.steps_max {
                return Some(first_end);
            }
        }
    }

    /// No call that started after this can be next: another one had ended by then.
    fn first_end(&self, done: &CallSet) -> Option<Duration> {
        let left = self.calls.iter().enumerate().filter(|(index, _)| !contains(done, *index));
        left.filter_map(|(_, call)| call.ended).min()
    }

    /// Adds the states after each call that can be next. The last one added is tried first: answered calls before
    /// unanswered ones, and of those the earlier ends first.
    fn push_successors(
        &mut self,
        done: &CallSet,
        state: &M::State,
        first_end: Duration,
        work: &mut Vec<(CallSet, M::State)>,
    ) {
        let can_be_next =
            |index: &usize| self.calls[*index].started <= first_end && !contains(done, *index);
        let mut next: Vec<usize> = (0..self.calls.len()).filter(can_be_next).collect();
        // Calls without an end are last.
        next.sort_by_key(|index| self.calls[*index].ended.unwrap_or(Duration::MAX));
        let mut tried = vec![0; done.len()];
        self.steps += self.calls.len() as u64;
        let mut successors = Vec::new();
        for index in next {
            let TimedOp { ended, op, .. } = &self.calls[index];
            if contains(&tried, self.classes[index]) {
                continue;
            }
            insert(&mut tried, self.classes[index]);
            let after = match ended {
                Some(_) => self.model.answered(state, op),
                // A call that would change nothing here is not needed here.
                None => Some(self.model.effect(state, op)).filter(|after| after != state),
            };
            successors.extend(after.map(|after| (with(done, index), after)));
        }
        work.extend(successors.into_iter().rev());
    }
}

fn contains(set: &CallSet, index: usize) -> bool {
    set[index / 64] & (1 << (index % 64)) != 0
}

fn insert(set: &mut CallSet, index: usize) {
    set[index / 64] |= 1 << (index % 64);
}

fn with(set: &CallSet, index: usize) -> CallSet {
    let mut set = set.clone();
    insert(&mut set, index);
    set
}

#[cfg(test)]
mod tests;
