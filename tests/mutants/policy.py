"""Wrong versions of the state machine: when it answers, replicates, waits, cancels and gives up."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_FILE = "frontend/policy/machine.py"
_MADE = [
    (
        "deadline off by one event: events of a batch in order of time only",
        "return 0 if isinstance(event, e.Answered) else 1 if helps else 2, event.at",
        "return 0, event.at",
    ),
    ("deadline off by one event: a deadline in the same batch goes before a coded answer", "1 if helps else 2", "2"),
    (
        "deadline off by one event: a redundant output that failed goes before an own answer",
        "return 0 if isinstance(event, e.Answered) else",
        "return 0 if isinstance(event, e.Answered | e.Returned) else",
    ),
    ("deadline too late: a tenth later", "event.at + self._deadline.value", "event.at + 1.1 * self._deadline.value"),
    (
        "replica without cancel: losers run on",
        "self._actions.append(e.Cancel(request.id, attempt))",
        "pass",
    ),
    ("budget ignored: by replicas", "may and self._deferral.spend(force=force)", "may"),
    (
        "a redundant run that was never sent costs a token",
        "if not event.sent:\n            self.budget.give_back()",
        "",
    ),
    (
        "budget charged for a replica that found no worker",
        "if not event.sent and event.attempt != e.PRIMARY and self.rules.replica:",
        "if False:",
    ),
    (
        "budget credited for what it never paid: a second try without replicas",
        "event.attempt != e.PRIMARY and self.rules.replica:",
        "event.attempt != e.PRIMARY:",
    ),
    ("attempts without bound", "self.rules.replica and request.sent < self.rules.attempts", "self.rules.replica"),
    (
        "double answer: answers of attempts that are not outstanding count",
        "if request and event.attempt in request.outstanding:",
        "if request:",
    ),
    (
        "double answer: an answered request does not end",
        "flight.progress.answered(request.place)\n            self._end(request, event.at)",
        "flight.progress.answered(request.place)",
    ),
    (
        "censored quantile: cancelled first copies are not counted",
        "if e.PRIMARY in request.outstanding:\n            self._deadline.cut_off(at - request.arrived)",
        "",
    ),
    (
        "censored quantile: an audited first copy is not counted",
        "request.outstanding.discard(e.PRIMARY)\n            self._deadline.cut_off(at - request.arrived)",
        "request.outstanding.discard(e.PRIMARY)",
    ),
    (
        "quantile of replicas: they count as first copies",
        "if event.attempt == e.PRIMARY:\n                self._deadline",
        "if True:\n                self._deadline",
    ),
    (
        "unsure answer taken early: when it is decoded",
        "self.rules.early and self._flights.sure(request) and self._flights.paid(request, early=True)",
        "self.rules.early and self._flights.paid(request, early=True)",
    ),
    (
        "sure answer not taken early: when it is decoded",
        "self.rules.early and self._flights.sure(request) and self._flights.paid(request, early=True)",
        "False",
    ),
    (
        "unsure answer taken early: at the deadline",
        "(self._flights.sure(request) or at >= unsure_from) and self._flights.paid(request)",
        "self._flights.paid(request)",
    ),
    (
        "unsure answer forgotten: no timer for the end of patience",
        "self._actions.append(e.SetTimer(unsure_from, e.Timer.UNSURE, request.id))",
        "",
    ),
    (
        "unsure answer never taken: patience over",
        "elif timer is e.Timer.UNSURE:\n            self._rescue(request, at)",
        "elif timer is e.Timer.UNSURE:\n            pass",
    ),
    (
        "unsure answer never taken: time out",
        "elif self._flights.confidence(request) is not None:\n"
        "            self._answer_coded(request, at)\n        else:",
        "else:",
    ),
    (
        "unsure answer lost: a request that nothing else can answer fails",
        "return\n        if self._flights.confidence(request) is not None:\n"
        "            self._answer_coded(request, at)\n        else:",
        "return\n        if True:",
    ),
    (
        "unsure answer called sure",
        "spend(confidence), self._flights.sure(request)",
        "spend(confidence), True",
    ),
    (
        "failure not treated as a straggler: waits for its deadline",
        "if not request.straggles:\n                self._straggle(request, event.at)",
        "if not request.straggles:\n                pass",
    ),
    (
        "failure of the last copy of a straggler: no replica",
        "elif not request.outstanding:\n                self._rescue(request, event.at)",
        "",
    ),
    ("caller who hung up is served on", "self._end(gone, at)", ""),
    (
        "redundant runs not cancelled: when the last member has ended",
        "if not flight.live:\n                if flight.running:\n                    self._cancel_coded(flight, at)",
        "if not flight.live:\n                pass",
    ),
    (
        "redundant runs not cancelled: once the group is decoded",
        "if flight.running:\n            self._cancel_coded(flight, at)\n        self._look_after",
        "self._look_after",
    ),
    (
        "redundant runs not cancelled: the action is missing",
        "self._actions.append(e.CancelCoded(flight.id))",
        "",
    ),
    (
        "worker never idle again while a group waits for siblings",
        "if not flight.progress.out:\n            self._flights.stopped(flight)",
        "",
    ),
    (
        "worker idle as soon as one of r runs is back",
        "if not flight.progress.out:\n            self._flights.stopped(flight)",
        "self._flights.stopped(flight)",
    ),
    (
        "place not freed: by a request that ends while its group is open",
        "self.groups.leave(group, request.place)",
        "",
    ),
    (
        "group not closed for its straggler",
        "self._forming.consider(request.group, at)\n        elif",
        "pass\n        elif",
    ),
    (
        "overdue group forgotten: when redundant runs return and nothing can be decoded yet",
        "self._look_after(flight, event.at)\n            self._worker_idle(event.at)",
        "self._look_after(flight, event.at)",
    ),
    (
        "overdue group forgotten: when a group is decoded or given up",
        "self._look_after(flight, at)\n        self._worker_idle(at)",
        "self._look_after(flight, at)",
    ),
    (
        "own answers not counted towards decoding",
        "if flight := self._flights.of(request):\n                flight.progress.answered(request.place)",
        "",
    ),
    (
        "own answer of a replica not counted towards decoding",
        "if flight := self._flights.of(request):\n                flight",
        "if event.attempt == e.PRIMARY and (flight := self._flights.of(request)):\n                flight",
    ),
    (
        "decoded twice: the later confidences count",
        "and flight.confidences is None:\n                        self._decoded",
        "and True:\n                        self._decoded",
    ),
    (
        "hopeless sibling leaves the others waiting: all its copies failed",
        "if request.id in self._requests and not request.outstanding:\n"
        "            self._look_after_siblings(request, event.at)",
        "",
    ),
    (
        "hopeless sibling leaves the others waiting: it ended without an own answer",
        "elif request.place not in flight.progress.own:\n                self._look_after_siblings(request, at)",
        "",
    ),
    (
        "failed redundant run leaves stragglers waiting",
        "if not event.ok:\n                self._look_after(flight, event.at)",
        "",
    ),
    (
        "failed redundant run counts as what such runs take",
        "if event.ok:\n            self._flights.times",
        "if True:\n            self._flights.times",
    ),
    (
        "cancelled redundant runs do not count for what they take",
        "self._flights.times.cut_off(at - flight.sent_at)",
        "",
    ),
    (
        "decision order: replicates before it takes or awaits a coded answer",
        "if not self._take_coded(request, at) and not self._await_coded(request, at):\n"
        "            self._replicate(request, at)",
        "self._replicate(request, at)\n        if not self._take_coded(request, at):\n"
        "            self._await_coded(request, at)",
    ),
    (
        "decision order: replicates before it awaits a coded answer",
        "if not self._take_coded(request, at) and not self._await_coded(request, at):\n",
        "if not self._take_coded(request, at):\n",
    ),
    (
        "decision order: awaits before it takes a coded answer",
        "if not self._take_coded(request, at) and not self._await_coded(request, at):",
        "if not self._await_coded(request, at) and not self._take_coded(request, at):",
        "a coded answer that can be taken is no longer awaited: it is there or it is not",
    ),
    (
        "late redundant runs not noticed before the deadline: members are no stragglers",
        "elif (flight := self._flights.of(request)) and flight.running:\n                self._straggle(request, at)",
        "",
    ),
    (
        "a coded answer awaited that usually takes longer than a replica would",
        "or self._replica_is_sooner(request, at):",
        ":",
    ),
    (
        "one replica only in place of redundant runs that are of no help",
        "if wanted and self._send_again(request, at, force=nothing_left) and self._replica_is_sooner(request, at):\n"
        "            self._send_again(request, at)",
        "if wanted:\n            self._send_again(request, at, force=nothing_left)",
    ),
    (
        "useless replica: one that cannot be back before patience is over",
        "(request.sent == 1 and not too_late)",
        "(request.sent == 1)",
    ),
    (
        "needed replica: not sent where nothing is decoded",
        "coded = self._flights.paid(request)\n",
        "coded = True\n",
    ),
    (
        "caller's time outlived: by the margin",
        "e.SetTimer(event.expires, e.Timer.EXPIRY",
        "e.SetTimer(event.expires + 2 * self.rules.margin, e.Timer.EXPIRY",
    ),
    ("audit without a share: every coded answer", "if self._audits >= 1 and e.", "if self.rules.audit and e."),
    (
        "policies without replicas give up a request that never ran",
        "if not self.rules.replica and event.unreachable",
        "if not (self.rules.replica or self.rules.coded) and event.unreachable",
    ),
    (
        "threshold of the operator overruled by the model's",
        "if self.rules.accept is None:",
        "if True:",
    ),
]
MUTANTS = [Mutant(what, _FILE, old, new, *harmless) for what, old, new, *harmless in _MADE]
