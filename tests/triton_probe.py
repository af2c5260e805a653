"""What a stock tritonclient gets from a server: ``python triton_probe.py COMMAND ADDRESS [JSON]`` prints JSON.

A process of its own, because tritonclient brings its own copy of the protocol's descriptors, and one process can hold
only one. It knows nothing of this project.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2


def describe(client: Any, _: Any) -> Any:
    """Everything that the server says of itself and of its only model."""
    models = client.get_model_repository_index(as_json=True)["models"]
    name = models[0]["name"]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(name),
        "server": client.get_server_metadata(as_json=True),
        "models": models,
        "metadata": client.get_model_metadata(name, as_json=True),
        "config": client.get_model_config(name, as_json=True)["config"],
        "statistics": client.get_inference_statistics(name, as_json=True)["model_stats"],
    }


def descriptors(client: Any, _: Any) -> Any:
    """The client's own idea of the protocol: (number, type, repeated) of every field by message."""
    found: dict[str, Any] = {}

    def add(message: Any) -> None:
        found[message.full_name] = {
            field.name: [field.number, field.type, field.is_repeated] for field in message.fields
        }
        for nested in message.nested_types:
            add(nested)

    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for message in file.message_types_by_name.values():
            add(message)
        for enum in file.enum_types_by_name.values():
            found[enum.full_name] = {value.name: value.number for value in enum.values}
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    found["methods"] = {method.name: [method.input_type.name, method.output_type.name] for method in methods}
    return found


def infer(client: Any, requests: list[dict[str, Any]]) -> Any:
    """One inference per entry: its answer, or its status and message."""
    return [_infer(client, **request) for request in requests]


def _infer(
    client: Any,
    model: str,
    data: list[Any] | None = None,
    datatype: str = "UINT8",
    shape: list[int] | None = None,
    typed: bool = False,
    raw: list[str] | None = None,
    name: str = "image",
    outputs: list[str] | None = None,
    classes: int = 0,
    **options: Any,
) -> Any:
    """``data`` is the tensor (BYTES: hexadecimal); ``shape`` and ``raw`` (hexadecimal) override what it implies."""
    if datatype == "BYTES":
        array = np.array([bytes.fromhex(element) for element in data or []], object)
    else:
        array = np.array(data, np.uint8 if datatype == "UINT8" else np.float32)
    tensor = triton.InferInput(name, list(array.shape), datatype)
    if typed:  # what the client library does for no data type, yet other clients do
        contents = tensor._get_tensor().contents
        if datatype == "BYTES":
            contents.bytes_contents.extend(array.tolist())
        else:
            field = contents.uint_contents if datatype == "UINT8" else contents.fp32_contents
            field.extend(array.ravel().tolist())
    else:
        tensor.set_data_from_numpy(array)
    if raw is not None:
        tensor._raw_content = b"".join(bytes.fromhex(part) for part in raw)
    if shape is not None:
        tensor.set_shape(shape)
    wanted = outputs or (["probabilities"] if classes else [])
    try:
        result = client.infer(
            model,
            [tensor],
            outputs=[triton.InferRequestedOutput(output, class_count=classes) for output in wanted] or None,
            **{"client_timeout": 20, **options},
        )
    except triton.InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    response = result.get_response()
    output = response.outputs[0]
    values = result.as_numpy(output.name)
    return {
        "model": [response.model_name, response.model_version],
        "id": response.id,
        "parameters": {
            key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in response.parameters.items()
        },
        "output": output.name,
        "datatype": output.datatype,
        "values": [[_plain(value) for value in row] for row in values],
    }


def _plain(value: Any) -> str | float:
    return value.decode() if isinstance(value, bytes) else float(value)


def stream(client: Any, request: dict[str, Any]) -> Any:
    """What a stream ends with."""
    ended: list[Any] = []
    client.start_stream(lambda result, error: ended.append(error))
    tensor = triton.InferInput("image", [1, 1, 1, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 1, 1, 3), np.uint8))
    with contextlib.suppress(triton.InferenceServerException):  # it may have ended already
        client.async_stream_infer(request["model"], [tensor])
    client.stop_stream()
    return [{"status": error.status(), "message": error.message()} for error in ended]


def main() -> None:
    """Run one command; the request, if any, comes on standard input."""
    command, address = sys.argv[1:]
    with triton.InferenceServerClient(address) as client:
        request = json.loads(sys.stdin.read() or "null")
        print(
            json.dumps(
                {"describe": describe, "descriptors": descriptors, "infer": infer, "stream": stream}[command](
                    client, request
                )
            )
        )


if __name__ == "__main__":
    main()
