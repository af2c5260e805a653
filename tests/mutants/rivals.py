"""Wrong versions of the choices of workers, of simulated rivals, and of Envoy beside ours."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "frontend/policy/choices.py",
        [
            (
                "power of two: the one of more calls",
                "return min(sampled, key=lambda worker: self._cost(worker, at)",
                "return max(sampled, key=lambda worker: self._cost(worker, at)",
            ),
            (
                "power of two: one that is to be avoided",
                "workers.some(2 + len(avoid)) if worker.name not in avoid][:2]",
                "workers.some(2 + len(avoid))][:2]",
            ),
            ("Peak-EWMA: no peak", "max(seconds, average), at", "average, at"),
            ("Peak-EWMA: peaks that stay", "max(seconds, average), at", "max(seconds, worker.estimate), at"),
            (
                "Peak-EWMA: calls do not count",
                "self._kept(worker, at) * (worker.outstanding + 1)",
                "self._kept(worker, at)",
            ),
            (
                "Peak-EWMA: costs that time does not lower",
                "worker.estimate * self._kept(worker, at) *",
                "worker.estimate *",
            ),
            (
                "Peak-EWMA: busy workers that never answered come first",
                "return math.inf if worker.outstanding else 0.0",
                "return 0.0",
            ),
            (
                "copies to busy workers",
                "return None if avoid and chosen and chosen.outstanding else chosen",
                "return chosen",
            ),
            ("no first copy without an idle worker", "None if avoid and chosen and", "None if chosen and"),
            ("a sample of two", "SAMPLED = 8", "SAMPLED = 2"),
        ],
    ),
    (
        "frontend/policy/shelves.py",
        [
            ("some workers twice", "self.random.sample(range(self._count), min(count, self._count))", "[0] * count"),
            ("workers that left are counted", "self._count -= 1", "pass"),
            ("a worker that moved up is forgotten", "last.position = worker.position", "pass"),
        ],
    ),
    (
        "frontend/policy/balance.py",
        [
            (
                "the choice learns nothing of cancelled calls",
                "worker.outstanding)\n            self._choice.ended(worker, at, elapsed)",
                "worker.outstanding)",
            ),
            (
                "the choice is by the fewest calls always",
                "self._choice: Choice = choice or FewestCalls()",
                "self._choice: Choice = FewestCalls()",
            ),
        ],
    ),
    (
        "bench/simulator/prequal.py",
        [
            ("the hot come first", "return hot, self.load", "return not hot, self.load"),
            ("the hot by latency", "self.load.in_flight if hot else self.load.latency_s", "self.load.latency_s"),
            ("a worker is hot at the quantile", "self.load.in_flight > hot_above", "self.load.in_flight >= hot_above"),
            ("answers of any age", " or at > answer.at + LONGEST_S", ""),
            ("answers of workers that left", "answer.worker.position < 0 or ", ""),
            ("calls sent since do not count", "Load(chosen.load.in_flight + 1,", "Load(chosen.load.in_flight,"),
            ("answers are used once", "return max(1, math.floor((1 + AHEAD) / gained + rounding))", "return 1"),
            ("latencies of idle workers for all", "key=lambda known: abs(known - in_flight))", "default=0)"),
        ],
    ),
    (
        "bench/simulator/rivals.py",
        [
            ("SingleR: the second copy starts at once", "within(middle - delay)", "within(middle)"),
            (
                "SingleR: everybody is sent again",
                "share = min(1.0, budget / later) if later > 0 else 1.0",
                "share = 1.0",
            ),
            (
                "SingleR: as soon as possible",
                "float(min(np.linspace(0.0, first, _STEPS), key",
                "float(max(np.linspace(0.0, first, _STEPS), key",
            ),
        ],
    ),
    (
        "bench/simulator/stations.py",
        [
            ("an answer to a probe takes no time", "now + self._probe_s / 2\n", "now\n"),
            (
                "a frozen worker answers probes",
                "if now < station.frozen_until:\n            self._agenda.at(station.frozen_until, self._probed",
                "if False:\n            self._agenda.at(station.frozen_until, self._probed",
            ),
            (
                "a worker tells of the calls that wait only",
                "len(self.queue) + (self.current is not None)",
                "len(self.queue)",
            ),
        ],
    ),
    (
        "bench/cluster/envoy.py",
        [
            (
                "hedges draw as their first copies",
                '"include_request_attempt_count": True',
                '"include_request_attempt_count": False',
            ),
            ("no hedge but a retry", '{"hedge_on_per_try_timeout": True}', '{"hedge_on_per_try_timeout": False}'),
            ("two workers are compared", '"selection_method": "FULL_SCAN"', '"selection_method": "N_CHOICES"'),
        ],
    ),
    (
        "bench/runs/envoy.py",
        [
            ("the table shows no extra load", '"extra": extra_load(row)', '"extra": 0.0'),
            ("runs with and without hedging are one line", "(policy, timeout_s)]", '(policy, row.get("value"))]'),
        ],
    ),
    (
        "worker/server.py",
        [
            (
                "a proxy's copies draw as the first",
                "request.attempt += proxied_attempt(context.invocation_metadata())",
                "pass",
            ),
            ("a proxy counts from nothing", "return int(count) - 1 if", "return int(count) if"),
            ("callers make up any attempt", "if count in _COUNTS else 0", "if str(count).isdigit() else 0"),
        ],
    ),
]
MUTANTS = [Mutant(f"rivals: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
