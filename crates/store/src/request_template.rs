//! Endpoint and signing parameters of requests, copied from a request that the SDK made.
//!
//! The SDK resolves endpoints (region, profile, variables, FIPS, account endpoints), signing names and the clock
//! offset to the store. It does so again every minute and after every refusal; in between its result is reused.
//!
//! Not here: operations, sending, interpretation of answers.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use send_wrapper::SendWrapper;

use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;

const TARGET: &str = "x-amz-target";
/// Content type of AWS JSON 1.0, the protocol of DynamoDB.
const JSON: &str = "application/x-amz-json-1.0";

/// What all requests to the store have in common.
pub(super) struct RequestTemplate {
    uri: Uri,
    /// The same URI as text, for signing.
    url: String,
    region: String,
    service: String,
    user_agent: HeaderValue,
    /// Seconds by which the SDK's signatures are ahead of the local clock.
    ahead: i64,
}

impl RequestTemplate {
    /// The template of `request`, which the SDK signed at `now`; `None` unless it is signed with SigV4 headers.
    fn of(request: &HttpRequest, now: SystemTime) -> Option<Self> {
        let header = |name: &str| request.headers().get(name);
        let authorization = header(AUTHORIZATION.as_str())?;
        let scope = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=")?;
        let (scope, _) = scope.split_once(',')?;
        // In reverse: a constant, the service, the region, the day, the key id.
        let mut scope = scope.rsplit('/').skip(1);
        let (service, region) = (scope.next()?, scope.next()?);
        Some(Self {
            uri: request.uri().parse().ok()?,
            url: request.uri().to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            user_agent: HeaderValue::from_str(header(USER_AGENT.as_str())?).ok()?,
            ahead: epoch_seconds(header("x-amz-date")?)? - DateTime::from(now).secs(),
        })
    }

    /// Returns a signed request of the operation `target` with this body.
    ///
    /// # Errors
    /// Credentials that cannot be written into a header.
    pub(super) fn request(
        &self,
        target: &'static str,
        body: SdkBody,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<http::Request<SdkBody>, BoxError> {
        let ahead = Duration::from_secs(self.ahead.unsigned_abs());
        let at = match self.ahead < 0 {
            true => now.checked_sub(ahead),
            false => now.checked_add(ahead),
        };
        let params = v4::SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name(&self.service)
            .time(at.unwrap_or(now))
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = [(CONTENT_TYPE.as_str(), JSON), (TARGET, target)];
        let bytes = SignableBody::Bytes(body.bytes().ok_or("a body that is not in memory")?);
        let signable = SignableRequest::new("POST", &self.url, headers.into_iter(), bytes)?;
        let (signed, _) = sign(signable, &params)?.into_parts();
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let into = request.headers_mut();
        into.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        into.insert(TARGET, HeaderValue::from_static(target));
        into.insert(USER_AGENT, self.user_agent.clone());
        for header in signed.into_parts().0 {
            let mut value = HeaderValue::from_str(header.value())?;
            value.set_sensitive(header.sensitive());
            into.insert(HeaderName::from_static(header.name()), value);
        }
        Ok(request)
    }
}

/// Epoch seconds of the time stamp of a signature, `20260102T030405Z`.
fn epoch_seconds(basic: &str) -> Option<i64> {
    let part = |from: usize, to: usize| basic.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    let extended = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let instant = DateTime::from_str(&extended, Format::DateTime).ok()?;
    Some(instant.secs())
}

/// Interceptor that records the template of the SDK's requests as they are sent. Belongs to one shard.
#[derive(Clone)]
pub(super) struct TemplateRecorder(SendWrapper<Rc<RefCell<Option<RecordedTemplate>>>>);

struct RecordedTemplate {
    template: Rc<RequestTemplate>,
    at: Micros,
}

impl TemplateRecorder {
    pub(super) fn new() -> Self {
        Self(SendWrapper::new(Rc::default()))
    }

    /// `None`: the next request must be made by the SDK.
    pub(super) fn template(&self) -> Option<Rc<RequestTemplate>> {
        self.template_at(clock::monotonic())
    }

    fn template_at(&self, now: Micros) -> Option<Rc<RequestTemplate>> {
        let found = self.0.borrow();
        let found = found.as_ref()?;
        let age = u128::from(now.since(found.at).0);
        let is_fresh = age < limits::REQUEST_TEMPLATE_AGE_MAX.as_micros();
        is_fresh.then(|| found.template.clone())
    }

