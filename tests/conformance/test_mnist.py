"""MNIST: published figures of DP-SGD, on the published split of 60,000 training and 10,000 test examples."""

import os
from pathlib import Path

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

LONG = pytest.mark.skipif("DPTRAIN_LONG" not in os.environ, reason="takes over ten minutes; set DPTRAIN_LONG=1 to run it")


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


@pytest.mark.slow
def test_the_recipe_reaches_what_is_published_from_scratch(mnist: DataSet):
    """Tempered sigmoids (Papernot et al. 2021): 98.1% at ε = 2.93. On scattering features 98.3 to 98.7% at ε = 3. One
    seed; three seeds had 98.36 to 98.67."""
    made = comparison.load("mnist", ["--privacy.epsilon", "3"])
    job = next(job for job in made.jobs() if job.variant == "dp")
    split = draw(len(mnist), job.recipe.data.split, job.seed, mnist.published_test)
    assert split.held_out.tolist() == list(range(60_000, 70_000))
    training = build_training(job.recipe, mnist, split.members, job.seed)
    for batch in training.batches():
        training.step(batch)
    guarantee = training.guarantee()
    assert guarantee.epsilon <= 3
    assert (guarantee.delta, training.plan.sampling) == (1e-5, "poisson")
    with training.averaged() as model:
        assert accuracy(model, mnist, torch.from_numpy(split.held_out)) >= 0.981


@LONG
@pytest.mark.slow
def test_opacus_mnist_example(mnist: DataSet):
    """Opacus, examples/mnist.py: 60 epochs, batch 240, σ = 1.1, C = 1.0, learning rate 0.15 → 96.78 ± .21%."""
    torch.manual_seed(0)
    model = models.build(ModelConfig(name="cnn", activation="relu"), (1, 28, 28), 10, RegularizationConfig())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.15)
    plan = PrivacyPlan(
        sampling_rate=240 / 60_000,
        expected_batch_size=240,
        steps=60 * 250,
        clipping_norm=1.0,
        noise_multiplier=1.1,
        delta=1e-5,
    )
    data = TensorDataset(mnist.inputs[:60_000], mnist.targets[:60_000])
    private = make_private(model, optimizer, data, plan, loss=per_example(F.cross_entropy))
    for batch in private.batches():
        private.step(batch)
    assert private.epsilon() <= 2.91  # which Opacus' own RDP accountant counts
    assert accuracy(model, mnist, torch.arange(60_000, 70_000)) >= 0.9678 - 0.005
