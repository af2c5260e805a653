"""``python -m worker --model FILE.onnx``."""

from __future__ import annotations

if __name__ == "__main__":
    from collage import startup

    startup.before_imports()

import asyncio
import logging
import sys

from prometheus_client import REGISTRY

from collage import flags
from collage.security import SecurityError
from collage.serving import load_settings
from worker.config import WorkerSettings
from worker.model import ModelError
from worker.server import WorkerProcess
from worker.slowdown import SlowdownError

logger = logging.getLogger("collage.worker")


async def serve(settings: WorkerSettings) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raises ModelError, SlowdownError, SecurityError, or OSError."""
    worker = WorkerProcess(settings, REGISTRY)
    model = worker.engine.model.info
    logger.info(
        "worker %s: %s %s %s of %s, %d threads",
        *(flags.version(), model.kind.name, model.name, model.version, settings.model, settings.threads),
    )
    try:
        await worker.start()
        await worker.server.run_until_signal()
    finally:
        await worker.stop()


def main() -> int:
    """Exit code 0 after draining, 2 if the worker cannot start; then standard error says why in one line."""
    settings = load_settings(WorkerSettings)
    try:
        asyncio.run(serve(settings))
    except (ModelError, SlowdownError, SecurityError, OSError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
