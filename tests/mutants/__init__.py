"""Wrong versions of the code on purpose: each must make a test fail. See ``python -m tests.mutants``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.mutants import (
    accuracy,
    attacks,
    codes,
    coding,
    deciding,
    deferring,
    doors,
    edges,
    entering,
    fleets,
    judging,
    learning,
    measuring,
    parities,
    policy,
    protecting,
    publishing,
    rivals,
    serving,
    sharing,
    shell,
    tails,
    wire,
    working,
)
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "mutants.md"
NOTHING = "nothing"
EVERY: list[Mutant] = [
    *accuracy.MUTANTS,
    *policy.MUTANTS,
    *deciding.MUTANTS,
    *deferring.MUTANTS,
    *codes.MUTANTS,
    *coding.MUTANTS,
    *parities.MUTANTS,
    *shell.MUTANTS,
    *judging.MUTANTS,
    *learning.MUTANTS,
    *protecting.MUTANTS,
    *sharing.MUTANTS,
    *measuring.MUTANTS,
    *wire.MUTANTS,
    *serving.MUTANTS,
    *working.MUTANTS,
    *entering.MUTANTS,
    *edges.MUTANTS,
    *doors.MUTANTS,
    *attacks.MUTANTS,
    *publishing.MUTANTS,
    *fleets.MUTANTS,
    *rivals.MUTANTS,
    *tails.MUTANTS,
]

_HEAD = """# Mutants

Each line is one wrong version of a file, and the first test that fails with it. Made by `make mutants`, which runs
the tests of that file in a copy of the project that has the wrong version. A test that hangs with a mutant, and passes
without it, has caught it as well: by the time limit. {count}

The mutants are written by hand: each breaks a promise that somebody relies on. Kept libraries generate theirs, and take
none that is written. mutmut 3 changes functions only, in forks of a process that has run the tests, where async tests
hang. cosmic-ray starts the whole command for each. mutatest changes operators only, and has no releases any more.

Not listed, as no test notices them yet: crops of any area (`models/augment.py`); heads and depthwise filters made
orthogonal, momentum that forgets (`models/optim.py`); recovery of all groups (`bench/report/findings.py`); in the
simulator, failed requests that count as right, frozen workers that acknowledge, full workers that are blamed, cancelled
calls that are not counted, replicas sent to the straggler; a dead worker that stays in use, cancelled calls that do not
count against a worker, no time left taken for no limit, worker certificates that are never renewed, draining workers
that are watched on, pings without end (`frontend/workers`); the default form of outputs (`frontend/http`); Prequal that
removes nothing or takes the mean, a run of the frontier twice, workers that are well again
as ejected (`bench/simulator`). Not tried to their end: fourteen of `models/export.py` and
`models/transfer.py`, and stopped redundant runs that are awaited (`frontend/policy/state.py`).

"""


def read() -> dict[str, str]:
    """Which test caught each mutant of the document, by what the mutant does."""
    found = {}
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("| ") and (cells := line.strip("| ").split(" | "))[0] not in ("mutant", "---"):
            found[cells[0]] = cells[-1].strip("`") if cells[-1].startswith("`") else NOTHING
    return found


def write(found: Mapping[str, str]) -> None:
    """Write the document of those mutants that were tried."""
    tried = [mutant for mutant in EVERY if mutant.what in found]
    survive = sum(found[mutant.what] == NOTHING and not mutant.harmless for mutant in tried)
    harmless = sum(bool(mutant.harmless) for mutant in tried)
    count = f"{survive or 'None'} of {len(tried) - harmless} {'survive' if survive > 1 else 'survives'}."
    if harmless:
        count += f"\n{harmless} more change nothing that anyone could see; their lines say why."
    rows = "".join(
        f"| {mutant.what} | {mutant.file} | {mutant.how} | {_verdict(mutant, found)} |\n" for mutant in tried
    )
    head = "| mutant | file | how it is made | caught by |\n| --- | --- | --- | --- |\n"
    DOCUMENT.write_text(_HEAD.format(count=count) + head + rows)


def _verdict(mutant: Mutant, found: Mapping[str, str]) -> str:
    test = found[mutant.what]
    if test != NOTHING:
        return f"`{test}`"
    return f"nothing: {mutant.harmless}" if mutant.harmless else "**nothing**"
