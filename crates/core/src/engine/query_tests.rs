//! Queries and stock snapshots on one shard.

use rand::SeedableRng;

use super::tests::{SETTINGS, at, drain, one_stripe};
use super::*;
use crate::query::Query;

const AVAILABILITY: Query = Query::Availability { qty: 1, section: None };

fn reads(fx: &[Effect]) -> usize {
    fx.iter().filter(|effect| matches!(effect, Effect::ReadStripes { .. })).count()
}

/// A shard with this maximum snapshot age, which has read the event from 0 to 3 ms.
fn shard_that_has_read(staleness: u64) -> (Engine, EventId) {
    let settings = EngineSettings { read_staleness: Micros::from_millis(staleness), ..SETTINGS };
    let mut shard = Engine::new(settings, SmallRng::seed_from_u64(1));
    let event: EventId = "evt".parse().expect("legal");
    let mut fx = Vec::new();
    assert_eq!(shard.cached_query_result(&event, &AVAILABILITY, Micros(0)), None);
    drain(&mut shard, &mut fx);
    shard.handle_query(CallId(1), event.clone(), AVAILABILITY, at(0));
    drain(&mut shard, &mut fx);
    let read = StripesRead::Found(vec![one_stripe(7)]);
    shard.handle_stripes_read(&event, &read, at(3_000));
    drain(&mut shard, &mut fx);
    assert_eq!(reads(&fx), 1);
    (shard, event)
}

#[test]
fn busy_event_is_refreshed_before_its_snapshot_is_too_old() {
    let (mut shard, event) = shard_that_has_read(50);
    let (mut begun, mut answered) = (0, 0);
    let mut due = None;
    // Every ms for a second; a read takes 3 ms.
    for ms in 4..1_004 {
        let now = at(ms * 1_000);
        let mut fx = Vec::new();
        if due == Some(ms) {
            let read = StripesRead::Found(vec![one_stripe(7)]);
            shard.handle_stripes_read(&event, &read, now);
            drain(&mut shard, &mut fx);
        }
        let found = shard.cached_query_result(&event, &AVAILABILITY, now.mono);
        drain(&mut shard, &mut fx);
        answered += usize::from(found.is_some());
        if reads(&fx) > 0 {
            begun += reads(&fx);
            due = Some(ms + 3);
        }
    }
    assert_eq!(answered, 1_000);
    assert_eq!(begun, 26, "one in 38 ms");
    assert_eq!(shard.counters().snapshot_refreshes, 26);
    assert_eq!(shard.counters().snapshot_answers, 1_000);
}

#[test]
fn without_queries_nothing_is_read() {
    let (mut shard, event) = shard_that_has_read(50);
    let mut fx = Vec::new();
    shard.handle_timeout(at(40_000));
    drain(&mut shard, &mut fx);
    assert!(fx.is_empty() && shard.is_idle() && shard.poll_timeout().is_none());
    // Past the bound a query waits.
    assert_eq!(shard.cached_query_result(&event, &AVAILABILITY, Micros(50_001)), None);
    drain(&mut shard, &mut fx);
    shard.handle_query(CallId(2), event, AVAILABILITY, at(50_001));
    drain(&mut shard, &mut fx);
    assert_eq!(fx.len(), 1);
}

#[test]
fn query_during_a_recent_read_shares_it_unless_snapshots_are_off() {
    for (staleness, began, told_at_once) in [(50, 100_000, 2), (0, 100_000, 1)] {
        let (mut shard, event) = shard_that_has_read(staleness);
        let mut fx = Vec::new();
        shard.handle_query(CallId(2), event.clone(), AVAILABILITY, at(began));
        drain(&mut shard, &mut fx);
        shard.handle_query(CallId(3), event.clone(), AVAILABILITY, at(began + 2_000));
        drain(&mut shard, &mut fx);
        assert_eq!(reads(&fx), 1);
        fx.clear();
        let read = StripesRead::Found(vec![one_stripe(7)]);
        shard.handle_stripes_read(&event, &read, at(began + 3_000));
        drain(&mut shard, &mut fx);
        let told = |fx: &[Effect]| {
            let told = fx.iter().filter(|e| matches!(e, Effect::AnswerQuery { .. }));
            told.count()
        };
        assert_eq!(told(&fx), told_at_once, "staleness {staleness}");
        assert_eq!(reads(&fx), 2 - told_at_once);
    }
}
