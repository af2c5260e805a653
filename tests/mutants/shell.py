"""Wrong versions of the shell around the policy: admission, calls, answers, metrics, the ring of events."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "frontend/jobs.py",
        [
            (
                "images being prepared are never fewer",
                "finally:\n            self.waiting -= 1",
                "finally:\n            pass",
            )
        ],
    ),
    (
        "frontend/dispatch.py",
        [
            ("own answers not told to the group", "if job.group:\n                self._coding.answered(job, own)", ""),
            ("members that ended not told to the group", "if job.group:\n                self._coding.left(job)", ""),
            ("a hang-up not told to the policy", "self._feed(e.Gone(self._loop.time(), id))", ""),
            (
                "nobody is refused whose time is too short",
                "time_to_answer(timeout_s))) > 0:",
                "time_to_answer(timeout_s))) > 1e9:",
            ),
            (
                "refusals name no time to come again",
                "max(retry_after_s, self._admission.service, SHORTEST_RETRY_S)",
                "0.0",
            ),
            ("refusals not counted", "self.metrics.refused.labels(reason).inc()", ""),
            ("requests that fail count as answered", "code = error.code.name", 'code = "OK"'),
            ("hang-ups count as internal errors", 'code = "CANCELLED"', ""),
            ("answers not counted", "self.metrics.answered(outcome.answered.source, outcome.total_s)", "pass"),
            (
                "latency in milliseconds",
                "answered.source, outcome.total_s)",
                "answered.source, 1000 * outcome.total_s)",
            ),
            (
                "an input of the wrong size is sent: the model changed while it was made",
                "if model is None or model.size == job.model.size:",
                "if True:",
            ),
            ("a bad image is an internal error", "raise InvalidArgument(str(error)) from None", "raise"),
            (
                "the caller is told that there is time for no margin",
                "latest = admitted_at + self.policy.rules.time_to_answer(expires - admitted_at)",
                "latest = expires",
            ),
            (
                "a request too late to send is sent",
                "if at >= latest and not job.future.done():",
                "if False:",
            ),
            (
                "events of one turn come one by one",
                "if not self._events:\n            self._loop.call_soon(self._drain)\n"
                "        self._events.append(event)",
                "self._handle([event])",
            ),
            (
                "arrivals overtake what is waiting to be told",
                "if self._events and isinstance(event, e.Arrived):",
                "if False:",
            ),
            ("events not recorded", "if self._record:\n            self._record(events)", ""),
            ("audits not carried out", "job.audited = True", ""),
            ("stragglers not counted", "self.metrics.stragglers.inc()", ""),
            ("losers run on", "if call := self._calls.get((request, attempt)):\n                    call.cancel()", ""),
            ("groups run on that nobody needs", "self._coding.cancel(group)", ""),
            (
                "default label given to requests whose copies failed",
                "if expired and job.model.task",
                "if job.model.task",
            ),
            (
                "default label is another class",
                "output[labels.index(self._settings.default_label)] = 0",
                "output[0] = 0",
            ),
            ("out of time told as unavailable", "if expired else job.error", "if False else job.error"),
            (
                "why a worker failed is forgotten",
                "else job.error or Unavailable(NONE_READY)",
                "else Unavailable(NONE_READY)",
            ),
            ("group fill in members", "observe(len(members) / shape.members)", "observe(len(members))"),
            (
                "places shifted by one",
                'job.group, job.group_id, job.place = group, f"{self._prefix}-{group}", place',
                'job.group, job.group_id, job.place = group, f"{self._prefix}-{group}", (place + 1) % shape.members',
            ),
            (
                "a replica goes to the straggler itself",
                "self.base.pick(job.tried.values()) or",
                "self.base.pick() or",
            ),
            (
                "a replica finds no worker where all were tried",
                "self.base.pick(job.tried.values()) or self.base.pick(",
                "self.base.pick(job.tried.values()) or None and self.base.pick(",
            ),
            ("a replica joins a copy that still runs", " if (request, number) in self._calls]", " if False]"),
            (
                "an input of the wrong shape is sent: another model is in use",
                " or worker.info.input.shape != job.model.input.shape:",
                ":",
            ),
            (
                "a copy that was not sent costs a token",
                "self._feed(e.Failed(at, request, attempt, sent=False))",
                "self._feed(e.Failed(at, request, attempt))",
            ),
            (
                "sources swapped: replica and first copy",
                "Source.S_CNN if attempt == e.PRIMARY else Source.REPLICA",
                "Source.REPLICA if attempt == e.PRIMARY else Source.S_CNN",
            ),
            (
                "replicas counted as first copies",
                'self.metrics.sent.inc("s_cnn" if attempt == e.PRIMARY else "replica")',
                'self.metrics.sent.inc("s_cnn")',
            ),
            (
                "queue and inference time swapped",
                "source, outcome.queue_s, outcome.inference_s)",
                "source, outcome.inference_s, outcome.queue_s)",
            ),
            ("service time not learnt", "self._admission.served(outcome.inference_s)", ""),
            ("audits always agree", '"agree" if agree else "differ"', '"agree"'),
            ("audits of requests that were not audited", "if job.audited and job.coded:", "if job.coded:"),
            (
                "failures not counted",
                'self.metrics.failures.labels("s_cnn" if attempt == e.PRIMARY else "replica", failure.code).inc()',
                "",
            ),
            (
                "a failure of a worker is a reason to send again at once",
                "self._feed(e.Failed(self._loop.time(), job.id, attempt, failure.unreachable))",
                "self._feed(e.Failed(self._loop.time(), job.id, attempt))",
            ),
            ("a full worker told as unavailable", 'full = failure.code == "RESOURCE_EXHAUSTED"', "full = False"),
            (
                "preparation time not learnt",
                "self._admission.prepared(self._loop.time() - admitted_at, before)",
                "pass",
            ),
            ("preparation outlives the caller", "asyncio.timeout_at(latest)", "asyncio.timeout_at(None)"),
            ("calls outlive their request", "max(0.0, job.expires - at), ended)", "60.0, ended)"),
            (
                "calls run on after closing",
                "for call in list(self._calls.values()):\n            call.cancel()\n        await",
                "await",
            ),
        ],
    ),
    (
        "frontend/policy/shares.py",
        [
            ("requests in flight are never fewer", "held.requests -= requests", "pass"),
            ("bytes in flight are never fewer", "held.size -= size", "pass"),
            ("bytes of a request count as 0", "held.size += size", "pass"),
            ("no bound of requests in flight", "if held.requests + requests > self.most:", "if False:"),
            (
                "bound of requests in flight off by one",
                "held.requests + requests > self.most:",
                "held.requests + requests > self.most + 1:",
            ),
            (
                "no bound of bytes in flight",
                "if size and held.size and held.size + size > self.most_bytes:",
                "if False:",
            ),
            ("a single large request is refused", "if size and held.size and held", "if size and held"),
        ],
    ),
    (
        "frontend/jobs.py",
        [
            ("tasks: a box answered as if it were scores", "TASKS[self.task].answer", 'TASKS["classification"].answer'),
            (
                "degraded: a replica's answer is called an approximation",
                "not in (Source.S_CNN, Source.REPLICA)",
                "is not Source.S_CNN",
            ),
            ("total time from the start of the clock", "at - self.admitted_at)", "at)"),
            (
                "labels of the model that the input was made for",
                "self.model.task, answered.model.labels",
                "self.model.task, self.model.labels",
            ),
        ],
    ),
    (
        "frontend/recorder.py",
        [
            ("recorder: the newest events let go", "self._batches.popleft()", "self._batches.pop()"),
            ("recorder: more is kept than the limit", "while self._count > self._kept:", "while False:"),
            ("recorder: the limit counts batches", "self._count += len(events)", "self._count += 1"),
            ("recorder: batches run into each other", "self._number += 1", ""),
            (
                "recorder: an older file is read through whatever its format",
                'if header["format"] != FORMAT:',
                "if False:",
            ),
            (
                "recorder: a half written file takes the place of a whole one",
                'partial = path.with_name(path.name + ".partial")',
                "partial = path",
            ),
            ("recorder: confidences by text", "{int(place): value for place", "{place: value for place"),
            ("recorder: timers by text", 'content["timer"] = e.Timer(content["timer"])', ""),
            (
                "recorder: infinity is written as no JSON has it",
                "not math.isfinite(value) else value",
                "False else value",
            ),
        ],
    ),
]
MUTANTS = [Mutant(what, file, *made) for file, mutants in _MADE for what, *made in mutants]
