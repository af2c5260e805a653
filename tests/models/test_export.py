from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from collage.model_info import METADATA_KEY, ModelInfo, ModelKind
from models import checkpoint
from models.checkpoint import ModelSpec
from models.data import FASHION_MNIST_LABELS, load
from models.export import TOLERANCE, ExportError, Served, accuracy, check, export, main, pack, probes, store, to_onnx
from models.measure import OnnxModel
from tests.models.datasets import write_folders, write_idx
from tests.models.exports import LOG, RECIPE, SPECS, graph, trained


@pytest.fixture(scope="module", params=SPECS)
def exported(request: pytest.FixtureRequest) -> tuple[Served, onnx.ModelProto, ModelInfo]:
    (served, model), spec = graph(request.param), SPECS[request.param]
    if spec.kind == "collage-cnn":
        return served, model, ModelInfo.collage(request.param, spec.labels, spec.size, spec.k)
    return served, model, ModelInfo.make(request.param, ModelKind(spec.kind), spec.labels, spec.size)


def test_the_graph_is_clean(exported: tuple[Served, onnx.ModelProto, ModelInfo]) -> None:
    served, model, info = exported
    kinds = Counter(node.op_type for node in model.graph.node)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in served.modules())
    assert kinds["Conv"] == convolutions
    assert kinds["BatchNormalization"] == (2 if info.name == "collage-vgg" else 0)  # behind its stages' pools
    assert not kinds["Constant"]
    assert Path(__file__).parent.parent.parent.as_posix().encode() not in model.SerializeToString()
    (entry,) = model.graph.input
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    outputs = {value.name: value.type.tensor_type for value in model.graph.output}
    assert {kind.elem_type for kind in outputs.values()} == {onnx.TensorProto.FLOAT}
    shapes = {name: [d.dim_param or d.dim_value for d in kind.shape.dim] for name, kind in outputs.items()}
    classes = len(info.labels)
    if info.kind is ModelKind.S_CNN:
        assert entry.name == "image"
        assert shapes == {"scores": ["N", classes]}
    else:
        positions = 8**2 if info.name == "collage-yolo" else info.k**2  # 64 px, 3 pools
        found = positions * len(served.model.anchors)  # type: ignore[arg-type]
        assert entry.name == "collage"
        assert shapes == {
            "boxes": ["N", found, 4],
            "confidences": ["N", found],
            "class_probabilities": ["N", found, classes],
        }


@pytest.mark.parametrize("storage", TOLERANCE)
def test_onnx_runtime_gives_what_torch_gives(exported: tuple[Served, onnx.ModelProto, ModelInfo], storage: str) -> None:
    served, model, info = exported
    content = pack(store(model, storage), info)
    loaded = OnnxModel(content)
    assert replace(loaded.info, version="") == info
    difference = check(served, loaded, probes(info.size), storage)
    if storage == "fp32":
        assert difference < 1e-5
    else:
        assert difference > 1e-6
        share = {"fp16": 0.5, "int8": 0.25}[storage]
        assert len(content) < len(pack(store(model, "fp32"), info)) * share + 60_000  # graph, biases, embeddings


def test_depthwise_convolutions_are_exported() -> None:
    spec = ModelSpec("mobilenetv2", "pets", ("cat", "dog"), 16, 1, (0.5,) * 3, (0.25,) * 3, {"stem": "small"})
    served = Served(spec, trained(spec)).eval()
    model = to_onnx(served)
    assert (
        check(served, OnnxModel(pack(model, ModelInfo.make("m", ModelKind.S_CNN, spec.labels, 16))), probes(16), "fp32")
        < 1e-4
    )


@pytest.mark.parametrize("storage", ["fp16", "int8"])
def test_onnx_runtime_unpacks_small_weights_on_loading(
    tmp_path: Path, exported: tuple[Served, onnx.ModelProto, ModelInfo], storage: str
) -> None:
    def loaded(kind: str) -> onnx.ModelProto:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / f"{kind}.onnx")
        ort.InferenceSession(store(model, kind).SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)

    _, model, _ = exported
    small, full = loaded(storage), loaded("fp32")
    assert Counter(node.op_type for node in small.graph.node) == Counter(node.op_type for node in full.graph.node)
    for tensor in small.graph.initializer:
        assert tensor.data_type not in (onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16)


