"""Wrong versions of the policy, and which pure test notices each: ``python -m tests.frontend.mutants`` (10 minutes).

Every mutant replaces one passage of one file in a copy of the repository, where the pure tests run until one fails.
Writes ``docs/mutants.md``; the exit code is 1 if a mutant survives.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS = [
    *(f"tests/frontend/test_policy{name}.py" for name in ("", "_adaptive", "_groups", "_limits", "_properties")),
    *(f"tests/frontend/test_{name}.py" for name in ("quantile", "groups", "balance", "elect")),
]


class Mutant(NamedTuple):
    """One passage that is replaced; nothing in its place means that it is left out."""

    what: str
    room: str
    old: str
    new: str


MUTANTS = [
    Mutant(
        "deadline off by one event: events of a batch in order of time only",
        "machine",
        "return 0 if isinstance(event, Answered) else 1 if isinstance(event, Decoded) else 2, event.at",
        "return 0, event.at",
    ),
    Mutant(
        "deadline off by one event: a deadline in the same batch goes before a collage",
        "machine",
        "1 if isinstance(event, Decoded) else 2, event.at",
        "2, event.at",
    ),
    Mutant(
        "deadline too late: a tenth later",
        "machine",
        "event.request, event.at, event.at + self.deadline, event.expires",
        "event.request, event.at, event.at + 1.1 * self.deadline, event.expires",
    ),
    Mutant(
        "replica without cancel: losers run on",
        "machine",
        "self._actions.extend(Cancel(request.id, attempt) for attempt in sorted(request.outstanding))",
        "",
    ),
    Mutant("budget ignored: by replicas", "machine", "self.budget.spend(force=nothing_left)", "True"),
    Mutant("budget ignored: by collages", "machine", "if not self.budget.spend(leaving=self._reserve):", "if False:"),
    Mutant(
        "budget ignored: by groups that are not full",
        "machine",
        "worker_idle and self.budget.allows(self._reserve)",
        "worker_idle",
    ),
    Mutant(
        "budget ill spent: on some collages, where it is too small for all",
        "machine",
        "self._reserve = self.budget.reserve if scarce else 0.0",
        "",
    ),
    Mutant(
        "budget ill spent: spared for replicas where it is enough for all",
        "machine",
        "scarce = self.rules.thrifty and self.budget.scarce(self.groups.cells)",
        "scarce = self.rules.thrifty",
    ),
    Mutant(
        "budget overdrawn: a deadline with more stragglers than it can pay",
        "machine",
        "if scarce and self.rules.quantile < 1 - self.budget.affordable < 1:",
        "if False:",
    ),
    Mutant(
        "budget never earned back: debt without bound",
        "rules",
        "max(self.tokens - 1.0, -self.most)",
        "self.tokens - 1.0",
    ),
    Mutant(
        "budget saved up for ever: no bound of a burst",
        "rules",
        "min(self.most, self.tokens + self.rate)",
        "self.tokens + self.rate",
    ),
    Mutant(
        "double answer: answers of attempts that are not outstanding count",
        "machine",
        "if request and event.attempt in request.outstanding:",
        "if request:",
    ),
    Mutant(
        "double answer: an answered request does not end",
        "machine",
        "self._actions.append(Answer(request.id, event.attempt))\n            self._end(request, event.at)",
        "self._actions.append(Answer(request.id, event.attempt))",
    ),
    Mutant(
        "censored quantile: cancelled first copies are not counted",
        "machine",
        "if PRIMARY in request.outstanding:\n            self._latency.cut_off(at - request.arrived)",
        "",
    ),
    Mutant(
        "censored quantile: cancelled first copies count as finished",
        "quantile",
        "self._record(self._cut_off, elapsed)",
        "self._record(self._finished, elapsed)",
    ),
    Mutant(
        "censored quantile: an audited first copy is not counted",
        "machine",
        "request.outstanding.discard(PRIMARY)\n            self._latency.cut_off(at - request.arrived)",
        "request.outstanding.discard(PRIMARY)",
    ),
    Mutant(
        "unsure answer taken early: when the collage is back",
        "machine",
        "elif self.rules.early and self._sure(request):",
        "elif self.rules.early and self._confidence(request) is not None:",
    ),
    Mutant(
        "unsure answer taken early: at the deadline",
        "machine",
        "if coded and (self._sure(request) or at >= unsure_from):",
        "if coded:",
    ),
    Mutant(
        "unsure answer taken early: patience ignored",
        "machine",
        "unsure_from = request.arrived + self.rules.patience * (request.deadline - request.arrived)",
        "unsure_from = request.deadline",
    ),
    Mutant(
        "unsure answer never taken: patience over or time out",
        "machine",
        "elif self._confidence(request) is not None:\n            self._answer_coded(request, at)\n"
        "        elif timer is Timer.EXPIRY:",
        "elif timer is Timer.EXPIRY:",
    ),
    Mutant(
        "unsure answer lost: a request that nothing else can answer fails",
        "machine",
        "if self._confidence(request) is not None:\n            self._answer_coded(request, at)\n        else:",
        "if True:",
    ),
    Mutant(
        "failure not treated as a straggler: waits for its deadline",
        "machine",
        "if not request.straggles:\n                self._straggle(request, event.at)",
        "if not request.straggles:\n                pass",
    ),
    Mutant(
        "collage not cancelled: when its last member has ended",
        "machine",
        "self._actions.append(CancelCoded(group.id))",
        "",
    ),
    Mutant(
        "cell not freed: by a request that ends while its group is open",
        "machine",
        "self.groups.leave(group, request.cell)\n        elif flight",
        "pass\n        elif flight",
    ),
    Mutant("cell not freed: of a collage in flight", "machine", "del flight.live[request.cell]", ""),
    Mutant(
        "nearly empty group closed: one member is enough",
        "machine",
        "2 * len(group.members) >= group.cells and worker_idle",
        "worker_idle",
    ),
    Mutant(
        "collage without an idle worker: a group that is not full",
        "machine",
        "worker_idle = self._in_flight < self._coded_workers",
        "worker_idle = True",
    ),
    Mutant(
        "group closes too late: its collage cannot be back by the deadline",
        "machine",
        "min(self.rules.group_wait, self.deadline - self._collage_time.value)",
        "min(self.rules.group_wait, self.deadline)",
    ),
    Mutant(
        "replica although the collage will do: thrift ignored",
        "machine",
        "if at < late and not slow and not nothing_left:",
        "if False and at < late:",
    ),
    Mutant(
        "late collage not noticed before the deadline: members are no stragglers",
        "machine",
        "elif self._collage_pending(request):\n                self._straggle(request, at)",
        "",
    ),
    Mutant(
        "late collage awaited for ever: of a frozen worker",
        "machine",
        "min(self._collage_late.value, 2 * self._collage_late.median)",
        "self._collage_late.value",
    ),
    Mutant(
        "collages late at once that nobody waits for: none came back, so that nothing is known of them",
        "machine",
        "thrifty and self._collage_late.median:",
        "thrifty and self._collage_late.value:",
    ),
    Mutant(
        "a collage waited for that usually takes longer than a replica would",
        "machine",
        "flight.sent_at + self._collage_time.value > at + self._latency.median",
        "flight.sent_at > at + self._latency.median",
    ),
    Mutant(
        "one replica only in place of a collage that is of no help",
        "machine",
        "if slow and request.sent < self.rules.attempts and self.budget.spend():",
        "if False:",
    ),
    Mutant(
        "probation without end: a worker on it is chosen by its old latency",
        "balance",
        "if self._probing and not avoid:",
        "if False:",
    ),
    Mutant(
        "useless replica: one that cannot be back before patience is over",
        "machine",
        "request.sent == 1 and not too_late",
        "request.sent == 1",
    ),
    Mutant(
        "threshold off by one: a confidence equal to it is unsure",
        "machine",
        "confidence is not None and confidence >= self.accept",
        "confidence is not None and confidence > self.accept",
    ),
    Mutant(
        "deadline of a slow minority: stretch ignored",
        "quantile",
        "found = min(found, self.stretch * self.median)",
        "",
    ),
    Mutant(
        "two members in one cell: after one has left",
        "groups",
        "next(cell for cell in range(self.open.cells) if cell not in members)",
        "len(members)",
    ),
    Mutant(
        "caller's time outlived: by the margin",
        "machine",
        "SetTimer(event.expires, Timer.EXPIRY",
        "SetTimer(event.expires + 2 * self.rules.margin, Timer.EXPIRY",
    ),
    Mutant(
        "audit without a share: every coded answer",
        "machine",
        "if self._audits >= 1 and PRIMARY",
        "if self.rules.audit and PRIMARY",
    ),
    Mutant(
        "panic threshold ignored: all workers may be ejected",
        "ejection",
        "if self.ejected + 1 > rules.share * self.ready:\n            return",
        "",
    ),
    Mutant(
        "panic threshold of workers that are not there",
        "ejection",
        "rules.share * self.ready",
        "rules.share * len(self._workers)",
    ),
    Mutant(
        "probation ended by slow calls",
        "ejection",
        "worker.probes = 0 if slow else worker.probes + 1",
        "worker.probes += 1",
    ),
    Mutant(
        "budget charged for a replica that found no worker",
        "machine",
        "if not event.sent and event.attempt != PRIMARY and self.rules.replica:",
        "if False:",
    ),
    Mutant(
        "budget credited for what it never paid: a second try without replicas",
        "machine",
        "event.attempt != PRIMARY and self.rules.replica:",
        "event.attempt != PRIMARY:",
    ),
    Mutant(
        "collage-only gives up a request that never ran",
        "machine",
        "if not self.rules.replica and event.unreachable",
        "if not (self.rules.replica or self.rules.coded) and event.unreachable",
    ),
    Mutant(
        "ejected for good: no probation",
        "ejection",
        "worker.standing, worker.probes = Standing.PROBATION, 0",
        "",
    ),
    Mutant(
        "frozen worker looks idle: cancelled calls are not charged",
        "ejection",
        "if self._slow(elapsed, calls):\n            self._look(worker, at, elapsed, slow=True)",
        "return",
    ),
]


def caught_by(mutant: Mutant, copy: Path) -> str | None:
    """The first test that fails with it, by name; None if all pass. Leaves ``copy`` as it was."""
    file = copy / "frontend" / "policy" / f"{mutant.room}.py"
    source = file.read_text()
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.what}: its passage is {source.count(mutant.old)} times in {file.name}")
    file.write_text(source.replace(mutant.old, mutant.new or "pass"))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'proto'}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    finally:
        file.write_text(source)
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(\w+)", run.stdout, re.MULTILINE)
    if run.returncode == 1 and failed:
        return failed[1]
    if run.returncode:
        raise ValueError(f"{mutant.what}: pytest ended with {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return None


def _code(text: str) -> str:
    return f"`{' '.join(text.split())}`"


def main() -> int:
    """Try them all: 0 if each is caught, 1 if one survives."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "collage"
        for room in ("collage", "encoder", "frontend", "tests", "proto", "pyproject.toml"):
            if (ROOT / room).is_dir():
                shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / room).exists():
                shutil.copy(ROOT / room, copy / room)
        for mutant in MUTANTS:
            found = caught_by(mutant, copy)
            print(f"{mutant.what}: {found or 'SURVIVES'}", flush=True)
            how = (
                f"{_code(mutant.old)} becomes {_code(mutant.new)}" if mutant.new else f"{_code(mutant.old)} is left out"
            )
            lines.append((mutant.what, f"{mutant.room}.py", how, f"`{found}`" if found else "**nothing**"))
    survivors = sum(caught == "**nothing**" for *_, caught in lines)
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    (ROOT / "docs" / "mutants.md").write_text(
        "# Mutants of the policy\n\n"
        f"Each line is one wrong version of a file in `frontend/policy/`, and the first pure test that fails with it "
        f"(no network, no\nclock). Made by `python -m tests.frontend.mutants`; {survivors or 'none'} of {len(lines)} "
        f"{'survives' if survivors < 2 else 'survive'}.\n\n"
        f"| mutant | file | how it is made | caught by |\n| --- | --- | --- | --- |\n{rows}\n"
    )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
