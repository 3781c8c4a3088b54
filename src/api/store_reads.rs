//! What a contract reads from the store past the domain: nothing is decided on it.

use inventory_core::ids::{EventId, ReservationId};
use inventory_store::{Store, StoreError, StoredRecord};

/// A reservation's record, read strongly; `None`: there is none.
///
/// # Errors
/// What the store says.
pub(super) async fn reservation(
    store: &Store,
    id: &ReservationId,
) -> Result<Option<StoredRecord>, StoreError> {
    store.read_reservation(id).await
}

/// An event's name; `None`: it has none, or there is no such event.
///
/// # Errors
/// What the store says.
pub(super) async fn event_name(
    store: &Store,
    event: &EventId,
) -> Result<Option<String>, StoreError> {
    let about = store.describe_event(event).await?;
    let name = about.map(|about| about.name);
    Ok(name.filter(|name| !name.is_empty()))
}
