"""A cluster of real processes on this machine; ``python -m bench cluster up`` starts one and waits.

Other rooms import the names of child processes here.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from bench.cluster.greeting import greeting, samples_of, typed
from bench.cluster.processes import HOST, LOGS, Child, Metrics, ProcessError, ProcessGroup, free_port
from bench.cluster.switches import Switches
from collage.cli import CLUSTER_FILE
from collage.client import Client, ClientError
from models.steps import PARITY, Protection

__all__ = [
    "COLLAGE",
    "HOST",
    "LOGS",
    "S_CNN",
    "Child",
    "Cluster",
    "Metrics",
    "ProcessError",
    "ProcessGroup",
    "busy_s",
    "free_port",
    "until_serving",
]

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "models" / "zoo"
S_CNN = ZOO / "fashion-mnist-s-cnn.onnx"
COLLAGE = ZOO / "fashion-mnist-collage-3x3.onnx"
SERVING_TIMEOUT_S = 30.0
ATTEMPTS = {"coded": "collages", "replica": "replicas"}
"""Redundant calls: labels of the frontend's counter, and our names."""


class Cluster(ProcessGroup):
    """One frontend, s-cnn workers and redundant workers, as child processes with one ONNX thread each.

    ``coded`` is the redundant model, or one for each redundant input of a code; each has ``coded_workers``. Serving
    once the ``async with`` block is entered; no process is left after it. ``worker_flags`` go to every worker, or are
    made for each from its place among all (from 0, s-cnn workers first), ``frontend_flags`` to the frontend
    (``("--policy", "none")``). ``port`` is the frontend's; 0 takes a free one. With ``switches``, workers can be
    made to straggle while they run, by the frontend's page, which needs its HTTP port.
    """

    def __init__(
        self,
        s_cnn: Path = S_CNN,
        coded: Path | Sequence[Path] = COLLAGE,
        *,
        s_cnn_workers: int = 9,
        coded_workers: int = 1,
        worker_flags: Sequence[str] | Callable[[int], Sequence[str]] = (),
        frontend_flags: Sequence[str] = (),
        port: int = 0,
        switches: Switches | None = None,
        logs: Path = LOGS,
    ) -> None:
        super().__init__(logs)
        self._switches = switches

        def workers(role: str, model: Path, count: int) -> list[Child]:
            if not model.exists():
                raise ProcessError(f"there is no model at {model}{_alike(model)}")
            made = []
            for i in range(count):
                place = len(self.children)
                flags = worker_flags(place) if callable(worker_flags) else worker_flags
                if switches:
                    flags = *flags, *switches.of(place)
                command = _python("worker", "--model", str(model), "--threads", "1", *flags)
                made.append(self.add(role, f"{role}-{i}", command))
            return made

        self.s_cnn = workers("s-cnn", s_cnn, s_cnn_workers)
        models = (
            {"collage-cnn": coded} if isinstance(coded, Path) else {f"row-{n}": path for n, path in enumerate(coded)}
        )
        self.rows = [workers(role, model, coded_workers) for role, model in models.items()]
        self.frontend = self.add("frontend", "frontend", ())
        self.frontend.port = port
        self._frontend_flags = frontend_flags

    @property
    def coded(self) -> list[Child]:
        """All redundant workers."""
        return [child for row in self.rows for child in row]

    async def begin(self) -> None:
        """Start the workers, then the frontend."""
        await self.start(self.workers)
        await self.restart_frontend(self._frontend_flags)

    async def restart_frontend(self, flags: Sequence[str]) -> None:
        """Start the frontend with these flags, on the same port; stops the one that runs. Returns when it serves."""
        if self._switches:
            flags = *flags, *self._switches.tell(self.workers)
        s_cnn, *coded = (",".join(child.address for child in workers) for workers in (self.s_cnn, *self.rows))
        self.frontend.command = _python(
            "frontend", "--s-cnn-workers", s_cnn, *(["--coded-workers", *coded] if coded else []), *flags
        )
        await self.frontend.restart()
        await until_serving(self.frontend)

    @property
    def workers(self) -> list[Child]:
        """All workers, those of the s-cnn first."""
        return [*self.s_cnn, *self.coded]

    async def sent(self) -> Counter[str]:
        """Collages and replicas that the frontend has sent since its start; of two counts, subtract the first."""
        metrics = await self.frontend.metrics()
        sent = {name: metrics.value("collage_sent_total", attempt=name) for name in ATTEMPTS}
        return Counter({ATTEMPTS[name]: int(number) for name, number in sent.items()})

    async def busy_s(self) -> float:
        """Seconds that all workers have spent computing since their start."""
        return await busy_s(self.workers)


