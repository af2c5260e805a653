"""The ``collage`` command: ``collage predict photo.jpg``, ``collage health``."""

from __future__ import annotations

import argparse
import asyncio
import functools
import io
import json
import os
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc

from collage.answers import DEFAULT_ADDRESS, Prediction
from collage.channels import MAX_MESSAGE_BYTES
from collage.client import Client
from collage.errors import ClientError
from collage.inputs import MAX_TIMEOUT_S
from collage.security import ClientSecurity, SecurityError
from collage.sources import STDIN, content, sources
from collage.texts import discard, printable

CLUSTER_FILE = Path("out/cluster.json")
_PROCESS = "role", "address", "metrics"
AT_ONCE = 16  # files in flight in `collage predict`


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: by rich on a terminal, if it is installed, else as aligned plain text.

    Labels, names of files and words of servers are shown so that no terminal obeys them.
    """
    rows = [[printable(text) for text in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(*columns, box=None, header_style="bold")
            for row in rows:
                table.add_row(*map(Text, row))
            Console().print(table)
            return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _complain(message: str) -> None:
    if sys.stderr is not None:  # or it would be printed on standard output
        try:
            print(f"collage: {printable(message)}", file=sys.stderr, flush=True)
        except OSError:
            discard(sys.stderr)


async def _predict(args: argparse.Namespace) -> int:
    limit = asyncio.Semaphore(AT_ONCE)
    files = sources(args.files)
    read = functools.partial(content, most=MAX_MESSAGE_BYTES, timeout_s=args.timeout)

    async def one(client: Client, file: str) -> Prediction | ClientError | OSError:
        async with limit:
            try:
                image = args.given if file == STDIN else await asyncio.to_thread(read, file)
                return await client.predict(image, top_k=args.top_k, timeout_s=args.timeout)
            except (ClientError, OSError) as error:
                return error

    async with Client(args.address, security=_security(args)) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(client, file)) for file in files]
    results = [(file, task.result()) for file, task in zip(files, tasks, strict=True)]
    errors = [(file, result) for file, result in results if isinstance(result, Exception)]
    if args.json:
        for file, result in results:
            print(json.dumps({"file": file, **_as_json(result)}))
    else:
        rows = [row for file, result in results if isinstance(result, Prediction) for row in _rows(file, result)]
        if rows:
            show(("file", "label", "probability", "source", "latency"), rows)
        said = {str(error): f"{file}: {_reason(error)}" for file, error in reversed(errors)}
        for line in reversed(said.values()):  # the same error of many files once
            _complain(line)
    return 1 if errors else 0


def _reason(error: ClientError | OSError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _as_json(result: Prediction | ClientError | OSError) -> dict[str, Any]:
    if isinstance(result, Prediction):
        return asdict(result)
    code = result.code.name if isinstance(result, ClientError) else "UNREADABLE"
    message = result.message if isinstance(result, ClientError) else _reason(result)
    return {"error": {"code": code, "message": message}}


def _rows(file: str, prediction: Prediction) -> list[Sequence[str]]:
    source = prediction.source
    if prediction.coded_confidence is not None:
        source += f" (confidence {prediction.coded_confidence:.2f})"
    rows: list[Sequence[str]] = []
    for found in prediction.classes:
        rows.append((file, found.label, f"{found.probability:6.1%}", source, f"{1000 * prediction.latency_s:.0f} ms"))
    return rows[:1] + [("", row[1], row[2], "", "") for row in rows[1:]]


def _processes(args: argparse.Namespace) -> list[dict[str, str]]:
    if args.addresses:
        return [{"role": "", "address": address, "metrics": ""} for address in args.addresses]
    listed = _listed() if CLUSTER_FILE.exists() else []
    if listed and args.address in (None, *(process["address"] for process in listed)):
        return listed
    return [{"role": "frontend", "address": args.address or DEFAULT_ADDRESS, "metrics": ""}, *listed]


def _listed() -> list[dict[str, str]]:
    """The processes in the cluster's file; raises OSError or ValueError if they cannot be read."""
    listed = json.loads(CLUSTER_FILE.read_text())
    for process in listed if isinstance(listed, list) else [None]:
        if not isinstance(process, dict) or any(type(process.get(key)) is not str for key in _PROCESS):
            raise ValueError(f"expected a list of processes, each with {', '.join(_PROCESS)}")
    return list(listed)


