//! Fuzz targets of the server: what arrives from outside, against the code that reads it. Compiled for tests, which replay
//! the corpus, and for the programs in `tests/fuzz`. Each target is beside the code that it calls.

pub use crate::api::fuzzing::requests;
pub use crate::cli::fuzzing::{seat_file, texts};
pub use crate::config::fuzzing::settings;
pub use crate::control_plane::admin::fuzzing::admin_messages;
