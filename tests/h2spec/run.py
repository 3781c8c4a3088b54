"""Runs h2spec against a new server and compares each case with expected.txt. Started by run.sh."""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "blackbox"))

from harness import Server, Suite, build  # noqa: E402

EXPECTED = pathlib.Path(__file__).with_name("expected.txt")

# Of h2spec's generic, HTTP/2 and HPACK cases.
CASES = 145

# Runs of h2spec. A case that depends on time, on a busy machine, differs in one of them and not in all.
RUNS_MAX = 3

# Seconds that h2spec waits for a frame, and for everything.
FRAME_SECONDS = 5
ALL_SECONDS = 300


def expected(text: str) -> dict[str, str]:
    """Lines `fail|skip|either SECTION: CASE`; the reason follows in indented lines."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith(("#", " ")):
            state, name = line.split(" ", 1)
            assert state in ("fail", "skip", "either"), line
            assert name not in found, f"twice: {line}"
            found[name] = state
    return found


def results(report: str) -> dict[str, str]:
    """State of each case of a JUnit report, by section and description."""
    found = {}
    for case in xml.etree.ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('package')}: {case.get('classname')}"
        states = {"failure": "fail", "error": "fail", "skipped": "skip"}
        found[name] = next((state for tag, state in states.items() if case.find(tag) is not None), "pass")
    return found


def problems(got: dict[str, str], listed: dict[str, str]) -> list[str]:
    found = []
    if len(got) != CASES:
        found.append(f"{len(got)} cases, expected {CASES}")
    for name in sorted({*got, *listed}):
        state, wanted = got.get(name, "missing"), listed.get(name, "pass")
        if state != wanted and not (wanted == "either" and state in ("pass", "fail")):
            found.append(f"{name}: {state}, expected {wanted}")
    return found


def persistent_problems(run: Callable[[], dict[str, str]], listed: dict[str, str]) -> list[str]:
    """The problems that every one of at most RUNS_MAX runs has."""
    found = set(problems(run(), listed))
    for _ in range(RUNS_MAX - 1):
        if not found:
            break
        found &= set(problems(run(), listed))
    return sorted(found)


def only_persistent_differences_are_reported() -> None:
    names = [f"http2/{n}: case" for n in range(CASES)]
    good = dict.fromkeys(names, "pass")
    bad = {**good, names[3]: "fail"}
    for runs, count in (([good], 0), ([bad, good], 0), ([bad, bad, good], 0), ([bad, bad, bad], 1)):
        left = list(reversed(runs))
        assert len(persistent_problems(left.pop, {})) == count, runs
        assert not left


def differences_are_reported() -> None:
    names = [f"http2/{n}: case" for n in range(CASES)]
    got = dict.fromkeys(names, "pass")
    listed = {names[3]: "fail"}
    assert problems({**got, names[3]: "fail"}, listed) == []
    assert problems(got, listed) == [f"{names[3]}: pass, expected fail"]
    assert problems({**got, names[3]: "fail", names[4]: "fail"}, listed) == [f"{names[4]}: fail, expected pass"]
    assert problems({names[3]: "fail"}, listed) == [f"1 cases, expected {CASES}"]
    for state, count in (("pass", 0), ("fail", 0), ("skip", 1)):
        assert len(problems({**got, names[3]: state}, {names[3]: "either"})) == count, state
    assert len(problems({**got, names[3]: "fail"}, {**listed, "http2/x: gone": "skip"})) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, help="server binary; default: a dev build")
    parser.add_argument("--target", type=pathlib.Path, required=True)
    parser.add_argument("--h2spec", type=pathlib.Path, required=True)
    args = parser.parse_args()
    binary = args.binary or build(args.target)
    place = args.target / "h2spec"
    place.mkdir(parents=True, exist_ok=True)
    report = place / "report.xml"
    report.unlink(missing_ok=True)

    suite = Suite()
    suite.case("a new failure, a new success and a missing case are reported")(differences_are_reported)
    suite.case("a difference of one run is not reported")(only_persistent_differences_are_reported)
    with Server(binary.resolve(), place / "server.log") as server:

        def run() -> dict[str, str]:
            port = str(server.ports["grpc"]).rsplit(":", 1)[-1]
            command = [args.h2spec, "-h", "127.0.0.1", "-p", port, "-o", str(FRAME_SECONDS), "-j", report]
            with open(place / "h2spec.log", "w", encoding="utf-8") as log:
                subprocess.run(command, stdout=log, stderr=log, timeout=ALL_SECONDS, check=False)
            got = results(report.read_text(encoding="utf-8"))
            states = list(got.values())
            counts = ", ".join(f"{states.count(state)} {state}" for state in ("pass", "fail", "skip"))
            print(f"     h2spec: {len(states)} cases: {counts}")
            return got

        def conforms() -> None:
            found = persistent_problems(run, expected(EXPECTED.read_text(encoding="utf-8")))
            assert not found, "\n" + "\n".join(found) + "\ndetails: target/h2spec/h2spec.log"

        suite.case("h2spec's cases end as tests/h2spec/expected.txt says")(conforms)
        suite.case("the server still stops with exit code 0")(server.stop)
    suite.finish()


if __name__ == "__main__":
    main()
