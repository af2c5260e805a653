"""What the documents show of the frontend's costs: speed against others, soak, overload."""

from __future__ import annotations

from bench.report.findings import FoundRow, markdown
from bench.report.stored import Stored, ms, one, paragraph

SPEED = "speed"
RATIOS = {
    "frontend, 3 KB": "raw tensors of 3 KB, unary, to a bare unary proxy",
    "frontend, 3 KB, PredictStream": "the same over `PredictStream`",
    "frontend, 3 KB, saturated": "the same, unary, 64 in flight, every ninth request a collage",
    "frontend, 21 KB JPEG": "JPEG 224 x 224 of 21 KB, to a proxy that only decodes",
    "frontend, 170 KB JPEG": "JPEG of 170 KB, to the same",
    "frontend, 150 KB": "raw tensors of 150 KB, to a bare unary proxy",
    "frontend, 150 KB, saturated": "the same, 64 in flight, every ninth request a collage",
    "100 workers": "100 workers to 9",
    "400 workers": "400 workers to 9",
}
PEERS = {
    "frontend, 3 KB, ModelInfer, to MLServer": "3 KB, ModelInfer on both sides",
    "frontend, 150 KB, ModelInfer, to MLServer": "150 KB, ModelInfer on both sides",
    "frontend, 150 KB, coded, ModelInfer, to MLServer": "150 KB, ModelInfer on both sides, 64 in flight, every ninth a "
    "collage",
    "frontend, 3 KB, to MLServer": "3 KB, Predict to its ModelInfer",
    "frontend, 150 KB, to MLServer": "150 KB, Predict to its ModelInfer",
    "frontend, 150 KB, coded, to MLServer": "150 KB, Predict to its ModelInfer, 64 in flight, every ninth a collage",
}

DOORS = {
    "HTTP": "`POST /v1/predict` of a 21 KB JPEG, to `Predict` by gRPC",
    "gRPC, traced": "`Predict` of a 21 KB JPEG with `--traces`, to without",
    "gRPC, 3 KB tensor, traced": "`Predict` of a 3 KB tensor with `--traces`, to without",
}


def speed(found: Stored) -> str:
    """The frontend against bare proxies, each ratio beside its two rates."""
    return _ratios(found, RATIOS)


def peers(found: Stored) -> str:
    """The frontend against MLServer: by one protocol on both sides first."""
    return _ratios(found, PEERS)


def _ratios(found: Stored, names: dict[str, str]) -> str:
    rows = {str(row["case"]): row for row in found.rows(SPEED)}
    named = {case: name for case, name in names.items() if case in rows}
    lines = [
        [
            name,
            f"{rows[case]['ratio']:.2f}",
            f"{_round(rows[case]['per_s'])}/s to {_round(rows[rows[case]['baseline']]['per_s'])}/s",
            f"{rows[case]['cpu_ratio']:.2f}",
            f"{rows[case]['bar']:g}" if rows[case].get("bar") else "-",
        ]
        for case, name in named.items()
    ]
    headings = ["what", "ratio of rates", "medians", "ratio of processor time", "wanted"]
    return f"{markdown(headings, lines)}\n\n{found.origin(SPEED, [rows[case] for case in named])}"


def single(found: Stored) -> str:
    """Latency of a single request, decoding, and collages per request."""
    latency = one(found.rows(SPEED, case="latency"))
    small, large, cell = (
        one(found.rows(SPEED, case=case))["p50_s"]
        for case in ("decode 20 KB JPEG to 32 x 32", "decode 20 KB JPEG to 224 x 224", "cell, 224 to 32 pixels")
    )
    collages = [row for row in found.rows(SPEED) if "share" in row]
    coded = next(iter(row for row in found.rows(SPEED) if row["case"] == "frontend, 3 KB, saturated"), None)
    text = (
        f"An unloaded request of 3 KB takes {ms(latency['bare_p50_s'], 2)} ms at p50 through the bare proxy and "
        f"{ms(latency['p50_s'], 2)} ms through the frontend (wanted: at most 0.7 ms more). Decoding the 21 KB JPEG "
        f"takes {ms(small, 2)} ms for 32 pixels and {ms(large, 2)} ms for 224. Its cell takes {ms(cell, 2)} ms if that "
        "is reduced from 224 to 32 pixels, when its collage is sent; a 32 x 32 tensor needs neither."
    )
    if coded and collages:
        text += (
            " In rows with collages workers take 10 ms, which costs no processor time, and the run counts "
            f"{' and '.join(format(row['share'], '.3f') for row in collages)} collages per request."
        )
    return paragraph(text)


