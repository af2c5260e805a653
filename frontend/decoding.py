"""Images on the threads that decode them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Histogram

from encoder.image import SlowImage
from frontend.jobs import Job

AT_ONCE_S = 0.1
"""Images that take longer to decode wait for a place of their own, so that the others need not wait for them."""


class Decoding:
    """Decodes in an executor, at most ``slow_images`` at once that take long; it has more threads than that.

    ``seconds`` counts how long decoding takes.
    """

    def __init__(self, executor: Executor, slow_images: int, seconds: Histogram) -> None:
        self.waiting = 0
        """Images that are not decoded yet, without those that take long."""
        self._executor, self._seconds = executor, seconds
        self._places = asyncio.Semaphore(slow_images)

    async def run(self, job: Job, prepare: Callable[[], NDArray[np.uint8]]) -> None:
        """Make the job's input by ``prepare``, in a thread; raises what it raises, except for SlowImage."""
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            job.input = await loop.run_in_executor(self._executor, self._timed, prepare)
            return
        except SlowImage as image:
            finish = image.finish
        finally:
            self.waiting -= 1
        job.slow = True
        await self._places.acquire()
        running = self._executor.submit(self._timed, finish)
        # Not when the caller has gone: the thread goes on for a while.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._places.release))
        job.input = await asyncio.wrap_future(running)

    def _timed(self, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        with self._seconds.time():
            return make()
