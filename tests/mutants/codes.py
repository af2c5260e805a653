"""Wrong versions of the codes, and of what outputs mean."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "encoder/linear.py",
        [
            (
                "linear: own answers not subtracted",
                "-inverse @ self.weights[np.ix_(used, there)]",
                "0 * inverse @ self.weights[np.ix_(used, there)]",
            ),
            (
                "linear: own answers subtracted with the weights of the first rows",
                "-inverse @ self.weights[np.ix_(used, there)]",
                "-inverse @ self.weights[np.ix_(range(len(used)), there)]",
            ),
            (
                "linear: solved with the weights of the first rows",
                "pinv(self.weights[np.ix_(used, lost)])",
                "pinv(self.weights[np.ix_(range(len(used)), lost)])",
            ),
            (
                "linear: encoded with the weights of the wrong row",
                "zip(self.weights.astype(np.float32), self._parts, strict=True)",
                "zip(self.weights.astype(np.float32), self._parts[::-1], strict=True)",
            ),
            (
                "linear: encoded with the weights of the wrong member",
                "zip(weights[1:], images[1:], strict=True)",
                "zip(weights[:-1], images[1:], strict=True)",
            ),
            (
                "linear: a lost place decoded from the wrong column",
                "for n, place in enumerate(lost)",
                "for n, place in enumerate(lost[::-1])",
            ),
            (
                "linear: only as many redundant outputs used as are missing",
                "tuple(sorted(coded))",
                "tuple(sorted(coded))[: self.shape.members - len(own)]",
            ),
            (
                "linear: more losses than redundant outputs decoded all the same",
                "if not lost or len(lost) > len(used):",
                "if not lost or not used:",
            ),
            ("linear: places without a member decoded", "if place in filled and", "if"),
            ("linear: means rounded down", "np.rint(total, out=total)", "np.floor(total, out=total)"),
            (
                "linear: means rounded where they exceed a byte",
                "total += np.multiply(image, weight, dtype=np.float32)",
                "total += np.multiply(image, weight).astype(np.uint8)",
            ),
            ("linear: weights that cannot be decoded are taken", "> WORST_CONDITION", "> 1e30"),
            (
                "linear: weights judged for the loss of all r answers only",
                "for rows in range(1, inputs + 1):",
                "for rows in range(inputs, inputs + 1):",
            ),
            ("linear: negative weights are taken", "or (self.weights < 0).any() or", "or"),
            ("linear: weights that sum to anything are taken", " or np.abs(sums - 1).max() > 1e-5:", ":"),
            (
                "linear: members alone are needed, any one output decodes",
                "needed=members, fewest=members",
                "needed=1, fewest=members",
            ),
            ("linear: groups that are not full close", "needed=members, fewest=members", "needed=members, fewest=1"),
            (
                "linear: the paper's weights in the wrong order",
                "** np.arange(inputs)[:, None]",
                "** np.arange(inputs)[::-1][:, None]",
            ),
            (
                "linear: sums in place of means",
                "normalised: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)",
                "normalised: NDArray[np.float64] = weights",
            ),
            (
                "linear: many redundant inputs encoded at once on the event loop",
                "is not None) * self.shape.inputs <=",
                "is not None) <=",
            ),
        ],
    ),
    (
        "encoder/collage.py",
        [
            (
                "collage: weak detections count",
                "found.confidences >= self.detection_threshold",
                "found.confidences >= 0",
            ),
            (
                "collage: a detection at the threshold is ignored",
                "found.confidences >= self.detection_threshold",
                "found.confidences > self.detection_threshold",
            ),
            (
                "collage: boxes that are not finite count",
                " & np.isfinite(found.boxes).all(-1)\n",
                "\n",
                "their overlap with a cell is 0 or no number, so that no cell takes them; numpy would warn",
            ),
            (
                "collage: the least confident detection wins a cell",
                "np.argsort(-found.confidences",
                "np.argsort(found.confidences",
            ),
            (
                "collage: boxes outside the collage count",
                "if shares[index] > 0 and cell in wanted",
                "if cell in wanted",
            ),
            (
                "collage: members with an answer of their own are decoded",
                "wanted = set(filled) - own.keys()",
                "wanted = set(filled)",
            ),
            (
                "collage: places without a member are decoded",
                "wanted = set(filled) - own.keys()",
                "wanted = set(range(self.grid.cells)) - own.keys()",
            ),
            ("collage: the last detection wins a cell", "cell in wanted and cell not in decoded:", "cell in wanted:"),
            (
                "collage: confidence without that of the class",
                "float(found.confidences[row] * probabilities.max())",
                "float(found.confidences[row])",
            ),
            (
                "collage: confidence without that of the detection",
                "float(found.confidences[row] * probabilities.max())",
                "float(probabilities.max())",
            ),
            (
                "collage: probabilities in place of logits",
                "Decoding(np.log(probabilities), confidence)",
                "Decoding(probabilities, confidence)",
            ),
            (
                "collage: overlap is the shared area alone",
                "union = area[:, None] + _area(cells[:, 2:] - cells[:, :2]) - shared",
                "union = np.ones_like(shared)",
            ),
            (
                "collage: places and cells in another order",
                "for cell, image in enumerate(inputs):\n            if image is not None:",
                "for cell, image in enumerate(inputs[::-1]):\n            if image is not None:",
            ),
        ],
    ),
    (
        "encoder/tasks.py",
        [
            ("tasks: softmax overflows", "np.exp(output - output[output.argmax()])", "np.exp(output)"),
            (
                "tasks: confidence is the mean probability",
                "float(self.answer(output).max())",
                "float(self.answer(output).mean())",
            ),
            ("tasks: agreement of the last class", "one.argmax() == other.argmax()", "one.argmin() == other.argmin()"),
            ("tasks: boxes leave the image", "np.sort(output.clip(0, 1)", "np.sort(output"),
            (
                "tasks: sides of a box as they come",
                "np.sort(output.clip(0, 1).reshape(2, 2), 0)",
                "output.clip(0, 1)",
            ),
            (
                "tasks: boxes that are none are trusted",
                "float(left < right and top < bottom)",
                "float(left <= right and top <= bottom)",
            ),
            (
                "tasks: boxes agree that touch",
                "return self.score(one, other) >= SAME_BOX",
                "return self.score(one, other) > 0",
            ),
            ("tasks: score by the area of both boxes", "shared / (areas - shared) if", "shared / areas if"),
            ("tasks: score of boxes apart in one direction", "np.prod(sides.clip(0))", "abs(np.prod(sides))"),
        ],
    ),
]
MUTANTS = [Mutant(what, file, *made) for file, mutants in _MADE for what, *made in mutants]
