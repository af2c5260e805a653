"""Wrong versions of what trains and exports models."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_MADE: list[tuple[str, list[tuple[str, ...]]]] = [
    (
        "models/data.py",
        [
            ("validation split not random", "np.random.default_rng(seed).permutation(count)", "np.arange(count)"),
            ("validation images are trained on", "np.sort(order[part:])", "np.sort(order)"),
            (
                "validation split without bound",
                "min(VALIDATION_MOST, int(count * VALIDATION_SHARE))",
                "int(count * VALIDATION_SHARE)",
            ),
            (
                "validation share",
                "VALIDATION_SHARE, VALIDATION_MOST = 0.1,",
                "VALIDATION_SHARE, VALIDATION_MOST = 0.2,",
            ),
            (
                "validation images at the training size",
                "shrink(image, size, size) for image in part.images",
                "image for image in part.images",
            ),
            ("training images at the test size", "larger = train_size or size", "larger = size"),
            ("a test part cut by the validation's seed", "cut(train, size, seed=1)", "cut(train, size, seed=0)"),
            ("placements not random", "order = rng.permutation(len(split))", "order = np.arange(len(split))"),
            (
                "placements leave the last group out",
                "short = -len(order) % cells",
                "order = order[: len(order) // cells * cells]; short = 0",
            ),
            ("coarse labels of CIFAR-100", 'content[b"fine_labels"]', 'content[b"coarse_labels"]'),
            ("channels of CIFAR last", ".reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)", ".reshape(-1, 32, 32, 3)"),
            ("hidden files are images", 'if not entry.name.startswith(".")', "if True"),
        ],
    ),
    (
        "models/tiny_imagenet.py",
        [("all words of a class are its name", 'names.split(",")[0].strip()', "names.strip()")],
    ),
    (
        "models/lineage.py",
        [
            (
                "shared runs count twice",
                "return tuple(dict.fromkeys(stage for lineage in lineages for stage in lineage))",
                "return tuple(stage for lineage in lineages for stage in lineage)",
            ),
            (
                "teachers' runs count",
                "for parent in step.parents if parent in steps), own)",
                "for parent in (*step.parents, *step.teachers) if parent in steps), own)",
            ),
            (
                "an interrupted run has all its epochs",
                'min(float(recipe.get("epochs") or done), float(done))',
                'float(recipe.get("epochs") or done)',
            ),
            (
                "a last part of an epoch counts as one",
                'min(float(recipe.get("epochs") or done), float(done))',
                "float(done)",
            ),
            ("unrecorded runs are not told", "len(lineage) - len(known)", "0"),
        ],
    ),
    (
        "models/lessons.py",
        [
            ("no image becomes a mean", "targets, recipe.mixup, rng)", "targets, 0.0, rng)"),
            ("no smoothing of labels", "smoothing / classes, np.float32", "0, np.float32"),
            (
                "mirrored images are taught as if they were not",
                "self.teachers.answers[flipped.astype(int), index]",
                "self.teachers.answers[0, index]",
            ),
            ("stored answers replace labels", "self.recipe.distil * (self.teachers.answers", "(self.teachers.answers"),
            ("live answers replace labels", "self.recipe.distil * (torch.stack", "(torch.stack"),
            ("live teachers add up", "torch.stack(answers).mean(0)", "torch.stack(answers).sum(0)"),
            (
                "teachers of the same classes in any order",
                "if teacher.labels != data.labels:",
                "if set(teacher.labels) != set(data.labels):",
            ),
            (
                "outdated answers are kept",
                "kept.exists() and kept.stat().st_mtime > teacher.stat().st_mtime",
                "kept.exists()",
            ),
            ("answers to images upside down", "images.flip(2)", "images.flip(1)"),
            (
                "scores are stored in place of probabilities",
                "scores if raw else scores.softmax(-1)",
                "scores",
            ),
            (
                "live teachers of any size",
                "% task_of(spec).members or spec.image_size != self.size:",
                "% task_of(spec).members:",
            ),
        ],
    ),
    (
        "models/trainer.py",
        [
            ("scored in training mode", "self.result.eval()", "self.result"),
            ("trained in evaluation mode", "self.model.train()", "self.model.eval()"),
            ("validated on training images", "self.score(self.data.validation)", "self.score(self.data.train)"),
            ("optimisers begin afresh when a run goes on", "optimiser.load_state_dict(state)", "pass"),
            (
                "weights begin afresh when a run goes on",
                'self.model.load_state_dict(content.get("last", content["model"]))',
                "",
            ),
            (
                "every epoch the same",
                "np.random.default_rng([self.recipe.seed, number])",
                "np.random.default_rng(self.recipe.seed)",
            ),
            ("no warm-up of the rate", "* min(warm, decay)", "* decay"),
            ("no decay of the rate", "* min(warm, decay)", "* warm"),
            ("small images to the end", "if done < self.recipe.small_share:", "if self.recipe.small_share:"),
            ("a run of other settings goes on", "or recipe != self.recipe:", ":"),
            ("a run over other images goes on", 'if content.get("images", images) != images:', "if False:"),
            ("the last epoch is a whole one", "min(self.steps_per_epoch, self.steps - first)", "self.steps_per_epoch"),
            ("time is no limit", "spent / (60 * self.recipe.minutes or math.inf)", "0.0"),
            ("rates fall by steps alone", "self._schedule(done)", "self._schedule((first + taken) / self.steps)"),
            (
                "the last weights count in place of their mean",
                "return self.mean.module if self.mean else self.model",
                "return self.model",
            ),
            ("the running mean begins afresh", 'self.mean.module.load_state_dict(content["model"])', ""),
            ("gradients add up", "optimiser.zero_grad(set_to_none=True)", "pass"),
        ],
    ),
    (
        "models/tasks/collage.py",
        [
            (
                "empty cells count as filled in the loss",
                "collage_loss(out, wanted, filled,",
                "collage_loss(out, wanted, torch.ones_like(filled),",
            ),
            ("no empty cells in training", "rng.random(len(images)) >= self.blank", "rng.random(len(images)) >= 0"),
        ],
    ),
    (
        "models/export.py",
        [],
    ),
    (
        "models/transfer.py",
        [
            ("the mean of several runs is the first", "for state in states]).mean(0)", "for state in states])[0]"),
        ],
    ),
    (
        "models/augment.py",
        [
            (
                "no shifts",
                "rows = rng.integers(0, 2 * shift + height - size + 1, (batch, 1))",
                "rows = np.full((batch, 1), shift)",
            ),
            ("rows are taken for columns", "down[:, :, None], across[:, None]", "across[:, :, None], down[:, None]"),
            ("means are taught as one of their images", "(targets + targets[other]) / 2", "targets"),
            ("means of two are rounded down", "images[other].short() + 1) // 2", "images[other].short()) // 2"),
            ("mixed targets by half", "portion * (targets[other] - targets)", "0.5 * (targets[other] - targets)"),
            (
                "cells of a collage column by column",
                "left, top, right, bottom = grid.box(cell)",
                "top, left, bottom, right = grid.box(cell)",
            ),
        ],
    ),
    (
        "models/optim.py",
        [
            ("weights keep no scale", "weight.mul_(len(weight) ** 0.5 / weight.norm())", "pass"),
        ],
    ),
    (
        "models/checkpoint.py",
        [
            ("a model is loaded in training mode", "model.eval(), content", "model, content"),
        ],
    ),
]
MUTANTS = [Mutant(f"models: {what}", file, *made) for file, mutants in _MADE for what, *made in mutants]
