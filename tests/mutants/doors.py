"""Wrong versions of HTTP, the page of ``make up``, and traces."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "frontend/http/call.py",
        [
            (
                "HTTP: no request needs a token",
                "if tokens is not None and not tokens.accept",
                "if False and not tokens.accept",
            ),
            ("HTTP: bodies of unknown length are not bounded", "if size > self._most:", "if False:"),
            (
                "HTTP: a compressed body is decoded as an image",
                'headers.get("content-encoding", "identity") != "identity"',
                "False",
            ),
            ("HTTP: a caller that hangs up is waited for", "            task.cancel()", "            pass"),
            ("HTTP: requests are open for ever", "            callback(self)", "            pass"),
            ("HTTP: new requests are served while draining", "await intake.turn_away()", "pass"),
            ("HTTP: the caller's time is not told", "max(0.0, self._expires - self._loop.time())", "60.0"),
            ("HTTP: callers do not know when to come again", "int(milliseconds) / 1000", "None"),
            ("HTTP: malformed bodies are not counted", "if refusal.malformed:", "if False:"),
            ("HTTP: a late body is a late answer", "raise Refusal(408,", "raise Refusal(504,"),
        ],
    ),
    (
        "frontend/http/port.py",
        [
            (
                "HTTP: a head may take any time",
                "        self._head, self._in_message = 0, True\n        self._limit(HEAD_S, self._late)",
                "        self._head, self._in_message = 0, True",
            ),
            ("HTTP: an idle connection stays", "self._limit(IDLE_S, transport.close)", "pass"),
            (
                "HTTP: a head that is not complete may be of any length",
                "if self._head is not None and self._head > MAX_HEAD_BYTES:",
                "if False:",
            ),
            ("HTTP: connections are not bounded", "full = len(self.connections) >= self._most", "full = False"),
            (
                "HTTP: any number of requests may wait in a connection",
                "if len(self.pipeline) >= _PIPELINED:",
                "if False:",
            ),
            ("HTTP: the rest of a refused body may take any time", "self._limit(REST_S, self.transport.abort)", "pass"),
            ("HTTP: idle connections outlive a shutdown", "            connection.shutdown()", "            pass"),
            (
                "HTTP: requests outlive the grace",
                "                connection.transport.abort()",
                "                pass",
            ),
        ],
    ),
    (
        "frontend/http/open_inference.py",
        [
            ("HTTP: JSON of any length", "if length > MAX_JSON_BYTES:", "if False:"),
            ("HTTP: pixels beyond a byte wrap around", "not 0 <= numbers.min() <= numbers.max() <= 255", "False"),
            ("HTTP: bytes after the last tensor are ignored", "        if len(rest):", "        if False:"),
            (
                "HTTP: big numbers as texts",
                "found[field.name] = _plain(field, value)",
                "found[field.name] = str(value)",
            ),
        ],
    ),
    (
        "frontend/http/statuses.py",
        [
            ("HTTP: refusals say 500", "StatusCode.RESOURCE_EXHAUSTED: 429", "StatusCode.RESOURCE_EXHAUSTED: 500"),
            (
                "HTTP: half a second is no time to come again",
                "max(1, math.ceil(self.retry_after_s))",
                "int(self.retry_after_s)",
            ),
        ],
    ),
    (
        "frontend/http/playground.py",
        [
            ("the page: led to by any name", '    if host == "localhost":', "    if True:"),
            (
                "the page: other sites' forms press switches",
                'request.headers.get("content-type") != "application/json"',
                "False",
            ),
            (
                "the page: a switch that is off stays on",
                "STRAGGLING if wanted.straggles else self._told.usual",
                "STRAGGLING",
            ),
            ("the page: answers are told again and again", "if number > first", "if number > 0"),
        ],
    ),
    (
        "frontend/config.py",
        [("the page: beside tokens", "self.http_port is None or self.token_file", "self.http_port is None")],
    ),
    (
        "frontend/tracing.py",
        [
            (
                "traces: workers are told nothing",
                'token = outgoing.set(span.context if span else "")',
                'token = outgoing.set("")',
            ),
            ("traces: collages belong to nobody", 'self._spans[first].context if traced else ""', '""'),
            ("traces: the caller's context is ignored", "self._loop.time(), incoming.get())", "self._loop.time())"),
        ],
    ),
    (
        "proto/collage/traces.py",
        [
            ("traces: spans never end", "self._span.end()", "pass"),
            ("traces: the last spans are lost", "self._provider.shutdown()", "pass"),
        ],
    ),
    (
        "worker/slowdown.py",
        [("a switch is read once", "if stamp != self._stamp else None", "if self._stamp is None else None")],
    ),
    (
        "proto/collage/security.py",
        [("HTTP: certificates are never read again", "            if self._changed():\n", "            if False:\n")],
    ),
]
MUTANTS: tuple[Mutant, ...] = tuple(Mutant(made[0], file, *made[1:]) for file, mutants in _MADE for made in mutants)
