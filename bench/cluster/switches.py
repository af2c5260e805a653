"""Switches by which workers are made to straggle while they run, for the page of ``make up``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cluster.processes import Child


@dataclass(frozen=True)
class Switches:
    """One file for each worker in a ``folder`` that nobody else can write to; ``samples`` are the page's photos.

    ``usual`` is the slowness (``--slowdown``) of workers that were not made to straggle.
    """

    folder: Path
    samples: Path
    usual: str = "off"

    def of(self, place: int) -> Sequence[str]:
        """Flags of the worker in this place among all, from 0."""
        file = self.folder / str(place)
        file.write_text(self.usual)
        return "--slowdown", f"switch:{file}"

    def tell(self, workers: Sequence[Child]) -> Sequence[str]:
        """Flags of the frontend; ``workers`` have their addresses, and are in the order of their places."""
        file = self.folder / "playground.json"
        switches = {worker.address: str(self.folder / str(place)) for place, worker in enumerate(workers)}
        told = {"samples": str(self.samples), "switches": switches, "usual": self.usual}
        file.write_text(json.dumps(told))
        return "--playground", str(file)
