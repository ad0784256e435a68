"""A model behind a guard is called as the model is."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.errors import UserError
from dptrain.release import Guarded
from dptrain.release.guard import fitted
from tests.dptrain.release.owners import INPUTS, owner


class TwoTowers(nn.Module):
    """Takes two tensors, one of them by name, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Linear(2, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, left: Tensor, *, right: Tensor, scale: float = 1.0) -> Tensor:
        return scale * (self.left(self.drop(left)) + self.right(right.flatten(1)))


def towers() -> TwoTowers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TwoTowers().eval()


class Constant(nn.Module):
    def forward(self, count: int) -> Tensor:
        return torch.zeros(count, 5)


RIGHT = torch.randn(240, 1, 2, generator=torch.Generator().manual_seed(1))


def test_its_softmax_is_what_is_shown_and_the_call_is_the_model_s_own():
    inner = towers()
    model = Guarded(inner, fitted("temperature2", owner()))
    found = model(INPUTS, right=RIGHT, scale=3.0)
    wanted = (inner(INPUTS, right=RIGHT, scale=3.0).double() / 2).softmax(1)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.softmax(1).numpy() == pytest.approx(wanted.detach().numpy(), abs=1e-6)
    assert model.answers(INPUTS, right=RIGHT, scale=3.0).scores == pytest.approx(wanted.detach().numpy())


def test_what_is_withheld_has_a_score_of_nought():
    model = Guarded(nn.Linear(3, 5), fitted("top2", owner()))
    found = model(INPUTS)
    assert torch.isinf(found).sum(1).tolist() == [3] * len(INPUTS)
    assert model.answers(INPUTS).labels.tolist() == model.model(INPUTS).argmax(1).tolist()
    refusing = Guarded(nn.Linear(3, 5), fitted("reject1", owner()))
    assert bool(torch.isinf(refusing(INPUTS)).all())


def test_the_model_is_kept_in_evaluation_mode_in_which_an_answer_does_not_hang_on_the_batch():
    """Batch normalisation would give one query another answer in every company, behind one and the same noise."""
    torch.manual_seed(0)
    norm, drop = nn.BatchNorm1d(3), nn.Dropout(0.5)
    inner = nn.Sequential(norm, nn.Linear(3, 5), drop)
    model = Guarded(inner, fitted("noisy_max1000", owner())).train()
    assert not inner.training
    assert not norm.training
    labels = [model.answers(torch.cat([INPUTS[:1], 5 * INPUTS[row : row + 3]])).labels[0] for row in range(1, 100)]
    assert len(set(labels)) == 1
    assert norm.state_dict()["running_mean"].tolist() == [0.0] * 3
    assert sorted(model.state_dict()) == [f"model.{name}" for name in sorted(inner.state_dict())]
    drop.train()
    with pytest.raises(UserError, match=r"put into training mode.*call \.eval\(\)"):
        model(INPUTS)


def test_a_number_or_a_name_that_is_passed_makes_another_query():
    """Their answers to even scores agree one time in five; behind one noise they always would."""
    inner = towers()
    with torch.no_grad():
        for weight in inner.parameters():
            weight.zero_()
    model = Guarded(inner, fitted("noisy_max8", owner()))
    inputs, right = INPUTS.repeat(10, 1) + torch.arange(2400.0)[:, None], RIGHT.repeat(10, 1, 1)
    first = model.answers(inputs, right=right).labels
    for other in (model.answers(inputs, right=right, scale=-1.0).labels, model.answers(left=inputs, right=right).labels):
        assert (other == first).mean() == pytest.approx(0.2, abs=4 * 0.4 / 2400**0.5)


class Told(nn.Module):
    """Is told how to answer."""

    def forward(self, inputs: Tensor, how: object) -> Tensor:
        return torch.zeros(len(inputs), 5)


def test_what_cannot_be_told_apart_is_refused_where_a_guard_draws_and_nowhere_else():
    assert Guarded(Told(), fitted("top2", owner()))(INPUTS, object()).shape == (240, 5)
    with pytest.raises(UserError, match="an input is a object"):
        Guarded(Told(), fitted("noisy_max8", owner()))(INPUTS, object())


def test_of_a_model_of_half_precision_the_order_of_the_scores_stays():
    torch.manual_seed(0)
    inner = nn.Linear(3, 200).bfloat16()
    model = Guarded(inner, fitted("temperature4", dataclasses.replace(owner(), classes=200)))
    inputs = INPUTS.bfloat16()
    assert model(inputs).dtype == torch.float32
    assert np.array_equal(model(inputs).argmax(1).numpy(), model.answers(inputs).labels)
    assert model.double()(INPUTS.double()).dtype == torch.float64


def test_what_is_drawn_hangs_on_every_tensor_that_is_passed():
    model = Guarded(towers(), fitted("noisy_max0.01", owner()))
    together = model.answers(INPUTS, right=RIGHT).labels
    assert np.array_equal(model.answers(INPUTS[5:9], right=RIGHT[5:9]).labels, together[5:9])
    assert not np.array_equal(model.answers(INPUTS, right=RIGHT + 1e-6).labels, together)
    assert not np.array_equal(model.answers(INPUTS + 1e-6, right=RIGHT).labels, together)


def test_through_a_wrapped_model_batches_do_not_change_answers():
    """Its own outputs may differ in their last digits with the size of the batch."""
    for text in ("top3-rounded2", "hamp", "memguard0.5", "noisy_max8", "reject0.4-label_only"):
        model = Guarded(towers(), fitted(text, owner()))
        together = model.answers(INPUTS, right=RIGHT)
        alone = [model.answers(INPUTS[row : row + 1], right=RIGHT[row : row + 1]) for row in range(60)]
        assert np.concatenate([answers.scores for answers in alone]) == pytest.approx(together.scores[:60], abs=1e-5)


def test_what_is_no_classifier_of_examples_is_refused():
    guard = fitted("top2", owner())
    with pytest.raises(UserError, match=r"the model gave \(240, 15\)|\[examples, classes\]"):
        Guarded(nn.Unflatten(1, (1, 3)), guard)(INPUTS)
    with pytest.raises(UserError, match="without a tensor of 240 rows"):
        Guarded(Constant(), fitted("noisy_max8", owner()))(240)
