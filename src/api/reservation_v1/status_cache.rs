//! StatusCache of seated events, encoded: as long as an event's mark is the same, so is the answer. A hall
//! of fifty sections is some 3 KB in two hundred strings, asked for again and again.
//!
//! Must not live here: what a mark means (`domain`), what a status says (`queries`).

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
        let most = NonZeroUsize::new(limits::STATUSES_KEPT_MAX).unwrap_or(NonZeroUsize::MIN);
        Self(RefCell::new(LruCache::new(most)))
    }

    /// The whole event's status, if it was encoded at this mark.
    pub(super) fn get(&self, event: &EventId, mark: StatusVersion) -> Option<Bytes> {
        let mut kept = self.0.borrow_mut();
        let (at, encoded) = kept.get(event)?;
        (*at == mark).then(|| encoded.clone())
    }

    /// Encodes a status that was asked for after its mark was read.
    pub(super) fn keep(
        &self,
        event: EventId,
        mark: StatusVersion,
        status: &GetInventoryStatusResponse,
    ) -> Bytes {
        let encoded = Bytes::from(status.encode_to_vec());
        if encoded.len() <= limits::STATUS_KEPT_BYTES_MAX {
            let kept = (mark, encoded.clone());
            self.0.borrow_mut().put(event, kept);
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory_core::time::UnixMillis;

    const MARK: StatusVersion = StatusVersion {
        as_of: UnixMillis(1),
        changes: 7,
        closed: false,
    };

    #[test]
    fn a_status_is_kept_for_its_mark_and_its_event_alone() {
        let statuses = StatusCache::new();
        let event = |name: &str| EventId::try_from(name.to_owned()).expect("a legal id");
        let status = GetInventoryStatusResponse::default();
        let encoded = statuses.keep(event("a"), MARK, &status);
        assert_eq!(statuses.get(&event("a"), MARK), Some(encoded));
        assert_eq!(statuses.get(&event("b"), MARK), None);
        let changed = [
            StatusVersion { changes: 8, ..MARK },
            StatusVersion {
                closed: true,
                ..MARK
            },
            StatusVersion {
                as_of: UnixMillis(2),
                ..MARK
            },
        ];
        for mark in changed {
            assert_eq!(statuses.get(&event("a"), mark), None);
        }
    }
}
