"""Cost of observability: server CPU per call with scrapes and unsampled tracing, compared with neither.

Two servers run at the same time on the same CPU, each with its own load, so that noise affects both. Each
round yields a ratio; the median is checked. The start order alternates between rounds. Counters are always
updated: "off" means that there are no scrapes and no exporter."""

import json
import os
import pathlib
import statistics
import subprocess
import threading

from harness import ROOT, Server, Skip
from metrics_cases import text_of
from receiver import Receiver

ROUNDS = 9
RATIO_MAX = 1.05
# Calls per second for each of the two servers.
RATE = {"release": 4000, "debug": 1500}
# Three times the usual frequency.
SCRAPE_EVERY_SECONDS = 5
SCENARIO = pathlib.Path(__file__).resolve().parent / "cost.toml"


class Scraper(threading.Thread):
    """Scrapes the metrics periodically; a context manager."""

    def __init__(self, address: str):
        super().__init__(daemon=True)
        self.address, self.over, self.scrapes = address, threading.Event(), 0

    def run(self):
        while not self.over.wait(SCRAPE_EVERY_SECONDS):
            text_of(self.address)
            self.scrapes += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def cpu_per_call(report: dict) -> float:
    """Server CPU per call in µs, from the report of the generator."""
    server = next(process for process in report["processes"] if process["name"] == "server")
    return float(server["cpu_us_per_call"])


class Run:
    """A new server with its own load."""

    def __init__(
        self,
        on: bool,
        generator: pathlib.Path,
        binary: pathlib.Path,
        folder: pathlib.Path,
        receiver: Receiver,
    ):
        name = "on" if on else "off"
        self.generator, self.report = generator, folder / f"cost-{name}.json"
        if on:
            settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRACES_SAMPLER_ARG": "0"}
        else:
            settings = {"OTEL_SDK_DISABLED": "true"}
        self.server = Server(binary, folder / f"cost-{name}.log", SHARDS="1", **settings)

    def begin(self) -> None:
        self.process = subprocess.Popen(
            [
                self.generator,
                SCENARIO,
                "--quiet",
                "--target",
                self.server.address,
                "--admin",
                self.server.ports["admin"],
                "--server-pid",
                str(self.server.process.pid),
                "--rate",
                str(RATE[self.generator.parent.name]),
                "--json",
                self.report,
                *(["--pin", "1"] if (os.cpu_count() or 1) > 1 else []),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def cost(self) -> float:
        said, _ = self.process.communicate(timeout=120)
        assert self.process.returncode in (0, 3), f"exit code {self.process.returncode}\n{said}"
        return cpu_per_call(json.loads(self.report.read_text(encoding="utf-8")))


def measured(first: bool, make) -> dict[bool, float]:
    """CPU per call in µs, by whether observability is on."""
    runs = {on: make(on) for on in (first, not first)}
    with runs[first].server, runs[not first].server:
        with Scraper(runs[True].server.ports["metrics"]) as scraper:
            for run in runs.values():
                run.begin()
            costs = {on: run.cost() for on, run in runs.items()}
        assert scraper.scrapes >= 1, "no scrape happened"
    return costs


def play(generator: pathlib.Path | None, binary: pathlib.Path, folder: pathlib.Path) -> None:
    if generator is None:
        raise Skip("the generator is not built: cargo build --profile dist --package inventory-generator")
    if binary.parent.name == "debug":
        raise Skip(f"{binary.relative_to(ROOT)} is a debug build; its cost is not meaningful")
    ratios = []
    with Receiver(folder) as receiver:
        for number in range(ROUNDS):
            cost = measured(number % 2 == 0, lambda on: Run(on, generator, binary, folder, receiver))
            ratios.append(cost[True] / cost[False])
            print(
                f"     round {number + 1}: off {cost[False]:.2f} µs, on {cost[True]:.2f} µs, "
                f"{ratios[-1]:.3f}",
                flush=True,
            )
        assert not receiver.spans, "spans were sampled"
    median = statistics.median(ratios)
    print(
        f"     median {median:.3f} of off, {min(ratios):.3f} to {max(ratios):.3f}; at most {RATIO_MAX}",
        flush=True,
    )
    assert median <= RATIO_MAX, median
