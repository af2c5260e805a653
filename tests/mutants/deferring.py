"""Wrong versions of what a scarce budget is spent on: worth and price, who joins a group, and when that closes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_POLICY = "frontend/policy/"
_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        f"{_POLICY}forming.py",
        [
            ("budget ignored: by groups", "if not self._deferral.spend(group.shape.inputs):", "if False:"),
            (
                "budget ignored: by groups that are not full",
                "group.worth_closing and self._deferral.budget.allows(group.shape.inputs)",
                "group.worth_closing",
            ),
            ("r tokens paid as one: by a group that closes", "spend(group.shape.inputs)", "spend(1)"),
            ("r tokens asked for as one: by a group that closes early", "allows(group.shape.inputs)", "allows(1)"),
            (
                "redundant runs without an idle worker: of a group that is not full",
                "if self._flights.running >= self._workers:\n            return",
                "",
            ),
            ("nearly empty group closed: one member is enough", "elif group.worth_closing and", "elif"),
            (
                "group closes too late: its redundant runs cannot be back by the deadline",
                "min(self._rules.group_wait, self._deadline.value - self._flights.times.usual)",
                "min(self._rules.group_wait, self._deadline.value)",
            ),
            ("open group outlives the change of the code", "self._groups.reshape(shape)", "self._groups.shape = shape"),
            (
                "budget judged by the shape of the code before",
                "self._deferral.sell(shape, shape if workers else ALONE)",
                "",
            ),
            (
                "groups open though no redundant worker is there",
                "request.group or not self._workers or",
                "request.group or",
            ),
            (
                "groups of policies without a code",
                "if not self._rules.coded or not self._workers:",
                "if not self._workers:",
            ),
            (
                "group that is not overdue closes",
                "(self._deferral.active or at >= group.opened_at + self._wait)",
                "True",
            ),
            (
                "deferral: an idle worker takes overdue groups only",
                "(self._deferral.active or at >= group.opened_at + self._wait)",
                "(at >= group.opened_at + self._wait)",
            ),
            (
                "deferral: tokens are priced for groups that no worker can run",
                "shape if workers else ALONE",
                "shape",
            ),
            ("deferral: requests join when they come", "if self._deferral.known:", "if False:"),
            (
                "deferral: requests join before anything is known",
                " or (self._deferral.active and not self._deferral.known):",
                ":",
            ),
            (
                "deferral: a member that joins does not close its group",
                "if self._deferral.active:\n                self.consider(group, at)",
                "",
            ),
            (
                "deferral: nobody looks at an open group",
                "if len(group.members) == 1 and not group.closed:\n                self._look_again(group, at)",
                "",
            ),
            (
                "deferral: an open group is looked at once",
                "if self._deferral.active and not group.closed:\n            self._look_again(group, at)",
                "",
            ),
            (
                "deferral: an open group waits as long as where all have one",
                "self._deferral.tick if self._deferral.active else self._wait",
                "self._wait",
            ),
            (
                "deferral: a group closes whatever it is worth",
                "if self._deferral.pays([at - request.arrived for request in waiting], group.shape):",
                "if True:",
            ),
            (
                "deferral: a group that is worth it waits until it is full",
                "if self._deferral.pays([at - request.arrived for request in waiting], group.shape):",
                "if False:",
            ),
            (
                "deferral: members that have a replica make a group worth it",
                "[request for id in group.members.values() if (request := self._requests[id]).sent == 1]",
                "[self._requests[id] for id in group.members.values()]",
            ),
            ("deferral: places that are left stay empty", "self._fill(group, at)\n", "pass\n"),
            (
                "deferral: places that are left go to the latest always",
                "self._requests if group.shape.needed == 1 else reversed(self._requests)",
                "reversed(self._requests)",
            ),
            (
                "deferral: places that are left go to the oldest always",
                "self._requests if group.shape.needed == 1 else reversed(self._requests)",
                "self._requests",
            ),
            (
                "deferral: places that are left go to requests that have a replica",
                "request.group is None and request.sent == 1 and",
                "request.group is None and",
            ),
            (
                "deferral: places that are left go to requests that have a group",
                "request.group is None and request.sent == 1",
                "request.sent == 1",
            ),
            (
                "deferral: a group of one member",
                "if group.enough:\n                    self._close",
                "if True:\n                    self._close",
            ),
            (
                "deferral: members of a group that cannot be paid stay without one",
                "if self._deferral.active:\n                self._defer(group, at)",
                "",
            ),
            (
                "deferral: members of a group that cannot be paid never leave it",
                "self._requests[id].group = None",
                "",
            ),
            (
                "deferral: members of a group that cannot be paid do not join again",
                "self._actions.append(e.SetTimer(at + self._deferral.retry, e.Timer.JOIN, id))",
                "",
            ),
            (
                "late redundant runs not noticed: no timer",
                "self._actions.extend(e.SetTimer(late, e.Timer.LATE, member) for member in waiting)",
                "",
            ),
        ],
    ),
    (
        f"{_POLICY}deferral.py",
        [
            (
                "worth: seconds, not square seconds",
                "squares = MIDDLES**2\n    later = np.append(np.cumsum((share * squares)[::-1])[::-1], 0.0)\n"
                "    count = np.append(np.cumsum(share[::-1])[::-1], 0.0)\n"
                "    back = np.searchsorted(MIDDLES, MIDDLES + run)\n    known = before >= _TRUSTED\n"
                "    worth = np.where(known, (later[back] - (MIDDLES + run) ** 2 * count[back])",
                "later = np.append(np.cumsum((share * MIDDLES)[::-1])[::-1], 0.0)\n"
                "    count = np.append(np.cumsum(share[::-1])[::-1], 0.0)\n"
                "    back = np.searchsorted(MIDDLES, MIDDLES + run)\n    known = before >= _TRUSTED\n"
                "    worth = np.where(known, (later[back] - (MIDDLES + run) * count[back])",
            ),
            ("worth: whether a request has lasted so long counts for nothing", " / np.maximum(before, _TRUSTED)", ""),
            ("worth: help takes no time", "run or self._latency.median)", "0.0)"),
            ("worth: help of which nothing is known takes no time", "run or self._latency.median)", "run)"),
            ("worth: requests that were helped would have ended then", "bin_of(2 * longest)", "bin_of(longest)"),
            (
                "worth: requests that were helped would never have ended",
                "share[bin_of(2 * longest)] += survival[-1]",
                "",
            ),
            ("worth: nothing, beyond all ages that were seen", "worth[~known] = worth.max()", ""),
            ("worth: known of any age that was seen", "known = before >= _TRUSTED", "known = before > 0"),
            (
                "worth: that of an age, where a younger one had more",
                "np.maximum.accumulate(worth).tolist()",
                "worth.tolist()",
            ),
            ("price: it does not rise", "self._price *= math.exp(_GAIN * tokens)", ""),
            ("price: r tokens raise it as one", "math.exp(_GAIN * tokens)", "math.exp(_GAIN)"),
            (
                "price: it does not rise with tokens that the budget lacks",
                "self._price *= math.exp(_GAIN * tokens)\n"
                "        return self.budget.spend(tokens, leaving=-self.budget.most, force=force)",
                "paid = self.budget.spend(tokens, leaving=-self.budget.most, force=force)\n"
                "        self._price *= math.exp(_GAIN * tokens * paid)\n        return paid",
            ),
            ("price: it does not fall", "self._price *= self._decay", ""),
            ("price: it falls by as much at any rate", "_EARNED * budget.rate)", "_EARNED)"),
            ("price: no lower bound", "min(max(self._price, _CHEAPEST * most), _DEAREST", "min(self._price, _DEAREST"),
            (
                "price: no upper bound",
                "min(max(self._price, _CHEAPEST * most), _DEAREST * most)",
                "max(self._price, _CHEAPEST * most)",
            ),
            ("price: the highest at first", "self._rising[min(first, len(self._rising) - 1)]", "self._rising[-1]"),
            ("price: at first as if a token helped one request", "self.budget.rate * members", "self.budget.rate"),
            ("price: found again at every look", "if not self._price:", "if True:"),
            ("price: of a group as that of one token", "self._price * shape.inputs\n", "self._price\n"),
            ("price: of a shape that is not in use", "self._shape = now", ""),
            (
                "price: known before slow answers can have come",
                "if at < self._began + _SOON * self._latency.median:\n            return",
                "",
            ),
            (
                "price: the last request counts as the first",
                "if self._began is None:\n            self._began = at",
                "self._began = at",
            ),
            ("debt: without bound", "leaving=-self.budget.most, force", "leaving=-math.inf, force"),
            ("debt: none", "leaving=-self.budget.most, force", "force"),
            ("deferral: none, all join at once", "return float(MIDDLES[index - 1]) if index else 0.0", "return 0.0"),
            (
                "deferral: until a request pays for the group alone",
                "self._price * self._shape.inputs / self._shape.members",
                "self._price * self._shape.inputs",
            ),
            ("deferral: no age is worth a price that is too high", "min(share, self._rising[-1])", "share"),
            (
                "deferral: no help while nothing is known",
                "return True\n        return sum",
                "return False\n        return sum",
            ),
            (
                "deferral: a group is worth its best member",
                "sum(map(self.worth, ages))",
                "max(map(self.worth, ages), default=0.0)",
            ),
            ("deferral: for policies that have none", "self._allowed and self.budget.rate", "self.budget.rate"),
            ("deferral: without a budget", " and self.budget.rate > 0 and", " and"),
            ("deferral: where the budget pays for every group", " and self.budget.scarce(shape)", ""),
            (
                "deferral: an open group is looked at once in a median",
                "self._latency.median / _TICKS",
                "self._latency.median",
            ),
            ("deferral: requests that could not be paid join again at once", "self._latency.median / _RETRIES", "0.0"),
        ],
    ),
    (
        f"{_POLICY}groups.py",
        [
            ("deferral: one member is enough", "else len(self.members) > 1", "else True"),
            (
                "deferral: two members of a code that needs all are enough",
                "self.worth_closing if self.shape.needed > 1 else len(self.members) > 1",
                "len(self.members) > 1",
            ),
        ],
    ),
    (
        f"{_POLICY}quantile.py",
        [
            ("longest: it is never forgotten", "ended > _FORGOTTEN * at_risk[0]", "ended > 0"),
            ("longest: of those that were seen to end", "flatnonzero(ended >", "flatnonzero(self._finished >"),
            ("longest: the shortest", "at_risk[0])[-1]", "at_risk[0])[0]"),
            ("quantile: no further than all that was seen", "1.25 * self.longest", "self.longest"),
            (
                "survival: that of those that were seen to end",
                "np.maximum(at_risk - self._cut_off / 2, 1e-9)",
                "max(self._finished.sum(), 1e-9)",
            ),
        ],
    ),
    (
        f"{_POLICY}machine.py",
        [
            (
                "deferral: stragglers of a group that has waited are not looked at",
                "self._forming.due(group, at)\n                self._look_into(group, at)",
                "self._forming.due(group, at)",
            ),
            (
                "deferral: stragglers of a group are not looked at when another member joins",
                "self._forming.join(request, at)\n            self._look_into(request.group, at)",
                "self._forming.join(request, at)",
            ),
            (
                "deferral: stragglers of a group are not looked at when a worker is idle",
                "self._forming.worker_idle(at)\n            self._look_into(group, at)",
                "self._forming.worker_idle(at)",
            ),
            (
                "deferral: members that are not late are looked at as stragglers",
                "if (request := self._requests.get(id)) and request.straggles:\n                    self._rescue",
                "if request := self._requests.get(id):\n                    self._rescue",
            ),
            (
                "deferral: a replica whatever it is worth",
                "if may and not force and self._deferral.active:\n"
                "            may = self._deferral.pays([at - request.arrived])",
                "",
            ),
            (
                "deferral: a request that has no copy left is not worth one",
                "if may and not force and self._deferral.active:",
                "if may and self._deferral.active:",
            ),
            (
                "deferral: a straggler without a group joins none",
                "elif self._deferral.active:\n            self._forming.join(request, at)",
                "",
            ),
            ("deferral: latencies are not looked at", "self._deferral.update(event.at, self._flights.times.usual)", ""),
            (
                "deferral: requests earn tokens that do not lower the price",
                "self._deferral.earn(event.at)",
                "self.budget.earn()",
            ),
        ],
    ),
]
MUTANTS = [Mutant(what, file, *made) for file, mutants in _MADE for what, *made in mutants]
