//! Measurements of the server from outside: [`h2load`] rounds.

pub mod h2load;
pub mod limits;
