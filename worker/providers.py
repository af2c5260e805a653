"""What ONNX Runtime runs a model on: its execution providers, by short names."""

from __future__ import annotations

import onnxruntime

_SUFFIX = "ExecutionProvider"
_THREADS = {"OpenVINO": "num_of_threads"}
"""Options of those providers that do not heed the session's number of threads."""


class ProviderError(ValueError):
    """An execution provider that this ONNX Runtime does not have; the message is one line and lists those it has."""


def short(provider: str) -> str:
    """``CUDA`` for ``CUDAExecutionProvider``."""
    return provider.removesuffix(_SUFFIX)


def choose(asked: str, threads: int) -> list[tuple[str, dict[str, str]]]:
    """Providers of a session, with their options, in the order asked for: names with commas between them, in any case.

    The CPU comes last, asked for or not: it runs the operators that the others lack. Raises ProviderError.
    """
    here = [short(provider) for provider in onnxruntime.get_available_providers()]
    known = {name.lower(): name for name in here}
    chosen = []
    for part in filter(None, (part.strip() for part in asked.split(","))):
        name = known.get(short(part).lower())
        if name is None:
            raise ProviderError(
                f"there is no execution provider {part[:80]!r} here: this ONNX Runtime has {', '.join(here)}; others "
                "come with other packages, such as onnxruntime-gpu or onnxruntime-openvino"
            )
        chosen.append(name)
    names = dict.fromkeys([*chosen, "CPU"])
    return [(f"{name}{_SUFFIX}", {_THREADS[name]: str(threads)} if name in _THREADS else {}) for name in names]
