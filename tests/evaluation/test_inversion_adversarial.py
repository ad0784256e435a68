"""A generator whose adversary knows what the target answers, and several priors together."""

import math

import pytest
import torch
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.inversion.adversarial import adversarial, contest, discriminating, entropy, matching
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.prior import Adversarial, Linear, PriorInversion, Variational
from evaluation.inversion.prior_ensemble import PriorEnsemble, robust_margin
from evaluation.inversion.variational import train
from evaluation.target import Target

WIDE = (-100.0, 100.0)


def public(count: int = 60, inputs: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, inputs, generator=random) * torch.linspace(2, 0.3, inputs)


def target(seed: int = 0, access: Access = Access.GRADIENTS, inputs: int = 6) -> Target:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Linear(inputs, 3)
    with torch.no_grad():
        model.weight.mul_(5)
    return Target(model, access, bounds=WIDE, classes=3)


def test_the_discriminator_pays_for_the_answers_and_for_both_kinds_of_mistake():
    real, fake, answers = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), -40.0]]), torch.tensor([[0.25, 0.75]])
    # Softmax is 1/2 each; Z is 2 for the real and 3 for the made one, so that D is 2/3 and 3/4.
    expected = math.log(2) - math.log(2 / 3) - math.log(1 - 3 / 4)
    assert discriminating(real, fake, answers).item() == pytest.approx(expected, rel=1e-5)


def test_entropy_is_that_of_the_softmax_and_features_match_when_their_means_do():
    assert entropy(torch.zeros(2, 5)).item() == pytest.approx(math.log(5))
    assert entropy(torch.tensor([[100.0, 0.0]])).item() == pytest.approx(0, abs=1e-5)
    features = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert matching(features, features.flip(0)).item() == 0
    assert matching(features, features + 1).item() == pytest.approx(1 / 2)  # each feature has a variance of 2


def test_the_target_is_asked_for_the_scores_of_each_public_example_once():
    one = target(access=Access.SCORES)
    adversarial(one, public(), None, latent=3, temper=0.1, rounds=2, steps=5)
    assert one.queries == 60
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    two = Target(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), Access.SCORES, bounds=(0.0, 1.0), classes=3)
    adversarial(two, images, None, latent=3, temper=0.1, rounds=2, steps=5)
    assert two.queries == 2 * 5  # and about its mirror image


def test_the_discriminator_learns_what_the_target_answers():
    data = public()
    answers = torch.from_numpy(target().scores(data)).float()
    start, _ = train(data, 4, 20)
    _, judge = contest(start, data, answers, 300)
    numbers = judge.head(judge.body((data - start.mean) @ start.components / judge.scale))
    assert (numbers.argmax(1) == answers.argmax(1)).float().mean() > 0.9


def test_the_generator_is_the_targets_own_and_nothing_else_changes_it():
    data, latent = public(), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    made = [
        adversarial(target(seed), data, None, latent=3, temper=1.0, rounds=40, steps=20).decode(latent) for seed in (0, 0, 1)
    ]
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(made[0], made[1], atol=0, rtol=0)
    assert (made[0] - made[2]).abs().max() > 1e-4


def test_where_the_generator_goes_the_autoencoder_that_it_started_from_stays():
    data = public()
    start, _ = train(data, 3, 20)
    kept = [value.clone() for value in start.parameters()]
    moved, _ = contest(start, data, torch.full((60, 3), 1 / 3), 20)
    assert all(torch.equal(value, old) for value, old in zip(start.parameters(), kept, strict=True))
    assert not all(torch.equal(value, old) for value, old in zip(moved.parameters(), kept, strict=True))


def test_several_priors_give_their_mean_or_the_one_that_the_target_prefers():
    data, one = public(), target()
    known = ClassKnowledge((6,), data)
    members = (
        PriorInversion(learner=Linear(components=2), reach=0.2),
        PriorInversion(learner=Variational(latent=6, steps=50), reach=3.0),
        PriorInversion(learner=Adversarial(latent=6, rounds=5, steps=50), reach=0.1),
    )

    def random() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    shared = random()
    single = torch.stack([member.run(one, known, shared) for member in members])
    together = PriorEnsemble(members=members).run(one, known, random())
    torch.testing.assert_close(together, single.mean(0))
    chosen = PriorEnsemble(members=members, together="margin").run(one, known, random())
    torch.testing.assert_close(chosen, single[1])


def test_a_margin_is_that_of_the_picture_and_of_all_its_copies():
    weight = torch.zeros(2, 256)
    weight[0, 8 * 16 + 3] = 1.0  # one pixel, which the mirror takes away and five of nine shifts too
    layer = nn.Linear(256, 2)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    model = nn.Sequential(nn.Flatten(), layer)
    pictures = torch.zeros(2, 1, 16, 16)
    pictures[:, :, 7:9, 3:5] = 1.0
    found = robust_margin(Target(model, Access.LOGITS, bounds=(0.0, 1.0), classes=2), pictures)
    torch.testing.assert_close(found, torch.tensor([4 / 18, -4 / 18]))
