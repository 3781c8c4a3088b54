//! The membership item: one update that returns the whole item, beside the events of the same table.

use std::time::Duration;

use inventory_core::membership::{
    Announcement, ClockOffset, MemberEntry, MembersRead, MembershipUpdate, ProcessId,
};
use inventory_core::time::{Micros, UnixMillis};
use inventory_store::{Store, StoreError};

use crate::fixture::*;

const LIMIT: Duration = Duration::from_secs(20);

fn entry(id: u64, beat: u64) -> MemberEntry {
    MemberEntry {
        id: ProcessId(id),
        beat,
        interval: Micros(3_000_000),
        beat_at: AT,
        announcement: Announcement {
            shards: 2,
            version: "1.2.3".to_owned(),
            address: "host:8080".to_owned(),
            started_at: UnixMillis(1_763_700_000_000),
            clock: Some(ClockOffset { ahead_ms: -7, error_ms: 80 }),
        },
    }
}

fn beat(own: MemberEntry, remove: &[u64]) -> MembershipUpdate {
    let remove = remove.iter().map(|id| ProcessId(*id).to_string()).collect();
    MembershipUpdate { own: Some(own), remove }
}

async fn update(store: &Store, update: &MembershipUpdate) -> MembersRead {
    store.update_members(update, LIMIT).await.unwrap()
}

#[test]
fn each_beat_returns_the_entries_of_all_processes() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        assert_eq!(store.read_members().await.unwrap(), MembersRead::default());
        // The first beat creates the item.
        let read = update(&store, &beat(entry(1, 1), &[])).await;
        assert_eq!(read, MembersRead { entries: vec![entry(1, 1)], unreadable: Vec::new() });
        let read = update(&store, &beat(entry(2, 1), &[])).await;
        assert_eq!(read.entries, [entry(1, 1), entry(2, 1)]);
        let read = update(&store, &beat(entry(1, 2), &[2, 99])).await;
        assert_eq!(read.entries, [entry(1, 2)], "an entry that is not there can be removed too");
        // An update that changes nothing reads, and creates nothing.
        assert_eq!(update(&store, &MembershipUpdate::default()).await, read);
        let leave = MembershipUpdate { own: None, remove: vec![ProcessId(1).to_string()] };
        assert_eq!(update(&store, &leave).await, MembersRead::default());
    });
}

#[test]
fn events_are_listed_and_read_without_the_membership_item() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        create(&store, 10, 2).await;
        update(&store, &beat(entry(1, 1), &[])).await;
        let page = store.list_events(None).await.unwrap();
        let events: Vec<String> = page.items.iter().map(|about| about.event.to_string()).collect();
        assert_eq!(events, [event().to_string()]);
        assert_eq!(remaining(&store).await, [5, 5]);
        assert!("#members".parse::<inventory_core::ids::EventId>().is_err(), "no client's id");
    });
}

#[test]
fn what_another_program_wrote_hides_no_entry() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        let nonsense = vec![
            ("event_id", text("#members")),
            ("00000000000000ff", text("nonsense")),
            ("0000000000000001", number(7)),
            ("remaining", number(5)),
        ];
        raw_put(&settings, &settings.tables.inventory, nonsense).await;
        let read = store.read_members().await.unwrap();
        assert_eq!(read.unreadable, ["0000000000000001", "00000000000000ff"]);
        // The own entry is overwritten, whatever it was.
        let read = update(&store, &beat(entry(1, 1), &[])).await;
        assert_eq!(read.entries, [entry(1, 1)]);
        assert_eq!(read.unreadable, ["00000000000000ff"]);
        let read = update(&store, &beat(entry(1, 2), &[0xff])).await;
        assert_eq!(read, MembersRead { entries: vec![entry(1, 2)], unreadable: Vec::new() });
    });
}

#[test]
fn a_beat_is_one_attempt_with_a_time_limit() {
    on_shard(async {
        let (store, proxy) = behind_proxy().await;
        update(&store, &beat(entry(1, 1), &[])).await;
        let refusals = [
            ("AccessDeniedException", StoreError::Refused(String::new())),
            ("ProvisionedThroughputExceededException", StoreError::Throttled(String::new())),
        ];
        for (code, expected) in refusals {
            proxy.next(store_fault(400, code));
            let failure = store.update_members(&beat(entry(1, 2), &[]), LIMIT).await.unwrap_err();
            assert_eq!(
                std::mem::discriminant(&failure),
                std::mem::discriminant(&expected),
                "{failure}"
            );
        }
        assert_eq!(update(&store, &beat(entry(1, 3), &[])).await.entries, [entry(1, 3)]);
    });
}
