"""A real MLServer with one ONNX file: run by the Python of an environment that has mlserver and onnxruntime."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mlserver import MLModel, ModelSettings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.settings import ModelParameters  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
)
from mlserver_process import serve  # type: ignore[import-not-found]
from onnx_file import OnnxFile  # type: ignore[import-not-found]
from peer import flags  # type: ignore[import-not-found]


class ServedFile(MLModel):  # type: ignore[misc]
    """Runs the file at the model's ``uri``, one request at a time."""

    async def load(self) -> bool:
        """Load the file."""
        self._file = OnnxFile(Path(self.settings.parameters.uri), self.settings.parameters.extra["least_s"])
        self._one = asyncio.Lock()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """All outputs."""
        feed = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        async with self._one:
            outputs = await asyncio.to_thread(self._file.run, feed)
        named = zip(self._file.outputs, outputs, strict=True)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(name, array) for (name, *_), array in named]
        )


def settings(name: str, version: str, path: Path, least_s: float) -> Any:
    """The model's settings, with the names, types and shapes of its tensors: MLServer knows them from nowhere else."""
    model = OnnxFile(path)
    return ModelSettings(
        name=name,
        implementation=ServedFile,
        inputs=[MetadataTensor(name=tensor, datatype=kind, shape=shape) for tensor, kind, shape in model.inputs],
        outputs=[MetadataTensor(name=tensor, datatype=kind, shape=shape) for tensor, kind, shape in model.outputs],
        parameters=ModelParameters(uri=str(path), version=version, extra={"least_s": least_s}),
    )


if __name__ == "__main__":
    args = flags()
    asyncio.run(serve(settings(args.name, args.model_version, args.onnx, args.least_s), args.port))
