"""The dashboards in ``k8s/dashboards``: their queries, and pictures of their panels drawn without Grafana."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from PIL import Image

DASHBOARDS = Path(__file__).parents[2] / "k8s" / "dashboards"
VARIABLES = {"$__rate_interval": "20s", "$namespace": ".*"}
"""Grafana's own values for these variables; text boxes have theirs as defaults."""
COLOURS = 128

Found = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Times in seconds and values, ``[n]`` each, by legend."""


@dataclass(frozen=True)
class PanelQuery:
    """One PromQL expression, the name of its panel or rule, and Grafana's template for the names of its series."""

    place: str
    name: str
    expression: str
    legend: str = ""

    @property
    def title(self) -> str:
        """Unique within its dashboard or the rules."""
        return f"{self.name}: {self.legend}" if self.legend not in ("", "__auto") else self.name

    def named(self, labels: dict[str, str]) -> str:
        """Grafana's name of the series with these labels; without a legend, all labels."""
        return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), self.legend or " ".join(labels.values()))


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards as Grafana loads them, by file name without its suffix."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))}


def queries(name: str, dashboard: dict[str, Any]) -> list[PanelQuery]:
    """All queries of a dashboard with Grafana's variables filled in."""
    return [query for panel in dashboard["panels"] for query in _of_panel(name, panel, _variables(dashboard))]


def _of_panel(name: str, panel: dict[str, Any], variables: dict[str, str]) -> list[PanelQuery]:
    def fill(expression: str) -> str:
        for variable, value in variables.items():
            expression = expression.replace(variable, value)
        return expression

    return [PanelQuery(name, panel["title"], fill(t["expr"]), t["legendFormat"]) for t in panel["targets"]]


def _variables(dashboard: dict[str, Any]) -> dict[str, str]:
    boxes = {f"${v['name']}": v["query"] for v in dashboard["templating"]["list"] if v["type"] == "textbox"}
    return {**VARIABLES, **boxes}


async def draw(ask: Callable[[PanelQuery], Awaitable[Found]], seconds: float, folder: Path) -> None:
    """One picture for each dashboard, ``<name>.png``, as in Grafana; ``ask`` returns series of ``seconds``."""
    for name, dashboard in dashboards().items():
        panels = dashboard["panels"]
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        figure = Figure(figsize=(13, 0.27 * height), facecolor="white", layout="constrained")
        grid = figure.add_gridspec(height, 24)
        for panel in panels:
            place = panel["gridPos"]
            axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]])
            queries = _of_panel(name, panel, _variables(dashboard))
            found = [await ask(query) for query in queries]
            _draw_panel(axes, panel, queries, found, seconds)
        figure.suptitle(f"{dashboard['title']} (drawn from Prometheus' data)", fontsize=10)
        await asyncio.to_thread(_save, figure, folder / f"{name}.png")


def _draw_panel(
    axes: Axes, panel: dict[str, Any], queries: Sequence[PanelQuery], found: Sequence[dict[str, Any]], seconds: float
) -> None:
    axes.set_title(panel["title"], fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    if panel["type"] == "stat":
        axes.set_axis_off()
        value = next((_in_unit(values[-1], unit) for series in found for _, values in series.values()), "no data")
        axes.text(0.02, 0.35, value, fontsize=14, transform=axes.transAxes)
        return
    if not any(found):
        axes.text(0.5, 0.5, "no data", fontsize=8, ha="center", transform=axes.transAxes)
    elif panel["type"] == "heatmap":
        _draw_heatmap(axes, found[0])
    else:
        for query, series in zip(queries, found, strict=True):
            for legend, (times, values) in sorted(series.items()):
                axes.plot(times, values, linewidth=1, label=legend if "__auto" not in legend else query.name)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=5, ncols=3, loc="best", framealpha=0.5)
    if unit == "percentunit":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(0, seconds)
    axes.set_xlabel(f"s{'; y in s' if unit == 's' or panel['type'] == 'heatmap' else ''}", fontsize=6, labelpad=1)
    axes.grid(alpha=0.3)


def _draw_heatmap(axes: Axes, series: dict[str, Any]) -> None:
    """Cumulative buckets over time become counts in each bucket."""
    edges = sorted(series, key=float)
    times = np.unique(np.concatenate([times for times, _ in series.values()]))
    below = np.array([np.interp(times, *series[edge]) for edge in edges])
    counts = np.diff(below, axis=0, prepend=0)
    used = np.flatnonzero(counts.sum(axis=1) > 0)
    shown = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)
    axes.imshow(
        np.sqrt(np.maximum(counts[shown], 0)), aspect="auto", origin="lower", cmap="Oranges", interpolation="nearest",
        extent=(times[0], times[-1], -0.5, counts[shown].shape[0] - 0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(edges[shown])), edges[shown])


def _in_unit(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{100 * value:.1f} %"
        case "s":
            return f"{1000 * value:.0f} ms"
        case "reqps":
            return f"{value:.1f} /s"
        case _:
            return f"{value:.3g}"


def _save(figure: Figure, file: Path) -> None:
    """As a picture of few colours, which takes half the space."""
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(COLOURS).save(file, optimize=True)
