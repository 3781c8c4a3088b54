//! Variables of OpenTelemetry, read as its specification says: an empty value counts as unset, an invalid value is
//! reported as a warning and replaced by the default. No value stops the start.
//!
//! `OTEL_EXPORTER_OTLP_TRACES_*` wins over `OTEL_EXPORTER_OTLP_*`. Not here: the export itself
//! (`control_plane::span_export`).

pub(super) mod kinds;

use std::path::PathBuf;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Uri};

use super::env::Env;
use super::reader::{SettingsReader, StandardValue, default_of};
use super::value_kind::ValueKind;
use super::variables::{self as v, Variable};
use crate::limits;

use kinds::FileKind;
pub(crate) use kinds::{OtlpCompression, OtlpProtocol};

/// How calls are sampled, and where their spans go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OtelConfig {
    /// `None`: no export.
    pub(crate) exporter: Option<OtlpConfig>,
    /// Whether the sampling decision of the caller wins, if there is one.
    pub(crate) parent_based: bool,
    /// Fraction of sampled calls without such a decision, 0 to 1.
    pub(crate) ratio: f64,
    /// Attributes of all spans that the variables of OpenTelemetry name; a name occurs once.
    pub(crate) resource: Vec<(String, String)>,
}

/// Export of spans over OTLP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OtlpConfig {
    /// With scheme; with the path of the spans if the protocol is HTTP.
    pub(crate) endpoint: Uri,
    /// Whether a variable names the endpoint.
    pub(crate) endpoint_is_set: bool,
    pub(crate) protocol: OtlpProtocol,
    pub(crate) compression: OtlpCompression,
    /// Sent with every export. The values are marked as sensitive.
    pub(crate) headers: HeaderMap,
    /// Time limit of one export.
    pub(crate) timeout: Duration,
    /// PEM file of the authorities that the collector's certificate may come from; `None`: the public ones.
    pub(crate) authorities: Option<PathBuf>,
    /// PEM files of the certificate and key that this process presents.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Path of spans below the endpoint of a collector.
const TRACES_PATH: &str = "/v1/traces";

/// Port of OTLP over HTTP.
const HTTP_PORT: &str = "4318";

/// Variables of OpenTelemetry that are read and not in the table of settings, besides the `TRACES` ones.
pub(super) const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
pub(super) const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

const OTLP: &str = "OTEL_EXPORTER_OTLP_";

/// `OTEL_EXPORTER_OTLP_TRACES_X` for `OTEL_EXPORTER_OTLP_X`.
pub(super) fn traces_name(general: &str) -> String {
    format!("{OTLP}TRACES_{}", general.strip_prefix(OTLP).unwrap_or(general))
}

/// The `OTEL_EXPORTER_OTLP_*` variables that exist for all signals and for traces.
pub(super) fn exporter_names() -> [&'static str; 9] {
    [
        v::OTEL_EXPORTER_OTLP_ENDPOINT.name,
        v::OTEL_EXPORTER_OTLP_PROTOCOL.name,
        v::OTEL_EXPORTER_OTLP_COMPRESSION.name,
        v::OTEL_EXPORTER_OTLP_HEADERS.name,
        v::OTEL_EXPORTER_OTLP_TIMEOUT.name,
        v::OTEL_EXPORTER_OTLP_INSECURE.name,
        v::OTEL_EXPORTER_OTLP_CERTIFICATE.name,
        CLIENT_CERTIFICATE,
        CLIENT_KEY,
    ]
}

impl OtelConfig {
    pub(super) fn read(reader: &mut SettingsReader<'_, impl Env>) -> Self {
        let is_disabled = read(reader, &v::OTEL_SDK_DISABLED);
        let is_exported = read_exporters(reader);
        let exporter = OtlpConfig::read(reader);
        let (parent_based, ratio) = read_sampler(reader);
        Self {
            exporter: exporter.filter(|_| is_exported && !is_disabled),
            parent_based,
            ratio,
            resource: read_resource(reader),
        }
    }
}

/// The variable's value, or its default if it is unset or invalid.
fn read<K: ValueKind>(
    reader: &mut SettingsReader<'_, impl Env>,
    variable: &'static Variable<K>,
) -> K::Value {
    let value = reader.read_standard(variable.name, &variable.kind).valid();
    value.unwrap_or_else(|| default_of(variable))
}

/// The value of the variable for traces or, without a valid one, of the general variable.
fn read_pair<K: ValueKind>(
    reader: &mut SettingsReader<'_, impl Env>,
    name: &str,
    kind: &K,
) -> Option<K::Value> {
    let of_traces = reader.read_standard(&traces_name(name), kind).valid();
    let general = reader.read_standard(name, kind).valid();
    of_traces.or(general)
}

/// Whether the list of exporters has the one of this server.
fn read_exporters(reader: &mut SettingsReader<'_, impl Env>) -> bool {
    let variable = &v::OTEL_TRACES_EXPORTER;
    let Some(names) = reader.read_standard(variable.name, &variable.kind).valid() else {
        return true;
    };
    let is = |name: &str| names.iter().any(|given| given == name);
    let unknown: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !matches!(*name, "otlp" | "none")).collect();
    let is_exported = is("otlp") || !is("none");
    if !unknown.is_empty() {
        let then = if is_exported { "spans go to otlp" } else { "no spans are exported" };
        let unknown = unknown.join(", ");
        reader.warn(variable.name, format!("this server has no exporter {unknown}; {then}"));
    }
    is_exported
}

