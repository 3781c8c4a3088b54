//! Validates the headers of a request before any work is done for it.
//!
//! Not here: which methods exist ([`UnaryService`](super::UnaryService)).

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::call::parse_timeout;
use super::message::MessageEncoding;
use super::status::{Code, Status, clip, reason};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The response to a request whose headers are invalid. `http` is 200 wherever a gRPC status suffices.
pub(super) struct HeadRejection {
    pub(super) http: StatusCode,
    /// One additional header: name in lower case, and value.
    pub(super) header: Option<(&'static str, &'static str)>,
    pub(super) status: Status,
}

impl From<Status> for HeadRejection {
    fn from(status: Status) -> Self {
        Self { http: StatusCode::OK, header: None, status }
    }
}

/// Checks that the request is a gRPC request.
pub(super) fn check_protocol(head: &Parts) -> Result<(), HeadRejection> {
    if head.method != Method::POST {
        return Err(HeadRejection {
            http: StatusCode::METHOD_NOT_ALLOWED,
            header: Some(("allow", "POST")),
            status: Status::internal(
                reason::HTTP_METHOD_INVALID,
                format!(
                    "HTTP method {}: a gRPC call must be a POST",
                    clip(head.method.as_str().as_bytes())
                ),
            ),
        });
    }
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_some_and(is_grpc_with_protobuf) {
        let sent = content_type.map_or_else(|| "missing".to_owned(), clip);
        return Err(HeadRejection {
            http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            header: None,
            status: Status::internal(
                reason::CONTENT_TYPE_INVALID,
                format!(
                    "content-type is {sent}; it must be application/grpc or application/grpc+proto"
                ),
            ),
        });
    }
    Ok(())
}

/// `application/grpc` or `application/grpc+proto`, each with or without parameters.
fn is_grpc_with_protobuf(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    const PROTO: &[u8] = b"+proto";
    let Some((start, rest)) = content_type.split_at_checked(GRPC.len()) else {
        return false;
    };
    if !start.eq_ignore_ascii_case(GRPC) {
        return false;
    }
    let rest = match rest.split_at_checked(PROTO.len()) {
        Some((subtype, rest)) if subtype.eq_ignore_ascii_case(PROTO) => rest,
        _ => rest,
    };
    matches!(rest.first(), None | Some(b';' | b' '))
}

/// How the messages of the request may be encoded. Responses are never compressed, because they are a few
/// hundred bytes.
pub(super) fn message_encoding(head: &Parts) -> Result<MessageEncoding, HeadRejection> {
    match head.headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(MessageEncoding::Identity),
        Some(b"gzip") => Ok(MessageEncoding::Gzip),
        Some(encoding) => Err(HeadRejection {
            http: StatusCode::OK,
            header: Some(("grpc-accept-encoding", "identity,gzip")),
            status: Status::unimplemented(
                reason::COMPRESSION_UNSUPPORTED,
                format!(
                    "grpc-encoding {} is not supported; it must be identity or gzip",
                    clip(encoding)
                ),
            ),
        }),
    }
}

/// The value of `grpc-timeout`, if the request has one; a call without any time is rejected.
pub(super) fn call_timeout(head: &Parts) -> Result<Option<Duration>, HeadRejection> {
    let Some(value) = head.headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    match parse_timeout(value.as_bytes()) {
        Ok(Duration::ZERO) => Err(Status::deadline_exceeded().into()),
        Ok(timeout) => Ok(Some(timeout)),
        Err(problem) => {
            let sent = clip(value.as_bytes());
            let expected = "one to eight digits and one of H, M, S, m, u, n, such as 250m";
            Err(Status::new(
                Code::InvalidArgument,
                reason::TIMEOUT_INVALID,
                format!("grpc-timeout {sent:?}: {problem}; it must be {expected}"),
            )
            .with_violation("grpc-timeout", expected)
            .into())
        }
    }
}

/// The rejection of a path that no service has.
pub(super) fn reject_unknown_path(path: &str, has_service: impl Fn(&str) -> bool) -> HeadRejection {
    let shown = clip(path.as_bytes());
    let service = path.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
    let status = match service {
        Some((service, _)) if has_service(service) => Status::unimplemented(
            reason::METHOD_UNKNOWN,
            format!("{shown}: the service has no such method"),
        ),
        Some(_) => Status::unimplemented(
            reason::SERVICE_UNKNOWN,
            format!("{shown}: this server has no such service"),
        ),
        None => Status::unimplemented(
            reason::METHOD_UNKNOWN,
            format!("{shown}: a gRPC path must be /package.Service/Method"),
        ),
    };
    status.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/s/m");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_grpc_with_protobuf_content_types_are_accepted() {
        for valid in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc+proto; x=y",
            "Application/GRPC",
        ] {
            assert!(is_grpc_with_protobuf(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "",
            "application/json",
            "application/grpc-web",
            "application/grpc+json",
            "application/grpcx",
            "application/grpc+protobuf",
        ] {
            assert!(!is_grpc_with_protobuf(invalid.as_bytes()), "{invalid}");
        }
    }

    #[test]
    fn a_request_that_is_not_grpc_gets_an_http_error_status() {
        let rejection = check_protocol(&head("GET", &[])).unwrap_err();
        assert_eq!(rejection.http, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(rejection.header.unwrap().1, "POST");
        let json = head("POST", &[("content-type", "application/json")]);
        let rejection = check_protocol(&json).unwrap_err();
        assert_eq!(rejection.http, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(rejection.status.message().contains("application/json"));
        assert!(check_protocol(&head("POST", &[])).is_err());
        let grpc = head("POST", &[("content-type", "application/grpc")]);
        assert!(check_protocol(&grpc).is_ok());
    }

    #[test]
    fn identity_and_gzip_are_the_accepted_encodings() {
        let encoding = |value| message_encoding(&head("POST", &[("grpc-encoding", value)]));
        let none = message_encoding(&head("POST", &[]));
        assert!(matches!(none, Ok(MessageEncoding::Identity)));
        assert!(matches!(encoding("identity"), Ok(MessageEncoding::Identity)));
        assert!(matches!(encoding("gzip"), Ok(MessageEncoding::Gzip)));
        for other in ["deflate", "snappy", "GZIP", "gzip,identity", ""] {
            let rejection = encoding(other).unwrap_err();
            assert_eq!(rejection.status.code(), Code::Unimplemented, "{other:?}");
            assert_eq!(rejection.header, Some(("grpc-accept-encoding", "identity,gzip")));
        }
    }

    #[test]
    fn an_invalid_timeout_is_quoted() {
        assert!(call_timeout(&head("POST", &[])).ok().unwrap().is_none());
        let rejection = call_timeout(&head("POST", &[("grpc-timeout", "soon")])).unwrap_err();
        assert_eq!(rejection.status.code(), Code::InvalidArgument);
        assert!(rejection.status.message().contains("grpc-timeout \"soon\""));
    }

    #[test]
    fn unknown_methods_and_unknown_services_have_different_reasons() {
        let reason_of =
            |path| reject_unknown_path(path, |service| service == "a.B").status.reason();
        assert_eq!(reason_of("/a.B/Nope"), reason::METHOD_UNKNOWN);
        assert_eq!(reason_of("/a.C/Nope"), reason::SERVICE_UNKNOWN);
        assert_eq!(reason_of("/"), reason::METHOD_UNKNOWN);
        assert_eq!(reason_of(""), reason::METHOD_UNKNOWN);
    }
}