async def busy_s(workers: Iterable[Child]) -> float:
    """Seconds that these workers have spent computing since their start."""
    scraped = [await worker.metrics() for worker in workers]
    return sum(metrics.value("collage_worker_busy_seconds_total") for metrics in scraped)


async def until_serving(child: Child, timeout_s: float = SERVING_TIMEOUT_S) -> None:
    """Wait until a child reports SERVING; raises ProcessError after ``timeout_s``."""
    try:
        async with asyncio.timeout(timeout_s), Client(child.address) as client:
            while not await _serves(client):  # noqa: ASYNC110 - the event is in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ProcessError(f"{child.name} does not serve after {timeout_s:.0f} s: see {child.log}") from None


async def _serves(client: Client) -> bool:
    try:
        return await client.health() == "SERVING"
    except ClientError:
        return False


def _python(module: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", module, "--host", HOST, *flags]


def _alike(model: Path) -> str:
    """The models beside a missing one whose names are most like its own, to end a message."""
    names = get_close_matches(model.name, [path.name for path in model.parent.glob("*.onnx")], n=5, cutoff=0)
    return f": beside it are {', '.join(names)}" if names else ""


def parity_models(s_cnn: Path, code: str, k: int, r: int) -> list[Path]:
    """The parity models beside an s-cnn, one for each of the r redundant inputs of groups of k.

    Raises ProcessError, which names those that are there, if one is missing.
    """
    stem = s_cnn.name.removesuffix(".onnx").removesuffix("-s-cnn")
    paths = [s_cnn.with_name(f"{stem}-{Protection(code, k, r, row).role}.onnx") for row in range(r)]
    if missing := [path for path in paths if not path.exists()]:
        train = f"make data, then make zoo CODE={code} K={k} train it into runs/zoo, from where you copy it"
        if s_cnn.parent.resolve() != ZOO:
            train = f"make zoo DATA=IMAGES MODELS={s_cnn.parent} CODE={code} K={k} trains it"
        others = ", ".join(sorted(path.name for path in s_cnn.parent.glob(f"{stem}-{PARITY}-*.onnx"))) or "none"
        raise ProcessError(f"there is no parity model {missing[0]}: {train}; those there are: {others}")
    return paths


def protected(args: argparse.Namespace, given: Sequence[str]) -> tuple[list[Path] | Path, int, list[str]]:
    """Redundant models, workers of each, and flags of the frontend beside those that are ``given``."""
    if not args.code:
        return [] if args.no_collage else args.collage, args.collage_workers or 1, []
    models = parity_models(args.s_cnn, args.code, args.k, args.r)
    budget = [] if "--extra-load" in given else ["--extra-load", f"{args.r / args.k:.3f}"]
    return models, args.collage_workers or max(1, args.workers // args.k), budget


def check_free(port: int) -> None:
    """Raise ProcessError if another process listens on this port of ours; 0 is always free."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ProcessError(
            f"port {port} cannot be used ({why}): end what listens there, or start the cluster by "
            f"`{typed('python')} -m bench cluster up`, which takes other ports (--port, --http-port)"
        ) from None


async def _up(args: argparse.Namespace, frontend_flags: Sequence[str], folder: Path) -> None:
    try:
        for port in (args.port, args.http_port):
            check_free(port)
        coded, each, budget = protected(args, frontend_flags)
        cluster = Cluster(
            args.s_cnn,
            coded,
            s_cnn_workers=args.workers,
            coded_workers=each,
            frontend_flags=("--http-port", str(args.http_port), *budget, *frontend_flags),
            port=args.port,
            switches=Switches(folder, samples_of(args.s_cnn), args.slowdown),
        )
        print(f"starting {len(cluster.children)} processes ...", flush=True)
        async with cluster:
            _list(cluster)
            print(await greeting(cluster.frontend, cluster.s_cnn, cluster.coded, args.s_cnn), flush=True)
            async with asyncio.TaskGroup() as watchers:
                for child in cluster.children:
                    watchers.create_task(_watch(child, needed=child is cluster.frontend))
    except asyncio.CancelledError:
        print("stopped")


@contextmanager
def alone() -> Iterator[None]:
    """While this is open no other cluster can start in this folder; raises ProcessError if one runs."""
    CLUSTER_FILE.parent.mkdir(parents=True, exist_ok=True)
    with CLUSTER_FILE.with_suffix(".lock").open("w") as lock:  # let go of by the system, however we end
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProcessError(
                f"a cluster runs already, as {CLUSTER_FILE} says: end it with Ctrl-C in its terminal first"
            ) from None
        try:
            yield
        finally:
            CLUSTER_FILE.unlink(missing_ok=True)


async def _watch(child: Child, needed: bool) -> None:
    message = f"{child.name} ended with exit code {await child.wait()}: see {child.log}"
    if needed:
        raise ProcessError(message)
    print(message, flush=True)


def _list(cluster: Cluster) -> None:
    processes = [
        {"role": child.role, "address": child.address, "metrics": child.metrics_address}
        for child in (cluster.frontend, *cluster.s_cnn, *cluster.coded)
    ]
    CLUSTER_FILE.parent.mkdir(parents=True, exist_ok=True)
    CLUSTER_FILE.write_text(json.dumps(processes, indent=1) + "\n")


def main(argv: Sequence[str]) -> int:
    """Run ``up``: 0 after SIGINT or SIGTERM, 1 if the cluster could not start or its frontend ended."""
    parser = argparse.ArgumentParser(prog="python -m bench cluster", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser(
        "up",
        help="start a cluster and wait for Ctrl-C",
        epilog="Further flags go to the frontend: --policy none --deadline-s 0.1 (python -m frontend --help).",
    )
    up.add_argument("--s-cnn", type=Path, default=S_CNN, help="single-image model, ONNX (%(default)s)")
    up.add_argument("--collage", type=Path, default=COLLAGE, help="its collage model, ONNX (%(default)s)")
    up.add_argument("--no-collage", action="store_true", help="serve the s-cnn alone: stragglers are only replicated")
    up.add_argument("--code", help="another code, with the parity models beside the s-cnn: addition, stacked ...")
    up.add_argument("--k", type=int, default=2, help="requests that this code protects together (%(default)s)")
    up.add_argument("--r", type=int, default=1, help="redundant inputs of this code (%(default)s)")
    up.add_argument("--workers", type=int, default=9, help="s-cnn workers (%(default)s)")
    up.add_argument(
        "--collage-workers",
        type=int,
        help="workers of each redundant model; if not given, 1 of a collage-cnn, one for k s-cnn workers of others",
    )
    up.add_argument("--port", type=int, default=50051, help="the frontend's port (%(default)s)")
    up.add_argument("--http-port", type=int, default=8080, help="its port for HTTP and the page (%(default)s)")
    up.add_argument(
        "--slowdown", default="off", help="make workers straggle: quantiles:bench/latency.json (%(default)s)"
    )
    args, frontend_flags = parser.parse_known_args(argv)
    try:
        with alone(), tempfile.TemporaryDirectory(prefix="collage-") as folder:
            asyncio.run(_up(args, frontend_flags, Path(folder)))
    except* ProcessError as failures:
        print(failures.exceptions[0], file=sys.stderr)
        failed = True
    else:
        failed = False
    return int(failed)
