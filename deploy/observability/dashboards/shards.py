"""The shard view: one line per shard or per server: who does how much, who waits, who stands still.
What buyers see lives in sale.py, the store in store.py."""

from grafana import (
    AMBER,
    ANY_IS_BAD,
    GREEN,
    INSTANCE,
    JOB,
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
SHARD = "{{instance}} shard {{shard}}"
BUSY = steps((GREEN, None), (AMBER, 0.7), (RED, 0.85))
STILL = steps((GREEN, None), (AMBER, 1), (RED, 5))
# What a hand-over of figures may cost a shard.
SCRAPE = steps((GREEN, None), (AMBER, 0.001), (RED, 0.005))


def by_shard(title: str, about: str, expr: str, unit: str = "none", **more) -> Panel:
    return Panel(title, about, [Query(expr, SHARD)], unit, **more)


def counter(metric: str) -> str:
    return f"rate({metric}{{{F}}}{R})"


def quantiles(metric: str) -> list[Query]:
    return [
        Query(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{F}}}{R})))", f"p{q}")
        for q in (0.5, 0.95, 0.99)
    ]


NOW = Row(
    "Does every shard turn?",
    [
        stat(
            "Shards",
            "How many shards tell their figures.",
            f"count(inventory_shard_tick_age_seconds{{{F}}})",
            "none",
            steps((RED, None), (GREEN, 1)),
            decimals=0,
        ),
        stat(
            "Longest standstill now",
            "How long ago the slowest shard last turned. From 5 s on its server is not ready.",
            f"max(inventory_shard_tick_age_seconds{{{F}}})",
            "s",
            STILL,
        ),
        stat(
            "Standstills",
            "Since the start, over all shards. Each is in the log with what the shard was doing.",
            f"sum(inventory_shard_stalls_total{{{F}}})",
            "none",
            ANY_IS_BAD,
            decimals=0,
        ),
        stat(
            "Busiest shard",
            "The part of its time that the busiest shard computes, over the last window.",
            f"max(inventory_shard_busy_ratio{{{F}}})",
            "percentunit",
            BUSY,
        ),
        stat(
            "Lopsided",
            "Calls of the busiest shard to those of the average one. 1 is even; an alert speaks at 1.5 "
            "if that shard is short of CPU.",
            f"max(max by (instance) ({counter('inventory_shard_requests_total')})"
            f" / avg by (instance) ({counter('inventory_shard_requests_total')}))",
            "none",
            steps((GREEN, None), (AMBER, 1.3), (RED, 1.5)),
            decimals=2,
        ),
        stat(
            "Costliest scrape",
            "What handing over its figures cost the slowest shard, last time. Bound: 5 ms.",
            f"max(inventory_shard_scrape_seconds{{{F}}})",
            "s",
            SCRAPE,
        ),
    ],
)

WORK = Row(
    "Work",
    [
        by_shard(
            "CPU",
            "The part of its time that each shard's thread computes.",
            counter("inventory_shard_cpu_seconds_total"),
            "percentunit",
            thresholds=BUSY,
            high=1,
        ),
        by_shard(
            "Busy, last window",
            "The same over the last window, as the server tells it.",
            f"inventory_shard_busy_ratio{{{F}}}",
            "percentunit",
            thresholds=BUSY,
            high=1,
        ),
        by_shard(
            "Calls",
            "Answered in a second by each shard: those of its own connections.",
            counter("inventory_shard_requests_total"),
            "ops",
        ),
        by_shard(
            "Connections",
            "Open client connections. They even out as MAX_CONNECTION_AGE brings clients back.",
            f"inventory_shard_connections{{{F}}}",
        ),
        by_shard("Calls under way", "Taken and not answered yet.", f"inventory_shard_active_requests{{{F}}}"),
        by_shard(
            "In line for a lane",
            "Callers that wait for a transaction to go into. Hundreds, with full "
            "transactions: the stripes are the limit.",
            f"inventory_line_depth{{{F}}}",
        ),
        by_shard(
            "Transactions on their way",
            "Sent to the store and not answered.",
            f"inventory_shard_in_flight{{{F}}}",
        ),
        by_shard(
            "Since its last turn",
            "A healthy shard turns every quarter of a second at the latest. From 5 s on the "
            "server is not ready.",
            f"inventory_shard_tick_age_seconds{{{F}}}",
            "s",
            thresholds=STILL,
        ),
        by_shard(
            "Cost of a scrape",
            "What handing over its figures cost each shard. Bound: 5 ms.",
            f"inventory_shard_scrape_seconds{{{F}}}",
            "s",
            thresholds=SCRAPE,
        ),
    ],
)

