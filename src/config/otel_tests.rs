//! Variables of OpenTelemetry, case by case as its specification has them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

fn config(vars: &[(&str, &str)]) -> Config {
    let env = FixedEnv::on([0]);
    let env = vars.iter().fold(env, |env, (name, value)| env.with(name, *value));
    Config::from_env(&env).unwrap_or_else(|errors| panic!("{vars:?} stops the start: {errors}"))
}

fn exporter(vars: &[(&str, &str)]) -> OtlpConfig {
    config(vars).otel.exporter.unwrap_or_else(|| panic!("{vars:?}: no export"))
}

/// The one warning that these settings cause.
fn warning(vars: &[(&str, &str)]) -> SettingWarning {
    let warnings = config(vars).warnings;
    assert_eq!(warnings.len(), 1, "{vars:?}: {warnings:?}");
    warnings.into_iter().next().unwrap()
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

#[test]
fn empty_variables_are_unset() {
    let names = otel::exporter_names();
    let others = [
        "OTEL_SDK_DISABLED",
        "OTEL_TRACES_EXPORTER",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_BSP_SCHEDULE_DELAY",
    ];
    let of_traces = names.map(otel::traces_name);
    let all = names.iter().copied().chain(others).chain(of_traces.iter().map(String::as_str));
    let empty: Vec<_> = all.zip(["", " "].into_iter().cycle()).collect();
    assert_eq!(config(&empty), config(&[]));
}

#[test]
fn invalid_values_are_warnings_and_defaults() {
    let long = "9".repeat(30);
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "many"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
        ("OTEL_SERVICE_NAME", "a\u{7}b"),
        ("OTEL_RESOURCE_ATTRIBUTES", "region=a,b"),
        ("OTEL_RESOURCE_ATTRIBUTES", "region=%zz"),
        (PROTOCOL, "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "deflate"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", &long),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1"),
    ] {
        let vars = [(name, value)];
        let warning = warning(&vars);
        assert_eq!(warning.variable, name, "{value}");
        assert!(warning.reason.contains("want "), "{warning}");
        assert_eq!(config(&vars).otel, config(&[]).otel, "{name}={value}");
    }
}

#[test]
fn endpoint_that_is_no_url_exports_nothing() {
    for value in ["ftp://otel", "http://", "http://a b"] {
        for name in [ENDPOINT, TRACES_ENDPOINT] {
            let vars = [(name, value)];
            assert_eq!(warning(&vars).variable, name);
            assert_eq!(config(&vars).otel.exporter, None, "{name}={value}");
        }
    }
}

#[test]
fn endpoint_has_the_scheme_that_says_whether_there_is_tls() {
    let secure = exporter(&[(ENDPOINT, "https://127.0.0.1:4317")]);
    assert_eq!(secure.endpoint, "https://127.0.0.1:4317/");
    assert!(secure.endpoint_is_set);
    assert_eq!(exporter(&[(ENDPOINT, "otel:4317")]).endpoint, "https://otel:4317/");
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "True");
    assert_eq!(exporter(&[(ENDPOINT, "otel:4317"), insecure]).endpoint, "http://otel:4317/");
    assert_eq!(exporter(&[(ENDPOINT, "https://otel"), insecure]).endpoint, "https://otel/");
}

#[test]
fn http_appends_the_path_of_spans_to_the_general_endpoint_only() {
    let http = (PROTOCOL, "http/protobuf");
    let default = exporter(&[http]);
    assert_eq!(default.endpoint, "http://otel-collector:4318/v1/traces");
    assert_eq!((default.protocol, default.endpoint_is_set), (OtlpProtocol::HttpProtobuf, false));
    let general = exporter(&[http, (ENDPOINT, "http://otel:4318/base/")]);
    assert_eq!(general.endpoint, "http://otel:4318/base/v1/traces");
    let own = exporter(&[http, (ENDPOINT, "http://x"), (TRACES_ENDPOINT, "http://otel:4318/in")]);
    assert_eq!(own.endpoint, "http://otel:4318/in");
}

