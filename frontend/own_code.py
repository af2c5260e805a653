"""Codes that no redundant model describes: the base model itself runs their redundant inputs, or networks make them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from encoder.codes import CodeParameters, build
from encoder.learned import BASE, Networks

BY_THE_BASE_MODEL = ("linear", "berrut", "approxifer")


class CodeError(Exception):
    """A code that cannot be used; the message is one line for the operator."""


def own_code(told: str) -> CodeParameters | None:
    """What ``--code`` says: NAME:N or NAME:N:r, or learned:FOLDER; None if it is empty. Raises CodeError."""
    name, _, rest = told.partition(":")
    if not told:
        return None
    if name == "learned":
        networks = load_networks(Path(rest))
        return CodeParameters(name, 0, members=networks.members, inputs=networks.inputs, networks=networks)
    numbers = rest.split(":")
    if name not in BY_THE_BASE_MODEL or len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        able = ", ".join(f"{each}:N:r" for each in BY_THE_BASE_MODEL)
        raise CodeError(f"--code must be {able} or learned:FOLDER, not {told!r}: other models say what theirs is")
    parameters = CodeParameters(name, 0, members=int(numbers[0]), inputs=int(numbers[1]) if numbers[1:] else 1)
    try:
        build(parameters)
    except ValueError as error:
        raise CodeError(f"--code {told}: {error}") from None
    return parameters


def load_networks(folder: Path) -> Networks:
    """The networks ``encoder.onnx`` and ``decoder.onnx`` of a folder, on one thread each. Raises CodeError.

    The encoder takes uint8 ``[N, size, size, 3]`` and gives uint8 ``[r, size, size, 3]``, the decoder takes float32
    ``[N + r, m]`` and gives float32 ``[N, m]``; their graphs must tell N and r. The decoder's metadata may tell the
    version of its base model, as ``BASE``.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the library is imported
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise CodeError("learned codes need ONNX Runtime: install the extra learned") from None
    encoder, decoder = (_session(onnxruntime, folder / f"{name}.onnx") for name in ("encoder", "decoder"))
    members, inputs = _first(encoder.get_inputs()), _first(encoder.get_outputs())
    known, decoded = _first(decoder.get_inputs()), _first(decoder.get_outputs())
    types = [each.type for each in (*encoder.get_inputs(), *encoder.get_outputs(), *decoder.get_inputs())]
    if types != ["tensor(uint8)", "tensor(uint8)", "tensor(float)"]:
        raise CodeError(f"{folder}: the encoder takes and gives uint8, the decoder takes float32, not {types}")
    if members < 2 or inputs < 1 or (known, decoded) != (members + inputs, members):
        raise CodeError(
            f"{folder}: an encoder from [N, ...] to [r, ...] goes with a decoder from [N + r, m] to [N, m], not "
            f"{members} to {inputs} with {known} to {decoded}"
        )

    def run(session: Any, name: str, values: Any) -> Any:
        return session.run(None, {name: values})[0]

    images, outputs = encoder.get_inputs()[0].name, decoder.get_inputs()[0].name
    base = decoder.get_modelmeta().custom_metadata_map.get(BASE, "")
    return Networks(
        members,
        inputs,
        lambda values: run(encoder, images, values),
        lambda values: run(decoder, outputs, values),
        base,
    )


def _session(onnxruntime: Any, path: Path) -> Any:
    if not path.is_file():
        raise CodeError(f"there is no {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise CodeError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None


def _first(tensors: Any) -> int:
    """The first extent of the only tensor; 0 if there are others, or it is open."""
    extent = tensors[0].shape[0] if len(tensors) == 1 and tensors[0].shape else 0
    return extent if isinstance(extent, int) else 0
