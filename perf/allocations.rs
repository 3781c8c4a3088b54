//! Allocations per request, from the bytes of the request to the bytes of the response, without HTTP/2 and the SDK: counted
//! on the shard in `fake_shard.rs` and compared with bounds.
//!
//! A bound is slightly above the measured value. A new allocation on the request path fails the test; after an allocation
//! is removed, the bound must be lowered.

#![allow(clippy::unwrap_used)]

mod fake_shard;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;

use inventory_core::limits;

use self::fake_shard::{FakeShard, check, commits};

/// The system allocator, with a count of the allocations of each thread.
struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Allocations of a thread that is ending are not measured.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every method passes its arguments to the system allocator unchanged, under the contract that the caller keeps,
// and returns its result; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: see above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: see above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Requests of one measurement: 200 full batches.
const REQUESTS: u64 = 99 * 200;

const _: () = assert!(limits::BATCH_ENTRIES_MAX == 99);

/// Measured: 11.08. Five as for a repeated commit, and a share of the batch.
const DIRECT_COMMIT_MAX: f64 = 11.2;

/// Measured: 5. Three strings of the request, two of the response.
const REPEATED_COMMIT_MAX: f64 = 5.05;

/// Measured: 1, the event id. The stock reads add a hundredth.
const CHECK_MAX: f64 = 1.05;

/// Compares the allocations of `act`, which handles all requests, with the bound.
fn assert_allocations(what: &str, most: f64, act: impl FnOnce()) {
    let before = ALLOCATIONS.get();
    act();
    let each = (ALLOCATIONS.get() - before) as f64 / REQUESTS as f64;
    // Not captured: the value is part of every run's output.
    let _ = writeln!(std::io::stderr(), "allocations: {what}: {each:.2} a request, at most {most}");
    assert!(each <= most, "{what}: {each:.2} allocations a request, want {most} or less");
    assert!(
        each > most - 1.0,
        "{what}: {each:.2} allocations a request; lower the bound of {most}"
    );
}

#[test]
fn direct_commit_in_a_full_batch() {
    let mut shard = FakeShard::new();
    let bodies = commits(REQUESTS);
    assert_allocations("a direct commit", DIRECT_COMMIT_MAX, || {
        shard.commit_all(&bodies);
    });
    let counters = shard.counters();
    assert!(counters.entries / counters.transactions > 90, "{counters:?}");
}

#[test]
fn repeated_commit_from_the_cache() {
    let mut shard = FakeShard::new();
    let body = &commits(1)[0];
    shard.commit_one(body);
    assert_allocations("a repeated commit", REPEATED_COMMIT_MAX, || {
        shard.repeat(body, REQUESTS);
    });
}

#[test]
fn check_from_a_snapshot() {
    let mut shard = FakeShard::new();
    let body = check();
    assert_allocations("a check", CHECK_MAX, || shard.check(&body, REQUESTS));
    assert!(shard.counters().snapshot_refreshes > 3);
}
