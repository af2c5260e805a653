"""Wrong versions of what calibrates and evaluates models."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "models/calibrate.py",
        [
            ("calibrated on test images", "size), labels).validation", "size), labels).test"),
            ("calibrated on training images", "size), labels).validation", "size), labels).train"),
            (
                "calibrated for agreement with the label",
                "answer.prediction == reference[answer.image].prediction for",
                "answer.prediction == answer.label for",
            ),
            (
                "calibrated for the s-cnn's agreement with itself",
                "return top1(known)",
                "return 1.0",
            ),
            ("calibrated on one placement", "for seed in range(seeds) for answer", "for seed in range(1) for answer"),
            ("calibrated on one placement, several times", "(collage, split, seed)]", "(collage, split, 0)]"),
            ("calibrated to the least coverage", "best = reached[-1]", "best = reached[0]"),
            ("calibrated to more than the target", "agreement >= target", "agreement > target"),
            (
                "a hopeless model is always sure",
                "Calibration(1.0, 0.0, 1.0, target)",
                "Calibration(0.0, 0.0, 1.0, target)",
            ),
            (
                "a threshold rounded up",
                "math.floor(calibration.threshold * 1e4)",
                "math.ceil(calibration.threshold * 1e4)",
            ),
            ("a calibration forgets the rest of a description", "{**info.extra, ", "{"),
        ],
    ),
    (
        "models/measure.py",
        [
            (
                "risk and coverage: equal confidences apart",
                "thresholds[:-1] != thresholds[1:], True",
                "thresholds[:-1] == thresholds[:-1], True",
            ),
            ("risk and coverage: the unsure first", "np.argsort(-confidences", "np.argsort(confidences"),
            ("images that fill up a group count twice", "if done < len(split):", "if True:"),
            (
                "empty cells do not count",
                "for answer in answers) / len(answers)",
                "for answer in answers) / max(1, sum(answer.prediction is not None for answer in answers))",
            ),
            ("the median is the minimum", "np.median(seconds, 0).tolist()", "seconds.min(0).tolist()"),
            ("the median is the mean", "np.median(seconds, 0).tolist()", "seconds.mean(0).tolist()"),
            ("no warm-up before a measurement", "call(0)  # warm-up", "pass"),
            ("calls are not told the turn", "call(turn)", "call(0)"),
            (
                "nine images that are one",
                'pixels.take(range(i, i + batch), 0, mode="wrap")',
                "pixels.take([i] * batch, 0)",
            ),
            ("a batch of nine is one", "range(i, i + batch)", "range(i, i + 1)"),
            (
                "a collage of one image",
                'images.take(range(i, i + members), 0, mode="wrap")',
                "images.take([i] * members, 0)",
            ),
            ("the same input in every turn", "batches[turn % len(batches)]", "batches[0]"),
            ("the same collage in every turn", "collages[turn % len(collages), None]", "collages[0, None]"),
            (
                "answers of later batches given to the first images",
                "enumerate(softmax(scores), start)",
                "enumerate(softmax(scores))",
            ),
            ("scores in place of confidences", "float(share.max())", "float(scores.max())"),
            ("models of later folders win", "in reversed(folders)", "in folders"),
            ("s-cnns in the order of names", 'return "-s-cnn" not in path.stem, path.stem', "return False, path.stem"),
            (
                "decoded without the model's threshold",
                "return description.code_of(self.info)",
                "return CollageCode(description.code_of(self.info).grid)",
            ),
        ],
    ),
    (
        "models/evaluate.py",
        [
            (
                "agreement with the label",
                "sum(answer.prediction == reference[answer.image] for answer in answers)",
                "sum(answer.prediction == answer.label for answer in answers)",
            ),
            (
                "cells of the collage-cnn's whole size",
                'splits(model.info.size if role.startswith("s-cnn") else models["s-cnn"].info.size)',
                "splits(model.info.size)",
            ),
            ("nine images timed as one", "inference(model, images, RIVALS_K**2)", "inference(model, images)"),
            ("coverage without the threshold", "and answer.confidence >= threshold]", "]"),
            (
                "coverage of answered cells",
                "len(sure) / len(answers)",
                "len(sure) / max(1, sum(answer.prediction is not None for answer in answers))",
            ),
            ("accuracy of accepted cells is that of all", "top1(sure) if sure", "top1(answers) if sure"),
            ("no spread over placements", "max(each.values()) - min(each.values())", "0.0"),
            ("a placement's accuracy is that of all", "if answer.seed == seed])", "])"),
            (
                "all placements the same",
                "classify_collages(model, split, seed)]",
                "classify_collages(model, split, 0)]",
            ),
            ("latency ratio upside down", 'times["latency_s"] / image}', 'image / times["latency_s"]}'),
            (
                "nine images against one's latency of another",
                'times["nine_s"] / nine if nine',
                'times["nine_s"] / image if nine',
            ),
            ("a collage decoded from another's detections", "coding(code, group, found)", "coding(code, group)"),
            (
                "accuracies differ in one direction only",
                "abs(found - wanted) > TOLERANCE",
                "wanted - found > TOLERANCE",
            ),
            ("tolerance of published accuracies", "TOLERANCE = 0.003", "TOLERANCE = 0.03"),
            (
                "labels in another order are taken",
                "if model.info.labels != data.labels:",
                "if set(model.info.labels) != set(data.labels):",
            ),
            ("another part of the data set", "getattr(data, part)", "data.train"),
            ("rows measured again are kept twice", 'if (row["dataset"], row["model"]) not in measured', "if measured"),
        ],
    ),
    (
        "models/tables.py",
        [
            ("shares in place of percent", "100 * share:.2f", "share:.2f"),
            ("microseconds as milliseconds", '{1e3 * seconds:.3g}"', '{1e6 * seconds:.3g}"'),
            ("rivals among those that stand alone", 'if not str(row["role"]).startswith("rival")', ""),
        ],
    ),
]
MUTANTS = [Mutant(f"models: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
