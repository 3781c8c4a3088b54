"""The sale view: what a person watches while tickets are sold. How the server does it lives in shards.py
and store.py."""

from grafana import (
    AMBER,
    ANY_IS_BAD,
    EVENT,
    GREEN,
    INSTANCE,
    JOB,
    NO_THRESHOLD,
    PROMISE,
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
    "Is the sale all right?",
    [
        stat(
            "Sold",
            "Reservations confirmed in a second, over all servers.",
            f'sum(rate(inventory_commit_reservations_total{{{F}, status="CONFIRMED"}}{R}))',
            "ops",
            NO_THRESHOLD,
        ),
        stat(
            "P95 of writes",
            "The slowest method's and server's exact 95th percentile over about 30 seconds: commits and "
            "holds. Promised: 40 ms.",
            f'max(grpc_request_latency_seconds{{{F}, {WRITES}, quantile="0.95"}})',
            "s",
            PROMISE,
        ),
        stat(
            "Slower than 40 ms",
            "Of all commits and holds. At most 5 % is the promise; the alerts count this share.",
            f'1 - sum(rate(grpc_request_duration_seconds_bucket{{{F}, {WRITES}, le="0.04"}}{R}))'
            f" / sum(rate(grpc_request_duration_seconds_count{{{F}, {WRITES}}}{R}))",
            "percentunit",
            steps((GREEN, None), (AMBER, 0.03), (RED, 0.05)),
        ),
        stat(
            "Failed",
            "Of all calls, those that failed by the server's fault: overload, deadline, store away. "
            "Refusals that are business do not count. At most 0.5 % is the promise.",
            f"(sum({calls(', ' + FAULTS)}) or 0 * sum({calls()})) / sum({calls()})",
            "percentunit",
            steps((GREEN, None), (AMBER, 0.0025), (RED, 0.005)),
        ),
        stat(
            "Impossible stock",
            "Readings of stock that cannot be, since the start. Anything but 0: run `inventory-api verify`.",
            f"sum(inventory_invariant_breaches_total{{{F}}})",
            "none",
            ANY_IS_BAD,
            decimals=0,
        ),
        stat(
            "Servers ready",
            "How many servers take calls.",
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
            "Remaining",
            "Units still to be sold, of the 20 busiest events; the others are summed as `other`. At most "
            "some 10 s old. Servers that share an event all tell it: the lowest is shown.",
            [
                Query(
                    f'min by (event_id) (inventory_event_units{{{EVENTS}, state="remaining"}})',
                    "{{event_id}}",
                )
            ],
            "none",
        ),
        Panel(
            "Sold out in",
            "What remains, at the pace of the last minutes. Nothing for an event that does not sell.",
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
            "Commits and holds written in a second, by event.",
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
            "Gone",
            "The part of each event that is held, sold or blocked.",
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
            "Of the events chosen. Seats are held or sold; of a number of tickets the stripes only tell "
            "that they are taken.",
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
            "Expired holds given back",
            "Holds whose time was over and whose stock is on sale again, in a second; and how long after "
            "their end that was, for 95 of 100. An alert speaks at 10 s.",
            [
                Query(
                    f"sum by (inventory_type) (rate(inventory_holds_reclaimed_total{{{F}}}{R}))",
                    "{{inventory_type}}/s",
                ),
                Query(
                    "histogram_quantile(0.95, sum by (le) "
                    f"(rate(inventory_hold_reclaim_lag_seconds_bucket{{{F}}}{R})))",
                    "P95 of lag, s",
                ),
            ],
        ),
    ],
)

LATENCY = Row(
    "How long buyers wait",
    [
        Panel(
            "Writes, exact percentiles",
            "Commits and holds: of each percentile the slowest method and server, over about 30 s. The "
            "line is the promise for P95.",
            [Query(f"max by (quantile) (grpc_request_latency_seconds{{{F}, {WRITES}}})", "p{{quantile}}")],
            "s",
            thresholds=PROMISE,
        ),
        Panel(
            "P95 by method",
            "Exact, over about 30 s, of the slowest server.",
            [
                Query(
                    f'max by (method) (grpc_request_latency_seconds{{{F}, {API}, quantile="0.95"}})',
                    "{{method}}",
                )
            ],
            "s",
            thresholds=PROMISE,
        ),
        Panel(
            "Writes, where they fall",
            "How many commits and holds took how long, from the histogram's buckets.",
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
            "Error and latency budget",
            "How many times faster than allowed each budget burns, over 5 and over 30 minutes: 1 is "
            "just the promise, alerts speak at 2 and at 6. From the recording rules.",
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
            "Calls under way",
            "Taken and not answered yet, and those of them that stand in line for a lane.",
            [
                Query(f"sum(grpc_active_requests{{{F}}})", "under way"),
                Query(f"sum(inventory_line_depth{{{F}}})", "in line"),
            ],
            "none",
            width=12,
        ),
    ],
)

CALLS = Row(
    "What they ask, and what they are told",
    [
        Panel(
            "Calls",
            "Answered in a second, by method.",
            [Query(f"sum by (method) ({calls()})", "{{method}}")],
            "ops",
            stacked=True,
            width=12,
        ),
        Panel(
            "Answers other than OK",
            "By gRPC status. ABORTED, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION and INVALID_ARGUMENT are "
            "business; the others are the server's.",
            [Query("sum by (status) (" + calls(', status!="OK"') + ")", "{{status}}")],
            "ops",
            stacked=True,
            width=12,
        ),
        outcomes(
            "Commits",
            "inventory_commit_reservations_total",
            "status",
            "CommitReservation of both contracts, by outcome.",
        ),
        outcomes("Holds", "inventory_place_holds_total", "status", "PlaceHold and ReserveSeat, by outcome."),
        outcomes(
            "Releases",
            "inventory_release_holds_total",
            "status",
            "ReleaseHold of both contracts, by outcome.",
        ),
        outcomes(
            "Checks",
            "inventory_check_availability_total",
            "result",
            "CheckAvailability of both contracts, by result.",
        ),
        Panel(
            "Met others",
            "Operations that met another one: sold out, a taken seat, an id used twice.",
            [
                Query(
                    f"sum by (conflict_type) (rate(inventory_conflicts_total{{{F}}}{R}))", "{{conflict_type}}"
                )
            ],
            "ops",
        ),
        Panel(
            "Turned away",
            "`line`: it was longer than the caller's deadline; `full`: a queue was at its bound.",
            [Query(f"sum by (why) (rate(inventory_shed_total{{{F}}}{R}))", "{{why}}")],
            "ops",
        ),
        Panel(
            "Repeats answered from memory",
            "The part of the calls that a shard answered from what it remembers of their reservation_id.",
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
        ),
    ],
)

DASHBOARD = dashboard(
    "inventory-sale",
    "inventory-api / Sale",
    "A sale, as its buyers have it: stock, pace, waiting, refusals.",
    [JOB, INSTANCE, EVENT],
    [NOW, STOCK, LATENCY, CALLS],
)
