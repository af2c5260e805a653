"""Wrong versions of the edges: what servers write, what is asked of their other ports, what clients may be given."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "proto/collage/texts.py",
        [
            (
                "control characters are logged as they are",
                "    if text.isprintable():\n        return text\n    return",
                "    return text\n    return",
            ),
        ],
    ),
    (
        "proto/collage/logs.py",
        [
            (
                "a log message may have any length",
                "return cut(record.getMessage().rstrip(), MAX_MESSAGE)",
                "return cut(record.getMessage().rstrip(), 10**9)",
            ),
            (
                "lines of a traceback are not indented",
                '*("  " + printable(each) for each',
                "*(printable(each) for each",
            ),
            (
                "whoever logs waits for the reader",
                "self._waiting.put_nowait(self.format(record))",
                "self._waiting.put(self.format(record))",
            ),
            ("dropped lines are not counted", "            self._refused += 1", "            pass"),
            (
                "lines for a reader who has left are not counted",
                "                self._unread += 1",
                "                pass",
            ),
            (
                "the end does not wait for the last lines",
                "                written.wait(LAST_S)",
                "                pass",
            ),
            ("warnings are no log messages", "    logging.captureWarnings(True)", "    pass"),
            ("dropped lines are told of with every line", "                told = dropped", "                told = 0"),
        ],
    ),
    (
        "proto/collage/metrics_port.py",
        [
            (
                "half a request to the metrics port waits for the rest",
                "async with asyncio.timeout(self._time_s):",
                "async with asyncio.timeout(None):",
            ),
            (
                "any number of connections to the metrics port",
                "if len(self._connections) >= MAX_CONNECTIONS:",
                "if False:",
            ),
            (
                "the newest connection gives way",
                "self._end(next(iter(self._connections)))",
                "self._end(next(reversed(self._connections)))",
            ),
            (
                "an answer that is not read stays with the kernel",
                'writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)',
                "",
            ),
            (
                "the second part of an answer waits for the acknowledgement of the first",
                "each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)",
                "pass",
            ),
            ("metrics of 0.0.0.0 are on IPv4 only", "    if socket.has_dualstack_ipv6():", "    if False:"),
        ],
    ),
    (
        "frontend/__main__.py",
        [
            ("metrics cannot be asked for by name", "CollectorRegistry(auto_describe=True)", "CollectorRegistry()"),
        ],
    ),
    (
        "proto/collage/channels.py",
        [
            ("an IPv6 address has no brackets", 'if ":" in host and not host.startswith("[")', "if False"),
        ],
    ),
    (
        "proto/collage/errors.py",
        [
            (
                "a caller who hangs up is an unexpected error",
                "    return isinstance(error, grpc.aio.InternalError)",
                "    return False",
            ),
            (
                "a failed write hides other errors of its group",
                "return all(map(_hung_up, error.exceptions))",
                "return any(map(_hung_up, error.exceptions))",
            ),
        ],
    ),
    (
        "proto/collage/security.py",
        [
            (
                "files are looked at by their size only",
                "(each.st_mtime_ns, each.st_ctime_ns, each.st_size, each.st_ino) for each",
                "(each.st_size,) for each",
            ),
            ("a file that has just changed is not read again", "if not settled:", "if False:"),
            ("certificates that have not changed are new ones", "return contents != before", "return True"),
            ("tokens that cannot be sent are taken", "return token.isascii() and token.isprintable()", "return True"),
        ],
    ),
    (
        "proto/collage/client.py",
        [
            ("an open client keeps its certificates", "if self._security.stamp() != self._certificates:", "if False:"),
            (
                "calls of before a rotation are cut off",
                "for old in self._channels[2:]:",
                "for old in self._channels[1:]:",
            ),
            (
                "a response that is none hangs a stream",
                "            except ClientError as error:\n                await results.put(error)\n\n        tasks",
                "            except ClientError:\n                pass\n\n        tasks",
            ),
        ],
    ),
    (
        "proto/collage/sync.py",
        [
            (
                "an open synchronous client keeps its certificates",
                "            with self._changing:\n                if self._security.stamp() != self._certificates:",
                "            with self._changing:\n                if False:",
            ),
        ],
    ),
    (
        "proto/collage/answers.py",
        [
            ("a call that the server cancelled is CANCELLED", "if code is grpc.StatusCode.CANCELLED:", "if False:"),
            (
                "sources of newer servers end in a traceback",
                '_SOURCES.get(origin.source, f"UNKNOWN_{origin.source}")',
                "_SOURCES[origin.source]",
            ),
        ],
    ),
    (
        "proto/collage/inputs.py",
        [
            (
                "any time limit is sent",
                "if not isinstance(timeout_s, Real) or not float(timeout_s) <= MAX_TIMEOUT_S:",
                "if not isinstance(timeout_s, Real) or float(timeout_s) > MAX_TIMEOUT_S:",
            ),
            ("no time left is no limit", "    if timeout_s <= 0:", "    if timeout_s < 0:"),
            (
                "floats from 0 to 255 are told to be multiplied",
                "if (image > 1).any() else",
                "if (image > 255).any() else",
            ),
            (
                "a memoryview of pixels is a file",
                "bytes(image) if image.ndim == 1 and image.itemsize == 1 else np.asarray(image)",
                "bytes(image)",
            ),
            (
                "a file without end is read to its end",
                "return opened.read(most + 1 if most >= 0 else -1)",
                "return opened.read(10**10 if most >= 0 else -1)[: 10**9]",
            ),
        ],
    ),
    (
        "proto/collage/cli.py",
        [
            (
                "labels command the terminal",
                "rows = [[printable(text) for text in row] for row in rows]",
                "rows = [[text for text in row] for row in rows]",
            ),
            ("errors without standard error are lines of the table", "if sys.stderr is not None:", "if True:"),
        ],
    ),
    (
        "proto/collage/startup.py",
        [
            (
                "SIGTERM before serving is ignored in a container",
                "signal.signal(number, lambda *_: os._exit(0))",
                "pass",
            ),
            ("gRPC writes into the log", 'os.environ.setdefault("GRPC_VERBOSITY", "NONE")', ""),
        ],
    ),
    (
        "proto/collage/serving.py",
        [
            (
                "a standard output without a reader stops the server",
                "    except OSError as error:  # nobody has to read it",
                "    except ZeroDivisionError as error:",
            ),
        ],
    ),
    (
        "proto/inference/tensors.py",
        [
            (
                "a timeout of the wrong type counts as none",
                'if kind not in ("int64_param", "uint64_param") or (value',
                'if (kind := "int64_param") and (value',
            ),
            (
                "binary_data of the wrong type is false",
                'if parameters["binary_data"].WhichOneof(_CHOICE) != "bool_param":',
                "if False:",
            ),
        ],
    ),
]
MUTANTS = [
    Mutant(f"{'/'.join(file.split('/')[-2:])[:-3]}: {what}", file, *made)
    for file, mutants in _MADE
    for what, *made in mutants
]
