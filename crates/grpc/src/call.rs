//! What a handler knows of its call, and how a client's timeout is read.

use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;

use super::call_trace::CallTrace;
use inventory_core::time::Micros;

/// The circumstances of one call.
#[derive(Debug, Default)]
pub struct CallContext {
    /// When its headers were read.
    pub arrived: Micros,
    /// When its caller stops waiting: `grpc-timeout`, or the default, cut to the longest allowed.
    pub deadline: Micros,
    /// The request's headers.
    pub headers: HeaderMap,
    /// There when somebody wants to know more of this call.
    pub trace: Option<Rc<CallTrace>>,
}

impl CallContext {
    /// What is left until the deadline, zero after it.
    pub fn remaining(&self, now: Micros) -> Micros {
        self.deadline.since(now)
    }

    /// Notes whom the call is about.
    pub fn set_subject(&self, event: &str, reservation: &str) {
        if let Some(note) = &self.trace {
            note.about(event, reservation);
        }
    }

    /// Notes what came of it.
    pub fn set_outcome(&self, outcome: &'static str) {
        if let Some(note) = &self.trace {
            note.set_outcome(outcome);
        }
    }
}

/// Parses a `grpc-timeout`: one to eight digits and a unit of `H M S m u n`.
///
/// # Errors
/// The offending part, to be named to the client.
pub(crate) fn parse_timeout(value: &[u8]) -> Result<Duration, &'static str> {
    let Some((unit, digits)) = value.split_last() else {
        return Err("it is empty");
    };
    if digits.is_empty() || digits.len() > 8 {
        return Err("it needs one to eight digits before its unit");
    }
    let mut amount: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err("it has something else than digits before its unit");
        }
        amount = amount * 10 + u64::from(digit - b'0');
    }
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err("its unit is none of H, M, S, m, u, n"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_unit_parses_at_both_ends_of_its_range() {
        for (text, span) in [
            ("1H", Duration::from_secs(3600)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("250m", Duration::from_millis(250)),
            ("00000005u", Duration::from_micros(5)),
            ("7n", Duration::from_nanos(7)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()).unwrap(), span, "{text}");
        }
    }

    #[test]
    fn what_the_specification_does_not_allow_is_refused() {
        for text in [
            "",
            "S",
            "1",
            "1s",
            "1 S",
            "-1S",
            "+1S",
            "1.5S",
            "999999999S",
            "1SS",
            "٣S",
        ] {
            assert!(parse_timeout(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