/// Whether the caller decides, and the ratio of calls without such a decision.
fn read_sampler(reader: &mut SettingsReader<'_, impl Env>) -> (bool, f64) {
    let (name, ratio) = (&v::OTEL_TRACES_SAMPLER, &v::OTEL_TRACES_SAMPLER_ARG);
    let set = reader.read_standard(name.name, &name.kind).valid();
    let ratio_set = reader.read_standard(ratio.name, &ratio.kind).valid();
    // The specification's default for the ratio of a sampler that is named. The default sampler has its own.
    let unset = if set.is_some() { 1.0 } else { default_of(ratio) };
    let sampler = set.unwrap_or_else(|| default_of(name));
    (sampler.parent_based, sampler.fixed_ratio.unwrap_or(ratio_set.unwrap_or(unset)))
}

/// OTEL_RESOURCE_ATTRIBUTES, with OTEL_SERVICE_NAME in place of its service.name.
fn read_resource(reader: &mut SettingsReader<'_, impl Env>) -> Vec<(String, String)> {
    let (attributes, service) = (&v::OTEL_RESOURCE_ATTRIBUTES, &v::OTEL_SERVICE_NAME);
    let attributes = reader.read_standard(attributes.name, &attributes.kind).valid();
    let service = reader.read_standard(service.name, &service.kind).valid().flatten();
    let mut resource: Vec<(String, String)> = Vec::new();
    let named = service.map(|name| (SERVICE_NAME_KEY.to_owned(), name));
    for (key, value) in attributes.into_iter().flatten().chain(named) {
        // The last one of a name wins.
        resource.retain(|(known, _)| *known != key);
        resource.push((key, value));
    }
    resource
}

/// Attribute with the name of the service.
pub(crate) const SERVICE_NAME_KEY: &str = "service.name";

impl OtlpConfig {
    /// `None` if the endpoint is invalid: another one is not what the operator wants.
    fn read(reader: &mut SettingsReader<'_, impl Env>) -> Option<Self> {
        let protocol = &v::OTEL_EXPORTER_OTLP_PROTOCOL;
        let protocol = read_pair(reader, protocol.name, &protocol.kind)
            .unwrap_or_else(|| default_of(protocol));
        let insecure = &v::OTEL_EXPORTER_OTLP_INSECURE;
        let is_insecure = read_pair(reader, insecure.name, &insecure.kind);
        let scheme = match is_insecure.unwrap_or_else(|| default_of(insecure)) {
            true => Scheme::HTTP,
            false => Scheme::HTTPS,
        };
        let variable = &v::OTEL_EXPORTER_OTLP_ENDPOINT;
        let of_traces = reader.read_standard(&traces_name(variable.name), &variable.kind);
        let general = reader.read_standard(variable.name, &variable.kind);
        let endpoint_is_set = matches!(
            (&of_traces, &general),
            (StandardValue::Set(_), _) | (_, StandardValue::Set(_))
        );
        let base = match (of_traces, general) {
            (StandardValue::Set(url), _) => with_path(&url, scheme, None),
            (StandardValue::Invalid, _) | (_, StandardValue::Invalid) => None,
            (_, StandardValue::Set(url)) => with_path(&url, scheme, path_of(protocol)),
            (_, StandardValue::Unset) => default_endpoint(protocol),
        };
        let compression = &v::OTEL_EXPORTER_OTLP_COMPRESSION;
        let compression = read_pair(reader, compression.name, &compression.kind)
            .unwrap_or_else(|| default_of(compression));
        let headers = &v::OTEL_EXPORTER_OTLP_HEADERS;
        let headers = read_pair(reader, headers.name, &headers.kind).unwrap_or_default();
        let timeout = &v::OTEL_EXPORTER_OTLP_TIMEOUT;
        let timeout = read_pair(reader, timeout.name, &timeout.kind)
            .map_or(limits::SPAN_EXPORT_TIMEOUT, Duration::from_millis);
        let authorities = read_pair(reader, v::OTEL_EXPORTER_OTLP_CERTIFICATE.name, &FileKind);
        let certificate = read_pair(reader, CLIENT_CERTIFICATE, &FileKind);
        let key = read_pair(reader, CLIENT_KEY, &FileKind);
        if certificate.is_some() != key.is_some() {
            let (missing, given) = match key {
                None => (CLIENT_KEY, CLIENT_CERTIFICATE),
                Some(_) => (CLIENT_CERTIFICATE, CLIENT_KEY),
            };
            reader.warn(given, format!("no effect without {missing}"));
        }
        Some(Self {
            endpoint: base?,
            endpoint_is_set,
            protocol,
            compression,
            headers,
            // Zero is no limit in the specification, and the longest one here.
            timeout: if timeout.is_zero() { limits::SPAN_EXPORT_TIMEOUT_MAX } else { timeout },
            authorities: authorities.flatten(),
            identity: certificate.flatten().zip(key.flatten()),
        })
    }
}

fn path_of(protocol: OtlpProtocol) -> Option<&'static str> {
    match protocol {
        OtlpProtocol::Grpc => None,
        OtlpProtocol::HttpProtobuf => Some(TRACES_PATH),
    }
}

fn default_endpoint(protocol: OtlpProtocol) -> Option<Uri> {
    let default = default_of(&v::OTEL_EXPORTER_OTLP_ENDPOINT);
    match protocol {
        OtlpProtocol::Grpc => Some(default),
        OtlpProtocol::HttpProtobuf => {
            let text = format!("http://{}:{HTTP_PORT}{TRACES_PATH}", default.host()?);
            text.parse().ok()
        }
    }
}

/// `url` with `scheme` if it has none, and with `below` after its path.
fn with_path(url: &Uri, scheme: Scheme, below: Option<&str>) -> Option<Uri> {
    let mut parts = url.clone().into_parts();
    parts.scheme.get_or_insert(scheme);
    let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::path);
    let path = match below {
        Some(below) => format!("{}{below}", path.trim_end_matches('/')),
        None => path.to_owned(),
    };
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}
