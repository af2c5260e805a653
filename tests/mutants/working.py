"""Wrong versions of a worker: its engine, its streams, its model and the slowness that is injected."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "worker/engine.py",
        [
            (
                "queue and inference time swapped",
                "queue_s=started - arrived, inference_s=finished - started",
                "queue_s=finished - started, inference_s=started - arrived",
            ),
            (
                "expired work is run",
                "if time_remaining is not None and started >= arrived + time_remaining:",
                "if False:",
            ),
            ("a queue without bound", "if self._admitted > self.queue_size:", "if False:"),
            ("a queue one too short", "if self._admitted > self.queue_size:", "if self._admitted >= self.queue_size:"),
            (
                "calls that wait in vain are taken",
                "elif self._admitted and time_remaining is not None and wait + self._busy_s > time_remaining:",
                "elif False:",
            ),
            ("an idle worker refuses", "elif self._admitted and time_remaining", "elif time_remaining"),
            ("calls are never fewer", "self._admitted -= 1", "pass"),
            (
                "slowness on top of the inference",
                "await asyncio.sleep(started + draw - _now())",
                "await asyncio.sleep(draw)",
            ),
            ("no slowness", "await asyncio.sleep(started + draw - _now())", "pass"),
            (
                "two inferences at once",
                "await self._slot.acquire()",
                "self._slot = asyncio.Lock(); await self._slot.acquire()",
            ),
            ("outcomes told as dropped", 'outcome = "ok"', "pass"),
            (
                "inference time in milliseconds",
                "self._metrics.inference.observe(finished - started)",
                "self._metrics.inference.observe(1000 * (finished - started))",
            ),
            ("busy time not counted", "self._metrics.busy.inc(busy)", "pass"),
            ("refusals not counted", 'self._metrics.requests.labels("rejected").inc()', "pass"),
            ("a refusal that names no time", 'try again later", self._busy_s)', 'try again later")'),
        ],
    ),
    (
        "worker/streams.py",
        [
            ("a stream without backpressure", "while len(self._answers) > UNREAD:", "while False:"),
            ("answers that may be unread", "UNREAD = 1024", "UNREAD = 1_000_000"),
            ("cancelled calls run on", "if call := self._calls.get(id):\n                call.cancel()", "pass"),
            (
                "a cancelled call is never acknowledged",
                "self._tell(model_pb2.RunStreamResponse(call_id=id, error=_CANCELLED))",
                "pass",
            ),
            (
                "calls of a stream have no time limit",
                "async with asyncio.timeout(timeout_s):\n                return",
                "async with asyncio.timeout(None):\n                return",
            ),
            ("an id taken twice", "elif id in self._calls:", "elif False:"),
            ("new calls while draining", "elif self._draining.is_set():", "elif False:"),
            (
                "a stream ends with calls unanswered",
                "while not (self._closing and not self._calls):",
                "while not self._closing:",
            ),
            (
                "calls outlive their stream",
                "tasks = [reader, writer, drained, *self._calls.values()]",
                "tasks = [reader, writer, drained]",
            ),
            (
                "a stream that is not open before its first call",
                "await context.send_initial_metadata(())  # else the caller's gRPC keeps a task until the first answer",
                "pass",
            ),
            ("times that are no numbers", "elif math.isnan(message.timeout_s):", "elif False:"),
            (
                "answers to another call",
                "self._tell(model_pb2.RunStreamResponse(call_id=id, response=call.result()))",
                "self._tell(model_pb2.RunStreamResponse(call_id=id + 1, response=call.result()))",
            ),
        ],
    ),
    (
        "worker/slowdown.py",
        [
            ("draws by attempt alone", '{attempt}\\n{request_id}".encode()', '{attempt}\\n".encode()'),
            ("draws of all attempts the same", 'f"{seed}\\n{attempt}\\n', 'f"{seed}\\n'),
            ("draws of all seeds the same", 'f"{seed}\\n{attempt}', 'f"{attempt}'),
            ("a scale that scales nothing", "return self._scale * quantiles(", "return quantiles("),
            ("collage workers not faster", "COLLAGE_FACTOR = 0.9", "COLLAGE_FACTOR = 1.0"),
            ("the slowness stays with one worker", "- many * int(at / MOVES_EVERY_S))", ")"),
            (
                "slow draws and fast ones swapped",
                "return _interpolation(shares, [0.9 * fast, 1.1 * fast, 0.9 * slow, 1.1 * slow])",
                "return _interpolation(shares, [0.9 * slow, 1.1 * slow, 0.9 * fast, 1.1 * fast])",
            ),
            (
                "a tail that is not heavy",
                "power = -1 / shape if shape else -math.inf",
                "power = -0.1 / shape if shape else -math.inf",
            ),
            (
                "all workers play the slow machine",
                "return machines[index * len(machines) // count]",
                "return machines[0]",
            ),
            (
                "half a table interpolated",
                "return seconds[left] + part * (seconds[right] - seconds[left])",
                "return seconds[left]",
            ),
            ("tables that do not rise", "and (np.diff(shares) > 0).all() and (np.diff(seconds) >= 0).all()):", "):"),
            ("slices of any length", "if not 0 <= int(start) < int(end) <= len(trace):", "if False:"),
        ],
    ),
    (
        "proto/collage/plain.py",
        [
            ("a plain model without its mean", "values -= self._shift", "pass"),
            ("a plain model without its scale", "values *= self._scale", "pass"),
            (
                "a plain model sees columns as rows",
                "pixels = np.moveaxis(pixels, -1, -3)",
                "pixels = np.swapaxes(pixels, -1, -3)",
            ),
            ("colours are never swapped", 'told.colours == "BGR"', "False"),
            ("any standard deviation", '("std", _LEAST_STD)', '("std", -1.0)'),
            ("a mean without its deviation", "if (self.mean is None) != (self.std is None):", "if False:"),
            ("any layout", "if told.layout and told.layout not in layouts:", "if False:"),
            ("an open layout is the wrong one", "layouts[0 if whole else -1]", "layouts[0]"),
            (
                "an open layout is assumed in silence",
                "if not whole and len(layouts) > 1 and not told.layout:",
                "if False:",
            ),
            ("no mean is assumed in silence", "if not whole and not told.mean:", "if False:"),
            ("whole pixels with a mean", "if whole and told.mean:", "if False:"),
            ("every input is a float of 32 bits", "values.astype(self._dtype, copy=False)", "values"),
        ],
    ),
    (
        "worker/model.py",
        [
            ("a session runs on when its caller is gone", "options.terminate = True", "pass"),
            ("probabilities as scores", "tuple(map(logarithm, floats)) if self._takes_log else floats", "floats"),
            ("scores that are no probabilities", "if self._takes_log and not alike:", "if False:"),
            ("probabilities are taken for logits in silence", "if alike and self.info", "if False and self.info"),
            ("weights apart are passed over in silence", "*self._feed.assumed, *_apart(path)", "*self._feed.assumed"),
            (
                "a mean in extra is passed over",
                'if feed.assumed and {"mean", "std"} & self.info.extra.keys():',
                "if False:",
            ),
            (
                "outputs that are not as described are served",
                "if problem := self.info.problem(outputs):",
                "if problem := None:",
            ),
            (
                "more threads than asked for",
                "options.intra_op_num_threads = threads",
                "options.intra_op_num_threads = 8",
            ),
            (
                "outputs in the order of the graph",
                "return tuple(self._spec(found[spec.name], spec) for spec in usual)",
                "return tuple(self._spec(have, spec) for have, spec in zip(found.values(), usual, strict=False))",
            ),
        ],
    ),
    (
        "worker/server.py",
        [
            (
                "ready before the warm-up",
                "await self.engine.warm_up()",
                "self.server.set_serving(True)\n        await self.engine.warm_up()",
            ),
            (
                "calls have no time limit",
                "return await self._run(request, context.time_remaining())",
                "return await self._run(request, None)",
            ),
            (
                "injected slowness by another attempt",
                "request.request_id, request.attempt, time_remaining)",
                "request.request_id, 0, time_remaining)",
            ),
            (
                "collage-cnns by the Open Inference Protocol",
                "alone = model.info.kind is ModelKind.S_CNN",
                "alone = True",
            ),
            (
                "streams live through a drain",
                "CallServer(self._run, self._draining)",
                "CallServer(self._run, asyncio.Event())",
            ),
        ],
    ),
    (
        "worker/inference.py",
        [
            (
                "the caller's time ignored",
                "async with asyncio.timeout_at(expires):",
                "async with asyncio.timeout_at(None):",
            ),
            ("requests without bound", "if self._running > self._engine.queue_size:", "if False:"),
            ("requests are never fewer", "self._running -= 1", "pass"),
            (
                "the operator's largest image ignored",
                "decode(image, images.size, self._max_pixels, caller.gone)",
                "decode(image, images.size, 10**9, caller.gone)",
            ),
            ("which row failed is not told", 'f"row {row}: {error}" if images.count > 1 else str(error)', "str(error)"),
        ],
    ),
]
MUTANTS = [Mutant(f"{file[:-3]}: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
