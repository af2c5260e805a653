"""Get the public data sets from their public sources: ``python -m models.fetch --data data``.

Every file is checked against the checksum its publisher or torchvision names. What is there already is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.data import name_of


@dataclass(frozen=True)
class PublicData:
    """A data set: its folder under the root, its files (name to MD5, in hex) below ``url``, and the licence.

    Archives are unpacked into the folder that holds the data set's own, which is the first part of their paths.
    ``copies`` are public repositories with the same images, by the folder that holds these in a copy right under the
    root; where one is there, nothing is fetched. Without ``files``, a copy is the only way.
    ``links`` are names that the folder gets beside its own: where a copy hides it, and by which a part of it is read.
    """

    folder: str
    url: str
    files: dict[str, str]
    licence: str
    links: tuple[str, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)

    def found(self, root: Path) -> Path | None:
        """The folder that holds the data set already."""
        folders = (root / name for name in (self.folder, *self.copies))
        return next((folder for folder in folders if name_of(folder)), None)

    def by_hand(self, root: Path) -> str:
        """What to place where, if it cannot be fetched."""
        files, same = ", ".join(self.url + name for name in self.files), " (the same images)" if self.files else ""
        ways = [f"unpack {files} as {root / self.folder}"] if files else []
        ways += [
            f"clone {repository}{same} as {root / Path(name).parts[0]}" for name, repository in self.copies.items()
        ]
        return ", or ".join(ways)


_SPEECH = "arabic-speech-commands-dataset"
_SPEECH_HOME = f"https://github.com/abdulkaderghandoura/{_SPEECH}"
SOURCES = (
    PublicData(
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
    PublicData(
        "cifar-10-batches-py",
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        copies={"cifar10-png": "https://github.com/cyizhuo/CIFAR-10-dataset"},
    ),
    PublicData(
        "cifar-100-python",
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        copies={"cifar100-png": "https://github.com/cyizhuo/CIFAR-100-dataset"},
    ),
    PublicData(
        "tiny-imagenet-200",
        "http://cs231n.stanford.edu/",
        {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"},
        "none stated; the photos are ImageNet's, for research and education",
        links=("tiny-imagenet-200", "tiny-imagenet-100", "tiny-imagenet-boxes-200"),
        copies={"IMagenet/tiny-imagenet-200": "https://github.com/seshuad/IMagenet"},
    ),
    PublicData(
        "imagenette2-320",
        "https://s3.amazonaws.com/fast-ai-imageclas/",
        {"imagenette2-320.tgz": "3df6f0d01a2c9592104656642f5e78a3"},
        "Apache-2.0 for the selection (fast.ai); the photos are ImageNet's, for research and education",
    ),
    PublicData(
        _SPEECH,
        _SPEECH_HOME,
        {},
        "CC BY 4.0; cite Ghandoura, Hjabo and Al Dakkak, Building and Benchmarking an Arabic Speech Commands Dataset "
        "for Small-Footprint Keyword Spotting, 2021",
        copies={_SPEECH: _SPEECH_HOME},
    ),
)


class FetchError(Exception):
    """A file could not be had, or is not what it should be."""


def fetch(source: PublicData, root: Path, timeout_s: float = 60.0) -> Path:
    """Download, check and unpack one data set; returns its folder. A broken download leaves nothing behind.

    Raises FetchError where the network, the checksum or the archive fails, or where nothing can be downloaded.
    """
    if there := source.found(root):
        _link(source, there, root)
        return there
    if not source.files:
        raise FetchError(f"{source.url}: a repository, which has no archive with a checksum")
    folder = root / source.folder
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
            elif name.endswith(".zip"):
                with zipfile.ZipFile(file) as packed:
                    packed.extractall(partial)  # noqa: S202 - zipfile never leaves the folder
                file.unlink()
        unpacked = partial / source.folder
        (unpacked if unpacked.is_dir() else partial).replace(folder)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise FetchError(f"{source.url}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _link(source, folder, root)
    return folder


def _link(source: PublicData, folder: Path, root: Path) -> None:
    for name in source.links:
        if not os.path.lexists(root / name):
            (root / name).symlink_to(folder.relative_to(root), target_is_directory=True)


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
            missing.append(f"{error}\n  place it by hand: {source.by_hand(args.data)}")
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