#[test]
fn variables_for_traces_win() {
    let config = exporter(&[
        (ENDPOINT, "http://general:1"),
        (TRACES_ENDPOINT, "http://traces:2"),
        (PROTOCOL, "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "GZip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "tenant=general"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "tenant=traces"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/general.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/traces.pem"),
    ]);
    assert_eq!(config.endpoint, "http://traces:2/");
    assert_eq!(config.protocol, OtlpProtocol::Grpc);
    assert_eq!(config.timeout, Duration::from_millis(2_500));
    assert_eq!(config.headers["tenant"], "traces");
    assert_eq!(config.compression, OtlpCompression::Gzip);
    assert_eq!(config.authorities.as_deref(), Some(Path::new("/traces.pem")));
}

#[test]
fn compression_is_gzip_or_none() {
    let compression = |value| {
        exporter(&[(ENDPOINT, "http://x"), ("OTEL_EXPORTER_OTLP_COMPRESSION", value)]).compression
    };
    assert_eq!(compression("gzip"), OtlpCompression::Gzip);
    assert_eq!(compression("none"), OtlpCompression::None);
    assert_eq!(exporter(&[]).compression, OtlpCompression::None);
}

#[test]
fn headers_are_decoded_and_never_repeated_in_messages() {
    let name = "OTEL_EXPORTER_OTLP_HEADERS";
    let headers = exporter(&[(name, "Authorization=Basic%20c2VjcmV0%3D, x-a = b=c ,")]).headers;
    assert_eq!(headers["authorization"], "Basic c2VjcmV0=");
    assert_eq!(headers["x-a"], "b=c");
    assert!(!format!("{headers:?}").contains("c2VjcmV0"));
    let reason = warning(&[(name, "authorization=s3cret%")]).reason;
    assert!(!reason.contains("s3cret"), "{reason}");
    // A token whose name was forgotten, and which has a = itself.
    let reason = warning(&[(name, "Basic dXNlcjpzM2NyZXQ==")]).reason;
    assert!(!reason.contains("dXNlcjpzM2NyZXQ"), "{reason}");
}

#[test]
fn password_of_an_endpoint_is_not_repeated_in_messages() {
    for value in ["ftp://user:s3cret@otel:4317", "http://user:s3cret@", "user:s3cret@ot el"] {
        for name in [ENDPOINT, TRACES_ENDPOINT] {
            let reason = warning(&[(name, value)]).reason;
            assert!(!reason.contains("s3cret"), "{value}: {reason}");
            assert!(reason.contains("want a URL"), "{reason}");
        }
    }
}

#[test]
fn credentials_in_an_endpoint_are_refused_and_the_headers_named() {
    for value in ["http://user:s3cret@otel:4317", "https://user@otel", "user:s3cret@otel:4317"] {
        for name in [ENDPOINT, TRACES_ENDPOINT] {
            let vars = [(name, value)];
            let reason = warning(&vars).reason;
            assert!(!reason.contains("s3cret") && !reason.contains("user@"), "{value}: {reason}");
            assert!(reason.contains("OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20"));
            // Without an export: the collector would refuse it.
            assert_eq!(config(&vars).otel.exporter, None, "{value}");
        }
    }
}

#[test]
fn exporters_are_a_list() {
    let is_exported = |value| {
        let config = config(&[("OTEL_TRACES_EXPORTER", value)]);
        (config.otel.exporter.is_some(), config.warnings.len())
    };
    assert_eq!(is_exported("otlp"), (true, 0));
    assert_eq!(is_exported("none"), (false, 0));
    assert_eq!(is_exported(" OTLP , otlp"), (true, 0));
    assert_eq!(is_exported("otlp,console"), (true, 1));
    assert_eq!(is_exported("zipkin"), (true, 1));
    assert_eq!(is_exported("none,console"), (false, 1));
    assert_eq!(config(&[("OTEL_SDK_DISABLED", "TRUE")]).otel.exporter, None);
}

#[test]
fn samplers_have_the_ratio_of_the_specification() {
    let sampler = |vars: &[(&str, &str)]| {
        let otel = config(vars).otel;
        (otel.parent_based, otel.ratio)
    };
    let name = "OTEL_TRACES_SAMPLER";
    let arg = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
    assert_eq!(sampler(&[arg]), (true, 0.25));
    for (value, expected) in [
        ("always_on", (false, 1.0)),
        ("always_off", (false, 0.0)),
        ("traceidratio", (false, 0.25)),
        ("parentbased_always_on", (true, 1.0)),
        ("parentbased_always_off", (true, 0.0)),
        ("ParentBased_TraceIdRatio", (true, 0.25)),
    ] {
        assert_eq!(sampler(&[(name, value), arg]), expected, "{value}");
    }
    // A sampler that is named without a ratio takes all calls.
    assert_eq!(sampler(&[(name, "traceidratio")]), (false, 1.0));
}

#[test]
fn resource_attributes_are_decoded_and_the_service_name_variable_wins() {
    let attributes = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=of%20attributes,deployment.environment.name=prod%2Cb,a=1,a=2",
    );
    let resource = config(&[attributes]).otel.resource;
    let pairs: Vec<_> = resource.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected =
        [("service.name", "of attributes"), ("deployment.environment.name", "prod,b"), ("a", "2")];
    assert_eq!(pairs, expected);
    let resource = config(&[attributes, ("OTEL_SERVICE_NAME", "tickets")]).otel.resource;
    let names = resource.iter().filter(|(key, _)| key == SERVICE_NAME_KEY);
    assert_eq!(names.map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["tickets"]);
}

#[test]
fn identity_needs_certificate_and_key() {
    let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c.pem");
    let key = ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem");
    assert!(exporter(&[certificate, key]).identity.is_some());
    assert_eq!(exporter(&[key]).identity, None);
    assert_eq!(warning(&[key]).variable, key.0);
}
