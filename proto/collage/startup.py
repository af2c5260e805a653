"""What a server does before its other imports. This file imports next to nothing."""

from __future__ import annotations

import os
import signal


def before_imports() -> None:
    """Let SIGTERM and SIGINT end the process with exit code 0 until somebody handles them; silence gRPC's own log.

    Linux delivers no signal without a handler to the first process of a container, so it would ignore a SIGTERM that
    comes while it imports or loads a model, and be killed only after its grace. gRPC writes to standard error itself,
    not as JSON, and waits if nobody reads it; whoever needs these lines sets GRPC_VERBOSITY.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # nothing is served yet; an exception could get lost in a library
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