async def _health(args: argparse.Namespace) -> int:
    try:
        processes = _processes(args)
    except (OSError, ValueError) as error:
        _complain(f"{CLUSTER_FILE} cannot be used: {error}")
        return 2
    security = _security(args)

    async def one(address: str) -> tuple[str, str]:
        try:
            async with Client(address, security=security) as client:
                model = await client.model()
                return await client.health(), f"{model.name} {model.version}" if model else ""
        except ClientError as error:
            return ("UNREACHABLE" if error.code is grpc.StatusCode.UNAVAILABLE else str(error)), ""

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(process["address"])) for process in processes]
    states = [task.result() for task in tasks]
    show(
        ("role", "address", "status", "model", "metrics"),
        [
            (process["role"], process["address"], *state, process["metrics"])
            for process, state in zip(processes, states, strict=True)
        ],
    )
    return 0 if all(status == "SERVING" for status, _ in states) else 1


def _security(args: argparse.Namespace) -> ClientSecurity:
    return ClientSecurity(
        tls=args.tls,
        ca=args.ca,
        cert=args.cert,
        key=args.key,
        token=os.environ.get("COLLAGE_TOKEN", ""),
        token_file=args.token_file,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``collage`` command: 0 if all went well, 1 if something failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="collage", description="Classify images with a collage cluster.")
    secure = argparse.ArgumentParser(add_help=False)
    group = secure.add_argument_group("security")
    group.add_argument("--tls", action="store_true", help="connect by TLS, trusting the system's CAs")
    group.add_argument("--ca", type=Path, metavar="FILE", help="connect by TLS, trusting these CAs (PEM)")
    group.add_argument("--cert", type=Path, metavar="FILE", help="own certificate, for mutual TLS (PEM)")
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="bearer token; else the variable COLLAGE_TOKEN")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="classify images", parents=[secure])
    predict.add_argument(
        "files",
        nargs="+",
        metavar="IMAGE",
        help="a JPEG, PNG, WebP or BMP file, a folder of them, a web address, or - for standard input",
    )
    predict.add_argument("--address", default=DEFAULT_ADDRESS, help="the frontend, host:port (%(default)s)")
    predict.add_argument("--top-k", type=int, default=1, metavar="N", help="classes per image (%(default)s)")
    predict.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds per image (%(default)s)")
    predict.add_argument("--json", action="store_true", help="one JSON object per line and file, errors included")
    predict.set_defaults(run=_predict)
    health = commands.add_parser("health", help="show whether every process serves", parents=[secure])
    health.add_argument("addresses", nargs="*", metavar="ADDRESS", help=f"host:port; else all of {CLUSTER_FILE}")
    health.add_argument("--address", help=f"the frontend, host:port ({DEFAULT_ADDRESS} without such a file)")
    health.set_defaults(run=_health)
    args = parser.parse_args(arguments)
    if args.command == "predict" and not (0 < args.top_k < 2**32 and 0 < args.timeout <= MAX_TIMEOUT_S):
        parser.error(f"--top-k must be a positive number, and --timeout one up to {MAX_TIMEOUT_S:,.0f} seconds")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever letters it can show
    try:
        if STDIN in getattr(args, "files", ()):
            args.given = content(STDIN, MAX_MESSAGE_BYTES, args.timeout)  # here, where Ctrl-C ends it
        run: Coroutine[Any, Any, int] = args.run(args)
        code = asyncio.run(run)
        if sys.stdout is not None:
            sys.stdout.flush()  # now, where a reader that has left is noticed, and not when the interpreter ends
        return code
    except SecurityError as error:
        _complain(str(error))
        return 2
    except ClientError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read our output has left, like head
            _complain(f"standard output cannot be written to: {error.strerror}")
        discard(sys.stdout)
        return 1


if __name__ == "__main__":
    sys.exit(main())
