//! Valid and invalid environments, and the errors for the latter.
#![allow(clippy::unwrap_used)]

use crate::telemetry::log::LogLevel;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;
use crate::limits;
use inventory_grpc::GrpcSettings;

fn given(vars: &[(&str, &str)]) -> FixedEnv {
    vars.iter().fold(FixedEnv::on([0, 1]), |env, (name, value)| env.with(name, *value))
}

fn config(vars: &[(&str, &str)]) -> Config {
    Config::from_env(&given(vars)).unwrap()
}

/// The one error that these settings cause.
fn error(vars: &[(&str, &str)]) -> ConfigError {
    let ConfigErrors(errors) = Config::from_env(&given(vars)).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn empty_environment_gives_the_defaults_of_the_contract() {
    let config = config(&[]);
    assert_eq!((config.grpc_port, config.metrics_port), (8080, 9090));
    assert_eq!(config.admin, Some("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(
        (config.store.region.as_ref(), config.store.region_name()),
        (None, "ap-northeast-2")
    );
    assert_eq!(config.store.profile, None);
    assert_eq!(config.store.tables.inventory, "inventory");
    assert_eq!(config.store.tables.seats, "inventory_seats");
    assert_eq!(config.store.tables.idempotency, "idempotency");
    let exporter = config.otel.exporter.unwrap();
    assert_eq!(exporter.endpoint, "http://otel-collector:4317");
    assert!(!exporter.endpoint_is_set && exporter.headers.is_empty());
    assert_eq!(
        (exporter.protocol, exporter.timeout),
        (OtlpProtocol::Grpc, Duration::from_secs(10))
    );
    assert_eq!((config.otel.parent_based, config.otel.ratio), (true, 0.001));
    assert_eq!(config.otel.resource, []);
    assert_eq!(config.warnings, []);
    assert_eq!(config.log_level, LogLevel::Info);
    assert_eq!(config.service_name, "inventory-api");
    assert_eq!(config.service_version, None);
    assert_eq!(config.shard_cpus, [0, 1]);
    assert_eq!(config.spin_before_park, Duration::ZERO);
    assert_eq!(config.membership, MembershipMode::Store);
}

#[test]
fn the_tables_defaults_are_those_of_the_limits() {
    let config = config(&[]);
    let grpc = GrpcSettings::default();
    let store = StoreSettings::local(([127, 0, 0, 1], 8000).into());
    assert_eq!(config.call_timeout, limits::CALL_TIMEOUT_DEFAULT);
    assert_eq!(config.streams_per_connection, grpc.streams_per_connection);
    assert_eq!(config.keep_alive_period, limits::KEEP_ALIVE_PERIOD_DEFAULT);
    assert_eq!(config.connection_age, grpc.connection_age);
    assert_eq!(config.max_qty, limits::QTY_MAX_DEFAULT);
    assert_eq!(config.sold_out_latch, limits::SOLD_OUT_LATCH_DEFAULT);
    assert_eq!(config.read_staleness, limits::READ_STALENESS_DEFAULT);
    assert_eq!(config.hold_ttl, limits::HOLD_TTL_DEFAULT);
    assert_eq!(config.hold_ttl_max, limits::HOLD_TTL_MAX_DEFAULT);
    assert_eq!(config.late_commit, LateCommit::Reacquire);
    assert_eq!(config.store.attempt_timeout, store.attempt_timeout);
    assert_eq!(config.store.read_retries, store.read_retries);
    assert_eq!(config.answers_cached_for, Duration::from_secs(300));
    assert_eq!(config.answers_cached, 10_000);
    assert_eq!(config.shutdown_grace, limits::SHUTDOWN_GRACE_DEFAULT);
}

#[test]
fn every_variable_that_is_read_is_in_the_table_and_the_reverse() {
    let env = FixedEnv::on([0]);
    let mut reader = SettingsReader::new(&env);
    Config::read(&mut reader);
    let read: BTreeSet<_> = reader.seen.iter().cloned().collect();
    let table = variables::VARIABLES.iter().flat_map(|group| group.variables);
    let mut documented: BTreeSet<_> = table.map(|variable| variable.name().to_owned()).collect();
    for name in otel::exporter_names() {
        documented.insert(name.to_owned());
        documented.insert(otel::traces_name(name));
    }
    assert_eq!(read, documented);
    assert_eq!(reader.seen.len(), read.len(), "one is read twice");
}

#[test]
fn the_example_of_every_variable_is_accepted() {
    for variable in variables::VARIABLES.iter().flat_map(|group| group.variables) {
        let mut env = FixedEnv::on([0]).with(variable.name(), variable.example());
        // Files of TLS are accepted together only.
        let prefixes = ["ADMIN_TLS_", "TLS_"];
        if let Some(prefix) = prefixes.iter().find(|prefix| variable.name().starts_with(**prefix)) {
            for name in ["CERT_FILE", "KEY_FILE", "CLIENT_CA_FILE"] {
                env = env.with(&format!("{prefix}{name}"), "some.pem");
            }
            env = env.with(variable.name(), variable.example());
        }
        assert!(Config::from_env(&env).is_ok(), "{}", variable.name());
    }
}

const GIVEN: &[(&str, &str)] = &[
    ("GRPC_PORT", "0"),
    ("METRICS_PORT", "0"),
    ("ADMIN_PORT", "9999"),
    ("ADMIN_HOST", "::1"),
    ("GRPC_TIMEOUT", "1.5s"),
    ("GRPC_MAX_CONCURRENCY", "7"),
    ("GRPC_KEEP_ALIVE_PERIOD", "1m"),
    ("MAX_CONNECTION_AGE", "0"),
    ("MAX_QTY", "4"),
    ("SOLD_OUT_LATCH_MS", "0"),
    ("READ_STALENESS_MS", "20"),
    ("HOLD_TTL", "90s"),
    ("HOLD_TTL_MAX", "2m"),
    ("LATE_COMMIT", "Reject"),
    ("AWS_REGION", "eu-west-1\n"),
    ("AWS_DEFAULT_REGION", "eu-west-2"),
    ("AWS_PROFILE", "staging"),
    ("DDB_TABLE_INVENTORY", "prod.stock"),
    ("DDB_TABLE_SEATS", "prod.seats"),
    ("DDB_TABLE_IDEMPOTENCY", "prod.records"),
    ("DDB_TIMEOUT", "90ms"),
    ("DDB_MAX_RETRIES", "0"),
    ("IDEMPOTENCY_CACHE_SIZE", "12"),
    ("SHARDS", "1..2"),
    ("MEMBERSHIP", "STATIC:1/3"),
    ("SPIN_BEFORE_PARK", "50us"),
    ("SHUTDOWN_GRACE", "5s"),
    ("SHARD_STALL_LIMIT", "2s"),
    ("SHARD_STALL_EXIT", "0"),
    ("LOG_LEVEL", "DEBUG"),
    ("SERVICE_NAME", "tickets"),
    ("SERVICE_VERSION", "2.0.0"),
    ("LOG_CALLS_RATIO", "0.25"),
    ("OTEL_TRACES_EXPORTER", "none"),
    ("OTEL_TRACES_SAMPLER", "TraceIdRatio"),
    ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
];

fn config_of_given_values() -> Config {
    Config {
        grpc_port: 0,
        grpc_host: "::".parse().unwrap(),
        metrics_port: 0,
        admin: Some("[::1]:9999".parse().unwrap()),
        grpc_tls: None,
        admin_access: AdminAccessFiles::default(),
        call_timeout: Duration::from_millis(1_500),
        streams_per_connection: 7,
        keep_alive_period: Duration::from_secs(60),
        connection_age: None,
        max_qty: 4,
        sold_out_latch: Duration::ZERO,
        read_staleness: Duration::from_millis(20),
        hold_ttl: Duration::from_secs(90),
        hold_ttl_max: Duration::from_secs(120),
        late_commit: LateCommit::Reject,
        store: StoreConfig {
            region: Some(StoreRegion {
                name: "eu-west-1".to_owned(),
                source: "AWS_REGION".to_owned(),
            }),
            profile: Some("staging".to_owned()),
            tables: TableNames {
                inventory: "prod.stock".to_owned(),
                seats: "prod.seats".to_owned(),
                idempotency: "prod.records".to_owned(),
            },
            attempt_timeout: Duration::from_millis(90),
            read_retries: 0,
        },
        answers_cached_for: Duration::from_secs(300),
        answers_cached: 12,
        shard_cpus: vec![1],
        membership: MembershipMode::Static { index: 1, count: 3 },
        spin_before_park: Duration::from_micros(50),
        shutdown_grace: Duration::from_secs(5),
        shard_stall_limit: Duration::from_secs(2),
        shard_stall_exit: None,
        log_level: LogLevel::Debug,
        service_name: "tickets".to_owned(),
        service_version: Some("2.0.0".to_owned()),
        log_calls_ratio: 0.25,
        otel: OtelConfig { exporter: None, parent_based: false, ratio: 0.5, resource: Vec::new() },
        warnings: Vec::new(),
    }
}

#[test]
fn given_values_are_assigned_to_their_fields() {
    assert_eq!(config(GIVEN), config_of_given_values());
}

#[test]
fn the_cache_time_reads_with_and_without_its_unit() {
    for text in ["120", "120s", "2m", " 120\n"] {
        let span = config(&[("IDEMPOTENCY_TTL_SECONDS", text)]).answers_cached_for;
        assert_eq!(span, Duration::from_secs(120), "{text:?}");
    }
}

#[test]
fn the_admin_port_can_be_off_and_free() {
    assert_eq!(config(&[("ADMIN_PORT", "off")]).admin, None);
    assert_eq!(config(&[("ADMIN_PORT", "0")]).admin.unwrap().port(), 0);
    assert_eq!(admin_address(&given(&[("ADMIN_PORT", "off")])), Ok(None));
}

#[test]
fn value_in_quotation_marks_is_refused_with_the_cure() {
    for (name, value) in [("GRPC_PORT", "'8080'"), ("HOLD_TTL", "\"5m\""), ("MAX_QTY", "\"\"")] {
        let errors = Config::from_env(&FixedEnv::on([0]).with(name, value)).unwrap_err();
        assert!(errors.to_string().contains("without quotation marks"), "{errors}");
    }
    let config = Config::from_env(&FixedEnv::on([0]).with("OTEL_TRACES_SAMPLER", "\"always_on\""));
    let warnings = config.unwrap().warnings;
    assert!(warnings[0].reason.contains("without quotation marks"), "{warnings:?}");
    let errors = Config::from_env(&FixedEnv::on([0]).with("GRPC_PORT", "x")).unwrap_err();
    assert!(!errors.to_string().contains("quotation"), "{errors}");
}

#[test]
fn all_errors_are_reported_together() {
    let vars = [
        ("GRPC_PORT", "eighty"),
        ("METRICS_PORT", "70000"),
        ("GRPC_TIMEOUT", "250"),
        ("SHARDS", "3"),
        ("LOG_LEVEL", "loud"),
    ];
    let errors = Config::from_env(&given(&vars)).unwrap_err();
    assert_eq!(errors.0.len(), vars.len());
    let text = errors.to_string();
    for (name, value) in vars {
        assert!(text.contains(&format!("{name}={value:?}")), "{text}");
    }
    assert!(text.contains("5 settings"), "{text}");
    assert!(text.contains("0 to 65535"), "{text}");
    assert!(text.contains("GRPC_TIMEOUT=250ms"), "{text}");
    assert!(text.contains("2 CPUs"), "{text}");
}

#[test]
fn values_outside_both_bounds_are_rejected() {
    for (name, values) in [
        ("GRPC_PORT", &["-1", "65536", "80.5", "0x50", "", " "][..]),
        ("ADMIN_PORT", &["on", "65536"]),
        ("ADMIN_HOST", &["localhost", "256.0.0.1"]),
        ("GRPC_TIMEOUT", &["0", "999us", "31s", "250"]),
        ("GRPC_MAX_CONCURRENCY", &["0", "65537"]),
        ("GRPC_KEEP_ALIVE_PERIOD", &["999ms", "61m", "0"]),
        ("MAX_CONNECTION_AGE", &["999ms", "25h"]),
        ("MAX_QTY", &["0", "1001", "-5", "99999999999999999999999"]),
        ("SOLD_OUT_LATCH_MS", &["-1", "999us", "1001", "2s", ""]),
        ("READ_STALENESS_MS", &["-1", "999us", "1001", "2s", "50 ms"]),
        ("HOLD_TTL", &["0", "999ms", "25h", "60"]),
        ("HOLD_TTL_MAX", &["0", "24h1s", "1 day"]),
        ("LATE_COMMIT", &["", "maybe"]),
        ("AWS_REGION", &["Seoul!", "ap northeast"]),
        ("DDB_TABLE_SEATS", &["ab", "a/b", "seats;"]),
        ("DDB_TIMEOUT", &["0", "31s"]),
        ("DDB_MAX_RETRIES", &["11", "many"]),
        ("IDEMPOTENCY_TTL_SECONDS", &["0", "25h", "5 minutes"]),
        ("IDEMPOTENCY_CACHE_SIZE", &["0", "1000001"]),
        ("SHARDS", &["0", "none", "1..1", "1..3"]),
        (
            "MEMBERSHIP",
            &[
                "",
                "on",
                "static",
                "static:1",
                "static:3/3",
                "static:0/0",
                "static:0/65",
                "static:-1/3",
                "static:a/3",
                "static:1/3/4",
            ],
        ),
        ("SPIN_BEFORE_PARK", &["2ms", "50"]),
        ("SHUTDOWN_GRACE", &["11m", "30"]),
        ("SHARD_STALL_LIMIT", &["0", "900ms", "11m"]),
        ("SHARD_STALL_EXIT", &["5s", "4s", "11m"]),
        ("SERVICE_NAME", &["", "a\u{7}b"]),
    ] {
        for value in values {
            let error = error(&[(name, value)]);
            assert_eq!(error.variable, name, "{value:?}");
            assert_eq!(&error.value, value);
            assert!(error.cure.contains(&format!("for example {name}=")), "{error}");
        }
    }
}

#[test]
fn read_staleness_accepts_milliseconds_durations_and_zero() {
    for (text, millis) in [("0", 0), ("1", 1), ("1000", 1_000), ("20ms", 20), ("1s", 1_000)] {
        let staleness = config(&[("READ_STALENESS_MS", text)]).read_staleness;
        assert_eq!(staleness, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn invalid_utf8_is_reported() {
    let env = FixedEnv::on([0]).with("SERVICE_NAME", OsString::from_vec(vec![b'a', 0xff]));
    let ConfigErrors(errors) = Config::from_env(&env).unwrap_err();
    assert_eq!(errors[0].variable, "SERVICE_NAME");
    assert!(errors[0].problem.contains("UTF-8"));
}

#[test]
fn hold_ttl_above_its_maximum_names_the_variable_that_was_set() {
    assert_eq!(error(&[("HOLD_TTL", "16m")]).variable, "HOLD_TTL");
    let error = error(&[("HOLD_TTL_MAX", "30s")]);
    assert_eq!(error.variable, "HOLD_TTL_MAX");
    assert!(error.problem.contains("HOLD_TTL"), "{error}");
    config(&[("HOLD_TTL", "30s"), ("HOLD_TTL_MAX", "30s")]);
}

#[test]
fn one_port_for_two_services_is_refused_unless_free_ones_are_taken() {
    let error = error(&[("METRICS_PORT", "8080")]);
    assert_eq!(error.variable, "METRICS_PORT");
    assert!(error.problem.contains("GRPC_PORT"), "{error}");
    assert!(error.cure.contains("METRICS_PORT=8082"), "{error}");
    config(&[("GRPC_PORT", "0"), ("METRICS_PORT", "0"), ("ADMIN_PORT", "0")]);
}

#[test]
fn of_two_conflicting_settings_the_one_that_was_set_is_named() {
    assert_eq!(error(&[("GRPC_PORT", "8081")]).variable, "GRPC_PORT");
    assert_eq!(error(&[("ADMIN_PORT", "9090")]).variable, "ADMIN_PORT");
    let tables = [("DDB_TABLE_INVENTORY", "inventory_seats")];
    assert_eq!(error(&tables).variable, "DDB_TABLE_INVENTORY");
}

#[test]
fn only_the_invalid_port_is_reported() {
    // Refused, GRPC_PORT stands at 8080 inside: nobody asked for that one.
    let error = error(&[("GRPC_PORT", "x"), ("METRICS_PORT", "8080")]);
    assert_eq!(error.variable, "GRPC_PORT");
}

#[test]
fn two_roles_in_one_table_are_refused() {
    let error = error(&[("DDB_TABLE_IDEMPOTENCY", "inventory")]);
    assert_eq!(error.variable, "DDB_TABLE_IDEMPOTENCY");
    assert!(error.problem.contains("DDB_TABLE_INVENTORY"), "{error}");
}

#[test]
fn commands_that_need_one_setting_do_not_fail_on_another() {
    let env = given(&[("METRICS_PORT", "x")]);
    assert_eq!(grpc_address(&env), Ok("[::]:8080".parse().unwrap()));
    assert!(admin_address(&env).is_ok());
    assert!(store(&env).is_ok());
    assert!(grpc_address(&given(&[("GRPC_PORT", "x")])).is_err());
    let host = given(&[("GRPC_HOST", "127.0.0.1")]);
    assert_eq!(grpc_address(&host), Ok("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(config(&[("GRPC_HOST", "::1")]).grpc_address(), "[::1]:8080".parse().unwrap());
}

#[test]
fn region_comes_from_either_variable_and_an_empty_one_is_unset() {
    let region = |vars: &[(&str, &str)]| config(vars).store.region_text();
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "eu-west-2")]), "eu-west-2 (AWS_DEFAULT_REGION)");
    let empty = [("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "eu-west-2"), ("AWS_PROFILE", "")];
    assert_eq!(region(&empty), "eu-west-2 (AWS_DEFAULT_REGION)");
    assert_eq!(config(&empty).store.profile, None);
}

#[test]
fn service_link_of_kubernetes_is_not_a_port() {
    let config = config(&[("GRPC_PORT", "tcp://10.0.0.1:50051")]);
    assert_eq!(config.grpc_port, 8080);
    assert_eq!(config.warnings[0].variable, "GRPC_PORT");
    assert!(config.warnings[0].reason.contains("enableServiceLinks"), "{:?}", config.warnings);
}

#[test]
fn a_stall_conflict_is_reported_for_the_variable_that_was_set() {
    let error = self::error(&[("SHARD_STALL_LIMIT", "52s")]);
    assert_eq!((error.variable, error.value.as_str()), ("SHARD_STALL_LIMIT", "52s"));
    assert!(error.problem.contains("SHARD_STALL_EXIT, which is 15s"), "{error}");
    // The proposed value is valid.
    for (limit, expected) in [("52s", "=156s"), ("10m", "=0")] {
        let error = self::error(&[("SHARD_STALL_LIMIT", limit), ("SHARD_STALL_EXIT", "20s")]);
        assert_eq!(error.variable, "SHARD_STALL_EXIT");
        assert!(error.cure.ends_with(expected), "{error}");
    }
}
