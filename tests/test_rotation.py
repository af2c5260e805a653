"""Certificates and tokens that change while they are in use, on both ends of a connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from collage.client import Client, ClientError, SyncClient
from collage.security import ClientSecurity, Tokens
from tests.bench.fakes import FakePredictService
from tests.certificates import Authority, Pair
from tests.test_security import SOON_S, ask, serving, shown


def replace(old: Pair, new: Pair) -> None:
    """What a rotated secret does, with a new time stamp however coarse the file system's clock."""
    for source, target in ((new.cert, old.cert), (new.key, old.key)):
        before = target.stat().st_mtime
        shutil.copy(source, target)
        os.utime(target, (before + 1, before + 1))


def rewrite(file: Path, content: bytes, times: tuple[int, int] | None = None) -> None:
    """In place, with a time stamp of its own choice, as tools do that copy times as well."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=times or (before.st_atime_ns, before.st_mtime_ns))


async def test_a_rotated_certificate_is_taken_up_and_a_broken_one_is_not(
    ours: Authority, theirs: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = ours.issue("server")
    async with serving(pair) as server:
        assert await ask(server, ClientSecurity(ca=ours.ca)) == "Bag"
        replace(pair, theirs.issue("server"))
        assert "VERIFY_FAILED" in await ask(server, ClientSecurity(ca=ours.ca))
        assert await ask(server, ClientSecurity(ca=theirs.ca)) == "Bag"
        pair.key.write_text("half a key")
        assert await ask(server, ClientSecurity(ca=theirs.ca)) == "Bag"
    assert caplog.text.count("keeping the certificate in use: ") == 1
    assert "Traceback" not in caplog.text


async def test_a_certificate_rewritten_in_place_is_taken_up(ours: Authority, theirs: Authority) -> None:
    pair, other = ours.issue("server"), theirs.issue("server")
    async with serving(pair) as server:
        assert await ask(server, ClientSecurity(ca=ours.ca)) == "Bag"
        rewrite(pair.cert, other.cert.read_bytes())
        rewrite(pair.key, other.key.read_bytes())
        assert await ask(server, ClientSecurity(ca=theirs.ca)) == "Bag"


async def test_new_channels_show_a_rotated_client_certificate(ours: Authority, theirs: Authority) -> None:
    pair = theirs.issue("client", "client")
    security = shown(pair, ours.ca)
    async with serving(ours.issue("server"), ours.ca) as server:
        assert "another client certificate" in await ask(server, security)
        replace(pair, ours.issue("client", "client"))
        assert await ask(server, security) == "Bag"


async def test_an_open_client_takes_up_a_rotated_certificate(ours: Authority, theirs: Authority) -> None:
    pair, service = ours.issue("client", "client"), FakePredictService()
    security = shown(pair, ours.ca)

    async def calls(client: Client) -> None:
        before = asyncio.create_task(client.predict(b"\x02slow"))
        while not service.in_flight:
            await asyncio.sleep(0)
        replace(pair, theirs.issue("rotated", "client"))
        with pytest.raises(ClientError, match="another client certificate"):
            await client.predict(b"\x01")
        service.released.set()  # what went over the connection of before is not lost
        assert (await before).label == "Coat"
        for _ in range(3):
            replace(pair, ours.issue("rotated", "client"))
            assert (await client.predict(b"\x01")).label == "Bag"

    async with (
        serving(ours.issue("server"), ours.ca, service) as server,
        Client(f"127.0.0.1:{server.port}", security=security) as client,
    ):
        await calls(client)


async def test_an_open_synchronous_client_does_so_as_well(ours: Authority, theirs: Authority) -> None:
    pair = ours.issue("client", "client")

    def calls(port: int) -> list[str]:
        told = []
        with SyncClient(f"127.0.0.1:{port}", security=shown(pair, ours.ca)) as client:
            for authority in (ours, theirs, ours, ours, ours):
                replace(pair, authority.issue("rotated", "client"))
                try:
                    told.append(client.predict(b"\x01", timeout_s=SOON_S).label)
                except ClientError as error:
                    told.append(str(error)[-27:])
        return told

    async with serving(ours.issue("server"), ours.ca) as server:
        told = await asyncio.to_thread(calls, server.port)
    assert told == ["Bag", "another client certificate?", "Bag", "Bag", "Bag"]


def test_tokens_rewritten_in_place_are_noticed_however_soon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tokens"
    file.write_text("token-0000")
    tokens, security = Tokens(file), ClientSecurity(token_file=file)
    for number in range(1, 300):  # many within each tick of the file system's clock
        rewrite(file, b"token-%04d" % number)
        assert tokens.current() == [b"token-%04d" % number]
        assert security.metadata() == (("authorization", f"Bearer token-{number:04}"),)
    file.unlink()
    for _ in range(3):
        assert tokens.current() == [b"token-0299"]
    assert [record.getMessage() for record in caplog.records] == [
        f"keeping the tokens in use: cannot read {file}: No such file or directory"
    ]
    file.write_bytes(b"token-0300")
    assert tokens.current() == [b"token-0300"]


def test_a_rewrite_within_one_tick_of_a_coarse_clock_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    file.write_text("old")
    seen = file.stat()
    monkeypatch.setattr(Path, "stat", lambda *_: seen)  # the file system tells nothing of what follows
    tokens = Tokens(file)
    file.write_text("new")
    assert tokens.current() == [b"new"]


def test_a_file_left_alone_for_long_is_noticed_by_its_time_of_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now = tmp_path / "tokens", time.time
    file.write_text("old")
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    tokens = Tokens(file)
    before = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == before:  # the next tick of the file system's clock
        rewrite(file, b"new")
    assert tokens.current() == [b"new"]


def test_certificates_rewritten_in_place_are_noticed(ours: Authority, theirs: Authority, tmp_path: Path) -> None:
    pair = ours.issue("client", "client")
    security = shown(pair, ours.ca)
    first = security.stamp()
    assert security.stamp() == first
    other = ours.issue("other", "client")
    rewrite(pair.cert, other.cert.read_bytes())
    assert security.stamp() == first  # half of it
    rewrite(pair.key, other.key.read_bytes())
    second = security.stamp()
    assert second != first
    assert security.stamp() == second
    rewrite(ours.ca, theirs.ca.read_bytes())
    assert security.stamp() not in (first, second)
