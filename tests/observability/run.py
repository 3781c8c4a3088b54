"""Plays a load at a fresh server while a live Prometheus and a live OTLP receiver watch it, and looks at what
they got. Started by run.sh."""

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
# Scrapes before the first rate and the first window of latencies are there.
SETTLE_SECONDS = 5
# Of the sale that is drawn: long enough for a window of latencies before, in and after the rush.
PICTURE_SECONDS = 150
PICTURE_RUSH = (60, 90)
PICTURE_TICKETS = 24_000
PICTURE_RUSH_TICKETS = 20_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, metavar="PATH", help="the server; default: what is built")
    parser.add_argument("--cost", action="store_true", help="also what metrics and tracing cost (minutes)")
    parser.add_argument("--only-cost", action="store_true", help="only that")
    parser.add_argument(
        "--picture", type=pathlib.Path, metavar="SVG", help="only draw the sale view to this file"
    )
    parser.add_argument("--seconds", type=int, default=LOAD_SECONDS, help="of the load (default %(default)s)")
    parser.add_argument("--fast", action="store_true", help="leave the changed thresholds out")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with TEXT in their name")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    return parser.parse_args()


def built(target: pathlib.Path, name: str) -> pathlib.Path | None:
    """The newest build profile's program, release first."""
    return next((p for profile in ("release", "debug") if (p := target / profile / name).exists()), None)


def live(suite: Suite, args, binary: pathlib.Path, folder: pathlib.Path) -> None:
    """Everything that needs the server under load."""
    # Only now: these import the generated modules.
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
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }
        with Server(binary, folder / "server.log", **settings) as server:
            with Prometheus(folder / "prometheus", server.ports["metrics"]) as prometheus:
                prometheus.wait_for_target()
                stage = load.Stage(server.ports["admin"], 450 * args.seconds, 1_000 * args.seconds)
                start = time.time() + SETTLE_SECONDS
                with load.Load(server.address, stage) as buyers:
                    program = built(args.target, "generator")
                    suite.case("the generator's load is served, every promise kept")(
                        lambda: generator.play(program, server, folder, args.seconds)
                    )
                    remaining = start + args.seconds - time.time()
                    buyers.stopping.wait(max(0.0, remaining))
                    end = time.time()
                    look = dashboard_cases.Look(prometheus, start, end, stage.hot)
                    metrics_cases.play(suite, server, prometheus, start, end)
                print(
                    f"     {sum(buyers.outcomes.values())} calls of our own: {dict(buyers.outcomes)}",
                    flush=True,
                )
                suite.case("the load itself went through")(lambda: went_through(buyers))
                dashboard_cases.play(suite, look)
                trace_cases.play(suite, server, stage, receiver)
                suite.case("SIGTERM ends the server with exit code 0")(server.stop)
                metrics_cases.play_death(suite, prometheus)


def pictured(binary: pathlib.Path, folder: pathlib.Path, path: pathlib.Path) -> None:
    """A sale that begins calm, meets a rush that is more than there is time for, and sells out."""
    import load
    import picture
    from dashboard_cases import Look
    from prometheus import Prometheus

    with Server(binary, folder / "server.log") as server:
        with Prometheus(folder / "prometheus", server.ports["metrics"]) as prometheus:
            prometheus.wait_for_target()
            stage = load.Stage(server.ports["admin"], hot=PICTURE_TICKETS, narrow=PICTURE_RUSH_TICKETS)
            with load.Load(server.address, stage, pause=0.02, rush_in=PICTURE_RUSH) as buyers:
                start = time.time() + SETTLE_SECONDS
                buyers.stopping.wait(SETTLE_SECONDS + PICTURE_SECONDS)
                look = Look(prometheus, start, time.time(), stage.hot)
            first, last = (at - SETTLE_SECONDS for at in PICTURE_RUSH)
            about = (
                f"{PICTURE_TICKETS:,} tickets; from {first} to {last} s a rush at one stripe, with 30 to 300 ms "
                "of patience; large figures: the median of the time shown"
            )
            picture.draw(look, stage, about, path)


def went_through(buyers) -> None:
    assert not buyers.broken, buyers.broken
    wanted = {"OK", "ABORTED", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
    assert wanted <= set(buyers.outcomes), f"never: {wanted - set(buyers.outcomes)}"


def main() -> None:
    args = arguments()
    binary = (args.bin or built(args.target, "inventory-api") or build(args.target)).resolve()
    if not binary.exists():
        sys.exit(f"{binary} is not there: want a built inventory-api")
    folder = args.target / "observability"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"     server {os.path.relpath(binary, ROOT)}", flush=True)
    suite = Suite(args.only)
    tools = shutil.which("prometheus") and shutil.which("promtool")
    if not tools:
        suite.case("rules, dashboards and metrics")(
            lambda: missing("prometheus and promtool are not installed")
        )
    if args.picture and tools:
        generate(folder / "generated", ["inventory/v1", "reservation/v1", "common/v1"])
        suite.case("the sale view is drawn")(lambda: pictured(binary, folder, args.picture))
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
            lambda: missing("takes minutes; run with --cost")
        )
    suite.finish()


def missing(why: str) -> None:
    raise Skip(why)


if __name__ == "__main__":
    main()
