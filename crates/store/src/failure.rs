//! Meaning of a failed call, independent of the operation.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

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
    /// Not applied: the setup is wrong (permissions, credentials, tables), or the disk of the store is full.
    Refused,
    /// Not applied: no byte of the request was sent, because there is no connection.
    NotSent,
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
            FailureKind::NotSent => "not_sent",
            FailureKind::Unknown => "unknown",
        }
    }
}

/// A failed call.
pub(super) struct CallFailure<E> {
    pub(super) kind: FailureKind,
    /// `None`: the time limit passed.
    pub(super) error: Option<SdkError<E, HttpResponse>>,
}

tokio::task_local! {
    /// Whether the current call has handed its request to a connection. Each call of the store has its own flag, which
    /// the connection pool sets: only the pool can distinguish a request that never left this process.
    static WAS_SENT: Rc<Cell<bool>>;
}

/// Sets the flag of the current call; requests that are no calls of a store have none.
pub(super) fn set_sent(sent: bool) {
    let _ = WAS_SENT.try_with(|flag| flag.set(sent));
}

/// The result of `attempt`, at most `limit` after its start.
pub(super) async fn attempt<T, E>(
    limit: Duration,
    attempt: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, CallFailure<E>>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let sent = Rc::new(Cell::new(false));
    let error =
        match WAS_SENT.scope(Rc::clone(&sent), inventory_runtime::timeout(limit, attempt)).await {
            Some(Ok(output)) => return Ok(output),
            Some(Err(error)) => Some(error),
            None => None,
        };
    let kind = match &error {
        None | Some(SdkError::DispatchFailure(_)) if !sent.get() => FailureKind::NotSent,
        None => FailureKind::Unknown,
        Some(error) => kind_of(error),
    };
    Err(CallFailure { kind, error })
}

impl<E: ProvideErrorMetadata + Error + 'static> CallFailure<E> {
    /// The store's error code, such as `ResourceNotFoundException`.
    pub(super) fn code(&self) -> Option<&str> {
        let error = self.error.as_ref()?.as_service_error()?;
        error.meta().code()
    }

    /// Whether the store refused the credentials: expired, rotated, or unknown.
    pub(super) fn is_about_credentials(&self) -> bool {
        matches!(
            self.code(),
            Some(
                "ExpiredTokenException"
                    | "ExpiredToken"
                    | "UnrecognizedClientException"
                    | "InvalidClientTokenId"
                    | "InvalidSignatureException"
                    | "IncompleteSignature"
            )
        )
    }

    /// The failure as text, for the log.
    pub(super) fn text(&self) -> String {
        match &self.error {
            None if self.kind == FailureKind::NotSent => "no connection in time".to_owned(),
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

/// SQLite's text of SQLITE_FULL, after which it has rolled the transaction back: a definite answer of the embedded
/// engine. Other errors of its disk may come after the commit was written, and stay unknown.
const DISK_FULL: &str = "database or disk is full";

pub(super) fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> FailureKind {
    match error {
        // Never sent: no credentials, an invalid endpoint, or a request that cannot be built.
        SdkError::ConstructionFailure(_) => FailureKind::Refused,
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let meta = answer.err().meta();
            if status == 500 && meta.message().is_some_and(|text| text.contains(DISK_FULL)) {
                return FailureKind::Refused;
            }
            kind_of_code(meta.code(), status)
        }
        // Sent without an answer, or answered with something unreadable.
        _ => FailureKind::Unknown,
    }
}

fn kind_of_code(code: Option<&str>, status: u16) -> FailureKind {
    // A redirect with the error of the store in its body is not the store's: an intermediary made it.
    if !(400..500).contains(&status) {
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
        Some(_) => FailureKind::Refused,
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
    fn any_5xx_is_an_unknown_outcome() {
        assert_eq!(kind_of_code(Some("ValidationException"), 500), FailureKind::Unknown);
        assert_eq!(kind_of_code(None, 503), FailureKind::Unknown);
    }

    #[test]
    fn only_a_4xx_of_dynamodb_means_not_applied() {
        assert_eq!(kind_of_code(Some("AccessDeniedException"), 400), FailureKind::Refused);
        assert_eq!(kind_of_code(Some("ExpiredTokenException"), 400), FailureKind::Refused);
        assert_eq!(kind_of_code(None, 404), FailureKind::Unknown);
        assert_eq!(kind_of_code(None, 429), FailureKind::Throttled);
        assert_eq!(kind_of_code(Some("TransactionCanceledException"), 302), FailureKind::Unknown);
        assert_eq!(kind_of_code(Some("ValidationException"), 200), FailureKind::Unknown);
    }
}
