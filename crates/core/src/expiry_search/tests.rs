//! The search in virtual time is tested by `tests/simulation/overdue.rs`.
#![allow(clippy::unwrap_used)]

use rand::SeedableRng as _;

use super::*;

const START: Now = Now { mono: Micros(5_000_000), unix: UnixMillis(1_763_800_020_000) };

const EVERY: Micros = micros(limits::RECLAIM_EVERY);

fn search() -> ExpirySearch {
    let settings = SearchSettings {
        shard: 0,
        shards: 1,
        parts: limits::EXPIRY_PARTS,
        segments: limits::EXPIRY_SEGMENTS,
        every: EVERY,
    };
    ExpirySearch::new(settings, SmallRng::seed_from_u64(1))
}

fn later(seconds: u64) -> Now {
    let mono = START.mono.plus(Micros(seconds * 1_000_000));
    Now { mono, unix: UnixMillis(START.unix.0 + seconds * 1_000) }
}

const EMPTY: IndexReadResult =
    IndexReadResult::Complete { examined: 0, found: 0, unexpired: 0, oldest: None };

/// Ends every read that is due at `now` with this result, and returns the reads.
fn drain(search: &mut ExpirySearch, now: Now, result: IndexReadResult) -> Vec<IndexRead> {
    let mut all = Vec::new();
    while let Some(read) = search.poll_read(now) {
        search.handle_read(read, result, now);
        all.push(read);
    }
    all
}

#[test]
fn bucket_is_its_minute_and_its_part() {
    let id: ReservationId = "r1".parse().unwrap();
    let at = UnixMillis(1_763_800_079_999);
    assert_eq!(ExpiryBucket::of(&id, at).to_string(), "29396667#12");
    assert_eq!(ExpiryBucket::of(&id, UnixMillis(at.0 + 1)).to_string(), "29396668#12");
    let other: ReservationId = "rsv_abc123".parse().unwrap();
    assert_eq!(ExpiryBucket::of(&other, at).part, 9);
}

#[test]
fn consecutive_ids_spread_over_all_parts() {
    let mut counts = [0_u32; limits::EXPIRY_PARTS as usize];
    for n in 0..32_000 {
        let id = format!("rsv_{n:08}").parse().unwrap();
        counts[usize::from(ExpiryBucket::of(&id, UnixMillis(0)).part)] += 1;
    }
    assert!(counts.iter().all(|count| (500..2_000).contains(count)), "{counts:?}");
}

#[test]
fn shards_of_a_process_share_parts_and_segments() {
    for shards in [1, 3, 64] {
        let mut all = Vec::new();
        for shard in 0..shards {
            let settings = SearchSettings {
                shard,
                shards,
                parts: limits::EXPIRY_PARTS,
                segments: limits::EXPIRY_SEGMENTS,
                every: EVERY,
            };
            let mut search = ExpirySearch::new(settings, SmallRng::seed_from_u64(1));
            all.extend(drain(&mut search, START, EMPTY));
        }
        all.sort_unstable();
        let minute = minute_of(START.unix);
        let minutes = minute - limits::RECLAIM_WINDOW_MINUTES..=minute;
        let parts = 0..limits::EXPIRY_PARTS;
        let buckets = minutes.flat_map(|minute| {
            parts.clone().map(move |part| IndexRead::Bucket(ExpiryBucket { minute, part }))
        });
        let segments = (0..limits::EXPIRY_SEGMENTS).map(IndexRead::Segment);
        let expected: Vec<_> = buckets.chain(segments).collect();
        assert_eq!(all, expected, "{shards} shards");
    }
}

#[test]
fn oldest_reads_come_first_and_few_are_in_flight() {
    let mut search = search();
    let mut first = Vec::new();
    while let Some(read) = search.poll_read(START) {
        first.push(read);
    }
    let oldest = minute_of(START.unix) - limits::RECLAIM_WINDOW_MINUTES;
    let is_oldest = |read: &IndexRead| read.minute() <= oldest;
    assert_eq!(first.len(), limits::RECLAIM_BUCKETS_AT_ONCE + limits::RECLAIM_SEGMENTS_AT_ONCE);
    assert!(first.iter().all(is_oldest), "{first:?}");
}

#[test]
fn empty_bucket_is_read_until_it_has_settled() {
    let mut search = search();
    let minute = minute_of(START.unix);
    let mut last_read = BTreeMap::new();
    for second in 0..240 {
        for read in drain(&mut search, later(second), EMPTY) {
            if let IndexRead::Bucket(bucket) = read {
                last_read.insert((bucket.minute, bucket.part), later(second).unix);
            }
        }
    }
    for part in 0..limits::EXPIRY_PARTS {
        let settled = (minute + 1) * MINUTE + millis(limits::RECLAIM_SETTLE);
        let last = last_read[&(minute, part)].0;
        assert!((settled..settled + 23_000).contains(&last), "{last}, settled at {settled}");
    }
}

