"""A real Triton with one ONNX file: run by the Python of an environment that has nvidia-pytriton and onnxruntime.

The package has no ONNX backend, so the Python backend runs the file (``triton_model.py``). The process becomes
tritonserver, so whoever freezes or kills it means that.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path

from onnx_file import OnnxFile  # type: ignore[import-not-found]
from peer import HOST, flags, free_port  # type: ignore[import-not-found]

PEERS = Path(__file__).parent
STARTS_WITHIN_S = 60.0
_TYPES = {"UINT8": "TYPE_UINT8", "FP16": "TYPE_FP16", "FP32": "TYPE_FP32", "FP64": "TYPE_FP64"}


def config(name: str, path: Path, least_s: float) -> str:
    """The model's configuration, in Triton's words; shapes have their batch dimension."""
    model = OnnxFile(path)
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        "max_batch_size: 0",
        "instance_group [{ kind: KIND_CPU, count: 1 }]",
    ]
    for role, tensors in (("input", model.inputs), ("output", model.outputs)):
        lines += [
            f'{role} [{{ name: "{tensor}", data_type: {_TYPES[datatype]}, dims: {shape} }}]'
            for tensor, datatype, shape in tensors
        ]
    parameters = {"onnx": path.resolve(), "least_s": least_s, "peers": PEERS}
    lines += [
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in parameters.items()
    ]
    return "\n".join(lines) + "\n"


def repository(folder: Path, name: str, version: str, path: Path, least_s: float) -> Path:
    """A model repository with this one model."""
    model = folder / name
    (model / version).mkdir(parents=True)
    (model / "config.pbtxt").write_text(config(name, path, least_s))
    shutil.copy(PEERS / "triton_model.py", model / version / "model.py")
    return folder


def command(folder: Path, models: Path, port: int, http: int) -> tuple[list[str], dict[str, str]]:
    """The command that starts the server, and its environment; ``folder`` gets the backend with this Python's stub."""
    import pytriton  # type: ignore[import-not-found]

    home = Path(pytriton.__file__).parent / "tritonserver"
    backends = folder / "backends"
    shutil.copytree(home / "backends" / "python", backends / "python")
    stub = home / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(stub / "triton_python_backend_stub", backends / "python")
    environment = dict(os.environ)
    libraries = [
        str(home.parents[1] / "nvidia_pytriton.libs"),
        sysconfig.get_config_var("LIBDIR"),
        environment.get("LD_LIBRARY_PATH", ""),
    ]
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
    }
    arguments = {
        "model-repository": models,
        "backend-directory": backends,
        "grpc-address": HOST,
        "grpc-port": port,
        "http-address": HOST,
        "http-port": http,
        "allow-metrics": "false",
        "log-verbose": 0,
        "exit-timeout-secs": 2,
    }
    server = str(home / "bin" / "tritonserver")
    return [server, *(f"--{name}={value}" for name, value in arguments.items())], environment


def announce(port: int, http: int) -> None:
    """Say that the server is ready, once it is."""
    ends = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{http}/v2/health/ready", timeout=1):
                print(f"ready port={port} metrics_port=0", flush=True)
                return
        except OSError:
            time.sleep(0.1)


def end_with(server: int) -> None:
    """Kill what the server leaves behind when it is killed: the process that runs the model, which has its pipes."""
    while os.getppid() == server:
        time.sleep(0.1)
    if os.getpgrp() == server:  # else the group is not ours
        os.killpg(server, signal.SIGKILL)


def main() -> None:
    """Become tritonserver; a child of this process waits until that is ready, and until it has ended."""
    args = flags()
    folder = Path(tempfile.mkdtemp(prefix="triton-"))
    models = repository(folder / "models", args.name, args.model_version, args.onnx, args.least_s)
    port, http = args.port, free_port()
    words, environment = command(folder, models, port, http)
    server = os.getpid()
    if os.fork() == 0:
        announce(port, http)
        shutil.rmtree(folder, ignore_errors=True)  # it is in memory by now
        end_with(server)
        os._exit(0)
    os.execve(words[0], words, environment)  # noqa: S606 - the words are ours


if __name__ == "__main__":
    main()
