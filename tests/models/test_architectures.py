from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from encoder.collage import CollageCode, Detections
from encoder.grid import Grid
from models.collage_cnn import (
    CollageResNet,
    CollageTiny,
    CollageVGG,
    CollageYolo,
    cell_scores,
    collage_loss,
    detections,
    responsible,
)
from models.measure import decode
from models.mobilenet import MobileNetV2
from models.resnet import resnet18, resnet32, resnet34
from models.vgg import VGG11

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{entry}": (width,) for entry in BATCH_NORM} | {f"{name}.num_batches_tracked": ()}


def torchvision_entries(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's resnet18 or resnet34 checkpoint."""
    entries: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    before = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            entries |= {f"{name}.conv1.weight": (width, before, 3, 3)} | batch_norm(f"{name}.bn1", width)
            entries |= {f"{name}.conv2.weight": (width, width, 3, 3)} | batch_norm(f"{name}.bn2", width)
            if before != width:
                entries |= {f"{name}.downsample.0.weight": (width, before, 1, 1)}
                entries |= batch_norm(f"{name}.downsample.1", width)
            before = width
    return entries | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("make", "blocks", "entries", "parameters"),
    [(resnet18, (2, 2, 2, 2), 122, 11_689_512), (resnet34, (3, 4, 6, 3), 218, 21_797_672)],
)
def test_resnets_have_torchvisions_names_and_shapes(make, blocks, entries, parameters) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        model = make(1000)
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert found == torchvision_entries(blocks)
    assert len(found) == entries
    assert sum(weight.numel() for weight in model.parameters()) == parameters  # as torchvision documents
    assert {"bn1.running_mean", "layer4.1.bn2.running_var", "layer3.0.downsample.1.num_batches_tracked"} <= found.keys()
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_resnet34_has_33_convolutions_and_resnet32_31_in_the_trunk() -> None:
    with torch.device("meta"):
        for model, count in ((resnet34(10, "small"), 33), (resnet32(10), 31)):
            assert len([conv for conv in convolutions(model) if conv.kernel_size != (1, 1)]) == count
            assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)


def test_widths_make_a_smaller_resnet18() -> None:
    with torch.device("meta"):
        model = resnet18(10, "small", widths=(16, 32, 64, 128))
    assert model.fc.in_features == 128
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_mobilenet_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        model = MobileNetV2(1000)
        trunk = model.features(torch.empty(1, 3, 224, 224))
        small = MobileNetV2(10, "small").features(torch.empty(1, 3, 32, 32))
    entries = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert sum(weight.numel() for weight in model.parameters()) == 3_504_872  # as torchvision documents
    assert len(entries) == 314
    for name, shape in {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_mean": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),  # no expansion
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.2.conv.2.weight": (24, 96, 1, 1),
        "features.17.conv.3.running_var": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    }.items():
        assert entries[name] == shape
    assert (trunk.shape, small.shape) == ((1, 1280, 7, 7), (1, 1280, 4, 4))


