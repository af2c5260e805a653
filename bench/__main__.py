"""``python -m bench replay | simulate``; see ``bench.replay``."""

from __future__ import annotations

import sys

from bench import replay

COMMANDS = ("replay", "simulate")


def main(argv: list[str]) -> int:
    """Run a command and return its exit code; 2 for an unknown one."""
    if not argv or argv[0] not in COMMANDS:
        print(f"usage: python -m bench {{{','.join(COMMANDS)}}} [--help]", file=sys.stderr)
        return 2
    return replay.main(argv[0], argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
