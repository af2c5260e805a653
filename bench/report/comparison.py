"""The report: the paper's figures and tables beside ours, and curves beyond them; it only draws.

``python -m bench report out/bench-full.json out/bench-scale.json --out docs/results/bench-full`` writes
``bench-full.md``, a folder of pictures, and ``bench-full-usage.json``, the counts of tables 1 and 2 from the records
beside the figures. ``python -m bench sweep`` simulates what the curves need.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.report import pictures
from bench.report.findings import (
    CASE,
    DENSITY,
    REGIME,
    RIVAL_LOAD,
    VARIANT,
    FoundRow,
    Recorded,
    below,
    best_rival,
    cluster_table,
    curve,
    grouped,
    latencies,
    less,
    markdown,
    mean,
    ratio,
    read,
    runs_of,
    select,
    show,
    show_case,
    show_mean,
    title,
    usage_table,
)
from collage.figures import write_figures

PAPER_FIGURE_7 = {9: ("3.9", "2.7", "2", "1.6"), 16: ("2.5", "2.1", "1.6", "1.5"), 25: ("1.36", "1.68", "1.2", "1.4")}
_MS, _PERCENT = (1000, 0), (100, 1)  # scale, digits
_OPEN = {"p99_s": _MS, "sent": _PERCENT, "unsure_share": _PERCENT}


_AGREEMENT = {
    **{"request p50": ("p50_s", _MS), "request p99": ("p99_s", _MS), "group p99": ("group_p99_s", _MS)},
    "extra load %": ("sent", _PERCENT),
}
GENERATOR = Path(__file__).parents[1] / "latency.json"


class Report:
    """Sections in Markdown; their pictures go to the folder ``pictures``. A section without data is empty."""

    def __init__(self, rows: Sequence[FoundRow], runs: Sequence[Recorded], folder: Path, *, drawn: bool = True) -> None:
        """Without ``drawn`` no picture is made, and the text names those that are there."""
        self.rows = runs_of(rows)
        self.scaled = [row for row in rows if "workers" in row]
        self.usage = [row for row in rows if "answers_right" in row]
        self.usage += [{**run.usage_row(), "made": run.made} for run in runs]
        self.runs, self.folder, self.drawn = runs, folder, drawn
        self._commands: dict[str, int] = {}  # that made the figures, numbered

    def text(self) -> str:
        """Draw the pictures and return the report."""
        sections: Mapping[str, Callable[[], str]] = {
            "Latency of the injected slowness (figure 2)": self.injected,
            "Group latency by policy and N (figure 7)": self.densities,
            "Use of the collage-cnn (tables 1 and 2)": lambda: usage_table(self.usage, self._made),
            "Policies compared": self.policies,
            "Distribution of latency with its tail": self.tails,
            "Tail against extra load": self.extra_load,
            "The second limit of the adaptive policy": self.patience,
            "Tail against offered load": self.offered_load,
            "Simulator against cluster": self.agreement,
            "Larger clusters": lambda: cluster_table(self.scaled, self._made),
        }
        done = {heading: section() for heading, section in sections.items()}
        missing = [heading for heading, section in done.items() if not section]
        return "\n\n".join(
            [
                f"# Results: {self.folder.name}",
                "Latencies in milliseconds as if times had not been shortened; a group's is that of its slowest "
                "member. ± is the 95 % confidence interval over seeds. Extra load counts collages and replicas per "
                "request. The numbers below a table are those of the runs at the end of the page.",
                *(f"## {heading}\n\n{section}" for heading, section in done.items() if section),
                *([f"Left out for want of data: {'; '.join(missing)}."] if missing else []),
                "## Runs",
                *(f"{number}. {made}" for made, number in self._commands.items()),
            ]
        )

    def injected(self) -> str:
        """Figure 2, of the committed generator."""
        shares, seconds = _injected()
        p99, p999 = np.interp((0.99, 0.999), shares, seconds)
        values = f"mean {np.trapezoid(seconds, shares):.3f} s, p99 {p99:.2f} s, p99.9 {p999:.2f} s"
        image = self._image("figure-2", lambda path: pictures.generator(path, shares, seconds))
        return f"{image}\n\nOurs (`bench/latency.json`): {values}. Paper: mean 0.15 s, p99 0.70 s."

    def densities(self) -> str:
        """All policies that were recorded in the first regime, by N and source."""
        runs = [run for run in self.runs if run.regime == REGIME and run.load is None and run.policy in DENSITY]
        image = self._of_records(
            "figure-7",
            runs,
            lambda path: pictures.densities(
                path, latencies(sorted(runs, key=lambda run: (run.n, run.source)), "group")
            ),
        )
        if not image:
            return ""
        headings = ("", "std: none / collage", "replicate / collage", "p99: none / collage", "replicate / collage")
        lines, used = [[f"paper, {n} + 1", *ratios] for n, ratios in PAPER_FIGURE_7.items()], list[str]()
        closed = select(self.rows, offered="closed", regime=REGIME, redundant=1)
        for case, rows in sorted(grouped(closed, CASE).items()):
            if ours := select(rows, policy="collage", setting=None):
                rivals = select(rows, policy="none"), best_rival(rows)
                found = [ratio(rival, ours, key) for key in ("group_std_s", "group_p99_s") for rival in rivals]
                lines.append([show_case(case), *(show(value, digits=2) for value in found)])
                used += [row["made"] for row in (*ours, *rivals[0], *rivals[1])]
        note = "Ours are ratios to the best setting of replicate or hedge, as below.\n\n"
        return f"{image}\n\n{markdown(headings, lines)}\n\n{note}{self._made(used)}"

    def policies(self) -> str:
        """One table for each case of closed groups."""
        tables = []
        for case, rows in grouped(select(self.rows, offered="closed"), CASE).items():
            if rows[0]["regime"] == "off":
                continue
            none, rival = select(rows, policy="none"), best_rival(rows)
            usual = select(rows, policy="collage", setting=None)
            special = (*select(rows, policy="adaptive", setting="quantile"), *(row for row in rival if row["setting"]))
            variants = grouped((*select(rows, setting=None), *special), VARIANT)
            lines = []
            for mine in variants.values():
                loss = mean(mine, "accuracy") - mean(mine, "accuracy_available")
                line = {
                    "policy": title(mine[0]) + (" (best rival)" if rival and mine[0] is rival[0] else ""),
                    "extra load %": show_mean(mine, "sent", 100),
                    "request p99": show_mean(mine, "p99_s", 1000, 0),
                    "group p99": show_mean(mine, "group_p99_s", 1000, 0),
                    "group p99.9": show_mean(mine, "group_p999_s", 1000, 0),
                    "none / it, group p99": show(ratio(none, mine, "group_p99_s"), digits=2),
                    "best rival / it, group p99": show(ratio(rival, mine, "group_p99_s"), digits=2),
                    "collage / it, group p99": show(ratio(usual, mine, "group_p99_s"), digits=2),
                    "none / it, group std": show(ratio(none, mine, "group_std_s"), digits=2),
                    "best rival / it, group std": show(ratio(rival, mine, "group_std_s"), digits=2),
                    "request p50 against none %": show(less(ratio(mine, none, "p50_s")), 100),
                    "group p50 against none %": show(less(ratio(mine, none, "group_p50_s")), 100),
                    "coded %": show_mean(mine, "coded_share", 100),
                    "coded while unsure %": show_mean(mine, "unsure_share", 100, 2),
                    "A_o - A_a, points": f"{100 * loss:.2f}",
                }
                lines.append(line)
            table = markdown(list(lines[0]), (line.values() for line in lines))
            counts = [len(mine) for mine in variants.values()]
            seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
            tables.append(
                f"### {show_case(case)}, {seeds} seeds\n\n{table}\n\n{self._made(row['made'] for row in rows)}"
            )
        rule = (
            "The best rival is the setting of replicate or hedge with the lowest group p99 among those with an extra "
            f"load of at most {RIVAL_LOAD} r / N ({RIVAL_LOAD / 9:.0%} at 9 + 1). Ratios are of means over the seeds "
            "that both have. A_o - A_a has no interval: all seeds of real runs send the same images, and the image, "
            "not the request, is the unit of accuracy."
        )
        return "\n\n".join([rule, *tables]) if tables else ""

    def tails(self) -> str:
        """Distribution of the real latencies, per group and per request."""
        runs = [run for run in self.runs if run.source == "real" and run.load is None and run.regime != "off"]
        real = select(self.rows, source="real", load=None)
        image = self._of_records(
            "tails",
            runs,
            lambda path: pictures.tails(path, latencies(runs, "group") | latencies(runs, "request")),
        )
        made = [run.made for run in runs] or [row["made"] for row in real if row["regime"] != "off"]
        return f"{image}\n\n{self._made(made)}" if image else ""

    def extra_load(self) -> str:
        """All policies and settings at 9 + 1 in closed groups, with the real ones as markers."""
        rows = select(self.rows, offered="closed", regime=REGIME, n=9, redundant=1)
        if not any(row["setting"] for row in rows):
            return ""
        panels = [
            pictures.Panel(of, "extra load, %", "p99, ms", _curves(rows, "sent", key))
            for of, key in (("per group", "group_p99_s"), ("per request", "p99_s"))
        ]
        image = self._image("extra-load", lambda path: pictures.curves(path, panels))
        return (
            f"{image}\n\nReplicate and collage at several deadlines, hedge at several quantiles, "
            "adaptive with several budgets, and with several second limits (patience).\n\n"
            f"{self._made(row['made'] for row in rows)}"
        )

    def patience(self) -> str:
        """Group p99 and answers coded while unsure, against the second limit."""
        rows = select(self.rows, policy="adaptive", setting="patience")
        if not rows:
            return ""
        panels, deadline = [], 1000 * float(np.interp(0.95, *_injected()))
        for label, key, factor in (
            ("group p99, ms", "group_p99_s", 1000),
            ("coded while unsure, %", "unsure_share", 100),
        ):
            line = {"adaptive": curve(rows, "value", key, deadline, factor)}
            panels.append(pictures.Panel("", "second limit (patience), ms", label, line))
        image = self._image("patience", lambda path: pictures.curves(path, panels))
        limits = ", ".join(f"{row['value']:g}" for row in rows[:: len({row["seed"] for row in rows})])
        return (
            f"{image}\n\nPatience of {limits} deadlines; the deadline is the tracked p95, about "
            f"{deadline:.0f} ms.\n\n"
            f"{self._made(row['made'] for row in rows)}"
        )

    def offered_load(self) -> str:
        """Open loop: request p99 and extra load until saturation; and whether a policy beats adaptive on both."""
        rows = select(self.rows, offered="open", regime=REGIME, setting=None)
        short = {row["groups"] for row in rows if row["source"] == "real"}  # simulated for comparison only
        rows = [row for row in rows if row["source"] == "real" or row["groups"] not in short]
        panels, lines = [], []
        for (n, redundant), mine in sorted(grouped(rows, ("n", "redundant")).items()):
            name, x = f"{n} + {redundant}", "offered load, % of capacity"
            panels.append(pictures.Panel(name, x, "request p99, ms", _curves(mine, "load", "p99_s"), log=True))
            panels.append(pictures.Panel(name, x, "extra load, %", _curves(mine, "load", "sent", 100)))
            for (load, source), case in sorted(grouped(mine, ("load", "source")).items()):
                policies = {policy: rows for (policy,), rows in grouped(case, ("policy",)).items()}
                if "adaptive" not in policies or len(policies) < 2:
                    continue
                ours = policies.pop("adaptive")
                best = min(policies.values(), key=lambda rows: mean(rows, "p99_s"))
                better = (
                    rows for rows in policies.values() if all(below(rows, ours, key) for key in ("p99_s", "sent"))
                )
                beaten = ", ".join(rows[0]["policy"] for rows in better)
                figures = (show_mean(rows, key, *form) for rows in (ours, best) for key, form in _OPEN.items())
                lines.append([name, source, f"{load:.0%}", *figures, best[0]["policy"], beaten or "-"])
        if not rows:
            return ""
        image = self._image("offered-load", lambda path: pictures.curves(path, panels))
        most = max((row["sent"] for row in select(rows, policy="adaptive")), default=0.0)
        headings = (
            "workers|source|load|adaptive: p99|extra load %|coded while unsure %|"
            "lowest other p99|its extra load %|coded while unsure %|policy|beaten on both by"
        )
        return (
            f"{image}\n\nPoisson arrivals, latency from the intended start. Beaten: lower p99 "
            f"and less extra load, both beyond the intervals of the ratios seed by seed. The most "
            f"that adaptive sent in a run is {most:.1%}.\n\n"
            f"{markdown(headings.split('|'), lines)}\n\n{self._made(row['made'] for row in rows)}"
        )

    def agreement(self) -> str:
        """Real rows beside simulated ones of the same case."""
        lines, used = [], []
        for case, rows in grouped(select(self.rows, source="real"), (*CASE[1:], *VARIANT)).items():
            twins = select(self.rows, source="sim", **dict(zip((*CASE[1:], *VARIANT), case, strict=True)))
            if not twins:
                continue
            used += [*rows, *twins]
            line = [show_case(("", *case)), title(rows[0])]
            for key, form in _AGREEMENT.values():
                line += [show_mean(rows, key, *form), show_mean(twins, key, *form)]
                line += [show(less(ratio(twins, rows, key)), 100)]
            lines.append(line)
        if not lines:
            return ""
        headings = [text for name in _AGREEMENT for text in (f"{name}, real", "sim", "difference %")]
        still = select(self.rows, source="real", regime="off")
        values = (
            f"{row['n']} + 1: p50 {1000 * row['p50_s']:.1f} ms, p99 {1000 * row['p99_s']:.1f} ms" for row in still
        )
        note = (
            f"Overhead as calibrated without injected slowness, real times: {'; '.join(values)}.\n\n" if still else ""
        )
        return f"{note}{markdown(['case', 'policy', *headings], lines)}\n\n{self._made(row['made'] for row in used)}"

    def _made(self, origins: Iterable[str]) -> str:
        numbers = {self._commands.setdefault(made, len(self._commands) + 1) for made in origins}
        return f"*Runs: {', '.join(map(str, sorted(numbers)))}.*"

    def _image(self, name: str, draw: Callable[[Path], None]) -> str:
        if self.drawn:
            draw(self.folder / f"{name}.png")
        return f"![{name}]({self.folder.name}/{name}.png)"

    def _of_records(self, name: str, runs: Sequence[Recorded], draw: Callable[[Path], None]) -> str:
        """A picture of records; where these are not at hand the one that was drawn from them, if it is there."""
        if runs:
            return self._image(name, draw)
        return self._image(name, lambda _: None) if (self.folder / f"{name}.png").exists() else ""


def _injected() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares and seconds of the quantile function that workers draw from, float64 ``[P]`` each."""
    shares, seconds = np.array(json.loads(GENERATOR.read_text())["quantiles"], float).T
    return shares, seconds


