//! Encoded status responses of seated events, reused while the event's version is the same. The status of a
//! hall of fifty sections has about 3 KB in two hundred strings and is requested often.
//!
//! Not here: the meaning of a version (`inventory_core`), the content of a status (`queries`).

use std::cell::RefCell;
use std::num::NonZeroUsize;

use bytes::Bytes;
use inventory_proto::reservation::v1::GetInventoryStatusResponse;
use lru::LruCache;
use prost::Message as _;

use crate::limits;
use inventory_core::ids::EventId;
use inventory_core::query::StatusVersion;

/// One per shard.
pub(super) struct StatusCache(RefCell<LruCache<EventId, (StatusVersion, Bytes)>>);

impl StatusCache {
    pub(super) fn new() -> Self {
        let capacity = NonZeroUsize::new(limits::STATUSES_KEPT_MAX).unwrap_or(NonZeroUsize::MIN);
        Self(RefCell::new(LruCache::new(capacity)))
    }

    /// The status of the whole event, if it was encoded at this version.
    pub(super) fn get(&self, event: &EventId, version: StatusVersion) -> Option<Bytes> {
        let mut cached = self.0.borrow_mut();
        let (at, encoded) = cached.get(event)?;
        (*at == version).then(|| encoded.clone())
    }

    /// Encodes and caches a status. The version must have been read before the status.
    pub(super) fn insert(
        &self,
        event: EventId,
        version: StatusVersion,
        status: &GetInventoryStatusResponse,
    ) -> Bytes {
        let encoded = Bytes::from(status.encode_to_vec());
        if encoded.len() <= limits::STATUS_KEPT_BYTES_MAX {
            let cached = (version, encoded.clone());
            self.0.borrow_mut().put(event, cached);
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory_core::time::UnixMillis;

    const VERSION: StatusVersion =
        StatusVersion { as_of: UnixMillis(1), changes: 7, closed: false };

    #[test]
    fn a_status_is_cached_per_event_and_version() {
        let cache = StatusCache::new();
        let event = |name: &str| EventId::try_from(name.to_owned()).expect("a legal id");
        let status = GetInventoryStatusResponse::default();
        let encoded = cache.insert(event("a"), VERSION, &status);
        assert_eq!(cache.get(&event("a"), VERSION), Some(encoded));
        assert_eq!(cache.get(&event("b"), VERSION), None);
        let changed = [
            StatusVersion { changes: 8, ..VERSION },
            StatusVersion { closed: true, ..VERSION },
            StatusVersion { as_of: UnixMillis(2), ..VERSION },
        ];
        for version in changed {
            assert_eq!(cache.get(&event("a"), version), None);
        }
    }
}
