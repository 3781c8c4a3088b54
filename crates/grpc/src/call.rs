//! The context of a call that its handler gets, and the parser of `grpc-timeout`.

use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;

use super::call_trace::CallTrace;
use inventory_core::time::Micros;

/// Arrival, deadline, headers and trace of one call.
#[derive(Debug, Default)]
pub struct CallContext {
    /// When the headers were read.
    pub arrived: Micros,
    /// When the caller stops waiting: `grpc-timeout` or the default, capped at the longest allowed.
    pub deadline: Micros,
    /// The request's headers.
    pub headers: HeaderMap,
    /// Set for a call that is traced or logged.
    pub trace: Option<Rc<CallTrace>>,
}

impl CallContext {
    /// The time until the deadline; zero after it.
    pub fn remaining(&self, now: Micros) -> Micros {
        self.deadline.since(now)
    }

    /// Records the event and the reservation of the call, if it is traced.
    pub fn set_subject(&self, event: &str, reservation: &str) {
        if let Some(trace) = &self.trace {
            trace.set_subject(event, reservation);
        }
    }

    /// Records the outcome of the call, if it is traced.
    pub fn set_outcome(&self, outcome: &'static str) {
        if let Some(trace) = &self.trace {
            trace.set_outcome(outcome);
        }
    }
}

/// Parses a `grpc-timeout`: one to eight digits and a unit of `H M S m u n`.
///
/// # Errors
/// What is wrong, as text for the client.
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
            return Err("it has a character that is not a digit before its unit");
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
        _ => Err("its unit is not one of H, M, S, m, u, n"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_unit_parses() {
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
    fn values_outside_the_specification_are_rejected() {
        for text in ["", "S", "1", "1s", "1 S", "-1S", "+1S", "1.5S", "999999999S", "1SS", "٣S"] {
            assert!(parse_timeout(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
