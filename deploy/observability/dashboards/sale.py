"""The sale dashboard: stock, latency, errors and outcomes. Shards are in shards.py, the store in store.py."""

from grafana import (
    AMBER,
    ANY_IS_BAD,
    EVENT,
    GREEN,
    INSTANCE,
    JOB,
    NO_THRESHOLD,
    OBJECTIVE,
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
WRITES = 'method=~".*/(CommitReservation|PlaceHold|ReserveSeat)"'
API = 'method=~"/(inventory.v1.Inventory|reservation.v1.InventoryService)/.*"'
FAULTS = 'status=~"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|UNKNOWN|DATA_LOSS"'
EVENTS = f'{F}, event_id=~"$event"'


def calls(more: str = "") -> str:
    return f"rate(grpc_requests_total{{{F}, {API}{more}}}{R})"


def outcomes(title: str, metric: str, label: str, about: str) -> Panel:
    expr = f"sum by (inventory_type, {label}) (rate({metric}{{{F}}}{R}))"
    return Panel(title, about, [Query(expr, f"{{{{inventory_type}}}} {{{{{label}}}}}")], "ops", width=6)


NOW = Row(
    "Overview",
    [
        stat(
            "Sold",
            "Confirmed reservations per second, all servers.",
            f'sum(rate(inventory_commit_reservations_total{{{F}, status="CONFIRMED"}}{R}))',
            "ops",
            NO_THRESHOLD,
        ),
        stat(
            "P95 of writes",
            "Exact 95th percentile of commits and holds over about 30 s, slowest method and server. "
            "Objective: 40 ms.",
            f'max(grpc_request_latency_seconds{{{F}, {WRITES}, quantile="0.95"}})',
            "s",
            OBJECTIVE,
        ),
        stat(
            "Writes above 40 ms",
            "Share of all commits and holds. Objective: at most 5 %; the alerts use this share.",
            f'1 - sum(rate(grpc_request_duration_seconds_bucket{{{F}, {WRITES}, le="0.04"}}{R}))'
            f" / sum(rate(grpc_request_duration_seconds_count{{{F}, {WRITES}}}{R}))",
            "percentunit",
            steps((GREEN, None), (AMBER, 0.03), (RED, 0.05)),
        ),
        stat(
            "Failed calls",
            "Share of all calls that failed with a server error: overload, deadline, store unavailable. "
            "Business rejections do not count. Objective: at most 0.5 %.",
            f"(sum({calls(', ' + FAULTS)}) or 0 * sum({calls()})) / sum({calls()})",
            "percentunit",
            steps((GREEN, None), (AMBER, 0.0025), (RED, 0.005)),
        ),
        stat(
            "Invariant breaches",
            "Reads of inconsistent stock since process start. If not 0, run `inventory-api verify`.",
            f"sum(inventory_invariant_breaches_total{{{F}}})",
            "none",
            ANY_IS_BAD,
            decimals=0,
        ),
        stat(
            "Servers ready",
            "Number of servers that are ready.",
            f"sum(inventory_ready{{{F}}})",
            "none",
            steps((RED, None), (GREEN, 1)),
            decimals=0,
        ),
    ],
)

STOCK = Row(
    "Stock",
    [
        Panel(
            "Remaining units",
            "Units that can be sold, for the 20 busiest events; about 10 s old at most. If several servers "
            "report an event, the lowest value is shown.",
            [
                Query(
                    f'min by (event_id) (inventory_event_units{{{EVENTS}, state="remaining"}})',
                    "{{event_id}}",
                )
            ],
            "none",
        ),
        Panel(
            "Time to sell-out",
            "Remaining units divided by the current sales rate. Empty for an event without sales.",
            [
                Query(
                    f'min by (event_id) (inventory_event_units{{{EVENTS}, state="remaining"}})'
                    f" / (sum by (event_id) (rate(inventory_event_reservations_total{{{EVENTS}}}{R})) > 0)",
                    "{{event_id}}",
                )
            ],
            "s",
        ),
        Panel(
            "Reservations by event",
            "Commits and holds written per second; events without a series of their own are `other`.",
            [
                Query(
                    f"sum by (event_id) (rate(inventory_event_reservations_total{{{EVENTS}}}{R}))",
                    "{{event_id}}",
                )
            ],
            "ops",
            stacked=True,
        ),
        Panel(
            "Taken share",
            "Share of each event that is held, sold or blocked.",
            [
                Query(
                    f'1 - min by (event_id) (inventory_event_units{{{EVENTS}, state="remaining"}})'
                    f' / (max by (event_id) (inventory_event_units{{{EVENTS}, state="total"}}) > 0)',
                    "{{event_id}}",
                    instant=True,
                )
            ],
            "percentunit",
            "bargauge",
            high=1,
            thresholds=steps((GREEN, None), (AMBER, 0.9), (RED, 1)),
        ),
        Panel(
            "Stock by state",
            "Selected events, by state: remaining, held, sold, and for seats blocked.",
            [
                Query(
                    f'sum by (state) (max by (event_id, state) (inventory_event_units{{{EVENTS}, state!="total"}}))',
                    "{{state}}",
                )
            ],
            "none",
            stacked=True,
        ),
        Panel(
            "Reclaimed holds",
            "Expired holds reclaimed per second, and the 95th percentile of the time from expiry to reclaim. "
            "An alert fires at 10 s.",
            [
                Query(
                    f"sum by (inventory_type) (rate(inventory_holds_reclaimed_total{{{F}}}{R}))",
                    "{{inventory_type}}/s",
                ),
                Query(
                    "histogram_quantile(0.95, sum by (le) "
                    f"(rate(inventory_hold_reclaim_lag_seconds_bucket{{{F}}}{R})))",
                    "P95 lag, s",
                ),
            ],
        ),
        Panel(
            "Overdue holds",
            "Age of the oldest hold that has expired and is not returned, and the time since the expiry index was "
            "read: its recent part, and all of it. Alerts fire at 30 s, at one minute and at half an hour.",
            [
                Query(f"max(inventory_hold_overdue_seconds{{{F}}})", "oldest overdue, s"),
                Query(
                    f"max by (scope) (inventory_hold_search_age_seconds{{{F}}})",
                    "{{scope}} read before, s",
                ),
            ],
        ),
    ],
)

LATENCY = Row(
    "Latency",
    [
        Panel(
            "Write latency percentiles",
            "Exact percentiles of commits and holds over about 30 s, slowest method and server. The line is "
            "the objective for P95.",
            [Query(f"max by (quantile) (grpc_request_latency_seconds{{{F}, {WRITES}}})", "p{{quantile}}")],
            "s",
            thresholds=OBJECTIVE,
        ),
        Panel(
            "P95 by method",
            "Exact 95th percentile over about 30 s, slowest server.",
            [
                Query(
                    f'max by (method) (grpc_request_latency_seconds{{{F}, {API}, quantile="0.95"}})',
                    "{{method}}",
                )
            ],
            "s",
            thresholds=OBJECTIVE,
        ),
        Panel(
            "Write latency distribution",
            "Commits and holds by latency bucket.",
            [
                Query(
                    f"sum by (le) (rate(grpc_request_duration_seconds_bucket{{{F}, {WRITES}}}{R}))",
                    heatmap=True,
                )
            ],
            "s",
            "heatmap",
        ),
        Panel(
            "Error and latency budgets",
            "Burn rate of each budget over 5 and 30 minutes: 1 is the objective, alerts fire at 2 and 6. Uses "
            "the recording rules.",
            [
                Query('max(job:inventory_writes_slow:ratio_rate5m{job="$job"}) / 0.05', "latency, 5 min"),
                Query('max(job:inventory_writes_slow:ratio_rate30m{job="$job"}) / 0.05', "latency, 30 min"),
                Query('max(job:inventory_calls_failed:ratio_rate5m{job="$job"}) / 0.005', "errors, 5 min"),
                Query('max(job:inventory_calls_failed:ratio_rate30m{job="$job"}) / 0.005', "errors, 30 min"),
            ],
            "none",
            thresholds=steps((GREEN, None), (AMBER, 1), (RED, 6)),
            width=12,
        ),
        Panel(
            "Calls in flight",
            "Calls without a response yet, and those of them that are queued for a transaction.",
            [
                Query(f"sum(grpc_active_requests{{{F}}})", "in flight"),
                Query(f"sum(inventory_queue_depth{{{F}}})", "queued"),
            ],
            "none",
            width=12,
        ),
    ],
)

CALLS = Row(
    "Calls and outcomes",
    [
        Panel(
            "Calls",
            "Responses per second, by method.",
            [Query(f"sum by (method) ({calls()})", "{{method}}")],
            "ops",
            stacked=True,
            width=12,
        ),
        Panel(
            "Responses other than OK",
            "By gRPC status. ABORTED, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION and INVALID_ARGUMENT are "
            "business rejections; the others are server errors.",
            [Query("sum by (status) (" + calls(', status!="OK"') + ")", "{{status}}")],
            "ops",
            stacked=True,
            width=12,
        ),
        outcomes(
            "Commits",
            "inventory_commit_reservations_total",
            "status",
            "CommitReservation of both services, by outcome.",
        ),
        outcomes("Holds", "inventory_place_holds_total", "status", "PlaceHold and ReserveSeat, by outcome."),
        outcomes(
            "Releases",
            "inventory_release_holds_total",
            "status",
            "ReleaseHold of both services, by outcome.",
        ),
        outcomes(
            "Checks",
            "inventory_check_availability_total",
            "result",
            "CheckAvailability of both services, by result.",
        ),
        Panel(
            "Conflicts",
            "Operations refused because of another one: sold out, seat taken, reservation_id reused.",
            [
                Query(
                    f"sum by (conflict_type) (rate(inventory_conflicts_total{{{F}}}{R}))", "{{conflict_type}}"
                )
            ],
            "ops",
            width=6,
        ),
        Panel(
            "Payment conflicts",
            "Commits since process start, refused because the reservation is confirmed with another payment: a "
            "buyer may have paid twice. An alert fires at the first.",
            [Query(f'sum(inventory_conflicts_total{{{F}, conflict_type="PAYMENT_CONFLICT"}})', "conflicts")],
            "none",
            width=6,
            thresholds=ANY_IS_BAD,
            decimals=0,
        ),
        Panel(
            "Rejected by admission control",
            "`deadline`: the call would have missed its deadline; `queue_full`: a queue was full.",
            [Query(f"sum by (reason) (rate(inventory_admission_rejections_total{{{F}}}{R}))", "{{reason}}")],
            "ops",
            width=6,
        ),
        Panel(
            "Retries answered from the cache",
            "Share of the calls that a shard answered from its cache of settled reservations.",
            [
                Query(
                    f"(sum by (operation_type) (rate(idempotency_hits_total{{{F}}}{R}))"
                    f" or 0 * sum by (operation_type) (rate(idempotency_misses_total{{{F}}}{R})))"
                    f" / ((sum by (operation_type) (rate(idempotency_hits_total{{{F}}}{R}))"
                    f" or 0 * sum by (operation_type) (rate(idempotency_misses_total{{{F}}}{R})))"
                    f" + sum by (operation_type) (rate(idempotency_misses_total{{{F}}}{R})))",
                    "{{operation_type}}",
                )
            ],
            "percentunit",
            width=6,
        ),
    ],
)

DASHBOARD = dashboard(
    "inventory-sale",
    "inventory-api / Sale",
    "A sale as callers see it: stock, sales rate, latency, rejections.",
    [JOB, INSTANCE, EVENT],
    [NOW, STOCK, LATENCY, CALLS],
)