def _curves(rows: Iterable[FoundRow], x: str, y: str, scale: float = 1000) -> dict[str, NDArray[np.float64]]:
    """A curve for each policy, and one for each limit of the adaptive one; real runs apart."""
    order = list(pictures.POLICY_COLOURS)
    lines: dict[str, list[FoundRow]] = {}
    for row in sorted(rows, key=lambda row: (order.index(row["policy"]), row["source"] == "real")):
        also = ", patience" if row["setting"] == "patience" else ", real" if row["source"] == "real" else ""
        lines.setdefault(row["policy"] + also, []).append(row)
    return {name: curve(mine, x, y, 100, scale) for name, mine in lines.items()}


def main(argv: Sequence[str]) -> int:
    """Write the report: 0 if it went well, 2 if an argument cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "figures", type=Path, nargs="+", help="JSON files of experiments and sweeps, or folders of them"
    )
    parser.add_argument("--records", type=Path, nargs="*", help="their raw records (.jsonl, those beside them)")
    parser.add_argument("--out", type=Path, required=True, help="the report without .md; pictures go to that folder")
    args = parser.parse_args(argv)
    files = [file for given in args.figures for file in (sorted(given.glob("*.json")) if given.is_dir() else [given])]
    beside = [file.with_suffix(".jsonl") for file in files]
    try:
        records = [file for file in beside if file.exists()] if args.records is None else args.records
        rows, runs = read(files, records)
        args.out.mkdir(parents=True, exist_ok=True)
        (file := args.out.with_name(args.out.name + ".md")).write_text(Report(rows, runs, args.out).text() + "\n")
        if runs:
            write_figures(f"{args.out.name}-usage", [run.usage_row() for run in runs], directory=args.out.parent)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"report: {file}")
    return 0