def test_vgg11_has_torchvisions_names_and_the_papers_widths() -> None:
    with torch.device("meta"):
        model, narrow = VGG11(10), VGG11(10, widths=(8, 16, 32, 64, 64), channels=6)
        assert model.features(torch.empty(1, 3, 64, 64)).shape == (1, 512, 2, 2)
        assert narrow(torch.empty(2, 6, 32, 32)).shape == (2, 10)
    found = {name: module.out_channels for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    numbers = (0, 4, 8, 11, 15, 18, 22, 25)  # torchvision's vgg11_bn
    assert found == dict(zip((f"features.{i}" for i in numbers), (64, 128, 256, 256, *4 * (512,)), strict=True))
    assert model.features[1].num_features == 64
    assert narrow.features[0].in_channels == 6


@pytest.mark.parametrize(("k", "kernel", "stride"), [(2, 7, 6), (3, 5, 4), (4, 4, 3), (5, 5, 2)])
def test_collage_tiny_is_the_papers_network(k: int, kernel: int, stride: int) -> None:
    with torch.device("meta"):
        model = CollageTiny(k, 416, 100)
        raw = model(torch.empty(2, 3, 416, 416))
        trunk = model.trunk(torch.empty(2, 3, 416, 416))
    found = convolutions(model)
    assert [conv.out_channels for conv in found] == [16, 32, 64, 128, 256, 512, 1024, 256, 512, 2 * (5 + 100)]
    assert [conv.kernel_size[0] for conv in found] == [3] * 7 + [1, kernel, 1]
    assert [conv.stride[0] for conv in found] == [1] * 8 + [stride, 1]
    assert (found[8].padding, found[9].bias is not None) == ((0, 0), True)
    assert trunk.shape == (2, 1024, 13, 13)
    assert raw.shape == (2, k, k, 2, 5 + 100)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_collage_tiny_takes_small_images(k: int) -> None:
    with torch.device("meta"):
        assert CollageTiny(k, 32 * k, 10)(torch.empty(1, 3, 32 * k, 32 * k)).shape == (1, k, k, 2, 15)
    with pytest.raises(ValueError, match=f"at least {32 * k} px"):
        CollageTiny(k, 32 * (k - 1), 10)


@pytest.mark.parametrize(("size", "pools", "side"), [(416, 5, 13), (96, 3, 12), (96, 4, 6), (96, 5, 3)])
def test_collage_yolo_keeps_the_feature_map(size: int, pools: int, side: int) -> None:
    with torch.device("meta"):
        model, tiny = CollageYolo(3, size, 10, pools), CollageTiny(3, 96, 10)
        raw = model(torch.empty(2, 3, size, size))
    assert raw.shape == (2, side, side, 2, 15)
    assert [conv.kernel_size[0] for conv in convolutions(model)] == [3] * 7 + [1, 3, 1]
    shapes = [{name: value.shape for name, value in one.trunk.state_dict().items()} for one in (model, tiny)]
    assert shapes[0] == shapes[1]  # the one can start from the other's weights
    with pytest.raises(ValueError, match="at least 64 px, got 32"):
        CollageYolo(2, 32, 10)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("side", [5, 6, 10, 12, 13])
def test_the_position_with_a_cells_centre_is_responsible(k: int, side: int) -> None:
    boxes = torch.from_numpy(Grid(k, 416).boxes.copy())
    rows, columns, offsets = responsible(boxes, side)
    centres = (torch.stack((columns, rows), -1) + offsets) / side
    torch.testing.assert_close(centres, (boxes[:, :2] + boxes[:, 2:]) / 2)
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == k * k
    assert offsets.min() > -1e-3
    assert offsets.max() < 1
    if side == k:
        assert (rows * k + columns).tolist() == list(range(k * k))


def test_centres_between_positions_are_treated_alike() -> None:
    for k, size, side in ((3, 96, 12), (3, 96, 6), (2, 64, 8), (5, 160, 10)):
        _, _, offsets = responsible(torch.from_numpy(Grid(k, size).boxes.copy()), side)
        assert offsets.abs().max() < 0.51
        assert offsets.std(0).max() < 1e-5


@pytest.mark.parametrize(("k", "side"), [(3, 3), (3, 13), (4, 6)])
def test_what_the_loss_asks_for_is_decoded_into_the_right_cells(k: int, side: int) -> None:
    """Outputs that the loss is content with, on any map, decode by IoU to every cell's own class."""
    torch.manual_seed(0)
    grid = Grid(k, 416)
    boxes = torch.from_numpy(grid.boxes.copy())
    labels = torch.randint(0, 3, (2, grid.cells))
    filled = torch.ones(2, grid.cells, dtype=torch.bool)
    filled[0, 1] = False
    raw = torch.zeros(2, side, side, 2, 5 + 3, requires_grad=True)
    optimiser = torch.optim.Adam([raw], 1.0)
    for _ in range(60):
        loss = collage_loss(raw, one_hot(labels), filled, boxes)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert loss < 0.01
    assert (cell_scores(raw, boxes).argmax(-1) == labels)[filled].all()
    found = [output.detach().numpy() for output in detections(raw, k, (1.0, 0.5))]
    for collage in range(2):
        predictions = decode(CollageCode(grid), Detections(*(output[collage] for output in found)))
        decoded = [
            int(predictions[cell].output.argmax()) if cell in predictions else None for cell in range(grid.cells)
        ]
        assert decoded == [
            int(label) if full else None for label, full in zip(labels[collage], filled[collage], strict=True)
        ]


def test_a_finer_map_does_not_drown_the_cells() -> None:
    """An unsure image costs as much confidence loss among 13 x 13 positions as among 3 x 3."""
    boxes = torch.from_numpy(Grid(3, 416).boxes.copy())
    targets, filled = one_hot(torch.zeros(1, 9, dtype=torch.int64)), torch.ones(1, 9, dtype=torch.bool)
    steepness = []
    for side in (3, 13):
        raw = torch.zeros(1, side, side, 2, 5 + 3, requires_grad=True)
        collage_loss(raw, targets, filled, boxes).backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None
        rows, columns, _ = responsible(boxes, side)
        steepness.append(raw.grad[0, rows, columns, 0, 4])
    torch.testing.assert_close(steepness[0], steepness[1])


def test_cell_scores_are_those_of_the_surer_anchor() -> None:
    boxes = torch.from_numpy(Grid(2, 64).boxes.copy())
    raw = torch.zeros(1, 4, 4, 2, 5 + 3)
    raw[0, 1, 3, :, 4] = torch.tensor([-1.0, 1.0])
    raw[0, 1, 3, 0, 5:], raw[0, 1, 3, 1, 5:] = torch.tensor([9.0, 0, 0]), torch.tensor([0, 9.0, 0])
    rows, columns, _ = responsible(boxes, 4)
    assert (rows.tolist(), columns.tolist()) == ([1, 1, 3, 3], [1, 3, 1, 3])
    assert cell_scores(raw, boxes)[0, 1].tolist() == [0, 9, 0]


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("architecture", [CollageResNet, CollageVGG])
def test_shapes_of_our_own(architecture: type[CollageResNet | CollageVGG], k: int) -> None:
    model = architecture(k, 32 * k, 10, widths=(4, 8, 8))
    assert model(torch.zeros(2, 3, 32 * k, 32 * k)).shape == (2, k, k, 1, 15)
    assert model(torch.zeros(2, 3, 16 * k, 16 * k)).shape == (2, k, k, 1, 15)  # trained at another resolution
    with pytest.raises(ValueError, match=r"do not align|cannot be halved"):
        architecture(k, 34 * k, 10)


@pytest.mark.parametrize("architecture", [CollageResNet, CollageVGG])
def test_every_cell_is_told_where_it_lies(architecture: type[CollageResNet | CollageVGG]) -> None:
    model = architecture(2, 32, 3, widths=(4, 8, 8)).eval()
    nn.init.normal_(model.head.weight)
    cells = model(torch.zeros(1, 3, 32, 32))[0, 1, 1].clone()
    with torch.no_grad():
        for embedding in model.embeddings:
            nn.init.normal_(embedding)
    assert (model(torch.zeros(1, 3, 32, 32))[0, 1, 1] - cells).abs().max() > 1e-3


def test_collage_vgg_starts_with_copies_of_its_channels() -> None:
    model = CollageVGG(2, 64, 3, widths=(4, 8, 8))
    for stage in model.stages:
        for conv in (module for module in stage.modules() if isinstance(module, nn.Conv2d)):
            x = torch.rand(1, conv.in_channels, 4, 4)
            torch.testing.assert_close(conv(x)[:, : conv.in_channels], x)


def test_detections_geometry() -> None:
    raw = torch.zeros(1, 2, 2, 2, 5 + 3)
    raw[0, 1, 0, 0, 4] = 10.0  # row 1, column 0, first anchor
    raw[0, 1, 0, 0, 5:] = torch.tensor([0.0, 5.0, 0.0])
    raw[0, 0, 1, 1, :4] = torch.tensor([100.0, -100.0, np.log(2), 99.0])  # pushed right and up, twice as wide, clamped
    boxes, confidences, probabilities = detections(raw, 2, (1.0, 0.5))
    assert (boxes.shape, confidences.shape, probabilities.shape) == ((1, 8, 4), (1, 8), (1, 8, 3))
    assert {boxes.dtype, confidences.dtype, probabilities.dtype} == {torch.float32}
    # Zeros are the cell itself for the first anchor, and half of it for the second; cells are numbered row by row.
    cells = torch.from_numpy(Grid(2, 64).boxes.copy())
    torch.testing.assert_close(boxes[0, 0::2], cells)
    torch.testing.assert_close(boxes[0, 1], torch.tensor([0.125, 0.125, 0.375, 0.375]))
    side = 0.25 * np.exp(4)
    wanted = torch.tensor([1 - 0.25, 0 - side / 2, 1 + 0.25, side / 2], dtype=torch.float32)
    torch.testing.assert_close(boxes[0, 3], wanted)
    assert confidences[0].argmax() == 4
    assert confidences[0, 4] > 0.99
    assert confidences[0, 0] == 0.5
    assert probabilities[0, 4].argmax() == 1
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(1, 8))


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(labels.clamp(0), 3).float()


