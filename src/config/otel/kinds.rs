//! Kinds of values that only variables of OpenTelemetry have.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::config::value_kind::{CountKind, KeywordKind, ValueKind};
use crate::limits;
use inventory_store::without_credentials;

/// Value of OTEL_EXPORTER_OTLP_PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
}

/// A boolean. OpenTelemetry has no other words for it.
pub(crate) const FLAG: KeywordKind<bool> =
    KeywordKind { what: "a boolean", words: &[("true", "", true), ("false", "", false)] };

pub(crate) const PROTOCOLS: KeywordKind<OtlpProtocol> = KeywordKind {
    what: "a protocol of this server",
    words: &[("grpc", "", OtlpProtocol::Grpc), ("http/protobuf", "", OtlpProtocol::HttpProtobuf)],
};

/// Value of OTEL_EXPORTER_OTLP_COMPRESSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtlpCompression {
    None,
    Gzip,
}

pub(crate) const COMPRESSIONS: KeywordKind<OtlpCompression> = KeywordKind {
    what: "a compression of this server",
    words: &[("gzip", "", OtlpCompression::Gzip), ("none", "", OtlpCompression::None)],
};

/// Exporters of spans, separated by commas, in lower case.
pub(crate) struct ExportersKind;

impl ValueKind for ExportersKind {
    type Value = Vec<String>;

    fn parse(&self, text: &str) -> Result<Vec<String>, String> {
        let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
        Ok(names.filter(|name| !name.is_empty()).collect())
    }

    fn expected(&self) -> String {
        "otlp or none".to_owned()
    }
}

/// URL of a collector; without a scheme OTEL_EXPORTER_OTLP_INSECURE decides.
pub(crate) struct EndpointKind;

impl ValueKind for EndpointKind {
    type Value = Uri;

    fn shown(&self, text: &str) -> Option<String> {
        Some(without_credentials(text))
    }

    fn parse(&self, text: &str) -> Result<Uri, String> {
        let url: Uri = text.parse().map_err(|why| format!("is no URL ({why})"))?;
        if let Some(other) = url.scheme_str().filter(|name| !matches!(*name, "http" | "https")) {
            return Err(format!("has the scheme {other:?}"));
        }
        match url.host() {
            None | Some("") => Err("has no host".to_owned()),
            // OTLP allows no other parts than scheme, host, port and path, and most exporters drop these without a word.
            Some(_) if url.authority().is_some_and(|whole| whole.as_str().contains('@')) => {
                Err("has credentials, which are not sent: set OTEL_EXPORTER_OTLP_HEADERS=\
                 authorization=Basic%20… with the base64 encoding of user:password"
                    .to_owned())
            }
            Some(_) => Ok(url),
        }
    }

    fn expected(&self) -> String {
        "a URL without credentials, http://host:port or https://host:port".to_owned()
    }
}

/// Headers as `name=value,name=value`; values are percent-decoded.
pub(crate) struct HeadersKind;

impl ValueKind for HeadersKind {
    type Value = HeaderMap;

    fn shown(&self, _: &str) -> Option<String> {
        None
    }

    fn parse(&self, text: &str) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs(text)? {
            // Not shown: a token without a name before it is taken for a name.
            let header = name.parse::<HeaderName>();
            let header = header.map_err(|_| "has a name that no header can have".to_owned())?;
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|_| format!("the value of {name} is no header value"))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(headers)
    }

    fn expected(&self) -> String {
        "name=value,name=value".to_owned()
    }
}

/// Attributes as `key=value,key=value`; keys and values are percent-decoded.
pub(crate) struct AttributesKind;

impl ValueKind for AttributesKind {
    type Value = Vec<(String, String)>;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        pairs(text)
    }

    fn expected(&self) -> String {
        "key=value,key=value".to_owned()
    }
}

/// Path of a file.
pub(crate) struct FileKind;

impl ValueKind for FileKind {
    type Value = Option<PathBuf>;

    fn parse(&self, text: &str) -> Result<Option<PathBuf>, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn expected(&self) -> String {
        "a PEM file, or nothing".to_owned()
    }
}

/// Milliseconds of a time limit.
pub(crate) const TIMEOUT: CountKind =
    CountKind { min: 0, max: limits::SPAN_EXPORT_TIMEOUT_MAX.as_millis() as u64 };

/// Value of OTEL_TRACES_SAMPLER.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SamplerName {
    /// Whether the sampling decision of the caller wins, if there is one.
    pub(crate) parent_based: bool,
    /// `None`: the value of OTEL_TRACES_SAMPLER_ARG.
    pub(crate) fixed_ratio: Option<f64>,
}

const fn sampler(parent_based: bool, fixed_ratio: Option<f64>) -> SamplerName {
    SamplerName { parent_based, fixed_ratio }
}

/// Samplers, with OpenTelemetry's names.
pub(crate) const SAMPLERS: KeywordKind<SamplerName> = KeywordKind {
    what: "a sampler of this server",
    words: &[
        ("always_on", "", sampler(false, Some(1.0))),
        ("always_off", "", sampler(false, Some(0.0))),
        ("traceidratio", "", sampler(false, None)),
        ("parentbased_always_on", "", sampler(true, Some(1.0))),
        ("parentbased_always_off", "", sampler(true, Some(0.0))),
        ("parentbased_traceidratio", "", sampler(true, None)),
    ],
};

/// Splits `key=value,key=value` and decodes both. One invalid pair makes the whole text invalid.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    members
        .map(|member| {
            let (key, value) = member
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .ok_or_else(|| "has a part that is not key=value".to_owned())?;
            Ok((decoded(key.trim())?, decoded(value.trim())?))
        })
        .collect()
}

fn decoded(text: &str) -> Result<String, String> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err("has a % without two hexadecimal digits; write %25".to_owned());
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "is not UTF-8 after decoding".to_owned())
}
