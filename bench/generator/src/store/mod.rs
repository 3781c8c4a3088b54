//! Reads the store back when the run is over, and fails on any broken promise.
//!
//! | file | what |
//! |---|---|
//! | `client.rs` | DynamoDB's JSON over plain HTTP: scans, with repeats |
//! | `items.rs` | stripes, records and seats as they are stored (docs/adr/0004-tables.md) |
//! | `verify.rs` | the verdict: items against each other and against the ledger |
//!
//! The store must be still for the sums to mean anything: it is waited for, and read again when
//! something moved meanwhile.

mod client;
mod items;
mod verify;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::client::Client;
pub use self::client::StoreError;
pub use self::items::{Record, Seat, Stripe};
pub use self::verify::{Counts, EventRead, Judge};
use crate::ledger::{Books, Broken};
use crate::limits;

/// Names of the three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    pub inventory: String,
    pub seats: String,
    pub idempotency: String,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            inventory: "inventory".to_owned(),
            seats: "inventory_seats".to_owned(),
            idempotency: "idempotency".to_owned(),
        }
    }
}

/// Where the store is and how it is read.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `host:port`.
    pub authority: String,
    pub tables: Tables,
    /// Scans at once.
    pub segments: u32,
    /// How long to wait for the store to become still.
    pub settle: Duration,
    /// How long nothing may change for it to count as still.
    pub still_for: Duration,
}

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Read {
    #[serde(skip)]
    pub broken: Broken,
    pub counts: Counts,
    pub events: Vec<EventRead>,
    /// Of the last round.
    pub seconds: f64,
    pub rounds: u32,
    /// Nothing moved while it was read.
    pub still: bool,
}

/// Reads everything about `events`, and holds it against `books`.
///
/// # Errors
/// When the store cannot be read. Broken promises are in what is returned.
pub async fn read_back(
    options: &StoreOptions,
    events: &[String],
    books: &mut Books,
) -> Result<Read, StoreError> {
    let client = Client::new(&options.authority);
    let until = Instant::now() + options.settle;
    let mut rounds = 0;
    loop {
        rounds += 1;
        let before = wait_until_still(&client, options, events, until).await?;
        let started = Instant::now();
        books.forget_seen();
        let judge = RefCell::new(Judge::new(events, books));
        read_round(&client, options, &judge).await?;
        let stripes = read_stripes(&client, options, events).await?;
        let still = stripes == before;
        let mut read = judge.into_inner().verdict(&stripes);
        read.seconds = started.elapsed().as_secs_f64();
        read.rounds = rounds;
        read.still = still;
        let again = !still || read.broken.total() > 0;
        // A real breach stays, and is read once more; what moves is waited for.
        let enough = match still {
            true => rounds >= 2,
            false => rounds >= limits::READ_ROUNDS_MAX || Instant::now() >= until,
        };
        if !again || enough {
            if !still {
                read.broken.add("moving", || {
                    "stripes changed at every reading: wait longer with --settle".to_owned()
                });
            }
            return Ok(read);
        }
        tokio::time::sleep(limits::READ_AGAIN_AFTER).await;
    }
}

async fn read_stripes(
    client: &Client,
    options: &StoreOptions,
    events: &[String],
) -> Result<Vec<Stripe>, StoreError> {
    let all = RefCell::new(Vec::new());
    let table = &options.tables.inventory;
    client
        .scan(table, items::STRIPE_ATTRIBUTES, 1, &|page| {
            items::stripes(page, events, &mut all.borrow_mut())
        })
        .await?;
    let mut all = all.into_inner();
    all.sort_by_key(|stripe: &Stripe| (stripe.event, stripe.index));
    Ok(all)
}

/// Waits until the stripes have not changed for a while, or patience ends; returns them.
async fn wait_until_still(
    client: &Client,
    options: &StoreOptions,
    events: &[String],
    until: Instant,
) -> Result<Vec<Stripe>, StoreError> {
    let mut last = read_stripes(client, options, events).await?;
    let mut since = Instant::now();
    while since.elapsed() < options.still_for && Instant::now() < until {
        tokio::time::sleep(limits::STILL_PERIOD).await;
        let now = read_stripes(client, options, events).await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

async fn read_round(
    client: &Client,
    options: &StoreOptions,
    judge: &RefCell<Judge<'_>>,
) -> Result<(), StoreError> {
    let segments = options.segments.clamp(1, limits::SEGMENTS_MAX);
    let tables = &options.tables;
    client
        .scan(
            &tables.idempotency,
            items::RECORD_ATTRIBUTES,
            segments,
            &|page| items::records(page, |record| judge.borrow_mut().record(&record)),
        )
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
