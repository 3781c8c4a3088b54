//! Fuzz target of the settings: an environment, against [`Config::from_env`]. Compiled for tests, which replay the corpus,
//! and for the programs in `tests/fuzz`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use http::HeaderName;

use super::variables::VARIABLES;
use super::{Config, ConfigErrors, Env as _, FixedEnv, otel};
use crate::limits;

/// CPUs of the environment: with a gap, so that a range may name one that is missing.
const CPUS: [usize; 4] = [0, 1, 2, 5];

/// A shorter value may occur in an error by chance.
const SECRET_BYTES_MIN: usize = 12;

/// Lines `NAME=VALUE`, as in a file of `docker run --env-file`. A name that is a number stands for the variable with that
/// number, so that the fuzzer need not find names.
pub fn settings(input: &[u8]) {
    let names: Vec<String> = variable_names().collect();
    let mut env = FixedEnv::on(CPUS);
    let mut set = BTreeSet::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let name = String::from_utf8_lossy(&line[..at]);
        let name = match name.parse::<usize>() {
            Ok(number) => names[number % names.len()].clone(),
            Err(_) => name.into_owned(),
        };
        // No process has a variable whose name or value has a NUL.
        if !line.contains(&0) && !name.is_empty() {
            env = env.with(&name, OsString::from_vec(line[at + 1..].to_vec()));
            set.insert(name);
        }
    }
    match Config::from_env(&env) {
        Ok(config) => {
            assert_within_limits(&config);
            // Headers of an export may be secrets.
            let shown = config.warnings.iter().map(ToString::to_string).collect();
            assert_no_secret(&env, shown);
            assert_eq!(Ok(config), Config::from_env(&env), "two readings of one environment");
        }
        Err(errors) => assert_helpful(&errors, &env, &set),
    }
}

fn variable_names() -> impl Iterator<Item = String> {
    let own = VARIABLES.iter().flat_map(|group| group.variables).map(|one| one.name().to_owned());
    let of_traces = otel::exporter_names().map(otel::traces_name);
    own.chain(of_traces)
}

