//! The whole server from end to end: real processes, real sockets, tonic clients. The store is the embedded engine of `dev`,
//! or the DynamoDB model where a test needs faults, several servers on one store, or the stored items.
//!
//! | file | behaviour |
//! |---|---|
//! | `statuses.rs` | every row of the contract's status table that events of a quantity can reach |
//! | `outages.rs` | a store that throttles, hangs, loses answers, refuses |
//! | `outage_drill.rs` | three processes, a store that is away, and the return of all stock |
//! | `fleet.rs` | several processes under load: joins, drains, SIGKILL, SIGSTOP, rolling restarts |
//! | `overdue.rs` | holds that expired long ago: their stock returns within seconds |
//! | `held.rs` | held and confirmed units of a quantity event, in every view |
//! | `original.rs`, `original_seats.rs` | each bug of the original system, by name |
//! | `reservation_api/` | reservation.v1: sequences of calls, in-band outcomes |
//! | `races.rs` | crowds for the last tickets, one row, one reservation, with two processes |
//! | `duplicates.rs` | one reservation on many connections, shards and processes: one order |
//! | `stripes.rs` | an event with several stripes is sold to the last unit |
//! | `crash.rs` | SIGKILL under load: no acknowledged order is lost, none is doubled |
//! | `stopping.rs` | a drain under load loses no call and ends in time |
//! | `hostile/` | attacks on HTTP/2 and TLS: the calls of other clients, and bounded memory |
//! | `shared_pools.rs` | watches, cancellations and open connections of one client cost others nothing |
//! | `membership.rs` | processes see who joins, leaves and dies; damage to the membership item stops no server |
//! | `placement.rs` | connections per shard |
//! | `store_away.rs` | a store that is away, full, stuck, or has another clock |
//! | `deadlines.rs` | deadlines of callers |
//! | `starts.rs` | failed starts: error text and exit code |
//! | `watching.rs` | stalled shard, collector that is away, log level, call log, metrics |
//! | `admin_access.rs` | tokens, TLS and the audit log of the admin port |
//! | `audit.rs` | `verify` and `reconcile` |
//! | `tls.rs` | TLS of the gRPC port: versions, client certificates, reloads, floods, other protocols |
//! | `top.rs` | `top`: values and terminal modes |
//! | `upkeep.rs` | cost of an idle server, `demo` |
//!
//! Shared: `client.rs`, `items.rs`, `tls_fixture.rs` (a server with TLS, and clients), `fake_store.rs` (the DynamoDB model with the server's tables, a rule per request and a
//! request log), and `stored_event.rs` (reads an event back and checks that its stock is conserved). What the tests of one crate can prove belongs to that crate.

#![allow(clippy::unwrap_used)]

mod admin_access;
mod audit;
mod client;
mod crash;
mod deadlines;
mod duplicates;
mod fake_store;
mod fleet;
mod held;
mod hostile;
mod imports;
mod items;
mod membership;
mod original;
mod original_seats;
mod outage_drill;
mod outages;
mod overdue;
mod placement;
mod races;
mod reservation_api;
mod shared_pools;
mod starts;
mod statuses;
mod stopping;
mod store_away;
mod stored_event;
mod stripes;
mod tls;
mod tls_fixture;
mod top;
mod upkeep;
mod watching;
