"""Sharp edges that belong to no single module; the others are tested where their rule lives, by the same numbers."""

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.clipping import Clipping
from dptrain.errors import PlanError
from dptrain.optimizers import DPAdamW
from tests.dptrain.test_private import PLAN, run, training, weights


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


def test_sharp_edge_11_no_clipping_norm_follows_the_private_gradients():
    """Adaptive clipping asks the data for a quantile. It is not offered, and what a plan says of clipping holds to the end."""
    with pytest.raises(PlanError, match="automatic"):
        dataclasses.replace(PLAN, clipping="adaptive")  # pyright: ignore[reportArgumentType]
    for rule in ("flat", "per_layer", "automatic"):
        plan = dataclasses.replace(PLAN, clipping=rule)
        private = training(plan)
        before = private._clipper.clipping
        run(private)
        assert private._clipper.clipping == before == Clipping.of(plan)
        assert private._clipper.sensitivity * plan.expected_batch_size == plan.clipping_norm


@pytest.mark.parametrize("kind", ["sgd", "adamw", "dp_adamw"])
def test_sharp_edge_13_nothing_but_batches_reads_the_private_examples(kind: str, tmp_path: Path):
    """Momentum, moments, weight decay, schedules and averages see noised gradients alone: where all batches are empty, two
    trainings on different data end in the same weights, cards and optimizer states to the bit."""
    rare = PrivacyPlan(
        sampling_rate=1e-12, expected_batch_size=1e-9, steps=6, clipping_norm=0.5, delta=1e-4, noise_multiplier=1.0
    )  # fmt: skip
    ends = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        data = TensorDataset(100 * torch.randn(40, 5, generator=generator), torch.randint(3, (40,), generator=generator))
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = {
            "sgd": lambda values: torch.optim.SGD(values, lr=1e-9, momentum=0.9, weight_decay=0.1),
            "adamw": lambda values: torch.optim.AdamW(values, lr=0.1, weight_decay=0.1),
            "dp_adamw": lambda values: DPAdamW(values, lr=0.1, weight_decay=0.1),
        }[kind](model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        loss = per_example(F.cross_entropy)
        private = make_private(model, optimizer, data, rare, loss=loss, average=0.9, insecure_seed=3, account="none")
        before = weights(private)
        for batch in private.batches():
            private.step(batch)
            schedule.step()
        assert not torch.equal(weights(private), before)
        blocks = private._announced.blocks
        private._announced.blocks = tuple(dataclasses.replace(block, name="random", draw="random") for block in blocks)
        private.save(tmp_path / str(seed))
        files = sorted(path for path in (tmp_path / str(seed)).rglob("*") if path.is_file())
        ends.append({path.relative_to(tmp_path / str(seed)).as_posix(): path.read_bytes() for path in files})
    assert ends[0] == ends[1]
