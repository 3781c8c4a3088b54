//! The mapping tables.
