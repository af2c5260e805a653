"""Try wrong versions of the code, and say which test notices each: ``make mutants``, or ``python -m tests.mutants``.

Every mutant replaces one passage of a file, in a copy of the project where the tests of that file run until one fails.
Writes ``docs/mutants.md``, again after every mutant. The exit code is 1 if one survives.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tests.mutants import DOCUMENT, EVERY, NOTHING, ROOT, read, write
from tests.mutants.mutant import Mutant
from tests.mutants.runner import Runner


def main() -> int:
    """Try those that are asked for: 0 if each is caught, 1 if one survives that is not harmless."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="*", help="try the mutants of these files only, as frontend/coding.py")
    parser.add_argument(
        "--new", action="store_true", help=f"try only those that {DOCUMENT.name} lacks or that survive there"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many to try at once")
    options = parser.parse_args()
    found = read()

    def known(mutant: Mutant) -> bool:
        return mutant.what in found and (found[mutant.what] != NOTHING or bool(mutant.harmless))

    asked = [
        mutant
        for mutant in EVERY
        if (not options.files or mutant.file in options.files) and (not options.new or not known(mutant))
    ]

    def told(mutant: Mutant, test: str | None) -> None:
        print(f"{mutant.what}: {test or 'SURVIVES'}", flush=True)
        write({**read(), mutant.what: test or NOTHING})

    runner = Runner(ROOT, asked, found, options.jobs, told)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the processes of the runner
    if asked:
        runner.run()
    for error in runner.errors:
        print(error, file=sys.stderr)
    found = read()
    survive = any(found.get(mutant.what) == NOTHING and not mutant.harmless for mutant in asked)
    return int(survive or bool(runner.errors))


if __name__ == "__main__":
    sys.exit(main())
