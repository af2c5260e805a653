"""Arabic speech commands as spectrograms: a VGG-11, and parity models that start from its weights."""

from __future__ import annotations

from typing import Any

from models.recipes.parity import additions, protecting
from models.steps import S_CNN, Family, Protection, Recipe, Step

# Time has a direction, so nothing is mirrored. Shifts move a word in time, and a voice a little up or down.
_SEEN: dict[str, Any] = {"flip": False, "shift": 4, "batch": 128}
_S_CNN = Step(
    "vgg11",
    size=64,
    options={"widths": [32, 64, 128, 256, 256]},
    recipe=Recipe(epochs=12, cutout=20, mixup=0.3, **_SEEN),
)
_PARITY: dict[str, Any] = {"epochs": 60, **_SEEN}

SPEECH = Family(
    data_sets=("arabic-speech-commands",),
    source="Arabic Speech Commands (Ghandoura, Hjabo and Al Dakkak, 2021): 40 words of 30 speakers, as spectrograms; "
    "no speaker is in two of its parts",
    licence="CC BY 4.0",
    ships=(),
    steps={
        S_CNN: _S_CNN,
        **additions(S_CNN, _S_CNN, 2, **_PARITY),
        **protecting(S_CNN, _S_CNN, Protection("addition", 2, keyed=True), **_PARITY),
        **protecting(S_CNN, _S_CNN, Protection("stacked", 2), **_PARITY),
    },
)
