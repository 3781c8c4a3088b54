//! Cache of reservation records, so that a repeated call costs no store request.
//!
//! The store's record is authoritative: dropping a cached record changes no answer.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::ids::ReservationId;
use super::time::Micros;
use super::transaction::RecordView;

struct CachedRecord {
    record: RecordView,
    /// The entry expires at this instant.
    stale_at: Micros,
}

/// Evicts the least recently used record, and each record at its maximum age.
pub(crate) struct RecordCache {
    entries: Option<LruCache<ReservationId, CachedRecord, foldhash::fast::RandomState>>,
    keep_for: Micros,
}

impl RecordCache {
    /// Caches up to `capacity` records (0: none) for `keep_for` each.
    pub(crate) fn new(capacity: usize, keep_for: Micros) -> Self {
        let entries = NonZeroUsize::new(capacity)
            .map(|cap| LruCache::with_hasher(cap, foldhash::fast::RandomState::default()));
        Self { entries, keep_for }
    }

    pub(crate) fn get(&mut self, reservation: &ReservationId, now: Micros) -> Option<RecordView> {
        let entries = self.entries.as_mut()?;
        let entry = entries.get(reservation)?;
        if entry.stale_at > now {
            return Some(entry.record.clone());
        }
        entries.pop(reservation);
        None
    }

    pub(crate) fn insert(&mut self, reservation: ReservationId, record: RecordView, now: Micros) {
        if let Some(entries) = self.entries.as_mut() {
            let stale_at = now.plus(self.keep_for);
            entries.put(reservation, CachedRecord { record, stale_at });
        }
    }

    /// Drops a record that no longer exists, or may have changed.
    pub(crate) fn remove(&mut self, reservation: &ReservationId) {
        if let Some(entries) = self.entries.as_mut() {
            entries.pop(reservation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::Fingerprint;
    use super::super::time::UnixMillis;
    use super::super::transaction::{ReservationState, StripeAllocations};
    use super::*;

    fn id(n: u32) -> ReservationId {
        format!("r{n}").parse().expect("legal")
    }

    fn record() -> RecordView {
        RecordView {
            fingerprint: Fingerprint([0; 16]),
            state: ReservationState::Released,
            order: None,
            payment: None,
            qty: 1,
            draws: StripeAllocations::new(),
            seats: None,
            expires_at: None,
            counted: false,
            at: UnixMillis(0),
        }
    }

    #[test]
    fn least_recently_used_record_is_evicted_first() {
        let mut cache = RecordCache::new(2, Micros(100));
        cache.insert(id(1), record(), Micros(0));
        cache.insert(id(2), record(), Micros(0));
        assert!(cache.get(&id(1), Micros(1)).is_some());
        cache.insert(id(3), record(), Micros(1));
        assert!(cache.get(&id(2), Micros(1)).is_none());
        assert!(cache.get(&id(1), Micros(1)).is_some());
    }

    #[test]
    fn records_expire_by_age_and_the_cache_can_be_off() {
        let mut cache = RecordCache::new(2, Micros(100));
        cache.insert(id(1), record(), Micros(0));
        assert!(cache.get(&id(1), Micros(99)).is_some());
        assert!(cache.get(&id(1), Micros(100)).is_none());
        assert!(cache.get(&id(1), Micros(0)).is_none(), "dropped");

        let mut off = RecordCache::new(0, Micros(100));
        off.insert(id(1), record(), Micros(0));
        assert!(off.get(&id(1), Micros(0)).is_none());
    }
}
