//! The checks of the store: it answers, supports transactions, and has the required tables.

use std::io;
use std::rc::Rc;

use inventory_runtime::timeout;

use super::explain::{Explanation, explain_ring_error};
use super::facts::HostFacts;
use super::{CheckResult, PreflightCheck, members};
use crate::config::StoreConfig;
use crate::limits::PREFLIGHT_STORE_TIMEOUT;
use crate::telemetry::store_health::is_skewed;
use inventory_store::tables::{self, TableDifference};
use inventory_store::{
    AwsAccess, ClockSkew, NoObserver, Store, StoreConnectError, StoreError, StoreRegion,
    StoreSettings,
};

/// Why a command got no answer from the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreQueryError {
    #[error("no executor for the store: {0}")]
    Ring(#[from] io::Error),
    #[error(transparent)]
    Connect(#[from] StoreConnectError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Evaluates the AWS configuration, once for the process. The region in use becomes that of `config`.
///
/// # Errors
/// What is missing or invalid, with the fix.
pub(crate) fn resolve_store(config: &mut StoreConfig) -> Result<StoreSettings, Explanation> {
    let settings = config.settings().resolve();
    let settings = settings.map_err(|error| explain_connect_error(&error, config))?;
    config.region = settings.region.clone();
    Ok(settings)
}

/// Connects once, on an executor of its own on this thread, and runs `work` with the store.
///
/// # Errors
/// No ring, no connection to the store, or the error of `work`.
pub(crate) fn query_at<T>(
    settings: StoreSettings,
    work: impl AsyncFnOnce(&Store) -> Result<T, StoreQueryError>,
) -> Result<T, StoreQueryError> {
    inventory_runtime::run_unpinned(async {
        let store = Store::connect(settings, Rc::new(NoObserver)).await?;
        work(&store).await
    })?
}

/// Checks what a start needs of the store: it answers, supports transactions, and has usable tables. Returns
/// differences with which the server can run.
///
/// # Errors
/// The explanation, with cause and fix.
pub(crate) fn require_store(
    settings: &StoreSettings,
    config: &StoreConfig,
) -> Result<Vec<TableDifference>, Explanation> {
    let asked = query_at(settings.clone(), async |store| {
        match store.probe().await {
            // The check of the tables reports what is missing.
            Ok(()) | Err(StoreConnectError::TableMissing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(tables::check(store).await?)
    });
    let differences = asked.map_err(|error| explain_query_error(&error, config))?;
    let fatal: Vec<&TableDifference> = differences.iter().filter(|d| d.fatal).collect();
    if fatal.is_empty() {
        return Ok(differences);
    }
    let texts: Vec<String> = fatal
        .iter()
        .map(|difference| format!("{}: {}", difference.table, difference.what))
        .collect();
    let mut fixes: Vec<String> = fatal.iter().map(|d| d.fix.clone()).collect();
    fixes.dedup();
    Err(Explanation {
        wrong: texts.join("; "),
        facts: Some(format!("region {}", config.region_text())),
        fixes,
    })
}

/// Checks of the store. Without a ring the store cannot be reached; another check reports that.
pub(super) fn checks(
    config: &StoreConfig,
    has_ring: bool,
    reads_members: bool,
) -> Vec<PreflightCheck> {
    if !has_ring {
        return vec![PreflightCheck {
            name: "DynamoDB",
            verdict: CheckResult::Note,
            finding: "not asked: no io_uring ring could be created".to_owned(),
            fixes: Vec::new(),
        }];
    }
    let mut config = config.clone();
    let settings = match resolve_store(&mut config) {
        Ok(settings) => settings,
        Err(explanation) => return vec![PreflightCheck::wrong("AWS", explanation)],
    };
    let config = &config;
    let mut checks = vec![aws_check(config, &settings)];
    let asked = inventory_runtime::run_unpinned(timeout(PREFLIGHT_STORE_TIMEOUT, async {
        let store = Store::connect(settings, Rc::new(NoObserver)).await?;
        let place = match store.probe().await {
            // The check of the tables reports what is missing.
            Ok(()) | Err(StoreConnectError::TableMissing { .. }) => store.endpoint().to_owned(),
            Err(error) => return Err(error.into()),
        };
        let differences = tables::check(&store).await?;
        // Without the table there is no item; the tables report that.
        let reads_members = reads_members && !differences.iter().any(|d| d.fatal);
        let members = match reads_members {
            true => Some(store.read_members().await),
            false => None,
        };
        Ok((place, differences, store.clock_skew(), members))
    }));
    let outcome = match asked {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(StoreQueryError::Store(StoreError::Unavailable(format!(
            "no answer within {PREFLIGHT_STORE_TIMEOUT:?}"
        )))),
        Err(error) => Err(StoreQueryError::Ring(error)),
    };
    match outcome {
        Ok((place, differences, skew, members)) => {
            checks.push(PreflightCheck::ok("DynamoDB", format!("{place} answers")));
            checks.extend(skew.map(clock_check));
            checks.extend(table_checks(config, differences));
            checks.extend(members.map(|read| members::check(read, skew)));
        }
        Err(error) => {
            let explanation = explain_query_error(&error, config);
            checks.push(PreflightCheck::wrong("DynamoDB", explanation));
        }
    }
    checks
}

/// Region, account and proxy of the AWS configuration.
fn aws_check(config: &StoreConfig, settings: &StoreSettings) -> PreflightCheck {
    let aws = settings.aws();
    let account = aws.and_then(|aws| aws.account()).map(|account| format!(", account {account}"));
    let proxy = aws.and_then(AwsAccess::proxy);
    let proxy = proxy.map(|proxy| format!(", through the proxy {proxy}"));
    let mut check = PreflightCheck::ok(
        "AWS",
        format!(
            "region {}{}{}",
            config.region_text(),
            account.unwrap_or_default(),
            proxy.unwrap_or_default()
        ),
    );
    if settings.region.as_ref().is_none_or(|region| *region == StoreRegion::default()) {
        check.verdict = CheckResult::Note;
        check.fixes.push("no region is configured: set AWS_REGION".to_owned());
    }
    check
}

/// The offset of the clock, with its error: the few answers of a check leave up to half a second.
fn clock_check(skew: ClockSkew) -> PreflightCheck {
    let side = if skew.ahead < 0.0 { "behind" } else { "ahead of" };
    let ClockSkew { ahead, error } = skew;
    let finding = format!("{:.2} s {side} the store's, ± {error:.2} s", ahead.abs());
    match is_skewed(skew) {
        false => PreflightCheck::ok("clock", finding),
        true => PreflightCheck {
            name: "clock",
            verdict: CheckResult::Note,
            finding: format!("{finding}; holds end that much early or late"),
            fixes: vec!["synchronise the clock: chrony, systemd-timesyncd or NTP".to_owned()],
        },
    }
}

fn table_checks(config: &StoreConfig, differences: Vec<TableDifference>) -> Vec<PreflightCheck> {
    if differences.is_empty() {
        let names = &config.tables;
        let finding = format!("{}, {}, {}", names.inventory, names.seats, names.idempotency);
        return vec![PreflightCheck::ok("tables", finding)];
    }
    let checks = differences.into_iter().map(|difference| PreflightCheck {
        name: "tables",
        verdict: if difference.fatal { CheckResult::Wrong } else { CheckResult::Note },
        finding: format!("{}: {}", difference.table, difference.what),
        fixes: vec![difference.fix],
    });
    checks.collect()
}

/// Why the store cannot be used, with the settings that lead to it.
pub(crate) fn explain_connect_error(
    error: &StoreConnectError,
    config: &StoreConfig,
) -> Explanation {
    let region = config.region_name();
    match error {
        StoreConnectError::Executor(error) => explain_ring_error(error, &HostFacts::read(), 1),
        StoreConnectError::Unreachable { store, why } => {
            super::explain_store_unreachable(store, region, why)
        }
        StoreConnectError::TableMissing { store, table } => {
            super::explain_missing_table(config.variable_of_table(table), table, store)
        }
        StoreConnectError::Credentials { why } => Explanation {
            wrong: format!("there are no AWS credentials for DynamoDB: {why}"),
            facts: None,
            fixes: vec![
                "give the pod or instance a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
                    .to_owned(),
                "to run without DynamoDB: inventory-api dev".to_owned(),
            ],
        },
        StoreConnectError::UnsupportedSource { profile, key } => Explanation {
            wrong: format!(
                "profile {profile:?} gets its credentials by {key}, which this server does not support"
            ),
            facts: None,
            fixes: vec![
                format!(
                    "add a profile with credential_process = aws configure export-credentials \
                     --profile {profile} --format process, and set AWS_PROFILE to it"
                ),
                "or set the variables that `aws configure export-credentials --format env` prints"
                    .to_owned(),
            ],
        },
        // These errors contain both the problem and the fix in one sentence.
        StoreConnectError::Endpoint { .. }
        | StoreConnectError::CaBundle(_)
        | StoreConnectError::Proxy(_)
        | StoreConnectError::NoTransactions { .. }
        | StoreConnectError::Refused { .. } => {
            Explanation { wrong: error.to_string(), facts: None, fixes: Vec::new() }
        }
    }
}

/// As [`explain_connect_error`], for everything that [`query`] can fail with.
pub(crate) fn explain_query_error(error: &StoreQueryError, config: &StoreConfig) -> Explanation {
    match error {
        StoreQueryError::Ring(error) => explain_ring_error(error, &HostFacts::read(), 1),
        StoreQueryError::Connect(error) => explain_connect_error(error, config),
        StoreQueryError::Store(error) => Explanation {
            wrong: error.to_string(),
            facts: None,
            fixes: vec![format!(
                "check the network, the permissions and the region (AWS_REGION), which is {}",
                config.region_text()
            )],
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{self, FixedEnv};

    fn config() -> StoreConfig {
        config::store(&FixedEnv::on([0]).with("AWS_REGION", "eu-west-1")).unwrap()
    }

    #[test]
    fn every_store_error_is_explained_with_a_fix() {
        let store = || "http://db:8000".to_owned();
        let why = || "because".to_owned();
        for (error, needles) in [
            (
                StoreConnectError::Unreachable { store: store(), why: why() },
                ["http://db:8000", "because", "AWS_REGION=eu-west-1"],
            ),
            (
                StoreConnectError::TableMissing {
                    store: store(),
                    table: "inventory_seats".to_owned(),
                },
                ["DDB_TABLE_SEATS", "inventory_seats", "tables create"],
            ),
            (StoreConnectError::Credentials { why: why() }, ["because", "AWS_PROFILE", "role"]),
            (
                StoreConnectError::NoTransactions { store: store(), why: why() },
                ["TransactWriteItems", "because", "use DynamoDB"],
            ),
        ] {
            let text = explain_connect_error(&error, &config()).to_string();
            for needle in needles {
                assert!(text.contains(needle), "no {needle:?} in:\n{text}");
            }
        }
    }

    #[test]
    fn fatal_difference_is_an_error_and_any_other_a_note() {
        let difference = |fatal| TableDifference {
            table: "inventory".to_owned(),
            what: "differs".to_owned(),
            fix: "mend it".to_owned(),
            fatal,
        };
        let checks = table_checks(&config(), vec![difference(true), difference(false)]);
        assert_eq!(checks[0].verdict, CheckResult::Wrong);
        assert_eq!(checks[1].verdict, CheckResult::Note);
        assert_eq!(checks[0].fixes, ["mend it"]);
        assert_eq!(table_checks(&config(), Vec::new())[0].verdict, CheckResult::Ok);
    }
}
