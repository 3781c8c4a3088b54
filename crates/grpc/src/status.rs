//! The status of a call that fails, and its encoding in the trailers.
//!
//! `grpc-status-details-bin` carries a `google.rpc.Status` (the richer error model) whose first detail is
//! always an `ErrorInfo`, so that clients decide by a stable reason, never by text.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tonic_types::pb;

pub use tonic::Code;

/// `ErrorInfo.domain` of every error of this server.
pub const ERROR_DOMAIN: &str = "inventory.v1";

/// The reasons of errors that this crate returns itself. Handlers have their own.
pub mod reason {
    /// The deadline passed before the response was ready.
    pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
    /// `grpc-timeout` does not parse.
    pub(crate) const TIMEOUT_INVALID: &str = "TIMEOUT_INVALID";
    /// The service exists, the method does not.
    pub(crate) const METHOD_UNKNOWN: &str = "METHOD_UNKNOWN";
    /// No such service on this port.
    pub(crate) const SERVICE_UNKNOWN: &str = "SERVICE_UNKNOWN";
    /// The HTTP method is not POST.
    pub(crate) const HTTP_METHOD_INVALID: &str = "HTTP_METHOD_INVALID";
    /// The content-type is not one of gRPC with protobuf.
    pub(crate) const CONTENT_TYPE_INVALID: &str = "CONTENT_TYPE_INVALID";
    /// A compression other than identity and gzip.
    pub(crate) const COMPRESSION_UNSUPPORTED: &str = "COMPRESSION_UNSUPPORTED";
    /// A message flagged as compressed in a call that declared no compression.
    pub(crate) const COMPRESSION_UNDECLARED: &str = "COMPRESSION_UNDECLARED";
    /// The request message exceeds the limit, before or after decompression.
    pub(crate) const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
    /// The request ended within its message.
    pub(crate) const MESSAGE_TRUNCATED: &str = "MESSAGE_TRUNCATED";
    /// Not exactly one message on a unary method.
    pub(crate) const MESSAGE_COUNT: &str = "MESSAGE_COUNT";
    /// The prefix, the gzip or the protobuf does not parse.
    pub(crate) const MALFORMED_MESSAGE: &str = "MALFORMED_MESSAGE";
    /// A handler panicked; the shard is not affected.
    pub(crate) const PANIC: &str = "PANIC";
    /// The response could not be encoded.
    pub(crate) const RESPONSE_INVALID: &str = "RESPONSE_INVALID";
    /// The caller reset the stream or disconnected.
    pub(crate) const CANCELLED: &str = "CANCELLED";
    /// A health check of a service that the port does not have.
    pub(crate) const HEALTH_SERVICE_UNKNOWN: &str = "HEALTH_SERVICE_UNKNOWN";
    /// Too many health watches of one connection or shard.
    pub(crate) const HEALTH_WATCHES_EXCEEDED: &str = "HEALTH_WATCHES_EXCEEDED";
    /// Too many concurrent reflection calls of one connection or of the process.
    pub(crate) const AUXILIARY_CALLS_EXCEEDED: &str = "AUXILIARY_CALLS_EXCEEDED";
    /// The control plane, which serves reflection, has ended.
    pub(crate) const AUXILIARY_SERVICES_UNAVAILABLE: &str = "AUXILIARY_SERVICES_UNAVAILABLE";
    /// The connection or the server shuts down; retry on another connection.
    pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
}

const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const DO_NOT_RETRY: HeaderValue = HeaderValue::from_static("-1");

const TYPE_ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const TYPE_BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const TYPE_RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A gRPC status that is not OK.
#[derive(Clone, Debug)]
pub struct Status {
    code: Code,
    reason: &'static str,
    message: Cow<'static, str>,
    /// Boxed because most statuses have none, and every `Result` would carry its size.
    details: Option<Box<StatusDetails>>,
}

#[derive(Clone, Debug, Default)]
struct StatusDetails {
    metadata: Vec<(&'static str, String)>,
    violations: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    retry_after: Option<Duration>,
}

impl Status {
    /// `reason` is UPPER_SNAKE_CASE and stable; `message` is for humans.
    pub fn new(code: Code, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub fn internal(reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Internal, reason, message)
    }

    pub(crate) fn deadline_exceeded() -> Self {
        Self::new(
            Code::DeadlineExceeded,
            reason::DEADLINE_EXCEEDED,
            "the deadline of the call passed before the response was ready",
        )
    }

    pub(crate) fn unimplemented(
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(Code::Unimplemented, reason, message)
    }

    /// Adds one entry to `ErrorInfo.metadata`.
    #[must_use]
    pub fn with_metadata(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.details().metadata.push((key, value.into()));
        self
    }

    /// Adds one `BadRequest.FieldViolation`: the field and what would be valid.
    #[must_use]
    pub fn with_violation(
        mut self,
        field: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        let violation = (field.into(), description.into());
        self.details().violations.push(violation);
        self
    }

    /// Asks the client to retry after `span`: `RetryInfo`, and `grpc-retry-pushback-ms`, which gRPC clients
    /// with a retry policy apply.
    #[must_use]
    pub fn with_retry_after(mut self, span: Duration) -> Self {
        self.details().retry_after = Some(span);
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn reason(&self) -> &'static str {
        self.reason
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether a retry of the same request cannot succeed, or only by chance. gRPC clients then make no further
    /// attempt, even if their retry policy has this code (gRFC A6).
    fn is_final(&self) -> bool {
        matches!(
            self.code,
            Code::Aborted
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::NotFound
        ) || self.reason == reason::MESSAGE_TOO_LARGE
    }

    /// Adds `grpc-status`, `grpc-message`, `grpc-status-details-bin` and, if the client is asked to retry later
    /// or not at all, `grpc-retry-pushback-ms`.
    pub(crate) fn write_to(&self, headers: &mut HeaderMap) {
        let details = Bytes::from(self.to_rpc_status().encode_to_vec());
        let status = tonic::Status::with_details(self.code, self.message.as_ref(), details);
        if status.add_header(headers).is_err() {
            // Unreachable: the message is percent-encoded and the details are base64.
            headers.insert(tonic::Status::GRPC_STATUS, HeaderValue::from(self.code as i32));
        }
        if let Some(span) = self.details.as_ref().and_then(|details| details.retry_after) {
            let pause = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
            headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(pause));
        } else if self.is_final() {
            headers.insert(GRPC_RETRY_PUSHBACK, DO_NOT_RETRY);
        }
    }

