//! The time that the processes of a hall need: the one CPU that they share, and reads of the seats key by key.
//!
//! Reads as the store client makes them: page by page, several keys at a time. The times of the benchmark: a page takes
//! the latency of one read, and CPU time for each seat that it returns.

use std::collections::HashMap;

use inventory_core::transaction::{FreeSeatsRead, SeatsRead};
use rand::Rng;

/// CPU times of a process, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuCosts {
    /// A call from its arrival to its answer.
    pub(super) call: u64,
    pub(super) transaction: u64,
    pub(super) action: u64,
    /// A request of a read.
    pub(super) request: u64,
    /// A thousand seats that a read returns.
    pub(super) thousand_seats: u64,
}

/// Of the benchmark: 58 µs for each call with its share of a transaction.
pub(super) const BENCHMARK: CpuCosts =
    CpuCosts { call: 30, transaction: 150, action: 5, request: 80, thousand_seats: 1_500 };

/// How the seats are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadPlan {
    /// Partition keys of the seats.
    pub(super) keys: usize,
    /// Keys that are read at a time.
    pub(super) parallel: usize,
    /// Seats that one page examines.
    pub(super) page: usize,
}

/// One CPU that all processes share, first come, first served.
#[derive(Debug, Default)]
pub(super) struct SharedCpu {
    free_at: u64,
    pub(super) used: u64,
}

impl SharedCpu {
    /// When work of `cost` that arrives at `now` is done.
    pub(super) fn spend(&mut self, now: u64, cost: u64) -> u64 {
        self.used += cost;
        self.free_at = self.free_at.max(now) + cost;
        self.free_at
    }
}

/// What a read returns.
#[derive(Debug)]
pub(super) enum ReadResult {
    All(SeatsRead),
    Free(FreeSeatsRead),
}

/// A read of the seats in progress.
#[derive(Debug)]
pub(super) struct PagedRead {
    pub(super) process: usize,
    /// Only free seats are returned.
    pub(super) is_free: bool,
    /// Pages that have not been requested, and those that have not arrived.
    to_request: usize,
    to_arrive: usize,
    /// Pages that have come, whether or not the process has decoded them.
    came: usize,
    pages: usize,
    pub(super) found: Option<ReadResult>,
}

impl PagedRead {
    /// Seats of one page of those that the read returns.
    pub(super) fn seats_of_page(&self, returned: usize) -> usize {
        returned / self.pages
    }
}

/// The reads in progress.
#[derive(Debug, Default)]
pub(super) struct PagedReads {
    reads: HashMap<u64, PagedRead>,
    made: u64,
}

/// What follows from the arrival of a page.
pub(super) enum PageArrival {
    /// The next page is requested.
    Next,
    /// This one was not the last of those in flight.
    Wait,
    Done(PagedRead),
}

impl PagedReads {
    /// Returns the number of the read, and of the requests that are sent at once.
    pub(super) fn begin(
        &mut self,
        process: usize,
        is_free: bool,
        seats: usize,
        plan: ReadPlan,
    ) -> (u64, usize) {
        self.made += 1;
        let pages = plan.keys * seats.div_ceil(plan.keys).div_ceil(plan.page);
        let at_once = plan.parallel.min(plan.keys);
        let read = PagedRead {
            process,
            is_free,
            to_request: pages - at_once,
            to_arrive: pages,
            came: 0,
            pages,
            found: None,
        };
        self.reads.insert(self.made, read);
        (self.made, at_once)
    }

    pub(super) fn get(&mut self, read: u64) -> &mut PagedRead {
        self.reads.get_mut(&read).unwrap()
    }

    /// Counts a page that comes. Whether it is the half: the read returns the seats as they are then.
    pub(super) fn comes_half(&mut self, read: u64) -> bool {
        let read = self.get(read);
        read.came += 1;
        read.found.is_none() && 2 * read.came >= read.pages
    }

    pub(super) fn arrive(&mut self, read: u64) -> PageArrival {
        let one = self.get(read);
        one.to_arrive -= 1;
        if one.to_request > 0 {
            one.to_request -= 1;
            return PageArrival::Next;
        }
        match one.to_arrive {
            0 => PageArrival::Done(self.reads.remove(&read).unwrap()),
            _ => PageArrival::Wait,
        }
    }
}

/// Latency of one page: 3 ms at the median, 6 at the 95th percentile.
pub(super) fn page_latency(rng: &mut impl Rng) -> u64 {
    match rng.random_ratio(1, 20) {
        true => rng.random_range(6_000..9_000),
        false => rng.random_range(2_000..4_500),
    }
}
