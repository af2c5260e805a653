from __future__ import annotations

import pytest
import torch

from models.optim import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(32, 288), (288, 32), (128, 1152)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_matrices_have_singular_values_near_1(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalise(matrix, dtype)
    values = torch.linalg.svdvals(found)
    assert found.dtype == torch.float32
    assert values.min() > 0.6
    assert values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    exact = left @ right
    assert (found * exact).sum() / (found.norm() * exact.norm()) > 0.98  # points the same way


def test_muon_keeps_filters_at_unit_scale_and_skips_those_without_gradient() -> None:
    torch.manual_seed(0)
    trained, idle = torch.randn(16, 8, 3, 3), torch.randn(4, 4, 1, 1)
    before = idle.clone()
    trained.grad = torch.randn_like(trained)
    optimiser = Muon([trained, idle], lr=0.1)
    optimiser.step()
    assert trained.norm() == pytest.approx(16**0.5, rel=0.15)
    torch.testing.assert_close(idle, before)
