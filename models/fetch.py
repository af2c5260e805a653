"""Get the public data sets from their public sources: ``python -m models.fetch --data data``.

Every file is checked against the checksum its publisher or torchvision names. What is there already is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.data import name_of


@dataclass(frozen=True)
class Source:
    """A data set: its folder under the root, its files (name to MD5, in hex) below ``url``, and the licence.

    Archives are unpacked into the folder that holds the data set's own, which is the first part of their paths.
    """

    folder: str
    url: str
    files: dict[str, str]
    licence: str


SOURCES = (
    Source(
        "fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        "MIT, (c) 2017 Zalando SE",
    ),
    Source(
        "cifar-10-batches-py",
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    ),
    Source(
        "imagenette2-320",
        "https://s3.amazonaws.com/fast-ai-imageclas/",
        {"imagenette2-320.tgz": "3df6f0d01a2c9592104656642f5e78a3"},
        "Apache-2.0 for the selection (fast.ai); the photos are ImageNet's, for research and education",
    ),
)


class FetchError(Exception):
    """A file could not be had, or is not what it should be."""


def fetch(source: Source, root: Path, timeout_s: float = 60.0) -> Path:
    """Download, check and unpack one data set; returns its folder. A broken download leaves nothing behind.

    Raises FetchError where the network, the checksum or the archive fails.
    """
    folder = root / source.folder
    if name_of(folder):
        return folder
    partial = root / f"{source.folder}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, expected in source.files.items():
            file = partial / name
            with urllib.request.urlopen(source.url + name, timeout=timeout_s) as reply, file.open("wb") as out:  # noqa: S310 - addresses are ours
                shutil.copyfileobj(reply, out)
            with file.open("rb") as content:
                found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != expected:
                raise FetchError(f"{source.url}{name} has checksum {found}, expected {expected}")
            if ".t" in name:
                with tarfile.open(file) as archive:
                    archive.extractall(partial, filter="data")
                file.unlink()
        unpacked = partial / source.folder
        (unpacked if unpacked.is_dir() else partial).replace(folder)
    except (OSError, tarfile.TarError) as error:
        raise FetchError(f"{source.url}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder to hold the data sets")
    args = parser.parse_args(arguments)
    missing = []
    for source in SOURCES:
        try:
            print(f"{fetch(source, args.data)} (licence: {source.licence})", flush=True)
        except FetchError as error:
            files = ", ".join(source.url + name for name in source.files)
            missing.append(f"{error}\n  place it by hand: unpack {files}\n  as {args.data / source.folder}")
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
