"""Wrong versions of what goes over the wire: tensors, descriptions, errors; and of the clients."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "encoder/grid.py",
        [
            (
                "cells numbered column by column",
                "for top, bottom in spans for left, right in spans",
                "for left, right in spans for top, bottom in spans",
            ),
            ("cell edges rounded down", "(2 * i * self.size + self.k) // (2 * self.k)", "i * self.size // self.k"),
            ("boxes in pixels", " / np.float32(self.size)", ""),
            ("grids with more cells than pixels", "if self.k < 1 or self.size < self.k:", "if self.k < 1:"),
        ],
    ),
    (
        "encoder/codes.py",
        [
            (
                "a collage without its threshold",
                "CollageCode(Grid(its.k, its.size), its.detection_threshold, its.base)",
                "CollageCode(Grid(its.k, its.size), base=its.base)",
            ),
            (
                "a linear code for any base",
                "weights or mean_weights(its.members, its.inputs), its.base, its.keys",
                'weights or mean_weights(its.members, its.inputs), "", its.keys',
            ),
            (
                "any code is a collage",
                "make = CODES.get(parameters.name)",
                'make = CODES.get(parameters.name, CODES["collage"])',
            ),
        ],
    ),
    (
        "proto/collage/tensors.py",
        [
            ("big-endian floats", 'dtype.newbyteorder("<")', 'dtype.newbyteorder(">")'),
            ("tensors of any length", "if len(data) != expected:", "if len(data) < expected:"),
            ("tensors of any type", "tensor.data_type != _TO_WIRE[dtype] or ", ""),
            (
                "tensors of any shape",
                "len(actual) == len(shape) and all(want in (-1, have) for",
                "len(actual) == len(shape) or all(want in (-1, have) for",
            ),
            (
                "tensors of any number of dimensions",
                "if dtype is None or len(shape) > MAX_DIMENSIONS:",
                "if dtype is None:",
            ),
        ],
    ),
    (
        "proto/collage/specs.py",
        [
            ("weights that are no numbers", 'check_number("a weight of the code", weight, -1e6, 1e6)', "pass"),
            ("a code with fewer weights than members", "if len(self.weights) not in (0, self.members):", "if False:"),
            (
                "a row beyond the inputs",
                'check_whole("the code\'s row", self.row, 0, self.inputs - 1)',
                'check_whole("the code\'s row", self.row, 0, 64)',
            ),
            (
                "a collage of any number of members",
                "if self.k and (self.members, self.inputs) != (self.k**2, 1):",
                "if False:",
            ),
            (
                "true is a whole number",
                "if not isinstance(value, int) or isinstance(value, bool) or not",
                "if not isinstance(value, int) or not",
            ),
            ("names of several lines", " or not value.isprintable()", ""),
            ("messages repeat any value whole", "text if len(text) <= 80 else", "text if True else"),
        ],
    ),
    (
        "proto/collage/model_info.py",
        [
            (
                "a size beyond all bounds",
                '        check_whole("size", size, 1, MAX_SIZE)\n        usual',
                "        usual",
            ),
            ("labels without bound", "not 1 <= labels <= MAX_LABELS", "not 1 <= labels"),
            (
                "scores that are no numbers",
                "return None if known else",
                "return None if True else",
            ),
            ("one head's scores that are no numbers", "np.isfinite(scores.max(-1)).all()", "True"),
            ("confidences above 1", "confidences.max() <= 1 + _TOLERANCE:  # also catches NaN", "confidences.max():"),
            (
                "negative class probabilities",
                "if not -_TOLERANCE <= probabilities.min() <= probabilities.max()",
                "if not probabilities.min() <= probabilities.max()",
            ),
            ("class probabilities of any sum", "if np.abs(probabilities.sum(-1) - 1).max() > _TOLERANCE:", "if False:"),
            ("boxes that are no numbers", "if not np.isfinite(boxes).all():", "if False:"),
            (
                "detections in unequal numbers",
                "if not len(boxes) == len(confidences) == len(probabilities):",
                "if False:",
            ),
            ("outputs of any type", "if output.dtype != DTYPES[spec.dtype] or not", "if not"),
            ("fewer outputs than described", "if len(outputs) != len(self.outputs):", "if False:"),
            (
                "a redundant model without a code",
                "if self.kind is not ModelKind.S_CNN and self.code is None:",
                "if False:",
            ),
            (
                "unknown keys of a description",
                "not _REQUIRED <= content.keys() <= _KNOWN:",
                "not _REQUIRED <= content.keys():",
            ),
            (
                "the accept threshold stays off the wire",
                "            accept_threshold=self.accept_threshold,\n            errors=",
                "            errors=",
            ),
            (
                "a detection threshold that is lost in the file",
                'content["detection_threshold"] = self.detection_threshold',
                "pass",
            ),
        ],
    ),
    (
        "proto/collage/errors.py",
        [
            ("error texts without bound", "within(str(error), MAX_TEXT)", "str(error)"),
            (
                "callers see what is inside",
                'return grpc.StatusCode.INTERNAL, "internal error: see the server\'s log"',
                "return grpc.StatusCode.INTERNAL, str(error)",
            ),
            (
                "unexpected errors are not logged",
                'logger.error("unexpected error", exc_info=error, extra={"request_id": request_id})',
                "pass",
            ),
            ("pushback in seconds", "math.ceil(1000 * after)", "math.ceil(after)"),
            ("pushback of nothing", "str(max(1, math.ceil", "str(max(0, math.ceil"),
            (
                "refusals without pushback",
                "await context.abort(code, text, pushback(error))",
                "await context.abort(code, text)",
            ),
            ("an inner cancellation passes", "if task is not None and task.cancelling():", "if True:"),
        ],
    ),
    (
        "proto/collage/channels.py",
        [
            (
                "keepalive off: of channels",
                '("grpc.keepalive_time_ms", 10_000)',
                '("grpc.keepalive_time_ms", 2_147_483_647)',
            ),
            (
                "keepalive off: of servers",
                '("grpc.keepalive_time_ms", 30_000)',
                '("grpc.keepalive_time_ms", 2_147_483_647)',
            ),
            (
                "dead peers noticed late",
                '("grpc.keepalive_timeout_ms", 5_000)',
                '("grpc.keepalive_timeout_ms", 50_000)',
            ),
            (
                "no pings while idle",
                '("grpc.keepalive_permit_without_calls", 1),\n        ("grpc.http2.max_pings_without_data", 0)',
                '("grpc.keepalive_permit_without_calls", 0),\n        ("grpc.http2.max_pings_without_data", 0)',
            ),
            (
                "frequent pings end a connection",
                '("grpc.http2.max_ping_strikes", 0)',
                '("grpc.http2.max_ping_strikes", 2)',
            ),
            (
                "reconnects after minutes",
                '("grpc.max_reconnect_backoff_ms", 1_000)',
                '("grpc.max_reconnect_backoff_ms", 120_000)',
            ),
            ("two servers on one port", '("grpc.so_reuseport", 0)', '("grpc.so_reuseport", 1)'),
        ],
    ),
    (
        "proto/collage/answers.py",
        [
            ("degraded answers told as exact", "degraded=origin.degraded", "degraded=False"),
            (
                "queue and inference time swapped",
                "queue_s=origin.queue_s,\n        inference_s=origin.inference_s",
                "queue_s=origin.inference_s,\n        inference_s=origin.queue_s",
            ),
            (
                "a confidence of 0 for every answer",
                'origin.coded_confidence if origin.HasField("coded_confidence") else None',
                "origin.coded_confidence",
            ),
            ("attempts without bound", '"maxAttempts": min(attempts, 5)', '"maxAttempts": 5'),
            ("one attempt is three", "if attempts < 2:", "if attempts < 1:"),
            (
                "failures of the image are tried again",
                '"retryableStatusCodes": ["RESOURCE_EXHAUSTED"]',
                '"retryableStatusCodes": ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"]',
            ),
            (
                "codes of a stream are unknown",
                "(code for code in grpc.StatusCode if code.value[0] == message.error.code)",
                "(code for code in ())",
            ),
        ],
    ),
    (
        "proto/collage/inputs.py",
        [
            (
                "pixels beyond a byte wrap around",
                "if image.size and not (image.min() >= 0 and image.max() <= 255):",
                "if False:",
            ),
            ("shares as pixels", 'if image.dtype.kind == "f":', "if False:"),
            ("a text is an image", "if isinstance(image, str):", "if False:"),
        ],
    ),
    (
        "proto/collage/client.py",
        [
            (
                "no time limit",
                "await self._stub.Predict(request, timeout=limit_s, metadata",
                "await self._stub.Predict(request, timeout=None, metadata",
            ),
            (
                "streams without a token",
                "self._stub.PredictStream(metadata=self._security.metadata())",
                "self._stub.PredictStream()",
            ),
            (
                "an image that fails ends the stream",
                "await results.put((request_id, error))\n                        continue",
                "raise",
            ),
            ("images of a stream have no time limit", "timeout_s=limit_s or 0)", "timeout_s=0)"),
            (
                "a broken stream ends as if it were whole",
                "None if all_sent and not started else answers.ended(self.address)",
                "None",
            ),
            (
                "latency of a stream from its start",
                "time.monotonic() - started.pop(request_id, time.monotonic())",
                "0.0",
            ),
            (
                "a stream that nobody reads runs on",
                "for task in tasks:\n                task.cancel()\n            call.cancel()",
                "pass",
            ),
        ],
    ),
    (
        "proto/collage/sync.py",
        [
            (
                "no time limit",
                "self._stub.Predict(request, timeout=limit_s, metadata",
                "self._stub.Predict(request, timeout=None, metadata",
            ),
            ("images taken without bound", "room.acquire()\n                    if closed", "if closed"),
            (
                "an image that fails ends the stream",
                "results.put((request_id, error))\n                        continue",
                "raise",
            ),
            (
                "a broken stream ends as if it were whole",
                "answers.ended(self.address) if started or not all_sent else None",
                "None",
            ),
            ("a stream that nobody reads runs on", "room.release()\n            call.cancel()", "room.release()"),
        ],
    ),
    (
        "proto/inference/tensors.py",
        [
            ("rows of float pixels start at others' bytes", 'start * _ITEM_BYTES["FP32"])', "start)"),
            ("normalised pixels are taken", 'if pixels.dtype.kind == "f" and 0 < most <= 1:', "if False:"),
            ("pixels beyond a byte wrap around", "if not 0 <= least <= most <= 255:  # also catches NaN", "if False:"),
            ("float pixels cut off in place of rounded", "np.rint(pixels).astype(np.uint8)", "pixels.astype(np.uint8)"),
            ("rows without bound", "if not 1 <= count <= max_rows:", "if not 1 <= count:"),
            ("shared memory is passed over", "_refuse_shared_memory(tensor.parameters)\n    count", "count"),
            ("contents in both forms", "if request.raw_input_contents and typed:", "if False:"),
            ("elements beyond the raw contents", "if start > len(raw) or at > len(raw):", "if False:"),
            (
                "typed contents hold nothing",
                " + _TYPED_BYTES * len(self.values)",
                "",
            ),
            ("the least probable classes", "np.argsort(-rows, axis=1", "np.argsort(rows, axis=1"),
            ("raw contents to those who ask for typed ones", 'raw = parameters["binary_data"].bool_param', "pass"),
            ("any output", "if len(tensors) == 1 and tensors[0].name == name:", "if len(tensors) == 1:"),
        ],
    ),
]
MUTANTS = [
    Mutant(f"{'/'.join(file.split('/')[-2:])[:-3]}: {what}", file, *made)
    for file, mutants in _MADE
    for what, *made in mutants
]
