"""What servers of other makes have in common: a place on loopback, and the flags of those with one ONNX file."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

HOST = "127.0.0.1"


def free_port() -> int:
    """One that nobody has now."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def flags() -> argparse.Namespace:
    """Those of this process; a free port if it shall be none in particular."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model-version", default="1")
    parser.add_argument("--least-s", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--metrics-port", type=int)
    args = parser.parse_args()
    args.port = args.port or free_port()
    return args
