"""Which models go together: base models, and models of redundant inputs with the code that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from collage.model_info import CodeInfo, ModelInfo, ModelKind
from encoder.code import Code, GroupShape
from encoder.codes import ROWS_FOR_MEMBERS, WHOLE_INPUTS, CodeParameters, build
from frontend.policy.accuracy import ErrorStep


@dataclass(frozen=True, kw_only=True)
class CodingSettings:
    """What the operator decides about codes."""

    detection_threshold: float | None = None
    """Takes the place of the collage-cnns' own."""
    grid: int | None = None
    """Collages of another number of rows and columns are refused."""
    accuracy_budget: float | None = None
    """The policy's, which a model without a table of errors cannot keep."""
    code: CodeParameters | None = None
    """The code whose redundant inputs the base model itself runs, if redundant models do not say what theirs is."""


def base_misfit(info: ModelInfo) -> str | None:
    """What keeps a model from answering single requests, if anything."""
    return None if info.kind is ModelKind.S_CNN else f"it is a {info.kind}, expected an {ModelKind.S_CNN}"


def misfit(info: ModelInfo, base: ModelInfo | None, row: int, settings: CodingSettings) -> str | None:
    """What keeps a model from running redundant input ``row`` of a code for the base model, if anything.

    Empty if that cannot be said yet, as nobody knows the base model.
    """
    its = info.code
    if its is None and (settings.code is None or info.kind is not ModelKind.S_CNN):
        return f"it is a {info.kind} without a code, expected the model of a redundant input"
    if base is None:
        return ""
    of = f"the s-cnn {base.name} {base.version}"
    networks = settings.code.networks if settings.code else None
    if networks and networks.base not in ("", base.version):
        return f"the networks of --code decode for version {networks.base} of the base model, not for {of}"
    if its is None:
        return None if info == base else f"it is another model than {of}, which is to run the code's redundant inputs"
    if info.task != base.task:
        return f"its task is {info.task}, that of {of} is {base.task}"
    if info.labels != base.labels:
        return f"its labels are not those of {of}"
    if its.base not in ("", base.version):
        return f"it decodes for version {its.base} of the base model, not for {of}"
    if its.row != row:
        return f"it runs redundant input {its.row}, and its place in --coded-workers is {row}"
    if its.name == "collage":
        return _collage_misfit(info, its, base, settings.grid)
    if its.heads != (its.name in ROWS_FOR_MEMBERS) or its.stacked != (its.name in WHOLE_INPUTS):
        told = f"heads: {str(its.heads).lower()} and stacked: {str(its.stacked).lower()}"
        return f"its description says {told}, which is not so of the code {its.name}"
    if info.size != base.size:
        return f"its input has another shape than that of {of}"
    return None


def _collage_misfit(info: ModelInfo, its: CodeInfo, base: ModelInfo, grid: int | None) -> str | None:
    if its.k < 2:
        return f"its grid is {its.k} x {its.k}: a collage has at least 2 x 2 cells"
    if grid not in (None, its.k):
        return f"its grid is {its.k} x {its.k}, and this frontend is set to {grid} x {grid}"
    if info.size < its.k or -(-info.size // its.k) > base.size:
        return (
            f"{its.k} x {its.k} cells in {info.size} pixels do not go with the s-cnn {base.name} "
            f"{base.version} of {base.size} pixels"
        )
    return None


def code_of(models: Sequence[ModelInfo], settings: CodingSettings) -> Code:
    """The code whose redundant inputs these models run, in order of their rows; raises ValueError if there is none."""
    its = [model.code for model in models if model.code]
    own = settings.code
    if own and not its:
        if own.inputs != len(models):
            raise ValueError(
                f"the code {own.name} has {own.inputs} redundant inputs, workers were given for {len(models)}"
            )
        return build(replace(own, size=models[0].size, base=models[0].version))
    if len(its) < len(models):
        raise ValueError("not all redundant models say what their code is")
    first = its[0]
    if first.inputs != len(its):
        raise ValueError(
            f"the code {first.name} has {first.inputs} redundant inputs, workers were given for {len(its)}"
        )
    if len({(each.name, each.members, each.inputs, each.keys, each.base) for each in its}) > 1:
        raise ValueError("the redundant models are not all of one code")
    threshold = settings.detection_threshold
    return build(
        CodeParameters(
            first.name,
            models[0].size,
            members=first.members,
            inputs=first.inputs,
            k=first.k,
            detection_threshold=first.detection_threshold if threshold is None else threshold,
            weights=tuple(each.weights for each in its),
            keys=first.keys,
            networks=own.networks if own else None,
            base=first.base,
        )
    )


def error_steps(model: ModelInfo) -> tuple[ErrorStep, ...]:
    """What a model says that its answers cost, as the policy has it."""
    return tuple(ErrorStep(*astuple(rate)) for rate in model.errors)


def shape_of(model: ModelInfo, settings: CodingSettings) -> GroupShape | None:
    """The shape of the groups whose only redundant input a model runs; None if there is no code of that input alone."""
    try:
        return code_of([model], settings).shape
    except ValueError:
        return None
