"""Processes that are asked to end before they serve, and what they write where nobody reads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.certificates import Authority

BOUND_S = 60
SLOW_IMPORT = "import time\nprint('importing', flush=True)\ntime.sleep(600)\n"


@pytest.mark.parametrize("role", ["frontend", "worker"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_still_imports(tmp_path: Path, role: str, number: signal.Signals) -> None:
    """Its own handler does: a container's first process has no other end than that and SIGKILL."""
    (tmp_path / "prometheus_client.py").write_text(SLOW_IMPORT)  # the first import of both that is not Python's
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        [sys.executable, "-m", role], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"importing\n"
        running.send_signal(number)
        out, said = running.communicate(timeout=BOUND_S)
    assert (running.returncode, out, said) == (0, b"", b"")


def end_of(number: int) -> int:
    """Where to write for nobody: a closed pipe (0), or a full disk."""
    if number:
        return os.open("/dev/full", os.O_WRONLY)
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("full", [0, 1])
def test_a_server_whose_standard_output_nobody_reads_serves(full: int) -> None:
    flags = ["--s-cnn-workers", "127.0.0.1:9", "--host", "127.0.0.1", "--port", "0", "--metrics-port", "0"]
    output = end_of(full)
    with subprocess.Popen([sys.executable, "-m", "frontend", *flags], stdout=output, stderr=subprocess.PIPE) as running:
        os.close(output)
        assert running.stderr is not None
        told = next(line for line in running.stderr if b"standard output" in line)
        assert told.endswith((b"Broken pipe\n", b"No space left on device\n"))
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=BOUND_S)
    assert running.returncode == 0
    assert b"Error" not in said


def test_every_line_of_a_log_in_json_is_json(tmp_path: Path) -> None:
    """Also when gRPC would have something to say: here, of a client that speaks no TLS."""
    pair = Authority(tmp_path).issue("server")
    flags = ["--s-cnn-workers", "127.0.0.1:9", "--host", "127.0.0.1", "--port", "0", "--metrics-port", "0"]
    flags += ["--log-format", "json", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with subprocess.Popen(
        [sys.executable, "-m", "frontend", *flags], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        port = int(running.stdout.readline().split()[1].removeprefix(b"port="))
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), BOUND_S) as plain, suppress(ConnectionError):
                plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                while plain.recv(1024):
                    pass
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=BOUND_S)
    assert running.returncode == 0
    assert {json.loads(line)["logger"] for line in said.splitlines()} <= {"collage", "collage.frontend"}
