"""The store dashboard: requests, latency, errors and consumed capacity by table. The effect on callers is in sale.py."""

from grafana import (
    AMBER,
    GREEN,
    INSTANCE,
    JOB,
    NO_THRESHOLD,
    RED,
    Panel,
    Query,
    Row,
    dashboard,
    stat,
    steps,
)

F = 'job="$job", instance=~"$instance"'
R = "[$__rate_interval]"
TRANSACT = 'operation="TransactWriteItems"'
# A transaction of more than 30 ms leaves less than 10 ms of the 40 ms objective.
SLOW = steps((GREEN, None), (AMBER, 0.02), (RED, 0.03))
SOME = steps((GREEN, None), (AMBER, 0.001), (RED, 0.01))


def rate(metric: str, more: str = "") -> str:
    return f"rate({metric}{{{F}{', ' + more if more else ''}}}{R})"


WRITTEN = rate("dynamodb_consumed_units_total", 'kind="write"')


def per_transaction(metric: str, more: str = "") -> str:
    return f"sum({rate(metric, more)}) / (sum({rate('inventory_lane_transactions_total')}) > 0)"


NOW = Row(
    "Overview",
    [
        stat(
            "P95 of transactions",
            "Single attempts, measured by the server. Above 30 ms the 40 ms objective cannot be met.",
            f"histogram_quantile(0.95, sum by (le) ({rate('dynamodb_operation_duration_seconds_bucket', TRANSACT)}))",
            "s",
            SLOW,
        ),
        stat(
            "Throttled",
            "Throttled attempts per transaction: a table or a partition is out of write capacity.",
            per_transaction("inventory_retries_total", 'reason="throttled"'),
            "percentunit",
            SOME,
        ),
        stat(
            "Conflicts",
            "Conflicts per transaction with other processes on the same stripes. An alert fires at 20 %.",
            per_transaction("inventory_retries_total", 'reason="conflict"'),
            "percentunit",
            steps((GREEN, None), (AMBER, 0.05), (RED, 0.2)),
        ),
        stat(
            "Unknown outcomes",
            "Missing responses per transaction. The same write is sent again until its outcome is known.",
            per_transaction("inventory_unknown_outcomes_total"),
            "percentunit",
            SOME,
        ),
        stat(
            "Write units", "Consumed per second, all tables.", f"sum({WRITTEN})", "none", NO_THRESHOLD
        ),
        stat(
            "Write units per reservation",
            "About 2 per direct commit, for the record and its share of the stripe update; a hold needs about "
            "twice that until it is committed or released.",
            f"sum({WRITTEN}) / (sum({rate('inventory_lane_entries_total')}) > 0)",
            "none",
            NO_THRESHOLD,
            decimals=2,
        ),
    ],
)

TIME = Row(
    "Latency",
    [
        Panel(
            "Transactions",
            "Single attempts, measured by the server. The line is at 30 ms.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) ({rate('dynamodb_operation_duration_seconds_bucket', TRANSACT)}))",
                    f"p{q}",
                )
                for q in (0.5, 0.95, 0.99)
            ],
            "s",
            thresholds=SLOW,
        ),
        Panel(
            "P95 by operation and table",
            "Single attempts; each retry counts separately.",
            [
                Query(
                    "histogram_quantile(0.95, sum by (le, operation, table) "
                    f"({rate('dynamodb_operation_duration_seconds_bucket')}))",
                    "{{operation}} {{table}}",
                )
            ],
            "s",
        ),
        Panel(
            "Transaction latency distribution",
            "Transactions by latency bucket.",
            [
                Query(
                    f"sum by (le) ({rate('dynamodb_operation_duration_seconds_bucket', TRANSACT)})",
                    heatmap=True,
                )
            ],
            "s",
            "heatmap",
        ),
    ],
)

