"""What the documents show of the frontier: the tail against extra load, all families, and where ours loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bench.measured import extra_load
from bench.report.findings import FoundRow, grouped, less, markdown, mean, ratio, select, show, show_mean
from bench.report.frontier import OURS, PLACE, TAILS, VARIANT, Loss, best, compared, losses
from bench.report.stored import Stored, paragraph

FRONTIER = "frontier"
MOST = 0.125  # of extra load, in the table of families
ORDER = (OURS, "collage", "adaptive-hedge", "prequal-hedge", "single-r", "idle-cloning", "hedge")


def curve(found: Stored) -> str:
    """Transient slowness at half load: every setting of ``adaptive`` beside the best rival that costs no more."""
    rows = found.rows(FRONTIER, source="sim", family="transient", load=0.5, offered="poisson")
    lines = []
    for (workers, redundant, grid), here in sorted(grouped(rows, ("workers", "redundant", "grid")).items()):
        variants = grouped(select(here, policy=OURS), VARIANT).values()
        for ours in sorted(variants, key=lambda same: mean(same, "extra_load")):
            load = mean(ours, "extra_load")
            rivals = {policy: same for policy, same in best(here, "p99_s", 1.02 * load).items() if policy != OURS}
            line = [f"{workers} + {redundant}, {grid}", show_mean(ours, "extra_load", 100, 1)]
            line += [show_mean(ours, key, 1000, 0) for key in ("p50_s", *TAILS)]
            line.append(show_mean(ours, "coded_share", 100, 1))
            if rivals:
                rival = min(rivals.values(), key=lambda same: mean(same, "p99_s"))
                line += [_named(rival), show_mean(rival, "extra_load", 100, 1)]
                line += [show_mean(rival, key, 1000, 0) for key in TAILS]
            lines.append(line)
    headings = (
        "workers, grid|extra load, %|p50, ms|p99|p99.9|coded, %|best rival at no more extra load|its extra load, %|"
        "p99|p99.9"
    )
    return f"{markdown(headings.split('|'), lines)}\n\n{_note(rows)}\n\n{found.origin(FRONTIER, rows)}"


def families(found: Stored, tail: str = "p99_s") -> str:
    """Every policy in every family, at half load on the small cluster."""
    rows = found.rows(FRONTIER, source="sim", workers=36, load=0.5)
    places = grouped(rows, ("family", "offered"))
    known = dict.fromkeys(row["policy"] for row in rows)
    policies = [*(policy for policy in ORDER if policy in known), *(policy for policy in known if policy not in ORDER)]
    lines = []
    for (family, offered), here in places.items():
        chosen = best(here, tail, MOST)
        least = min((mean(same, tail) for same in chosen.values()), default=0.0)
        name = family if offered == "poisson" else f"{family}, {offered}"
        cells = []
        for policy in policies:
            if policy not in chosen:
                cells.append("")
                continue
            same = chosen[policy]
            value = f"{show_mean(same, tail, 1000, 0)} ({100 * mean(same, 'extra_load'):.1f} %)"
            cells.append(f"**{value}**" if mean(same, tail) == least else value)
        lines.append([name, *cells])
    note = paragraph(
        f"Request {TAILS[tail]} in ms (extra load), 36 + 4 workers, half load, each policy at its best setting of at "
        f"most {100 * MOST:.0f} % extra load; the lowest is bold. {_runs(rows)}"
    )
    return f"{markdown(['family', *policies], lines)}\n\n{note}\n\n{found.origin(FRONTIER, rows)}"


def beaten(found: Stored) -> str:
    """Where a rival is below ``adaptive`` at no more extra load, beyond the interval."""
    rows = found.rows(FRONTIER, source="sim")
    lost, places = list(losses(rows)), compared(rows)
    told = paragraph(
        f"`adaptive` was compared at {places:,} settings, places and tails (p99, p99.9) with every rival that costs no "
        f"more extra load there. A rival is below it, beyond the 95 % interval over seeds, in {len(lost):,}."
    )
    if not lost:
        return f"{told}\n\n{found.origin(FRONTIER, rows)}"
    lines = [_loss(loss) for loss in lost]
    headings = f"family|workers, grid|offered|tail|{OURS}: extra load, %|ms|rival|its extra load, %|ms"
    return f"{told}\n\n{markdown(headings.split('|'), lines)}\n\n{found.origin(FRONTIER, rows)}"


def _loss(loss: Loss) -> Sequence[str]:
    family, workers, redundant, grid, offered, load = loss.place
    return [
        family, f"{workers} + {redundant}, {grid}", f"{offered}, {load:.0%}", TAILS[loss.tail],
        show_mean(loss.ours, "extra_load", 100, 1), show_mean(loss.ours, loss.tail, 1000, 0),
        _named(loss.rival), show_mean(loss.rival, "extra_load", 100, 1), show_mean(loss.rival, loss.tail, 1000, 0),
    ]  # fmt: skip


def _named(rows: Sequence[FoundRow]) -> str:
    setting = rows[0]["setting"]
    return f"{rows[0]['policy']}, {setting.replace(',', ', ').replace('=', ' ')}" if setting else str(rows[0]["policy"])


def _note(rows: Sequence[FoundRow]) -> str:
    return paragraph(
        f"Simulated, Poisson arrivals at half load. {_runs(rows)} The models are the shipped ones of CIFAR-10 with "
        "their measured latency. Settings of rivals were chosen on other seeds."
    )


def _runs(rows: Sequence[FoundRow]) -> str:
    """How many requests and seeds there are."""
    seeds = sorted({len(same) for same in grouped(rows, (*PLACE, *VARIANT)).values()})
    requests = sorted({row["requests"] for row in rows})
    many = " to ".join(f"{count:,}" for count in dict.fromkeys((requests[0], requests[-1])))
    return f"{many} requests for each of {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds."


def real(found: Stored) -> str:
    """Real processes: our frontend beside a real Envoy."""
    rows = found.rows(FRONTIER, source="real", offered="closed")
    lines = [
        [
            f"{family}, {workers} + {redundant}: {_named(same)}",
            *(show_mean(same, key, 1000, 0) for key in ("p50_s", "p99_s")),
            show_mean(same, "extra_load", 100, 1),
            f"{mean(same, 'ejections'):.1f}",
        ]
        for (family, workers, redundant), here in grouped(rows, ("family", "workers", "redundant")).items()
        for same in grouped(here, ("policy", "setting")).values()
    ]
    headings = ["", "p50, ms", "p99, ms", "extra load, %", "ejections"]
    note = paragraph(
        f"Requests of closed groups, one after another: {rows[0]['requests']:,} for each of "
        f"{len({row['seed'] for row in rows})} seeds; ± is the 95 % interval over seeds."
    )
    return f"{markdown(headings, lines)}\n\n{note}\n\n{found.origin(FRONTIER, rows)}"


def deferral(found: Stored) -> str:
    """Real processes with small budgets beside the simulator, with the same arrivals and draws."""
    rows = [{"value": None, **row, "sent": extra_load(row)} for row in found.rows("deferral", regime="transient")]
    lines = []
    for (policy, value), same in grouped(rows, ("policy", "value")).items():
        real, sim = (select(same, source=source) for source in ("real", "sim"))
        line = [policy if value is None else f"{policy}, budget {100 * value:g} %"]
        line += [f"{show_mean(real, 'sent', 100, 1)} / {show_mean(sim, 'sent', 100, 1)}"]
        for key in ("p50_s", "p99_s"):
            line.append(f"{show_mean(real, key, 1000, 0)} / {show_mean(sim, key, 1000, 0)}")
        lines.append([*line, show(ratio(real, sim, "p99_s"), digits=2)])
    headings = ["real / simulated", "extra load, %", "p50, ms", "p99, ms", "p99's ratio"]
    first = rows[0]
    note = paragraph(
        f"{first['n']} + {first['redundant']} processes, Poisson arrivals at half load, "
        f"{first['n'] * first['groups']:,} requests for each of {len({row['seed'] for row in rows})} seeds; ± is the "
        "95 % interval over seeds."
    )
    return f"{markdown(headings, lines)}\n\n{note}\n\n{found.origin('deferral', rows)}"


def parm(found: Stored) -> str:
    """ParM's experiment: every code beside equal resources."""
    rows = found.rows("parm")
    lines = []
    for (source, k, pairs), here in grouped(rows, ("source", "k", "pairs")).items():
        where = ", real processes" if source == "real" else ""
        (equal,) = (same for (policy,), same in grouped(here, ("policy",)).items() if policy == "equal-resources")
        for (code, policy), same in grouped(here, ("code", "policy")).items():
            lines.append(
                [
                    f"k = {k}, {pairs} {'pair' if pairs == 1 else 'pairs'}{where}: {PARM[policy, code]}",
                    *(show_mean(same, key, 1000, 0) for key in ("p50_s", *TAILS)),
                    "" if code is None else show(less(ratio(same, equal, "p999_s")), 100, 0),
                    show_mean(same, "coded_share", 100, 1),
                    show_mean(same, "extra_load", 100, 0),
                ]
            )
    headings = "|p50, ms|p99|p99.9|p99.9 against equal resources, %|coded answers, %|extra load, %".split("|")
    counts = []
    for (source,), same in grouped(rows, ("source",)).items():
        seeds = len({row["seed"] for row in same})
        of = f"for each of {seeds} seeds" if seeds > 1 else "for one seed"
        counts.append(f"{same[0]['requests']:,} queries {of}{', on real processes' if source == 'real' else ''}")
    note = paragraph(f"{'; '.join(counts)}; ± is the 95 % interval over seeds.")
    return f"{markdown(headings, lines)}\n\n{note}\n\n{found.origin('parm', rows)}"


PARM = {
    ("equal-resources", None): "equal resources",
    ("first-come", "linear"): "ParM's code, answers as soon as they can be decoded",
    ("adaptive", "linear"): "ParM's code, adaptive",
    ("first-come", "collage"): "2 x 2 collages, answers as soon as they are back",
    ("adaptive", "collage"): "2 x 2 collages, adaptive",
}


PASSAGES: Mapping[str, Callable[[Stored], str]] = {
    "frontier-curve": curve, "frontier-families": families, "frontier-real": real, "deferral-real": deferral,
    "parm": parm, "frontier-families-p999": partial(families, tail="p999_s"), "frontier-losses": beaten,
}  # fmt: skip
