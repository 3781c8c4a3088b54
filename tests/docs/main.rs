//! Holds the documents to the code: reference tables are rendered from the code and compared, links and
//! paths exist, decision records have one form, both READMEs have the same content.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` rewrites the generated blocks. A block stands between
//! `<!-- generated: NAME -->` and `<!-- end: NAME -->`; prose around the blocks is written by hand.
#![allow(clippy::unwrap_used)]

mod architecture;
mod commands;
mod generated;
mod limits;
mod links;
mod readme;
mod records;
mod settings;
mod source;
mod statuses;
