"""Lists of workers that change as a whole: new workers are used before old ones are let go."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from collage.client import Client
from collage.model_info import ModelInfo
from frontend.fitting import base_misfit
from frontend.workers import Pool, PoolSettings, WorkerFailure
from tests.frontend.fakes import COLLAGE, S_CNN, FakeCall, FakeTransport, Outputs, classify, image, s_cnn_after
from tests.frontend.grpc_workers import Slowness, cluster, worker

BOUND_S = 30.0
OTHER = replace(S_CNN, version="2")


@dataclass
class Known(FakeTransport):
    """A worker that serves when it is told, and says whether it was hung up on."""

    serving: bool = True
    closed: bool = False

    def __post_init__(self) -> None:
        self.told = asyncio.Event()

    async def ping(self) -> ModelInfo:
        if self.info is S_CNN and not self.serving:
            raise WorkerFailure("UNAVAILABLE", "nobody there")
        return self.info

    async def watch(self, changed: Callable[[bool], None]) -> None:
        while True:
            self.told.clear()
            changed(self.serving)
            await self.told.wait()

    async def close(self) -> None:
        self.closed = True


class Rack:
    """A pool whose list a test changes; ``state`` is every known worker, and whether it is used."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "workers"
        self.transports: dict[str, Known] = {}
        self.pool = Pool("s_cnn", f"file://{self.file}", self.connect, PoolSettings(0.01))
        self.pool.fits = base_misfit

    def connect(self, address: str) -> Known:
        return self.transports[address[:-2]]

    @property
    def state(self) -> dict[str, bool]:
        return {address[:-2]: worker.ready for address, worker in self.pool.workers.items()}

    def list(self, *names: str) -> None:
        self.file.write_text("\n".join(f"{name}:1" for name in names))

    def set(self, name: str, serving: bool) -> None:
        self.transports[name].serving = serving
        self.transports[name].told.set()

    async def until(self, **state: bool) -> None:
        async with asyncio.timeout(BOUND_S):
            while self.state != state:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def racked(folder: Path, *names: str, **models: ModelInfo) -> AsyncIterator[Rack]:
    """A started pool over ``names``; ``models`` are all workers that there will be."""
    rack = Rack(folder)
    rack.transports = {name: Known(info, s_cnn_after(0.1)) for name, info in models.items()}
    rack.list(*names)
    await rack.pool.start()
    await rack.until(**dict.fromkeys(names, True))
    yield rack
    await rack.pool.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_old_workers_are_used_until_a_new_one_can_be(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", "b", a=S_CNN, b=S_CNN, c=S_CNN, d=S_CNN) as rack:
        rack.transports["c"].serving = rack.transports["d"].serving = False
        rack.list("c", "d")
        await rack.until(a=True, b=True, c=False, d=False)
        assert (rack.pool.ready, rack.pool.pick(["b:1"])) == (2, rack.pool.workers["a:1"])
        rack.set("d", True)
        await rack.until(c=False, d=True)
        async with asyncio.timeout(BOUND_S):
            while not (rack.transports["a"].closed and rack.transports["b"].closed):
                await asyncio.sleep(0.01)
        assert rack.pool.balancer.pick(0.0, ["d:1"]) is None


async def test_an_old_worker_that_stops_is_let_go(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", "b", a=S_CNN, b=S_CNN, c=S_CNN) as rack:
        rack.transports["c"].serving = False
        rack.list("c")
        await rack.until(a=True, b=True, c=False)
        rack.set("a", False)
        await rack.until(b=True, c=False)
        rack.set("b", False)
        await rack.until(c=False)
        assert rack.pool.ready == 0


async def test_an_old_worker_that_is_listed_again_stays(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", a=S_CNN, c=S_CNN) as rack:
        rack.transports["c"].serving = False
        rack.list("c")
        await rack.until(a=True, c=False)
        worker = rack.pool.workers["a:1"]
        rack.list("a", "c")
        await asyncio.sleep(0.1)
        rack.set("c", True)
        await rack.until(a=True, c=True)
        assert rack.pool.workers["a:1"] is worker


async def test_a_worker_that_left_is_closed_when_its_calls_have_ended(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", a=S_CNN, c=S_CNN) as rack:
        go_on = asyncio.Event()

        async def behave(call: FakeCall) -> Outputs:
            await go_on.wait()
            return classify(call.image)

        left = rack.transports["a"]
        left.behave = behave
        call = asyncio.create_task(rack.pool.workers["a:1"].ask(image(1), "r1", BOUND_S))
        rack.list("c")
        await rack.until(c=True)
        await asyncio.sleep(0.1)
        assert not left.closed
        go_on.set()
        assert (await call).outputs[0].argmax() == 1
        async with asyncio.timeout(BOUND_S):
            while not left.closed:
                await asyncio.sleep(0.01)


async def test_a_list_of_workers_that_do_not_fit_is_no_outage(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", a=S_CNN, c=COLLAGE) as rack:
        rack.list("c")
        async with asyncio.timeout(BOUND_S):
            while not rack.pool.refused:
                await asyncio.sleep(0.01)
        assert (rack.state, rack.pool.info, rack.pool.refused) == ({"a": True, "c": False}, S_CNN, 1)


async def test_one_new_worker_of_another_version_outvotes_all_that_left(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", "b", a=S_CNN, b=S_CNN, c=OTHER) as rack:
        rack.list("c")
        await rack.until(c=True)
        assert rack.pool.info == OTHER


async def test_those_that_leave_others_behind_leave_at_once(tmp_path: Path) -> None:
    async with racked(tmp_path, "a", "b", a=S_CNN, b=S_CNN, c=S_CNN) as rack:
        rack.transports["c"].serving = False
        rack.list("b", "c")
        await rack.until(b=True, c=False)


async def test_a_long_list_is_reviewed_once(tmp_path: Path) -> None:
    names = [f"w{number}" for number in range(100)]
    async with racked(tmp_path, *names, **dict.fromkeys(names, S_CNN)) as rack:
        reviews: list[int] = []
        rack.pool.listeners.append(lambda: reviews.append(rack.pool.ready))
        rack.list(*names[:3])
        await rack.until(w0=True, w1=True, w2=True)
        assert reviews == [3]


async def test_models_that_are_equal_are_compared_once(tmp_path: Path) -> None:
    twin = replace(S_CNN)
    async with racked(tmp_path, "a", "b", a=S_CNN, b=twin) as rack:
        assert rack.pool.workers["b:1"].info is rack.pool.workers["a:1"].info


@pytest.mark.parametrize("new", ["workers", "nobody"])
async def test_no_request_fails_when_all_workers_are_replaced(tmp_path: Path, new: str) -> None:
    file = tmp_path / "workers"
    async with AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(worker(S_CNN))).port for _ in range(4)]
        file.write_text("\n".join(f"127.0.0.1:{port}" for port in ports[:2]))
        settings = {"s_cnn_workers": f"file://{file}", "resolve_every_s": 0.02, "policy": "none"}
        _, server, _ = await stack.enter_async_context(cluster(2, **settings))
        client = await stack.enter_async_context(Client(f"127.0.0.1:{server.port}", attempts=1))
        for round in range(60):
            if round == 20:
                others = ports[2:] if new == "workers" else [9, 11, 13]
                file.write_text("\n".join(f"127.0.0.1:{port}" for port in others))
            answers = await asyncio.gather(*(client.predict(image(3), timeout_s=BOUND_S) for _ in range(4)))
            assert {answer.label for answer in answers} == {"d"}
            await asyncio.sleep(0.01)


def connections() -> int:
    """Open sockets of this process."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


async def test_connections_to_workers_that_left_are_closed_without_the_garbage_collector(tmp_path: Path) -> None:
    file, slowness = tmp_path / "workers", Slowness(**{f"slow{number}": 0.2 for number in range(1000)})
    async with AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(worker(S_CNN, slowness))).port for _ in range(4)]
        file.write_text(f"127.0.0.1:{ports[0]}\n127.0.0.1:{ports[1]}")
        settings = {"s_cnn_workers": f"file://{file}", "resolve_every_s": 0.01, "policy": "hedge", "deadline_s": 0.02}
        _, server, _ = await stack.enter_async_context(cluster(2, **settings))
        client = await stack.enter_async_context(Client(f"127.0.0.1:{server.port}", attempts=1))

        async def ask(number: int) -> None:
            answer = await client.predict(image(3), timeout_s=BOUND_S, request_id=f"slow{number}")
            assert answer.label == "d"

        await ask(999)  # connects
        gc.collect()
        gc.disable()
        try:
            before = connections()
            for number in range(12):
                first = 2 if number % 2 == 0 else 0
                asked = [asyncio.create_task(ask(8 * number + each)) for each in range(8)]  # replicas are cancelled
                file.write_text("\n".join(f"127.0.0.1:{port}" for port in ports[first : first + 2]))
                await asyncio.gather(*asked)
            async with asyncio.timeout(BOUND_S):
                while connections() > before:
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()
