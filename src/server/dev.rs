//! `dev`: the same server on the embedded engine, with tables and something to sell.

use std::rc::Rc;

use super::{Server, banner, plain, table_names};
use crate::config::Config;
use crate::domain::ids::EventId;
use crate::embedded::{Data, Engine};
use crate::preflight::{Explanation, Facts, explain_ring_error, explain_store_error};
use crate::runtime;
use crate::store::{CreateEvent, NoObserver, Store, StoreError, StoreSettings, tables};

/// The event that a first `dev` creates.
pub const SAMPLE_EVENT: &str = "evt_2025_1001";

/// Its tickets.
pub const SAMPLE_TOTAL: u64 = 10_000;

/// How long one call may take on an engine that syncs every write to a disk of any speed.
const ENGINE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Starts the engine, makes what is missing, serves until a signal.
///
/// # Errors
/// Whatever keeps the server from starting.
pub fn run_dev(config: Config, data: Data) -> Result<(), Explanation> {
    let place = data.to_string();
    let engine = Engine::start(data).map_err(|error| plain(error.to_string()))?;
    let store = engine_store(&config, &engine);
    prepare(&store, Some((SAMPLE_EVENT, SAMPLE_TOTAL, 1)))?;
    let server = Server::start(&config, store, true)?;
    banner::developing(&config, server.addresses(), &place);
    server.run_until_signal();
    engine.stop();
    Ok(())
}

/// The embedded engine as a store.
pub fn engine_store(config: &Config, engine: &Engine) -> StoreSettings {
    StoreSettings {
        tables: table_names(config),
        attempt_timeout: config.store.attempt_timeout.max(ENGINE_TIMEOUT),
        ..StoreSettings::local(engine.address())
    }
}

/// Makes the tables and, if wanted, an event; what is there already stays as it is.
///
/// # Errors
/// What the engine or the ring says.
pub fn prepare(
    settings: &StoreSettings,
    event: Option<(&str, u64, u16)>,
) -> Result<(), Explanation> {
    let made = runtime::run_here(async {
        let store = Store::connect(settings.clone(), Rc::new(NoObserver))
            .await
            .map_err(|error| explain_store_error(&error))?;
        tables::create(&store)
            .await
            .map_err(|error| plain(format!("the tables cannot be made: {error}")))?;
        if let Some((id, total, stripes)) = event {
            create(&store, id, total, stripes)
                .await
                .map_err(|error| plain(format!("event {id} cannot be made: {error}")))?;
        }
        Ok(())
    });
    made.map_err(|error| explain_ring_error(&error, &Facts::read(), 1))?
}

async fn create(store: &Store, id: &str, total: u64, stripes: u16) -> Result<(), StoreError> {
    let event: EventId = id
        .parse()
        .map_err(|error| StoreError::Invalid(format!("event_id {error}")))?;
    match store.create_event(&event, total, stripes).await? {
        CreateEvent::Created(_) | CreateEvent::Existing(_) | CreateEvent::Conflict(_) => Ok(()),
    }
}
