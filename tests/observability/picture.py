"""Draws panels of the sale dashboard as an SVG for the documentation, with the same queries against a live Prometheus.
The panels are defined in deploy/observability/dashboards; this module selects some of them."""

import pathlib
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, FuncFormatter, PercentFormatter

from dashboard_cases import DashboardQueries, dashboards, panels
from promql import substituted

BYTES_MAX = 200_000
# Points per line.
POINTS_MAX = 75
# Panels of the sale dashboard, in this order.
STATS = ["Sold", "P95 of writes", "Writes above 40 ms", "Failed calls", "Invariant breaches", "Servers ready"]
PLOTS = [
    "Remaining units",
    "Reservations by event",
    "Reclaimed holds",
    "Write latency percentiles",
    "P95 by method",
    "Calls in flight",
    "Calls",
    "Commits",
    "Responses other than OK",
]
INK, PAPER, PANEL, GRID, FAINT = "#d8d9da", "#111217", "#181b1f", "#2c3036", "#8e9199"
COLORS = [
    "#73bf69",
    "#f2cc0c",
    "#5794f2",
    "#ff9830",
    "#b877d9",
    "#f2495c",
    "#8ab8ff",
    "#37872d",
    "#ffb357",
    "#c0d8ff",
]
GOOD, FAIR, BAD = "#73bf69", "#ff9830", "#f2495c"
STYLE = {
    "axes.edgecolor": GRID,
    "axes.facecolor": PANEL,
    "axes.labelcolor": FAINT,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.size": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def shown(number: float, unit: str) -> str:
    """A number as Grafana formats it."""
    if unit == "s":
        return f"{number * 1e3:.1f} ms" if number < 1 else f"{number:.1f} s"
    if unit == "percentunit":
        return f"{number:.2%}" if number < 0.1 else f"{number:.1%}"
    return f"{number:,.0f}/s" if unit == "ops" else f"{number:,.0f}"


def formatter(unit: str):
    if unit == "s":
        return FuncFormatter(lambda number, _: shown(number, unit).replace(".0", ""))
    return PercentFormatter(1) if unit == "percentunit" else EngFormatter(sep="")


def readable(legend: str, run: str) -> str:
    """A label without the common prefix."""
    short = legend.replace("inventory.v1.Inventory/", "A ").replace("reservation.v1.InventoryService/", "B ")
    return short.lstrip("/").replace(f"_{run}", "")


def legend_of(pattern: str, labels: dict) -> str:
    for name, value in labels.items():
        pattern = pattern.replace(f"{{{{{name}}}}}", value)
    return pattern


def lines(queries: DashboardQueries, panel: dict) -> list[tuple[str, list[float], list[float]]]:
    """Label, seconds since the beginning and values of each series of a panel."""
    found = []
    step = max(1, round((queries.end - queries.start) / POINTS_MAX))
    for target in panel["targets"]:
        for one in queries.prometheus.range(substituted(target["expr"], queries.all), queries.start, queries.end, step):
            xs = [at - queries.start for at, _ in one["values"]]
            ys = [float(value) for _, value in one["values"]]
            found.append((legend_of(target["legendFormat"], one["metric"]), xs, ys))
    return sorted(found, key=lambda line: -max(line[2]))


def color_at(number: float, steps: list[dict]) -> str:
    names = {"green": GOOD, "orange": FAIR, "red": BAD, "text": INK}
    reached = [step["color"] for step in steps if step["value"] is None or number >= step["value"]]
    return names[reached[-1]]


def draw_stat(axes, queries: DashboardQueries, panel: dict) -> None:
    ((_, xs, ys), *_) = lines(queries, panel)
    middle = sorted(ys)[len(ys) // 2]
    defaults = panel["fieldConfig"]["defaults"]
    color = color_at(middle, defaults["thresholds"]["steps"])
    axes.fill_between(xs, ys, color=color, alpha=0.18, linewidth=0)
    axes.set_ylim(0, max(*ys, 1e-9) * 2.6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(
        0.5,
        0.6,
        shown(middle, defaults["unit"]),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=17,
        color=color,
    )
    axes.set_title(panel["title"], loc="left", fontsize=8, color=FAINT)


def draw_lines(axes, queries: DashboardQueries, panel: dict, run: str) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    found = lines(queries, panel)[: len(COLORS)]
    labels = [readable(label, run) for label, _, _ in found]
    if stacked:
        # A series that began late has nothing before.
        every = sorted({x for _, xs, _ in found for x in xs})
        rows = [[dict(zip(xs, ys, strict=True)).get(x, 0.0) for x in every] for _, xs, ys in found]
        axes.stackplot(every, rows, labels=labels, colors=COLORS, alpha=0.75, linewidth=0)
    else:
        for (_, xs, ys), label, color in zip(found, labels, COLORS):
            axes.plot(xs, ys, label=label, color=color, linewidth=1.1)
    highest = axes.get_ylim()[1]
    for step in defaults["thresholds"]["steps"]:
        if step["color"] == "red" and step["value"] and step["value"] < highest:
            axes.axhline(step["value"], color=BAD, linewidth=0.9, linestyle=(0, (5, 3)))
            axes.annotate(
                "40 ms",
                (0.995, step["value"]),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=7,
                color=BAD,
                bbox={"facecolor": PANEL, "linewidth": 0, "pad": 1},
            )
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, queries.end - queries.start)
    axes.grid(True)
    axes.tick_params(length=0)
    axes.yaxis.set_major_formatter(formatter(defaults["unit"]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:.0f} s"))
    axes.set_title(panel["title"], loc="left", fontsize=9, color=INK)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
        ncols=2,
        frameon=False,
        fontsize=6.5,
        labelcolor=FAINT,
        handlelength=1.2,
        columnspacing=1.4,
    )


def slim(svg: str) -> str:
    """The same picture in half the bytes: coordinates to a tenth of a point, each style written once."""

    def rounded(path: re.Match) -> str:
        short = re.sub(r"(\.\d)\d+", r"\1", " ".join(path[1].split()))
        return f' d="{short}"'

    classes: dict[str, str] = {}

    def named(style: re.Match) -> str:
        return f' class="{classes.setdefault(style[1], f"s{len(classes)}")}"'

    text = re.sub(r' d="([^"]*)"', rounded, svg)
    text = re.sub(r' style="([^"]*)"', named, text)
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    text = text.replace("</style>", f"{rules}</style>", 1)
    return "\n".join(line.strip() for line in text.splitlines()) + "\n"


def draw(queries: DashboardQueries, events, about: str, path: pathlib.Path) -> None:
    by_title = {panel["title"]: panel for panel in panels(dashboards()["sale"])}
    run = events.hot.rsplit("_", 1)[1]
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(14, 13))
        stats = figure.add_gridspec(1, 6, wspace=0.1, left=0.045, right=0.985, top=0.94, bottom=0.87)
        plots = figure.add_gridspec(
            3, 3, hspace=0.55, wspace=0.16, left=0.045, right=0.985, top=0.83, bottom=0.08
        )
        for column, title in enumerate(STATS):
            draw_stat(figure.add_subplot(stats[0, column]), queries, by_title[title])
        for place, title in enumerate(PLOTS):
            draw_lines(figure.add_subplot(plots[divmod(place, 3)]), queries, by_title[title], run)
        figure.text(0.045, 0.975, "inventory-api / Sale", fontsize=13, color=INK)
        figure.text(0.985, 0.975, about, fontsize=8, color=FAINT, ha="right")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    path.write_text(slim(path.read_text(encoding="utf-8")), encoding="utf-8")
    size = path.stat().st_size
    assert size < BYTES_MAX, f"{size} bytes"
    print(f"     {path.name}: {size} bytes", flush=True)
