"""The shard dashboard: load, queues, stalls and batching per shard, resources per process. The sale is in sale.py,
the store in store.py."""

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
STALL = steps((GREEN, None), (AMBER, 1), (RED, 5))
# CPU time that one scrape may take on a shard.
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
    "Overview",
    [
        stat(
            "Shards",
            "Number of shards that report metrics.",
            f"count(inventory_shard_heartbeat_age_seconds{{{F}}})",
            "none",
            steps((RED, None), (GREEN, 1)),
            decimals=0,
        ),
        stat(
            "Oldest heartbeat",
            "Time since the last heartbeat of the slowest shard. From 5 s its server is not ready.",
            f"max(inventory_shard_heartbeat_age_seconds{{{F}}})",
            "s",
            STALL,
        ),
        stat(
            "Stalls",
            "Since process start, all shards. Each is logged with the activity of the shard.",
            f"sum(inventory_shard_stalls_total{{{F}}})",
            "none",
            ANY_IS_BAD,
            decimals=0,
        ),
        stat(
            "Busiest shard",
            "CPU share of the busiest shard since the previous scrape.",
            f"max(inventory_shard_busy_ratio{{{F}}})",
            "percentunit",
            BUSY,
        ),
        stat(
            "Load imbalance",
            "Calls of the busiest shard divided by the average. 1 is balanced; an alert fires at 1.5 if that "
            "shard is short of CPU.",
            f"max(max by (instance) ({counter('inventory_shard_requests_total')})"
            f" / avg by (instance) ({counter('inventory_shard_requests_total')}))",
            "none",
            steps((GREEN, None), (AMBER, 1.3), (RED, 1.5)),
            decimals=2,
        ),
        stat(
            "Slowest scrape",
            "CPU time of the last scrape on the slowest shard. Bound: 5 ms.",
            f"max(inventory_shard_scrape_seconds{{{F}}})",
            "s",
            SCRAPE,
        ),
    ],
)

WORK = Row(
    "Load",
    [
        by_shard(
            "CPU",
            "CPU share of each shard thread.",
            counter("inventory_shard_cpu_seconds_total"),
            "percentunit",
            thresholds=BUSY,
            high=1,
        ),
        by_shard(
            "CPU since the previous scrape",
            "CPU share of each shard thread since the previous scrape, as reported by the server.",
            f"inventory_shard_busy_ratio{{{F}}}",
            "percentunit",
            thresholds=BUSY,
            high=1,
        ),
        by_shard(
            "Calls",
            "Responses per second by each shard, for its own connections.",
            counter("inventory_shard_requests_total"),
            "ops",
        ),
        by_shard(
            "Connections",
            "Open client connections. MAX_CONNECTION_AGE makes clients reconnect, which balances them.",
            f"inventory_shard_connections{{{F}}}",
        ),
        by_shard(
            "Evicted connections",
            "Idle client connections closed per second, because the table of connections is full.",
            counter("inventory_shard_connections_evicted_total"),
        ),
        by_shard("Calls in flight", "Calls without a response yet.", f"inventory_shard_active_requests{{{F}}}"),
        by_shard(
            "Queue depth",
            "Operations queued for a transaction. Hundreds of them together with full transactions mean that "
            "the stripes limit throughput.",
            f"inventory_queue_depth{{{F}}}",
        ),
        by_shard(
            "Transactions in flight",
            "Transactions sent to the store without a response yet.",
            f"inventory_shard_transactions_in_flight{{{F}}}",
        ),
        by_shard(
            "Heartbeat age",
            "A healthy shard has a heartbeat every 250 ms at the latest. From 5 s the server is not ready.",
            f"inventory_shard_heartbeat_age_seconds{{{F}}}",
            "s",
            thresholds=STALL,
        ),
        by_shard(
            "Scrape time",
            "CPU time of a scrape on each shard. Bound: 5 ms.",
            f"inventory_shard_scrape_seconds{{{F}}}",
            "s",
            thresholds=SCRAPE,
        ),
    ],
)

