//! What a failed call means. The decision is made here and nowhere else.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Outcome of a call that returned no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The server decided: the status is its answer.
    Answered,
    /// UNAVAILABLE or RESOURCE_EXHAUSTED from the server: retry, after the RetryInfo delay if given.
    Busy { retry_after: Option<Duration> },
    /// No server has processed the call: not sent, refused, or above the last stream id of a GOAWAY.
    NeverProcessed,
    /// Unknown: the deadline passed or the connection broke. The call may have taken effect.
    Lost,
}

impl CallOutcome {
    /// Classifies a failed call.
    ///
    /// A status with a source was made by this side's transport; one without came from the server.
    /// Never processed are, by RFC 9113 (6.8 and 8.7), streams above the last stream id of a GOAWAY and
    /// streams reset with REFUSED_STREAM, and requests that never left this process.
    pub fn of(status: &Status) -> Self {
        match transport_error(status) {
            Some(Transport::NeverProcessed) => Self::NeverProcessed,
            Some(Transport::Broken) => Self::Lost,
            None => match status.code() {
                Code::Unavailable | Code::ResourceExhausted => Self::Busy {
                    retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
                },
                Code::DeadlineExceeded | Code::Cancelled => Self::Lost,
                _ => Self::Answered,
            },
        }
    }
}

enum Transport {
    NeverProcessed,
    Broken,
}

/// `None`: the status came from the server.
fn transport_error(status: &Status) -> Option<Transport> {
    let mut error = status.source()?;
    loop {
        if error.is::<tonic::ConnectError>() {
            return Some(Transport::NeverProcessed);
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_canceled()
        {
            return Some(Transport::NeverProcessed);
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            let above_goaway = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return Some(match h2.is_remote() && (above_goaway || refused) {
                true => Transport::NeverProcessed,
                false => Transport::Broken,
            });
        }
        match error.source() {
            Some(source) => error = source,
            None => return Some(Transport::Broken),
        }
    }
}

/// The reason in the `google.rpc.ErrorInfo` of a status, or an empty string.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// Name of a status code as in the specification.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn server_status_is_classified_by_its_code() {
        let cases = [
            (Code::Aborted, CallOutcome::Answered),
            (Code::Internal, CallOutcome::Answered),
            (Code::Unavailable, CallOutcome::Busy { retry_after: None }),
            (Code::ResourceExhausted, CallOutcome::Busy { retry_after: None }),
            (Code::DeadlineExceeded, CallOutcome::Lost),
        ];
        for (code, expected) in cases {
            let status = Status::new(code, "x");
            assert_eq!(CallOutcome::of(&status), expected, "{code:?}");
        }
    }

    #[test]
    fn retry_info_and_reason_are_read_from_the_details() {
        let delay = Duration::from_millis(100);
        let mut details = ErrorDetails::with_retry_info(Some(delay));
        details.set_error_info(
            "OVERLOADED",
            "inventory-api",
            [("event_id".to_owned(), "e".to_owned())],
        );
        let status = Status::with_error_details(Code::Unavailable, "busy", details);
        assert_eq!(CallOutcome::of(&status), CallOutcome::Busy { retry_after: Some(delay) });
        assert_eq!(reason(&status), "OVERLOADED");
    }
}
