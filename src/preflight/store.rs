//! The checks of the store: it is there, takes transactions, has the tables.
//!
//! The same look serves `check`, `tables check` and the start of a server.

use std::rc::Rc;

use super::explain::{
    Explanation, explain_missing_table, explain_ring_error, explain_store_unreachable,
};
use super::facts::Facts;
use super::{Check, Verdict};
use crate::config::StoreConfig;
use crate::runtime;
use crate::store::tables::{self, Difference};
use crate::store::{
    ConnectError, CredentialSource, NoObserver, Store, StoreError, StoreSettings, TableNames,
};

/// The store that `serve` and the commands use: endpoint and credentials as the AWS SDK finds them.
pub fn production_settings(store: &StoreConfig) -> StoreSettings {
    StoreSettings {
        region: store.region.clone(),
        endpoint: None,
        credentials: CredentialSource::Environment,
        ca_bundle: None,
        tables: table_names(store),
        attempt_timeout: store.attempt_timeout,
    }
}

/// The tables as configured.
pub fn table_names(store: &StoreConfig) -> TableNames {
    TableNames {
        inventory: store.tables.inventory.clone(),
        seats: store.tables.seats.clone(),
        idempotency: store.tables.idempotency.clone(),
    }
}

/// Runs `work` with a store of its own, on a ring of its own, on this thread.
///
/// # Errors
/// Why there is no ring or no store, or what `work` says.
pub fn with_store<T>(
    settings: &StoreSettings,
    work: impl AsyncFnOnce(&Store) -> Result<T, Explanation>,
) -> Result<T, Explanation> {
    let worked = runtime::run_here(async {
        let store = Store::connect(settings.clone(), Rc::new(NoObserver))
            .await
            .map_err(|error| explain_store_error(&error, settings))?;
        work(&store).await
    });
    worked.map_err(|error| explain_ring_error(&error, &Facts::read(), 1))?
}

/// Connects, sends a transaction that cannot apply, and compares the tables.
///
/// # Errors
/// Why the store cannot be used at all.
pub fn look(settings: &StoreSettings) -> Result<Vec<Difference>, Explanation> {
    with_store(settings, async |store| {
        // The tables first: a missing one is then told with all that differs.
        let differences = tables::check(store).await;
        let differences = differences.map_err(|error| explain_call(&error, settings))?;
        if differences.iter().all(|difference| !difference.fatal) {
            let probed = store.probe().await;
            probed.map_err(|error| explain_store_error(&error, settings))?;
        }
        Ok(differences)
    })
}

/// As [`look`], and an error if the server could not run on what was found. What it can run on,
/// but should not, is returned.
///
/// # Errors
/// What is wrong with the store or its tables.
pub fn demand(settings: &StoreSettings) -> Result<Vec<Difference>, Explanation> {
    let differences = look(settings)?;
    let fatal: Vec<&Difference> = differences.iter().filter(|d| d.fatal).collect();
    if fatal.is_empty() {
        return Ok(differences);
    }
    let mut cures: Vec<String> = fatal.iter().map(|d| d.cure.clone()).collect();
    cures.dedup();
    Err(Explanation {
        wrong: fatal
            .iter()
            .map(|d| format!("table {}: {}", d.table, d.what))
            .collect::<Vec<_>>()
            .join("; "),
        facts: Some(format!("AWS_REGION={}", settings.region)),
        cures,
    })
}

/// The lines of `check` about the store.
pub(super) fn checks(settings: &StoreSettings) -> Vec<Check> {
    let differences = match look(settings) {
        Ok(differences) => differences,
        Err(why) => {
            return vec![Check {
                name: "store",
                verdict: Verdict::Wrong,
                said: why.wrong,
                cures: why.cures,
            }];
        }
    };
    let place = settings.endpoint.as_deref().unwrap_or("DynamoDB");
    let mut checks = vec![Check::ok(
        "store",
        format!("{place} in {} answers", settings.region),
    )];
    if differences.is_empty() {
        let tables = &settings.tables;
        let names = [&tables.inventory, &tables.seats, &tables.idempotency];
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        checks.push(Check::ok(
            "tables",
            format!("{} are as they should be", names.join(", ")),
        ));
    }
    checks.extend(differences.into_iter().map(|difference| Check {
        name: "tables",
        verdict: if difference.fatal {
            Verdict::Wrong
        } else {
            Verdict::Note
        },
        said: format!("{}: {}", difference.table, difference.what),
        cures: vec![difference.cure],
    }));
    checks
}

/// Why a store cannot be used, with what cures it.
pub fn explain_store_error(error: &ConnectError, settings: &StoreSettings) -> Explanation {
    match error {
        ConnectError::Unreachable { store, why } => {
            explain_store_unreachable(store, &settings.region, why)
        }
        ConnectError::TableMissing { table, .. } => {
            let variable = [
                ("DDB_TABLE_INVENTORY", &settings.tables.inventory),
                ("DDB_TABLE_SEATS", &settings.tables.seats),
                ("DDB_TABLE_IDEMPOTENCY", &settings.tables.idempotency),
            ]
            .into_iter()
            .find(|(_, name)| *name == table)
            .map_or("DDB_TABLE_*", |(variable, _)| variable);
            explain_missing_table(variable, table, &settings.region)
        }
        other => Explanation {
            wrong: other.to_string(),
            facts: Some(format!("AWS_REGION={}", settings.region)),
            cures: Vec::new(),
        },
    }
}

/// Why a call to the store failed.
pub fn explain_call(error: &StoreError, settings: &StoreSettings) -> Explanation {
    match error {
        StoreError::Unavailable(why) => {
            let place = settings.endpoint.as_deref().unwrap_or("its endpoint");
            explain_store_unreachable(place, &settings.region, why)
        }
        other => Explanation {
            wrong: other.to_string(),
            facts: Some(format!("AWS_REGION={}", settings.region)),
            cures: Vec::new(),
        },
    }
}
