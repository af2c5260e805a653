"""The committed protobuf stubs are what the .proto files generate, byte for byte."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(300)
def test_committed_stubs_are_what_make_proto_generates(tmp_path: Path) -> None:
    make = ["make", "--silent", "proto", f"PYTHON={sys.executable}", f"STUBS={tmp_path}"]
    subprocess.run(make, cwd=ROOT, check=True, timeout=240)
    generated, committed = stubs(tmp_path), stubs(ROOT / "proto")
    assert generated
    assert sorted(generated) == sorted(committed)
    assert [name for name in generated if generated[name] != committed[name]] == [], "run `make proto` and commit"


def stubs(folder: Path) -> dict[str, bytes]:
    """Content of the generated files below a folder, by file name."""
    return {file.name: file.read_bytes() for pattern in ("*_pb2*.py", "*_pb2*.pyi") for file in folder.rglob(pattern)}


def test_protos_follow_the_buf_standard() -> None:
    buf = shutil.which("buf", path=Path(sys.prefix, "bin"))
    if buf is None:
        pytest.skip("buf is not installed")
    lint = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr
