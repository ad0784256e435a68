"""MNIST: published figures of DP-SGD, on the published split of 60,000 training and 10,000 test examples."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import dptrain.data
from dptrain import PrivacyPlan, make_private, models, per_example
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.recipe import DataConfig, ModelConfig, RegularizationConfig
from dptrain.trainer import build_training
from recipes import comparison

LONG = pytest.mark.skipif("DPTRAIN_LONG" not in os.environ, reason="takes minutes; set DPTRAIN_LONG=1 to run it")


@pytest.fixture(scope="module")
def mnist() -> DataSet:
    folder = os.environ.get("DPTRAIN_DATA", "")
    if not (Path(folder) / "MNIST").is_dir():
        pytest.skip("needs DPTRAIN_DATA: the folder of public data sets, with MNIST in it")
    return dptrain.data.load(DataConfig(name="mnist", path=folder))


def accuracy(model: nn.Module, data: DataSet, indices: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = [model(data.inputs[part]).argmax(1) == data.targets[part] for part in indices.split(500)]
    return float(torch.cat(right).float().mean())


def recipe_jobs() -> list[comparison.Job]:
    """The recipe's private models at ε = 3, one a seed."""
    made = comparison.load("mnist", ["--epsilons", "3"])
    return [job for job in made.jobs() if job.variant == "dp"]


@pytest.mark.filterwarnings("ignore:delta is")
def test_the_recipe_spends_at_most_three_by_poisson_batches():
    jobs = recipe_jobs()
    assert [job.seed for job in jobs] == [0, 1, 2]
    plan = PrivacyPlan.from_config(jobs[0].recipe.privacy, jobs[0].recipe.training.steps)
    assert 2.98 < plan.guarantee().epsilon <= 3
    assert (plan.delta, plan.sampling, plan.relation) == (1e-5, "poisson", "add_or_remove_one")


def test_the_published_test_part_has_no_coins():
    (shares,) = {job.recipe.data.split for job in recipe_jobs()}
    split = draw(70_000, shares, 0, 10_000)
    assert split.held_out.tolist() == list(range(60_000, 70_000))
    assert not np.isin(np.arange(60_000, 70_000), split.audited).any()


@LONG
@pytest.mark.slow
def test_the_recipe_reaches_what_is_published_from_scratch(mnist: DataSet):
    """Tempered sigmoids (Papernot et al. 2021): 98.1% at ε = 2.93. On scattering features 98.3 to 98.7% at ε = 3. Here the
    mean of three seeds, which had 98.70, 98.51 and 98.64%."""
    reached = []
    for job in recipe_jobs():
        split = draw(len(mnist), job.recipe.data.split, job.seed, mnist.published_test)
        training = build_training(job.recipe, mnist, split.members, job.seed)
        for batch in training.batches():
            training.step(batch)
        assert training.guarantee().epsilon <= 3
        with training.averaged() as model:
            reached.append(accuracy(model, mnist, torch.from_numpy(split.held_out)))
    assert sum(reached) / 3 >= 0.981


OPACUS = PrivacyPlan(
    sampling_rate=240 / 60_000,
    expected_batch_size=240,
    steps=60 * 250,
    clipping_norm=1.0,
    noise_multiplier=1.1,
    delta=1e-5,
)


@pytest.mark.filterwarnings("ignore:delta is")
def test_opacus_mnist_example_costs_no_more_than_opacus_counts():
    """Opacus, examples/mnist.py: ε = 2.91 by its RDP accountant, which is an upper bound."""
    assert OPACUS.guarantee().epsilon <= 2.91


@LONG
@pytest.mark.slow
def test_opacus_mnist_example(mnist: DataSet):
    """Opacus, examples/mnist.py: 60 epochs, batch 240, σ = 1.1, C = 1.0, learning rate 0.15 → 96.78 ± .21%, as published.
    Half a point below that is let pass."""
    torch.manual_seed(0)
    model = models.build(ModelConfig(name="cnn", activation="relu"), (1, 28, 28), 10, RegularizationConfig())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.15)
    data = TensorDataset(mnist.inputs[:60_000], mnist.targets[:60_000])
    private = make_private(model, optimizer, data, OPACUS, loss=per_example(F.cross_entropy))
    for batch in private.batches():
        private.step(batch)
    assert accuracy(model, mnist, torch.arange(60_000, 70_000)) >= 0.9678 - 0.005
