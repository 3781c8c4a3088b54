//! Probes a store that has failed this shard, so that an outage ends without a caller's call: readiness is off then, and no
//! calls may come.
//!
//! A store that answers is not probed. Writes with an unknown outcome are sent again anyway and are probes of their own.

use std::rc::Rc;

use super::driver::Driver;
use crate::limits;
use crate::telemetry::store_health::StoreHealthWriter;
use inventory_runtime::clock;

/// Runs until the future is dropped.
pub(super) async fn run(driver: Rc<Driver>, health: StoreHealthWriter) {
    let mut was_failing = false;
    loop {
        let started = clock::monotonic();
        if health.reads_fail() {
            driver.store().probe_read().await;
        }
        if health.writes_fail() && driver.in_doubt() == 0 {
            driver.store().probe_write().await;
        }
        health.set_clock_skew(driver.store().clock_skew());
        let is_failing = health.reads_fail() || health.writes_fail();
        // Also while only writes fail: they may be answered by now.
        if was_failing && !(is_failing && health.reads_fail()) {
            driver.store_answers();
        }
        was_failing = is_failing;
        // A slow store is probed for a third of the time at most.
        let took = std::time::Duration::from_micros(clock::monotonic().since(started).0);
        inventory_runtime::sleep(limits::STORE_PROBE_EVERY.max(2 * took)).await;
    }
}
