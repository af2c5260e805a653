"""The command line of a server process: flags, before variables ``COLLAGE_``, before a file of TOML (``--config``)."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "COLLAGE_"
_OF_CLIENTS = frozenset({"COLLAGE_TOKEN"})
# Kubernetes adds such variables for every Service of the namespace (service links).
_SERVICE_LINK = re.compile(r".+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_.+)?)?)")


def version() -> str:
    """The release that runs; empty if it is not installed, not even in place (``pip install -e .``)."""
    try:
        return metadata.version("collage-cluster")
    except metadata.PackageNotFoundError:
        return ""


class FlagSettings(BaseSettings):
    """Settings that ``parse`` reads."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, cli_kebab_case=True, cli_avoid_json=True, cli_hide_none_type=True, cli_show_env_vars=True
    )
    sections: ClassVar[Mapping[str, str]] = {}
    """Headings in ``--help``, by the first setting below them."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code, then the environment, then the file."""
        return named["init_settings"], named["env_settings"], TomlConfigSettingsSource(settings_cls)


_Settings = TypeVar("_Settings", bound=FlagSettings)


def parse(settings: type[_Settings], arguments: Sequence[str] | None = None) -> _Settings:
    """Settings from the command line (``sys.argv`` by default), the environment and the file of ``--config``.

    Raises SystemExit: with code 0 after ``--help`` and ``--version``, with 2, after one line per mistake on standard
    error, when a setting is missing, wrong or unknown, in whichever place.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = settings.__module__.partition(".")[0]
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--version", action="version", version=f"{name} {version() or 'of unknown version'}", help="show the release"
    )
    common.add_argument(
        "--config", type=Path, metavar="FILE", help='TOML file of settings, policy = "hedge"; flags and variables win'
    )
    root = argparse.ArgumentParser(
        prog=f"python -m {name}",
        usage="%(prog)s [--config FILE] [FLAG VALUE ...]",
        description=settings.__doc__,
        parents=[common],
        allow_abbrev=False,
    )
    file = common.parse_known_args(arguments)[0].config
    mistakes = [*_unknown_variables(settings), *(_unreadable(file) if file else ())]
    if mistakes:
        _refuse(mistakes)
    read: type[_Settings] = settings
    if file:
        read = type(settings.__name__, (settings,), {"model_config": SettingsConfigDict(toml_file=file)})
    source = CliSettingsSource[Any](read, root_parser=root, add_argument_method=_grouped(settings, root))
    try:
        return CliApp.run(read, arguments, cli_settings_source=source)
    except ValidationError as error:
        _refuse([_mistake(mistake, settings, file) for mistake in error.errors()])
        raise  # never reached


def _refuse(mistakes: Sequence[str]) -> None:
    print("\n".join(mistakes), file=sys.stderr)
    raise SystemExit(2)


def _unreadable(file: Path) -> Sequence[str]:
    try:
        tomllib.loads(file.read_text())
    except OSError as error:
        return [f"--config: {file}: {error.strerror}"]
    except ValueError as error:
        return [f"--config: {file}: {error}"]
    return ()


def _unknown_variables(settings: type[FlagSettings]) -> Sequence[str]:
    """What is wrong with the names of variables: a misspelt one would be a setting that is not made."""
    known = {name.upper() for name in settings.model_fields}
    given = sorted(name.removeprefix(PREFIX) for name in os.environ.keys() - _OF_CLIENTS if name.startswith(PREFIX))
    unknown = [name for name in given if name not in known and not _SERVICE_LINK.fullmatch(name)]
    return [f"{PREFIX}{name}: {_no_such(name, known, PREFIX)}" for name in unknown]


def _no_such(name: str, known: Collection[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    return "there is no such setting" + (f"; did you mean {prefix}{near[0]}?" if near else "")


def _mistake(mistake: Any, settings: type[FlagSettings], file: Path | None) -> str:
    if not mistake["loc"]:  # of several settings, which the message names
        return str(mistake["msg"]).removeprefix("Value error, ")
    name = "-".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return f"{file}: {name}: {_no_such(name, settings.model_fields)}"
    given = f", got {mistake['input']!r}" if mistake["type"] != "missing" else ""
    return f"--{name.replace('_', '-')}: {mistake['msg']}{given}"


def _grouped(settings: type[FlagSettings], root: argparse.ArgumentParser) -> Any:
    """``add_argument`` that puts each flag below its heading."""
    groups: dict[str, Any] = {}
    group: Any = root
    for name in settings.model_fields:
        if name in settings.sections:
            group = root.add_argument_group(settings.sections[name])
        groups[name] = group

    def add(parser: Any, *names: str, **options: Any) -> Any:
        return groups.get(options.get("dest", ""), parser).add_argument(*names, **options)

    return add
