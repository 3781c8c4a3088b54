"""Runs Prometheus with our rules and one target that is scraped every second; wraps its HTTP API."""

import json
import math
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from harness import ROOT

SCRAPE_SECONDS = 1
READY_SECONDS_MAX = 30
JOB = "inventory-api"

CONFIG = """\
global:
  scrape_interval: {seconds}s
  scrape_timeout: {seconds}s
  evaluation_interval: {seconds}s
rule_files:
  - {rules}/*.yaml
scrape_configs:
  - job_name: {job}
    static_configs:
      - targets: ["{target}"]
"""


class QueryError(AssertionError):
    """Prometheus refused a query."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    def __init__(self, folder: pathlib.Path, target: str):
        self.folder, self.target = folder, target
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        config = self.folder / "prometheus.yml"
        rules = ROOT / "deploy/observability/rules"
        config.write_text(
            CONFIG.format(seconds=SCRAPE_SECONDS, rules=rules, job=JOB, target=self.target), encoding="utf-8"
        )
        self.log = open(self.folder / "log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--web.enable-lifecycle",
            ],
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise SystemExit(f"prometheus did not start; see {self.folder / 'log'}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except OSError:
            return False

    def wait_for_target(self) -> None:
        """Waits for the first scrape and the first rule evaluation."""
        scraped = "up == 1 unless on () ALERTS{alertname='InventoryTargetsMissing'}"
        until(lambda: self.instant(scraped), READY_SECONDS_MAX, "a scrape")

    def get(self, path: str, **parameters):
        """The `data` field of an API response."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            why = json.load(refused).get("error", refused.reason)
            raise QueryError(f"{why}: {parameters.get('query', path)}") from None

    def instant(self, expr: str, at: float | None = None) -> list[dict]:
        when = {} if at is None else {"time": at}
        return self.get("query", query=expr, **when)["result"]

    def range(self, expr: str, start: float, end: float, step: int = SCRAPE_SECONDS) -> list[dict]:
        return self.get("query_range", query=expr, start=start, end=end, step=step)["result"]

    def alerts(self) -> dict[str, str]:
        """The state of each alert: inactive, pending or firing."""
        groups = self.get("rules", type="alert")["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}


def numbers(series: list[dict]) -> list[float]:
    """All finite values of a result."""
    texts = [value for one in series for _, value in one.get("values", []) or [one["value"]]]
    return [number for number in map(float, texts) if math.isfinite(number)]


def until(condition, seconds: float, what: str):
    """Polls the condition and returns its first truthy value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found
