//! Reads of the store that bypass the engine. No decision may depend on them.

use inventory_core::ids::{EventId, ReservationId};
use inventory_store::{Store, StoreError, StoredRecord};

/// A reservation's record, read with strong consistency; `None` if there is none.
///
/// # Errors
/// Those of the store.
pub(super) async fn reservation(
    store: &Store,
    id: &ReservationId,
) -> Result<Option<StoredRecord>, StoreError> {
    store.read_reservation(id).await
}

/// An event's name; `None` if the event has none or does not exist.
///
/// # Errors
/// Those of the store.
pub(super) async fn event_name(
    store: &Store,
    event: &EventId,
) -> Result<Option<String>, StoreError> {
    let about = store.describe_event(event).await?;
    let name = about.map(|about| about.name);
    Ok(name.filter(|name| !name.is_empty()))
}
