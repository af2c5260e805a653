"""Wrong versions of what every server shares: health, security, draining, the Open Inference Protocol."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "proto/collage/health.py",
        [
            ("alive only while it serves", "if service == LIVENESS:", "if False:"),
            (
                "unknown services are served",
                "return int(self._status if service in self._services else _UNKNOWN)",
                "return int(self._status)",
            ),
            (
                "a process that drains serves again",
                "if not self._closed:\n            self._status",
                "if True:\n            self._status",
            ),
            (
                "Watch never ends",
                "changed, closed = self._changed, self._closed",
                "changed, closed = self._changed, False",
            ),
            ("Watch tells a status again and again", "if status != sent:", "if True:"),
            ("Watch tells no change", "self._changed.set()\n            self._changed", "self._changed"),
        ],
    ),
    (
        "proto/collage/security.py",
        [
            ("reflection open to all", '_OPEN_TO_ALL = "/grpc.health.v1.Health/"', '_OPEN_TO_ALL = "/grpc."'),
            ("no call needs a token", " or self._valid(handler_call_details):", " or True:"),
            ("health needs a token", "handler_call_details.method.startswith(_OPEN_TO_ALL) or self", "self"),
            (
                "the first token alone",
                "for known in self.current()]",
                "for known in self.current()[:1]]",
            ),
            ("any scheme", 'return scheme.lower() == "bearer" and any(matches)', "return any(matches)"),
            (
                "tokens never renewed",
                "if self._files.changed():\n                self._tokens",
                "if False:\n                self._tokens",
            ),
            ("an empty token file opens all", 'raise SecurityError(f"{self._file} holds no token")', 'return [b""]'),
            (
                "certificates never renewed: a server's",
                "if not self._files.changed():",
                "if True:",
            ),
            (
                "certificates never renewed: a client's",
                "if self._credentials is not None and self._files.changed():",
                "if False:",
            ),
            (
                "clients without a certificate",
                "require_client_authentication=self._client_ca is not None",
                "require_client_authentication=False",
            ),
            (
                "half a rotation ends service",
                'logger.warning("keeping the certificate in use: %s", error)\n            return None',
                "raise",
            ),
            (
                "calls carry no token",
                "return ((HEADER, _SCHEME + self._tokens.current()[0].decode()),) if self._tokens else self._metadata",
                "return self._metadata",
            ),
            (
                "TLS without being asked is plaintext",
                "self.encrypted = tls or ca is not None or cert is not None",
                "self.encrypted = tls",
            ),
        ],
    ),
    (
        "proto/collage/serving.py",
        [
            ("SERVING while draining", "self._health.set(False, closed=True)", "pass"),
            ("new calls refused at once", "await asyncio.sleep(self.settings.drain_delay_s)", "pass"),
            ("streams live through a drain", "self.draining.set()", "pass"),
            (
                "calls in flight are cut off",
                "port.stop(self.settings.drain_s)",
                "port.stop(0)",
            ),
            ("a cancelled stop stops the drain", "await asyncio.shield(self._stopping)", "await self._stopping"),
            ("no tokens asked for", "[TokenCheck(self.tokens)] if self.tokens else []", "[]"),
            (
                "plaintext beside a certificate",
                "if settings.tls_cert and settings.tls_key:\n            self",
                "if False:\n            self",
            ),
            (
                "metrics listen elsewhere",
                "metrics_host = settings.metrics_host or settings.host",
                'metrics_host = settings.metrics_host or "0.0.0.0"',
            ),
            ("a certificate without its key", "if bool(self.tls_cert) != bool(self.tls_key):", "if False:"),
        ],
    ),
    (
        "proto/inference/service.py",
        [
            ("the caller's timeout in milliseconds", "limits.append(timeout / 1e6)", "limits.append(timeout / 1e3)"),
            ("the parameter timeout ignored", "limits.append(timeout / 1e6)", "pass"),
            ("the longest of both time limits", "return min(limits, default=None)", "return max(limits, default=None)"),
            (
                "ready while it drains",
                "ready=self._server.serving)\n\n    @boundary\n    async def ModelReady",
                "ready=True)\n\n    @boundary\n    async def ModelReady",
            ),
            ("any model's name", "if name != model.name:", "if False:"),
            ("any version", 'if version not in ("", version_number(model)):', "if False:"),
            (
                "rows of different models in one answer",
                "if any((answer.model.task, answer.model.labels) != (model.task, model.labels) for answer in answers):",
                "if False:",
            ),
            ("ids without bound", "if len(id.encode()) > MAX_ID_BYTES:", "if False:"),
            ("rows of one id", 'id and f"{id}-{row}"', "id"),
            ("failures count as successes", "counts.inference_stats.fail\n", "counts.inference_stats.success\n"),
            (
                "queue and inference time swapped: in statistics",
                "sum(answer.queue_s for answer in answers)",
                "sum(answer.inference_s for answer in answers)",
            ),
            (
                "degraded only if all rows are",
                "any(answer.degraded for answer in answers)",
                "all(answer.degraded for answer in answers)",
            ),
            ("seconds as nanoseconds", "round(1e9 * sum(answer.inference_s", "round(sum(answer.inference_s"),
        ],
    ),
]
MUTANTS = [
    Mutant(f"{'/'.join(file.split('/')[-2:])[:-3]}: {what}", file, *made)
    for file, mutants in _MADE
    for what, *made in mutants
]
