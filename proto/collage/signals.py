"""What SIGTERM and SIGINT do before a process serves. Imports next to nothing, as it is needed before all imports."""

from __future__ import annotations

import os
import signal


def end_at_once() -> None:
    """Let SIGTERM and SIGINT end the process with exit code 0 until somebody handles them otherwise.

    Linux delivers no signal without a handler to the first process of a container, so it would ignore a SIGTERM that
    comes while it imports or loads a model, and be killed only after its grace.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # nothing is served yet; an exception could get lost in a library
