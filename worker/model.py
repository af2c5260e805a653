"""An ONNX model in ONNX Runtime: described by its own metadata or a sidecar, warmed up, stopped when cancelled."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from collage.model_files import describe, sidecar
from collage.model_info import CLASSIFICATION, METADATA_KEY, ModelInfo, ModelKind, TensorSpec, usual_outputs
from collage.specs import brief

Floats = NDArray[np.float32]

_WARM_UPS = 2  # the first run plans the memory, the second one uses the plan
_ERRORS_ARE_RAISED = 4  # log level: what ONNX Runtime would print, a stopped run included, arrives as an exception too
_LEAST_PROBABILITY = 1e-12


class ModelError(Exception):
    """A model that cannot be served; the message is one line for the operator."""


class ServedModel:
    """A model in one ONNX Runtime session.

    It takes one input, uint8 ``[N, size, size, 3]``, normalised inside the graph. It gives what ``usual_outputs`` lists
    for its kind and task, with a batch dimension in front and under these names; where only one output is needed, the
    only one that there is may have any name.

    A plain classifier (float32 ``[N, 3, size, size]`` in) is served as well: pixels are divided by 255, then normalised
    by the lists ``mean`` and ``std`` of the description's ``extra``, if there; ``"scores": "probabilities"`` in
    ``extra`` says that its output is already a softmax, so its logarithm is taken.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load and check; raises ModelError. ``threads`` run one inference."""
        if not path.is_file():
            raise ModelError(f"there is no model file {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ARE_RAISED
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ModelError(f"{path} cannot be loaded: {_first_line(error)}") from None
        self._name = str(path)
        self.info = _describe(path, self._session)
        self._input, self._plain = self._choose_input()
        try:
            image = replace(self.info.input, name=self._input)
            self.info = replace(self.info, input=image, outputs=self._choose_outputs())
        except ValueError as error:
            raise ModelError(f"{path} cannot be served: {error}") from None
        self._outputs = [spec.name for spec in self.info.outputs]
        self._scale, self._shift = _normalisation(path, self.info)
        self._takes_log = _takes_log(path, self.info)
        self._thread = ThreadPoolExecutor(1, "inference")

    async def warm_up(self) -> None:
        """Run on a black image; raises ModelError if the model fails or its outputs are not as described."""
        image = np.zeros(self.info.input.shape, np.uint8)
        try:
            for _ in range(_WARM_UPS):
                outputs = await self.run(image)
        except Exception as error:
            raise ModelError(f"{self._name} fails on its first image: {_first_line(error)}") from None
        if problem := self.info.problem(outputs):
            raise ModelError(f"{self._name} cannot be served: of a black image, {problem}")

    async def run(self, image: NDArray[np.uint8]) -> tuple[Floats, ...]:
        """Outputs for one image, uint8 ``[size, size, 3]``, as ``info.outputs`` describes them.

        Cancelling stops the session (between two operators), and returns when it has stopped.
        """
        options = onnxruntime.RunOptions()
        options.log_severity_level = _ERRORS_ARE_RAISED
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._infer, image, options)
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError:
            options.terminate = True
            running.add_done_callback(lambda done: done.exception())  # retrieved: nobody else will look at it
            await asyncio.wait((running,))
            raise
        return running.result()

    def close(self) -> None:
        """Wait for the inference thread to end. Idempotent."""
        self._thread.shutdown()

    def _infer(self, image: NDArray[np.uint8], options: Any) -> tuple[Floats, ...]:
        feed = self._plain_input(image) if self._plain else image[np.newaxis]
        outputs = self._session.run(self._outputs, {self._input: feed}, options)
        floats = tuple(np.ascontiguousarray(output[0], np.float32) for output in outputs)
        if self._takes_log:
            return tuple(np.log(np.maximum(output, np.float32(_LEAST_PROBABILITY))) for output in floats)
        return floats

    def _plain_input(self, image: NDArray[np.uint8]) -> Floats:
        pixels = image.transpose(2, 0, 1).astype(np.float32, order="C")
        pixels *= self._scale
        pixels -= self._shift
        return pixels[np.newaxis]

    def _choose_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs that are served, as the graph names them and as far as it knows their shapes."""
        usual = usual_outputs(self.info.kind, self.info.task, len(self.info.labels))
        found = {output.name: output for output in self._session.get_outputs()}
        if len(usual) == len(found) == 1:
            return (self._spec(next(iter(found.values())), usual[0]),)
        if not {spec.name for spec in usual} <= found.keys():
            wanted = ", ".join(spec.name for spec in usual)
            raise ModelError(
                f"{self._name} has outputs {', '.join(map(repr, found))}: models of kind {self.info.kind} have {wanted}"
            )
        return tuple(self._spec(found[spec.name], spec) for spec in usual)

    def _spec(self, found: Any, usual: TensorSpec) -> TensorSpec:
        """An output of the graph; extents that this leaves open are the usual ones."""
        shape = found.shape[1:] if found.shape else usual.shape
        if len(shape) == len(usual.shape):
            known = (have if isinstance(have, int) else want for have, want in zip(shape, usual.shape, strict=True))
            if usual.allows(extents := tuple(known)):
                return TensorSpec(found.name, usual.dtype, extents)
        raise ModelError(
            f"{self._name} gives {found.name!r} {shape} for one image: models of kind {self.info.kind} for "
            f"{self.info.task} with {len(self.info.labels)} labels give {list(usual.shape)}"
        )

    def _choose_input(self) -> tuple[str, bool]:
        """The input's name, and whether it is a plain one, float32 NCHW."""
        inputs, size = self._session.get_inputs(), self.info.size
        if len(inputs) == 1:
            found = inputs[0]
            for kind, shape, plain in (
                ("tensor(uint8)", (1, size, size, 3), False),
                ("tensor(float)", (1, 3, size, size), True),
            ):
                if found.type == kind and _fits(found.shape, shape):
                    return found.name, plain
        listed = ", ".join(f"{entry.name!r} {entry.type} {entry.shape}" for entry in inputs)
        raise ModelError(
            f"{self._name} has inputs {listed or 'none'}: it needs one, "
            f"uint8 [N, {size}, {size}, 3] or float32 [N, 3, {size}, {size}]"
        )