LANES = Row(
    "Lanes",
    [
        Panel(
            "Reservations per transaction",
            "On average. 99 fit; near that the stripes are the limit.",
            [
                Query(
                    f"sum by (instance) ({counter('inventory_lane_members_total')})"
                    f" / (sum by (instance) ({counter('inventory_lane_transactions_total')}) > 0)",
                    "{{instance}}",
                )
            ],
            "none",
            high=99,
            thresholds=steps((GREEN, None), (AMBER, 90)),
        ),
        Panel(
            "Sizes of transactions",
            "How many transactions carry how many reservations.",
            [Query(f"sum by (le) ({counter('inventory_lane_batch_members_bucket')})", heatmap=True)],
            "none",
            "heatmap",
        ),
        Panel(
            "Wait for a transaction",
            "From a reservation's coming to its lane to its being sent.",
            quantiles("inventory_lane_wait_seconds"),
            "s",
        ),
        Panel(
            "Transactions",
            "Sent in a second, first tries only.",
            [Query(f"sum by (instance) ({counter('inventory_lane_transactions_total')})", "{{instance}}")],
            "ops",
            width=12,
        ),
        Panel(
            "Sent again",
            "Transactions that had to be sent again, by reason: another process on the same stripe, a "
            "store that throttles, no answer, a body the store refuses.",
            [Query(f"sum by (reason) ({counter('inventory_retries_total')})", "{{reason}}")],
            "ops",
            width=12,
        ),
    ],
)

PROCESS = Row(
    "Processes",
    [
        Panel(
            "CPU of the process",
            "Cores in use, the side thread's included.",
            [Query(f"rate(process_cpu_seconds_total{{{F}}}{R})", "{{instance}}")],
            "none",
            width=6,
        ),
        Panel(
            "Memory",
            "Resident memory of each process.",
            [Query(f"process_resident_memory_bytes{{{F}}}", "{{instance}}")],
            "bytes",
            width=6,
        ),
        Panel(
            "Descriptors",
            "Open, of those allowed.",
            [Query(f"process_open_fds{{{F}}} / process_max_fds{{{F}}}", "{{instance}}")],
            "percentunit",
            width=6,
            thresholds=steps((GREEN, None), (AMBER, 0.7), (RED, 0.9)),
            high=1,
        ),
        Panel(
            "Up for",
            "Since the start of the process.",
            [Query(f"time() - process_start_time_seconds{{{F}}}", "{{instance}}")],
            "s",
            width=6,
        ),
        Panel(
            "Spans",
            "Exported in a second, and dropped.",
            [
                Query(f"sum({counter('inventory_trace_spans_exported_total')})", "exported"),
                Query(
                    f"sum({counter('inventory_trace_spans_dropped_total')})"
                    f" or 0 * sum({counter('inventory_trace_spans_exported_total')})",
                    "dropped",
                ),
            ],
            "ops",
        ),
        Panel(
            "Log lines dropped",
            "In a second, because what reads them was behind.",
            [Query(counter("inventory_log_lines_dropped_total"), "{{instance}}")],
            "ops",
            thresholds=steps((GREEN, None), (AMBER, 1e-9)),
        ),
        Panel(
            "Shards without figures",
            "Shards that did not answer a scrape; what is shown of them is old.",
            [Query(f"inventory_scrape_incomplete{{{F}}}", "{{instance}}")],
            "none",
            thresholds=steps((GREEN, None), (RED, 1)),
        ),
        Panel(
            "Builds",
            "What runs where.",
            [
                Query(
                    f"sum by (instance, service, version, arch) (inventory_build_info{{{F}}})",
                    instant=True,
                    table=True,
                )
            ],
            "none",
            "table",
            width=24,
            height=5,
        ),
    ],
)

DASHBOARD = dashboard(
    "inventory-shards",
    "inventory-api / Shards",
    "The shards and processes: work, waiting, standstills, lanes, memory.",
    [JOB, INSTANCE],
    [NOW, WORK, LANES, PROCESS],
)
