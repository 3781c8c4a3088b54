"""PromQL as text: variables put in as Grafana puts them in, the selectors of an expression, and alerts
turned into something that always has an answer. No query is made in here."""

import re

# What the names of our metrics begin with. Label names never stand where these are looked for.
NAME = r"(?<![\w:])(?:inventory_|grpc_|dynamodb_|idempotency_|process_|job:)[\w:]*|(?<![\w:])up(?![\w:])"
SELECTOR = re.compile(rf"(?P<name>{NAME})\s*(?P<matchers>\{{[^{{}}]*\}})?")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
COMPARISON = re.compile(r"(?<![=!<>~])(>=|<=|==|!=|>|<)(?![=~])(?!\s*bool\b)")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def rate_interval(scrape_seconds: int, step_seconds: int) -> str:
    """What Grafana makes of $__rate_interval."""
    return f"{max(step_seconds + scrape_seconds, 4 * scrape_seconds)}s"


def substituted(expr: str, values: dict[str, str]) -> str:
    """The expression with its variables' values; a variable without one is an error."""

    def value(found: re.Match) -> str:
        name = found[1] or found[2]
        if name not in values:
            raise AssertionError(f"no dashboard variable ${name}: {expr}")
        return values[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, expr)


def chosen(values: list[str]) -> str:
    """Several values of one variable, as they come to stand in a regular expression in a string."""
    escaped = [re.sub(r"([\\^$*+?.()|\[\]{}/])", r"\\\\\1", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def selectors(expr: str) -> set[str]:
    """Every metric that is read, with its label matchers."""
    bare = GROUPING.sub(" ", expr)
    return {found["name"] + (found["matchers"] or "") for found in SELECTOR.finditer(bare)}


def always_answered(expr: str) -> str:
    """Each comparison as 0 or 1 instead of a filter: empty then means that a metric is missing."""
    kept: list[str] = []

    def keep(found: re.Match) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    # Matchers like status=~"a|b" are no comparisons, and strings may hold anything.
    braces = re.sub(r"\{[^{}]*\}", keep, STRING.sub(keep, expr))
    changed = COMPARISON.sub(r"\1 bool ", braces)
    while "\0" in changed:
        changed = re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], changed)
    return changed
