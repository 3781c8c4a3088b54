//! How a check ends a run.

use std::fmt;

/// A broken rule. The text starts with the rule, then a colon and the details.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ends the run with a violation unless `$holds`. [`Violation`] must be in scope.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(Violation(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;
