//! Variables that are set and have no effect: names near a setting, with a prefix of this server, or of standards that this
//! server supports in part.
//!
//! Silent about what containers and shells usually have: service links of Kubernetes, variables of gRPC libraries.

use std::collections::BTreeSet;

use super::env::{Env, is_service_link};
use super::otel;
use super::reader::SettingWarning;
use super::variables::{READ_BY_THE_SDK, READ_BY_THE_STORE, VARIABLES};

/// Prefixes that only settings of this server have.
const PREFIXES: [&str; 6] = ["DDB_", "GRPC_", "HOLD_", "IDEMPOTENCY_", "LOG_CALLS_", "SHARD_"];

/// Beginnings of variables of gRPC libraries, which a shell may have.
const GRPC_LIBRARIES: [&str; 17] = [
    "GRPC_ABORT_",
    "GRPC_ALTS_",
    "GRPC_ARENA_",
    "GRPC_BINARY_",
    "GRPC_CLIENT_",
    "GRPC_CPP_",
    "GRPC_DEFAULT_",
    "GRPC_DNS_",
    "GRPC_ENABLE_",
    "GRPC_EXPERIMENT",
    "GRPC_GO_",
    "GRPC_POLL_",
    "GRPC_PYTHON_",
    "GRPC_SSL_",
    "GRPC_TRACE",
    "GRPC_VERBOSITY",
    "GRPC_XDS_",
];

/// Variables of the AWS SDKs that this server does not follow, and what it has instead.
const NOT_FOLLOWED: [(&str, &str); 4] = [
    ("AWS_DEFAULT_PROFILE", "no effect on this server; see AWS_PROFILE"),
    ("AWS_MAX_ATTEMPTS", "no effect on this server; see DDB_MAX_RETRIES"),
    ("AWS_RETRY_MODE", "no effect on this server, which decides itself what is retried"),
    ("AWS_DEFAULTS_MODE", "no effect on this server; see DDB_TIMEOUT"),
];

/// Length from which a name may differ in two characters.
const TWO_EDITS_FROM: usize = 8;

/// Warnings about variables of `env` that have no effect.
pub(super) fn warnings(env: &impl Env) -> Vec<SettingWarning> {
    let known: BTreeSet<String> = known().collect();
    let is_set =
        |name: &str| env.var(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty());
    let names: BTreeSet<String> =
        env.names().into_iter().filter(|name| !known.contains(name) && is_set(name)).collect();
    let mut warnings = Vec::new();
    let mut unsupported = Vec::new();
    for name in &names {
        let value = env.var(name).unwrap_or_default();
        let value = value.to_string_lossy();
        let own = || near(name, &known).or_else(|| prefixed(name));
        if let Some((_, reason)) = NOT_FOLLOWED.iter().find(|(other, _)| other == name) {
            warnings.push(warning(name, (*reason).to_owned()));
        } else if name.starts_with("OTEL_") {
            match near(name, &known) {
                Some(reason) => warnings.push(warning(name, reason)),
                None if otel_has_no_effect(name, value.trim()) => unsupported.push(name.as_str()),
                None => {}
            }
        } else if !is_foreign(name, &value)
            && let Some(reason) = own()
        {
            warnings.push(warning(name, reason));
        }
    }
    if !unsupported.is_empty() {
        let reason = "not supported by this server: no effect".to_owned();
        warnings.push(warning(&unsupported.join(", "), reason));
    }
    warnings
}

fn warning(variable: &str, reason: String) -> SettingWarning {
    SettingWarning { variable: variable.to_owned(), reason }
}

/// Names of all variables that this process reads.
fn known() -> impl Iterator<Item = String> {
    let own = VARIABLES.iter().flat_map(|group| group.variables).map(|v| v.name());
    let sdk =
        READ_BY_THE_SDK.iter().chain(READ_BY_THE_STORE).flat_map(|(names, _)| names.split(", "));
    let exporter = otel::exporter_names();
    let of_traces = exporter.map(otel::traces_name);
    own.chain(sdk).chain(exporter).map(str::to_owned).chain(of_traces)
}

/// The known name that `name` probably means.
fn near(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let edits = if name.len() < TWO_EDITS_FROM { 1 } else { 2 };
    let is_near = |other: &&String| {
        other.as_bytes().first() == name.as_bytes().first()
            && other.len().abs_diff(name.len()) <= edits
            && strsim::osa_distance(other, name) <= edits
    };
    let nearest = known.iter().filter(is_near).min_by_key(|o| strsim::osa_distance(o, name));
    // The name with a unit or a word less or more: READ_STALENESS, HOLD_TTL_SECONDS.
    let extends = |long: &str, short: &str| {
        short.contains('_') && long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
    };
    let own = || known.iter().find(|other| extends(name, other) || extends(other, name));
    let is_standard = name.starts_with("OTEL_") || name.starts_with("AWS_");
    let meant = nearest.or_else(|| if is_standard { None } else { own() })?;
    Some(format!("no setting has this name; did you mean {meant}?"))
}

fn prefixed(name: &str) -> Option<String> {
    let prefix = PREFIXES.iter().find(|prefix| name.starts_with(**prefix))?;
    let all = VARIABLES.iter().flat_map(|group| group.variables).map(|v| v.name());
    let like: Vec<&str> = all.filter(|other| other.starts_with(prefix)).collect();
    Some(format!("no setting has this name; with this prefix there are {}", like.join(", ")))
}

/// Whether Kubernetes or a library sets the variable.
fn is_foreign(name: &str, value: &str) -> bool {
    let is_link_part = |name: &str| {
        let mut parts = name.rsplit("_PORT_").next().unwrap_or_default().split('_');
        let is_port = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
        is_port && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || is_link_part(name)
        || is_service_link(name, value)
        || GRPC_LIBRARIES.iter().any(|library| name.starts_with(library))
}

/// Whether a variable of OpenTelemetry asks for something that this server does not do.
fn otel_has_no_effect(name: &str, value: &str) -> bool {
    let all = |allowed: &[&str]| value.split(',').all(|part| allowed.contains(&part.trim()));
    match name {
        "OTEL_PROPAGATORS" => !all(&["tracecontext", "baggage"]),
        "OTEL_METRICS_EXPORTER" => !all(&["none", "prometheus"]),
        "OTEL_LOGS_EXPORTER" => !all(&["none"]),
        // Parts of OTEL_RESOURCE_ATTRIBUTES, which the operator for Kubernetes sets.
        _ => !name.starts_with("OTEL_RESOURCE_ATTRIBUTES_"),
    }
}
