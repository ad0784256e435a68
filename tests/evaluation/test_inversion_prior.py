"""Class inversions in the latent space of public examples: through derivatives, through scores, through labels."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.errors import DataError
from evaluation.access import Access
from evaluation.inversion import generators
from evaluation.inversion.blackbox import ScoreInversion, unit
from evaluation.inversion.generators import linear, moved, person_distance, principal
from evaluation.inversion.knowledge import ClassKnowledge, InversionAttack
from evaluation.inversion.labels import LabelInversion
from evaluation.inversion.prior import PriorInversion, margins
from evaluation.target import Target

WIDE = (-100.0, 100.0)
SEEN = [PriorInversion(steps=4, draws=4), ScoreInversion(budget=4000), LabelInversion(budget=4000)]
"""One attack an access level."""


class Rounded(Target):
    """Shows scores rounded to 0.1."""

    def scores(self, inputs: Tensor) -> np.ndarray:
        return np.round(super().scores(inputs), 1)


class Shifted(Target):
    """Says more beyond the first decimal than the model does: something else for every class and input."""

    def scores(self, inputs: Tensor) -> np.ndarray:
        rounded = np.round(super().scores(inputs), 1)
        return rounded + 0.04 * np.sin(1e4 * inputs.sum(1).numpy()[:, None] + np.arange(self.classes))


def world(inputs: int = 24, hidden: int = 6, classes: int = 4, seed: int = 0) -> tuple[nn.Module, ClassKnowledge, Tensor]:
    """People on a plane of ``hidden`` dimensions; a linear model of four of them, and their means."""
    random = torch.Generator().manual_seed(seed)
    plane = torch.linalg.qr(torch.randn(inputs, hidden, generator=random))[0].T
    people = torch.randn(20 + classes, hidden, generator=random) @ plane
    means = people[20:]
    public = people[:20].repeat_interleave(5, 0) + 0.2 * torch.randn(100, hidden, generator=random) @ plane
    model = nn.Linear(inputs, classes)
    noise = torch.randn(classes, inputs, generator=random)
    with torch.no_grad():
        model.weight.copy_(3 * (means - people[:20].mean(0)) + (noise - noise @ plane.T @ plane))
        model.bias.copy_(-model.weight @ people[:20].mean(0))
    return model, ClassKnowledge((inputs,), public, torch.arange(20).repeat_interleave(5)), means


def cosine(found: Tensor, wanted: Tensor, middle: Tensor) -> Tensor:
    return nn.functional.cosine_similarity(found - middle, wanted - middle)


# -- generators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_the_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]):
    data = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    data = data - data.mean(0)
    directions, spread = principal(data)
    _, singular, right = torch.linalg.svd(data, full_matrices=False)
    kept = singular > 1e-6
    torch.testing.assert_close(spread[: len(singular)][kept], (singular / shape[0] ** 0.5)[kept])
    agreement = (directions[:, : len(singular)] * right.T).sum(0).abs()
    torch.testing.assert_close(agreement[kept], torch.ones_like(agreement[kept]))


def test_draws_of_the_prior_have_the_public_mean_and_covariance():
    public = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1]) + 7
    prior = linear(public, None, components=5, temper=0.3)
    drawn = prior.decode(prior.draw(40_000, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(drawn.mean(0), public.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), public.T.cov(correction=0), atol=0.15, rtol=0.05)


def test_pulling_a_gradient_back_is_the_generators_own_derivative():
    public = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    prior = linear(public, None, components=4, temper=0.4)
    latent = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    weights = torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad((prior.decode(latent) * weights).sum(), latent)
    torch.testing.assert_close(prior.pull(weights), expected)


def test_the_shell_is_as_far_from_the_mean_as_one_person_from_the_others():
    public = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 4.0], [5.0, 6.0]])
    # The means are (1, 0) and (5, 5): apart by (4, 5), so each is that far from the mean of the others.
    assert person_distance(public, torch.tensor([0, 0, 1, 1])) == pytest.approx(((16 + 25) / 2) ** 0.5)
    prior = linear(public, torch.tensor([0, 0, 1, 1]), components=2, temper=0.5)
    shell = prior.decode(prior.on_shell(torch.tensor([[1.0, 3.0], [-2.0, 0.1]]))) - public.mean(0)
    torch.testing.assert_close(shell.square().mean(1).sqrt(), torch.full((2,), prior.radius))


def test_a_generator_is_fitted_once_for_the_same_public_examples(monkeypatch: pytest.MonkeyPatch):
    fits = []
    fit = generators._fit
    monkeypatch.setattr(generators, "_fit", lambda *given: (fits.append(1), fit(*given))[1])
    public = torch.randn(12, 3, generator=torch.Generator().manual_seed(99))
    first = linear(public, None, components=2, temper=0.5)
    assert linear(public.clone(), None, components=2, temper=0.5) is first
    assert len(fits) == 1
    linear(public + 1, None, components=2, temper=0.5)
    linear(public, torch.zeros(12, dtype=torch.long), components=2, temper=0.5)
    linear(public, None, components=1, temper=0.5)
    assert len(fits) == 4


def test_images_are_also_shown_moved_by_one_pixel_and_tables_are_not():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8, 8] = 1
    shown = moved(image)
    assert sorted((found // 16, found % 16) for found in shown.flatten(1).argmax(1).tolist()) == [
        (down, right) for down in (7, 8, 9) for right in (7, 8, 9)
    ]
    assert len(moved(torch.zeros(3, 7))) == 3


# -- attacks --------------------------------------------------------------------------------------------------------


def test_the_margin_is_the_logit_above_the_soft_highest_of_the_others():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    expected = 1 - torch.logsumexp(torch.tensor([2.0, 0.0]), 0)
    torch.testing.assert_close(margins(logits, torch.tensor([1])), expected[None])


@pytest.mark.parametrize("attack", SEEN, ids=lambda attack: type(attack).__name__)
def test_the_class_is_found_where_public_examples_span_it(attack: InversionAttack):
    """The weights also hold noise that no person has; none of it is returned."""
    model, knowledge, means = world()
    target = Target(model, attack.access, bounds=WIDE, classes=4)
    found = attack.run(target, knowledge, torch.Generator().manual_seed(0)) - knowledge.public.mean(0)
    wanted = means - knowledge.public.mean(0)
    alike = nn.functional.cosine_similarity(found[:, None], wanted[None], dim=2)
    assert alike.argmax(1).tolist() == [0, 1, 2, 3]
    assert alike.diagonal().mean() > 0.8
    span = torch.linalg.svd(knowledge.public - knowledge.public.mean(0), full_matrices=False)[2][:6]
    torch.testing.assert_close(found @ span.T @ span, found, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attack", SEEN, ids=lambda attack: type(attack).__name__)
def test_an_attack_stays_within_the_bounds_and_depends_on_its_generator_alone(attack: InversionAttack):
    model, knowledge, _ = world()
    results = []
    for seed in (0, 0, 1):
        target = Target(model, attack.access, bounds=(-0.5, 0.5), classes=4)
        torch.rand(3)  # what others draw has no part in it
        results.append(attack.run(target, knowledge, torch.Generator().manual_seed(seed)))
        assert results[-1].min() >= -0.5
        assert results[-1].max() <= 0.5
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("attack", SEEN, ids=lambda attack: type(attack).__name__)
def test_a_model_that_says_nothing_gives_the_average_person(attack: InversionAttack):
    _, knowledge, _ = world()
    model = nn.Linear(24, 4)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    found = attack.run(Target(model, attack.access, bounds=WIDE, classes=4), knowledge, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, knowledge.public.mean(0).expand(4, -1), atol=1e-4, rtol=0)


def test_what_rounding_floats_leaves_of_equal_scores_is_no_slope():
    slope = unit(torch.tensor([[3e-11, -4e-11], [3e-7, -4e-7], [0.0, 0.0]]))
    torch.testing.assert_close(slope, torch.tensor([[0.0, 0.0], [0.6, -0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("attack", SEEN, ids=lambda attack: type(attack).__name__)
def test_without_public_examples_it_says_what_to_raise(attack: InversionAttack):
    model, knowledge, _ = world()
    nothing = ClassKnowledge((24,), knowledge.public[:0])
    with pytest.raises(DataError, match=r"data\.split\.public"):
        attack.run(Target(model, attack.access, bounds=WIDE, classes=4), nothing, torch.Generator())


@pytest.mark.parametrize("budget", [400, 4000])
@pytest.mark.parametrize("attack", [ScoreInversion, LabelInversion])
def test_no_more_is_asked_than_the_budget(attack: type[ScoreInversion] | type[LabelInversion], budget: int):
    model, knowledge, _ = world()
    target = Target(model, attack.access, bounds=WIDE, classes=4)
    attack(budget=budget).run(target, knowledge, torch.Generator().manual_seed(0))
    assert 0.75 * budget <= target.queries <= budget


def test_of_a_score_nothing_is_read_but_its_first_decimal():
    model, knowledge, _ = world()
    attack, random = ScoreInversion(budget=4000), torch.Generator()
    kinds = (Target, Rounded, Shifted)
    found = [attack.run(kind(model, Access.SCORES, bounds=WIDE, classes=4), knowledge, random.manual_seed(0)) for kind in kinds]
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)
    torch.testing.assert_close(found[0], found[2], atol=0, rtol=0)


def test_rounding_the_scores_does_not_hide_the_class():
    model, knowledge, means = world()
    target = Rounded(model, Access.SCORES, bounds=WIDE, classes=4)
    found = ScoreInversion(budget=4000).run(target, knowledge, torch.Generator().manual_seed(0))
    assert cosine(found, means, knowledge.public.mean(0)).mean() > 0.85


def test_draws_of_a_class_are_still_that_class_and_differ():
    model, knowledge, _ = world()
    target = Target(model, Access.GRADIENTS, bounds=WIDE, classes=4)
    drawn = PriorInversion().samples(target, knowledge, 20, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 20, 24)
    labels = target.labels(drawn.flatten(0, 1)).reshape(4, 20)
    assert ((labels == np.arange(4)[:, None]).mean(1) >= 0.9).all()
    assert (drawn.std(1).mean(1) > 0.01).all()
