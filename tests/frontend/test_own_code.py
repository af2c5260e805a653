"""Codes that the base model itself runs, and learned ones: told by a flag, and at work in the dispatcher."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper, save
from prometheus_client import CollectorRegistry

from collage.model_info import CodeInfo, ModelInfo, ModelKind
from encoder.code import Source
from encoder.codes import CodeParameters
from encoder.learned import BASE
from frontend.__main__ import dispatching, main
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher, DispatchSettings
from frontend.fitting import CodingSettings, code_of, misfit
from frontend.metrics import FrontendMetrics
from frontend.own_code import CodeError, load_networks, own_code
from frontend.policy import Rules
from tests.frontend.fakes import COLLAGE, LABELS, S_CNN, SIZE, FakeCall, FakeTransport, InlineExecutor, Outputs, pool

APART = np.array([[0, -1, 2], [-1, 0, 2]], np.float32)
WEIGHTS = np.random.default_rng(0).integers(-3, 4, (len(LABELS), SIZE * SIZE * 3)).astype(np.float32)


def network(matrix: NDArray[np.float32], inner: list[int], kind: int) -> ModelProto:
    """A matrix, float32 ``[made, given]``, over the first dimension: ``[given, *inner]`` to ``[made, *inner]``."""
    made, given = matrix.shape
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "flat"], ["rows"]),
        helper.make_node("MatMul", ["matrix", "rows"], ["products"]),
        helper.make_node("Reshape", ["products", "shape"], ["reals"]),
        helper.make_node("Cast", ["reals"], ["y"], to=kind),
    ]
    constants = {"matrix": matrix, "flat": np.array([given, -1]), "shape": np.array([made, *inner])}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, [given, *inner])],
        [helper.make_tensor_value_info("y", kind, [made, *inner])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """A folder with the mean of two images as the encoder, and the matrix that takes it apart as the decoder."""
    half = np.full((1, 2), 0.5, np.float32)
    save(network(half, [SIZE, SIZE, 3], TensorProto.UINT8), tmp_path / "encoder.onnx")
    save(network(APART, [len(LABELS)], TensorProto.FLOAT), tmp_path / "decoder.onnx")
    return tmp_path


def test_the_flag_names_a_code_its_members_and_its_redundant_inputs() -> None:
    assert own_code("") is None
    assert own_code("berrut:4:2") == CodeParameters("berrut", 0, members=4, inputs=2)
    assert own_code("linear:2") == CodeParameters("linear", 0, members=2, inputs=1)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("berrut", "--code must be linear:N:r, berrut:N:r, approxifer:N:r or learned:FOLDER, not 'berrut'"),
        ("berrut:two", "--code must be"),
        ("berrut:2:1:1", "--code must be"),
        ("collage:4", "not 'collage:4': other models say what theirs is"),
        ("berrut:1", "--code berrut:1: the code berrut has 2 or more members"),
        ("approxifer:4:4", "need more redundant inputs, not 4"),
        ("learned:/nowhere", "there is no /nowhere/encoder.onnx"),
    ],
)
def test_a_flag_that_names_no_code_says_what_would(told: str, why: str) -> None:
    with pytest.raises(CodeError) as caught:
        own_code(told)
    assert why in str(caught.value)


def test_such_a_flag_keeps_the_frontend_from_starting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["frontend", "--s-cnn-workers", "a:1", "--code", "learned:/nowhere"])
    assert main() == 2
    assert capsys.readouterr().err == "frontend: there is no /nowhere/encoder.onnx\n"


def test_the_flag_reaches_the_dispatcher() -> None:
    settings = FrontendSettings(s_cnn_workers="a:1", code="berrut:4:2")
    assert dispatching(settings).code == CodeParameters("berrut", 0, members=4, inputs=2)


def test_networks_are_loaded_and_run(learned: Path) -> None:
    networks = load_networks(learned)
    assert (networks.members, networks.inputs) == (2, 1)
    images = np.stack([np.full((SIZE, SIZE, 3), 10, np.uint8), np.full((SIZE, SIZE, 3), 30, np.uint8)])
    np.testing.assert_array_equal(networks.encode(images), np.full((1, SIZE, SIZE, 3), 20, np.uint8))
    outputs = np.zeros((3, len(LABELS)), np.float32)
    outputs[0], outputs[2] = 1, 3
    np.testing.assert_array_equal(networks.decode(outputs)[1], np.full(len(LABELS), 5))
    assert networks.base == "", "not told"


def test_networks_decode_for_no_other_version_of_their_base_model(learned: Path) -> None:
    decoder = network(APART, [len(LABELS)], TensorProto.FLOAT)
    decoder.metadata_props.add(key=BASE, value="1")
    save(decoder, learned / "decoder.onnx")
    settings = CodingSettings(code=own_code(f"learned:{learned}"))
    assert misfit(S_CNN, S_CNN, 0, settings) is None
    newer = replace(S_CNN, version="2")
    assert misfit(newer, newer, 0, settings) == (
        "the networks of --code decode for version 1 of the base model, not for the s-cnn s 2"
    )


def test_networks_that_do_not_go_together_are_refused(learned: Path) -> None:
    save(network(np.ones((2, 4), np.float32), [10], TensorProto.FLOAT), learned / "decoder.onnx")
    with pytest.raises(CodeError, match=r"from \[N \+ r, m\] to \[N, m\], not 2 to 1 with 4 to 2"):
        load_networks(learned)
    save(network(APART, [10], TensorProto.UINT8), learned / "decoder.onnx")
    with pytest.raises(CodeError, match="takes and gives uint8, the decoder takes float32, not"):
        load_networks(learned)
    (learned / "decoder.onnx").write_bytes(b"no model")
    with pytest.raises(CodeError, match=r"decoder\.onnx cannot be loaded: "):
        load_networks(learned)


def test_only_the_base_model_itself_runs_the_redundant_inputs() -> None:
    settings = CodingSettings(code=own_code("berrut:2"))
    assert misfit(S_CNN, S_CNN, 0, settings) is None
    assert misfit(S_CNN, None, 0, settings) == ""
    assert "another model than the s-cnn s 1" in (misfit(replace(S_CNN, version="2"), S_CNN, 0, settings) or "")
    assert "without a code" in (misfit(S_CNN, S_CNN, 0, CodingSettings()) or "")
    code = code_of([S_CNN], settings)
    assert (code.name, code.base, code.shape.members) == ("berrut", "1", 2)
    with pytest.raises(ValueError, match="the code berrut has 1 redundant inputs, workers were given for 2"):
        code_of([S_CNN, S_CNN], settings)


def test_models_that_say_what_their_code_is_keep_it(learned: Path) -> None:
    assert code_of([COLLAGE], CodingSettings(code=own_code("berrut:2"))).name == "collage"
    joint = ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=CodeInfo("learned", 2, base="1"))
    code = code_of([joint], CodingSettings(code=own_code(f"learned:{learned}")))
    assert (code.name, code.base, code.shape.members) == ("learned", "1", 2)
    with pytest.raises(ValueError, match="give the frontend --code learned:FOLDER"):
        code_of([joint], CodingSettings())


def linear(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return WEIGHTS @ pixels.reshape(-1).astype(np.float32)


def late(*names: str) -> Callable[[FakeCall], Awaitable[Outputs]]:
    async def behave(call: FakeCall) -> Outputs:
        await asyncio.sleep(3.0 if call.request_id in names else 0.1)
        return (linear(call.image),)

    return behave


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("told", "source"), [("linear:2", Source.PARITY), ("berrut:2", Source.CODED), ("learned", Source.CODED)]
)
async def test_a_lost_answer_is_decoded_from_what_the_base_model_says(told: str, source: Source, learned: Path) -> None:
    code = own_code(f"learned:{learned}" if told == "learned" else told)
    base = await pool("s_cnn", {f"s{i}": FakeTransport(S_CNN, late("r1")) for i in range(2)})
    coded = await pool("coded", {"c0": FakeTransport(S_CNN, late())})
    dispatcher = Dispatcher(
        Rules.named("collage", deadline=0.25, extra_load=1.0),
        base,
        [coded],
        FrontendMetrics(CollectorRegistry()),
        InlineExecutor(),
        InlineExecutor(),
        DispatchSettings(code=code),
    )
    for each in (base, coded):
        await each.start()
    await asyncio.sleep(0.01)
    images = list(2 * np.random.default_rng(1).integers(0, 128, (2, SIZE, SIZE, 3), np.uint8))
    outcomes = await asyncio.gather(*(dispatcher.predict(lambda size, n=n: images[n], f"r{n}", 5.0) for n in range(2)))
    assert [outcome.answered.source for outcome in outcomes] == [Source.S_CNN, source]
    for outcome, image in zip(outcomes, images, strict=True):
        np.testing.assert_allclose(outcome.answered.output, linear(image), rtol=1e-4, atol=0.5)
    await dispatcher.close()
    for each in (base, coded):
        await each.close()
