"""Wrong versions of what holds against damage, attacks and other people's processes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "encoder/files.py",
        [
            ("any number of scans", "if scans > MAX_SCANS:", "if False:"),
            ("a JPEG that was cut is whole", "return end, _PADDING, 1", "return end, _EOI, 1"),
            ("colours of a JPEG may be missing", "if end < 0 or any(missing.values()):", "if end < 0:"),
            (
                "wrong checksums are right",
                'if zlib.crc32(payload, zlib.crc32(name)) != _number(">I", data, end):',
                "if False:",
            ),
            ("an indexed PNG needs no palette", "if colours == _INDEXED and not palette:", "if False:"),
            ("rows may be missing", "return missing <= 0", "return True"),
            ("empty passes have rows", "if columns > 0 and rows > 0:", "if True:"),
            ("any number is an orientation", "return value if count == 1 and 1 <= value <= 8 else 1", "return value"),
            ("deflate blocks of nothing take no time", "+ 100 * max(0, deflated - inflated)", ""),
            ("a WebP's metadata is read", "more = bool(flags & _METADATA)", "more = False"),
            (
                "compressed BMPs of any size",
                "if compressed and max(width * abs(height), len(data) // 2) > MAX_RLE_PIXELS:",
                "if False:",
            ),
            ("XMP tells no orientation", 'xmp = xmp or (payload if payload.startswith(_XMP) else b"")', 'xmp = b""'),
        ],
    ),
    (
        "encoder/image.py",
        [
            (
                "unfinished rows are drawn",
                'return box is None or box[3] < image.height or "interlace" in image.info',
                "return box is None",
            ),
            ("a pixel more than the limit", "if width * height > max_pixels:", "if width * height > max_pixels + 1:"),
            ("decoding cannot be stopped between small blocks", "image.decodermaxblock = _BLOCK_BYTES", "pass"),
            ("decoding goes on without its caller", "if self._given_up():", "if False:"),
            ("large images are not put off", "if file.nanoseconds > 1e9 * at_once_s:", "if False:"),
            ("too little memory is damage", "except (GivenUp, MemoryError):", "except GivenUp:"),
        ],
    ),
    (
        "frontend/jobs.py",
        [
            ("large images teach what images take", "job.slow = True", "pass"),
            ("any number of large images at once", "await self._places.acquire()", "pass"),
            (
                "large images never give their place back",
                "running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._places.release))",
                "pass",
            ),
        ],
    ),
    (
        "frontend/dispatch.py",
        [
            ("admission learns from large images", "if not quick and not job.slow:", "if not quick:"),
            (
                "too little memory is the caller's fault",
                "raise ResourceExhausted(NO_MEMORY, retry_after_s) from None",
                "raise InvalidArgument(NO_MEMORY) from None",
            ),
        ],
    ),
    (
        "worker/inference.py",
        [
            ("decoding goes on without its caller", "caller.gone)", "lambda: False)"),
        ],
    ),
    (
        "proto/collage/intake.py",
        [
            ("calls never end for the count", "self._open -= 1", "pass"),
            ("no bound of open calls", "if self._open > self._most:", "if False:"),
            ("health refused when all is full", "if method.startswith(_EXEMPT):", "if False:"),
            ("calls served while draining", "return not self._draining.is_set()", "return True"),
            (
                "messages of streams have to come soon",
                "elif read.single and read.since <= now - MESSAGE_S:",
                "elif read.since <= now - MESSAGE_S:",
            ),
            ("unfinished messages hold up the end", "if read.single and self._draining.is_set():", "if False:"),
            (
                "unfinished messages may hold everything",
                "if len(left) > _FEW and self._held() > self._limit:",
                "if False:",
            ),
            ("every unfinished message is given up", "if read.context.peer() == worst:", "if True:"),
            ("messages that have only begun are given up", "and read.since <= now - _LINGERS_S]", "]"),
            (
                "a call without a message waits for one",
                'raise InvalidArgument("the call ended without a message: send one")',
                'raw = b""',
            ),
            (
                "messages kept until the answer",
                "del message  # whoever answers lets go of it as soon as possible",
                "pass",
            ),
            ("bytes that are no message are an internal error", "except DecodeError:", "except KeyError:"),
            ("small methods take large messages", "if most is not None and len(raw) > most:", "if False:"),
            ("large messages parsed unseen", "if len(raw) > CHECKED_BYTES:", "if False:"),
            ("several messages of streams in one turn", "if not self._passed:", "if True:"),
        ],
    ),
    (
        "proto/collage/serving.py",
        [
            ("gRPC stops at once", "await self.intake.lull(min(LULL_S, self.settings.drain_s))", "pass"),
        ],
    ),
    (
        "proto/collage/errors.py",
        [
            (
                "requests kept by the boundary",
                "del request  # its image may be large, and the method lets go of it early",
                "pass",
            ),
        ],
    ),
    (
        "proto/collage/wire.py",
        [
            (
                "fields of nested messages do not count",
                "left = _count(raw, at, min(at + size, end), inside, left)",
                "_count(raw, at, min(at + size, end), inside, left)",
            ),
            ("shapes without bound", "elif tag >> 3 == shape and size > MAX_SHAPE_BYTES:", "elif False:"),
            ("numbers without end", "if shift > 63:", "if False:"),
        ],
    ),
    (
        "frontend/policy/shares.py",
        [
            ("a caller's requests have no bound", "if mine.requests + requests > self.most_of_one:", "if False:"),
            (
                "a caller's bytes have no bound",
                "if size and mine.size and mine.size + size > self._bytes_of_one:",
                "if False:",
            ),
            (
                "a share of what nobody can queue",
                "room = min(self.most, QUEUED * workers) if self._share < 1 else self.most",
                "room = self.most",
            ),
        ],
    ),
    (
        "frontend/inference.py",
        [
            ("rows all at once", "max(FEWEST_ROWS, 2 * self._dispatcher.base.ready)", "images.count"),
            (
                "a row without room fails the batch",
                "if row == 0:  # none is under way: the caller had better try another frontend",
                "if True:",
            ),
            ("a batch waits beyond its time", "if _now() + pause_s >= expires:", "if False:"),
        ],
    ),
    (
        "proto/collage/channels.py",
        [
            ("a proxy for the web is used", 'int(bool(os.environ.get("grpc_proxy")))', "1"),
            ("no proxy is ever used", 'int(bool(os.environ.get("grpc_proxy")))', "0"),
        ],
    ),
    (
        "frontend/workers/pool.py",
        [
            (
                "workers that left are let go before others are ready",
                "            used = used or self._choose(known)\n",
                "            pass\n",
            ),
            ("workers that left vote for the model", "used = self._choose(listed)", "used = self._choose(known)"),
            (
                "workers that left stay when others are ready",
                "                self._let_go(worker)\n",
                "                pass\n",
            ),
            ("every worker keeps a description of its own", "worker.info = same[0]", "pass"),
            ("a worker closed while it has calls", "            await worker.finish()\n", ""),
        ],
    ),
    (
        "frontend/workers/streams.py",
        [
            ("a call keeps what waits for it", "ended, self._ended = self._ended, _nobody", "ended = self._ended"),
            ("a closed stream keeps its call", "self._rpc = None", "pass"),
            (
                "an error keeps the stream that raised it",
                "raise WorkerFailure(self.ended.code, str(self.ended))",
                "raise self.ended",
            ),
            ("a worker's text of any length", "super().__init__(message[:MAX_TEXT])", "super().__init__(message)"),
            (
                "a call out of time is never forgotten",
                "self._forget(id)  # the worker was told the time: its answer comes late, or never",
                "pass",
            ),
        ],
    ),
    (
        "frontend/workers/transport.py",
        [
            ("cancelled calls are never settled", "stream.forget(calls)", "pass"),
            (
                "a frozen worker's calls are settled",
                "                continue  # frozen, or gone: then the stream ends",
                "                pass",
            ),
            ("answers of any size are parsed", "if len(data) > limit():", "if False:"),
            (
                "answers are bounded by the message limit alone",
                "self._max_answer_bytes = min(self._max_message_bytes, info.answer_bytes)",
                "pass",
            ),
            ("names are resolved every 30 seconds", "round(1000 * resolve_every_s)", "30_000"),
        ],
    ),
    (
        "frontend/workers/worker.py",
        [
            ("times may be longer than the call", "CLOCKS * elapsed_s + CLOCKS_S", "3600"),
            ("only the longer time counts", "queue_s + inference_s <=", "max(queue_s, inference_s) <="),
        ],
    ),
    (
        "frontend/workers/discovery.py",
        [
            (
                "both addresses of a dual-stack name",
                "if entry[0] == socket.AF_INET or socket.AF_INET not in families",
                "if True",
            ),
            ("a byte order mark is part of an address", '"utf-8-sig"', '"utf-8"'),
        ],
    ),
    (
        "proto/collage/model_info.py",
        [
            (
                "detections that overlap without bound",
                "min(MAX_DETECTIONS, MAX_OVERLAPS // self.k**2)",
                "MAX_DETECTIONS",
            ),
            ("more detections than make sense", "if len(outputs[0]) > self.most_detections:", "if False:"),
        ],
    ),
    (
        "proto/collage/model_files.py",
        [
            ("external data is no part of the version", "others = [*sorted(data_files(path)), *(", "others = [*("),
            ("the sidecar is no part of the version", "*([sidecar(path)] if sidecar(path).exists() else [])", ""),
            ("names of 128 letters and more are not found", "if length > 127:", "if False:"),
            (
                "a sidecar takes the place of all metadata",
                "return {**content, **others, **both}",
                "return {**content, **others}",
            ),
        ],
    ),
    (
        "proto/collage/specs.py",
        [
            ("labels of any length", "len(label) <= MAX_LABEL", "True"),
            ("nesting without end is an internal error", "except RecursionError:", "except KeyError:"),
        ],
    ),
    (
        "worker/engine.py",
        [
            ("garbage is answered", "if problem := self.model.info.problem(outputs):", "if problem := None:"),
        ],
    ),
    (
        "encoder/collage.py",
        [
            (
                "class probabilities beyond 0 and 1",
                "found.class_probabilities[row].clip(0, 1)",
                "found.class_probabilities[row]",
            ),
        ],
    ),
    (
        "encoder/linear.py",
        [
            ("outputs that are no numbers are decoded", " and np.isfinite(outputs[n]).all()", ""),
        ],
    ),
    (
        "models/checkpoint.py",
        [
            ("labels of folders are exported", 'object.__setattr__(self, "labels", in_words(self.labels))', "pass"),
        ],
    ),
]
MUTANTS = [
    Mutant(f"{file.removeprefix('proto/').removesuffix('.py')}: {what}", file, *made)
    for file, mutants in _MADE
    for what, *made in mutants
]
