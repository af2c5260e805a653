"""All that is served by HTTP, put together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute

from collage.security import ServerTls
from collage.serving import Server
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher
from frontend.http.openapi import documentation
from frontend.http.playground import Playground
from frontend.http.port import HttpPort
from frontend.http.rest import Rest
from frontend.inference import FrontendInference
from frontend.server import PredictServicer
from frontend.workers import Pool


async def open_port(
    server: Server,
    settings: FrontendSettings,
    predictions: PredictServicer,
    inference: FrontendInference,
    dispatcher: Dispatcher,
    coded: Sequence[Pool],
    unprotected: Callable[[], Dispatcher],
) -> None:
    """Serve by HTTP what these servicers do, until the server stops; raises OSError, SecurityError.

    ``dispatcher`` and ``coded`` pools are for the page to look at; ``unprotected`` makes a dispatcher without a policy.
    """
    tls = None
    if settings.tls_cert and settings.tls_key:
        tls = ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca).context()
    rest = Rest(server, predictions, inference)
    extra: list[BaseRoute] = documentation()
    if settings.playground:
        extra += Playground(settings, settings.playground, rest, dispatcher, unprotected(), coded).routes()
    http = HttpPort(rest.app(extra), functools.partial(server.intake.refused, "open"), tls=tls)
    await http.start(settings.host, settings.http_port or 0)
    server.other_ports.append(http)
