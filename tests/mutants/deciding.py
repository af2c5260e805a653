"""Wrong versions of what the state machine decides by: groups, flights, budgets, quantiles, workers, elections."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_POLICY = "frontend/policy/"
_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "encoder/code.py",
        [
            (
                "needed ignored: one redundant output decodes all",
                "coded >= 1 and own + coded >= self.needed",
                "coded >= 1",
            ),
            ("decodable without a redundant output", "coded >= 1 and own + coded", "own + coded"),
            ("needed off by one", "own + coded >= self.needed", "own + coded > self.needed"),
            ("shapes that need more than there are members are taken", " and self.needed <= self.members):", "):"),
        ],
    ),
    (
        f"{_POLICY}groups.py",
        [
            (
                "two members in one place: after one has left",
                "while place in members:\n            place += 1",
                "place = len(members)",
            ),
            (
                "group worth closing: half of a code that needs all its members",
                "len(self.members) >= self.shape.fewest",
                "2 * len(self.members) >= self.shape.members",
            ),
            (
                "group worth closing: not by as many members as the code says",
                "self.members) >= self",
                "self.members) > self",
            ),
            ("decoded twice", "if self.decoded or not self.shape", "if not self.shape"),
            ("redundant runs that failed count as outputs", "self.back += ok", "self.back += 1"),
            ("redundant runs under way not counted", "self.back + self.out)", "self.back)"),
            ("redundant runs that are back not counted", "self.back + self.out)", "self.out)"),
            ("siblings under way not counted", "len(self.own) + under_way", "len(self.own)"),
            ("siblings that have answered not counted", "len(self.own) + under_way", "under_way"),
            (
                "siblings awaited in place of redundant outputs under way",
                "len(self.own) - self.back - self.out",
                "len(self.own) - self.back",
            ),
            (
                "a failed redundant run decodes",
                "return ok and self._due()",
                "return self._due()",
                "a failure adds no output: where there are enough, that was noticed before, and it is noticed once",
            ),
            (
                "a redundant run that comes back twice counts twice",
                "if self.out:\n            self.out -= 1\n            self.back += ok",
                "self.out -= 1\n        self.back += ok",
            ),
            (
                "a group of a new shape: the open one keeps its members",
                "if self.open:\n            self.close(self.open)\n        self.shape",
                "self.shape",
            ),
        ],
    ),
    (
        f"{_POLICY}state.py",
        [
            (
                "unsure answer taken early: patience ignored",
                "patience * (self.deadline - self.arrived)",
                "(self.deadline - self.arrived)",
            ),
            ("place not freed: of a group in flight", "del flight.live[place]", ""),
            (
                "threshold off by one: a confidence equal to it is unsure",
                "confidence >= self.accept",
                "confidence > self.accept",
            ),
            (
                "late redundant run awaited for ever: of a frozen worker",
                "min(self._late.value, 2 * self._late.median)",
                "self._late.value",
            ),
            (
                "redundant runs late at once that nobody waits for: none came back, so that nothing is known of them",
                "return self._late.median > 0",
                "return self._late.value > 0",
            ),
            (
                "redundant runs usually back as soon as they are sent",
                "return flight.sent_at + self.times.usual",
                "return flight.sent_at",
            ),
            (
                "siblings without a running copy counted as under way",
                "flight, request) if each.outstanding))",
                "flight, request)))",
            ),
            (
                "decoded answers still awaited",
                "if flight is None or flight.confidences is not None:",
                "if flight is None:",
            ),
            ("siblings' deadlines ignored", "times.append(deadlines[lacking - 1])", ""),
            (
                "a sibling that straggles is awaited",
                "if each.outstanding and not each.straggles",
                "if each.outstanding",
            ),
            ("stopped runs keep their worker", "self.running -= 1", ""),
            ("cancelled redundant runs do not count as late", "self._late.cut_off(seconds)", "pass"),
            (
                "a request counts as its own sibling",
                "flight.live.values() if id != request.id)",
                "flight.live.values())",
            ),
        ],
    ),
    (
        f"{_POLICY}deadline.py",
        [
            (
                "a fixed deadline that runs",
                "self.latency.value if self._rules.tracked else self._rules.deadline",
                "self.latency.value",
            ),
        ],
    ),
    (
        f"{_POLICY}budget.py",
        [
            (
                "budget never earned back: debt without bound",
                "max(self.tokens - tokens, -self.most)",
                "self.tokens - tokens",
            ),
            (
                "budget saved up for ever: no bound of a burst",
                "min(self.most, self.tokens + self.rate)",
                "self.tokens + self.rate",
            ),
            ("r tokens paid as one: by the budget", "max(self.tokens - tokens,", "max(self.tokens - 1,"),
            (
                "r tokens asked for as one: by the budget",
                "self.tokens >= tokens + leaving",
                "self.tokens >= 1 + leaving",
            ),
            ("no debt where tokens have a price", "self.tokens >= tokens + leaving", "self.tokens >= tokens"),
            ("scarce: judged by one redundant input a group", "_NEARLY_ALL * shape.inputs", "_NEARLY_ALL"),
            ("scarce: judged by one member a group", "self.rate * shape.members", "self.rate"),
            ("tokens given back beyond the bound", "min(self.most, self.tokens + 1.0)", "self.tokens + 1.0"),
            (
                "tokens given back that were never taken: at the deepest debt",
                "if self.tokens > -self.most:",
                "if True:",
            ),
        ],
    ),
    (
        f"{_POLICY}quantile.py",
        [
            (
                "censored quantile: cancelled first copies count as finished",
                "self._record(self._cut_off, elapsed)",
                "self._record(self._finished, elapsed)",
            ),
            ("deadline of a slow minority: stretch ignored", "found = min(found, self._stretch * self.median)", ""),
            ("latencies beyond the last bin", "return found if found < _BINS else _BINS - 1", "return found"),
            ("old latencies never lose weight", "self._growth = 2 ** (1 / half_life)", "self._growth = 1.0"),
            ("weights grow beyond what a float holds", "if self._weight > 1e12:", "if False:"),
        ],
    ),
    (
        f"{_POLICY}ejection.py",
        [
            (
                "panic threshold ignored: all workers may be ejected",
                "if self.ejected + 1 > rules.share * self.ready:\n            return",
                "",
            ),
            (
                "panic threshold of workers that are not there",
                "if self.ejected + 1 > rules.share * self.ready:",
                "if self.ejected + 1 > rules.share * len(self._workers):",
            ),
            ("probation ended by slow calls", "worker.probes = 0 if slow else worker.probes + 1", "worker.probes += 1"),
            ("ejected for good: no probation", "worker.standing, worker.probes = Standing.PROBATION, 0", ""),
            (
                "frozen worker looks idle: cancelled calls are not charged",
                "self._look(worker, elapsed)\n            self._weigh(worker, at, slow=True)",
                "self._look(worker, elapsed)",
            ),
            ("a queue looks like slowness", "took = min(latency, at - worker.free_at)", "took = latency"),
            ("calls that were cancelled in a queue count", "if calls > 1:\n            return", ""),
            (
                "censored calls count as finished ones of the fleet",
                "self._fleet.cut_off(took)",
                "self._fleet.finished(took)",
            ),
            ("censored calls are left out of the fleet's", "self._fleet.cut_off(took)", ""),
            (
                "every cancelled call counts as slow",
                "if self._slow(took):\n            worker.probes",
                "if True:\n            worker.probes",
            ),
            (
                "evidence of an unlucky start is held against a worker for good",
                "evidence.slow if slow else evidence.fast",
                "evidence.slow if slow else 0.0",
            ),
            ("a long time of being well is credit", "max(0.0, worker.evidence + (", "(worker.evidence + ("),
            ("a fleet that is hardly known accuses", "usual + unsure, self", "usual, self"),
            ("a fleet that has no slow calls accuses for one", "max(usual, _RAREST)", "max(usual, 1e-9)"),
            ("one fast call clears a worker", "min(suspect, _OFTEN)", "min(suspect, 1 - 1e-9)"),
            (
                "wide latencies look like slowness: the fleet's share is not asked",
                "return Evidence.of_shares(usual + unsure",
                "return Evidence.of_shares(_RAREST",
            ),
            (
                "slow calls exonerate where a slow worker would have none more",
                "if suspect <= usual:\n            return cls()",
                "",
            ),
            (
                "half of the fleet ejected, for older machines",
                "len(self._suspects | {worker.name}) <= rules.share * self.ready",
                "True",
            ),
            (
                "suspects that left protect the others",
                "self._suspects.discard(worker.name)\n\n    def succ",
                "\n\n    def succ",
            ),
            (
                "one slow probe is a relapse where slow calls are usual",
                "_PROBED = math.log(20.0)",
                "_PROBED = 0.0",
            ),
            (
                "probation as hard to fail as being well",
                "_PROBED if worker.standing",
                "rules.evidence if worker.standing",
            ),
            ("a relapse costs no more than the first time", "2.0 ** min(relapses, 30)", "1.0"),
            (
                "relapses never forgiven",
                "if worker.standing is Standing.WELL and at >= worker.forgiven_at:",
                "if False:",
            ),
            (
                "failures that are not in a row add up",
                "latency: float) -> None:\n        worker.failures = 0",
                "latency: float) -> None:",
            ),
        ],
    ),
    (
        f"{_POLICY}balance.py",
        [
            (
                "probation without end: a worker on it is chosen by its old latency",
                "if self._probing and not avoid:",
                "if False:",
            ),
            ("calls are never over", "max(0, worker.outstanding - count)", "worker.outstanding"),
            ("none rather than one that is left out", "last = None if avoid else self._last_resort", "last = None"),
        ],
    ),
    (
        f"{_POLICY}choices.py",
        [
            (
                "of two workers the slower one",
                "return min(candidates, key=self._cost)",
                "return max(candidates, key=self._cost)",
            ),
            (
                "a worker to avoid is taken",
                "others = [worker for worker in candidates if worker.name not in avoid]",
                "others = candidates",
            ),
        ],
    ),
    (
        f"{_POLICY}shelves.py",
        [
            (
                "a worker on probation gets several calls at once",
                "busy_probing = self.standing is Standing.PROBATION and self.outstanding > 0",
                "busy_probing = False",
            ),
        ],
    ),
    (
        f"{_POLICY}elect.py",
        [
            ("election: the new model at a tie", "offers[index].model == in_use", "offers[index].model != in_use"),
            ("election: a model that does not fit", "enumerate(offers) if offer.fits)", "enumerate(offers))"),
            (
                "election: the model of fewest workers",
                "in preferred, offers[index].workers",
                "in preferred, -offers[index].workers",
            ),
            ("election: what is preferred does not count", "return index in preferred, ", "return False, "),
            (
                "election: the model in use as long as it has a worker",
                "offers[index].workers, offers[index].model == in_use",
                "offers[index].model == in_use, offers[index].workers",
            ),
        ],
    ),
    (
        f"{_POLICY}admission.py",
        [
            ("an image's wait counts as its work", "seconds / (before + 1)", "seconds"),
            ("nothing but the mean: half of what is admitted is late", "_DEVIATIONS * math.sqrt", "0.0 * math.sqrt"),
            ("an idle worker refused", "if preparing == 0 and queue < 1:", "if False:"),
            ("queue of workers ignored", "prepare + (queue + 1) * self.service", "prepare + self.service"),
            ("queue of images ignored", "(preparing + 1) * self._prepare", "self._prepare"),
        ],
    ),
]
MUTANTS = [Mutant(what, file, *made) for file, mutants in _MADE for what, *made in mutants]
