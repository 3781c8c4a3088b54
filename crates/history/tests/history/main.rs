//! The checks on histories written by hand, and on generated ones.

#![allow(clippy::unwrap_used)]

mod generated;
mod legal_histories;
mod script;
mod violations;
