//! `dev`: the server on the embedded store, with tables and a sample event.

use super::{Server, banner, explanation, start_log};
use crate::config::{Config, StoreConfig};
use crate::preflight::{Explanation, explain_query_error, query_at};
use inventory_core::ids::EventId;
use inventory_store::embedded::{EmbeddedEngine, EngineStorage};
use inventory_store::{CreateEventOutcome, NewEvent, Store, StoreError, StoreSettings, tables};

/// The event that the first `dev` creates.
pub(crate) const SAMPLE_EVENT: &str = "evt_2025_1001";

/// Tickets of the sample event.
pub(crate) const SAMPLE_TOTAL: u64 = 10_000;

/// Time-out of one request to a store that syncs every write to disk, which may be slow.
const ENGINE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Starts the embedded database, creates missing tables and the sample event, serves until a signal.
///
/// # Errors
/// An explanation with cause and remedy, if the server cannot start.
pub(crate) fn run_dev(config: Config, data: EngineStorage) -> Result<(), Explanation> {
    let config = config.without_default_collector();
    start_log(&config)?;
    let place = match &data {
        EngineStorage::Memory => "in memory, lost at exit".to_owned(),
        EngineStorage::Dir(dir) => format!("{} (survives restarts)", dir.display()),
    };
    let engine = EmbeddedEngine::start(data).map_err(|error| explanation(error.to_string()))?;
    let store = engine_store(&config, &engine);
    prepare(&store, &config.store, Some((SAMPLE_EVENT, SAMPLE_TOTAL, 1)))?;
    let server = Server::start(&config, store, true)?;
    let sample = (SAMPLE_EVENT, SAMPLE_TOTAL);
    banner::developing(&config, server.addresses(), &place, sample);
    let stopped = server.run_until_signal();
    engine.stop();
    crate::telemetry::log::close();
    stopped.outcome()
}

/// The embedded engine as a store.
pub(crate) fn engine_store(config: &Config, engine: &EmbeddedEngine) -> StoreSettings {
    StoreSettings {
        tables: config.store.tables.clone(),
        attempt_timeout: config.store.attempt_timeout.max(ENGINE_TIMEOUT),
        read_retries: config.store.read_retries,
        ..StoreSettings::local(engine.address())
    }
}

/// Creates missing tables and, if `event` is given, the event; leaves existing ones unchanged.
///
/// # Errors
/// An explanation with cause and remedy.
pub(crate) fn prepare(
    settings: &StoreSettings,
    config: &StoreConfig,
    event: Option<(&str, u64, u16)>,
) -> Result<(), Explanation> {
    let made = query_at(settings.clone(), async |store| {
        tables::create(store).await?;
        if let Some((id, total, stripes)) = event {
            create(store, id, total, stripes).await?;
        }
        Ok(())
    });
    made.map_err(|error| explain_query_error(&error, config))
}

async fn create(store: &Store, id: &str, total: u64, stripes: u16) -> Result<(), StoreError> {
    let event: EventId =
        id.parse().map_err(|error| StoreError::Invalid(format!("event_id {error}")))?;
    match store.create_event(&NewEvent::of_quantity(event, total, stripes)).await? {
        CreateEventOutcome::Created(_)
        | CreateEventOutcome::Existing(_)
        | CreateEventOutcome::Conflict(_) => Ok(()),
    }
}
