//! The reservation contract as most services would be built: tonic on tokio, the AWS SDK with its
//! defaults, one transaction for one commit. What the server's group commit is compared with.
//!
//! | file | what |
//! |---|---|
//! | [`service`] | contract A over tonic: fields, deadlines, admission |
//! | [`refusal`] | which gRPC status a refusal is |
//! | [`sale`] | what a call does, turn by turn, in either [`Mode`](sale::Mode) |
//! | [`rules`] | what a record says about a call; pure |
//! | [`record`], [`stripe`] | items as the server writes and reads them |
//! | [`store`] | the SDK's client; single reads and writes |
//! | [`limits`] | every bound, each with its reason |
//!
//! It sells on the server's tables, in the server's format, so that the server's `verify` can audit
//! what it did. Nothing here knows the server's code: the format is written out a second time, and a
//! known order holds both to it. Not batched, not cached, and right: what it is compared on is cost.

pub mod limits;
pub mod record;
pub mod refusal;
pub mod rules;
pub mod sale;
pub mod service;
pub mod store;
pub mod stripe;
