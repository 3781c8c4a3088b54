"""Checks /metrics: the format, that every metric exists, the cost of a scrape, and the alerts that fire."""

import re
import subprocess
import urllib.request

from harness import Skip
from prometheus import Prometheus, numbers, until

SCRAPE_SECONDS_MAX = 0.005
EVENTS_MAX = 21

# Every metric in the documentation.
FAMILIES = """
grpc_request_duration_seconds grpc_requests_total grpc_active_requests grpc_request_latency_seconds
dynamodb_operation_duration_seconds dynamodb_requests_total dynamodb_consumed_units_total
inventory_commit_reservations_total inventory_place_holds_total inventory_release_holds_total
inventory_check_availability_total inventory_conflicts_total idempotency_hits_total idempotency_misses_total
inventory_retries_total inventory_admission_rejections_total inventory_queries_total inventory_snapshot_refreshes_total
inventory_snapshot_age_seconds inventory_lane_transactions_total inventory_lane_entries_total
inventory_lane_batch_entries inventory_queue_wait_seconds inventory_stock_moves_total
inventory_stock_moved_units_total inventory_unknown_outcomes_total
inventory_unknown_resolved_total inventory_sold_out_without_write_total inventory_holds_reclaimed_total
inventory_hold_reclaim_lag_seconds inventory_event_units inventory_event_reservations_total
inventory_invariant_breaches_total inventory_shard_connections inventory_shard_connections_evicted_total
inventory_queue_depth
inventory_shard_active_requests inventory_shard_requests_total inventory_shard_transactions_in_flight
inventory_shard_cpu_seconds_total inventory_shard_busy_ratio inventory_shard_scrape_seconds
inventory_shard_heartbeat_age_seconds inventory_shard_stalls_total inventory_ready
inventory_trace_spans_exported_total inventory_scrape_incomplete inventory_log_lines_dropped_total
inventory_build_info process_cpu_seconds_total process_resident_memory_bytes process_open_fds process_max_fds
process_start_time_seconds
""".split()

# Alerts that this load must trigger, and alerts that it must not.
FIRING = ["InventoryCallsRejected", "InventoryErrorBudgetFastBurn"]
NOT_FIRING = [
    "InventoryInvariantBreached",
    "InventoryOversold",
    "InventoryUnknownOutcomesUnresolved",
    "InventoryWritesThrottled",
    "InventoryStoreErrors",
    "InventoryShardUnresponsive",
    "InventoryNotReady",
    "InventoryNoServerReady",
    "InventoryTargetDown",
    "InventoryTargetsMissing",
    "InventoryRestarted",
    "InventoryFileDescriptorsLow",
    "InventoryConnectionsEvicted",
]


def text_of(metrics_address: str) -> str:
    with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=10) as answer:
        return answer.read().decode()


def play(suite, server, prometheus: Prometheus, start: float, end: float) -> None:
    text = text_of(server.ports["metrics"])

    @suite.case("promtool check metrics is clean under load")
    def _():
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        said = sorted(set((done.stdout + done.stderr).splitlines()))
        assert done.returncode == 0 and not said, "\n".join(said)

    @suite.case("every documented metric exists")
    def _():
        there = set(re.findall(r"^# TYPE (\S+)", text, re.M))
        missing = [name for name in FAMILIES if name not in there]
        assert not missing, f"missing: {' '.join(missing)}"

    @suite.case(f"no more than {EVENTS_MAX} events have series of their own")
    def _():
        events = set(re.findall(r'event_id="([^"]*)"', text))
        assert 4 <= len(events) <= EVENTS_MAX, events

    @suite.case("a scrape takes less than 5 ms on each shard")
    def _():
        series = prometheus.range("inventory_shard_scrape_seconds", start, end)
        assert series, "no samples"
        worst = {one["metric"]["shard"]: max(numbers([one])) for one in series}
        calls = numbers(prometheus.instant("sum(grpc_request_duration_seconds_count)", end))
        shown = ", ".join(f"shard {shard} {seconds * 1e3:.3f} ms" for shard, seconds in sorted(worst.items()))
        scrapes = max(len(one["values"]) for one in series)
        print(f"     at most, in {scrapes} scrapes and {calls[0]:.0f} calls: {shown}", flush=True)
        if server.binary.parent.name == "debug":
            raise Skip(f"the bound is for a release build; this debug build had {shown}")
        assert max(worst.values()) < SCRAPE_SECONDS_MAX, shown

    @suite.case("no scrape failed or was incomplete")
    def _():
        assert min(numbers(prometheus.range("up", start, end))) == 1
        assert max(numbers(prometheus.range("inventory_scrape_incomplete", start, end))) == 0

    @suite.case("the load triggers the expected alerts and no others")
    def _():
        states = prometheus.alerts()
        fired = {
            one["metric"]["alertname"]
            for one in prometheus.range('ALERTS{alertstate=~"pending|firing"}', start, end)
        }
        print(f"     fired: {', '.join(sorted(fired)) or 'none'}", flush=True)
        assert set(FIRING) | set(NOT_FIRING) <= set(states), "unknown alert name"
        assert set(FIRING) <= fired, f"not fired: {set(FIRING) - fired}"
        assert not fired & set(NOT_FIRING), f"fired: {fired & set(NOT_FIRING)}"


def play_termination(suite, prometheus: Prometheus) -> None:
    """Cases after the server has exited."""

    @suite.case("a terminated server triggers InventoryTargetDown")
    def _():
        until(
            lambda: prometheus.alerts()["InventoryTargetDown"] in ("pending", "firing"),
            15,
            "InventoryTargetDown pending",
        )
