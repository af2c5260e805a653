"""Injected slowness: distributions are reproduced, draws depend on nothing but seed, request and attempt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.slowdown import Slowdown, SlowdownError

DRAWS = 20_000


def draws(slowdown: Slowdown, count: int = DRAWS) -> NDArray[np.float64]:
    return np.array([slowdown.draw(f"g{index // 9:04}-{index % 9}", 0) for index in range(count)])


def test_off_and_fixed() -> None:
    assert Slowdown().draw("r", 0) == 0
    assert not Slowdown("off").enabled
    assert Slowdown("fixed:0.25", scale=2).draw("r", 0) == 0.5


def test_the_quantile_table_is_reproduced(tmp_path: Path) -> None:
    table = [[0, 0.1], [0.5, 0.14], [0.95, 0.2], [0.98, 0.6], [1, 0.8]]
    (tmp_path / "latency.json").write_text(json.dumps({"source": "a test", "quantiles": table}))
    drawn = np.sort(draws(Slowdown(f"quantiles:{tmp_path}/latency.json", seed=3)))
    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    known = np.interp(drawn, *np.transpose(table)[::-1])
    assert np.abs(known - shares).max() < 0.012  # Kolmogorov-Smirnov: 1.6 / sqrt(20,000), p = 0.01
    assert drawn.min() >= 0.1
    assert drawn.max() <= 0.8


def test_a_trace_is_drawn_from_evenly(tmp_path: Path) -> None:
    np.save(tmp_path / "trace.npy", np.arange(100, dtype=np.float32))
    counts = np.bincount(draws(Slowdown(f"trace:{tmp_path}/trace.npy")).astype(int), minlength=100)
    assert counts.sum() == DRAWS
    assert len(counts) == 100
    assert ((counts - 200) ** 2 / 200).sum() < 149  # chi square with 99 degrees of freedom, p = 0.001


def test_a_slice_of_a_trace_keeps_to_itself(tmp_path: Path) -> None:
    np.save(tmp_path / "trace.npy", np.arange(100, dtype=np.float32))
    drawn = draws(Slowdown(f"trace:{tmp_path}/trace.npy#40-50", scale=0.5), 1000)
    assert set(drawn) == {value / 2 for value in range(40, 50)}


def test_draws_depend_on_seed_request_and_attempt_only(tmp_path: Path) -> None:
    np.save(tmp_path / "trace.npy", np.linspace(0, 1, 100_000, dtype=np.float32))
    specification = f"trace:{tmp_path}/trace.npy"
    one, same, other = (Slowdown(specification, seed) for seed in (7, 7, 8))
    assert one.draw("r", 0) == same.draw("r", 0) == one.draw("r", 0)
    assert (
        len({one.draw("r", 0), one.draw("r", 1), one.draw("s", 0), other.draw("r", 0), one.draw("collage:r", 0)}) == 5
    )
    firsts, replicas = ([one.draw(str(index), attempt) for index in range(5000)] for attempt in (0, 1))
    assert abs(np.corrcoef(firsts, replicas)[0, 1]) < 0.05  # a replica's slowness says nothing of the first copy's


def test_draws_are_the_same_in_every_process_and_release(tmp_path: Path) -> None:
    shares = tmp_path / "identity.json"
    shares.write_text('{"quantiles": [[0, 0], [1, 1]]}')
    assert Slowdown(f"quantiles:{shares}", seed=1).draw("g0001-3", 0) == pytest.approx(0.6910076828672267)


def test_two_modes_and_a_heavy_tail() -> None:
    bimodal = draws(Slowdown("bimodal:0.1,0.7,0.05"))
    assert ((bimodal > 0.63) & (bimodal < 0.77)).mean() == pytest.approx(0.05, abs=0.006)
    assert ((bimodal > 0.09) & (bimodal < 0.11)).mean() == pytest.approx(0.95, abs=0.006)
    pareto = draws(Slowdown("pareto:0.1,2"))
    assert pareto.min() == pytest.approx(0.1, rel=0.01)
    assert np.quantile(pareto, 0.99) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize(
    ("specification", "quantiles"),
    [  # at 10, 50, 90 and 99 %
        ("uniform:0.05,0.2", (0.065, 0.125, 0.185, 0.1985)),
        ("exponential:0.15", (0.0158, 0.104, 0.345, 0.691)),
        ("lognormal:0.14,0.4", (0.0839, 0.14, 0.2337, 0.355)),
        ("lognormal:0.14,0.8", (0.0502, 0.14, 0.390, 0.900)),
        ("pareto:0.1,1.6", (0.1068, 0.1542, 0.4217, 1.778)),
    ],
)
def test_families_have_the_quantiles_of_their_distributions(specification: str, quantiles: tuple[float, ...]) -> None:
    drawn = draws(Slowdown(specification, seed=2))
    for share, seconds in zip((0.1, 0.5, 0.9, 0.99), quantiles, strict=True):
        assert (drawn <= seconds).mean() == pytest.approx(share, abs=0.01), share


def test_spikes_are_rare_and_all_as_long() -> None:
    drawn = draws(Slowdown("spikes:0.1,3,0.005"))
    assert set(drawn) == {0.1, 3.0}
    assert (drawn == 3).mean() == pytest.approx(0.005, abs=0.0016)


def test_pairs_of_workers_are_slow_while_they_move_data() -> None:
    workers = [Slowdown(f"transfers:0.1,0.05,16,16,0.5#{index}/16", seed=4) for index in range(16)]

    def slow(at: float) -> list[int]:  # an extra of no length at all has no share
        return [
            index for index, worker in enumerate(workers) if max(worker.draw(str(i), 0, at) for i in range(40)) > 0.12
        ]

    moments = [slow(64 + second) for second in range(160)]
    assert all(len(moment) <= 16 * 0.5 + 4 for moment in moments)
    assert np.mean([len(moment) for moment in moments]) == pytest.approx(0.75 * 0.5 * 16, rel=0.15)
    assert len({tuple(moment) for moment in moments[::16]}) > 5, "the pairs change"
    assert {index for moment in moments for index in moment} == set(range(16))
    alone = [worker.draw("r", 0, 64.0) for worker in workers]
    assert alone == [worker.draw("r", 0, 64.0) for worker in workers]
    assert sum(seconds > 0.11 for seconds in alone) <= 10


def test_an_exponential_time_is_added_while_data_move() -> None:
    worker = Slowdown("transfers:0.1,0.05,16,16,1#0/2", seed=1)
    always = np.array([worker.draw(f"{i}", 0, 16.0 + 0.001 * i) for i in range(5000)])  # the pair begins at once
    assert always.mean() == pytest.approx(0.15, rel=0.03)
    assert np.quantile(always, 0.99) == pytest.approx(0.11 + 0.05 * 4.6, rel=0.1)


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    """Four machines of constant speed, the first one slow; pooled, a second."""
    vms = {"shares": [0, 1], "seconds": [[7, 7], [1, 1], [2, 2], [3, 3]]}
    file = tmp_path / "latency.json"
    file.write_text(json.dumps({"quantiles": [[0, 1], [1, 1]], "vms": vms}))
    return file


def test_a_persistent_worker_plays_one_machine(machines: Path) -> None:
    def drawn(index: int, count: int) -> float:
        return Slowdown(f"persistent:{machines}#{index}/{count}").draw("r", 0)

    assert [drawn(index, 4) for index in range(4)] == [7, 1, 2, 3]
    assert [drawn(index, 2) for index in range(2)] == [7, 2]
    assert [drawn(index, 8) for index in range(8)] == [7, 7, 1, 1, 2, 2, 3, 3]


def test_in_a_mixture_the_slowness_moves_from_worker_to_worker(machines: Path) -> None:
    def slow(count: int, at: float, seed: int = 1, scale: float = 1.0) -> list[int]:
        workers = (Slowdown(f"mixture:{machines}#{index}/{count}", seed, scale) for index in range(count))
        return [index for index, worker in enumerate(workers) if worker.draw("r", 0, at) == 7 * scale]

    turns = [slow(10, 30.0 * turn + 1) for turn in range(20)]
    assert all(len(turn) == 1 for turn in turns)
    assert sorted(turns[:10]) == [[index] for index in range(10)]
    assert turns[10:] == turns[:10]
    assert len({slow(10, 0.0, seed)[0] for seed in range(20)}) > 5
    assert slow(10, 29.9) == slow(10, 0.0) == slow(10, 29.9, scale=0.9)  # a collage worker moves in step
    assert sorted(index for turn in range(50) for index in slow(100, 30.0 * turn)) == list(range(100))


def test_measured_latencies_are_drawn_from() -> None:
    slowdown = Slowdown.sampled(np.array([0.1, 0.2]), seed=1, scale=2)
    assert slowdown.enabled
    assert set(draws(slowdown, 100)) == {0.2, 0.4}
    with pytest.raises(ValueError, match="not negative"):
        Slowdown.sampled(np.array([-1.0]))


@pytest.mark.parametrize(
    ("specification", "told"),
    [
        ("sometimes", "none of off, fixed:SECONDS"),
        ("off:1", "none of off"),
        ("fixed:", "could not convert"),
        ("fixed:-1", "not negative"),
        ("fixed:nan", "finite"),
        ("quantiles:missing.json", "No such file"),
        ("trace:missing.npy", "No such file"),
        ("trace:{}/trace.npy#3-3", "not a slice of its 3 values"),
        ("trace:{}/trace.npy#0-4", "not a slice of its 3 values"),
        ("trace:{}/trace.npy#x", "invalid literal"),
        ("trace:{}/matrix.npy", "one-dimensional"),
        ("trace:{}/negative.npy", "not negative"),
        ("trace:{}/empty.npy", "there must be some"),
        ("trace:{}/words.json", "trace:"),
        ("quantiles:{}/words.json", "Expecting value"),
        ("quantiles:{}/list.json", "it is not JSON of the form"),
        ("quantiles:{}/none.json", "it is not JSON of the form"),
        ("quantiles:{}/falling.json", "seconds must not fall"),
        ("quantiles:{}/percent.json", "p must rise within 0 to 1"),
        ("quantiles:{}/text.json", "quantiles:"),
        ("bimodal:0.1,0.5", "3 numbers are needed"),
        ("bimodal:0.1,0.5,2", "SHARE must be at most 1"),
        ("pareto:0.1,0", "SHAPE must be above 0"),
        ("spikes:0.1,3,2", "SHARE must be at most 1"),
        ("uniform:0.2,0.1", "MOST must not be below LEAST"),
        ("transfers:0.1,0.05,16#0/2", "5 numbers are needed"),
        ("transfers:0.1,0.05,0,16,0.5#0/2", "LONGEST above 0"),
        ("transfers:0.1,0.05,17,16,0.5#0/2", "at most EVERY"),
        ("transfers:0.1,0.05,16,16,2#0/2", "SHARE must be at most 1"),
        ("persistent:{}/words.json#0/1", "Expecting value"),
        ("persistent:{}/none.json#0/1", '{{"vms":'),
        ("persistent:{}/none.json", "FILE.json#INDEX/COUNT is needed"),
        ("mixture:{}/none.json#2/2", "with INDEX from 0 to COUNT - 1"),
        ("mixture:{}/none.json#x/2", "invalid literal"),
    ],
)
def test_an_unusable_specification_is_refused_in_one_line(tmp_path: Path, specification: str, told: str) -> None:
    np.save(tmp_path / "trace.npy", np.ones(3, np.float32))
    np.save(tmp_path / "matrix.npy", np.ones((2, 2), np.float32))
    np.save(tmp_path / "negative.npy", -np.ones(2, np.float32))
    np.save(tmp_path / "empty.npy", np.ones(0, np.float32))
    (tmp_path / "words.json").write_text("hello")
    (tmp_path / "list.json").write_text("[[0, 1], [1, 2]]")
    for name, quantiles in {
        "none": [],
        "falling": [[0, 2], [1, 1]],
        "percent": [[0, 1], [50, 2], [100, 3]],
        "text": [["a", "b"]],
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"quantiles": quantiles}))
    with pytest.raises(SlowdownError) as caught:
        Slowdown(specification.format(tmp_path))
    assert told.replace("{{", "{") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_switch_is_looked_at_with_every_draw(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    switch = tmp_path / "switch"
    slowdown = Slowdown(f"switch:{switch}", scale=2)
    assert (slowdown.enabled, slowdown.draw("r", 0)) == (True, 0)
    for specification, seconds in (("fixed:0.25", 0.5), ("off", 0), ("fixed:0.125\n", 0.25)):
        (tmp_path / "new").write_text(specification)
        (tmp_path / "new").replace(switch)
        assert slowdown.draw("r", 0) == seconds
    (tmp_path / "new").write_text("nonsense")
    (tmp_path / "new").replace(switch)
    assert slowdown.draw("r", 0) == 0.25, "the last one stays"
    assert "specifies no slowness" in caplog.text
    switch.unlink()
    assert slowdown.draw("r", 0) == 0
