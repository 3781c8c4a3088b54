//! Which variables without effect are reported, and which are left alone.
#![allow(clippy::unwrap_used)]

use super::*;

/// The warnings about these variables, each with the variable and its reason.
fn reported(vars: &[(&str, &str)]) -> Vec<SettingWarning> {
    let env = FixedEnv::on([0]);
    let env = vars.iter().fold(env, |env, (name, value)| env.with(name, *value));
    warnings(&env)
}

#[test]
fn name_near_a_setting_is_reported_with_the_setting() {
    for (name, meant) in [
        ("GRPC_PROT", "GRPC_PORT"),
        ("HOLD_TLL", "HOLD_TTL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("SHARD", "SHARDS"),
        ("READ_STALENESS", "READ_STALENESS_MS"),
        ("SHUTDOWN_GRACE_PERIOD", "SHUTDOWN_GRACE"),
        ("DDB_TABEL_SEATS", "DDB_TABLE_SEATS"),
        ("AWS_REGOIN", "AWS_REGION"),
        ("AWS_DEFUALT_REGION", "AWS_DEFAULT_REGION"),
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("HTTPS_PROXI", "HTTPS_PROXY"),
    ] {
        let found = reported(&[(name, "secret")]);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(found[0].variable, name);
        assert!(found[0].reason.contains(&format!("did you mean {meant}?")), "{}", found[0]);
        assert!(!found[0].to_string().contains("secret"));
    }
}

#[test]
fn name_with_a_prefix_of_this_server_is_reported_with_the_settings() {
    let found = reported(&[("DDB_TABLE_RESERVATIONS", "x"), ("IDEMPOTENCY_STORE", "redis")]);
    let names: Vec<_> = found.iter().map(|warning| warning.variable.as_str()).collect();
    assert_eq!(names, ["DDB_TABLE_RESERVATIONS", "IDEMPOTENCY_STORE"]);
    assert!(found[0].reason.contains("DDB_TABLE_IDEMPOTENCY"), "{}", found[0]);
}

#[test]
fn variables_of_kubernetes_shells_and_libraries_are_not_reported() {
    let usual = [
        ("INVENTORY_API_PORT", "tcp://10.0.0.1:8080"),
        ("INVENTORY_API_SERVICE_HOST", "10.0.0.1"),
        ("INVENTORY_API_SERVICE_PORT", "8080"),
        ("INVENTORY_API_SERVICE_PORT_GRPC", "8080"),
        ("INVENTORY_API_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("INVENTORY_API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("GRPC_PORT_8080_TCP_PROTO", "tcp"),
        ("GRPC_SERVICE_HOST", "10.0.0.1"),
        ("METRIC_PORT", "tcp://10.0.0.1:9090"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
        ("HTTP_PORT", "80"),
        ("PORT", "80"),
        ("HOSTNAME", "h"),
        ("LOGNAME", "root"),
        ("SHLVL", "1"),
        ("SHELL", "/bin/sh"),
        ("TERM", "xterm"),
        ("PATH", "/bin"),
        ("LS_COLORS", "x"),
        ("DEVICE_NAME", "sda"),
        ("SERVER_NAME", "x"),
        ("GRPC_VERBOSITY", "debug"),
        ("GRPC_GO_LOG_SEVERITY_LEVEL", "info"),
        ("GRPC_SSL_CIPHER_SUITES", "x"),
        ("AWS_EXECUTION_ENV", "x"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_ROLE_SESSION_NAME", "x"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/token"),
        ("AWS_ACCOUNT_ID", "123456789012"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("no_proxy", "localhost"),
        ("OTEL_RESOURCE_ATTRIBUTES_POD_NAME", "pod"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_LOGS_EXPORTER", "none"),
        ("HOLD_TLL", ""),
    ];
    assert_eq!(reported(&usual), []);
}

#[test]
fn unsupported_variables_of_opentelemetry_are_one_warning() {
    let found = reported(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "500"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://x"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_METRICS_EXPORTER", "otlp"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].variable.split(", ").count(), 5, "{}", found[0]);
}

#[test]
fn retries_of_the_aws_sdks_are_named() {
    let found = reported(&[("AWS_MAX_ATTEMPTS", "5")]);
    assert!(found[0].reason.contains("DDB_MAX_RETRIES"), "{}", found[0]);
}
