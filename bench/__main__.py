"""``python -m bench COMMAND``: the one entry. A command's module is imported when it is asked for, and no other's."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

SERVING, DEVELOPMENT = ".venv", ".venv-dev"
"""Environments that ``make .venv/ready`` and ``make .venv-dev/ready`` install. The second includes the first."""


class Command(NamedTuple):
    """A function that takes arguments and returns an exit code, and the smallest environment with what it needs."""

    module: str
    about: str
    environment: str = SERVING
    main: str = "main"


OURS = ("bench", "collage", "encoder", "frontend", "inference", "models", "worker")
COMMANDS = {
    "demo": Command("bench.runs.demo", "compare three policies under stragglers, on real processes"),
    "cluster": Command("bench.cluster.local", "start a local cluster and wait: cluster up"),
    "experiment": Command("bench.runs.experiment", "compare policies in all regimes, on real processes", DEVELOPMENT),
    "replay": Command(
        "bench.simulator.replay", "simulate the policies on latencies of your own", main="replay_command"
    ),
    "simulate": Command(
        "bench.simulator.replay", "simulate the policies in a regime of slowness", main="simulate_command"
    ),
    "frontier": Command("bench.simulator.frontier", "simulate the tail of every policy against its extra load"),
    "parm": Command("bench.runs.parm", "repeat ParM's experiment, with its code and with collages", DEVELOPMENT),
    "published": Command("bench.simulator.published", "simulate the published closed groups again and compare"),
    "confidences": Command("bench.runs.confidences", "measure how sure and how right the shipped models are"),
    "codes": Command("bench.runs.codes", "measure how right every code is where answers are lost"),
    "sweep": Command("bench.simulator.sweep", "simulate many settings, regimes and loads for a report"),
    "accuracy": Command("bench.simulator.accuracy", "simulate budgets of accuracy with the answers of shipped models"),
    "report": Command("bench.report.comparison", "draw a report from the figures of experiments and sweeps"),
    "tables": Command("bench.report.pages", "write the tables of the documents from the figures in docs/results"),
    "speed": Command("bench.runs.speed", "measure what the frontend costs"),
    "doors": Command("bench.runs.doors", "measure what HTTP costs beside gRPC, and traces", DEVELOPMENT),
    "envoy": Command("bench.runs.envoy", "compare with a real Envoy before real workers", DEVELOPMENT),
    "hostile": Command("bench.runs.hostile", "attack a frontend in every way that callers can"),
    "overload": Command("bench.runs.overload", "offer more requests than a cluster can serve", DEVELOPMENT),
    "soak": Command("bench.runs.soak", "send many requests while workers die and freeze", DEVELOPMENT),
    "fleet": Command("bench.runs.fleet", "put a frontend in front of real Triton and MLServer fleets"),
    "allreduce": Command("bench.runs.allreduce", "measure ways to add gradients up in training", DEVELOPMENT),
    "monitoring": Command("bench.runs.monitoring", "try every dashboard and alert on a real Prometheus", DEVELOPMENT),
    "providers": Command("bench.runs.providers", "measure models on execution providers of ONNX Runtime"),
    "fit": Command("bench.offer.workload", "fit the table of injected latencies to a measured trace"),
    "instant": Command("bench.cluster.instant", "run instant workers or a bare proxy, as speed does"),
}


def usage() -> str:
    """All commands, a line each."""
    lines = (f"  {name:11} {command.about}" for name, command in COMMANDS.items())
    return "\n".join(["usage: python -m bench COMMAND [--help]", "", *lines])


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code.

    2: there is no such command, or this environment lacks a package that it needs. 130: it was interrupted. An
    exception that has an ``exit_code`` ends a command with that code and its message.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if not argv or argv[0] not in COMMANDS:
        print(usage(), file=sys.stderr)
        return 2
    command = COMMANDS[argv[0]]
    try:
        run = getattr(importlib.import_module(command.module), command.main)
    except ModuleNotFoundError as error:
        if (error.name or "bench").split(".")[0] in OURS:
            raise  # not an environment's fault
        python = f"{command.environment}/bin/python"
        print(
            f"python -m bench {argv[0]} needs the package {error.name}: "
            f"run `make {command.environment}/ready`, then `{python} -m bench {argv[0]}`",
            file=sys.stderr,
        )
        return 2
    try:
        return int(run(argv[1:]))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(error, file=sys.stderr)
        return int(code)


if __name__ == "__main__":
    # Either signal cancels a running event loop's main task, so that every ``async with`` block is left in order.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.exit(main(sys.argv[1:]))
