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

from collage.model_files import data_files, describe, sidecar
from collage.model_info import CLASSIFICATION, METADATA_KEY, ModelInfo, ModelKind, TensorSpec, usual_outputs
from collage.plain import PlainInput, like_probabilities, logarithm
from worker.providers import ProviderError, choose, short

Floats = NDArray[np.float32]

_WARM_UPS = 2  # the first run plans the memory, the second one uses the plan
_ERRORS_ARE_RAISED = 4  # log level: what ONNX Runtime would print, a stopped run included, arrives as an exception too


class ModelError(Exception):
    """A model that cannot be served; the message is one line for the operator."""


class ServedModel:
    """A model in one ONNX Runtime session.

    It takes one input, uint8 ``[N, size, size, 3]`` or as its code says, normalised inside the graph. It gives what
    ``usual_outputs`` lists for its kind, task and code, with a batch dimension in front and under these names; where
    only one output is needed, the only one that there is may have any name.

    A classifier of any origin (float or uint8, NCHW or NHWC, RGB or BGR) is served as well, fed as the description
    says, see ``collage.plain``; of probabilities the logarithm is taken. ``assumed`` lists what nobody says.
    """

    def __init__(self, path: Path, threads: int = 1, providers: str = "CPU") -> None:
        """Load and check; raises ModelError. ``threads`` run one inference, on the first of ``providers`` that can."""
        if not path.is_file():
            raise ModelError(f"there is no model file {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ARE_RAISED
        try:
            chosen = choose(providers, threads)
            self._session = onnxruntime.InferenceSession(path, options, providers=chosen)
        except ProviderError as error:
            raise ModelError(str(error)) from None
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ModelError(f"{path} cannot be loaded: {_first_line(error)}") from None
        self._name = str(path)
        self.info = _describe(path, self._session)
        self._input, self._feed = self._choose_input()
        self.assumed = [*self._feed.assumed, *_apart(path)]
        provider, wanted = short(self._session.get_providers()[0]), short(chosen[0][0])
        if provider != wanted:
            self.assumed.append(f"the execution provider {wanted} cannot be used here: {provider} runs the model")
        try:
            image = replace(self.info.input, name=self._input)
            self.info = replace(self.info, input=image, outputs=self._choose_outputs(), provider=provider)
        except ValueError as error:
            raise ModelError(f"{path} cannot be served: {error}") from None
        self._outputs = [spec.name for spec in self.info.outputs]
        self._takes_log = self.info.gives_probabilities
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
        if self.info.kind is ModelKind.S_CNN and self.info.task == CLASSIFICATION:
            self._check_scores(np.exp(outputs[0]) if self._takes_log else outputs[0])

    async def run(self, image: NDArray[np.uint8]) -> tuple[Floats, ...]:
        """Outputs for one input, uint8 as ``info.input`` describes it, as ``info.outputs`` describes them.

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

    def _check_scores(self, values: Floats) -> None:
        """Compare what the model gave of a black image, ``[classes]``, with what the description says that it gives."""
        alike = like_probabilities(values)
        if self._takes_log and not alike:
            raise ModelError(
                f"{self._name} cannot be served: scores are said to be probabilities, and those of a black image sum "
                f"to {values.sum():.4g}"
            )
        if alike and self.info.plain.scores is None and len(values) > 1:
            self.assumed.append(
                "the scores of a black image sum to 1, and logits are assumed; "
                'if they are probabilities, give "scores": "probabilities"'
            )

    def _infer(self, image: NDArray[np.uint8], options: Any) -> tuple[Floats, ...]:
        outputs = self._session.run(self._outputs, {self._input: self._feed(image[np.newaxis])}, options)
        floats = tuple(np.ascontiguousarray(output[0], np.float32) for output in outputs)
        return tuple(map(logarithm, floats)) if self._takes_log else floats

    def _choose_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs that are served, as the graph names them and as far as it knows their shapes."""
        usual = usual_outputs(self.info.kind, self.info.task, len(self.info.labels), self.info.code)
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

    def _choose_input(self) -> tuple[str, PlainInput]:
        """The input's name, and what makes it."""
        inputs = self._session.get_inputs()
        listed = ", ".join(f"{entry.name!r} {entry.type} {entry.shape}" for entry in inputs) or "none"
        try:
            if len(inputs) != 1:
                raise ValueError("it needs one")
            feed = PlainInput(self.info.plain, inputs[0].type, inputs[0].shape, self.info.input.shape)
        except ValueError as error:
            raise ModelError(f"{self._name} cannot be served: it has inputs {listed}: {error}") from None
        if feed.assumed and {"mean", "std"} & self.info.extra.keys():
            raise ModelError(f"{self._name} cannot be served: move mean and std out of extra, to where its name is")
        return inputs[0].name, feed


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


def _apart(path: Path) -> list[str]:
    """What to tell the operator of parts of a model that lie in other files."""
    names = ", ".join(sorted(file.name for file in data_files(path)))
    return [f"its weights are in {names}, which must stay beside it"] if names else []


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
