"""A node that is read in the examples of others is told apart no better than the pair by which it is counted.

Whole mechanisms are written out for a handful of examples, whose clipped gradients are numbers from −1 to 1: the output is a
mixture of normal distributions, and its H_α is integrated without any theory of sampling.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from dp_accounting import ComposedDpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor, nn

from dptrain import accounting, dominating
from dptrain.clipping import Clipper
from dptrain.errors import PlanError
from dptrain.graph.bounded import bounded
from dptrain.graph.occurrences import OccurrencesDpEvent, distances, interpolated, profile_points
from dptrain.sampling import PoissonSampler

EPSILONS = np.array([-2.0, -1.0, -0.5, -0.1, 0.0, 0.02, 0.1, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0])
LINE = np.linspace(-20, 20, 4001)


def density(gradients: tuple[float, ...], rate: float, sigma: float) -> np.ndarray:
    """Of the noised sum over examples that are drawn by a coin each, ``[line]``."""
    total = np.zeros_like(LINE)
    for coins in itertools.product((0, 1), repeat=len(gradients)):
        chance = math.prod(rate if coin else 1 - rate for coin in coins)
        total += chance * norm.pdf(LINE, np.dot(coins, gradients), sigma)
    return total


def hockey_stick(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """∫ max(0, p − e^ε q), ``[epsilons]``."""
    return np.trapezoid(np.maximum(0.0, one - np.exp(EPSILONS)[:, None] * other), LINE, axis=1)


@pytest.mark.parametrize(("rate", "occurrences", "sigma"), [(0.3, 1, 1.0), (0.5, 2, 1.5), (0.2, 2, 0.7), (1.0, 2, 3.0)])
def test_a_node_is_dominated_whatever_its_neighbours_gradients_become(rate: float, occurrences: int, sigma: float):
    """In both directions, at every ε, beside an example that does not read it; the pair is not far above the worst of them."""
    losses = OccurrencesDpEvent(rate, occurrences, sigma).losses()
    allowed = np.array([losses.get_delta_for_epsilon(epsilon) for epsilon in EPSILONS])
    worst = np.zeros_like(allowed)
    for own in (1.0, -0.5):
        for old in itertools.product((1.0, -1.0), repeat=occurrences):
            for new in itertools.product((-1.0, 0.0, 1.0), repeat=occurrences):
                present, blanked = (density((*gradients, 0.7), rate, sigma) for gradients in ((own, *old), (0.0, *new)))
                for seen in (hockey_stick(present, blanked), hockey_stick(blanked, present)):
                    assert (seen <= allowed + 1e-5).all(), (own, old, new, seen - allowed)
                    worst = np.maximum(worst, seen)
    assert (allowed - worst)[4] < 0.025


@pytest.mark.parametrize(("rate", "occurrences", "sigma"), [(0.3, 1, 1.5), (0.5, 2, 0.5), (0.1, 4, 4.0)])
def test_the_mixture_of_gaussians_alone_would_be_false(rate: float, occurrences: int, sigma: float):
    """Where gradients are exchanged and not taken away, a real pair of neighbours exceeds it; the pair used lies above both."""
    shifts, chances = distances(rate, occurrences)
    mixture = (chances[:, None] * norm.pdf(LINE, shifts[:, None], sigma)).sum(axis=0)
    nothing = np.asarray(norm.pdf(LINE, 0, sigma))
    allowed = np.maximum(hockey_stick(mixture, nothing), hockey_stick(nothing, mixture))
    present, blanked = (density((own, *[turned] * occurrences), rate, sigma) for own, turned in ((1.0, 1.0), (0.0, -1.0)))
    real = hockey_stick(present, blanked)
    assert (real - allowed).max() > 5e-4
    ours = interpolated(EPSILONS[4:], *profile_points(rate, occurrences, sigma))
    assert (ours >= real[4:] - 1e-6).all()
    assert (ours >= allowed[4:] - 1e-4).all()


@pytest.mark.parametrize(("rate", "occurrences", "sigma"), [(0.01, 3, 1.0), (0.25, 10, 8.0), (1.0, 4, 9.0), (0.5, 1, 0.6)])
def test_the_profile_belongs_to_a_pair(rate: float, occurrences: int, sigma: float):
    """Convex in e^ε, falling, and above max(0, 1 − e^ε): what a profile must be for its compositions to mean anything."""
    losses, deltas = profile_points(rate, occurrences, sigma)
    inside = losses < 20
    alphas, deltas = np.exp(losses[inside]), deltas[inside]
    below = 1 / alphas[:0:-1]
    whole, alphas = np.concatenate([1 - below + below * deltas[:0:-1], deltas]), np.concatenate([below, alphas])
    slopes = np.diff(whole) / np.diff(alphas)
    assert (np.diff(slopes) > -1e-5).all()
    assert (slopes <= 1e-9).all()
    assert (whole >= np.maximum(0, 1 - alphas) - 1e-12).all()


def test_without_readers_it_is_plain_poisson_sampling():
    plain = PoissonSampler(0.2).event(GaussianDpEvent(1.3), 40)
    assert plain == SelfComposedDpEvent(PoissonSampledDpEvent(0.2, GaussianDpEvent(1.3)), 40)
    assert OccurrencesDpEvent(0.2, 0, 1.3).losses() is dominating.poisson(0.2, 1.3)


@pytest.mark.parametrize("occurrences", [1, 3, 10])
def test_full_batches_are_a_gaussian_of_the_whole_sensitivity(occurrences: int):
    """k steps are one Gaussian with μ = √k (1 + 2 n) / σ (Dong, Roth, Su 2022)."""
    event = SelfComposedDpEvent(OccurrencesDpEvent(1.0, occurrences, 20.0), 9)
    exact = accounting.gdp_mu_to_epsilon(3 * (1 + 2 * occurrences) / 20.0, 1e-5)
    assert accounting.epsilon_pld(event, 1e-5, "zero_out_one") == pytest.approx(exact, rel=2e-3)
    assert accounting.epsilon_pld(event, 1e-5, "zero_out_one") >= exact - 1e-6


def spent(rate: float, occurrences: int, sigma: float, steps: int) -> float:
    event = SelfComposedDpEvent(OccurrencesDpEvent(rate, occurrences, sigma), steps)
    return accounting.epsilon(event, 1e-5, "zero_out_one")


@settings(max_examples=4, deadline=None)
@given(st.floats(0.05, 0.9), st.integers(1, 6), st.floats(6.0, 20.0), st.integers(2, 40))
def test_more_readers_rate_and_steps_and_less_noise_never_cost_less(rate: float, occurrences: int, sigma: float, steps: int):
    base = spent(rate, occurrences, sigma, steps) - 1e-6
    assert spent(rate, occurrences + 1, sigma, steps) >= base
    assert spent(min(1.0, rate * 1.1), occurrences, sigma, steps) >= base
    assert spent(rate, occurrences, sigma * 0.9, steps) >= base
    assert spent(rate, occurrences, sigma, steps + 1) >= base
    assert base > spent(rate, 0, sigma, steps)


@pytest.mark.parametrize(("rate", "occurrences", "sigma"), [(0.25, 10, 30.0), (0.05, 2, 4.0), (0.003, 1, 2.0), (1.0, 3, 12.0)])
def test_renyi_divergences_lie_above_those_of_the_losses(rate: float, occurrences: int, sigma: float):
    """Two closed forms against the pair's own moments, in both directions by symmetry; where batches are full they meet."""
    event, orders = OccurrencesDpEvent(rate, occurrences, sigma), (2, 3, 5, 8)
    pmf = event.losses()._pmf_remove.to_dense_pmf()
    losses = (pmf._lower_loss + np.arange(pmf.size)) * dominating.INTERVAL
    own = np.array([np.log(np.sum(pmf._probs * np.exp((order - 1) * losses))) / (order - 1) for order in orders])
    bound = event.renyi(orders)
    assert (bound >= own * (1 - 1e-5)).all()
    if rate == 1:
        np.testing.assert_allclose(bound, np.array(orders) * 49 / (2 * sigma**2), rtol=1e-9)


