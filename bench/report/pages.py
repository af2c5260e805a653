"""Write every table of the documents from the figures in docs/results.

``python -m bench tables`` fills each passage of the pages between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. It
also writes the report of all runs and the model cards. ``python -m bench tables out/speed.json`` first takes newer
figures into docs/results: a case or model that was measured again replaces the older row, the others stay.
``--accuracy-only`` takes an evaluation from a busy machine: the stored times of the same models stay.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.report import (
    accuracy_passages,
    code_passages,
    cost_passages,
    fleet_passages,
    frontier_passages,
    latency_passages,
    model_passages,
    training_passages,
)
from bench.report.comparison import Report
from bench.report.findings import FoundRow, read
from bench.report.stored import RESULTS, ROOT, ZOO, Stored
from collage.figures import MADE, read_figures
from models import cards

PAGES = (
    *("README.md", "docs/codes.md", "docs/fleet.md", "docs/policy.md", "docs/results/README.md", "docs/speed.md"),
    "docs/training.md",
)
PASSAGES: Mapping[str, Callable[[Stored], str]] = {
    **latency_passages.PASSAGES,
    **model_passages.PASSAGES,
    **code_passages.PASSAGES,
    **cost_passages.PASSAGES,
    **fleet_passages.PASSAGES,
    **frontier_passages.PASSAGES,
    **accuracy_passages.PASSAGES,
    **training_passages.PASSAGES,
}
REPORT = ("bench-full", "bench-scale", "bench-full-usage")
KEPT_BY = {
    "speed": ("case",),
    "evaluate": ("dataset", "model"),
    "fleet": ("make", "part", "way", "fault"),
    "codes": ("dataset", "base", "code", "k", "r", "lost", "seed", "metric"),
    "parm": ("source", "k", "pairs", "policy", "code", "seed"),
    "allreduce": ("model", "nodes", "mbit_s", "compressor", "seed", "epochs"),
}
"""Files whose rows are measured one by one, and the columns that tell them apart; other files are replaced whole."""
TIMES = ("latency_s", "nine_s", "latency_ratio", "nine_to_image", "nine_to_collage", "encode_s", "decode_s")
"""Columns of an evaluation that depend on the machine."""
PASSAGE = re.compile(r"<!-- begin ([\w-]+) -->\n.*?<!-- end \1 -->", re.S)


def filled(text: str, found: Stored) -> str:
    """A page with its passages written again; ValueError for a passage that is not known, or a mark without its end."""

    def written(match: re.Match[str]) -> str:
        name = match[1]
        if name not in PASSAGES:
            raise ValueError(f"there is no passage {name}: {', '.join(sorted(PASSAGES))}")
        return f"<!-- begin {name} -->\n{PASSAGES[name](found)}\n<!-- end {name} -->"

    result = PASSAGE.sub(written, text)
    if stray := re.search(r"<!-- (?:begin|end) [^>]*-->", PASSAGE.sub("", text)):
        raise ValueError(f"{stray[0]} has no counterpart")
    return result


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Every document that is made of figures, as it should be."""
    results = root / RESULTS.relative_to(ROOT)
    texts = {}
    for page in (root / name for name in PAGES):
        at = os.path.relpath(results, page.parent)
        texts[page] = filled(page.read_text(), Stored(results, "" if at == "." else f"{at}/"))
    rows, _ = read([results / f"{name}.json" for name in REPORT], [])
    report = results / "bench-full"
    texts[report.with_suffix(".md")] = Report(rows, [], report, drawn=False).text() + "\n"
    zoo = root / ZOO.relative_to(ROOT)
    texts[zoo / "README.md"] = cards.text(zoo, results / "evaluate.json", results / "codes.json")
    return texts


def take(figures: Path, results: Path = RESULTS, *, accuracy_only: bool = False) -> Path:
    """Put newer figures beside or in place of the stored ones of the same name.

    With ``accuracy_only`` the stored times of each model stay, and what made them is in the columns ``latency_*``.
    """
    stored, rows = results / figures.name, read_figures(figures)
    if (keys := KEPT_BY.get(figures.stem)) and stored.exists():
        newer = {tuple(row[key] for key in keys): row for row in rows}
        if accuracy_only:
            older = {tuple(row[key] for key in keys): row for row in read_figures(stored)}
            newer = {key: timed_before(row, older.get(key)) for key, row in newer.items() if row["kind"] != "code"}
        rows = [newer.pop(tuple(row[key] for key in keys), row) for row in read_figures(stored)] + [*newer.values()]
    stored.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    return stored


def timed_before(row: FoundRow, older: FoundRow | None) -> FoundRow:
    """A row of an evaluation with the times of an older one; ValueError if that is not of the same model."""
    if older is None or older["version"] != row["version"]:
        raise ValueError(f"{row['model']}: this version has no stored times, so take all of its figures")
    origin = {f"latency_{key}": older.get(f"latency_{key}", older[key]) for key in MADE}
    return {**row, **{key: older.get(key) for key in TIMES}, **origin}


def main(argv: Sequence[str]) -> int:
    """Write the documents: 0 if it went well, 2 if the figures cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m bench tables", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figures", type=Path, nargs="*", help="newer figures to take into docs/results first")
    parser.add_argument("--accuracy-only", action="store_true", help="of an evaluation: stored times stay")
    args = parser.parse_args(argv)
    try:
        for figures in args.figures:
            print(f"taken: {take(figures, accuracy_only=args.accuracy_only)}")
        if any(figures.stem == code_passages.CODES for figures in args.figures):  # when all are taken: rows are cached
            print(f"drawn: {code_passages.draw(Stored())}")
        for page, text in documents().items():
            if page.read_text() != text:
                page.write_text(text)
                print(f"written: {page}")
    except (OSError, ValueError, KeyError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0
