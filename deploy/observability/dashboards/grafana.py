"""Builds Grafana dashboard JSON: panels, thresholds, variables, grid positions.

The panels are defined in sale.py, shards.py and store.py; build.py writes the files."""

import dataclasses
import itertools

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Schema of Grafana 10; newer versions migrate it on load.
SCHEMA = 38
WIDTH = 24

GREEN, AMBER, RED, GREY = "green", "orange", "red", "text"


def steps(*bounds: tuple[str, float | None]) -> dict:
    """Thresholds with the colour from each value upwards; the first value is None."""
    return {"mode": "absolute", "steps": [{"color": color, "value": at} for color, at in bounds]}


NO_THRESHOLD = steps((GREY, None))
# The objective: 95 % of writes within 40 ms.
OBJECTIVE = steps((GREEN, None), (AMBER, 0.03), (RED, 0.04))
ANY_IS_BAD = steps((GREEN, None), (RED, 1e-9))


@dataclasses.dataclass
class Query:
    expr: str
    legend: str = ""
    heatmap: bool = False
    instant: bool = False
    table: bool = False

    def target(self, letter: str) -> dict:
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": "heatmap" if self.heatmap else "table" if self.table else "time_series",
            "instant": self.instant,
            "legendFormat": "{{le}}" if self.heatmap else self.legend or "__auto",
            "range": not self.instant,
            "refId": letter,
        }


@dataclasses.dataclass
class Panel:
    title: str
    about: str
    queries: list[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: dict = dataclasses.field(default_factory=lambda: NO_THRESHOLD)
    decimals: int | None = None
    stacked: bool = False
    low: float | None = 0
    high: float | None = None

    def defaults(self) -> dict:
        # Draw a line only for a real threshold.
        line = "off" if self.thresholds is NO_THRESHOLD else "dashed"
        found: dict = {
            "unit": self.unit,
            "thresholds": self.thresholds,
            "color": {"mode": "thresholds" if self.kind in ("stat", "bargauge") else "palette-classic"},
            "noValue": "none",
            "min": self.low,
        }
        if self.high is not None:
            found["max"] = self.high
        if self.decimals is not None:
            found["decimals"] = self.decimals
        if self.kind == "timeseries":
            found["custom"] = {
                "drawStyle": "line",
                "fillOpacity": 40 if self.stacked else 8,
                "lineWidth": 1,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"group": "A", "mode": "normal" if self.stacked else "none"},
                "thresholdsStyle": {"mode": line},
            }
        return found

    def options(self) -> dict:
        last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {
            "stat": {"colorMode": "value", "graphMode": "area", "reduceOptions": last, "textMode": "auto"},
            "bargauge": {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": last},
            "heatmap": {
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                "tooltip": {"show": True, "yHistogram": False},
                "yAxis": {"unit": self.unit},
            },
            "table": {"showHeader": True},
            "timeseries": {
                "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
        }[self.kind]

    def json(self, number: int, x: int, y: int) -> dict:
        letters = (chr(ord("A") + n) for n in itertools.count())
        return {
            "datasource": DATASOURCE,
            "description": self.about,
            "fieldConfig": {"defaults": self.defaults(), "overrides": []},
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "id": number,
            "options": self.options(),
            "targets": [query.target(letter) for query, letter in zip(self.queries, letters)],
            "title": self.title,
            "type": self.kind,
        }


@dataclasses.dataclass
class Row:
    title: str
    panels: list[Panel]


def stat(title: str, about: str, expr: str, unit: str, thresholds: dict, **more) -> Panel:
    """A panel with one number, a sixth of the width by default."""
    size = {"width": 4, "height": 4, **more}
    return Panel(title, about, [Query(expr)], unit, "stat", thresholds=thresholds, **size)


def variable(name: str, label: str, query: str, several: bool) -> dict:
    """A variable with label values; `several` allows multiple values and selects all by default."""
    return {
        "allValue": ".*" if several else None,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if several else {},
        "datasource": DATASOURCE,
        "includeAll": several,
        "label": label,
        "multi": several,
        "name": name,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "type": "query",
    }


DATASOURCE_VARIABLE = {
    "current": {},
    "label": "Data source",
    "name": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "type": "datasource",
}
JOB = variable("job", "Job", "label_values(inventory_build_info, job)", several=False)
INSTANCE = variable(
    "instance", "Server", 'label_values(inventory_build_info{job="$job"}, instance)', several=True
)
EVENT = variable("event", "Event", 'label_values(inventory_event_units{job="$job"}, event_id)', several=True)

# Restarts are marked in every panel, because they explain most steps in the lines.
RESTARTS = {
    "datasource": DATASOURCE,
    "enable": True,
    "expr": 'changes(process_start_time_seconds{job="$job", instance=~"$instance"}[$__interval]) > 0',
    "iconColor": "purple",
    "name": "Restarts",
    "titleFormat": "{{instance}} restarted",
}


def dashboard(uid: str, title: str, about: str, variables: list[dict], rows: list[Row]) -> dict:
    panels: list[dict] = []
    numbers = itertools.count(1)
    y = 0
    for row in rows:
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        head = {"collapsed": False, "gridPos": place, "id": next(numbers), "panels": []}
        panels.append({**head, "title": row.title, "type": "row"})
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append(panel.json(next(numbers), x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "annotations": {"list": [RESTARTS]},
        "description": about,
        "editable": True,
        "graphTooltip": 1,
        "links": [
            {
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "tags": ["inventory-api"],
                "targetBlank": False,
                "title": "inventory-api",
                "type": "dashboards",
            }
        ],
        "panels": panels,
        "refresh": "5s",
        "schemaVersion": SCHEMA,
        "tags": ["inventory-api"],
        "templating": {"list": [DATASOURCE_VARIABLE, *variables]},
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "title": title,
        "uid": uid,
        "version": 1,
    }
