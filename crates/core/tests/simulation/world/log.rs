//! The log lines of the steps. The words for inputs and effects of the core are in [`super::super::trace`].

use std::fmt::{self, Display, Formatter};

use super::super::clients::{Call, Request};
use super::super::trace::{Words, expect, ids, verb};
use super::{ShardRef, WorldStep};

impl Display for ShardRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.process, self.shard, self.life)
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.what {
            Request::Write(what, reservation) => {
                let selection = Words(&self.selection);
                write!(f, "{} {reservation} {} {selection}", verb(*what), self.event)?;
            }
            Request::Ask(query) => write!(f, "{} {}", self.event, Words(query))?,
        }
        let section = self.section.as_deref().unwrap_or("-");
        let (hold_for, patience) = (self.hold_for.0, self.patience.0);
        write!(f, " in {section} for {hold_for} within {patience}")?;
        write!(f, ", expects {}, try {}", expect(self.expectation), self.tries)
    }
}

impl Display for WorldStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::CallArrives(call) => write!(f, "call {call}"),
            Self::QueryArrives(at, call) => write!(f, "call at {at} {call}"),
            Self::AtStore { from, lane, transaction, arrival } => {
                let (lane, token) = (Words(lane), transaction.token.0);
                write!(f, "{from} {lane} arrives at the store: {token:032x}")?;
                let echo = if arrival.echo { ", echo" } else { "" };
                let late = if arrival.late { ", late" } else { "" };
                write!(f, "{echo}{late}")
            }
            Self::Settled(at, lane, outcome) => {
                write!(f, "{at} {} settled: {}", Words(lane), Words(outcome))
            }
            Self::StripeAtStore { from, event, seen, .. } => {
                write!(f, "{from} stripe {} of {event} is read", seen.len())
            }
            Self::Read(at, event, read) => write!(f, "{at} stripes of {event}: {}", Words(read)),
            Self::RecordsAtStore(from, lookup, reservations) => {
                write!(f, "{from} records {} are read: {}", lookup.0, ids(reservations))
            }
            Self::RecordsReturned(at, lookup, read) => {
                write!(f, "{at} records {}: {}", lookup.0, Words(read))
            }
            Self::SeatsAtStore { from, event, seen } => {
                let half = u8::from(seen.is_some());
                write!(f, "{from} seats of {event} are read, {half}")
            }
            Self::SeatsRead(at, event, read) => write!(f, "{at} seats of {event}: {}", Words(read)),
            Self::FreeSeatsAtStore { from, event, unix, seen } => {
                let half = u8::from(seen.is_some());
                write!(f, "{from} free seats of {event} at {} are read, {half}", unix.0)
            }
            Self::FreeSeatsRead(at, event, read) => {
                write!(f, "{at} free seats of {event}: {}", Words(read))
            }
            Self::Forwarded { to, from, operation, .. } => {
                write!(f, "{to} gets from {from}: {}", Words(operation))
            }
            Self::ForwardSettled(at, (event, reservation), answer, _) => {
                write!(f, "{at} hears of {reservation} {event}: {}", Words(answer))
            }
            Self::QueryForwarded { to, from, call, .. } => {
                write!(f, "{to} is asked {} by {from}", call.0)
            }
            Self::QueryReturned(at, call, result) => {
                write!(f, "{at} hears of {}: {}", call.0, Words(result))
            }
            Self::Wake(at) => write!(f, "{at} wakes"),
            Self::Crash(process) => write!(f, "process {process} crashes"),
            Self::Search(at) => write!(f, "{at} searches for overdue holds"),
            Self::IndexAtStore(at, read) => write!(f, "{at} {read:?} is read"),
            Self::IndexRead(at, read, None) => write!(f, "{at} {read:?} failed"),
            Self::ExpiriesTimedOut(at, read, _) => write!(f, "{at} {read:?}: expiries timed out"),
            Self::IndexRead(at, read, Some(due)) => {
                let due: Vec<_> = due.iter().map(|(_, reservation, _)| reservation).collect();
                write!(f, "{at} {read:?}: overdue: {}", ids(&due))
            }
            Self::Restock(event, stripe, units) => {
                write!(f, "stripe {stripe} of {event} gets {units} more")
            }
            Self::Close(event) => write!(f, "{event} closes"),
            Self::Block(event, seat) => write!(f, "{seat} of {event} is blocked or put back"),
            Self::SeesMembers(process) => write!(f, "process {process} reads the members"),
            Self::Members(at, members) => {
                let own = members.own_position();
                write!(f, "{at} is member {own} of {}", members.count())
            }
            Self::Invalidate(at, event) => write!(f, "{at} forgets {event}"),
        }
    }
}
