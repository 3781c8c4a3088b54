//! What a contract reads from the store past the domain: nothing is decided on it.

use crate::domain::ids::{EventId, ReservationId};
use crate::store::{Store, StoreError, StoredRecord};

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
    _store: &Store,
    _event: &EventId,
) -> Result<Option<String>, StoreError> {
    Ok(None)
}
