//! The seat map against the plainest models of it: what is picked, what is counted.

#![allow(clippy::unwrap_used)]

mod counting;
mod crowd;
mod house;
mod picking;
