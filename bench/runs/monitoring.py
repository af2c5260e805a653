"""``python -m bench monitoring``: a real Prometheus watches a cluster with stragglers, and every query is tried on it.

It runs the configuration and the rules that ``k8s/components/monitoring`` deploys; only the discovery of pods is
replaced by a list. Every query of the dashboards and rules must return data, or have a reason in ``MAY_BE_EMPTY``.
The dashboards' panels are drawn as pictures. Needs ``prometheus`` and ``promtool`` (Debian's package ``prometheus``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.cluster.local import HOST, LOGS, Child, Cluster, ProcessError, free_port
from bench.offer import LATENCY_TABLE, ROOT, closed_groups, load_samples, random_groups
from bench.report import panels
from bench.report.panels import Found, PanelQuery
from collage.client import Client, ClientError
from collage.figures import OUT, Row, write_figures

MONITORING = ROOT / "k8s" / "components" / "monitoring"
SCRAPE_S = 1
"""Instead of 15 s in production, for a run of minutes; ``panels.VARIABLES`` follows."""
STEP_S = 2
SLOW = "fixed:0.6"
"""Slowness of the last s-cnn worker; the others draw from figure 2 of Collage inference."""
BROKEN_IMAGES = 20

MAY_BE_EMPTY = {
    "Replicas wasted": "no replica was sent",
    "What redundant calls give: per replica": "no replica was sent, or none gave an answer",
    "Failed calls to workers: {{attempt}} {{code}}": "no call failed",
    "CollageNoFrontend": "a frontend is there",
}
"""Queries that return nothing in a healthy cluster, by panel and legend or by alert, and why."""


def rule_queries() -> list[PanelQuery]:
    """Expressions of recording rules, and those that alerts compare with their thresholds."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [
        PanelQuery("rules", rule.get("record") or rule["alert"], operand)
        for group in groups
        for rule in group["rules"]
        for operand in ([rule["expr"]] if "record" in rule else operands(rule["expr"]))
    ]


def operands(condition: str) -> list[str]:
    """The sides of an alert's comparisons: ``a`` and ``b`` of ``a > 1 and b < 2``."""
    return [re.sub(r"\s(?:[<>]=?|[!=]=)\s[^<>=]+$", "", part).strip() for part in re.split(r"\sand\s", condition)]


