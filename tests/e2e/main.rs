//! The whole server from end to end: real processes, real sockets, stock clients, a real engine.
//!
//! | file | what it proves |
//! |---|---|
//! | `statuses.rs` | every row of the contract's status table that quantity can reach |
//! | `outages.rs` | the store throttles, hangs, loses answers, refuses: what callers are told |
//! | `original.rs` | each bug of the original that concerns quantity, by name |
//! | `original_seats.rs` | each bug of the original that concerns seats, by name |
//! | `reservation_api.rs` | contract B: the Reservation API's sequences, in-band outcomes |
//! | `races.rs` | crowds for the last tickets, one row, one reservation, over two processes |
//! | `duplicates.rs` | one reservation, many connections, shards and processes: one order |
//! | `stripes.rs` | an event over several stripes is sold to the last unit |
//! | `crash.rs` | killed under load: nothing acknowledged is lost, nothing doubled |
//! | `stopping.rs` | stopping under load loses no call, and takes no longer than it must |
//! | `placement.rs` | which shard a connection lives on |
//! | `deadlines.rs` | a caller's deadline, from end to end |
//! | `starts.rs` | starts that cannot work say what is wrong |
//! | `watching.rs` | what it says of itself: a shard that stands still, logs, spans, figures |
//! | `top.rs` | `top` tells the server's figures, and leaves a terminal as it was |
//! | `upkeep.rs` | what an idle server costs, and that `demo` ends well |
//!
//! `server`, `stage`, `items`, `proxy`, `client` and `raw` are what they share. Must not live here: what one
//! room alone can prove.

#![allow(clippy::unwrap_used)]

mod client;
mod crash;
mod deadlines;
mod duplicates;
mod items;
mod original;
mod original_seats;
mod outages;
mod placement;
mod proxy;
mod races;
mod raw;
mod reservation_api;
#[path = "../common/restricted.rs"]
mod restricted;
mod server;
mod stage;
mod starts;
mod statuses;
mod stopping;
mod stripes;
mod top;
mod upkeep;
mod watching;
