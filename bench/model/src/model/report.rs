//! The report: counters and peaks as JSON.

use serde_json::{Value as Json, json};

use super::StoreModel;
use crate::ModelTime;
use crate::capacity::{Capacity, PartitionUse, UnitMeter};
use crate::limits;

fn meter(meter: &UnitMeter) -> Json {
    json!({ "peak": meter.peak, "total": meter.total })
}

fn partition(found: &PartitionUse) -> Json {
    json!({ "partition": found.number, "wcu": meter(&found.write), "rcu": meter(&found.read) })
}

fn capacity(capacity: &Capacity) -> Json {
    let all = capacity.table_use();
    let units = capacity.units();
    json!({
        "capacity": { "wcu": units.wcu, "rcu": units.rcu },
        "partitions": capacity.partition_count(),
        "wcu": meter(&all.write),
        "rcu": meter(&all.read),
        "hottest": capacity
            .hottest(limits::REPORT_PARTITIONS)
            .iter()
            .map(partition)
            .collect::<Vec<_>>(),
    })
}

impl StoreModel {
    /// Counters since the start or the last reset. `peak` is the maximum of units in one second of the model's
    /// clock; a partition's limits are [`limits::PARTITION_WCU`] and [`limits::PARTITION_RCU`].
    pub fn report(&mut self, now: ModelTime) -> Json {
        self.run(now);
        let mut operations = json!({});
        for ((operation, outcome), count) in &self.counts {
            let outcome = if outcome.is_empty() { "ok" } else { outcome };
            operations[*operation][outcome] = json!(count);
        }
        let mut tables = json!({});
        let mut hottest = (0.0_f64, 0.0_f64);
        for table in self.tables.iter() {
            let mut one = capacity(&table.capacity);
            one["items"] = json!(table.items.len());
            one["bytes"] = json!(table.bytes);
            let mut indexes = json!({});
            let mut heat = |of: &Capacity| {
                for found in of.hottest(1) {
                    hottest.0 = hottest.0.max(found.write.peak);
                }
                for found in of.hottest(usize::MAX) {
                    hottest.1 = hottest.1.max(found.read.peak);
                }
            };
            heat(&table.capacity);
            for index in &table.indexes {
                let mut shown = capacity(&index.capacity);
                shown["items"] = json!(index.entries.len());
                heat(&index.capacity);
                indexes[&*index.name] = shown;
            }
            one["indexes"] = indexes;
            tables[&*table.name] = one;
        }
        let counters = &self.counters;
        json!({
            "now_ms": now / 1_000,
            "operations": operations,
            "actions": counters.actions,
            "failed_conditions": counters.failed_conditions,
            "wasted_wcu": counters.wasted_wcu,
            "conflicts": counters.conflicts,
            "conflicted_transactions": counters.conflicted_transactions,
            "throttled": {
                "partition": counters.throttled_by_partition,
                "table": counters.throttled_by_table,
            },
            "hottest_partition": { "wcu_peak": hottest.0, "rcu_peak": hottest.1 },
            "partition_limits": { "wcu": limits::PARTITION_WCU, "rcu": limits::PARTITION_RCU },
            "calls": { "now": self.calls.len(), "peak": counters.calls_peak },
            "tokens": { "kept": self.tokens.len(), "evicted_early": self.tokens.evicted_early },
            "faults": self.settings.faults,
            "tables": tables,
        })
    }
}
