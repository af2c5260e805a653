"""A caller with nothing of this project but collage-client: ``python client_probe.py ADDRESS [NEIGHBOUR]``.

Imports the neighbour (tritonclient or kserve) if there is one, then every module of the client. Calls the server with
both clients and prints what it found as JSON. There is one neighbour at a time: kserve and tritonclient hold different
copies of one protocol, and a process can hold only one of them.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import sys
from importlib import metadata


async def ask(address: str) -> str:
    """The label that the asyncio client gets."""
    from collage.client import Client

    async with Client(address) as client:
        return (await client.predict(b"\x01")).label


def main(address: str, neighbour: str = "") -> None:
    """Print versions, modules and labels."""
    if neighbour:
        importlib.import_module({"tritonclient": "tritonclient.grpc", "kserve": "kserve"}[neighbour])
    import collage
    from collage.client import SyncClient

    modules = [found.name for found in pkgutil.walk_packages(collage.__path__, "collage.")]
    for module in modules:
        importlib.import_module(module)
    with SyncClient(address) as client:
        labels = [client.predict(b"\x01").label, asyncio.run(ask(address))]
        health = client.health()
    packages = ["collage-client", "grpcio", "protobuf", "numpy", *filter(None, [neighbour])]
    print(
        json.dumps(
            {
                "modules": modules,
                "labels": labels,
                "health": health,
                "file": collage.__file__,
                "versions": {name: metadata.version(name) for name in packages},
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
