"""Editable installations only: what would be a wheel of this folder is an image, a checkout or ``collage-client``."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableOnly(BuildHookInterface[Any]):
    """Refuses to build a wheel, which would put packages named models and bench into everybody's site-packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build; ``version`` is "editable" or "standard"."""
        if version != "editable":
            raise SystemExit(
                "The servers come as container images (make images) or from a checkout (pip install -e '.[demo]'); "
                "the client is a package of its own (pip install ./proto)."
            )
