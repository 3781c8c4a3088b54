"""What the server tells at /metrics: its form, that every name is there, what a scrape costs a shard, and
which alerts it makes speak."""

import re
import subprocess
import urllib.request

from harness import Skip
from prometheus import Prometheus, numbers, until

SCRAPE_SECONDS_MAX = 0.005
EVENTS_MAX = 21

# Every family that the documents name. Nothing may vanish unnoticed.
FAMILIES = """
grpc_request_duration_seconds grpc_requests_total grpc_active_requests grpc_request_latency_seconds
dynamodb_operation_duration_seconds dynamodb_requests_total dynamodb_consumed_units_total
inventory_commit_reservations_total inventory_place_holds_total inventory_release_holds_total
inventory_check_availability_total inventory_conflicts_total idempotency_hits_total idempotency_misses_total
inventory_retries_total inventory_shed_total inventory_questions_total inventory_snapshot_refreshes_total
inventory_snapshot_age_seconds inventory_lane_transactions_total inventory_lane_members_total
inventory_lane_batch_members inventory_lane_wait_seconds inventory_unknown_outcomes_total
inventory_unknown_resolved_total inventory_sold_out_looks_total inventory_holds_reclaimed_total
inventory_hold_reclaim_lag_seconds inventory_event_units inventory_event_reservations_total
inventory_invariant_breaches_total inventory_shard_connections inventory_line_depth
inventory_shard_active_requests inventory_shard_requests_total inventory_shard_in_flight
inventory_shard_cpu_seconds_total inventory_shard_busy_ratio inventory_shard_scrape_seconds
inventory_shard_tick_age_seconds inventory_shard_stalls_total inventory_ready
inventory_trace_spans_exported_total inventory_scrape_incomplete inventory_log_lines_dropped_total
inventory_build_info process_cpu_seconds_total process_resident_memory_bytes process_open_fds process_max_fds
process_start_time_seconds
""".split()

# Alerts that this load makes speak, and alerts that no load may.
SPEAK = ["InventorySheds", "InventoryErrorBudgetBurnsFast"]
SILENT = [
    "InventoryInvariantBreached",
    "InventoryOversold",
    "InventoryUnknownOutcomesStay",
    "InventoryWritesThrottled",
    "InventoryStoreFails",
    "InventoryShardStandsStill",
    "InventoryNotReady",
    "InventoryNoneReady",
    "InventoryTargetDown",
    "InventoryTargetsMissing",
    "InventoryRestarted",
    "InventoryDescriptorsLow",
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

    @suite.case("every family that the documents name is there")
    def _():
        there = set(re.findall(r"^# TYPE (\S+)", text, re.M))
        missing = [name for name in FAMILIES if name not in there]
        assert not missing, f"missing: {' '.join(missing)}"

    @suite.case(f"no more than {EVENTS_MAX} events are told apart")
    def _():
        events = set(re.findall(r'event_id="([^"]*)"', text))
        assert 4 <= len(events) <= EVENTS_MAX, events

    @suite.case("a scrape costs no shard 5 ms, over the whole run")
    def _():
        series = prometheus.range("inventory_shard_scrape_seconds", start, end)
        assert series, "no figures"
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

    @suite.case("the alerts that this load deserves speak, and no other of the grave ones")
    def _():
        states = prometheus.alerts()
        spoke = {
            one["metric"]["alertname"]
            for one in prometheus.range('ALERTS{alertstate=~"pending|firing"}', start, end)
        }
        print(f"     spoke: {', '.join(sorted(spoke)) or 'none'}", flush=True)
        assert set(SPEAK) | set(SILENT) <= set(states), "an alert has another name now"
        assert set(SPEAK) <= spoke, f"silent: {set(SPEAK) - spoke}"
        assert not spoke & set(SILENT), f"spoke: {spoke & set(SILENT)}"


def play_death(suite, prometheus: Prometheus) -> None:
    """After the server is gone."""

    @suite.case("a server that is gone is noticed")
    def _():
        until(
            lambda: prometheus.alerts()["InventoryTargetDown"] in ("pending", "firing"),
            15,
            "InventoryTargetDown pending",
        )
