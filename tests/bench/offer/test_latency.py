"""The latency table: what it reproduces, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.offer.workload import LATENCY_TABLE, fit, load_table, main, save
from worker.slowdown import Slowdown

PERCENTILES = (*range(1, 100), 99.9)
# Of the 137,594 measured latencies (Collage inference, figure 2), in seconds.
MEASURED = np.array([
    0.09180, 0.09566, 0.09720, 0.09808, 0.09881, 0.09944, 0.10010, 0.10075, 0.10144, 0.10227, 0.10337, 0.10482,
    0.10676, 0.10852, 0.10976, 0.11065, 0.11144, 0.11212, 0.11273, 0.11338, 0.11403, 0.11465, 0.11528, 0.11597,
    0.11662, 0.11737, 0.11811, 0.11890, 0.11976, 0.12065, 0.12157, 0.12247, 0.12346, 0.12440, 0.12532, 0.12620,
    0.12709, 0.12793, 0.12875, 0.12962, 0.13043, 0.13121, 0.13197, 0.13279, 0.13363, 0.13448, 0.13538, 0.13629,
    0.13722, 0.13816, 0.13909, 0.14000, 0.14095, 0.14187, 0.14283, 0.14377, 0.14470, 0.14563, 0.14660, 0.14754,
    0.14851, 0.14953, 0.15056, 0.15157, 0.15260, 0.15368, 0.15472, 0.15585, 0.15705, 0.15819, 0.15940, 0.16061,
    0.16185, 0.16305, 0.16438, 0.16571, 0.16701, 0.16843, 0.16987, 0.17130, 0.17288, 0.17450, 0.17617, 0.17799,
    0.17984, 0.18178, 0.18352, 0.18513, 0.18688, 0.18926, 0.19264, 0.19678, 0.20119, 0.20647, 0.21488, 0.22796,
    0.24554, 0.62744, 0.70245, 0.77011,
])  # fmt: skip


def relative(seconds: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(np.abs(seconds / MEASURED - 1).max())


def test_the_table_is_within_half_a_percent_of_the_measurement() -> None:
    table = load_table()
    assert len(table.seconds) < 60
    assert relative(np.array([table.quantile(p / 100) for p in PERCENTILES])) < 0.005


def test_workers_draw_from_the_same_table() -> None:
    slowdown = Slowdown(f"quantiles:{LATENCY_TABLE}", seed=7)
    draws = np.array([slowdown.draw(f"g{i:06d}", 0) for i in range(200_000)])
    assert relative(np.percentile(draws, PERCENTILES)) < 0.02
    assert draws.mean() == pytest.approx(0.1538, rel=0.01)
    assert draws.std() == pytest.approx(0.0865, rel=0.02)


def test_a_fit_reproduces_two_modes_and_survives_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    fast, slow = rng.normal(0.14, 0.02, 97_900), rng.normal(0.7, 0.02, 2_100)
    latencies = np.concatenate((fast, slow)).astype(np.float32)
    table = fit(latencies)
    save(table, tmp_path / "table.json", "a test")
    loaded = load_table(tmp_path / "table.json")
    np.testing.assert_allclose(loaded.seconds, table.seconds, atol=1e-6)
    fitted = np.array([loaded.quantile(p / 100) for p in PERCENTILES])
    assert np.abs(fitted / np.percentile(latencies, PERCENTILES) - 1).max() < 0.02


@pytest.mark.parametrize(
    "pairs",
    [
        [[0, 0.1]],
        [[0, 0.1], [0.9, 0.2]],
        [[0, 0.2], [1, 0.1]],
        [[0, 0.1], [0, 0.2], [1, 0.3]],
        [[0, -0.1], [1, 0.1]],
    ],
)
def test_what_is_no_quantile_function_is_refused(pairs: list[list[float]], tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(json.dumps({"quantiles": pairs}))
    with pytest.raises(ValueError, match="quantile table"):
        load_table(tmp_path / "table.json")


def test_a_trace_is_fitted_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = tmp_path / "trace.npy", tmp_path / "table.json"
    np.save(trace, np.random.default_rng(0).gamma(20, 0.007, 10_000).astype(np.float32))
    assert main([str(trace), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: ")
    assert "off by at most 0." in printed
    content = json.loads(out.read_text())
    assert len(content["vms"]["seconds"]) == 50
    assert content["about"].startswith("Quantile function of 10,000 single-image inference latencies")
    assert main([str(tmp_path / "absent.npy")]) == 2
    assert "absent.npy" in capsys.readouterr().err
