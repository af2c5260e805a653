"""``python -m bench replay | simulate | overload | soak | speed``; see their modules."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from bench.runs import overload, soak, speed
from bench.simulator import replay

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "replay": functools.partial(replay.main, "replay"),
    "simulate": functools.partial(replay.main, "simulate"),
    "overload": overload.main,
    "soak": soak.main,
    "speed": speed.main,
}


def main(argv: list[str]) -> int:
    """Run a command and return its exit code; 2 for an unknown one."""
    if not argv or argv[0] not in COMMANDS:
        print(f"usage: python -m bench {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        return 2
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
