"""Programs and packages that some tests need, and that not everybody has."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing; ``package`` is Debian's. In CI, which installs it, the test fails."""
    missing = shutil.which(program) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{program} is missing: Debian's package {package} has it")


def needs_package(module: str, package: str) -> pytest.MarkDecorator:
    """Skip a test where a Python package is missing that the extra ``dev`` installs; in CI the test fails."""
    missing = importlib.util.find_spec(module) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"the package {package} is missing: install the extra dev again")
