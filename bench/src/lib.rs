//! Load client, peers and reports: what plays against the server from outside.
//!
//! [`client`] speaks the reservation contract over tonic channels, [`load`] sells out an event and
//! checks every answer, [`twin`] is the same service on tonic and tokio for comparison, [`peer`],
//! [`cpu`] and [`h2load`] start servers and measure them. Nothing here knows the server's own code: it sees what any client sees.

pub mod client;
pub mod cpu;
pub mod h2load;
pub mod limits;
pub mod load;
pub mod peer;
pub mod twin;
