//! Reads the store back after the run and reports every broken promise.
//!
//! | file | content |
//! |---|---|
//! | `client.rs` | scans over the DynamoDB JSON protocol, with retries |
//! | `items.rs` | decoding of stripes, records and seats (docs/adr/0004-tables.md) |
//! | `judge.rs` | checks of items against each other and against the ledger |
//!
//! Sums are valid only if nothing changes while the store is read: the read-back first waits until the stripes
//! are stable, and reads again if they changed.

mod client;
mod items;
mod judge;
#[cfg(test)]
mod judge_tests;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::client::ReadBackError;
use self::client::ScanClient;
pub use self::items::{RecordItem, SeatItem, StripeItem};
pub use self::judge::{EventBalance, RecordCounts, StoreJudge};
use crate::ledger::{RunLedger, ViolationLog};
use crate::limits;

/// Names of the three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames {
    pub inventory: String,
    pub seats: String,
    pub idempotency: String,
}

impl Default for TableNames {
    fn default() -> Self {
        Self {
            inventory: "inventory".to_owned(),
            seats: "inventory_seats".to_owned(),
            idempotency: "idempotency".to_owned(),
        }
    }
}

/// Address of the store, and how to read it.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `host:port`.
    pub authority: String,
    pub tables: TableNames,
    /// Parallel scans.
    pub segments: u32,
    /// Time limit of the wait for a stable store.
    pub settle: Duration,
    /// How long nothing may change before the store counts as stable.
    pub stable_for: Duration,
}

/// Result of the read-back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreReadback {
    #[serde(skip)]
    pub violations: ViolationLog,
    pub counts: RecordCounts,
    pub events: Vec<EventBalance>,
    /// Duration of the last round.
    pub seconds: f64,
    pub rounds: u32,
    /// Nothing changed during the last round.
    pub still: bool,
}

/// Reads all items of `events` and checks them against `ledger`.
///
/// # Errors
/// If the store cannot be read. Broken promises are in the result.
pub async fn read_back(
    options: &StoreOptions,
    events: &[String],
    ledger: &mut RunLedger,
) -> Result<StoreReadback, ReadBackError> {
    let client = ScanClient::new(&options.authority);
    let until = Instant::now() + options.settle;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let before = wait_until_stable(&client, options, events, until).await?;
        let started = Instant::now();
        ledger.clear_seen();
        let judge = RefCell::new(StoreJudge::new(events, ledger));
        read_round(&client, options, &judge).await?;
        let stripes = read_stripes(&client, options, events).await?;
        let still = stripes == before;
        let mut read = judge.into_inner().verdict(&stripes);
        read.seconds = started.elapsed().as_secs_f64();
        read.rounds = rounds;
        read.still = still;
        let again = !still || read.violations.total() > 0;
        // A real violation persists in a second round; while something changes, wait and read again.
        let enough = match still {
            true => rounds >= 2,
            false => rounds >= limits::READ_ROUNDS_MAX || Instant::now() >= until,
        };
        if !again || enough {
            if !still {
                read.violations.add("moving", || {
                    "stripes changed in every round: wait longer with --settle".to_owned()
                });
            }
            return Ok(read);
        }
        tokio::time::sleep(limits::REREAD_DELAY).await;
    }
}

async fn read_stripes(
    client: &ScanClient,
    options: &StoreOptions,
    events: &[String],
) -> Result<Vec<StripeItem>, ReadBackError> {
    let all = RefCell::new(Vec::new());
    let table = &options.tables.inventory;
    client
        .scan(table, items::STRIPE_ATTRIBUTES, 1, &|page| {
            items::stripes(page, events, &mut all.borrow_mut())
        })
        .await?;
    let mut all = all.into_inner();
    all.sort_by_key(|stripe: &StripeItem| (stripe.event, stripe.index));
    Ok(all)
}

/// Waits until the stripes are stable, or until `until`; returns them.
async fn wait_until_stable(
    client: &ScanClient,
    options: &StoreOptions,
    events: &[String],
    until: Instant,
) -> Result<Vec<StripeItem>, ReadBackError> {
    let mut last = read_stripes(client, options, events).await?;
    let mut since = Instant::now();
    while since.elapsed() < options.stable_for && Instant::now() < until {
        tokio::time::sleep(limits::STABLE_PERIOD).await;
        let now = read_stripes(client, options, events).await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

async fn read_round(
    client: &ScanClient,
    options: &StoreOptions,
    judge: &RefCell<StoreJudge<'_>>,
) -> Result<(), ReadBackError> {
    let segments = options.segments.clamp(1, limits::SEGMENTS_MAX);
    let tables = &options.tables;
    client
        .scan(&tables.idempotency, items::RECORD_ATTRIBUTES, segments, &|page| {
            items::records(page, |record| judge.borrow_mut().record(&record))
        })
        .await?;
    if judge.borrow().has_seats() {
        client
            .scan(&tables.seats, items::SEAT_ATTRIBUTES, segments, &|page| {
                items::seats(page, |seat| judge.borrow_mut().seat(&seat))
            })
            .await?;
    }
    Ok(())
}
