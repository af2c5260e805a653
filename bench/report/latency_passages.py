"""What the documents show of latencies: the demo, experiments on real processes, simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.measured import mean_of
from bench.report.findings import (
    CASE,
    RIVALS,
    VARIANT,
    FoundRow,
    best_rival,
    grouped,
    less,
    markdown,
    ratio,
    select,
    show,
    show_mean,
    title,
)
from bench.report.stored import Stored, machine, ms, paragraph, percent, within
from bench.samples import load_samples
from collage.figures import interval

POLICIES = ("none", "hedge", "ejection", "collage", "adaptive")
FULL = "bench-full"


def demo_about(found: Stored) -> str:
    """What the demo's figures were measured on."""
    row = found.rows("demo")[0]
    members, images = row["requests"] // row["groups"], _images(row["requests"])
    return paragraph(
        f"`make demo`: {row['groups']} closed groups of {members} for each policy, {members + 2} real processes, one "
        f"run on {machine(row)}. Service times are drawn from a generator that reproduces the paper's figure 2 "
        f"(ResNet-34 on 50 cloud machines) within 2 % at every percentile. Accuracy is over {images:,} images, with "
        "its 95 % interval."
    )


def demo_short(found: Stored) -> str:
    """The demo's table for the first page."""
    return _demo(
        found,
        {
            "request p50 / p99, ms": lambda row: f"{ms(row['p50_s'])} / {ms(row['p99_s'])}",
            "request mean / std, ms": lambda row: f"{ms(row['mean_s'])} / {ms(row['std_s'])}",
            "group p95 (slowest of nine), ms": lambda row: ms(row["group_p95_s"]),
            "answers from the code": lambda row: percent(row["coded_share"]),
            "accuracy": lambda row: within(row["accuracy"], interval(row["accuracy"], _images(row["requests"])), 1),
            "extra load": lambda row: percent(row["collage_load"] + row["replica_load"]),
        },
    )


def demo(found: Stored) -> str:
    """All of the demo's figures."""

    def coded(row: FoundRow) -> str:
        if row["coded_accuracy"] is None:
            return ""
        count = round(row["coded_share"] * row["requests"])
        return f"{within(row['coded_accuracy'], interval(row['coded_accuracy'], count), 1)} of {count}"

    return _demo(
        found,
        {
            "request p50 / p95 / p99, ms": lambda row: " / ".join(ms(row[f"p{p}_s"]) for p in (50, 95, 99)),
            "request mean / std, ms": lambda row: f"{ms(row['mean_s'])} / {ms(row['std_s'])}",
            "group p50 / p95 (slowest of nine), ms": lambda row: f"{ms(row['group_p50_s'])} / {ms(row['group_p95_s'])}",
            "answered by s-cnn / replica / collage": lambda row: " / ".join(
                percent(row[f"{source}_share"]) for source in ("s_cnn", "replica", "coded")
            ),
            "accuracy": lambda row: within(row["accuracy"], interval(row["accuracy"], _images(row["requests"])), 1),
            "accuracy of coded answers": coded,
            "extra load: collages, replicas": lambda row: ", ".join(
                percent(row[f"{kind}_load"]) for kind in ("collage", "replica")
            ),
        },
    )


def _demo(found: Stored, lines: Mapping[str, Callable[[FoundRow], str]]) -> str:
    rows = found.rows("demo")
    table = [[name, *map(shown, rows)] for name, shown in lines.items()]
    headings = {"none": "none", "replicate": "replicate at p95", "collage": "collage"}
    return f"{markdown(['', *(headings[row['policy']] for row in rows)], table)}\n\n{found.origin('demo', rows)}"


