"""Every flag of ``python -m models.*`` says what it is."""

from __future__ import annotations

import argparse
import ast
from dataclasses import fields
from pathlib import Path

import pytest

import models
from models import teacher, train
from models.flag_help import HELP
from models.steps import Recipe, TeacherRecipe

FILES = sorted(Path(models.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("parser", [train.parser(), teacher.parser()], ids=["train", "teacher"])
def test_every_flag_of_a_run_has_help(parser: argparse.ArgumentParser) -> None:
    silent = [action.option_strings for action in parser._actions if not action.help]
    assert silent == []
    assert parser.format_help()


def test_every_flag_that_is_written_out_has_help() -> None:
    silent = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            made = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
            if made and not any(keyword.arg == "help" for keyword in node.keywords):  # type: ignore[attr-defined]
                silent.append(f"{file.name}: {ast.unparse(node)}")
    assert silent == []


def test_nothing_is_explained_that_is_not_there() -> None:
    assert HELP.keys() <= {field.name for recipe in (Recipe, TeacherRecipe) for field in fields(recipe)}
