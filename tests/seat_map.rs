//! The seat map against the plainest models of it: what is picked, what is counted.

#![allow(clippy::unwrap_used)]

#[path = "seat_map/counting.rs"]
mod counting;
#[path = "seat_map/crowd.rs"]
mod crowd;
#[path = "seat_map/house.rs"]
mod house;
#[path = "seat_map/picking.rs"]
mod picking;
