"""Wrong versions of parity models, learned codes, and the measurement of what is lost."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "models/tasks/parity.py",
        [
            ("the base model is asked again about every image", "if key not in self._scored:", "if True:"),
            (
                "all images are scored by the first ones' answers",
                "key = sha256(images.cpu().numpy().tobytes()).digest()",
                'key = b""',
            ),
            ("errors are not multiplied by decoding", "error[:, None] / weights", "error[:, None]"),
            ("the loss of decoded members counts in full", "self.member * self.task.loss", "self.task.loss"),
            (
                "targets are not moved towards the base model",
                "wanted = self.task.moved(wanted, own, self.distil)",
                "",
            ),
            ("every model learns the first input", "[*group])[self.row]", "[*group])[0]"),
            ("stored outputs are not learnt", "if self.stored:", "if False:"),
        ],
    ),
    (
        "models/tasks/learned.py",
        [
            ("answers that are not lost count", ".square().mean(-1)[:, lost].mean()", ".square().mean()"),
            ("the score is of any member", "out[:, places, places]", "out[:, 0]"),
        ],
    ),
    (
        "models/learned_code.py",
        [
            ("the base model is trained", "base.requires_grad_(False)", "base.requires_grad_(True)"),
            ("a loss of redundant inputs alone is learnt", "if gone[0] < members", ""),
            (
                "what is lost reaches the decoder",
                "outputs[:, None] * kept[..., None]",
                "outputs[:, None] + 0 * kept[..., None]",
            ),
            ("the base model runs what a joint code's own model should", "run = self.parity or base", "run = base"),
            ("all losses in an evaluation", "if self.training else", "if True else"),
        ],
    ),
    (
        "models/lost.py",
        [
            ("members that fill up count", "if done + place < len(split)", ""),
            ("what cannot be decoded is right", "0.0 if output is None else", "1.0 if output is None else"),
            (
                "every model runs the first input",
                "inputs[row] for inputs in encoded",
                "inputs[0] for inputs in encoded",
            ),
            ("a rank too many", ".sum() < most", ".sum() <= most"),
            ("boxes are judged as classes", "if split.boxes is not None:", "if False:"),
            ("own answers of members that are not sent alone", "if work.alone else {}", ""),
        ],
    ),
    (
        "models/boxes.py",
        [
            (
                "mirrored boxes stay where they were",
                "np.where(flipped, 1 - right, left)",
                "np.where(flipped, left, left)",
            ),
            ("boxes do not move with a window", "(boxes.reshape(-1, 2, 2) - corner)", "boxes.reshape(-1, 2, 2)"),
            ("boxes reach beyond what is seen", ".reshape(-1, 4).clip(0, 1)", ".reshape(-1, 4)"),
            ("the last pixel of a box is not in it", "int(right) + 1", "int(right)"),
        ],
    ),
    (
        "models/tasks/localisation.py",
        [
            ("boxes that do not touch their target learn nothing", "+ 4 * F.l1_loss(out, targets)", ""),
            ("boxes beyond the image are scored whole", ".clamp(0, 1)", ""),
        ],
    ),
    (
        "models/coding.py",
        [
            ("a row of its own is not used", "weights[its.row] = its.weights", ""),
            ("members of plain sums are turned", "if its.keyed else ()", ""),
        ],
    ),
    (
        "bench/runs/codes.py",
        [
            ("codes of another base model are measured", 'fits = version in ("", base.info.version)', "fits = True"),
            (
                "rows are written when all are known",
                "                    file = write_figures(",
                "                file = write_figures(",
            ),
            ("a batch costs as much as an image", "split.images[:32], work.batch)", "split.images[:32])"),
            ("a code with a model missing is measured", "or len(its) < first.inputs", ""),
        ],
    ),
]
MUTANTS = [Mutant(f"protecting: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