#[test]
fn failing_reads_are_probed_one_per_interval() {
    let mut search = search();
    drain(&mut search, START, IndexReadResult::Failed);
    assert_eq!(search.poll_event(), Some(SearchEvent::Failing));
    let mut probes = 0;
    for second in 1..=100 {
        probes += drain(&mut search, later(second), IndexReadResult::Failed).len();
    }
    // Of each kind one per two and a half seconds, rounded up to three.
    assert!((60..=80).contains(&probes), "{probes}");
    assert_eq!(search.poll_event(), None);
    assert_eq!(search.status().segments_read, START.mono);

    let after = later(104);
    let read = search.poll_read(after).unwrap();
    search.handle_read(read, EMPTY, after);
    assert!(matches!(search.poll_event(), Some(SearchEvent::Recovered(_))));
    drain(&mut search, after, EMPTY);
    assert_eq!(search.status().buckets_read, after.mono);
    assert_eq!(search.status().segments_read, after.mono);
}

#[test]
fn one_key_that_fails_does_not_delay_the_others() {
    let mut search = search();
    let bad = IndexRead::Bucket(ExpiryBucket { minute: minute_of(START.unix), part: 7 });
    let mut counts: BTreeMap<IndexRead, u32> = BTreeMap::new();
    for second in 0..60 {
        while let Some(read) = search.poll_read(later(second)) {
            let result = if read == bad { IndexReadResult::Failed } else { EMPTY };
            search.handle_read(read, result, later(second));
            *counts.entry(read).or_default() += 1;
        }
    }
    let good = IndexRead::Bucket(ExpiryBucket { minute: minute_of(START.unix), part: 8 });
    assert!(counts[&good] >= 18, "{}", counts[&good]);
}

#[test]
fn overdue_hold_is_reported_until_it_is_expired() {
    let settings = SearchSettings { shard: 0, shards: 1, parts: 0, segments: 1, every: EVERY };
    let mut search = ExpirySearch::new(settings, SmallRng::seed_from_u64(1));
    let old = UnixMillis(START.unix.0 - 2_400_000);
    let unexpired =
        IndexReadResult::Complete { examined: 1, found: 1, unexpired: 1, oldest: Some(old) };
    let read = search.poll_read(START).unwrap();
    search.handle_overdue(read, old, START.mono);
    assert_eq!(search.status().oldest_overdue, Some(old));
    // A failed read proves nothing.
    for (second, result) in [(0, unexpired), (3, IndexReadResult::Failed), (6, unexpired)] {
        search.handle_read(read, result, later(second));
        assert_eq!(search.status().oldest_overdue, Some(old), "{result:?}");
        assert_eq!(search.poll_read(later(second + 3)), Some(read));
    }
    search.handle_read(read, EMPTY, later(9));
    assert_eq!(search.status().oldest_overdue, None);
}

/// Its expiries may wait for writes that are sent again only when the engine knows that the store answers.
#[test]
fn a_page_with_overdue_holds_shows_at_once_that_the_store_answers() {
    let mut search = search();
    drain(&mut search, START, IndexReadResult::Failed);
    assert_eq!(search.poll_event(), Some(SearchEvent::Failing));
    let after = later(60);
    let read = search.poll_read(after).unwrap();
    search.handle_overdue(read, UnixMillis(START.unix.0 - 1_000), after.mono);
    let failed_for = after.mono.since(START.mono);
    assert_eq!(search.poll_event(), Some(SearchEvent::Recovered(failed_for)));
}

#[test]
fn hold_that_cannot_be_expired_does_not_delay_others_of_its_minute() {
    let settings = SearchSettings { shard: 0, shards: 1, parts: 1, segments: 0, every: EVERY };
    let mut search = ExpirySearch::new(settings, SmallRng::seed_from_u64(1));
    let unexpired = IndexReadResult::Complete { examined: 1, found: 1, unexpired: 1, oldest: None };
    let bucket = IndexRead::Bucket(ExpiryBucket { minute: minute_of(START.unix), part: 0 });
    let mut reads = 0;
    for second in 0..40 {
        let all = drain(&mut search, later(second), unexpired);
        reads += all.into_iter().filter(|read| *read == bucket).count();
    }
    assert!(reads >= 13, "{reads} reads in 40 s");
}
