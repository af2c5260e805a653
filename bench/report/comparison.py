"""The report: the paper's figures and tables beside ours, and curves beyond them; it only draws.

``python -m bench.comparison out/bench-full/runs out/bench-scale.json --out docs/results/bench-full`` writes
``bench-full.md`` and a folder of pictures; ``python -m bench.comparison sweep`` simulates what the curves need.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.offer import latency
from bench.offer.workload import REGIMES
from bench.report import pictures
from bench.report.findings import (
    CASE,
    RIVAL_LOAD,
    VARIANT,
    Interval,
    Recorded,
    Row,
    Usage,
    below,
    best_rival,
    describe,
    grouped,
    mean,
    ratio,
    read,
    select,
    title,
)
from bench.simulator.replay import COMPARED, mean_of
from bench.simulator.sweep import DENSITY, REGIME, budget_cases, cases, long_cases, scale, sweep
from collage.figures import command, machine
from frontend.policy.rules import Rules

PAPER_FIGURE_7 = {9: ("3.9", "2.7", "2", "1.6"), 16: ("2.5", "2.1", "1.6", "1.5"), 25: ("1.36", "1.68", "1.2", "1.4")}
PAPER_USAGE = {9: Usage(8310, 1480, 1280, 1119, 1280, 1119), 16: Usage(4680, 1002, 689, 563, 689, 563)}
_MS, _PERCENT = (1000, 0), (100, 1)  # scale, digits
_OPEN = {"p99_s": _MS, "sent": _PERCENT, "unsure_share": _PERCENT}
_AGREEMENT = {
    **{"request p50": ("p50_s", _MS), "request p99": ("p99_s", _MS), "group p99": ("group_p99_s", _MS)},
    "extra load %": ("sent", _PERCENT),
}


class Report:
    """Sections in Markdown; their pictures go to the folder ``pictures``. A section without data is empty."""

    def __init__(self, rows: Sequence[Row], runs: Sequence[Recorded], folder: Path) -> None:
        self.rows = [row for row in rows if "workers" not in row]
        self.scaled = [row for row in rows if "workers" in row]
        self.runs, self.folder = runs, folder
        self._commands: dict[str, int] = {}  # that made the figures, numbered

    def text(self) -> str:
        """Draw the pictures and return the report."""
        sections: Mapping[str, Callable[[], str]] = {
            "Latency of the injected slowness (figure 2)": self.injected,
            "Group latency by policy and N (figure 7)": self.densities,
            "Use of the collage-cnn (tables 1 and 2)": self.usage,
            "Policies compared": self.ratios,
            "Distribution of latency with its tail": self.tails,
            "Tail against extra load": self.extra_load,
            "The second limit of the adaptive policy": self.patience,
            "Tail against offered load": self.offered_load,
            "Simulator against cluster": self.agreement,
            "Larger clusters": self.clusters,
        }
        done = {heading: section() for heading, section in sections.items()}
        missing = [heading for heading, section in done.items() if not section]
        return "\n\n".join(
            [
                f"# Results: {self.folder.name}",
                f"Drawn by `{command()}` on {describe(machine())}. Latencies in milliseconds as if times had not been "
                "shortened; a group's is that of its slowest member. ± is the 95 % confidence interval over seeds. "
                "Extra load counts collages and replicas per request.",
                *(f"## {heading}\n\n{section}" for heading, section in done.items() if section),
                *([f"Left out for want of data: {'; '.join(missing)}."] if missing else []),
                "## Runs",
                *(f"{number}. {made}" for made, number in self._commands.items()),
            ]
        )

    def injected(self) -> str:
        """The committed generator."""
        table = latency.load()
        pictures.generator(self.folder / "figure-2.png", table.probabilities, table.seconds)
        mean = np.trapezoid(table.seconds, table.probabilities)
        values = f"mean {mean:.3f} s, p99 {table.quantile(0.99):.2f} s, p99.9 {table.quantile(0.999):.2f} s"
        return (
            f"{self._image('figure-2')}\n\nOurs: {values}. Paper: mean 0.15 s, p99 0.70 s.\n\n"
            f"*`bench/latency.json`, drawn by `{command()}` on {describe(machine())}.*"
        )

    def densities(self) -> str:
        """All policies that were recorded in the first regime, by N and source."""
        runs = [run for run in self.runs if run.regime == REGIME and run.load is None and run.policy in DENSITY]
        if not runs:
            return ""
        pictures.densities(
            self.folder / "figure-7.png", _panels(sorted(runs, key=lambda run: (run.n, run.source)), "group")
        )
        headings = ("", "std: none / collage", "replicate / collage", "p99: none / collage", "replicate / collage")
        lines = [[f"paper, {n} + 1", *ratios] for n, ratios in PAPER_FIGURE_7.items()]
        closed = select(self.rows, offered="closed", regime=REGIME, redundant=1)
        for case, rows in sorted(grouped(closed, CASE).items()):
            if ours := select(rows, policy="collage", setting=None):
                rivals = select(rows, policy="none"), best_rival(rows)
                found = [ratio(rival, ours, key) for key in ("group_std_s", "group_p99_s") for rival in rivals]
                lines.append([_case(case), *(_show(value, digits=2) for value in found)])
        note = "Ours are ratios to the best setting of replicate or hedge, as below.\n\n"
        return f"{self._image('figure-7')}\n\n{_table(headings, lines)}\n\n{note}{self._made(run.made for run in runs)}"

    def usage(self) -> str:
        """Tables 1 and 2; of an adaptive policy early answers count as well."""
        ours = [run for run in self.runs if run.usage.available and run.load is None and run.regime == REGIME]
        if not ours:
            return ""
        columns: dict[str, Usage] = {}
        for n in sorted({run.n for run in ours}):
            if n in PAPER_USAGE:
                columns[f"paper, {n} + 1"] = PAPER_USAGE[n]
            for policy, source in dict.fromkeys((run.title, run.source) for run in ours if run.n == n):
                usages = [run.usage for run in ours if (run.n, run.title, run.source) == (n, policy, source)]
                total = Usage(*(sum(numbers) for numbers in zip(*usages, strict=True)))
                columns[f"{policy}, {n} + 1, {source}"] = total
        lines: Mapping[str, Callable[[Usage], object]] = {
            "groups": lambda usage: usage.groups,
            "with a slowdown (a member not answered by its s-cnn)": lambda usage: usage.slow,
            "of these without a coded answer": lambda usage: usage.slow - usage.available,
            "with a coded answer": lambda usage: usage.available,
            "of these all coded answers right": lambda usage: usage.right,
            "recovery accuracy": lambda usage: f"{100 * usage.right / usage.available:.1f} %",
            "accuracy of coded answers one by one": lambda usage: f"{100 * usage.answers_right / usage.answers:.1f} %",
        }
        table = [[line, *(show(usage) for usage in columns.values())] for line, show in lines.items()]
        note = "The adaptive policy gives coded answers early: its first lines count these too.\n\n"
        return f"{_table(['', *columns], table)}\n\n{note}{self._made(run.made for run in ours)}"

    def ratios(self) -> str:
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
                loss = [{"points": row["accuracy"] - row["accuracy_available"]} for row in mine]
                line = {
                    "policy": title(mine[0]) + (" (best rival)" if rival and mine[0] is rival[0] else ""),
                    "extra load %": _show(mean_of(mine, "sent"), 100),
                    "request p99": _show(mean_of(mine, "p99_s"), 1000, 0),
                    "group p99": _show(mean_of(mine, "group_p99_s"), 1000, 0),
                    "group p99.9": _show(mean_of(mine, "group_p999_s"), 1000, 0),
                    "none / it, group p99": _show(ratio(none, mine, "group_p99_s"), digits=2),
                    "best rival / it, group p99": _show(ratio(rival, mine, "group_p99_s"), digits=2),
                    "collage / it, group p99": _show(ratio(usual, mine, "group_p99_s"), digits=2),
                    "none / it, group std": _show(ratio(none, mine, "group_std_s"), digits=2),
                    "best rival / it, group std": _show(ratio(rival, mine, "group_std_s"), digits=2),
                    "request p50 against none %": _show(_less(ratio(mine, none, "p50_s")), 100),
                    "group p50 against none %": _show(_less(ratio(mine, none, "group_p50_s")), 100),
                    "coded %": _show(mean_of(mine, "coded_share"), 100),
                    "coded while unsure %": _show(mean_of(mine, "unsure_share"), 100, 2),
                    "A_o - A_a, points": _show(mean_of(loss, "points"), 100, 2),
                }
                lines.append(line)
            table = _table(list(lines[0]), (line.values() for line in lines))
            counts = [len(mine) for mine in variants.values()]
            seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
            tables.append(f"### {_case(case)}, {seeds} seeds\n\n{table}\n\n{self._made(row['made'] for row in rows)}")
        rule = (
            "The best rival is the setting of replicate or hedge with the lowest group p99 among those with an extra "
            f"load of at most {RIVAL_LOAD} r / N ({RIVAL_LOAD / 9:.0%} at 9 + 1). Ratios are of means over the seeds "
            "that both have."
        )
        return "\n\n".join([rule, *tables]) if tables else ""

    def tails(self) -> str:
        """Distribution of the real latencies, per group and per request."""
        runs = [run for run in self.runs if run.source == "real" and run.load is None and run.regime in REGIMES]
        if not runs:
            return ""
        pictures.tails(self.folder / "tails.png", _panels(runs, "group") | _panels(runs, "request"))
        return f"{self._image('tails')}\n\n{self._made(run.made for run in runs)}"

    def extra_load(self) -> str:
        """All policies and settings at 9 + 1 in closed groups, with the real ones as markers."""
        rows = select(self.rows, offered="closed", regime=REGIME, n=9, redundant=1)
        if not any(row["setting"] for row in rows):
            return ""
        panels = [
            pictures.Panel(of, "extra load, %", "p99, ms", self._curves(rows, "sent", key))
            for of, key in (("per group", "group_p99_s"), ("per request", "p99_s"))
        ]
        pictures.curves(self.folder / "extra-load.png", panels)
        return (
            f"{self._image('extra-load')}\n\nReplicate and collage at several deadlines, hedge at several quantiles, "
            "adaptive with several budgets, and with several second limits (patience).\n\n"
            f"{self._made(row['made'] for row in rows)}"
        )

    def patience(self) -> str:
        """Group p99 and answers coded while unsure, against the second limit."""
        rows = select(self.rows, policy="adaptive", setting="patience")
        if not rows:
            return ""
        panels, deadline = [], 1000 * latency.load().quantile(0.95)
        for label, key, factor in (
            ("group p99, ms", "group_p99_s", 1000),
            ("coded while unsure, %", "unsure_share", 100),
        ):
            curve = {"adaptive": self._curve(rows, "value", key, deadline, factor)}
            panels.append(pictures.Panel("", "second limit (patience), ms", label, curve))
        pictures.curves(self.folder / "patience.png", panels)
        limits = ", ".join(f"{row['value']:g}" for row in rows[:: len({row["seed"] for row in rows})])
        return (
            f"{self._image('patience')}\n\nPatience of {limits} deadlines; the deadline is the tracked p95, about "
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
            panels.append(pictures.Panel(name, x, "request p99, ms", self._curves(mine, "load", "p99_s"), log=True))
            panels.append(pictures.Panel(name, x, "extra load, %", self._curves(mine, "load", "sent", 100)))
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
                figures = (_show(mean_of(rows, key), *form) for rows in (ours, best) for key, form in _OPEN.items())
                lines.append([name, source, f"{load:.0%}", *figures, best[0]["policy"], beaten or "-"])
        if not rows:
            return ""
        pictures.curves(self.folder / "offered-load.png", panels)
        most = max((row["sent"] for row in select(rows, policy="adaptive")), default=0.0)
        headings = (
            "workers|source|load|adaptive: p99|extra load %|coded while unsure %|"
            "lowest other p99|its extra load %|coded while unsure %|policy|beaten on both by"
        )
        return (
            f"{self._image('offered-load')}\n\nPoisson arrivals, latency from the intended start. Beaten: lower p99 "
            f"and less extra load, both beyond the intervals of the ratios seed by seed. The budget is "
            f"{Rules().extra_load:.0%} of extra load; the most that adaptive sent in a run is {most:.1%}.\n\n"
            f"{_table(headings.split('|'), lines)}\n\n{self._made(row['made'] for row in rows)}"
        )

    def agreement(self) -> str:
        """Real rows beside simulated ones of the same case."""
        lines, used = [], []
        for case, rows in grouped(select(self.rows, source="real"), (*CASE[1:], *VARIANT)).items():
            twins = select(self.rows, source="sim", **dict(zip((*CASE[1:], *VARIANT), case, strict=True)))
            if not twins:
                continue
            used += [*rows, *twins]
            line = [_case(("", *case)), title(rows[0])]
            for key, form in _AGREEMENT.values():
                line += [_show(mean_of(rows, key), *form), _show(mean_of(twins, key), *form)]
                line += [_show(_less(ratio(twins, rows, key)), 100)]
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
        return f"{note}{_table(['case', 'policy', *headings], lines)}\n\n{self._made(row['made'] for row in used)}"

    def clusters(self) -> str:
        """What ``scale`` found."""
        if not self.scaled:
            return ""
        headings = "workers|frontends|policy|load|requests|µs each|request p50|request p99|extra load %|coded %"
        lines = (
            [
                f"{row['workers'] - row['redundant']:,} + {row['redundant']:,}",
                *(row["frontends"], row["policy"], f"{row['load']:.0%}", f"{row['requests']:,}"),
                *(f"{row['us_per_request']:.0f}", f"{1000 * row['p50_s']:.0f}", f"{1000 * row['p99_s']:.0f}"),
                f"{100 * (row['collage_load'] + row['replica_load']):.1f}",
                f"{100 * row['coded_share']:.1f}",
            ]
            for row in self.scaled
        )
        note = (
            "Simulated, one seed; microseconds of one core per request. Several frontends do not see each other's "
            "calls, which then meet at the same workers, and fill groups more slowly."
        )
        return f"{note}\n\n{_table(headings.split('|'), lines)}\n\n{self._made(row['made'] for row in self.scaled)}"

    def _curves(self, rows: Iterable[Row], x: str, y: str, scale: float = 1000) -> dict[str, NDArray[np.float64]]:
        """A curve for each policy, and one for each limit of the adaptive one; real runs apart."""
        lines: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: (COMPARED.index(row["policy"]), row["source"] == "real")):
            also = ", patience" if row["setting"] == "patience" else ", real" if row["source"] == "real" else ""
            lines.setdefault(row["policy"] + also, []).append(row)
        return {name: self._curve(mine, x, y, 100, scale) for name, mine in lines.items()}

    def _curve(self, rows: Iterable[Row], x: str, y: str, x_scale: float, y_scale: float) -> NDArray[np.float64]:
        """x, y and half the interval of y, a point for each variant and case, from left to right."""
        points = []
        for same in grouped(rows, (*CASE, *VARIANT)).values():
            if (found := mean_of(same, y)) is not None:
                points.append((x_scale * mean(same, x), y_scale * found[0], y_scale * found[1]))
        return np.array(sorted(points)).reshape(-1, 3)

    def _made(self, origins: Iterable[str]) -> str:
        numbers = {self._commands.setdefault(made, len(self._commands) + 1) for made in origins}
        return f"*Runs: {', '.join(map(str, sorted(numbers)))}.*"

    def _image(self, name: str) -> str:
        return f"![{name}]({self.folder.name}/{name}.png)"


def _less(share: Interval | None) -> Interval | None:
    return share and (share[0] - 1, share[1])


def _show(value: Interval | None, scale: float = 1, digits: int = 1) -> str:
    if value is None:
        return "-"
    spread = f" ± {scale * value[1]:.{digits}f}" if value[1] == value[1] else ""
    return f"{scale * value[0]:.{digits}f}{spread}"


def _case(case: tuple[Any, ...]) -> str:
    source, regime, _, load, n, redundant, groups, *_ = case
    offered = "closed groups" if load is None else f"{load:.0%} load"
    return f"{source}{source and ', '}{regime}, {n} + {redundant}, {groups:,} {offered}"


def _panels(runs: Iterable[Recorded], of: str) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Latencies ``of`` each policy's groups or requests, all seeds together, for each regime, N and source."""
    panels: dict[str, dict[str, NDArray[np.float64]]] = {}
    for run in runs:
        panel = panels.setdefault(f"{run.regime}, {run.n} + 1, {run.source}, per {of}", {})
        seconds = run.groups_s if of == "group" else run.requests_s
        panel[run.title] = np.concatenate((panel.get(run.title, np.empty(0)), seconds))
    return panels