    fn details(&mut self) -> &mut StatusDetails {
        self.details.get_or_insert_default()
    }

    fn to_rpc_status(&self) -> pb::Status {
        let mut info = pb::ErrorInfo {
            reason: self.reason.to_owned(),
            domain: ERROR_DOMAIN.to_owned(),
            ..Default::default()
        };
        let mut details = Vec::with_capacity(1);
        if let Some(more) = &self.details {
            let metadata = more.metadata.iter();
            info.metadata =
                metadata.map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            details.push(any(TYPE_ERROR_INFO, &info));
            if !more.violations.is_empty() {
                details.push(any(TYPE_BAD_REQUEST, &bad_request(&more.violations)));
            }
            if let Some(span) = more.retry_after {
                let retry_delay = prost_types::Duration::try_from(span).ok();
                details.push(any(TYPE_RETRY_INFO, &pb::RetryInfo { retry_delay }));
            }
        } else {
            details.push(any(TYPE_ERROR_INFO, &info));
        }
        pb::Status { code: self.code as i32, message: self.message.clone().into_owned(), details }
    }
}

fn bad_request(violations: &[(Cow<'static, str>, Cow<'static, str>)]) -> pb::BadRequest {
    let field_violations = violations
        .iter()
        .map(|(field, description)| pb::bad_request::FieldViolation {
            field: field.clone().into_owned(),
            description: description.clone().into_owned(),
            ..Default::default()
        })
        .collect();
    pb::BadRequest { field_violations }
}

fn any(type_url: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

/// Untrusted text, shortened and escaped so that it can be part of a message.
pub(crate) fn clip(text: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let cut = text.get(..SHOWN_BYTES_MAX).unwrap_or(text);
    let mut shown = cut.escape_ascii().to_string();
    if cut.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic_types::StatusExt;

    use super::*;

    /// What tonic's client reads from the headers.
    fn read_back(status: &Status) -> (tonic::Status, HeaderMap) {
        let mut headers = HeaderMap::new();
        status.write_to(&mut headers);
        (tonic::Status::from_header_map(&headers).unwrap(), headers)
    }

    #[test]
    fn every_status_carries_its_reason_and_domain() {
        let (read, headers) = read_back(&Status::internal("PANIC", "it broke"));
        assert_eq!(read.code(), Code::Internal);
        assert_eq!(read.message(), "it broke");
        let info = read.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("PANIC", ERROR_DOMAIN));
        assert!(headers.get(GRPC_RETRY_PUSHBACK).is_none());
        assert!(!headers["grpc-status-details-bin"].to_str().unwrap().contains('='));
    }

    #[test]
    fn a_client_reads_metadata_violations_and_the_retry_delay() {
        let status = Status::new(Code::ResourceExhausted, "THROTTLED", "busy")
            .with_metadata("event_id", "evt_1")
            .with_violation("qty", "must be 1 to 10")
            .with_retry_after(Duration::from_millis(120));
        let (read, headers) = read_back(&status);
        let details = read.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["event_id"], "evt_1");
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "qty");
        assert_eq!(violations[0].description, "must be 1 to 10");
        let pause = details.retry_info().unwrap().retry_delay;
        assert_eq!(pause, Some(Duration::from_millis(120)));
        assert_eq!(headers[GRPC_RETRY_PUSHBACK], "120");
    }

    #[test]
    fn final_errors_and_no_others_ask_for_no_retry() {
        let pushback = |status: &Status| read_back(status).1.get(GRPC_RETRY_PUSHBACK).cloned();
        for code in (0..=16).map(Code::from_i32).filter(|code| *code != Code::Ok) {
            let is_final = matches!(
                code,
                Code::Aborted
                    | Code::AlreadyExists
                    | Code::FailedPrecondition
                    | Code::InvalidArgument
                    | Code::NotFound
            );
            let expected = is_final.then(|| HeaderValue::from_static("-1"));
            assert_eq!(pushback(&Status::new(code, "REASON", "text")), expected, "{code:?}");
        }
        let too_large = Status::new(Code::ResourceExhausted, reason::MESSAGE_TOO_LARGE, "text");
        assert_eq!(pushback(&too_large).unwrap(), "-1");
        // A delay takes precedence.
        let busy = Status::new(Code::Aborted, "BUSY", "text");
        let busy = busy.with_retry_after(Duration::from_millis(7));
        assert_eq!(pushback(&busy).unwrap(), "7");
    }

    #[test]
    fn messages_are_percent_encoded() {
        let text = "50 % of „Halle ä“\nsold";
        let (read, headers) = read_back(&Status::internal("X", text));
        assert_eq!(read.message(), text);
        assert!(headers["grpc-message"].to_str().unwrap().contains("%25"));
    }

    #[test]
    fn untrusted_text_is_shortened_and_escaped() {
        assert_eq!(clip(b"a\r\nb"), "a\\r\\nb");
        let long = clip(&[b'x'; 500]);
        assert_eq!(long.chars().count(), 65);
    }
}
