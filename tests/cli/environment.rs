//! Standard variables, as the program itself takes them: OpenTelemetry, AWS, near misses.

use inventory_testkit::server::{ServerCommand, TestServer};

use crate::{FAILED, OK, assert_has, run_with};

fn dev(variables: &[(&str, &str)]) -> TestServer {
    let command = ServerCommand::dev_in_memory();
    variables.iter().fold(command, |command, (name, value)| command.env(name, value)).start()
}

/// The names of the variables in the warnings at start.
fn ignored(server: &TestServer) -> Vec<String> {
    assert!(server.log.wait_for(|log| log.contains("\"msg\":\"serving\"")));
    let log = server.log.text();
    let lines = log.lines().filter(|line| line.contains("\"msg\":\"setting ignored\""));
    lines
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["variable"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn variables_of_opentelemetry_never_stop_the_start() {
    let server = dev(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1"),
        ("OTEL_TRACES_SAMPLER", ""),
        ("OTEL_SDK_DISABLED", ""),
        ("OTEL_TRACES_EXPORTER", "otlp,console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ]);
    assert_eq!(ignored(&server), ["OTEL_TRACES_EXPORTER"]);
    let server = dev(&[
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x"),
        ("OTEL_BSP_SCHEDULE_DELAY", "500"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "5"),
    ]);
    let mut names = ignored(&server);
    names.sort();
    let expected = [
        "OTEL_BSP_SCHEDULE_DELAY, OTEL_SPAN_LINK_COUNT_LIMIT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER",
    ];
    assert_eq!(names, expected);
    let server = dev(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem"),
        ("OTEL_TRACES_SAMPLER", "always_on"),
    ]);
    assert!(server.log.wait_for(|log| log.contains("\"msg\":\"spans are not exported\"")));
}

#[test]
fn names_near_a_setting_are_warnings() {
    let server = dev(&[
        ("GRPC_PROT", "1"),
        ("HOLD_TLL", "5m"),
        ("DDB_TABLE_RESERVATIONS", "x"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("METRICS_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
    ]);
    assert_eq!(ignored(&server), ["DDB_TABLE_RESERVATIONS", "GRPC_PROT", "HOLD_TLL"]);
    assert_has(&server.log.text(), &["did you mean GRPC_PORT?", "did you mean HOLD_TTL?"]);
}

#[test]
fn revision_is_in_log_and_metrics_and_the_version_can_be_replaced() {
    let server = dev(&[("SERVICE_VERSION", "2025.10")]);
    assert_eq!(ignored(&server), [] as [&str; 0]);
    assert_has(&server.log.text(), &["\"revision\":\"", env!("CARGO_PKG_VERSION")]);
    let top = run_with(&["top", "--once", "--json"], &[("METRICS_PORT", port(&server.metrics))]);
    assert_eq!(top.code, OK, "{}", top.err);
    let seen: serde_json::Value = serde_json::from_str(&top.out).unwrap();
    assert_eq!(seen["version"], "2025.10");
    assert!(seen["revision"].as_str().is_some_and(|revision| !revision.is_empty()), "{seen}");
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}

#[test]
fn tables_create_prints_account_region_and_endpoint_first() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    // Nothing listens there: what is printed is printed before the first request.
    let profile = "[profile sale]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:1\n\
                   aws_access_key_id = ASIAQNZGKIQY56JQ7WML\naws_secret_access_key = s\n";
    std::fs::write(&config, profile).unwrap();
    let variables = [("AWS_CONFIG_FILE", config.to_str().unwrap()), ("AWS_PROFILE", "sale")];
    let created = run_with(&["tables", "create"], &variables);
    assert_eq!(created.code, FAILED);
    let expected = "account   029608264753\nregion    eu-west-1 (profile sale)\nendpoint  http://127.0.0.1:1\n";
    assert_eq!(created.out, expected);
}

#[test]
fn profile_that_does_not_exist_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    std::fs::write(&config, "[profile sale]\nregion = eu-west-1\n").unwrap();
    let variables = [
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_PROFILE", "sail"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    for args in [&["check"][..], &["tables", "check"]] {
        let ran = run_with(args, &variables);
        assert_eq!(ran.code, FAILED);
        let text = ran.out + &ran.err;
        assert_has(&text, &["the profile \"sail\" is not in the AWS configuration files"]);
    }
}

#[test]
fn check_names_what_is_not_supported() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    std::fs::write(&config, "[default]\nlogin_session = arn:aws:iam::012345678901:user/a\n")
        .unwrap();
    let variables = [
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_MAX_ATTEMPTS", "5"),
        ("GRPC_PROT", "1"),
        ("SHARDS", "1"),
        ("GRPC_PORT", "0"),
        ("METRICS_PORT", "0"),
        ("ADMIN_PORT", "0"),
    ];
    let ran = run_with(&["check"], &variables);
    assert_eq!(ran.code, FAILED);
    for needle in ["login_session", "export-credentials", "AWS_MAX_ATTEMPTS", "GRPC_PROT"] {
        assert_has(&ran.out, &[needle]);
    }
}
