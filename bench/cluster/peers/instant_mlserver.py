"""MLServer with a model that answers at once, to compare with: run by the Python of an environment that has it."""

from __future__ import annotations

import argparse
import asyncio

from mlserver import MLModel, ModelSettings  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]
from mlserver_process import serve  # type: ignore[import-not-found]
from peer import free_port  # type: ignore[import-not-found]


class InstantModel(MLModel):  # type: ignore[misc]
    """Always the first of ten classes, whatever it is sent."""

    async def load(self) -> bool:
        """Nothing to do."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The answer, at once."""
        best = ResponseOutput(name="probabilities", shape=[1, 10], datatype="FP32", data=[1.0] + 9 * [0.0])
        return InferenceResponse(model_name=self.name, outputs=[best])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int)
    asked = parser.parse_args().port
    asyncio.run(serve(ModelSettings(name="instant", implementation=InstantModel), asked or free_port()))
