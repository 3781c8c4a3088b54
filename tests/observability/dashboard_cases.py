"""Checks dashboards and rules against a live Prometheus: every expression must return data.

An empty result is a failure. Series that are absent as long as nothing goes wrong are listed in ABSENT with
the reason; no other series may be absent."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml
from harness import ROOT
from prometheus import JOB, SCRAPE_SECONDS, Prometheus, QueryError, numbers
from promql import always_answered, chosen, rate_interval, selectors, substituted
from rules_cases import promtool, rule_files, rules

DASHBOARDS = ROOT / "deploy/observability/dashboards"

# Selectors without series in a run without errors. Expressions with these selectors return 0.
ABSENT = {
    r'dynamodb_requests_total\{.*status=~?"[^"]*(throttled|refused)': "the engine never throttles or refuses",
    r"inventory_store_credentials_expiry_timestamp_seconds": "the embedded engine needs no credentials",
    r"inventory_tls_": "the server of this run has no TLS",
    r"inventory_admin_calls_refused_total": "the admin port of this run needs no token",
    r"inventory_wrong_protocol_connections_total": "created with the first such connection",
    r"inventory_trace_spans_dropped_total": "created with the first dropped span",
}
# Alerts whose expression is empty while everything is present.
ABOUT_ABSENCE = {"InventoryTargetsMissing"}


def dashboards() -> dict[str, dict]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))
    }


def panels(dashboard: dict) -> list[dict]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def variable_queries(dashboard: dict) -> dict[str, tuple[str, str]]:
    """Selector and label of each variable that lists label values."""
    found = {}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert parts, variable["query"]
            found[variable["name"]] = (parts[1], parts[2])
    return found


def panel_errors(panel: dict) -> list[str]:
    where = panel["title"]
    found = []
    if len(panel.get("description", "")) < 10:
        found.append(f"{where}: no description")
    if not panel["fieldConfig"]["defaults"].get("unit"):
        found.append(f"{where}: no unit")
    if not panel["targets"]:
        found.append(f"{where}: no query")
    place = panel["gridPos"]
    if place["x"] + place["w"] > 24:
        found.append(f"{where}: wider than the grid")
    return found


# Fields that Grafana reads but its published types lack: the annotation fields of the Prometheus plugin.
UNTYPED_FIELDS = {".annotations.list[].titleFormat"}


def lost_paths(ours, theirs, where: str = ""):
    """Paths of the values in `ours` that are missing or different in `theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs or value is not None:
                yield from lost_paths(value, theirs.get(key), f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for mine, other in zip(ours, theirs):
            yield from lost_paths(mine, other, f"{where}[]")
    elif ours != theirs:
        yield where


def round_trip(dashboard: dict) -> dict:
    """The dashboard after a round trip through the types that Grafana publishes for version 10."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def play_static(suite) -> None:
    @suite.case("the dashboards use only fields of the Grafana types")
    def _():
        for name, dashboard in dashboards().items():
            unknown = set(lost_paths(dashboard, round_trip(dashboard))) - UNTYPED_FIELDS
            assert not unknown, f"{name}: {', '.join(sorted(unknown))}"
        panel = dashboard["panels"][1]
        panel["gridPos"]["with"] = panel["gridPos"].pop("w")
        misspelt = set(lost_paths(dashboard, round_trip(dashboard)))
        assert ".panels[].gridPos.with" in misspelt, misspelt

    @suite.case("all files that Prometheus and Grafana mount exist")
    def _():
        place = DASHBOARDS.parent
        with tempfile.TemporaryDirectory() as folder:
            config = shutil.copy(place / "prometheus/prometheus.yml", folder)
            shutil.copytree(place / "rules", pathlib.Path(folder) / "rules")
            done = promtool("check", "config", config)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and f"{len(rule_files())} rule files found" in said, said
        services = yaml.safe_load((place / "compose.yaml").read_text(encoding="utf-8"))["services"]
        mounts = [m.split(":") for s in services.values() for m in s["volumes"] if m.startswith("./")]
        assert mounts and all((place / source).exists() for source, *_ in mounts), mounts
        provider = yaml.safe_load(
            (place / "grafana/provisioning/dashboards/inventory.yaml").read_text(encoding="utf-8")
        )
        path = provider["providers"][0]["options"]["path"]
        assert ["./dashboards", path, "ro"] in mounts, path

    @suite.case("the dashboards are up to date with build.py")
    def _():
        build = [sys.executable, str(DASHBOARDS / "build.py"), "--check"]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @suite.case("every panel has a description, a unit, a query and a grid position")
    def _():
        found = []
        for name, dashboard in dashboards().items():
            found += [
                f"{name}: {what}" for panel in panels(dashboard) for what in panel_errors(panel)
            ]
            numbers_ = [panel["id"] for panel in dashboard["panels"]]
            assert len(set(numbers_)) == len(numbers_), f"{name}: duplicate panel id"
        assert not found, "\n".join(found)

    @suite.case("every write latency panel has the 40 ms threshold")
    def _():
        sale = panels(dashboards()["sale"])
        about = [p for p in sale if any("grpc_request_latency_seconds" in t["expr"] for t in p["targets"])]
        assert about
        for panel in about:
            values = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
            assert 0.04 in values, panel["title"]


class DashboardQueries:
    """Queries over the time range of the load, with the values that Grafana would set for the variables."""

    def __init__(self, prometheus: Prometheus, start: float, end: float, event: str):
        self.prometheus, self.start, self.end = prometheus, start, end
        interval = {
            "__rate_interval": rate_interval(SCRAPE_SECONDS, SCRAPE_SECONDS),
            "__interval": f"{SCRAPE_SECONDS}s",
            "job": JOB,
        }
        self.all = {**interval, "instance": ".*", "event": ".*"}
        self.picked = {
            **interval,
            "instance": chosen([prometheus.target]),
            "event": chosen([event, "evt_nowhere"]),
        }

    def values(self, expr: str) -> list[float]:
        return numbers(self.prometheus.range(expr, self.start, self.end))

    def finds(self, selector: str) -> bool:
        span = f"{int(self.end - self.start) + 5}s"
        return bool(self.prometheus.instant(f"count(last_over_time({selector}[{span}]))", self.end))

    def excused(self, expr: str) -> bool:
        """Whether the expression reads an absent series that ABSENT lists."""
        return any(re.search(a, s) and not self.finds(s) for s in selectors(expr) for a in ABSENT)

    def unexplained(self, exprs: list[str]) -> list[str]:
        """Selectors without series that are not in ABSENT."""
        every = sorted(set().union(*map(selectors, exprs)))
        return [s for s in every if not any(re.search(a, s) for a in ABSENT) and not self.finds(s)]


def play(suite, queries: DashboardQueries) -> None:
    asked = {"queries": 0, "zero": []}

    for name, dashboard in dashboards().items():

        @suite.case(f"dashboard {name}: the variables have values")
        def _(dashboard=dashboard):
            for variable, (selector, label) in variable_queries(dashboard).items():
                match = {"match[]": substituted(selector, queries.all)}
                found = queries.prometheus.get(f"label/{label}/values", **match)
                assert found, f"${variable}: {match}"

        @suite.case(f"dashboard {name}: every query returns data")
        def _(dashboard=dashboard, name=name):
            empty = []
            exprs = [
                (panel["title"], target["expr"]) for panel in panels(dashboard) for target in panel["targets"]
            ]
            for title, expr in exprs:
                for values in (queries.all, queries.picked):
                    asked["queries"] += 1
                    query = substituted(expr, values)
                    try:
                        found = queries.values(query)
                    except QueryError as why:
                        empty.append(f"{title}: {why}")
                        continue
                    if not found and not queries.excused(query):
                        empty.append(f"{title}: nothing for {query}")
                    elif not any(found) and values is queries.all:
                        asked["zero"].append(f"{name} / {title}: {expr}")
            unexplained = queries.unexplained([substituted(expr, queries.all) for _, expr in exprs])
            empty += [f"no such series: {selector}" for selector in unexplained]
            assert not empty, "\n".join(empty)

        @suite.case(f"dashboard {name}: the annotation queries are valid")
        def _(dashboard=dashboard):
            for note in dashboard["annotations"]["list"]:
                queries.values(substituted(note["expr"], queries.all))

    @suite.case("a wrong metric name is detected even if the expression returns 0")
    def _():
        wrong = 'sum(rate(inventory_shed{job="inventory-api"}[5s])) or vector(0)'
        assert queries.values(wrong) and queries.unexplained([wrong]), "not detected"
        mistaken = 'rate(inventory_admission_rejections_total{reason="unknown"}[5s]) > 0'
        assert not queries.values(always_answered(mistaken)) and queries.unexplained([mistaken]), "not detected"

    @suite.case("every rule is evaluated without an error")
    def _():
        for group in queries.prometheus.get("rules")["groups"]:
            for rule in group["rules"]:
                assert rule["health"] == "ok", f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}"

    @suite.case("every rule expression returns data")
    def _():
        empty = []
        exprs = []
        for _, rule in rules():
            name = rule.get("alert") or rule["record"]
            asked["queries"] += 1
            expr = always_answered(rule["expr"])
            if name in ABOUT_ABSENCE:
                # Empty as long as a target exists.
                assert not queries.values(expr), expr
                continue
            exprs.append(rule["expr"])
            if not queries.values(expr) and not queries.excused(rule["expr"]):
                empty.append(f"{name}: {expr}")
        empty += [f"no such series: {selector}" for selector in queries.unexplained(exprs)]
        assert not empty, "\n".join(empty)

    if asked["queries"]:
        print(
            f"     {asked['queries']} queries; {len(asked['zero'])} returned only 0:", flush=True
        )
        for line in asked["zero"]:
            print(f"       {line}", flush=True)
