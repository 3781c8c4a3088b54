"""Runs a load against a new server while a live Prometheus and a live OTLP receiver observe it, then checks the
recorded metrics and spans. Started by run.sh."""

import argparse
import os
import pathlib
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "blackbox"), str(HERE)]

from harness import ROOT, Server, Skip, Suite, build, generate

LOAD_SECONDS = 45
# Scrapes until the first rates and the first latency window exist.
SETTLE_SECONDS = 5
# Length of the drawn sale: enough for a latency window before, during and after the rush.
PICTURE_SECONDS = 150
PICTURE_RUSH = (60, 90)
PICTURE_TICKETS = 24_000
PICTURE_RUSH_TICKETS = 20_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, metavar="PATH", help="server binary; default: the newest build")
    parser.add_argument("--cost", action="store_true", help="also measure the cost of metrics and tracing (minutes)")
    parser.add_argument("--only-cost", action="store_true", help="measure only the cost")
    parser.add_argument(
        "--picture", type=pathlib.Path, metavar="SVG", help="only draw the sale dashboard to this file"
    )
    parser.add_argument("--seconds", type=int, default=LOAD_SECONDS, help="length of the load (default %(default)s)")
    parser.add_argument("--fast", action="store_true", help="skip the mutated thresholds")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only the cases whose name contains TEXT")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    return parser.parse_args()


def built(target: pathlib.Path, name: str) -> pathlib.Path | None:
    """Path of a built program: release if present, else debug."""
    return next((p for profile in ("release", "debug") if (p := target / profile / name).exists()), None)


def live(suite: Suite, args, binary: pathlib.Path, folder: pathlib.Path) -> None:
    """All cases that need the server under load."""
    # Imported here because they import the generated modules.
    import dashboard_cases
    import generator
    import load
    import metrics_cases
    import trace_cases
    from prometheus import Prometheus
    from receiver import Receiver

    with Receiver(folder) as receiver:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.05",
        }
        with Server(binary, folder / "server.log", **settings) as server:
            with Prometheus(folder / "prometheus", server.ports["metrics"]) as prometheus:
                prometheus.wait_for_target()
                events = load.Events(server.ports["admin"], 450 * args.seconds, 1_000 * args.seconds)
                start = time.time() + SETTLE_SECONDS
                with load.Load(server.address, events) as clients:
                    program = built(args.target, "generator")
                    suite.case("the load of the generator is served without a violation")(
                        lambda: generator.play(program, server, folder, args.seconds)
                    )
                    remaining = start + args.seconds - time.time()
                    clients.stopping.wait(max(0.0, remaining))
                    end = time.time()
                    queries = dashboard_cases.DashboardQueries(prometheus, start, end, events.hot)
                    metrics_cases.play(suite, server, prometheus, start, end)
                print(
                    f"     {sum(clients.outcomes.values())} calls: {dict(clients.outcomes)}",
                    flush=True,
                )
                suite.case("the load produced all expected outcomes")(lambda: check_outcomes(clients))
                dashboard_cases.play(suite, queries)
                trace_cases.play(suite, server, events, receiver)
                suite.case("SIGTERM ends the server with exit code 0")(server.stop)
                metrics_cases.play_termination(suite, prometheus)


def pictured(binary: pathlib.Path, folder: pathlib.Path, path: pathlib.Path) -> None:
    """Draws a sale with a steady phase, an overload phase and a sell-out."""
    import load
    import picture
    from dashboard_cases import DashboardQueries
    from prometheus import Prometheus

    with Server(binary, folder / "server.log") as server:
        with Prometheus(folder / "prometheus", server.ports["metrics"]) as prometheus:
            prometheus.wait_for_target()
            events = load.Events(server.ports["admin"], hot=PICTURE_TICKETS, narrow=PICTURE_RUSH_TICKETS)
            with load.Load(server.address, events, pause=0.02, rush_in=PICTURE_RUSH) as clients:
                start = time.time() + SETTLE_SECONDS
                clients.stopping.wait(SETTLE_SECONDS + PICTURE_SECONDS)
                queries = DashboardQueries(prometheus, start, time.time(), events.hot)
            first, last = (at - SETTLE_SECONDS for at in PICTURE_RUSH)
            about = (
                f"{PICTURE_TICKETS:,} units; from {first} to {last} s an overload on one stripe with deadlines of 30 to "
                "300 ms; large numbers: median over the time shown"
            )
            picture.draw(queries, events, about, path)


def check_outcomes(clients) -> None:
    assert not clients.broken, clients.broken
    wanted = {"OK", "ABORTED", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
    assert wanted <= set(clients.outcomes), f"never: {wanted - set(clients.outcomes)}"


def main() -> None:
    args = arguments()
    binary = (args.bin or built(args.target, "inventory-api") or build(args.target)).resolve()
    if not binary.exists():
        sys.exit(f"{binary} does not exist; build inventory-api first")
    folder = args.target / "observability"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"     server {os.path.relpath(binary, ROOT)}", flush=True)
    suite = Suite(args.only)
    tools = shutil.which("prometheus") and shutil.which("promtool")
    if not tools:
        suite.case("rules, dashboards and metrics")(
            lambda: skip_case("prometheus and promtool are not installed")
        )
    if args.picture and tools:
        generate(folder / "generated", ["inventory/v1", "reservation/v1", "common/v1"])
        suite.case("the sale dashboard is drawn")(lambda: pictured(binary, folder, args.picture))
        suite.finish()
    if not args.only_cost:
        import dashboard_cases

        dashboard_cases.play_static(suite)
        if tools:
            import rules_cases

            rules_cases.play(suite, is_thorough=not args.fast)
            generate(folder / "generated", ["inventory/v1", "reservation/v1", "common/v1"])
            live(suite, args, binary, folder)
    if args.cost or args.only_cost:
        generate(folder / "generated", ["inventory/v1", "reservation/v1", "common/v1"])
        import cost

        suite.case("metrics and unsampled tracing cost at most 5 % of a call's CPU")(
            lambda: cost.play(built(args.target, "generator"), binary, folder)
        )
    else:
        suite.case("metrics and unsampled tracing cost at most 5 % of a call's CPU")(
            lambda: skip_case("takes minutes; run with --cost")
        )
    suite.finish()


def skip_case(why: str) -> None:
    raise Skip(why)


if __name__ == "__main__":
    main()