@pytest.mark.parametrize(
    "make",
    [
        lambda: CollageResNet(2, 32, 3, widths=(8, 8, 16)),
        lambda: CollageVGG(2, 32, 3, widths=(8, 8, 16)),
        lambda: CollageTiny(2, 64, 3),
    ],
)
def test_loss_falls_until_collages_are_known(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = make()
    size = 64 if isinstance(model, CollageTiny) else 32
    collages = torch.randn(4, 3, size, size)
    labels = torch.randint(0, 3, (4, 4))
    labels[0, 1] = -1
    boxes = torch.from_numpy(Grid(2, size).boxes.copy())
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(120 if size == 32 else 15):
        loss = collage_loss(model(collages), one_hot(labels), labels >= 0, boxes)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0]
    _, confidences, probabilities = detections(model(collages), model.k, model.anchors)
    anchors = len(model.anchors)
    matched = probabilities[:, ::anchors].argmax(-1)
    assert (matched == labels)[labels >= 0].all()
    assert (confidences[:, ::anchors][labels >= 0]).mean() > confidences[0, anchors]


def test_loss_of_perfect_outputs_is_nearly_zero() -> None:
    grid = Grid(3, 96)
    labels = torch.arange(9).view(1, 9) % 3
    labels[0, 4] = -1
    raw = torch.zeros(1, 3, 3, 2, 5 + 3)
    raw[..., 4] = -30.0
    raw.view(1, 9, 2, 8)[0, :, 0, 4] = torch.where(labels[0] >= 0, 30.0, -30.0)
    raw.view(1, 9, 2, 8)[0, :, 0, 5:] = 40.0 * nn.functional.one_hot(labels[0].clamp(0), 3)
    boxes = torch.from_numpy(grid.boxes.copy())
    assert collage_loss(raw, one_hot(labels), labels >= 0, boxes) < 1e-6
    assert collage_loss(raw.roll(1, 2), one_hot(labels), labels >= 0, boxes) > 1