fn assert_within_limits(config: &Config) {
    let within = |what: &str, holds: bool| assert!(holds, "{what}: {config:?}");
    within(
        "call timeout",
        (limits::CONFIGURED_SPAN_MIN..=limits::CALL_TIMEOUT_MAX).contains(&config.call_timeout),
    );
    within(
        "streams",
        (1..=limits::STREAMS_PER_CONNECTION_MAX).contains(&config.streams_per_connection),
    );
    within(
        "keep-alive",
        (limits::KEEP_ALIVE_PERIOD_MIN..=limits::KEEP_ALIVE_PERIOD_MAX)
            .contains(&config.keep_alive_period),
    );
    let ages = limits::CONNECTION_AGE_MIN..=limits::CONNECTION_AGE_MAX;
    within("connection age", config.connection_age.is_none_or(|age| ages.contains(&age)));
    within("quantity", (1..=limits::QTY_MAX_CEILING).contains(&config.max_qty));
    within("sold-out latch", config.sold_out_latch <= limits::SOLD_OUT_LATCH_MAX);
    within("staleness", config.read_staleness <= limits::READ_STALENESS_MAX);
    within(
        "holds",
        limits::HOLD_TTL_MIN <= config.hold_ttl
            && config.hold_ttl <= config.hold_ttl_max
            && config.hold_ttl_max <= limits::HOLD_TTL_CEILING,
    );
    let store = &config.store;
    within("attempt timeout", store.attempt_timeout <= limits::STORE_ATTEMPT_TIMEOUT_MAX);
    within("retries", store.read_retries <= limits::STORE_READ_RETRIES_MAX);
    let tables = [&store.tables.inventory, &store.tables.seats, &store.tables.idempotency];
    let lengths = limits::TABLE_NAME_BYTES_MIN..=limits::TABLE_NAME_BYTES_MAX;
    within("table names", tables.iter().all(|name| lengths.contains(&name.len())));
    within("distinct tables", tables.iter().collect::<BTreeSet<_>>().len() == tables.len());
    within("answers", (1..=limits::ANSWERS_CACHED_MAX).contains(&config.answers_cached));
    let cpus = &config.shard_cpus;
    within("shards", !cpus.is_empty() && cpus.is_sorted_by(|a, b| a < b));
    within("allowed CPUs", cpus.iter().all(|cpu| CPUS.contains(cpu)));
    within("spin", config.spin_before_park <= limits::SPIN_BEFORE_PARK_MAX);
    within("grace", config.shutdown_grace <= limits::SHUTDOWN_GRACE_MAX);
    within("stalls", config.shard_stall_exit.is_none_or(|exit| exit > config.shard_stall_limit));
    within("log ratio", (0.0..=1.0).contains(&config.log_calls_ratio));
    within("sampling ratio", (0.0..=1.0).contains(&config.otel.ratio));
    within("service name", (1..=limits::LABEL_BYTES_MAX).contains(&config.service_name.len()));
    let admin_port = config.admin.map_or(0, |address| address.port());
    let ports = [config.grpc_port, config.metrics_port, admin_port];
    let fixed: Vec<u16> = ports.into_iter().filter(|port| *port != 0).collect();
    within("distinct ports", fixed.iter().collect::<BTreeSet<_>>().len() == fixed.len());
    let is_open = config.admin.is_some_and(|address| !address.ip().is_loopback());
    within("open admin port", !is_open || config.admin_access.authenticates());
    for tls in [&config.grpc_tls, &config.admin_access.tls].into_iter().flatten() {
        within("TLS files", tls.certificate.path != Path::new("") && tls.key.path != Path::new(""));
        within(
            "allowed clients",
            tls.allowed_clients.is_empty() || tls.client_authorities.is_some(),
        );
    }
}

/// Each error names a variable, most often one that is set, and shows a valid value.
fn assert_helpful(errors: &ConfigErrors, env: &FixedEnv, set: &BTreeSet<String>) {
    assert!(!errors.0.is_empty(), "no error");
    let known: BTreeSet<String> = variable_names().collect();
    for error in &errors.0 {
        let text = error.to_string();
        assert!(known.contains(error.variable), "no variable: {text}");
        assert!(set.contains(error.variable), "an error of a variable that is not set: {text}");
        assert!(error.cure.starts_with("want "), "no cure: {text}");
        assert!(!text.chars().any(char::is_control), "a control character: {text:?}");
    }
    assert_no_secret(env, errors.0.iter().map(ToString::to_string).collect());
}

/// No text shows the headers of an export, also not a token that stands where the name of a header should be.
fn assert_no_secret(env: &FixedEnv, shown: Vec<String>) {
    let general = super::variables::OTEL_EXPORTER_OTLP_HEADERS.name;
    for name in [general.to_owned(), otel::traces_name(general)] {
        let value = env.var(&name).unwrap_or_default();
        let value = value.to_string_lossy();
        for member in value.split(',') {
            let (key, value) = member.split_once('=').unwrap_or((member, ""));
            let is_name = key.trim().parse::<HeaderName>().is_ok();
            let secrets = [if is_name { "" } else { key.trim() }, value.trim()];
            for secret in secrets.into_iter().filter(|text| text.len() >= SECRET_BYTES_MIN) {
                // Other variables may have the same value and show it.
                let prefix = format!("{name}: ");
                let mut of_headers = shown.iter().filter(|text| text.starts_with(&prefix));
                let leak = of_headers.find(|text| text.contains(secret));
                assert_eq!(leak, None, "a warning shows a part of the headers");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_environments_gives_settings_within_the_limits_or_helpful_errors() {
        inventory_testkit::corpus::replay("settings", super::settings);
    }
}