    /// Called after a refusal, because the template may be the cause.
    pub(super) fn forget(&self) {
        *self.0.borrow_mut() = None;
    }
}

impl fmt::Debug for TemplateRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemplateRecorder")
    }
}

#[dyn_dispatch_hint]
impl Intercept for TemplateRecorder {
    fn name(&self) -> &'static str {
        "TemplateRecorder"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let at = clock::monotonic();
        if self.template_at(at).is_none() {
            let template = RequestTemplate::of(context.request(), SystemTime::now()).map(Rc::new);
            *self.0.borrow_mut() = template.map(|template| RecordedTemplate { template, at });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::UNIX_EPOCH;

    use aws_sdk_dynamodb::config::Credentials;

    use super::*;

    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-north-1/dynamodb/aws4_request, \
                          SignedHeaders=content-type;host, Signature=00";
    /// 2026-01-02T03:04:05Z.
    const AT: u64 = 1_767_323_045;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A request as the SDK makes it.
    fn made(authorization: &str, date: &str) -> HttpRequest {
        let request = http::Request::post("https://dynamodb.example:8443/")
            .header("authorization", authorization.to_owned())
            .header("x-amz-date", date.to_owned())
            .header("user-agent", "aws-sdk-rust/1")
            .body(SdkBody::empty());
        request.unwrap().try_into().unwrap()
    }

    fn request(
        template: &RequestTemplate,
        token: Option<&str>,
        now: SystemTime,
    ) -> http::Request<SdkBody> {
        let token = token.map(str::to_owned);
        let identity = Identity::from(Credentials::new("AKIDEXAMPLE", "key", token, None, "test"));
        let body = SdkBody::from("{}");
        template.request("DynamoDB_20120810.BatchGetItem", body, &identity, now).unwrap()
    }

    #[test]
    fn endpoint_scope_and_service_are_those_of_the_sdk() {
        let template = RequestTemplate::of(&made(SIGNED, "20260102T030405Z"), at(AT)).unwrap();
        let request = request(&template, Some("session"), at(AT));
        assert_eq!(request.uri(), "https://dynamodb.example:8443/");
        let header = |name| request.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header("user-agent"), "aws-sdk-rust/1");
        assert_eq!(header("x-amz-date"), "20260102T030405Z");
        assert_eq!(header("x-amz-security-token"), "session");
        let signed = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-north-1/dynamodb/aws4_request, \
                      SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
        let authorization = header("authorization");
        assert!(authorization.starts_with(signed), "{authorization}");
    }

    #[test]
    fn wrong_local_clock_stays_corrected() {
        for (date, expected) in
            [("20260102T031405Z", "20260102T031505Z"), ("20260102T025405Z", "20260102T025505Z")]
        {
            let template = RequestTemplate::of(&made(SIGNED, date), at(AT)).unwrap();
            let request = request(&template, None, at(AT + 60));
            assert_eq!(request.headers()["x-amz-date"], expected);
        }
    }

    #[test]
    fn other_signatures_give_no_template() {
        for other in [
            "AWS4-ECDSA-P256-SHA256 Credential=AKID/20260102/dynamodb/aws4_request, Signature=00",
            "AWS4-HMAC-SHA256 Credential=AKID",
            "Bearer token",
        ] {
            assert!(RequestTemplate::of(&made(other, "20260102T030405Z"), at(AT)).is_none());
        }
        for date in ["", "20260102", "2026010\u{e9}T030405Z", "20261402T030405Z"] {
            assert!(RequestTemplate::of(&made(SIGNED, date), at(AT)).is_none(), "{date}");
        }
    }

    #[test]
    fn template_expires_and_is_dropped_after_a_refusal() {
        let recorder = TemplateRecorder::new();
        let template =
            Rc::new(RequestTemplate::of(&made(SIGNED, "20260102T030405Z"), at(AT)).unwrap());
        let found = Micros(7);
        let record = || {
            *recorder.0.borrow_mut() =
                Some(RecordedTemplate { template: template.clone(), at: found })
        };
        record();
        let age = limits::REQUEST_TEMPLATE_AGE_MAX.as_micros() as u64;
        assert!(recorder.template_at(Micros(found.0 + age - 1)).is_some());
        assert!(recorder.template_at(Micros(found.0 + age)).is_none());
        recorder.forget();
        assert!(recorder.template_at(found).is_none());
    }
}
