"""TLS, mutual TLS and tokens over real connections: who gets in, what the others are told, and that none waits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from collage.cli import main
from collage.client import Client, ClientError, SyncClient
from collage.security import ClientSecurity, SecurityError, Tokens
from collage.serving import Server, ServerSettings, load_settings
from collage.tensors import to_tensor
from collage.v1 import predict_pb2, predict_pb2_grpc
from tests.bench.fakes import FakePredictService
from tests.certificates import Authority, Pair
from tests.frontend.fakes import S_CNN, image
from tests.frontend.grpc_workers import LOCAL, cluster
from tests.test_inputs import KINDS, use

SOON_S = 5.0
"""No refusal may take longer."""


@asynccontextmanager
async def serving(
    pair: Pair | None = None, client_ca: Path | None = None, service: FakePredictService | None = None, **changes: Any
) -> AsyncIterator[Server]:
    """A fake frontend behind TLS."""
    tls = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": client_ca} if pair else {}
    server = Server(ServerSettings(**{**LOCAL, "drain_s": 0, **tls, **changes}), CollectorRegistry(), [""])
    predict_pb2_grpc.add_PredictServiceServicer_to_server(service or FakePredictService(), server.grpc)
    await server.start()
    server.set_serving(True)
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: Server, security: ClientSecurity) -> str:
    """The label of an answer, or the error."""
    async with asyncio.timeout(SOON_S), Client(f"127.0.0.1:{server.port}", security=security) as client:
        try:
            return (await client.predict(b"\x01")).label
        except ClientError as error:
            return str(error)


async def stream(server: Server, security: ClientSecurity) -> list[str]:
    """Ids of the answers to a stream of one image."""
    async with asyncio.timeout(SOON_S), Client(f"127.0.0.1:{server.port}", security=security) as client:
        return [id async for id, _ in client.predict_stream([("a", b"\x01")])]


def stream_without_asyncio(port: int, security: ClientSecurity) -> list[str]:
    """Ids of the answers to a stream of one image, for a synchronous client."""
    with SyncClient(f"127.0.0.1:{port}", security=security) as client:
        return [id for id, _ in client.predict_stream([("a", b"\x01")])]


def ask_without_asyncio(port: int, security: ClientSecurity) -> str:
    """The label that a synchronous client gets, or its error."""
    with SyncClient(f"127.0.0.1:{port}", security=security) as client:
        try:
            return client.predict(b"\x01", timeout_s=SOON_S).label
        except ClientError as error:
            return str(error)


def shown(pair: Pair, ca: Path) -> ClientSecurity:
    return ClientSecurity(ca=ca, cert=pair.cert, key=pair.key)


async def test_a_client_that_knows_the_ca_gets_in(ours: Authority) -> None:
    async with serving(ours.issue("server")) as server:
        assert await ask(server, ClientSecurity(ca=ours.ca)) == "Bag"


async def test_servers_that_cannot_be_trusted_are_refused(ours: Authority, theirs: Authority) -> None:
    async with serving(ours.issue("server")) as server:
        for stranger in (ClientSecurity(ca=theirs.ca), ClientSecurity(tls=True)):
            told = await ask(server, stranger)
            assert told.startswith(f"UNAVAILABLE: no TLS connection to 127.0.0.1:{server.port}: CERTIFICATE_VERIFY")
    async with serving(ours.issue("late", expired=True)) as server:
        assert "certificate has expired" in await ask(server, ClientSecurity(ca=ours.ca))
    async with serving(ours.issue("other", "elsewhere.example")) as server:
        assert await ask(server, ClientSecurity(ca=ours.ca)) != "Bag"
    async with serving() as server:
        assert "WRONG_VERSION_NUMBER" in await ask(server, ClientSecurity(ca=ours.ca))


async def test_a_plaintext_client_is_told_at_once(ours: Authority) -> None:
    async with serving(ours.issue("server")) as server:
        assert (await ask(server, ClientSecurity())).endswith("closed the connection: does it want TLS?")


async def test_mutual_tls_wants_a_good_client_certificate(ours: Authority, theirs: Authority) -> None:
    async with serving(ours.issue("server"), ours.ca) as server:
        assert await ask(server, shown(ours.issue("client", "client"), ours.ca)) == "Bag"
        for refused in (
            ClientSecurity(ca=ours.ca),
            shown(ours.issue("late", "client", expired=True), ours.ca),
            shown(theirs.issue("client", "client"), ours.ca),
        ):
            assert (await ask(server, refused)).endswith("does it want another client certificate?")
        assert "does it want TLS?" in await ask(server, ClientSecurity())


async def test_a_synchronous_client_shows_and_checks_the_same(
    ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("secret")
    async with serving(ours.issue("server"), ours.ca, token_file=tmp_path / "tokens") as server:
        pair = ours.issue("client", "client")
        for security, expected in (
            (ClientSecurity(ca=ours.ca, cert=pair.cert, key=pair.key, token="secret"), "Bag"),  # noqa: S106
            (shown(pair, ours.ca), "UNAUTHENTICATED"),
            (ClientSecurity(ca=ours.ca), "does it want another client certificate?"),
            (shown(pair, theirs.ca), "CERTIFICATE_VERIFY_FAILED"),
            (ClientSecurity(), "does it want TLS?"),
        ):
            assert expected in await asyncio.to_thread(ask_without_asyncio, server.port, security)


async def test_the_frontend_and_its_workers_prove_themselves_to_each_other(ours: Authority, tmp_path: Path) -> None:
    worker, frontend = ours.issue("worker"), ours.issue("frontend", "frontend")
    token = tmp_path / "token"
    token.write_text("between-us\nolder")
    behind = {"tls_cert": worker.cert, "tls_key": worker.key, "tls_client_ca": ours.ca, "token_file": token}
    trusting: dict[str, Any] = {"worker_ca": ours.ca, "worker_cert": frontend.cert, "worker_key": frontend.key}
    async with cluster(worker_settings=behind, **trusting, worker_token_file=token) as (stub, _, _):
        request = predict_pb2.PredictRequest(tensor=to_tensor(image(3)))
        answer: Any = stub.Predict(request, timeout=SOON_S)
        assert (await answer).classes[0].label == S_CNN.labels[3]


async def test_calls_need_a_token_and_health_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tokens"
    file.write_text("new-secret\nold-secret\n")
    async with serving(token_file=file) as server:
        for good in ("new-secret", "old-secret"):
            assert await ask(server, ClientSecurity(token=good)) == "Bag"
        assert await ask(server, ClientSecurity(token_file=file)) == "Bag"
        assert await stream(server, ClientSecurity(token_file=file)) == ["a"]
        assert await asyncio.to_thread(stream_without_asyncio, server.port, ClientSecurity(token_file=file)) == ["a"]
        for bad in ("", "new-secre", "new-secret2", "new-secret old-secret", "Bearer"):
            assert (await ask(server, ClientSecurity(token=bad))).startswith(
                "UNAUTHENTICATED: this server wants a valid"
            )
        address = f"127.0.0.1:{server.port}"
        async with Client(address) as client:
            assert await client.health() == "SERVING"
            with pytest.raises(ClientError, match="UNAUTHENTICATED"):
                await anext(client.predict_stream([("a", b"\x01")]))
            with pytest.raises(ClientError, match="UNAUTHENTICATED"):
                await client.model()
        async with grpc.aio.insecure_channel(address) as channel:
            listing: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            call = listing.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
            with pytest.raises(grpc.aio.AioRpcError, match="wants a valid token"):
                await call.read()
            stub = predict_pb2_grpc.PredictServiceStub(channel)
            for header in ("Basic new-secret", "new-secret"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Predict(predict_pb2.PredictRequest(image=b"\x01"), metadata=(("authorization", header),))
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        os.utime(file, (1, 1))
        file.write_text("newer-secret")
        assert await ask(server, ClientSecurity(token="newer-secret")) == "Bag"  # noqa: S106 - made up
        assert "UNAUTHENTICATED" in await ask(server, ClientSecurity(token="new-secret"))  # noqa: S106 - made up
        os.utime(file, (2, 2))
        file.unlink()
        assert await ask(server, ClientSecurity(token="newer-secret")) == "Bag"  # noqa: S106 - made up
    assert "secret" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_of_both_clients_carries_the_token(kind: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret")
    how = {"security": ClientSecurity(token="secret")}  # noqa: S106 - made up
    async with serving(token_file=tmp_path / "tokens") as server:
        address = f"127.0.0.1:{server.port}"
        assert (await use(kind, address, "predict", b"\x01", client=how)).label == "Bag"
        ((_, answer),) = await use(kind, address, "predict_stream", [("a", b"\x01")], client=how)
        assert answer.label == "Bag"
        assert await use(kind, address, "model", client=how) is None


def test_a_token_is_never_shown() -> None:
    assert "swordfish" not in repr(ClientSecurity(token="swordfish"))  # noqa: S106 - made up


async def test_probes_that_know_no_tls_have_a_port_with_health_only(ours: Authority) -> None:
    async with (
        serving(ours.issue("server"), ours.ca, health_port=0) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)).status == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await predict_pb2_grpc.PredictServiceStub(channel).Predict(predict_pb2.PredictRequest(), timeout=SOON_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("reflection", [True, False])
async def test_reflection_can_be_off(reflection: bool) -> None:
    async with (
        serving(reflection=reflection) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if reflection:
            assert (await call.read()).list_services_response.service
            call.cancel()
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metrics_can_listen_elsewhere() -> None:
    async with serving(metrics_host="127.0.0.2") as server:
        _, writer = await asyncio.open_connection("127.0.0.2", server.metrics_port)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.metrics_port)


Broken = Callable[[Authority], dict[str, Any]]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda ca: {"tls_cert": ca.ca, "tls_key": ca.issue("x").key}, "not a certificate and its unencrypted key"),
        (lambda ca: {"tls_cert": ca.issue("a").cert, "tls_key": ca.issue("b").key}, "KEY_VALUES_MISMATCH"),
        (
            lambda ca: {"tls_cert": Path("/absent.pem"), "tls_key": ca.issue("x").key},
            "cannot read /absent.pem: No such",
        ),
        (lambda ca: {"token_file": Path("/absent")}, "cannot read /absent: No such file"),
        (lambda ca: {"token_file": Path("/dev/null")}, "/dev/null holds no token"),
    ],
)
def test_files_that_cannot_be_used_are_named(ours: Authority, broken: Broken, told: str) -> None:
    async def make() -> None:
        Server(ServerSettings(**LOCAL, **broken(ours)), CollectorRegistry(), [])

    with pytest.raises(SecurityError, match=told):
        asyncio.run(make())


def test_the_clients_files_are_checked_as_well(ours: Authority, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk")
    with pytest.raises(SecurityError, match="holds no CA certificates"):
        ClientSecurity(ca=junk)
    with pytest.raises(SecurityError, match="needs its key"):
        ClientSecurity(ca=ours.ca, cert=ours.ca)
    junk.write_text("schlüssel")
    with pytest.raises(SecurityError, match="not ASCII"):
        Tokens(junk)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tls-cert", "a.pem"], "--tls-cert and --tls-key belong together: give both or neither\n"),
        (["--tls-client-ca", "a.pem"], "--tls-client-ca needs --tls-cert and --tls-key as well\n"),
    ],
)
def test_half_a_setting_is_told(capsys: pytest.CaptureFixture[str], flags: list[str], told: str) -> None:
    with pytest.raises(SystemExit):
        load_settings(ServerSettings, flags)
    assert capsys.readouterr().err == told


async def test_the_command_speaks_tls_and_sends_the_token(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bag.png").write_bytes(b"\x01")
    (tmp_path / "tokens").write_text("swordfish")
    client = ours.issue("client", "client")
    async with serving(ours.issue("server"), ours.ca, token_file=tmp_path / "tokens") as server:
        address = ["--address", f"127.0.0.1:{server.port}"]
        tls = ["--ca", str(ours.ca), "--cert", str(client.cert), "--key", str(client.key)]
        predict = ["predict", str(tmp_path / "bag.png"), *address]
        assert await asyncio.to_thread(main, [*predict, *tls, "--token-file", str(tmp_path / "tokens")]) == 0
        assert await asyncio.to_thread(main, [*predict, *tls]) == 1
        assert "UNAUTHENTICATED" in capsys.readouterr().err
        monkeypatch.setenv("COLLAGE_TOKEN", "swordfish")
        assert await asyncio.to_thread(main, [*predict, *tls]) == 0
        assert await asyncio.to_thread(main, ["health", f"127.0.0.1:{server.port}", *tls]) == 0
        assert await asyncio.to_thread(main, predict) == 1
        assert await asyncio.to_thread(main, [*predict, "--ca", "/absent"]) == 2
    assert "collage: cannot read /absent: No such file or directory" in capsys.readouterr().err