LOAD = Row(
    "Requests and capacity",
    [
        Panel(
            "Requests",
            "Per second, by operation and table.",
            [
                Query(
                    f"sum by (operation, table) ({rate('dynamodb_requests_total')})",
                    "{{operation}} {{table}}",
                )
            ],
            "ops",
            stacked=True,
        ),
        Panel(
            "Consumed write units",
            "Per second, by table, as reported by the store. Compare with the warm throughput of the table.",
            [Query(f"sum by (table) ({WRITTEN})", "{{table}}")],
            "none",
        ),
        Panel(
            "Consumed read units",
            "Per second, by table, as reported by the store.",
            [
                Query(
                    "sum by (table) (" + rate("dynamodb_consumed_units_total", 'kind="read"') + ")",
                    "{{table}}",
                )
            ],
            "none",
        ),
    ],
)

TROUBLE = Row(
    "Errors and retries",
    [
        Panel(
            "Requests by status",
            "`ok`; `cancelled`: a condition failed, which is a business outcome, or a transaction was "
            "throttled; `refused`, `not_sent`, `rejected`, `unknown`: see the runbook.",
            [Query(f"sum by (status) ({rate('dynamodb_requests_total')})", "{{status}}")],
            "ops",
        ),
        Panel(
            "Failed requests",
            "Share of the requests to each table that were throttled, refused, rejected or not answered in "
            "time.",
            [
                Query(
                    "(sum by (table) ("
                    + rate("dynamodb_requests_total", 'status=~"throttled|refused|not_sent|rejected|unknown"')
                    + ")"
                    f" or 0 * sum by (table) ({rate('dynamodb_requests_total')}))"
                    f" / (sum by (table) ({rate('dynamodb_requests_total')}) > 0)",
                    "{{table}}",
                )
            ],
            "percentunit",
            thresholds=steps((GREEN, None), (RED, 0.01)),
        ),
        Panel(
            "Retries",
            "Transactions sent again, by reason.",
            [Query(f"sum by (reason) ({rate('inventory_retries_total')})", "{{reason}}")],
            "ops",
        ),
        Panel(
            "Unknown outcomes",
            "Writes without a response per second, and their resolution. A write that is lost several times "
            "counts each time and resolves once.",
            [
                Query(f"sum({rate('inventory_unknown_outcomes_total')})", "unknown"),
                Query(f"sum by (outcome) ({rate('inventory_unknown_resolved_total')})", "{{outcome}}"),
            ],
            "ops",
            width=12,
        ),
        Panel(
            "Clock skew",
            "Offset of each server's clock from the store's. The error is half a second at most, and less with many "
            "requests.",
            [Query(f"inventory_clock_skew_seconds{{{F}}}", "{{instance}}")],
            "s",
            width=12,
        ),
        Panel(
            "Credentials",
            "Time until the credentials of the store expire. They are renewed five minutes before.",
            [Query(f"inventory_store_credentials_expiry_timestamp_seconds{{{F}}} - time()", "{{instance}}")],
            "s",
            width=12,
        ),
        Panel(
            "Sold out without a write",
            "Calls per second answered \"sold out\" after a read of their record, without a write.",
            [Query(f"sum({rate('inventory_sold_out_without_write_total')})", "sold out")],
            "ops",
            width=12,
        ),
    ],
)

READS = Row(
    "Stock snapshots",
    [
        Panel(
            "Stock queries",
            "Per second, by source: a snapshot, or a read that the query waited for.",
            [Query(f"sum by (source) ({rate('inventory_queries_total')})", "{{source}}")],
            "ops",
        ),
        Panel(
            "Snapshot age",
            "Age of the snapshot at each answer. Bound: READ_STALENESS_MS.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) ({rate('inventory_snapshot_age_seconds_bucket')}))",
                    f"p{q}",
                )
                for q in (0.5, 0.95, 0.99)
            ],
            "s",
        ),
        Panel(
            "Snapshot refreshes",
            "Reads per second that keep snapshots fresh.",
            [Query(f"sum({rate('inventory_snapshot_refreshes_total')})", "refreshes")],
            "ops",
        ),
    ],
)

DASHBOARD = dashboard(
    "inventory-store",
    "inventory-api / Store",
    "The store: latency, capacity, throttling, conflicts, unknown outcomes, snapshots.",
    [JOB, INSTANCE],
    [NOW, TIME, LOAD, TROUBLE, READS],
)
