"""Write model cards from what the files say of themselves and from what an evaluation measured.

``python -m models.cards --models models/zoo --figures docs/results/evaluate.json`` writes ``models/zoo/README.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collage.figures import Row
from collage.model_info import ModelInfo, ModelKind
from models.evaluate import discover
from models.measure import OnnxModel
from models.recipes import FAMILIES, Family

INTRODUCTION = """# Model zoo

Written by `make cards` from each file's own description and from the measurements in `docs/results/evaluate.json`
({machine}). Weights are stored as each card says and computed in float32; the description travels in the file's
metadata. Epochs, widths and thresholds were chosen on validation images cut from the training data; test images served
for the figures below and nothing else, three random placements of each for a collage-cnn. `make zoo` builds these
files, and the models of the evaluation that are not kept here. A card tells of a model's last run; what that started
from, other runs or the mean of some, and who taught it, is in its [recipe](../recipes.py).
"""


def card(info: ModelInfo, row: Row, family: Family | None) -> str:
    """One model's card, in Markdown."""
    extra: Mapping[str, Any] = info.extra
    collage = info.kind is ModelKind.COLLAGE_CNN
    settings = ", ".join(f"{name} {value}" for name, value in extra["recipe"].items() if value)
    lines = [
        f"## {info.name}",
        "",
        f"{info.kind}, {extra['architecture']}"
        + (f", {info.k} x {info.k} collages of {info.size} px" if collage else f", images of {info.size} px"),
        "",
        f"- Data: {extra['dataset']}{f': {family.source}. Licence: {family.licence}' if family else ''}.",
        f"- Recipe: its last run ended after {extra['epochs']} epochs and {extra['training_s'] / 60:.0f} minutes, with "
        f"seed {extra['seed']}, on two cores that had other work. Settings of `models.train`: {settings}.",
        f"- Accuracy: {_percent(row['top1'])} top-1 on {row['images']:,} test images, "
        f"{_percent(extra['validation_accuracy'])} on validation images; {extra['storage']} weights changed the latter "
        f"by {100 * extra['accuracy_change']:+.2f} points.",
    ]
    if collage:
        found = extra["calibration"]
        lines += [
            f"- Cells answered: {_percent(row['accepted_share'])}. Top-1 by placement: "
            + ", ".join(_percent(row[key]) for key in row if key.startswith("top1_seed_") and row[key] is not None)
            + ".",
            f"- Calibration: from confidence {info.accept_threshold:.3f} on, {_percent(found['coverage'])} of the "
            f"validation cells agree with the s-cnn in {_percent(found['agreement'])} of the cases, the s-cnn with the "
            f"truth in {_percent(found['target'])}. Test images: {_percent(row['coverage'])} of the cells, "
            f"{_percent(row['covered_agreement'])} as the s-cnn, {_percent(row['covered_top1'])} right.",
        ]
    lines.append(
        f"- Latency: {1e3 * float(row['latency_s'] or 0):.1f} ms on one thread, {row['latency_ratio']:.2f} of the "
        f"s-cnn's in the same run. Size: {float(row['size_bytes'] or 0) / 1e6:.1f} MB."
    )
    return "\n".join(lines) + "\n"


def write(zoo: Path, figures: Path) -> Path:
    """Write the cards of all models in a folder that were measured in ``figures``; returns the file."""
    content = json.loads(figures.read_text())
    rows: Sequence[Row] = content["rows"]
    measured = {row["model"]: row for row in rows}
    machine = content["machine"]
    text = [INTRODUCTION.format(machine=f"{machine['cores']} cores of {machine['cpu']}")]
    for dataset, roles in discover([zoo]).items():
        family = next((family for family in FAMILIES if dataset in family.data_sets), None)
        for role, path in roles.items():
            info = OnnxModel(path).info
            if (row := measured.get(f"{dataset}-{role}")) and row["version"] == info.version:
                text.append(card(info, row, family))
    out = zoo / "README.md"
    out.write_text("\n".join(text))
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of exported models")
    parser.add_argument("--figures", type=Path, required=True, help="evaluate.json of the same files")
    args = parser.parse_args(arguments)
    print(f"written: {write(args.models, args.figures)}")


def _percent(share: Any) -> str:
    return "-" if share is None else f"{100 * float(share):.2f} %"


if __name__ == "__main__":
    main()
