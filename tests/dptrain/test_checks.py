"""What every private training refuses before its first step."""

import pytest
import torch
from torch import nn

from dptrain.checks import check_model
from dptrain.errors import PlanError


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Embedding(4, 2, max_norm=1.0).requires_grad_(False), "max_norm=None"),
        (nn.EmbeddingBag(4, 2, max_norm=1.0), "max_norm=None"),
        (nn.BatchNorm2d(3, affine=False), "GroupNorm"),
        (nn.LazyLinear(2), "has no weights yet"),
    ],
    ids=["frozen table that private examples shorten", "bag", "affine-free", "lazy"],
)
def test_a_module_that_no_clipping_makes_private_is_refused(module: nn.Module, message: str):
    """Sharp edges 7 and 8: also where the module itself is not trained."""
    with pytest.raises(PlanError, match=message):
        check_model(nn.Sequential(nn.Linear(3, 3), module), private=True)
    check_model(nn.Sequential(nn.Linear(3, 3), module), private=False)


def test_statistics_that_are_written_though_not_tracked_are_refused():
    """What Opacus' fixer makes of an InstanceNorm: torch writes into buffers that are there, tracked or not."""
    module = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    module.track_running_stats = False
    before = torch.zeros(3)
    module(torch.randn(2, 3, 5) + 1)
    assert module.running_mean is not None
    assert not torch.equal(module.running_mean, before)
    with pytest.raises(PlanError, match="running statistics"):
        check_model(nn.Sequential(module), private=True)