def test_int8_rounds_every_output_channel_to_its_own_scale(
    exported: tuple[Served, onnx.ModelProto, ModelInfo],
) -> None:
    _, model, _ = exported
    small = store(model, "int8")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    checked = 0
    for tensor in model.graph.initializer:
        if f"{tensor.name}_scale" in tensors:
            weight, scale = numpy_helper.to_array(tensor), tensors[f"{tensor.name}_scale"]
            assert tensors[tensor.name].dtype == np.int8
            assert np.abs(tensors[tensor.name]).max(tuple(range(1, weight.ndim))).min() == 127
            assert scale.shape == (len(weight), *[1] * (weight.ndim - 1))
            assert (np.abs(tensors[tensor.name] * scale - weight) <= scale * 0.5001).all()
            checked += 1
    assert checked == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)


@pytest.mark.parametrize("factor", [1.1, np.nan])
def test_a_graph_that_differs_is_refused(exported: tuple[Served, onnx.ModelProto, ModelInfo], factor: float) -> None:
    served, model, info = exported
    wrong = store(model, "fp32")
    name = next(node.input[1] for node in wrong.graph.node if node.op_type == "Conv")  # the first one
    (tensor,) = (tensor for tensor in wrong.graph.initializer if tensor.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    weight[0] *= factor
    tensor.CopyFrom(numpy_helper.from_array(weight, name))
    with pytest.raises(ExportError, match=r"differ by .* \(fp32, allowed 0.0001\)"):
        check(served, OnnxModel(pack(wrong, info)), probes(info.size), "fp32")


def test_served_pixels_are_normalised_as_in_training(exported: tuple[Served, onnx.ModelProto, ModelInfo]) -> None:
    served, _, info = exported
    pixels = torch.from_numpy(probes(info.size))
    with torch.inference_mode():
        raw = served.model(served.spec.normalise(pixels))
        found = served(pixels)
    if info.kind is ModelKind.S_CNN:
        torch.testing.assert_close(found, raw, rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(found[1], raw[..., 4].sigmoid().flatten(1), rtol=1e-4, atol=1e-4)


def test_the_command_writes_a_model_that_describes_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, options = FASHION_MNIST_LABELS, {"widths": [4, 8, 8]}
    spec = ModelSpec("collage-resnet", "fashion-mnist", labels, 32, 2, (0.3,) * 3, (0.35,) * 3, options)
    data = write_idx(tmp_path / "data", train=100, test=10)
    checkpoint.save(tmp_path / "run.pt", spec, trained(spec), recipe=RECIPE, log=LOG)
    out = tmp_path / "zoo" / "fashion.onnx"
    main([str(tmp_path / "run.pt"), "--out", str(out), "--storage", "int8", "--data", str(data)])
    assert "accuracy change" in capsys.readouterr().out
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert list(metadata) == [METADATA_KEY]
    info = ModelInfo.from_json(metadata[METADATA_KEY])
    assert (info.name, info.kind, info.size, info.k) == ("fashion", ModelKind.COLLAGE_CNN, 32, 2)
    assert (info.labels, info.detection_threshold, info.accept_threshold) == (spec.labels, 0.15, 1.0)
    wanted = {"dataset": "fashion-mnist", "architecture": "collage-resnet", "storage": "int8", "seed": 5, "epochs": 2}
    assert wanted.items() <= info.extra.items()
    assert info.extra["training_s"] == 2.8
    assert info.extra["recipe"] == RECIPE
    assert info.extra["validation_accuracy"] == accuracy(OnnxModel(out), load(data, 16).validation)
    assert info.extra["torch_difference_fp32"] < info.extra["torch_difference"] < TOLERANCE["int8"]
    assert OnnxModel(out).size_bytes == out.stat().st_size


def test_without_data_the_accuracy_is_that_of_the_last_epoch(tmp_path: Path) -> None:
    spec = SPECS["collage-resnet"]
    checkpoint.save(tmp_path / "run.pt", spec, trained(spec), recipe=RECIPE, log=LOG)
    before = tmp_path / "before"  # of a file that others may be reading
    before.write_bytes(b"an older model")
    (tmp_path / "pets.onnx").hardlink_to(before)
    info = export(tmp_path / "run.pt", tmp_path / "pets.onnx", name="pet collages", accept_threshold=0.8)
    assert before.read_bytes() == b"an older model"
    assert (info.name, info.accept_threshold, info.extra["storage"]) == ("pet collages", 0.8, "fp32")
    assert info.extra["validation_accuracy"] == 0.75
    assert "accuracy_change" not in info.extra
    other = write_folders(tmp_path / "zoo", {"train": 20}, ("ant", "bee"))
    with pytest.raises(ExportError, match="other classes"):
        export(tmp_path / "run.pt", tmp_path / "never.onnx", data=other)
    assert not (tmp_path / "never.onnx").exists()
