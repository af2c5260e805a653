"""What callers can get wrong with either client: each mistake is a ClientError in plain words, or simply right."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collage.client import Client, ClientError, ClientSecurity, SyncClient
from collage.security import SecurityError
from collage.tensors import to_tensor
from tests.bench.fakes import FakePredictService, serving

PIXELS = np.full((8, 8, 3), 2, np.uint8)
NAN = float("nan")
BOUND_S = 30
KINDS = ["asyncio", "sync"]


async def use(kind: str, address: Any, method: str, *given: Any, **arguments: Any) -> Any:
    """The result of one method of one kind of client; a stream's as a list. ``client`` has the client's arguments."""
    how = arguments.pop("client", {})

    async def asynchronous() -> Any:
        async with Client(address, **how) as client:
            called = getattr(client, method)(*given, **arguments)
            return [pair async for pair in called] if method == "predict_stream" else await called

    def synchronous() -> Any:
        with SyncClient(address, **how) as client:
            called = getattr(client, method)(*given, **arguments)
            return list(called) if method == "predict_stream" else called

    async with asyncio.timeout(BOUND_S):
        return await (asynchronous() if kind == "asyncio" else asyncio.to_thread(synchronous))


async def refused(kind: str, *given: Any, address: Any = "127.0.0.1:1", **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        await use(kind, address, *given, **arguments)
    return str(caught.value)


IMAGES = {
    "floats from 0 to 255": (PIXELS.astype(float), "got float64: for values up to 255 send pixels.round().astype("),
    "floats from 0 to 1": (PIXELS / 255, "got float64: for values from 0 to 1 send (255 * pixels).round().astype("),
    "no numbers": (PIXELS * NAN, "got float64: for values from 0 to 1 send"),
    "half floats": (PIXELS.astype(np.float16), "got float16: for values up to 255 send pixels.round()"),
    "a memoryview of floats": (memoryview(PIXELS.astype(float)), "got float64: for values up to 255 send"),
    "truth values": (PIXELS > 1, "uint8 [size, size, 3]; got an array of bool"),
    "objects": (PIXELS.astype(object), "uint8 [size, size, 3]; got an array of object"),
    "texts": (PIXELS.astype(str), "uint8 [size, size, 3]; got an array of <U3"),
    "a path that is none": (Path("a\0\x1bb"), r"cannot read a\x00\x1bb: embedded null byte"),
    "a folder": (Path("/"), "cannot read /: Is a directory"),
    "a file without end": (Path("/dev/zero"), "the image is too large for a message, which may have 16777216 bytes"),
    "too many bytes": (bytes(16 << 20), "the image is too large for a message, which may have 16777216 bytes"),
    "too many pixels": (np.zeros((3000, 3000, 3), np.uint8), "the image is too large for a message"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", IMAGES)
async def test_what_is_no_image_is_refused_in_plain_words(kind: str, wrong: str) -> None:
    image, told = IMAGES[wrong]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert told in await refused(kind, "predict", image)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_memoryview_that_was_released_is_refused(kind: str) -> None:
    view = memoryview(b"abc")
    view.release()
    assert "INVALID_ARGUMENT: the memoryview cannot be read: operation forbidden" in await refused(
        kind, "predict", view
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_every_other_form_of_an_image_is_right(kind: str, tmp_path: Path) -> None:
    (tmp_path / "coat.png").write_bytes(b"\x02c")
    service = FakePredictService()
    async with serving(service) as server:
        address = f"127.0.0.1:{server.port}"
        for image in (b"\x02c", bytearray(b"\x02c"), memoryview(b"\x02?c?")[::2], tmp_path / "coat.png"):
            assert (await use(kind, address, "predict", image)).label == "Coat"
        for pixels in (
            memoryview(PIXELS),
            PIXELS.astype(">u2"),
            PIXELS[::-1],
            np.ma.array(PIXELS),
            memoryview(PIXELS[::-1]),
        ):
            assert (await use(kind, address, "predict", pixels)).label == "Coat"
        arguments: dict[str, Any] = {"top_k": np.int64(2), "timeout_s": np.float32(9), "with_output": 1}
        assert len((await use(kind, address, "predict", PIXELS, **arguments)).classes) == 2
    assert {request.image for request in service.requests[:4]} == {b"\x02c"}
    assert all(request.tensor == to_tensor(PIXELS) for request in service.requests[4:])


TIMES = "timeout_s is a number of seconds up to 1,000,000, or None, got "
OTHERS = "top_k is a whole number and request_id a text"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"timeout_s": "5"}, f"INVALID_ARGUMENT: {TIMES}'5'"),
        ({"timeout_s": NAN}, f"INVALID_ARGUMENT: {TIMES}nan"),
        ({"timeout_s": float("inf")}, f"INVALID_ARGUMENT: {TIMES}inf"),
        ({"timeout_s": 1e300}, f"INVALID_ARGUMENT: {TIMES}1e+300"),
        ({"timeout_s": 0}, "DEADLINE_EXCEEDED: timeout_s is 0: there is no time left"),
        ({"timeout_s": -0.5}, "DEADLINE_EXCEEDED: timeout_s is -0.5: there is no time left"),
        ({"top_k": 2**32}, OTHERS),
        ({"top_k": -1}, OTHERS),
        ({"top_k": 1.5}, OTHERS),
        ({"top_k": None}, OTHERS),
        ({"request_id": b"a"}, OTHERS),
        ({"request_id": "\udcff"}, OTHERS),
        ({"with_output": "yes"}, "with_output True or False"),
    ],
)
async def test_arguments_of_a_wrong_kind_are_refused(kind: str, arguments: dict[str, Any], told: str) -> None:
    assert told in await refused(kind, "predict", b"\x01", **arguments)
    if "timeout_s" in arguments:
        for method, given in (("predict_stream", ([("a", b"\x01")],)), ("health", ()), ("model", ())):
            assert told in await refused(kind, method, *given, **arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("images", "told"),
    [
        (None, "images are an iterable of (request_id, image) pairs, got NoneType"),
        ([b"\x01\x02\x03"], "a stream takes (request_id, image) pairs, got bytes"),
        ([PIXELS], "a stream takes (request_id, image) pairs, got ndarray"),
        ([("a", b"\x01", 3)], "a stream takes (request_id, image) pairs, got tuple"),
        ([(7, b"\x01")], "a request_id is a text, got 7"),
    ],
)
async def test_a_stream_of_anything_but_pairs_is_refused(kind: str, images: Any, told: str) -> None:
    async with serving(FakePredictService()) as server:
        assert told in await refused(kind, "predict_stream", images, address=f"127.0.0.1:{server.port}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("service", [5, "\udcff"])
async def test_the_health_of_what_is_no_name_is_not_that_of_the_process(kind: str, service: Any) -> None:
    async with serving(FakePredictService()) as server:
        address = f"127.0.0.1:{server.port}"
        assert f"a service has a name, got {service!r}" in await refused(kind, "health", service, address=address)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "address", ["", " ", " host:1", None, 5, b"host:1", "a\0:1", "\udcff:1", "http://host:1", "\x1b[31m:1"]
)
async def test_what_is_no_address_is_refused(kind: str, address: Any) -> None:
    told = await refused(kind, "predict", b"\x01", address=address)
    assert told == f"INVALID_ARGUMENT: an address is host:port, such as '127.0.0.1:50051', got {address!r}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"attempts": "3"}, "attempts is a whole number of at most 2147483647, got '3'"),
        ({"max_message_bytes": 2**40}, "max_message_bytes is a whole number of at most 2147483647, got 1099511627776"),
        ({"security": None}, "security is a ClientSecurity, got NoneType"),
    ],
)
async def test_a_client_that_cannot_be_made_says_why(kind: str, arguments: dict[str, Any], told: str) -> None:
    assert await refused(kind, "health", client=arguments) == f"INVALID_ARGUMENT: {told}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_host_that_is_not_known_is_told(kind: str) -> None:
    told = await refused(kind, "predict", b"\x01", address="no.such.host.invalid:1")
    assert told == "UNAVAILABLE: there is no address for no.such.host.invalid:1: is the name right?"


@pytest.mark.parametrize("token", [b"x", "x\n", "schlüssel", 5])
def test_a_token_that_cannot_be_sent_is_refused(token: Any) -> None:
    with pytest.raises(SecurityError, match="a token is a text of printable ASCII characters"):
        ClientSecurity(token=token)


def test_files_may_be_named_by_texts() -> None:
    absent: Any = "absent.pem"
    for arguments in ({"ca": absent}, {"token_file": absent}):
        with pytest.raises(SecurityError, match=r"cannot read absent.pem: No such file"):
            ClientSecurity(**arguments)


async def test_a_client_is_entered_once_at_a_time() -> None:
    client, other = Client("host:1"), SyncClient("host:1")
    async with client:
        with pytest.raises(ClientError, match="FAILED_PRECONDITION: the client of host:1 is open already"):
            await client.__aenter__()
    with other, pytest.raises(ClientError, match="open already"):
        other.__enter__()
    async with client:
        pass
