"""Wrong versions of the families of slowness, of the table of tails against extra load, and of what is told of it."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "worker/slowdown.py",
        [
            (
                "an exponential time of another mean",
                "lambda share: -mean * math.log1p(-share)",
                "lambda share: -2 * mean * math.log1p(-share)",
            ),
            ("a lognormal tail that is none", "math.exp(sigma * normal(", "math.exp(0.5 * sigma * normal("),
            (
                "spikes as often as usual times",
                "slow if share >= 1 - slow_share else usual",
                "slow if share >= slow_share else usual",
            ),
            (
                "pairs that never change",
                "_transfers(seed, turn, pairs, count).get(",
                "_transfers(seed, 0, pairs, count).get(",
            ),
            ("single workers instead of pairs", "[: 2 * pairs].tolist()", "[:pairs].tolist()"),
            (
                "nobody moves data into the next turn",
                "for turn in (int(turns), int(turns) - 1):",
                "for turn in (int(turns),):",
            ),
            (
                "no time is added while data move",
                "self._usual(share) - extra * math.log1p(-share)",
                "self._usual(share)",
            ),
        ],
    ),
    (
        "bench/offer/workload.py",
        [
            ("bursts of another size", "np.repeat(bursts, together)", "np.repeat(bursts, 1 + together // 2)"),
            ("ever as many pairs", "4,16,{share:g}#", "4,16,0.5#"),
        ],
    ),
    (
        "bench/samples.py",
        [
            ("cells that no image is as common as", "p=counts / counts.sum()", "p=None"),
            ("the s-cnn right where the collage-cnn is", "<= 1, kind % 2 == 0)", "<= 1, kind <= 1)"),
        ],
    ),
    (
        "bench/simulator/frontier.py",
        [
            (
                "rows of other commits are not made again",
                'row["commit"] == self.commit and row["requests"]',
                'row["requests"]',
            ),
            ("short runs are long enough", 'and row["requests"] >= case.requests)', "and True)"),
            ("old rows stay for ever", "and not (complete and self._outdated(row))", ""),
            ("real rows go with the simulator's", 'row["source"] == "sim" and row["commit"]', 'row["commit"]'),
            ("runs that chose settings are published", 'if row["seed"] not in TRIAL_SEEDS and', "if"),
            ("settings that cost more are chosen", "> 1.05 * budget:", "> 2 * budget:"),
            (
                "the longest tail is chosen",
                '= min(best.get((place, policy, budget), (np.inf, "")), (p99, setting))',
                "= (p99, setting)",
            ),
            ("groups of any requests", ".reshape(-1, cells).max(axis=1)", ".reshape(-1, cells).min(axis=1)"),
            ("runs begin after the time is over", "and time.monotonic() < until and (case", "and (case"),
            ("the time left is that which is gone", "(self._total / self._requests - 1) / 60", "1 / 60"),
            ("real bursts as closed groups", 'if row["offered"] == "open" else "closed"', 'if False else "closed"'),
        ],
    ),
    (
        "bench/simulator/plans.py",
        [
            (
                "a setting's limits by the policy's name",
                "return {name: float(value) for name, _, value in pairs}",
                "return {}",
            ),
            ("trials on the seeds of the table", "TRIAL_SEEDS = (100, 101)", "TRIAL_SEEDS = (0, 1)"),
        ],
    ),
    (
        "bench/simulator/parm.py",
        [
            ("a parity model as fast as a collage-cnn", "0.92, 0.92, factor=1.0)", "0.92, 0.92, factor=0.7)"),
            (
                "a group of one size for every k",
                "return GroupShape(self.k, 1, needed=self.k, fewest=self.k)",
                "return GroupShape(2, 1, needed=2, fewest=2)",
            ),
            ("as many machines for every k", "return BASE + BASE // self.k", "return BASE + BASE // 2"),
        ],
    ),
    (
        "bench/simulator/published.py",
        [
            ("worse within the interval", "value - np.nan_to_num(spread) > 1 and", ""),
            ("worse by next to nothing", "ENOUGH = 1.01", "ENOUGH = 1.0"),
        ],
    ),
    (
        "bench/runs/confidences.py",
        [
            ("sure answers mixed with others", "ends = sorted({sure, *np", "ends = sorted({*np"),
            (
                "the models' parts swapped",
                "KINDS[(not rights[0]) * 2 + (not rights[1])]",
                "KINDS[(not rights[1]) * 2 + (not rights[0])]",
            ),
        ],
    ),
    (
        "bench/report/frontier.py",
        [
            ("rivals that cost more win", 'mean(each, "extra_load") <= load and below', "below"),
            (
                "rivals win within the interval",
                "and below(each, ours, tail)",
                "and mean(each, tail) < mean(ours, tail)",
            ),
            ("settings beyond the load are shown", 'or mean(same, "extra_load") > most:', ":"),
        ],
    ),
    (
        "bench/runs/trial.py",
        [
            (
                "groups of another size than the cluster",
                "for first in range(0, len(samples), self.members)]",
                "for first in range(0, len(samples), cells)]",
            ),
            (
                "s-cnn workers as fast as collage workers",
                "if index >= self.members and not equal_resources else 1.0",
                "",
            ),
        ],
    ),
    (
        "bench/cluster/answers.py",
        [
            ("collages slower than the worker makes them", "= factor / COLLAGE_FACTOR", "= factor"),
            ("decoded answers that are not the base's", "np.float32), right, right)", "np.float32), ~right, right)"),
        ],
    ),
    (
        "bench/cluster/standins.py",
        [("a linear model that answers another class", "Sub(code, reach)", "Sub(code, codes)")],
    ),
    ("bench/runs/parm.py", [("real runs of all numbers of pairs", "if case.pairs == USUAL_PAIRS and", "if")]),
    ("bench/simulator/frontier.py", [("the last command alone", "(*self.commands, command())", "(command(),)")]),
    (
        "bench/cluster/local.py",
        [
            ("ports in use are not looked for", "for port in (args.port, args.http_port):", "for port in ():"),
            ("models of like names are not told", "n=5, cutoff=0)", "n=5, cutoff=1)"),
        ],
    ),
    (
        "bench/cluster/greeting.py",
        [
            ("a cluster without a code does not say so", '"" if coded else', '"" if s_cnn else'),
            ("warnings of every worker", "list(dict.fromkeys(line.partition", "list((line.partition"),
        ],
    ),
]
MUTANTS = [Mutant(f"tails: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
