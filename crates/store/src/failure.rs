//! Meaning of a failed call, independent of the operation.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// What is known about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// A transaction was cancelled with reasons per action. Not applied.
    Cancelled,
    /// Not applied: another transaction conflicted, or the same one is still in progress.
    Conflict,
    /// Not applied: throttled.
    Throttled,
    /// Not applied: the request is invalid.
    Rejected,
    /// Not applied: the setup is wrong (permissions, credentials, tables).
    Refused,
    /// May or may not have been applied.
    Unknown,
}

impl FailureKind {
    pub(super) fn status(self) -> &'static str {
        match self {
            FailureKind::Cancelled => "cancelled",
            FailureKind::Conflict => "conflict",
            FailureKind::Throttled => "throttled",
            FailureKind::Rejected => "rejected",
            FailureKind::Refused => "refused",
            FailureKind::Unknown => "unknown",
        }
    }
}

/// A failed call.
pub(super) struct CallFailure<E> {
    pub(super) kind: FailureKind,
    /// `None`: no answer within the time limit.
    pub(super) error: Option<SdkError<E, HttpResponse>>,
}

impl<E: ProvideErrorMetadata + Error + 'static> CallFailure<E> {
    pub(super) fn of(error: SdkError<E, HttpResponse>) -> Self {
        Self { kind: kind_of(&error), error: Some(error) }
    }

    pub(super) fn timed_out() -> Self {
        Self { kind: FailureKind::Unknown, error: None }
    }

    /// The store's error code, such as `ResourceNotFoundException`.
    pub(super) fn code(&self) -> Option<&str> {
        let error = self.error.as_ref()?.as_service_error()?;
        error.meta().code()
    }

    /// The failure as text, for the log.
    pub(super) fn text(&self) -> String {
        match &self.error {
            None => "no answer in time".to_owned(),
            Some(SdkError::ServiceError(answer)) => {
                let meta = answer.err().meta();
                let status = answer.raw().status().as_u16();
                let code = meta.code().unwrap_or("no error code");
                let message = meta.message().unwrap_or("no message");
                format!("{code}: {message} (HTTP {status})")
            }
            Some(error) => chain(error),
        }
    }
}

fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> FailureKind {
    match error {
        // Never sent: no credentials, an invalid endpoint, or a request that cannot be built.
        SdkError::ConstructionFailure(_) => FailureKind::Refused,
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            kind_of_code(answer.err().meta().code(), status)
        }
        // Not sent, sent without an answer, or answered with something unreadable.
        _ => FailureKind::Unknown,
    }
}

fn kind_of_code(code: Option<&str>, status: u16) -> FailureKind {
    if status >= 500 {
        return FailureKind::Unknown;
    }
    match code {
        Some("TransactionCanceledException") => FailureKind::Cancelled,
        Some(
            "TransactionInProgressException"
            | "TransactionConflictException"
            | "ReplicatedWriteConflictException",
        ) => FailureKind::Conflict,
        Some(
            "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "ProvisionedThroughputExceededException",
        ) => FailureKind::Throttled,
        Some(
            "ValidationException"
            | "SerializationException"
            | "IdempotentParameterMismatchException"
            | "ItemCollectionSizeLimitExceededException"
            | "ConditionalCheckFailedException"
            | "DuplicateItemException",
        ) => FailureKind::Rejected,
        Some("InternalServerError" | "InternalFailure" | "ServiceUnavailable") => {
            FailureKind::Unknown
        }
        // Any other answer in DynamoDB's own format: access denied, unknown table, expired or unknown
        // credentials, a clock offset, an unknown operation.
        Some(_) if (400..500).contains(&status) => FailureKind::Refused,
        None if status == 429 => FailureKind::Throttled,
        // Not DynamoDB's format: an intermediary answered and may have forwarded the request.
        _ => FailureKind::Unknown,
    }
}

/// An error and its causes on one line, without repetition.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_5xx_is_unknown_whatever_its_code_says() {
        assert_eq!(kind_of_code(Some("ValidationException"), 500), FailureKind::Unknown);
        assert_eq!(kind_of_code(None, 503), FailureKind::Unknown);
    }

    #[test]
    fn only_dynamodbs_own_4xx_proves_that_nothing_was_applied() {
        assert_eq!(kind_of_code(Some("AccessDeniedException"), 400), FailureKind::Refused);
        assert_eq!(kind_of_code(Some("ExpiredTokenException"), 400), FailureKind::Refused);
        assert_eq!(kind_of_code(None, 404), FailureKind::Unknown);
        assert_eq!(kind_of_code(None, 429), FailureKind::Throttled);
    }
}
