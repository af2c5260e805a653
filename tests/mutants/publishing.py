"""Wrong versions of what makes published figures: files of figures, passages of documents, intervals."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "proto/collage/figures.py",
        [
            ("rows lose their own origin", '{} if "command" in row else made', "made"),
            (
                "the file's origin beats the row's",
                'rows = [{**made, **row} for row in content["rows"]]',
                'rows = [{**row, **made} for row in content["rows"]]',
            ),
            (
                "part of an origin is enough",
                "if not all(row.get(key) for key in MADE)",
                "if not any(row.get(key) for key in MADE)",
            ),
            (
                "intervals of one deviation",
                "return 1.96 * math.sqrt(share * (1 - share) / images)",
                "return math.sqrt(share * (1 - share) / images)",
            ),
        ],
    ),
    (
        "bench/report/pages.py",
        [
            (
                "a passage that never ends is none",
                'if stray := re.search(r"<!-- (?:begin|end) [^>]*-->", PASSAGE.sub("", text)):',
                'if stray := re.search(r"<!-- begin [^>]*-->", PASSAGE.sub("", text)):',
            ),
            (
                "rows measured again come twice",
                "newer.pop(tuple(row[key] for key in keys), row)",
                "newer.get(tuple(row[key] for key in keys), row)",
            ),
            ("new rows are lost", "] + [*newer.values()]", "]"),
        ],
    ),
    (
        "bench/report/model_passages.py",
        [
            (
                "intervals over answers instead of images",
                'return within(row["top1"], interval(row["top1"], row["images"]))',
                'return within(row["top1"], interval(row["top1"], row["answers"]))',
            ),
            (
                "epochs of the last run alone",
                "known = {role: epochs(runs) for role, runs",
                "known = {role: runs[-1].epochs for role, runs",
            ),
        ],
    ),
    (
        "bench/report/latency_passages.py",
        [
            ("requests counted as images", "return min(requests, len(load_samples()))", "return requests"),
        ],
    ),
    (
        "models/tables.py",
        [
            ("intervals over placements", "return interval(share, images) if", "return interval(share, 3 * images) if"),
        ],
    ),
]
MUTANTS = [
    Mutant(f"{file.removeprefix('proto/').removesuffix('.py')}: {what}", file, *made)
    for file, mutants in _MADE
    for what, *made in mutants
]
