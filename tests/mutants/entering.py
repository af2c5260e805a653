"""Wrong versions of the frontend's doors: to callers, to its workers, to its operator."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "frontend/server.py",
        [
            (
                "the operator's timeout_s ignored",
                "return self._timeout_s if remaining is None else min(self._timeout_s, max(0.0, remaining))",
                "return self._timeout_s if remaining is None else max(0.0, remaining)",
            ),
            (
                "the caller's deadline ignored",
                "return self._timeout_s if remaining is None else min(self._timeout_s, max(0.0, remaining))",
                "return self._timeout_s",
            ),
            (
                "the largest image of the operator ignored",
                "decode(image, size, max_pixels, waiter.gone, AT_ONCE_S)",
                "decode(image, size, given_up=waiter.gone, at_once_s=AT_ONCE_S)",
            ),
            ("ids without bound", "if len(id.encode()) > MAX_ID_BYTES:", "if False:"),
            (
                "the least probable classes",
                'np.argsort(-probabilities, kind="stable")',
                'np.argsort(probabilities, kind="stable")',
            ),
            ("one class whatever is asked for", "request.top_k or 1", "1"),
            (
                "queue and inference time swapped",
                "provenance.queue_s, provenance.inference_s = answered.queue_s, answered.inference_s",
                "provenance.queue_s, provenance.inference_s = answered.inference_s, answered.queue_s",
            ),
            ("degraded answers told as exact", "provenance.degraded = outcome.degraded", "provenance.degraded = False"),
            (
                "a replica told as a first copy",
                "Source.REPLICA: predict_pb2.SOURCE_REPLICA",
                "Source.REPLICA: predict_pb2.SOURCE_S_CNN",
            ),
        ],
    ),
    (
        "frontend/stream.py",
        [
            (
                "an image's own time limit ignored",
                "min(remaining_s, message.timeout_s) if message.timeout_s > 0 else remaining_s",
                "remaining_s",
            ),
            (
                "an image's own time limit beyond the stream's",
                "min(remaining_s, message.timeout_s) if message.timeout_s",
                "message.timeout_s if message.timeout_s",
            ),
            ("a stream without bound of unanswered requests", "await self._slots.acquire()", "pass"),
            (
                "an answered request keeps its slot",
                "del self._running[id]\n            self._slots.release()",
                "del self._running[id]",
            ),
            ("an id of a stream taken twice", "if id in self._running:", "if False:"),
            ("an answered id stays taken", "del self._running[id]", "pass"),
            (
                "new requests of a stream while draining",
                "if self._draining.is_set():\n                raise",
                "if False:\n                raise",
            ),
            ("requests of a stream without an id", "if not id:", "if False:"),
            ("a stream ends as if it were whole", "if unread:", "if False:"),
            ("streams live for ever", "timeout=longest_s, return_when", "timeout=None, return_when"),
            ("refusals of a stream without pushback", "retry_after_s=retry_after_s)", ")"),
            ("answers that nobody reads have no bound", "while len(self._answers) > UNREAD:", "while False:"),
            ("a bad message ends the stream", "except InvalidArgument as error:", "except KeyError as error:"),
            ("an id of any length is repeated", "id = within(id, MAX_ID_BYTES)", "pass"),
        ],
    ),
    (
        "frontend/inference.py",
        [
            (
                "the operator's timeout_s ignored",
                "self._timeout_s if timeout_s is None else min(self._timeout_s, max(0.0, timeout_s))",
                "self._timeout_s if timeout_s is None else max(0.0, timeout_s)",
            ),
            (
                "the caller's time ignored",
                "self._timeout_s if timeout_s is None else min(self._timeout_s, max(0.0, timeout_s))",
                "self._timeout_s",
            ),
            (
                "the largest image of the operator ignored",
                "decode(image, size, self._max_pixels, waiter.gone, AT_ONCE_S)",
                "decode(image, size, given_up=waiter.gone, at_once_s=AT_ONCE_S)",
            ),
            ("which row failed is not told", 'error.args = (f"row {row}: {error}",)', "pass"),
            (
                "queue and inference time swapped",
                "queue_s=answered.queue_s,\n            inference_s=answered.inference_s",
                "queue_s=answered.inference_s,\n            inference_s=answered.queue_s",
            ),
            ("degraded answers told as exact", "degraded=outcome.degraded", "degraded=False"),
        ],
    ),
    (
        "frontend/timers.py",
        [
            (
                "the earliest timer is not the next",
                "if self._next is None or at < self._next_at:",
                "if self._next is None:",
            ),
            ("timers of ended requests are due", "if self._wanted(due):", "if True:"),
            ("entries without bound", "if len(self._heap) > self._most:", "if False:"),
            ("timers outlive their closing", "self._heap.clear()\n", "pass\n"),
            (
                "a loop that is early loses a timer",
                "now = max(self._next_at, asyncio.get_running_loop().time())",
                "now = asyncio.get_running_loop().time() - 1e-3",
            ),
        ],
    ),
    (
        "frontend/metrics.py",
        [
            ("the objective is no bucket edge", "*([slo_s] if slo_s else [])", ""),
            ("two are counted as one", "self._counts[value] += 1", "self._counts[value] = 1"),
        ],
    ),
    (
        "frontend/config.py",
        [
            ("the operator's deadline ignored", "deadline=self.deadline_s,", "deadline=0.25,"),
            ("the operator's budget ignored", "extra_load=self.extra_load,", "extra_load=0.25,"),
            (
                "the operator's threshold ignored",
                '{"accept": self.accept_threshold, "group_wait"',
                '{"accept": None, "group_wait"',
            ),
            ("ejection by every policy", "if not self.rules().eject:", "if False:"),
            ("a certificate without its key", "if bool(self.worker_cert) != bool(self.worker_key):", "if False:"),
            (
                "limits in any order",
                "if tracked and not self.shortest_deadline_s",
                "if False and not self.shortest_deadline_s",
            ),
            ("calls to workers without a token", "token_file=self.worker_token_file", "token_file=None"),
        ],
    ),
    (
        "frontend/__main__.py",
        [
            ("SERVING without workers", "server.set_serving(base.ready > 0)", "server.set_serving(True)"),
            ("connections live for ever", "if not age_s:", "if True:"),
            ("connection age in seconds", "round(1000 * age_s)", "round(age_s)"),
            ("no grace for requests of an old connection", "grace_s = age_s + settings.timeout_s", "grace_s = 0"),
            ("lists of workers are not checked", "check(target)", "pass"),
            (
                "the operator's bound of requests ignored",
                "max_in_flight=settings.max_in_flight,",
                "max_in_flight=1024,",
            ),
            ("the operator's bound of bytes ignored", "max_bytes=settings.max_bytes_in_flight,", "max_bytes=1 << 40,"),
        ],
    ),
    (
        "frontend/workers/pool.py",
        [
            (
                "workers of models not in use get requests",
                "worker.ready = worker in used",
                "worker.ready = worker.serving",
            ),
            ("workers that do not serve get requests", "if worker.serving and worker.info:", "if worker.info:"),
            ("workers off the list stay in use", "self.balancer.remove(worker.address)", "pass"),
            ("refused workers are not counted", "self.refused += len(others)", "pass"),
            ("nobody hears of a review", "for listener in self.listeners:\n            listener()", "pass"),
            ("ejections are not counted", "self._ejected()", "pass"),
        ],
    ),
    (
        "frontend/workers/worker.py",
        [
            (
                "cancelled calls are over at once",
                "self._cancelled += 1",
                "self._balancer.released(self.address); self._cancelled += 1",
            ),
            ("calls are not outstanding", "self._balancer.started(self.address)", "pass"),
            (
                "ended calls stay outstanding",
                "self._balancer.failed(self.address, at)\n        self._balancer.released(self.address)",
                "self._balancer.failed(self.address, at)",
            ),
            (
                "garbage is believed",
                "model and (problem := _problem(outcome, model, elapsed_s)):",
                "(problem := None):",
            ),
            ("a full worker is blamed", 'elif outcome.code != "RESOURCE_EXHAUSTED":', "elif True:"),
            ("a failed worker is not blamed", "self._balancer.failed(self.address, at)", "pass"),
        ],
    ),
    (
        "frontend/workers/streams.py",
        [
            ("calls have no time limit", "if call.expires <= now:", "if False:"),
            (
                "the worker is told no time limit",
                "message.call_id, message.timeout_s = id, timeout_s",
                "message.call_id, message.timeout_s = id, 0",
            ),
            (
                "cancelled calls run on at the worker",
                "self._post(id, model_pb2.RunStreamRequest(call_id=id, cancel=True))",
                "pass",
            ),
            (
                "a cancelled call that waits is sent all the same",
                "if id in self._unanswered and not self._withdraw(id):",
                "if id in self._unanswered:",
            ),
            (
                "calls of a broken stream never end",
                "for call in unanswered.values():\n            call.end(failure)",
                "pass",
            ),
            ("answers with any number of outputs", "if len(response.outputs) > MAX_OUTPUTS:", "if False:"),
            ("settled at once", "while calls & self._unanswered.keys():", "while False:"),
            (
                "queue and inference time swapped",
                "return Reply(outputs, response.queue_s, response.inference_s)",
                "return Reply(outputs, response.inference_s, response.queue_s)",
            ),
            (
                "an empty answer is passed over",
                'call.end(WorkerFailure("GARBAGE", "the worker\'s answer is empty"))',
                "pass",
            ),
            ("errors of a worker are unknown", '_NAMES.get(response.error.code, "UNKNOWN")', '"UNKNOWN"'),
            ("unreachable whatever failed", 'self.unreachable = code == "UNAVAILABLE"', "self.unreachable = True"),
        ],
    ),
    (
        "frontend/workers/transport.py",
        [
            (
                "calls to workers without a token",
                "CallStream(run(metadata=self._security.metadata()))",
                "CallStream(run())",
            ),
            (
                "a broken stream is used again",
                "if self._stream is None or self._stream.ended:",
                "if self._stream is None:",
            ),
            (
                "any attempt is the first",
                "request.request_id, request.attempt = request_id, attempt",
                "request.request_id, request.attempt = request_id, 0",
            ),
        ],
    ),
    (
        "frontend/workers/discovery.py",
        [
            ("comments are addresses", 'line.partition("#")[0] for line', "line for line"),
            ("an empty list lets all workers go", "if not found:", "if False:"),
            (
                "a list that cannot be read ends the search",
                "except (OSError, ValueError) as error:",
                "except KeyError as error:",
            ),
            ("names are looked up once", "        await asyncio.sleep(every_s)", "        return"),
        ],
    ),
]
MUTANTS = [Mutant(f"{file[:-3]}: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