def transient(found: Stored) -> str:
    """Closed groups at 9 + 1, redrawn for every request."""
    rows = found.runs(source="real", regime="transient", offered="closed", n=9)
    policies = {policy: same for (policy,), same in grouped(rows, ("policy",)).items()}
    policies = {
        policy: policies[policy] for policy in (*POLICIES[:1], "replicate", *POLICIES[1:]) if policy in policies
    }
    none, seeds = policies["none"], len(policies["none"])

    def compared(key: str) -> list[str]:
        return [show(ratio(none, same, key), digits=1) if same is not none else "" for same in policies.values()]

    def every(key: str, scale: float = 1000, digits: int = 0) -> list[str]:
        return [show_mean(same, key, scale, digits) for same in policies.values()]

    images = _images(none[0]["groups"] * none[0]["n"])
    accuracy = [100 * _mean(same, "accuracy") for same in policies.values()]
    lines = [
        ["request p50, ms", *every("p50_s")],
        ["request p99, ms", *every("p99_s")],
        ["group p50, ms", *every("group_p50_s")],
        ["group p99 (slowest of nine), ms", *every("group_p99_s")],
        ["none / it, group p99", *compared("group_p99_s")],
        ["none / it, group std", *compared("group_std_s")],
        ["answers from the code, %", *every("coded_share", 100, 1)],
        [f"accuracy on {images:,} images, %", *(f"{value:.1f}" for value in accuracy)],
        ["extra load, %", *every("sent", 100, 1)],
    ]
    own = _mean(none, "accuracy_available")
    loss = _mean(policies["adaptive"], "accuracy_available") - _mean(policies["adaptive"], "accuracy")
    note = paragraph(
        f"{none[0]['groups']:,} closed groups of {none[0]['n']} per policy and each of {seeds} seeds; ± is the 95 % "
        f"interval over seeds. Accuracy has one over images, which is the same for all columns: ± "
        f"{100 * interval(own, images):.1f} points. On these images `adaptive` loses {100 * loss:.1f} points against "
        "the s-cnn's answers: it answers early from the collage where its calibrated confidence allows."
    )
    made = found.origin(FULL, (row for same in policies.values() for row in same))
    return f"{markdown(['', *(_limit(same[0]) for same in policies.values())], lines)}\n\n{note}\n\n{made}"


def clusters(found: Stored) -> str:
    """Other sizes of clusters and other kinds of slowness."""
    cases: Mapping[str, Mapping[str, object]] = {
        "4 + 1 workers, transient": {"regime": "transient", "n": 4},
        "16 + 1 workers, transient": {"regime": "transient", "n": 16},
        "25 + 1 workers, transient": {"regime": "transient", "n": 25},
        "9 + 1, one machine slow all the time": {"regime": "persistent"},
        "9 + 1, the slowness moves": {"regime": "mixture"},
        "9 + 1, workers are killed and frozen": {"regime": "failures"},
    }
    lines, used = [], []
    for name, wanted in cases.items():
        rows = found.runs(source="real", offered="closed", **wanted)
        used += rows
        cells = []
        for policy in POLICIES:
            if not (same := select(rows, policy=policy)):
                cells.append("")
                continue
            load = f" ({100 * _mean(same, 'sent'):.0f} %)" if policy != "none" else ""
            cells.append(show_mean(same, "group_p99_s", 1000, 0) + load)
        lines.append([name, f"{rows[0]['groups']:,}", _seeds(rows), *cells])
    headings = ["group p99 in ms (extra load)", "groups", "seeds", *POLICIES]
    return f"{markdown(headings, lines)}\n\n{found.origin(FULL, used)}"


def open_loop(found: Stored) -> str:
    """Poisson arrivals on real processes."""
    rows = found.runs(source="real", regime="transient", offered="open", n=9)
    lines = []
    for (load,), same in sorted(grouped(rows, ("load",)).items()):
        shown = [
            f"{show_mean(one_policy, 'p99_s', 1000, 0)} ({show_mean(one_policy, 'sent', 100, 1)} %)"
            for policy in POLICIES
            if (one_policy := select(same, policy=policy))
        ]
        lines.append([f"{100 * load:.0f} % of capacity", *shown])
    policies = [policy for policy in POLICIES if select(rows, policy=policy)]
    note = paragraph(
        f"{rows[0]['groups'] * rows[0]['n']:,} requests per policy, load and each of {_seeds(rows)} seeds, latency "
        "from the intended start; ± is the 95 % interval over seeds."
    )
    table = markdown(["request p99 in ms (extra load)", *policies], lines)
    return f"{table}\n\n{note}\n\n{found.origin(FULL, rows)}"


def moving(found: Stored) -> str:
    """Collage against adaptive where the slowness moves; and what is left without injected slowness."""
    rows = found.runs(source="real", regime="mixture", offered="closed")
    against = show(ratio(select(rows, policy="collage"), select(rows, policy="adaptive"), "group_p99_s"), digits=2)
    still = sorted(found.runs(source="real", regime="off"), key=lambda row: int(row["n"]))
    values = ", ".join(f"{1000 * row['p99_s']:.0f} ms ({row['n']} + {row['redundant']})" for row in still)
    return paragraph(
        f"Where the slowness moves, the group p99 of collage is {against} times that of adaptive, seed by seed. "
        f"Without injected slowness the p99 of a request was {values}."
    )