LANES = Row(
    "Group commit",
    [
        Panel(
            "Reservations per transaction",
            "Average; at most 99. Near that the stripes limit throughput.",
            [
                Query(
                    f"sum by (instance) ({counter('inventory_lane_entries_total')})"
                    f" / (sum by (instance) ({counter('inventory_lane_transactions_total')}) > 0)",
                    "{{instance}}",
                )
            ],
            "none",
            high=99,
            thresholds=steps((GREEN, None), (AMBER, 90)),
        ),
        Panel(
            "Batch size distribution",
            "Transactions by number of reservations.",
            [Query(f"sum by (le) ({counter('inventory_lane_batch_entries_bucket')})", heatmap=True)],
            "none",
            "heatmap",
        ),
        Panel(
            "Queue wait",
            "Time from enqueueing a reservation to dispatch of its transaction.",
            quantiles("inventory_queue_wait_seconds"),
            "s",
        ),
        Panel(
            "Transactions",
            "Dispatched per second, without retries.",
            [Query(f"sum by (instance) ({counter('inventory_lane_transactions_total')})", "{{instance}}")],
            "ops",
            width=12,
        ),
        Panel(
            "Retries",
            "Transactions sent again, by reason: conflict with another process, throttling, unknown outcome, or "
            "a batch split because the store refused it.",
            [Query(f"sum by (reason) ({counter('inventory_retries_total')})", "{{reason}}")],
            "ops",
            width=12,
        ),
        Panel(
            "Stock moves",
            "Transactions that were to move units to a stripe that ran short, by result. Moves are rare: a process "
            "with more calls than the others needs a few, and every sale at its end. Many conflicts: processes "
            "disagree about the members.",
            [Query(f"sum by (result) ({counter('inventory_stock_moves_total')})", "{{result}}")],
            "ops",
            width=12,
        ),
        Panel(
            "Moved units",
            "Units moved per second to stripes that ran short.",
            [Query(f"sum by (instance) ({counter('inventory_stock_moved_units_total')})", "{{instance}}")],
            "none",
            width=12,
        ),
    ],
)

MEMBERS = Row(
    "Membership",
    [
        Panel(
            "Members",
            "Server processes of the store as each process sees them. Lines that stay apart: the processes disagree, "
            "and conflict.",
            [Query(f"inventory_members{{{F}}}", "{{instance}}")],
            "none",
            width=6,
        ),
        Panel(
            "Share",
            "Part of the stripes of an event that each process owns as a hint.",
            [Query(f"inventory_member_share_ratio{{{F}}}", "{{instance}}")],
            "percentunit",
            width=6,
            high=1,
        ),
        Panel(
            "Age of the last beat",
            "Time since the last update of the membership item. After three beats the others forget the process.",
            [Query(f"inventory_member_beat_age_seconds{{{F}}}", "{{instance}}")],
            "s",
            width=6,
            thresholds=steps((GREEN, None), (AMBER, 10), (RED, 120)),
        ),
        Panel(
            "Clock difference",
            "Largest certain difference between the clocks of each process and of another one.",
            [Query(f"inventory_member_clock_difference_seconds{{{F}}}", "{{instance}}")],
            "s",
            width=6,
            thresholds=steps((GREEN, None), (RED, 1)),
        ),
        Panel(
            "Beats",
            "Updates of the membership item per second, by result.",
            [Query(f"sum by (result) ({counter('inventory_member_beats_total')})", "{{result}}")],
            "ops",
            width=12,
        ),
        Panel(
            "Trouble with the item",
            "Processes that the full item does not list, and entries that cannot be read.",
            [
                Query(f"sum(inventory_member_unlisted{{{F}}})", "unlisted"),
                Query(f"max(inventory_member_entries_unreadable{{{F}}})", "unreadable"),
            ],
            "none",
            width=12,
            thresholds=steps((GREEN, None), (RED, 1)),
        ),
    ],
)

