"""Export an encoder and its decoder: ``python -m models.learned_export CHECKPOINT --out FOLDER``.

It writes FOLDER/encoder.onnx and FOLDER/decoder.onnx, which a frontend runs with ``--code learned:FOLDER``: images of a
group to redundant inputs, and outputs to what is missing. Export fails unless ONNX Runtime gives what torch gives.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoder.learned import BASE
from models import checkpoint
from models.checkpoint import ModelSpec
from models.export import ExportError, export, probes, to_graph
from models.learned_code import CodeNetworks
from models.measure import describe

TOLERANCE = 1e-3
"""Of the decoder's outputs, as a share of their root mean square; redundant inputs may differ by 1 of 255."""


class ServedEncoder(nn.Module):
    """Images of one group uint8 ``[N, size, size, 3]`` to redundant inputs uint8 ``[r, size, size, 3]``."""

    def __init__(self, spec: ModelSpec, networks: CodeNetworks) -> None:
        super().__init__()
        self.spec, self.networks = spec, networks

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        coded = self.networks.encoded(self.spec.normalise(images[None]))[0]
        return (coded * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class ServedDecoder(nn.Module):
    """Outputs of one group float32 ``[N + r, m]``, zeros for what is missing, to those of its members ``[N, m]``."""

    def __init__(self, networks: CodeNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, outputs: Tensor) -> Tensor:
        """See the class."""
        return self.networks.decoded(outputs[None])[0]


def export_networks(source: Path, folder: Path, base: Path | None = None) -> list[Path]:
    """Write the files of a checkpoint; raises ExportError, and writes none, where ONNX Runtime differs.

    A parity model that was trained with the two networks becomes ``parity.onnx``, for a worker. The decoder's metadata,
    and its own, tell the version of ``base``, the file that they were trained for, if it is given.
    """
    spec, networks, content = checkpoint.load(source)
    if not isinstance(networks, CodeNetworks):
        raise ExportError(f"{source} holds a {spec.kind}, no encoder and decoder")
    images = probes(spec.size)[-networks.members :]
    rng = np.random.default_rng(0)
    outputs = rng.normal(0, 3, (networks.members + networks.inputs, len(spec.labels))).astype(np.float32)
    graphs = []
    for name, network, example, allowed in (
        ("images", ServedEncoder(spec, networks), images, 1.0),
        ("outputs", ServedDecoder(networks), outputs, TOLERANCE),
    ):
        graph = to_graph(network.eval(), torch.from_numpy(example), name, ["coded" if name == "images" else "decoded"])
        if base and name == "outputs":
            graph.metadata_props.add(key=BASE, value=describe(base).version)
        graphs.append(graph.SerializeToString())
        _check(network, graphs[-1], example, allowed)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{part}.onnx" for part in ("encoder", "decoder")]
    if networks.parity:
        its = replace(spec, architecture="resnet18", code=replace(spec.code, stacked=False) if spec.code else None)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / f"{source.stem}.pt"
            told = {name: content[name] for name in ("recipe", "log", "lineage") if name in content}
            checkpoint.save(file, its, networks.parity, **told)
            files.append(folder / "parity.onnx")
            export(file, files[-1], name=source.stem, base=base)
    for path, written in zip(files, graphs, strict=False):
        with checkpoint.written(path) as partial:
            partial.write_bytes(written)
    return files


def _check(network: nn.Module, graph: bytes, example: NDArray[Any], allowed: float) -> None:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: example})
    with torch.inference_mode():
        wanted = network(torch.from_numpy(example)).numpy()
    scale = 1.0 if wanted.dtype == np.uint8 else max(float(np.sqrt(np.square(wanted).mean())), 0.01)
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max() / scale
    if found.shape != wanted.shape or found.dtype != wanted.dtype or not difference <= allowed:
        raise ExportError(f"ONNX Runtime and torch differ by {difference:.2g}, allowed {allowed:.2g}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a file written by models.train --code learned")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--base", type=Path, help="the served base model's file, so that they decode for no other")
    args = parser.parse_args(arguments)
    try:
        files = export_networks(args.checkpoint, args.out, args.base)
    except ExportError as error:
        raise SystemExit(f"not exported: {error}") from None
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
