"""Checks the rules and their unit tests with promtool, and mutates thresholds to prove that the tests can fail.

These cases use files only, neither a server nor Prometheus."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import tempfile

import yaml
from harness import ROOT, Skip

RULES = ROOT / "deploy/observability/rules"
RUNBOOK = ROOT / "docs/operating.md"
SEVERITIES = {"critical", "warning", "info"}

# A comparison with a number. The unit tests must fail if the number changes by a fifth.
THRESHOLD = re.compile(r"(?P<compare>[<>]=?|==)\s+(?P<number>[0-9.]+)(?=\s|$|\))")


def rule_files() -> list[pathlib.Path]:
    return sorted(RULES.glob("*.yaml"))


def rules() -> list[tuple[pathlib.Path, dict]]:
    """All rules with their files."""
    found = []
    for path in rule_files():
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            found += [(path, rule) for rule in group["rules"]]
    return found


def alerts() -> list[tuple[pathlib.Path, dict]]:
    return [(path, rule) for path, rule in rules() if "alert" in rule]


def promtool(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)


def anchors(markdown: str) -> set[str]:
    """Heading anchors of a Markdown document, as code hosts generate them."""
    heads = re.findall(r"^#+\s+(.+?)\s*$", markdown, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def check_alert(path: pathlib.Path, rule: dict) -> None:
    """Checks the severity, summary, description and runbook of an alert."""
    name = rule["alert"]
    notes = rule.get("annotations", {})
    assert rule.get("labels", {}).get("severity") in SEVERITIES, f"{path.name}: {name}: severity"
    assert notes.get("summary"), f"{path.name}: {name} has no summary"
    assert "$value" in notes.get("description", ""), f"{path.name}: {name}: no value in its description"
    wanted = f"docs/operating.md#{name.lower()}"
    assert notes.get("runbook_url") == wanted, f"{path.name}: {name}: runbook_url, want {wanted}"


def mutants(expr: str):
    """Yields a description and the expression for each threshold, moved down and up."""
    for found in THRESHOLD.finditer(expr):
        number = float(found["number"])
        # `> 0` on a denominator only avoids NaN.
        if guards_a_division(expr, found):
            continue
        for other in moved(expr, found["compare"], number):
            text = f"{other:g}"
            yield (
                f"{found[0]} to {text}",
                (expr[: found.start("number")] + text + expr[found.end("number") :]),
            )


def moved(expr: str, compare: str, number: float) -> tuple[float, float]:
    """The two moved thresholds: by a fifth, counts by one, zero and equality by a large step."""
    if number == 0 or compare == "==":
        return number - 1, number + 1e9
    if "changes(" in expr:
        return number - 1, number + 1
    return number * 0.8, number * 1.2


def guards_a_division(expr: str, found: re.Match) -> bool:
    """Whether this `> 0` ends a denominator in parentheses."""
    if found[0] != "> 0":
        return False
    depth = 0
    for at in range(found.start() - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(expr[at], 0)
        if depth < 0:
            return expr[:at].rstrip().endswith("/")
    return False


def tests_notice(path: pathlib.Path, name: str, expr: str) -> bool:
    """Whether the unit tests of the file fail if the alert has this expression."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "tests").mkdir()
        for source in rule_files():
            loaded = yaml.safe_load(source.read_text(encoding="utf-8"))
            for group in loaded["groups"] if source == path else []:
                for rule in group["rules"]:
                    if rule.get("alert") == name:
                        rule["expr"] = expr
            (place / source.name).write_text(yaml.safe_dump(loaded), encoding="utf-8")
        # Only the case of this alert, to save time.
        cases = yaml.safe_load((RULES / "tests" / path.name).read_text(encoding="utf-8"))
        cases["tests"] = [case for case in cases["tests"] if is_about(case, name)]
        assert cases["tests"], f"{path.name} has no test of {name}"
        case_file = place / "tests" / path.name
        case_file.write_text(yaml.safe_dump(cases), encoding="utf-8")
        done = promtool("test", "rules", str(case_file))
        said = done.stdout + done.stderr
        assert "FAILED" in said or done.returncode == 0, f"{name}: {expr}\n{said}"
        return done.returncode != 0


def is_about(case: dict, name: str) -> bool:
    return any(test["alertname"] == name for test in case["alert_rule_test"])


def play(suite, is_thorough: bool) -> None:
    @suite.case("promtool check rules")
    def _():
        done = promtool("check", "rules", *map(str, rule_files()))
        assert done.returncode == 0, done.stdout + done.stderr

    @suite.case("promtool test rules")
    def _():
        files = sorted((RULES / "tests").glob("*.yaml"))
        assert {path.name for path in files} == {path.name for path, _ in alerts()}
        done = promtool("test", "rules", *map(str, files))
        assert done.returncode == 0, done.stdout + done.stderr

    @suite.case("every alert has a severity, a summary, a value and a runbook")
    def _():
        for path, rule in alerts():
            check_alert(path, rule)
        names = [rule["alert"] for _, rule in alerts()]
        assert len(set(names)) == len(names), "duplicate alert name"

    @suite.case("every alert has a section in docs/operating.md")
    def _():
        there = anchors(RUNBOOK.read_text(encoding="utf-8"))
        missing = [rule["alert"] for _, rule in alerts() if rule["alert"].lower() not in there]
        assert not missing, f"no headings for: {', '.join(missing)}"

    @suite.case("a unit test fails for every threshold that is moved down or up")
    def _():
        if not is_thorough:
            raise Skip("skipped by --fast")
        tries = [
            (path, rule["alert"], what, expr)
            for path, rule in alerts()
            for what, expr in mutants(rule["expr"])
        ]
        # promtool uses one core.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            noticed = pool.map(lambda t: tests_notice(t[0], t[1], t[3]), tries)
            unheld = [f"{t[1]}: {t[2]}" for t, seen in zip(tries, noticed, strict=True) if not seen]
        assert not unheld, "no test fails for:\n" + "\n".join(unheld)
        print(f"     {len(tries)} mutated thresholds, each detected by a unit test", flush=True)
