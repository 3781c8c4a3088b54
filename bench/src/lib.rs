//! Measurements of the server from outside: [`h2load`] rounds, and [`twin`], the same service on tonic.

pub mod h2load;
pub mod limits;
pub mod twin;
