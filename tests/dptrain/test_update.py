"""The types carry the protocol: nothing without noise, and nothing without its price, reaches an optimizer."""

import dataclasses

import pytest
import torch
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from torch import nn

from dptrain.clipping import ClippedSum, Counts
from dptrain.errors import ProtocolError
from dptrain.noise import GaussianNoise, NoisedSum
from dptrain.update import Update


def clipped(value: float = 1.0) -> ClippedSum:
    return ClippedSum({"weight": torch.full((2, 3), value)}, 0.5, Counts(examples=4))


def test_a_sum_without_noise_is_refused_and_told_why():
    with pytest.raises(ProtocolError, match=r"clipped and not noised.*noise\.add"):
        Update.of(clipped(), event=GaussianDpEvent(1.0))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ProtocolError, match="dict was not made by a noise"):
        Update.of({"weight": torch.zeros(2, 3)}, event=GaussianDpEvent(1.0))  # pyright: ignore[reportArgumentType]


def test_an_update_without_its_price_is_refused():
    noised = GaussianNoise(1.0).add(clipped())
    with pytest.raises(ProtocolError, match="nothing would count this release"):
        Update.of(noised, event=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="event"):
        Update.of(noised)  # pyright: ignore[reportCallIssue]


def test_a_price_beside_a_sum_without_noise_is_refused():
    quiet = GaussianNoise(0.0).add(clipped())
    with pytest.raises(ProtocolError, match="holds no noise"):
        Update.of(quiet, event=GaussianDpEvent(1.0))
    update = Update.of(quiet, event=NonPrivateDpEvent())
    assert update.gradients["weight"].tolist() == [[1.0] * 3] * 2


def test_the_price_of_another_noise_is_refused():
    noised = GaussianNoise(1e-6).add(clipped())
    plan_event = SelfComposedDpEvent(PoissonSampledDpEvent(0.5, GaussianDpEvent(10.0)), 1)
    with pytest.raises(ProtocolError, match="1e-06 times its sensitivity and the event counts 10"):
        Update.of(noised, event=plan_event)
    assert Update.of(GaussianNoise(10.0).add(clipped()), event=plan_event).event == plan_event


def test_neither_an_update_nor_a_noised_sum_is_made_by_hand():
    model = nn.Linear(3, 2)
    update = Update.of(GaussianNoise(1.0).add(clipped()), event=GaussianDpEvent(1.0))
    by_hand = Update({"weight": torch.zeros(2, 3)}, GaussianDpEvent(1.0), 1.0)
    copied = dataclasses.replace(update, gradients=clipped().gradients)
    for forged in (by_hand, copied):
        with pytest.raises(ProtocolError, match=r"Update\.of"), forged.in_gradients(model):
            pass
    with pytest.raises(ProtocolError, match="not made by a noise"):
        Update.of(NoisedSum(clipped().gradients, 1.0, 1.0), event=GaussianDpEvent(1.0))
    genuine = GaussianNoise(1.0).add(clipped())
    with pytest.raises(ProtocolError, match="not made by a noise"):
        Update.of(dataclasses.replace(genuine, gradients=clipped().gradients), event=GaussianDpEvent(1.0))


def test_gradients_are_there_for_the_step_alone():
    model = nn.Linear(3, 2)
    model.bias.grad = torch.ones(2)  # of a backward() outside
    update = Update.of(GaussianNoise(1.0).add(clipped()), event=GaussianDpEvent(1.0))
    assert update.standard_deviation == pytest.approx(0.5, rel=1e-5)

    def interrupted() -> None:
        with update.in_gradients(model):
            assert model.weight.grad is not None
            assert torch.equal(model.weight.grad, update.gradients["weight"])
            assert model.bias.grad is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert model.weight.grad is None
    assert model.bias.grad is None
