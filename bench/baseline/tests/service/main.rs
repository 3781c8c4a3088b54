//! The baseline service over real sockets, on the DynamoDB model.
#![allow(clippy::unwrap_used)]

mod deadlines;
mod fixture;
mod program;
mod sales;