def test_it_is_counted_between_plain_poisson_and_renyi_and_beside_released_sums():
    step, released = OccurrencesDpEvent(0.1, 4, 12.0), GaussianDpEvent(6.0)
    event = ComposedDpEvent([SelfComposedDpEvent(released, 2), SelfComposedDpEvent(step, 60)])
    counted = accounting.count(event, 1e-5, "zero_out_one")
    assert counted.accountant.startswith("PLD")
    without = dataclasses.replace(step, occurrences=0)
    less = accounting.epsilon_pld(ComposedDpEvent([released, SelfComposedDpEvent(without, 60)]), 1e-5, "zero_out_one")
    assert less < counted.epsilon < counted.cross_check < 2 * counted.epsilon
    with pytest.raises(PlanError, match=r"nothing is proved .* give 'zero_out_one'"):
        accounting.count(event, 1e-5, "add_or_remove_one")


class Star(nn.Module):
    """A node's own features and the mean of its neighbours', one hop."""

    def __init__(self, features: Tensor, edges: Tensor, most: int):
        super().__init__()
        nodes = len(features)
        reads = torch.full((nodes, most), nodes)
        for node in range(nodes):
            neighbours = torch.cat([edges[1, edges[0] == node], edges[0, edges[1] == node]])
            reads[node, : len(neighbours)] = neighbours
        self.reads, self.features = reads, torch.cat([features, torch.zeros(1, features.shape[1])])
        self.head = nn.Linear(2 * features.shape[1], 3)

    def forward(self, numbers: Tensor) -> Tensor:
        around = self.features[self.reads[numbers[:, 0]]].mean(dim=1)
        return self.head(torch.cat([self.features[numbers[:, 0]], around], dim=1))


def clipped_sum(model: Star, nodes: Tensor, targets: Tensor, norm: float) -> Tensor:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    summed = Clipper(model, loss, norm).sum([(nodes[:, None], targets[nodes])])
    return torch.cat([gradient.flatten() for gradient in summed.gradients.values()])


@pytest.mark.parametrize("most", [1, 3, 5])
def test_blanking_one_node_moves_a_full_clipped_sum_by_no_more_than_its_occurrences_allow(most: int):
    """Group privacy of a node and its bounded neighbourhood, with the real clipper: C (1 + 2 n) for up to n readers."""
    furthest, norm = 0.0, 0.1
    for seed in range(12):
        chance = torch.Generator().manual_seed(seed)
        nodes = torch.arange(12)
        features, targets = torch.randn(12, 4, generator=chance), torch.randint(3, (12,), generator=chance)
        features[0] *= 30
        edges = bounded(torch.combinations(nodes).T, 12, most, np.random.default_rng(seed))
        torch.manual_seed(seed)
        whole = Star(features, edges, most)
        blank = features.clone()
        blank[0] = 0
        without = Star(blank, edges[:, (edges != 0).all(dim=0)], most)
        without.head.load_state_dict(whole.head.state_dict())
        moved = clipped_sum(whole, nodes, targets, norm) - clipped_sum(without, nodes[1:], targets, norm)
        assert moved.norm() <= norm * (1 + 2 * most) + 1e-6
        furthest = max(furthest, float(moved.norm()))
    assert furthest > norm  # readers were moved, and not the node's own example alone