def code_times(found: Stored) -> str:
    """What every code takes to encode a group of large images, and the addition code to decode an answer."""
    rows = [row for row in found.rows(SPEED) if ", k = " in str(row["case"])]
    lines: dict[str, list[str]] = {}
    for row in rows:
        step, _, size = str(row["case"]).partition(", k = ")
        lines.setdefault(f"{step}, {size.partition(', ')[2]}", []).append(f"{1e6 * row['p50_s']:.0f} us")
    table = markdown(["median", "k = 2", "k = 4"], [[step, *times] for step, times in lines.items()])
    wanted = "Wanted of addition without keys: at most 150 us and 250 us to encode, 20 us to decode."
    return f"{table}\n\n{wanted}\n\n{found.origin(SPEED, rows)}"


def doors(found: Stored) -> str:
    """HTTP and traces as ratios to gRPC without traces."""
    rows = {str(row["case"]): row for row in found.rows("doors")}
    lines = [
        [
            name,
            f"{rows[f'latency, {case}']['ratio']:.2f}",
            f"{ms(rows[f'latency, {case}']['p50_s'], 2)} to {ms(rows[_baseline(rows, case)]['p50_s'], 2)} ms",
            f"{rows[case]['ratio']:.2f}" if case in rows else "-",
            f"{rows[case]['cpu_ratio']:.2f}" if case in rows else "-",
        ]
        for case, name in DOORS.items()
    ]
    headings = ["what", "ratio of latencies", "p50", "ratio of rates", "ratio of processor time"]
    return f"{markdown(headings, lines)}\n\n{found.origin('doors', list(rows.values()))}"


def _baseline(rows: dict[str, FoundRow], case: str) -> str:
    """The row that a case's latency is compared with."""
    return f"latency, {rows[f'latency, {case}']['baseline']}"


def soak(found: Stored) -> str:
    """Many requests while workers die and freeze."""
    row = one(found.rows("soak"))
    growth = row["rss_after"] / row["rss_before"] - 1
    lines = [
        ["requests", "", f"{row['requests']:,} in {row['seconds']:.0f} s"],
        ["lost, answered twice, with a wrong label", "", f"{row['lost']}, {row['doubled']}, {row['wrong']}"],
        ["kills, freezes", "", f"{row['kills']}, {row['freezes']}"],
        ["failed", "", f"{row['failed']}"],
        [
            "frontend's memory (wanted: + 5 % at most)",
            f"{row['rss_before'] / 1e6:.1f} MB",
            f"{row['rss_after'] / 1e6:.1f} MB ({100 * growth:+.1f} %)",
        ],
        ["its tasks", f"{row['tasks_before']:.0f}", f"{row['tasks_after']:.0f}"],
        ["its open files", f"{row['descriptors_before']:.0f}", f"{row['descriptors_after']:.0f}"],
    ]
    return f"{markdown(['', 'after the warm-up', 'in the end'], lines)}\n\n{found.origin('soak', [row])}"


def overload(found: Stored) -> str:
    """More requests than the workers can serve."""
    rows = found.rows("overload")

    def pair(row: FoundRow, kind: str) -> str:
        known = row[f"{kind}_p50_s"], row[f"{kind}_p99_s"]
        return "" if None in known else f"{ms(known[0])}, {ms(known[1])}"

    lines = [
        [
            f"{row['offered_share']:g}x, {row['offered_per_s']:.0f}/s",
            f"{row['goodput_per_s']:.0f}/s",
            f"{100 * row['admitted_in_time']:g} %",
            pair(row, "admitted"),
            f"{row['refused']:,}",
            pair(row, "refused"),
        ]
        for row in rows
    ]
    headings = "offered|in time|of the admitted in time|admitted, p50 and p99, ms|refused|refusals, p50 and p99, ms"
    last, peak = rows[-1], max(row["goodput_per_s"] for row in rows)
    note = paragraph(
        f"Capacity is {rows[0]['capacity_per_s']:.0f} requests/s; one run. At {last['offered_share']:g} times that "
        f"goodput is {100 * last['goodput_per_s'] / peak:.0f} % of its peak (wanted: 90 %), and refusals take "
        f"{ms(last['refused_p99_s'])} ms at p99 (wanted: less than 20 ms)."
    )
    return f"{markdown(headings.split('|'), lines)}\n\n{note}\n\n{found.origin('overload', rows)}"


def _round(rate: float) -> str:
    """A rate with three digits."""
    return f"{float(f'{rate:.3g}'):,.0f}"


PASSAGES = {
    "speed": speed,
    "peers": peers,
    "single": single,
    "code-times": code_times,
    "doors": doors,
    "soak": soak,
    "overload": overload,
}