def configuration(children: Sequence[Child]) -> dict[str, Any]:
    """The configuration of ``scrape.yaml``, with these processes as the pods that Kubernetes would list."""
    config: dict[str, Any] = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    config["rule_files"] = [str(MONITORING / file) for file in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    prefix = "__meta_kubernetes"
    job["static_configs"] = [
        {
            "targets": [f"{HOST}:{child.metrics_port}"],
            "labels": {
                f"{prefix}_namespace": "collage",
                f"{prefix}_pod_name": child.name,
                f"{prefix}_pod_phase": "Running",
                f"{prefix}_pod_container_name": child.role,
                f"{prefix}_pod_container_port_name": "metrics",
                f"{prefix}_pod_label_app_kubernetes_io_part_of": "collage",
            },
        }
        for child in children
    ]
    return config


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}"

    async def get(self, path: str, **parameters: object) -> Any:
        """The ``data`` of an API's answer. Raises OSError, or ProcessError with Prometheus' own words."""

        def fetch() -> Any:
            try:
                query = urllib.parse.urlencode(parameters)
                with _DIRECT.open(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                    return json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                raise ProcessError(f"{path} {parameters}: {error.read().decode()}") from None

        return await asyncio.to_thread(fetch)

    async def series(self, query: PanelQuery, start: float, end: float) -> Found:
        """Times since ``start`` and finite values, float64 ``[n]`` each, by legend; series without any are left out."""
        data = await self.get("query_range", query=query.expression, start=start, end=end, step=STEP_S)
        found = {}
        for series in data["result"]:
            times, values = np.array(series["values"], np.float64).T
            finite = np.isfinite(values)
            if finite.any():
                found[query.named(series["metric"])] = times[finite] - start, values[finite]
        return found


@contextlib.asynccontextmanager
async def prometheus(children: Sequence[Child], folder: Path) -> AsyncIterator[Prometheus]:
    """Run Prometheus on these processes' metrics, with its data in ``folder``, as long as the block.

    Raises ProcessError if it or promtool is missing, or refuses the configuration.
    """
    binary, promtool = shutil.which("prometheus"), shutil.which("promtool")
    if binary is None or promtool is None:
        raise ProcessError("prometheus and promtool are not installed: Debian's package prometheus has both")
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration(children)))
    check = await asyncio.create_subprocess_exec(promtool, "check", "config", file, stdout=asyncio.subprocess.PIPE)
    said, _ = await check.communicate()
    if check.returncode:
        raise ProcessError(said.decode())
    port = free_port()
    LOGS.mkdir(parents=True, exist_ok=True)
    flags = (f"--config.file={file}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={HOST}:{port}")
    with (LOGS / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(binary, *flags, stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        async with asyncio.timeout(30):
            while not await _sees_all(server):  # noqa: ASYNC110 - the event is in another process
                await asyncio.sleep(0.1)
        yield server
    except TimeoutError:
        raise ProcessError(f"Prometheus does not see all processes after 30 s: see {LOGS}/prometheus.log") from None
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _sees_all(server: Prometheus) -> bool:
    try:
        targets = (await server.get("targets", state="active"))["activeTargets"]
    except (OSError, ProcessError):  # not up yet, or not ready
        return False
    return bool(targets) and all(target["health"] == "up" for target in targets)


async def load(cluster: Cluster, seconds: float) -> None:
    """Send closed groups for ``seconds``. Meanwhile broken images come, and a worker is killed and comes back."""
    async with Client(cluster.frontend.address) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(_incidents(cluster, seconds))
        clock = asyncio.get_running_loop().time
        start, rounds = clock(), 0
        groups = random_groups(load_samples(), len(cluster.s_cnn), 20, seed=0)
        while clock() < start + seconds:
            await closed_groups(client, groups, prefix=f"m{rounds:04d}-")
            rounds += 1


async def _incidents(cluster: Cluster, seconds: float) -> None:
    await _send_broken_images(cluster)
    await asyncio.sleep(0.4 * seconds)
    await cluster.s_cnn[0].kill()
    await asyncio.sleep(0.1 * seconds)
    await cluster.s_cnn[0].restart()
    await _send_broken_images(cluster)


async def _send_broken_images(cluster: Cluster) -> None:
    async with Client(cluster.frontend.address) as client:
        for _ in range(BROKEN_IMAGES):
            with contextlib.suppress(ClientError):
                await client.predict(b"not an image", timeout_s=5)


async def ask(server: Prometheus, start: float, end: float) -> list[Row]:
    """Try every query; one row for each: its place, the number of series that it returned, and the verdict."""
    queries = rule_queries()
    for name, dashboard in panels.dashboards().items():
        queries += panels.queries(name, dashboard)
    rows: list[Row] = []
    for query in queries:
        found = await server.series(query, start, end)
        last = max((float(values[-1]) for _, values in found.values()), default=None)
        result = "data" if found else MAY_BE_EMPTY.get(query.title, "EMPTY, and nobody says why")
        rows.append({"place": query.place, "query": query.title, "series": len(found), "last": last, "result": result})
    for group in (await server.get("rules"))["groups"]:
        for rule in group["rules"]:
            health = rule["health"] if rule["health"] == "ok" else f"EMPTY: {rule.get('lastError')}"
            state = rule.get("state", "recorded")
            rows.append({"place": "rules", "query": rule["name"], "series": None, "last": None, "result": health})
            if state in ("pending", "firing"):
                print(f"alert {rule['name']} is {state}")
    return rows


async def run(seconds: float, pictures: Path) -> list[Row]:
    """Start the cluster and Prometheus, send load, try every query, draw the panels. Returns the rows of ``ask``."""

    def flags(index: int) -> tuple[str, ...]:
        return "--slowdown", SLOW if index == 8 else f"quantiles:{LATENCY_TABLE}"

    cluster = Cluster(worker_flags=flags, frontend_flags=("--audit-share", "0.2", "--slo-s", "0.5"))
    with tempfile.TemporaryDirectory() as folder:
        async with cluster, prometheus(cluster.children, Path(folder)) as server:
            start = time.time()  # Prometheus' clock
            await load(cluster, seconds)
            end = time.time()
            rows = await ask(server, start, end)
            await panels.draw(functools.partial(server.series, start=start, end=end), end - start, pictures)
    write_figures("monitoring", rows)
    return rows


def main(argv: Sequence[str]) -> int:
    """0 if every query returned data or says why not, 1 if not; ProcessError if a process failed."""
    parser = argparse.ArgumentParser(prog="python -m bench monitoring", description="Try every dashboard and alert.")
    parser.add_argument("--seconds", type=float, default=90, help="of load (%(default)s)")
    parser.add_argument("--pictures", type=Path, default=OUT / "dashboards", help="folder for pictures (%(default)s)")
    args = parser.parse_args(argv)
    rows = asyncio.run(run(args.seconds, args.pictures))
    for row in rows:
        print(f"{row['place']:10} {row['query']!s:60} {row['series'] or '':>4}  {row['result']}")
    unexpected = sum(str(row["result"]).startswith("EMPTY") for row in rows)
    print(f"{len(rows)} queries, {unexpected} empty without a reason; pictures: {args.pictures}")
    return 1 if unexpected else 0
