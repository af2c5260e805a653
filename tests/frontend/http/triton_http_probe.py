"""What a stock tritonclient gets by HTTP: ``python triton_http_probe.py ADDRESS`` reads and prints JSON.

A process of its own, as with the client for gRPC (tests/triton_probe.py). It knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton


def describe(client: Any) -> Any:
    """Everything that the server says of itself and of its only model."""
    (model,) = client.get_model_repository_index()
    name = model["name"]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready(name), client.is_model_ready(name, model["version"])],
        "server": client.get_server_metadata(),
        "model": model,
        "metadata": client.get_model_metadata(name),
        "config": client.get_model_config(name),
        "statistics": client.get_inference_statistics(name)["model_stats"],
    }


def infer(
    client: Any, model: str, data: list[Any], datatype: str, binary: list[bool], classes: int = 0, **more: Any
) -> Any:
    """One inference; ``binary`` says whether input and output come after the JSON. BYTES are hexadecimal."""
    if datatype == "BYTES":
        array = np.array([bytes.fromhex(element) for element in data], object)
    else:
        array = np.array(data, np.uint8 if datatype == "UINT8" else np.float32)
    tensor = triton.InferInput("image", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary[0])
    output = triton.InferRequestedOutput("probabilities", binary_data=binary[1], class_count=classes)
    try:
        result = client.infer(model, [tensor], outputs=None if more.pop("default", False) else [output], **more)
    except triton.InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    values = result.as_numpy("probabilities")
    response = result.get_response()
    return {
        "model": [response["model_name"], response["model_version"]],
        "id": response.get("id", ""),
        "parameters": response["parameters"],
        "values": [[_plain(value) for value in row] for row in values],
    }


def _plain(value: Any) -> str | float:
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else float(value)


def main() -> None:
    """Print the description, and an answer for each request on standard input."""
    with triton.InferenceServerClient(sys.argv[1]) as client:
        answers = [infer(client, **request) for request in json.load(sys.stdin)]
        print(json.dumps({"described": describe(client), "answers": answers}))


if __name__ == "__main__":
    main()