PROCESS = Row(
    "Processes",
    [
        Panel(
            "Process CPU",
            "Cores in use, including the control plane.",
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
            "File descriptors",
            "Open file descriptors as a share of the limit.",
            [Query(f"process_open_fds{{{F}}} / process_max_fds{{{F}}}", "{{instance}}")],
            "percentunit",
            width=6,
            thresholds=steps((GREEN, None), (AMBER, 0.7), (RED, 0.9)),
            high=1,
        ),
        Panel(
            "Uptime",
            "Time since process start.",
            [Query(f"time() - process_start_time_seconds{{{F}}}", "{{instance}}")],
            "s",
            width=6,
        ),
        Panel(
            "Spans",
            "Exported and dropped spans per second.",
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
            "Per second, because the reader of the log is too slow.",
            [Query(counter("inventory_log_lines_dropped_total"), "{{instance}}")],
            "ops",
            thresholds=steps((GREEN, None), (AMBER, 1e-9)),
        ),
        Panel(
            "Missing shards",
            "Shards that did not answer a scrape; their last metrics are shown.",
            [Query(f"inventory_scrape_incomplete{{{F}}}", "{{instance}}")],
            "none",
            thresholds=steps((GREEN, None), (RED, 1)),
        ),
        Panel(
            "Builds",
            "Version and architecture by server.",
            [
                Query(
                    f"sum by (instance, service, version, revision, arch) (inventory_build_info{{{F}}})",
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

# Certificates are renewed weeks before they expire; InventoryTlsCertificateExpiresSoon fires below seven days.
EXPIRY = steps((RED, None), (AMBER, 7 * 86_400), (GREEN, 21 * 86_400))
# Results of handshakes whose client is refused.
REFUSED = "no_certificate|unknown_authority|certificate_.+|name_not_allowed|no_http2|incompatible|protocol_error|plaintext"

TLS = Row(
    "TLS and access",
    [
        Panel(
            "Time to certificate expiry",
            "Until the first certificate of the chain in use expires, by port.",
            [
                Query(
                    f"inventory_tls_certificate_expiry_timestamp_seconds{{{F}}} - time()",
                    "{{instance}} {{port}}",
                )
            ],
            "s",
            thresholds=EXPIRY,
            low=None,
        ),
        Panel(
            "TLS handshakes",
            "Per second, by result. Results that are no refusal and not ok are clients that went away or were too slow.",
            [Query(f"sum by (result) ({counter('inventory_tls_handshakes_total')})", "{{result}}")],
            "ops",
        ),
        Panel(
            "Refused clients",
            "TLS handshakes per second that the server refused, by port and reason.",
            [
                Query(
                    "sum by (port, result) ("
                    f'rate(inventory_tls_handshakes_total{{{F}, result=~"{REFUSED}"}}{R}))',
                    "{{port}} {{result}}",
                )
            ],
            "ops",
            thresholds=steps((GREEN, None), (AMBER, 1e-9)),
        ),
        Panel(
            "Reloads of TLS files",
            "Changes of the files in the last hour, by result; and whether they hold a certificate that cannot be used now.",
            [
                Query(
                    f"sum by (port, result) (increase(inventory_tls_reloads_total{{{F}}}[1h]))",
                    "{{port}} {{result}}",
                ),
                Query(f"max by (port) (inventory_tls_files_rejected{{{F}}})", "{{port}} rejected"),
            ],
            "none",
            thresholds=steps((GREEN, None), (RED, 1)),
        ),
        Panel(
            "Clients of other protocols",
            "Connections per second to the gRPC port without HTTP/2, by what the client speaks.",
            [
                Query(
                    f"sum by (protocol) ({counter('inventory_wrong_protocol_connections_total')})",
                    "{{protocol}}",
                )
            ],
            "ops",
            thresholds=steps((GREEN, None), (AMBER, 1e-9)),
        ),
        Panel(
            "Refused admin calls",
            "Calls per second on the admin port without a valid token, by reason.",
            [
                Query(
                    f"sum by (reason) ({counter('inventory_admin_calls_refused_total')})",
                    "{{reason}}",
                )
            ],
            "ops",
            thresholds=steps((GREEN, None), (AMBER, 1e-9)),
        ),
    ],
)

DASHBOARD = dashboard(
    "inventory-shards",
    "inventory-api / Shards",
    "Shards and processes: load, queues, stalls, group commit, TLS, memory.",
    [JOB, INSTANCE],
    [NOW, WORK, LANES, MEMBERS, TLS, PROCESS],
)
