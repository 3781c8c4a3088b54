//! How many allocations a request costs, from its bytes to the bytes of its answer, but for HTTP/2 and
//! the SDK: counted, and held to what it was when it was last looked at.
//!
//! On one thread, through the pieces that the server is made of: decode and validate (`wire`, `api`),
//! the engine and its lanes (`domain`), encode. A bound is that figure and a little: whoever adds an
//! allocation to the way of every request sees it here, and whoever takes one away lowers the bound.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;

use inventory_api::limits;

use self::paper_shard::{Shard, check, commits};

#[path = "common/paper_shard.rs"]
mod paper_shard;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending asks for nothing that a test looks at.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every method hands its arguments to the system's allocator unchanged, under the contract
// that its caller keeps, and returns what that returns; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
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
static COUNTING: Counting = Counting;

/// Requests of one measurement: a batch's members a hundred times and more.
const REQUESTS: u64 = 99 * 200;

const _: () = assert!(limits::BATCH_ENTRIES_MAX == 99);

/// Measured: 12.14, five of them those of a repeat, and the share of a batch.
const DIRECT_COMMIT_MAX: f64 = 12.25;

/// Measured: 5. Three texts of the request, two of the answer.
const REPEATED_COMMIT_MAX: f64 = 5.05;

/// Measured: 1, the event's name. The reads between are a hundredth of one.
const CHECK_MAX: f64 = 1.05;

/// Allocations per request of what `act` does for all of them.
fn per_request(what: &str, most: f64, act: impl FnOnce()) {
    let before = ASKED.get();
    act();
    let each = (ASKED.get() - before) as f64 / REQUESTS as f64;
    // Past the capture: the figure is part of every run's result.
    let _ = writeln!(
        std::io::stderr(),
        "allocations: {what}: {each:.2} a request, at most {most}"
    );
    assert!(
        each <= most,
        "{what}: {each:.2} allocations a request, want {most} or less"
    );
    assert!(
        each > most - 1.0,
        "{what}: {each:.2} allocations a request; lower the bound of {most}"
    );
}

#[test]
fn direct_commits_in_full_batches() {
    let mut shard = Shard::new();
    let bodies = commits(REQUESTS);
    per_request("a direct commit", DIRECT_COMMIT_MAX, || {
        shard.commit_all(&bodies);
    });
    let counters = shard.counters();
    assert!(
        counters.entries / counters.transactions > 90,
        "{counters:?}"
    );
}

#[test]
fn repeated_commits_from_memory() {
    let mut shard = Shard::new();
    let body = &commits(1)[0];
    shard.commit_one(body);
    per_request("a repeated commit", REPEATED_COMMIT_MAX, || {
        shard.repeat(body, REQUESTS);
    });
}

#[test]
fn checks_from_a_snapshot() {
    let mut shard = Shard::new();
    let body = check();
    per_request("a check", CHECK_MAX, || shard.check(&body, REQUESTS));
    assert!(shard.counters().snapshot_refreshes > 3);
}
