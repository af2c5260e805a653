"""All that is served by HTTP, put together."""

from __future__ import annotations

import functools

from collage.security import ServerTls
from collage.serving import Server
from frontend.http.port import HttpPort
from frontend.http.rest import Rest
from frontend.inference import FrontendInference
from frontend.server import PredictServicer


async def open_port(server: Server, predictions: PredictServicer, inference: FrontendInference, port: int) -> None:
    """Serve by HTTP what these servicers do, until the server stops; raises OSError, SecurityError."""
    settings = server.settings
    tls = None
    if settings.tls_cert and settings.tls_key:
        tls = ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca).context()
    app = Rest(server, predictions, inference).app([])
    http = HttpPort(app, functools.partial(server.intake.refused, "open"), tls=tls)
    await http.start(settings.host, port)
    server.other_ports.append(http)
