"""Learned codes: losses, what the networks compute, training through a base model, and the exported pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from collage.model_info import CodeInfo, ModelKind
from encoder.learned import BASE
from frontend.own_code import load_networks
from models import checkpoint, coding, learned_export, zoo
from models.data import Dataset, load
from models.export import ExportError, export
from models.learned_code import CodeNetworks, conv_encoder, joint, losses, mlp_decoder, mlp_encoder
from models.measure import OnnxModel, describe
from models.steps import Protection, Recipe, Step
from models.tasks.learned import LearnCode
from models.train import run
from tests.models.exports import LOG, RECIPE
from tests.models.runs import trainer

SIZE, CLASSES = 6, 4


class Base(nn.Module):
    """A base model of one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(3 * SIZE * SIZE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.matrix(x.flatten(1))
        return out


def networks(members: int, inputs: int, encoder: str = "conv") -> CodeNetworks:
    torch.manual_seed(0)
    made = CodeNetworks(encoder, SIZE, CLASSES, members, inputs)
    made.protect(Base(), (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    return made


def test_every_loss_of_r_outputs_but_that_of_all_redundant_ones() -> None:
    assert losses(2, 1).tolist() == [[True, False, False], [False, True, False]]
    found = losses(2, 2)
    assert found.shape == (5, 4)
    assert (found.sum(1) == 2).all()
    assert not (found[:, 2] & found[:, 3]).any()


def test_networks_have_the_papers_layers() -> None:
    convolutions = [layer for layer in conv_encoder(3, 2) if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation[0] for layer in convolutions] == [1, 1, 2, 4, 8, 1, 1]
    assert [layer.out_channels for layer in convolutions] == [60] * 6 + [2]
    assert [layer.kernel_size[0] for layer in convolutions] == [3] * 6 + [1]
    assert conv_encoder(3, 2)(torch.zeros(1, 3, 9, 9)).shape == (1, 2, 9, 9)
    linear = [layer.weight.shape for layer in mlp_encoder(2, 1, 5) if isinstance(layer, nn.Linear)]
    assert linear == [(50, 50), (25, 50)]
    assert [tuple(layer.weight.shape) for layer in mlp_decoder(2, 1, 10) if isinstance(layer, nn.Linear)] == [
        (20, 30), (20, 20), (20, 20),
    ]  # fmt: skip
    assert isinstance(conv_encoder(2, 1)[-1], nn.Conv2d)
    assert isinstance(mlp_decoder(2, 1, 10)[-1], nn.Linear)


@pytest.mark.parametrize("encoder", ["conv", "mlp"])
def test_colours_are_encoded_one_by_one(encoder: str) -> None:
    made, x = networks(2, 1, encoder), torch.randn(3, 6, SIZE, SIZE)
    coded = made.encoded(x)
    assert coded.shape == (3, 1, 3, SIZE, SIZE)
    of_green = made.encoder(x[:, [1, 4]]).sigmoid()
    torch.testing.assert_close(coded[:, :, 1], of_green)
    changed = x.clone()
    changed[:, [0, 3]] += 1
    assert torch.equal(made.encoded(changed)[:, :, 1:], coded[:, :, 1:])


@pytest.mark.parametrize("training", [True, False])
def test_what_is_lost_reaches_the_decoder_as_zeros(training: bool) -> None:
    made, x = networks(2, 2).train(training), torch.randn(3, 6, SIZE, SIZE)
    (base,) = made.base
    own = base(x.view(3, 2, 3, SIZE, SIZE).flatten(0, 1)).view(3, 2, CLASSES)
    pixels = (made.encoded(x) - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.2
    outputs = torch.cat((own, base(pixels.flatten(0, 1)).view(3, 2, CLASSES)), 1)
    gone = losses(2, 2) if training else torch.tensor([[True, False, False, False], [False, True, False, False]])
    out = made(x)
    assert out.shape == (3, len(gone) + 1, 2, CLASSES)
    torch.testing.assert_close(out[:, -1], own)
    for number, lost in enumerate(gone):
        known = outputs * ~lost[:, None]
        torch.testing.assert_close(out[:, number], made.decoder(known.flatten(1)).view(3, 2, CLASSES))


def test_the_base_model_is_no_part_of_the_networks_and_stays_as_it_is() -> None:
    made = networks(2, 1)
    assert all(name.startswith(("encoder.", "decoder.")) for name in made.state_dict())
    made.train()
    (base,) = made.base
    assert not base.training
    made(torch.randn(2, 6, SIZE, SIZE)).sum().backward()
    assert all(weight.grad is None for weight in base.parameters())
    assert all(weight.grad is not None for weight in made.parameters())


def test_a_joint_code_has_a_parity_model_that_learns_with_it() -> None:
    torch.manual_seed(0)
    made = joint(8, CLASSES, 2, 1, widths=(4, 4, 4, 4), stem="small")
    with pytest.raises(ValueError, match="not enough values"):
        made(torch.randn(2, 6, 8, 8))
    made.protect(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, CLASSES)), (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    made.train()
    made(torch.randn(2, 6, 8, 8)).sum().backward()
    assert all(weight.grad is not None for weight in made.parameters())
    names = {name.partition(".")[0] for name in made.state_dict()}
    assert names == {"encoder", "decoder", "parity"}
    assert isinstance(made.parity, nn.Module)
    with torch.no_grad():  # what it puts out is what is decoded from, and the base model's outputs stay as they are
        own = made.eval()(torch.zeros(1, 6, 8, 8))
        for weight in made.parity.fc.parameters():
            weight.zero_()
        other = made(torch.zeros(1, 6, 8, 8))
    torch.testing.assert_close(other[:, -1], own[:, -1])
    assert not torch.equal(other[:, :-1], own[:, :-1])


def test_a_joint_code_is_exported_with_its_parity_model(tmp_path: Path, folder: Path, data: Dataset) -> None:
    base = trainer(data, "resnet32")
    checkpoint.save(tmp_path / "base.pt", base.spec, base.model, recipe=RECIPE, log=LOG)
    export(tmp_path / "base.pt", tmp_path / "base.onnx")
    recipe = Recipe(epochs=1, batch=24, adam_lr=0.003, shift=0)
    step = Step(
        "learned-joint",
        size=16,
        options={"widths": [4] * 4, "stem": "small"},
        recipe=recipe,
        base=str(tmp_path / "base.pt"),
    )
    out = tmp_path / "fashion-mnist-learned-joint.pt"
    run(replace(step, protects=Protection("learned", 2)), folder, out, device="cpu", precision="fp32", threads=1)
    files = learned_export.export_networks(out, tmp_path / "code", tmp_path / "base.onnx")
    assert [file.name for file in files] == ["encoder.onnx", "decoder.onnx", "parity.onnx"]
    parity = OnnxModel(files[-1])
    version = describe(tmp_path / "base.onnx").version
    assert parity.info.kind is ModelKind.PARITY
    assert parity.info.code == CodeInfo("learned", 2, base=version)
    _, model, _ = checkpoint.load(out)
    assert isinstance(model, CodeNetworks)
    assert isinstance(model.parity, nn.Module)
    images = load(folder, 16).test.images[:3]
    spec = base.spec
    wanted = model.parity(spec.normalise(torch.from_numpy(images))).detach()
    np.testing.assert_allclose(parity(images)[0], wanted, atol=1e-4)


def test_the_loss_is_of_lost_members_over_all_losses() -> None:
    out, rng = torch.randn(3, 5 + 1, 2, CLASSES), np.random.default_rng(0)
    targets = torch.eye(CLASSES)[torch.tensor([0, 1, 2, 3, 0, 1])]
    images = torch.zeros(6, SIZE, SIZE, 3, dtype=torch.uint8)
    batch = LearnCode(2, 2).batch(images, targets, rng)
    assert batch.pixels.shape == (3, 2, SIZE, SIZE, 3)
    own = out[:, -1]
    parts = [
        (out[:, number, place] - own[:, place]).square().mean(1)
        for number, lost in enumerate(losses(2, 2).tolist()) for place in range(2) if lost[place]
    ]  # fmt: skip
    torch.testing.assert_close(batch.loss(out), torch.stack(parts, 1).mean())
    more = LearnCode(2, 1, member=0.5, distil=0.25)
    single = out[:, [0, 1, -1]]
    plain = LearnCode(2, 1).batch(images, targets, rng).loss(single)
    lost = torch.stack((single[:, 0, 0], single[:, 1, 1]), 1).flatten(0, 1)
    wanted = 0.75 * targets + 0.25 * own.softmax(-1).flatten(0, 1)
    torch.testing.assert_close(
        more.batch(images, targets, rng).loss(single) - plain, 0.5 * F.cross_entropy(lost, wanted)
    )


def test_the_score_is_of_each_member_when_it_alone_is_lost() -> None:
    out = torch.zeros(2, 3, 2, CLASSES)
    out[0, 0, 0, 1] = out[0, 1, 1, 2] = out[1, 0, 0, 3] = out[1, 1, 1, 0] = 1
    images = torch.zeros(4, SIZE, SIZE, 3, dtype=torch.uint8)
    assert LearnCode(2, 1).score(lambda _: out, images, torch.tensor([1, 2, 3, 3])).tolist() == [
        True,
        True,
        True,
        False,
    ]


def test_a_code_is_learnt_through_a_base_model_and_exported(
    tmp_path: Path, folder: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    base = trainer(data, "resnet32", epochs=3)
    while not base.finished:
        base.run_epoch()
    base.save(tmp_path / "base.pt")
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    recipe = Recipe(epochs=3, batch=24, adam_lr=0.003, member=0.0, shift=0, flip=False)
    step = Step("learned-conv", size=16, recipe=recipe, base=str(tmp_path / "base.pt"))
    out = tmp_path / "code.pt"
    run(replace(step, protects=Protection("learned", 2)), folder, out, device="cpu", precision="fp32", threads=1)
    spec, model, content = checkpoint.load(out)
    assert spec.kind == "learned"
    assert isinstance(model, CodeNetworks)
    losses_ = [epoch["loss"] for epoch in content["log"]]
    assert losses_[-1] < losses_[0]
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())

    export(tmp_path / "base.pt", tmp_path / "base.onnx")
    learned_export.main([str(out), "--out", str(tmp_path / "code"), "--base", str(tmp_path / "base.onnx")])
    assert "code/encoder.onnx" in capsys.readouterr().out
    encoder, decoder = (
        ort.InferenceSession(tmp_path / "code" / f"{part}.onnx", providers=["CPUExecutionProvider"])
        for part in ("encoder", "decoder")
    )
    images = load(folder, 16).test.images[:2]
    assert decoder.get_modelmeta().custom_metadata_map[BASE] == describe(tmp_path / "base.onnx").version
    shapes = [each.shape for each in (*encoder.get_inputs(), *encoder.get_outputs(), *decoder.get_inputs())]
    assert shapes == [[2, 16, 16, 3], [1, 16, 16, 3], [3, 10]], "a frontend reads N and r from them"
    (coded,) = encoder.run(None, {"images": images})
    assert (coded.shape, coded.dtype) == ((1, 16, 16, 3), np.uint8)
    wanted = 255 * model.encoded(spec.normalise(torch.from_numpy(images[None]))).detach()[0].permute(0, 2, 3, 1)
    assert np.abs(coded - wanted.numpy()).max() <= 1
    outputs = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    (decoded,) = decoder.run(None, {"outputs": outputs})
    np.testing.assert_allclose(decoded, model.decoded(torch.from_numpy(outputs)).detach(), atol=1e-4)


def test_the_zoo_exports_a_learned_code_for_its_base_model(tmp_path: Path, folder: Path, data: Dataset) -> None:
    entries = list(zoo.entries([folder], tmp_path / "runs", tmp_path / "models", ["*-s-cnn-mlp", "*-learned-mlp-mlp"]))
    (tmp_path / "runs").mkdir()
    for entry in entries:
        spec = replace(trainer(data, "resnet32").spec, architecture=entry.step.model, size=32)
        if coding.is_learned(entry.step):
            spec = replace(spec, code=coding.described(Protection("learned", 2)))
        checkpoint.save(entry.checkpoint, spec, spec.build(), recipe=RECIPE, log=LOG)
        zoo.publish(entry, tmp_path / "models" / "fashion-mnist-s-cnn.onnx")
    base, networks = (entry.onnx for entry in entries)
    assert networks == tmp_path / "runs" / "zoo" / "fashion-mnist-learned-mlp-mlp" / "decoder.onnx"
    assert load_networks(networks.parent).base == describe(base).version


def test_a_learned_code_is_no_single_file(tmp_path: Path, data: Dataset) -> None:
    spec = replace(trainer(data, "resnet32").spec, architecture="learned-mlp", size=4)
    spec = replace(spec, code=coding.described(Protection("learned", 2)))
    checkpoint.save(tmp_path / "code.pt", spec, spec.build(), recipe=RECIPE, log=LOG)
    with pytest.raises(ExportError, match=r"models\.learned_export"):
        export(tmp_path / "code.pt", tmp_path / "code.onnx")


def test_only_learned_codes_are_exported_as_such(tmp_path: Path, data: Dataset) -> None:
    run_ = trainer(data, "resnet32")
    checkpoint.save(tmp_path / "s-cnn.pt", run_.spec, run_.model, recipe=RECIPE, log=LOG)
    with pytest.raises(ExportError, match="holds a s-cnn, no encoder"):
        learned_export.export_networks(tmp_path / "s-cnn.pt", tmp_path / "code")
    assert not (tmp_path / "code").exists()
