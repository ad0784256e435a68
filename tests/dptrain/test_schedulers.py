"""A torch scheduler in one's own loop goes on after a resume, as README.md says how."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.private import PrivateTraining

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=9, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0)
SCHEDULERS: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "steps": lambda optimizer: lr_scheduler.StepLR(optimizer, 2),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 9),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=12),
}


def begun(kind: str) -> tuple[PrivateTraining, LRScheduler]:
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = SCHEDULERS[kind](optimizer)
    data = TensorDataset(torch.randn(40, 5), torch.randint(3, (40,)))
    return make_private(model, optimizer, data, PLAN, loss=per_example(F.cross_entropy)), scheduler


def rates(private: PrivateTraining, scheduler: LRScheduler, until: int | None = None) -> list[float]:
    """The learning rate of each update."""
    taken = []
    for batch in private.batches(until):
        taken.append(private.optimizer.param_groups[0]["lr"])
        private.step(batch)
        scheduler.step()
    return taken


@pytest.mark.filterwarnings("ignore:delta is")
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_scheduler_goes_on_where_its_stored_state_was(kind: str, tmp_path: Path):
    straight = rates(*begun(kind))
    private, scheduler = begun(kind)
    before = rates(private, scheduler, until=4)
    private.save(tmp_path)
    stored = scheduler.state_dict()
    resumed, fresh = begun(kind)
    resumed.resume(tmp_path)
    fresh.load_state_dict(stored)
    assert before + rates(resumed, fresh) == pytest.approx(straight)
    assert len(set(straight)) > 3
