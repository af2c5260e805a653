"""Wrong versions of what speaks to fleets of other makes, and of execution providers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "frontend/workers/fleet.py",
        [
            (
                "the version with the greatest first digit",
                "key=lambda told: (len(told), told)",
                "key=lambda told: told",
            ),
            ("the batch dimension is always sent", "[1] * (len(image.shape) - 3)", "[1]"),
            ("outputs in the server's order", "else [spec.name for spec in wanted]", "else [*found]"),
            ("probabilities are scores", "logarithm(floats) if self.info.gives_probabilities else floats", "floats"),
            ("raw contents without a partner", "if raw and len(raw) != len(response.outputs):", "if False:"),
            (
                "outputs of any shape are described",
                "if tensor.datatype not in _OUTPUT_TYPES or not fits:",
                "if tensor.datatype not in _OUTPUT_TYPES:",
            ),
            ("metadata without inputs", "if len(metadata.inputs) != 1:", "if len(metadata.inputs) > 1:"),
            ("a batch of any size is one row", "and shape[0] == 1:", "and shape[0] >= 1:"),
        ],
    ),
    (
        "frontend/workers/open_inference.py",
        [
            ("cancelled calls go on", "        self._rpc.cancel()\n", ""),
            ("calls wait for their connection", "            self.running.cancel()", "            pass"),
            ("calls without end", "loop.call_later(timeout_s, self._expire)", "loop.call_later(3600, self._expire)"),
            ("answered calls are cancelled", "(status := await self._rpc.code())", "(status := grpc.StatusCode.OK)"),
            ("servers that are not ready", "if not server.ready:", "if False:"),
            (
                "any version is ready",
                "oip.ModelReadyRequest(name=info.name, version=info.version)",
                "oip.ModelReadyRequest(name=info.name)",
            ),
            ("calls without a token", "LATER_S, metadata=self._security.metadata())", "LATER_S)"),
            (
                "answers of any size",
                "self._max_answer_bytes = min(self._max_message_bytes, form.answer_bytes)",
                "pass",
            ),
            ("what was assumed is told again", "self._told.update(form.assumed)", "pass"),
            ("calls outlive their connection", "call.stop(WorkerFailure(", "str(WorkerFailure("),
        ],
    ),
    (
        "worker/providers.py",
        [
            ("nothing runs what a provider lacks", '[*chosen, "CPU"]', "chosen"),
            ("names in one case only", "known.get(short(part).lower())", "known.get(short(part))"),
            ("OpenVINO takes all cores", "if name in _THREADS else {}", "if False else {}"),
        ],
    ),
]
MUTANTS = [
    Mutant(f"{file.removesuffix('.py')}: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants
]
