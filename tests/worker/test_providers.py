"""Execution providers: which are asked for, which are there, and which one is told to be in use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from collage.model_info import ModelInfo, ModelKind
from tests import onnx_models
from worker.config import WorkerSettings
from worker.model import ModelError, ServedModel
from worker.providers import ProviderError, choose
from worker.server import WorkerProcess

CPU = ("CPUExecutionProvider", {})
CUDA = ("CUDAExecutionProvider", {})
OPENVINO = ("OpenVINOExecutionProvider", {"num_of_threads": "3"})


@pytest.fixture
def _all_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [f"{name}ExecutionProvider" for name in ("CUDA", "OpenVINO", "CPU")]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: here)


@pytest.mark.usefixtures("_all_are_here")
@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("CPU", [CPU]),
        ("", [CPU]),
        ("cuda", [CUDA, CPU]),
        ("OpenVINO, CUDA", [OPENVINO, CUDA, CPU]),
        ("CUDAExecutionProvider,CUDA", [CUDA, CPU]),
        ("CPU,CUDA", [CPU, CUDA]),
    ],
)
def test_providers_are_used_in_the_order_asked_for(asked: str, chosen: list[tuple[str, dict[str, str]]]) -> None:
    assert choose(asked, 3) == chosen


@pytest.mark.usefixtures("_all_are_here")
def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ProviderError, match="no execution provider 'TPU' here: this ONNX Runtime has CUDA, OpenVINO, CPU;"
    ):
        choose("CUDA,TPU", 1)


def test_a_worker_refuses_an_unknown_provider_in_one_line(tmp_path: Path) -> None:
    path = onnx_models.save_s_cnn(tmp_path / "s-cnn.onnx")
    with pytest.raises(ModelError, match="there is no execution provider 'TPU' here") as caught:
        ServedModel(path, providers="TPU")
    assert "\n" not in str(caught.value)


async def test_the_provider_in_use_is_told(tmp_path: Path) -> None:
    path = onnx_models.save_s_cnn(tmp_path / "s-cnn.onnx")
    registry = CollectorRegistry()
    worker = WorkerProcess(WorkerSettings(model=path, port=0, metrics_port=0), registry)
    try:
        info = worker.engine.model.info
        assert info.provider == "CPU"
        assert ModelInfo.from_proto(info.to_proto()).provider == "CPU"
        assert registry.get_sample_value("collage_worker_provider", {"provider": "CPU"}) == 1
    finally:
        await worker.stop()


def test_a_provider_that_does_not_work_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes the CPU where a provider that it has cannot be used, as CUDA without a GPU."""
    path = onnx_models.save_s_cnn(tmp_path / "s-cnn.onnx")
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA[0], CPU[0]])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: real(path, options, [CPU[0]]))
    model = ServedModel(path, providers="CUDA")
    assert model.info.provider == "CPU"
    assert "the execution provider CUDA cannot be used here: CPU runs the model" in model.assumed
    model.close()


def test_models_are_the_same_on_any_provider() -> None:
    info = ModelInfo.make("s", ModelKind.S_CNN, ["a"], 8, version="1")
    assert replace(info, provider="CUDA") == replace(info, provider="CPU")
    with pytest.raises(ValueError, match="provider must be one line"):
        replace(info, provider="x\ny")
