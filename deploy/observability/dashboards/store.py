"""The store view: what the tables are asked, how long they take, what they refuse and what it costs.
What buyers see of it lives in sale.py."""

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
# A transaction that takes the store more than 30 ms leaves too little of 40.
SLOW = steps((GREEN, None), (AMBER, 0.02), (RED, 0.03))
SOME = steps((GREEN, None), (AMBER, 0.001), (RED, 0.01))


def rate(metric: str, more: str = "") -> str:
    return f"rate({metric}{{{F}{', ' + more if more else ''}}}{R})"


WRITTEN = rate("dynamodb_consumed_units_total", 'kind="write"')


def per_transaction(metric: str, more: str = "") -> str:
    return f"sum({rate(metric, more)}) / (sum({rate('inventory_lane_transactions_total')}) > 0)"


NOW = Row(
    "Does the store keep up?",
    [
        stat(
            "P95 of transactions",
            "Of one try, as the server sees it. Above 30 ms a promise of 40 ms cannot be kept.",
            f"histogram_quantile(0.95, sum by (le) ({rate('dynamodb_operation_duration_seconds_bucket', TRANSACT)}))",
            "s",
            SLOW,
        ),
        stat(
            "Throttled",
            "Throttled tries in each transaction: a table or a partition is out of write capacity.",
            per_transaction("inventory_retries_total", 'reason="throttled"'),
            "percentunit",
            SOME,
        ),
        stat(
            "Conflicts",
            "In each transaction: other processes write the same stripes. An alert speaks at 20 %.",
            per_transaction("inventory_retries_total", 'reason="conflict"'),
            "percentunit",
            steps((GREEN, None), (AMBER, 0.05), (RED, 0.2)),
        ),
        stat(
            "Unknown outcomes",
            "In each transaction: no answer in time. The same write is sent again until it is known.",
            per_transaction("inventory_unknown_outcomes_total"),
            "percentunit",
            SOME,
        ),
        stat(
            "Write units", "Consumed in a second, over all tables.", f"sum({WRITTEN})", "none", NO_THRESHOLD
        ),
        stat(
            "Write units per reservation",
            "2 for the record and its share of the stripe; a hold about twice that until it is over.",
            f"sum({WRITTEN}) / (sum({rate('inventory_lane_members_total')}) > 0)",
            "none",
            NO_THRESHOLD,
            decimals=2,
        ),
    ],
)

TIME = Row(
    "How long it takes",
    [
        Panel(
            "Transactions",
            "One try, as the server sees it. The line is at 30 ms.",
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
            "One try, each retry by itself.",
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
            "Transactions, where they fall",
            "How many took how long.",
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
    "What it is asked, and what it costs",
    [
        Panel(
            "Requests",
            "In a second, by operation and table.",
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
            "In a second, by table, as the store counts them. Compare with each table's warm throughput.",
            [Query(f"sum by (table) ({WRITTEN})", "{{table}}")],
            "none",
        ),
        Panel(
            "Consumed read units",
            "In a second, by table, as the store counts them.",
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
    "What goes wrong",
    [
        Panel(
            "How requests end",
            "`ok`; `cancelled`: a condition did not hold, which is business, or a transaction was "
            "throttled; `refused`, `rejected`, `unknown`: see the runbook.",
            [Query(f"sum by (status) ({rate('dynamodb_requests_total')})", "{{status}}")],
            "ops",
        ),
        Panel(
            "Not answered properly",
            "The part of the requests to each table that was throttled, refused, rejected, or had "
            "no answer in time.",
            [
                Query(
                    "(sum by (table) ("
                    + rate("dynamodb_requests_total", 'status=~"throttled|refused|rejected|unknown"')
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
            "Sent again",
            "Transactions, by reason.",
            [Query(f"sum by (reason) ({rate('inventory_retries_total')})", "{{reason}}")],
            "ops",
        ),
        Panel(
            "Unknown outcomes",
            "Writes without an answer in a second, and what became of them. One that is sent again and "
            "lost again counts each time, and resolves once.",
            [
                Query(f"sum({rate('inventory_unknown_outcomes_total')})", "unknown"),
                Query(f"sum by (outcome) ({rate('inventory_unknown_resolved_total')})", "{{outcome}}"),
            ],
            "ops",
            width=12,
        ),
        Panel(
            "Told without a write",
            "Calls told in a second that there is too little, by a look at their record.",
            [Query(f"sum({rate('inventory_sold_out_looks_total')})", "looks")],
            "ops",
            width=12,
        ),
    ],
)

READS = Row(
    "Answers from memory",
    [
        Panel(
            "Questions",
            "Answered in a second from a snapshot, or after a read they waited for.",
            [Query(f"sum by (source) ({rate('inventory_questions_total')})", "{{source}}")],
            "ops",
        ),
        Panel(
            "Age of snapshots",
            "At each answer from one. Bound: READ_STALENESS_MS.",
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
            "Refreshes",
            "Reads in a second that keep snapshots young.",
            [Query(f"sum({rate('inventory_snapshot_refreshes_total')})", "refreshes")],
            "ops",
        ),
    ],
)

DASHBOARD = dashboard(
    "inventory-store",
    "inventory-api / Store",
    "The store: latency, capacity, throttling, conflicts, lost answers, snapshots.",
    [JOB, INSTANCE],
    [NOW, TIME, LOAD, TROUBLE, READS],
)
