"""What the kubelet's probes see of a server."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from collage.health import LIVENESS
from collage.serving import Server, ServerSettings

NAME = "collage.v1.PredictService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_server_that_is_not_ready_is_alive() -> None:
    settings = ServerSettings.model_validate({"host": "127.0.0.1", "port": 0, "metrics_port": 0})
    server = Server(settings, CollectorRegistry(), [NAME])
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def seen() -> list[int]:
                requests = (health_pb2.HealthCheckRequest(service=name) for name in ("", NAME, LIVENESS))
                return [(await health.Check(request, timeout=5)).status for request in requests]

            assert await seen() == [NOT_SERVING, NOT_SERVING, SERVING]
            server.set_serving(True)
            assert await seen() == [SERVING, SERVING, SERVING]
    finally:
        await server.stop()