def agreement(found: Stored) -> str:
    """How far the simulator is from the cluster."""
    told = []
    for name, regimes in (("transient and persistent", ("transient", "persistent")), ("moving", ("mixture",))):
        worst = {"latency": 0.0, "load": 0.0}
        for regime in regimes:
            real = found.runs(source="real", regime=regime, offered="closed")
            for case, rows in grouped(real, (*CASE[1:], *VARIANT)).items():
                twins = select(found.runs(source="sim"), **dict(zip((*CASE[1:], *VARIANT), case, strict=True)))
                for key, kind in (("p50_s", "latency"), ("p99_s", "latency"), ("sent", "load")):
                    if twins and (off := less(ratio(twins, rows, key))):
                        worst[kind] = max(worst[kind], abs(off[0]))
        told.append(
            f"in {name} slowness every p50 and p99 of requests is within {100 * worst['latency']:.1f} %, extra load "
            f"within {100 * worst['load']:.1f} %"
        )
    return paragraph(
        f"The simulator is driven by the same policy code and the same draws. Against the cluster, {'; '.join(told)}. "
        "Where workers fail it does not agree: few groups meet that, and which ones differs from run to run."
    )


def simulated(found: Stored) -> str:
    """Closed groups, simulated: the best rival beside the code."""
    lines, used = [], []
    for regime, n, groups in (
        ("transient", 9, 3000), ("transient", 16, 8000), ("transient", 25, 16_000), ("persistent", 9, 3000),
        ("mixture", 9, 3000), ("pareto", 9, 3000),
    ):  # fmt: skip
        rows = found.runs(source="sim", regime=regime, offered="closed", n=n, groups=groups, redundant=1)
        none, rival = select(rows, policy="none", setting=None), best_rival(rows)
        ours = [select(rows, policy=policy, setting=None) for policy in ("collage", "adaptive")]
        for same in (rival, *ours):
            best = " (best rival)" if same[0]["policy"] in RIVALS else ""
            lines.append(
                [
                    f"{regime}, {n} + 1, {groups:,} groups",
                    title(same[0]) + best,
                    show_mean(same, "group_p99_s", 1000, 0),
                    show(ratio(none, same, "group_p99_s"), digits=2),
                    show(ratio(rival, same, "group_p99_s"), digits=2),
                    show_mean(same, "sent", 100, 1),
                ]
            )
            used += same
    headings = ["case", "policy", "group p99, ms", "none / it", "best rival / it", "extra load, %"]
    return f"{markdown(headings, lines)}\n\n{found.origin(FULL, used)}"


def far_tail(found: Stored) -> str:
    """The 99.9th percentile of many simulated groups."""
    rows = found.runs(source="sim", regime="transient", offered="closed", groups=100_000)
    policies = grouped(rows, ("policy",)).items()
    values = ", ".join(f"{policy} {show_mean(same, 'group_p999_s', 1000, 0)} ms" for (policy,), same in policies)
    return paragraph(
        f"Group p99.9 of {rows[0]['groups']:,} simulated groups per seed at {rows[0]['n']} + {rows[0]['redundant']}: "
        f"{values}."
    )


def scale(found: Stored) -> str:
    """The cost of large simulated clusters."""
    rows = found.rows("bench-scale", policy="adaptive", frontends=1)
    lines = [
        [
            f"{row['workers'] - row['redundant']:,} + {row['redundant']:,}",
            f"{100 * row['load']:.0f} %", f"{row['requests']:,}", f"{row['cpu_s']:.0f}", f"{row['us_per_request']:.0f}",
            ms(row["p50_s"]), ms(row["p99_s"]), f"{100 * (row['collage_load'] + row['replica_load']):.1f}",
        ]
        for row in rows if row["load"] == 0.5
    ]  # fmt: skip
    headings = "workers|load|requests|seconds of one core|µs each|request p50, ms|p99, ms|extra load, %".split("|")
    return f"{markdown(headings, lines)}\n\n{found.origin('bench-scale', rows)}"


def _images(requests: int) -> int:
    """Different images among so many requests: samples come again when all have come."""
    return min(requests, len(load_samples()))


def _mean(rows: Sequence[FoundRow], key: str) -> float:
    found = mean_of(rows, key)
    if found is None:
        raise ValueError(f"{key} is undefined")
    return found[0]


def _seeds(rows: Sequence[FoundRow]) -> str:
    """The number of seeds; the least and the most where policies differ."""
    counts = {len(same) for same in grouped(rows, ("policy", "load")).values()}
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def _limit(row: FoundRow) -> str:
    return title(row) if row["setting"] else str(row["policy"])


PASSAGES = {
    "demo-about": demo_about, "demo-short": demo_short, "demo": demo, "transient": transient, "clusters": clusters,
    "open-loop": open_loop, "moving": moving, "agreement": agreement, "simulated": simulated, "far-tail": far_tail,
    "scale": scale,
}  # fmt: skip
