//! Members that wait, in the order they came in.
//!
//! Lanes of one pool share one line; what belongs to one stripe alone waits in that lane's own.

use std::collections::VecDeque;

use super::member::Member;
use crate::time::Micros;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Callers wait for these. By [`super::member::Head::number`], whatever was put back.
    pub(super) loud: VecDeque<Member>,
    /// Nobody waits for these. They take what room the others leave in a batch, and at least a
    /// quarter of it.
    pub(super) quiet: VecDeque<Member>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.loud.is_empty() && self.quiet.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.loud.len() + self.quiet.len()
    }

    /// Members that have been in a transaction go where they were: before all who came later.
    pub(super) fn put_back(&mut self, mut members: Vec<Member>) {
        let Some(last) = members.iter().map(|member| member.head.number).max() else {
            return;
        };
        let earlier = self.loud.partition_point(|m| m.head.number < last);
        members.extend(self.loud.drain(..earlier));
        members.sort_by_key(|member| member.head.number);
        for member in members.into_iter().rev() {
            self.loud.push_front(member);
        }
    }

    /// Takes out the callers that have gone.
    pub(super) fn drop_expired(&mut self, now: Micros, gone: &mut Vec<Member>) {
        let late = |member: &Member| member.head.deadline <= now;
        if !self.loud.iter().any(late) {
            return;
        }
        let mut kept = VecDeque::with_capacity(self.loud.len());
        for member in self.loud.drain(..) {
            match late(&member) {
                true => gone.push(member),
                false => kept.push_back(member),
            }
        }
        self.loud = kept;
    }
}
