from __future__ import annotations

import functools
import hashlib
import http.server
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.data import find, load, name_of
from models.fetch import SOURCES, FetchError, PublicData, fetch
from tests.models.datasets import write_folders, write_idx, write_speech, write_tiny


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server on this machine gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_loose_files_are_checked_and_put_into_their_folder(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    write_idx(folder, train=20, test=10)
    source = PublicData("mine", url, {path.name: md5(path) for path in folder.iterdir()}, "free")
    found = fetch(source, tmp_path / "data")
    assert found == tmp_path / "data" / "mine"
    assert len(load(found, 8).test) == 10
    assert list((tmp_path / "data").iterdir()) == [found]


def test_an_archive_is_unpacked(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    write_folders(tmp_path / "photos", {"train": 2, "val": 1})
    with tarfile.open(folder / "photos.tgz", "w:gz") as archive:
        archive.add(tmp_path / "photos", "photos")
    source = PublicData("photos", url, {"photos.tgz": md5(folder / "photos.tgz")}, "free")
    found = fetch(source, tmp_path / "data")
    assert name_of(found) == "photos"
    assert sorted(path.name for path in (found / "train").iterdir()) == ["cat", "dog"]
    (folder / "photos.tgz").unlink()
    assert fetch(source, tmp_path / "data") == found, "what is there is not fetched again"


@pytest.mark.parametrize("fault", ["checksum", "missing", "no archive"])
def test_a_bad_file_leaves_nothing_behind(tmp_path: Path, served: tuple[Path, str], fault: str) -> None:
    folder, url = served
    file = folder / "photos.tgz"
    file.write_bytes(b"not an archive")
    checksum = "0" * 32 if fault == "checksum" else md5(file)
    if fault == "missing":
        file.unlink()
    with pytest.raises(FetchError, match=url):
        fetch(PublicData("photos", url, {"photos.tgz": checksum}, "free"), tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_a_zip_is_unpacked_and_linked(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    original = write_tiny(tmp_path / "original" / "tiny-imagenet-3", per_class=2, held_out=3)
    with zipfile.ZipFile(folder / "tiny.zip", "w") as archive:
        for file in sorted(original.rglob("*")):
            archive.write(file, file.relative_to(original.parent))
    checksum = md5(folder / "tiny.zip")
    source = PublicData("tiny-imagenet-3", url, {"tiny.zip": checksum}, "free", links=("tiny-imagenet-2",))
    root = tmp_path / "data"
    assert fetch(source, root) == root / "tiny-imagenet-3"
    assert sorted(find(root)) == ["tiny-imagenet-2", "tiny-imagenet-3"]
    assert len(load(root / "tiny-imagenet-2", 16).labels) == 2
    (folder / "tiny.zip").write_bytes(b"not an archive")
    broken = PublicData("other", url, {"tiny.zip": md5(folder / "tiny.zip")}, "free")
    with pytest.raises(FetchError, match=url):
        fetch(broken, root)
    assert sorted(path.name for path in root.iterdir()) == ["tiny-imagenet-2", "tiny-imagenet-3"]


def test_a_copy_placed_by_hand_is_taken_and_linked(tmp_path: Path) -> None:
    """The address leads nowhere: nothing is fetched."""
    copies = {"Pictures/tiny-imagenet-3": "https://example.org/Pictures"}
    links = ("tiny-imagenet-3", "tiny-imagenet-2")
    source = PublicData("tiny-imagenet-3", "http://127.0.0.1:1/", {"t.zip": "0" * 32}, "free", links, copies)
    assert source.by_hand(tmp_path) == (
        f"unpack http://127.0.0.1:1/t.zip as {tmp_path / 'tiny-imagenet-3'}, "
        f"or clone https://example.org/Pictures (the same images) as {tmp_path / 'Pictures'}"
    )
    with pytest.raises(FetchError):
        fetch(source, tmp_path)
    copy = write_tiny(tmp_path / "Pictures" / "tiny-imagenet-3", per_class=2, held_out=3)
    assert fetch(source, tmp_path) == copy
    assert sorted(find(tmp_path)) == ["tiny-imagenet-2", "tiny-imagenet-3"]
    assert fetch(source, tmp_path) == tmp_path / "tiny-imagenet-3", "linked already"


def test_a_repository_is_cloned_by_hand(tmp_path: Path) -> None:
    source = SOURCES[-1]
    with pytest.raises(FetchError, match="no archive with a checksum"):
        fetch(source, tmp_path)
    assert not list(tmp_path.iterdir())
    folder = tmp_path / source.folder
    assert source.by_hand(tmp_path) == f"clone {source.url} as {folder}"
    write_speech(folder, ("one", "zero"))
    assert fetch(source, tmp_path) == folder
    assert find(tmp_path) == {"arabic-speech-commands": folder}


def test_public_sources_name_a_checksum_for_every_file() -> None:
    assert [source.folder for source in SOURCES] == [
        "fashion-mnist",
        "cifar-10-batches-py",
        "cifar-100-python",
        "tiny-imagenet-200",
        "imagenette2-320",
        "arabic-speech-commands-dataset",
    ]
    for source in SOURCES:
        assert all(len(checksum) == 32 for checksum in source.files.values())
