use super::*;
use crate::ledger::Ledger;
use crate::outcome::{Answer, Method, Outcome};
