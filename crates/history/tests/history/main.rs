//! The checks on histories written by hand, and on generated ones.

mod legal_histories;
mod script;
mod violations;
