"""Wrong versions of the codes of parity models, of Berrut's and of learned ones, and of how they are served."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "encoder/linear.py",
        [
            ("what leaves a byte wraps around", ".clip(0, 255, out=total)", ""),
            ("keys are ignored", "        if self.keys:\n", "        if False:\n"),
            (
                "every member has the first one's key",
                "zip(present, self.keys, strict=True)",
                "zip(present, self.keys[:1] * 99)",
            ),
            ("mirrored keys are those that are not", "pixels[::-1] if key >= 4 else pixels", "pixels"),
            (
                "means of whole numbers are rounded down",
                "np.full(images[0].shape, whole // 2, np.uint16)",
                "np.full(images[0].shape, 0, np.uint16)",
            ),
            ("sums of whole numbers run over", "_MOST_PARTS = 256", "_MOST_PARTS = 300"),
            ("any weights are whole numbers", "< 1e-6 * total:", "< 1.0:"),
            ("a weight of whole numbers counts once", "total += image.astype(np.uint16) * part", "total += image"),
        ],
    ),
    (
        "encoder/heads.py",
        [
            ("answers are those of the next place", "place: Decoding(rows[place])", "place: Decoding(rows[place - 1])"),
            (
                "members with an answer of their own are decoded",
                "if place not in own and np.isfinite",
                "if np.isfinite",
            ),
            (
                "rows that are not finite are answers",
                "if place not in own and np.isfinite(rows[place]).all()",
                "if place not in own",
            ),
            (
                "a block counts as its rows alone",
                "np.floor_divide(sums, rows * columns,",
                "np.floor_divide(sums, rows,",
            ),
            ("blocks of one column", "if columns > 1:", "if False:"),
            ("places are filled column by column", "divmod(place, self.columns)", "divmod(place, self.columns)[::-1]"),
            (
                "images are cut instead of reduced",
                "shrink(image, right - left, bottom - top, Image.Resampling.BOX)",
                "image[: bottom - top, : right - left]",
            ),
            (
                "members without an input are left out",
                "[black if each is None else each for each in inputs]",
                "[each for each in inputs if each is not None]",
            ),
            ("any number of images fills a rectangle", "if self.rows * self.columns != members:", "if False:"),
        ],
    ),
    (
        "encoder/berrut.py",
        [
            ("signs do not alternate along the line", "signs[np.argsort(nodes)] =", "signs[:] ="),
            ("no value at a node", "np.where(meets.any(1, keepdims=True), meets, terms)", "terms"),
            ("weights do not sum to 1", "terms / terms.sum(1, keepdims=True)", "terms"),
            (
                "redundant points lie at an end",
                "(2 * np.arange(inputs) + 1) * len(points) // (2 * inputs)",
                "np.arange(inputs)",
            ),
            (
                "own answers are not among the points",
                "[self.member_points[answered], self.coded_points[back]]",
                "[self.member_points[answered] * 0.99, self.coded_points[back]]",
            ),
            (
                "one point counts twice",
                "if not np.isclose(self.member_points[answered], self.coded_points[row]).any()",
                "if True",
            ),
            ("too few outputs are decoded", "or len(own) + len(coded) < self.shape.needed:", "or False:"),
        ],
    ),
    (
        "encoder/learned.py",
        [
            ("redundant outputs lie in the members' rows", "members + row: outputs[0]", "row: outputs[0]"),
            ("members that answered are decoded too", "if place not in own]", "]"),
            ("too few outputs are decoded", "or len(own) + len(coded) < members:", "or False:"),
            ("outputs that are not finite are answers", " if np.isfinite(decoded[place]).all()}", "}"),
        ],
    ),
    (
        "encoder/code.py",
        [
            (
                "codes may have more inputs than they need",
                "self.inputs > self.needed == self.members",
                "self.inputs > self.needed",
            )
        ],
    ),
    (
        "frontend/own_code.py",
        [
            ("one redundant input whatever is told", "int(numbers[1]) if numbers[1:] else 1", "1"),
            (
                "networks of any sizes go together",
                "if members < 2 or inputs < 1 or (known, decoded) != (members + inputs, members):",
                "if False:",
            ),
            (
                "networks of any types are taken",
                'if types != ["tensor(uint8)", "tensor(uint8)", "tensor(float)"]:',
                "if False:",
            ),
        ],
    ),
    (
        "frontend/fitting.py",
        [
            (
                "any s-cnn runs the code's redundant inputs",
                "return None if info == base else f",
                "return None if True else f",
            ),
            (
                "models of other forms than their code's",
                "if its.heads != (its.name in ROWS_FOR_MEMBERS) or its.stacked != (its.name in WHOLE_INPUTS):",
                "if False:",
            ),
            ("networks of another base model are used", 'networks.base not in ("", base.version)', "False"),
            ("lists of workers for another number of inputs", "if own.inputs != len(models):", "if False:"),
            (
                "the base model's version does not count",
                "size=models[0].size, base=models[0].version",
                "size=models[0].size",
            ),
        ],
    ),
    (
        "frontend/policy/rules.py",
        [
            (
                "first-come waits for the deadline",
                '"first-come": {"coded": True, "early": True}',
                '"first-come": {"coded": True}',
            )
        ],
    ),
    (
        "frontend/http/playground.py",
        [
            (
                "a stacked input has no picture",
                "redundant if redundant.ndim == 3 else np.hstack([*redundant])",
                "redundant[..., :3]",
            ),
            ("every worker's model is unknown", 'worker.info.kind if worker.info else "unknown"', '"unknown"'),
        ],
    ),
    (
        "bench/cluster/local.py",
        [("parity models of several rows are one file", "for row in range(r)]", "for row in [0] * r]")],
    ),
    (
        "proto/collage/specs.py",
        [
            ("keys of any number", "if len(self.keys) not in (0, self.members):", "if False:"),
            ("heads for any number of members", "if self.heads or self.stacked:", "if False:"),
        ],
    ),
    (
        "proto/collage/model_info.py",
        [("a model with heads gives one row", "rows = (code.members,) if code and code.heads else ()", "rows = ()")],
    ),
]
MUTANTS = [
    Mutant(f"{file.removesuffix('.py')}: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants
]