def _describe(path: Path, session: Any) -> ModelInfo:
    """The description in the file's metadata and in its sidecar."""
    metadata, beside = session.get_modelmeta().custom_metadata_map, sidecar(path)
    sources = [f"the metadata of {path}"] * (METADATA_KEY in metadata) + [str(beside)] * beside.exists()
    try:
        return describe(path, metadata)
    except FileNotFoundError:
        raise ModelError(
            f"{path} does not describe itself: write {beside} with name, kind, labels and size, "
            f"or export it with metadata {METADATA_KEY!r}"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{' with '.join(sources)} cannot be used: {_first_line(error)}") from None


def _normalisation(path: Path, info: ModelInfo) -> tuple[Floats, Floats]:
    """Scale and shift of every channel, ``[3, 1, 1]``: pixel * scale - shift = (pixel / 255 - mean) / std."""
    try:
        mean = np.array(info.extra.get("mean", [0, 0, 0]), np.float64).reshape(3, 1, 1)
        std = np.array(info.extra.get("std", [1, 1, 1]), np.float64).reshape(3, 1, 1)
    except (ValueError, TypeError, OverflowError):
        raise ModelError(f"extra.mean and extra.std of {path} must be lists of three numbers") from None
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        scale, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
    if not (std > 0).all() or not np.isfinite(scale).all() or not np.isfinite(shift).all() or not scale.all():
        raise ModelError(f"extra.mean of {path} must be finite, and extra.std positive")
    return scale, shift


def _takes_log(path: Path, info: ModelInfo) -> bool:
    scores = info.extra.get("scores", "logits")
    if scores not in ("logits", "probabilities"):
        raise ModelError(f"extra.scores of {path} is {brief(scores)}: it must be logits or probabilities")
    return info.kind is ModelKind.S_CNN and info.task == CLASSIFICATION and scores == "probabilities"


def _fits(declared: list[Any], shape: tuple[int, ...]) -> bool:
    """Whether a declared shape, in which strings and None stand for any extent, allows ``shape``."""
    return len(declared) == len(shape) and all(
        have == want or not isinstance(have, int) for have, want in zip(declared, shape, strict=True)
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
