"""PromQL as text: substitution of dashboard variables, the selectors of an expression, and alert expressions that
always return data. Makes no queries."""

import re

# Prefixes of our metric names.
NAME = r"(?<![\w:])(?:inventory_|grpc_|dynamodb_|idempotency_|process_|job:)[\w:]*|(?<![\w:])up(?![\w:])"
SELECTOR = re.compile(rf"(?P<name>{NAME})\s*(?P<matchers>\{{[^{{}}]*\}})?")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
COMPARISON = re.compile(r"(?<![=!<>~])(>=|<=|==|!=|>|<)(?![=~])(?!\s*bool\b)")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def rate_interval(scrape_seconds: int, step_seconds: int) -> str:
    """Value of $__rate_interval in Grafana."""
    return f"{max(step_seconds + scrape_seconds, 4 * scrape_seconds)}s"


def substituted(expr: str, values: dict[str, str]) -> str:
    """The expression with variables replaced; an unknown variable is an error."""

    def value(found: re.Match) -> str:
        name = found[1] or found[2]
        if name not in values:
            raise AssertionError(f"no dashboard variable ${name}: {expr}")
        return values[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, expr)


def chosen(values: list[str]) -> str:
    """Several values of one variable as a regular expression inside a string."""
    escaped = [re.sub(r"([\\^$*+?.()|\[\]{}/])", r"\\\\\1", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def selectors(expr: str) -> set[str]:
    """Every metric that the expression reads, with its label matchers."""
    bare = GROUPING.sub(" ", expr)
    return {found["name"] + (found["matchers"] or "") for found in SELECTOR.finditer(bare)}


def always_answered(expr: str) -> str:
    """Each comparison with `bool`, so that an empty result means a missing metric."""
    kept: list[str] = []

    def keep(found: re.Match) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    # Matchers such as status=~"a|b" are not comparisons.
    braces = re.sub(r"\{[^{}]*\}", keep, STRING.sub(keep, expr))
    changed = COMPARISON.sub(r"\1 bool ", braces)
    while "\0" in changed:
        changed = re.sub(r"\0(\d+)\0", lambda found: kept[int(found[1])], changed)
    return changed