def _table(headings: Sequence[str], lines: Iterable[Iterable[object]]) -> str:
    rows = [headings, ["---", *["---:"] * (len(headings) - 1)], *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def main(argv: Sequence[str]) -> int:
    """Write the report, or sweep: 0 if it went well, 2 if an argument cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m bench.comparison", description=(__doc__ or "").partition("\n")[0])
    if argv[:1] == ["sweep"]:
        parser.prog += " sweep"
        sweeps = {"usual": cases, "budgets": budget_cases, "long": long_cases}
        parser.add_argument("what", choices=(*sweeps, "scale"), nargs="?", default="usual", help="(%(default)s)")
        parser.add_argument("--groups", type=int, default=1000, help="closed groups per setting and seed (%(default)s)")
        parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
        parser.add_argument("--out", type=Path, default=Path("out/bench-sim.json"), help="(%(default)s)")
        args = parser.parse_args(argv[1:])
        if args.groups < 10 or args.seeds < 1:
            parser.error("at least 10 groups and one seed")
        if args.what == "scale":
            file = scale(args.out, 1000 * args.groups)
        else:
            file = sweep(args.out, sweeps[args.what](), args.groups, args.seeds)
        print(f"figures: {file}")
        return 0
    parser.add_argument("figures", type=Path, nargs="+", help="JSON files of bench.experiment and of sweep, or folders")
    parser.add_argument("--records", type=Path, nargs="*", help="their raw records (.jsonl, those beside them)")
    parser.add_argument("--out", type=Path, required=True, help="the report without .md; pictures go to that folder")
    args = parser.parse_args(argv)
    files = [file for given in args.figures for file in (sorted(given.glob("*.json")) if given.is_dir() else [given])]
    beside = [file.with_suffix(".jsonl") for file in files]
    try:
        records = [file for file in beside if file.exists()] if args.records is None else args.records
        report = Report(*read(files, records), args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        (file := args.out.with_name(args.out.name + ".md")).write_text(report.text() + "\n")
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"report: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
