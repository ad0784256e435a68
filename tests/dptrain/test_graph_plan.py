"""Plans whose unit is a node or an edge say what they promise, and refuse what they could not mean."""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NoOpDpEvent
from scipy.stats import norm

from dptrain import accounting
from dptrain.dominating import PureDpEvent
from dptrain.errors import PlanError
from dptrain.plain import as_plain, from_plain
from dptrain.plan import PrivacyPlan
from dptrain.recipe import PrivacyConfig

NODE = PrivacyPlan(
    unit="node", relation="zero_out_one", max_degree=10, aggregations=2, aggregation_noise=2.0, sampling_rate=0.25,
    expected_batch_size=500, steps=40, clipping_norm=1.0, delta=1e-5,
)  # fmt: skip
STARS = dataclasses.replace(NODE, aggregations=0, aggregation_noise=1.0, occurrences=10)
BOTH = dataclasses.replace(NODE, aggregations=1, occurrences=3)
FEATURES = dataclasses.replace(NODE, aggregations=0, aggregation_noise=1.0)
EDGE = PrivacyPlan(
    unit="edge", relation="zero_out_one", aggregations=2, sampling_rate=0.25, expected_batch_size=500, steps=40,
    clipping_norm=math.inf, delta=1e-5,
)  # fmt: skip
RESPONSE = dataclasses.replace(EDGE, aggregations=0, edge_release="randomised_response")
LAPLACE = dataclasses.replace(EDGE, aggregations=0, edge_release="laplace")
KINDS = {
    "node": NODE,
    "stars": STARS,
    "both": BOTH,
    "features": FEATURES,
    "edge": EDGE,
    "randomised_response": RESPONSE,
    "laplace": LAPLACE,
}


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_and_two_ways_of_counting_serve_every_kind(kind: str):
    """Sharp edge 20."""
    plan = KINDS[kind].calibrate(epsilon=3.0)
    spent = plan.guarantee()
    assert plan.is_private
    assert 2.98 < spent.epsilon <= 3.0
    first = {"stars": "PLD", "both": "PLD", "randomised_response": "Pure", "laplace": "Pure"}.get(kind, "PRV")
    assert spent.accountant.startswith(first)
    if first == "PLD":
        assert spent.epsilon < spent.cross_check < 1.8 * spent.epsilon
    else:
        assert spent.cross_check == pytest.approx(spent.epsilon, abs=0.04)


def test_what_is_released_first_is_counted_with_the_updates_and_once():
    """Sharp edge 13: sums over neighbours are no free step. A training that was resumed has them already."""
    plan = dataclasses.replace(NODE, noise_multiplier=3.0)
    updates = accounting.epsilon(plan.update_event(), plan.delta, plan.relation)
    assert plan.guarantee().epsilon > updates + 0.1
    sums = dataclasses.replace(NODE, noise_multiplier=3.0, sampling_rate=1e-9, expected_batch_size=1e-4, delta=1e-6)
    alone = accounting.gdp_mu_to_epsilon(math.sqrt(2) / 6.0, 1e-6)
    assert alone <= sums.guarantee().epsilon < alone + 0.02
    assert plan.guarantee(40, ((0, 13), (13, 40))).epsilon == pytest.approx(plan.guarantee().epsilon, abs=0.02)
    assert plan.guarantee(40, ((0, 13), (0, 40))).epsilon > plan.guarantee().epsilon + 0.1
    later = accounting.epsilon(plan.event(40, 13), plan.delta, plan.relation)
    assert later < updates


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_update_nothing_is_spent(kind: str):
    plan = dataclasses.replace(KINDS[kind], noise_multiplier=3.0)
    nothing = plan.guarantee(0)
    assert (nothing.epsilon, nothing.cross_check) == (0.0, 0.0)
    assert "It covers a graph" not in nothing.statement
    assert "of sums over" not in nothing.statement


def test_under_edge_updates_cost_nothing_and_are_neither_clipped_nor_noised():
    for plan in (EDGE, RESPONSE, LAPLACE):
        private = dataclasses.replace(plan, noise_multiplier=2.0)
        assert isinstance(private.update_event(), NoOpDpEvent)
        assert private.guarantee(1).epsilon == private.guarantee(40).epsilon > 0
        assert (private.is_private, private.clips, private.noises_updates) == (True, False, False)
        assert not plan.is_private
        assert math.isinf(plan.guarantee().epsilon)
        assert "nothing is promised to any edge" in plan.guarantee().statement
    nodes = dataclasses.replace(NODE, noise_multiplier=2.0)
    assert (nodes.is_private, nodes.clips, nodes.noises_updates) == (True, True, True)


def test_hops_are_gaussians_and_a_perturbed_graph_is_pure():
    """K hops with σ_a are one Gaussian with μ = √K / σ_a; 1 / noise_multiplier is ε, whatever δ is."""
    two_hops = dataclasses.replace(EDGE, aggregation_noise=1.5, noise_multiplier=2.0)
    exact = accounting.gdp_mu_to_epsilon(math.sqrt(2) / 3.0, 1e-5)
    assert exact <= two_hops.guarantee().epsilon < exact + 0.02
    for plan in (RESPONSE, LAPLACE):
        pure = dataclasses.replace(plan, noise_multiplier=0.4)
        assert pure.guarantee().epsilon == 2.5
        assert dataclasses.replace(pure, delta=1e-9).guarantee().epsilon == 2.5


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 6.0])
def test_the_pair_of_pure_epsilon_is_randomised_response(epsilon: float):
    """δ(ε′) = max(0, p − e^ε′ (1 − p)) with p = e^ε/(1 + e^ε) where ε′ ≥ 0; two of them are less than twice ε at δ > 0."""
    likely, losses = 1 / (1 + math.exp(-epsilon)), PureDpEvent(epsilon).losses()
    for at in (0.0, 0.3 * epsilon, 0.9 * epsilon, epsilon):
        exact = max(0.0, likely - math.exp(at) * (1 - likely))
        assert exact - 1e-12 <= losses.get_delta_for_epsilon(at) <= exact + 1e-4
    two = float(losses.self_compose(2).get_delta_for_epsilon(1.5 * epsilon))  # both true: a loss of 2 ε
    assert two == pytest.approx(likely**2 * -math.expm1(-0.5 * epsilon), abs=3e-4)
    own = PureDpEvent(epsilon).renyi((2, 32))
    direct = [math.log(likely**a * (1 - likely) ** (1 - a) + (1 - likely) ** a * likely ** (1 - a)) / (a - 1) for a in (2, 32)]
    np.testing.assert_allclose(own, direct, rtol=1e-9)
    assert (own <= epsilon).all()


def test_pure_mechanisms_beside_gaussians_are_counted_by_their_pairs():
    """As in an account of several runs; no more than the sum of both, and no less than each."""
    from dp_accounting import ComposedDpEvent

    both = accounting.count(ComposedDpEvent([PureDpEvent(1.0), GaussianDpEvent(2.0)]), 1e-5, "zero_out_one")
    gaussian = accounting.gdp_mu_to_epsilon(0.5, 1e-5)
    assert both.accountant.startswith("PLD")
    assert gaussian < both.epsilon < gaussian + 1.0 + 1e-3
    assert both.epsilon < both.cross_check


def test_what_each_plan_permits_on_an_edge_is_what_an_edge_moves():
    """Under node an edge moves each table by √2, and its noise is for √(2 D): μ = √K / (σ_a √D)."""
    rates = np.array([1e-3, 0.01, 0.1, 0.5])
    node = dataclasses.replace(NODE, noise_multiplier=0.5, max_degree=4)
    mu = math.sqrt(2) / (2.0 * 0.5 * 2.0)
    np.testing.assert_allclose(node.edge_curve().true_positive_rates(rates), norm.cdf(norm.ppf(rates) + mu), atol=2e-3)
    edge = dataclasses.replace(EDGE, noise_multiplier=2.0)
    np.testing.assert_allclose(
        edge.edge_curve().true_positive_rates(rates), norm.cdf(norm.ppf(rates) + math.sqrt(2) / 2), atol=2e-3
    )
    assert dataclasses.replace(FEATURES, noise_multiplier=1.0).edge_curve().auc() == pytest.approx(0.5, abs=1e-3)
    likely = 1 / (1 + math.exp(-2.0))
    pure = dataclasses.replace(RESPONSE, noise_multiplier=0.5)
    assert pure.edge_curve().true_positive_rate(1 - likely) == pytest.approx(likely, abs=2e-3)


def test_everything_is_permitted_where_nothing_is_protected():
    """Edges that predictions read exactly, or that are no part of the unit; examples under edge; no noise."""
    example = PrivacyPlan(
        sampling_rate=0.25, expected_batch_size=500, steps=40, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0
    )
    for plan in (example, dataclasses.replace(STARS, noise_multiplier=9.0), NODE, EDGE):
        assert plan.edge_curve().auc() == 1.0
    assert dataclasses.replace(EDGE, noise_multiplier=2.0).example_curve().auc() == 1.0
    private = dataclasses.replace(NODE, noise_multiplier=2.0)
    assert private.example_curve().auc() == private.permitted_auc() < 1


def test_delta_is_held_against_edges_and_nodes_by_whoever_has_them():
    """Sharp edge 16: a plan knows how many nodes are labelled, and not how many there are."""
    plan = dataclasses.replace(EDGE, delta=4e-3, noise_multiplier=2.0)
    with pytest.raises(PlanError, match="below 1/N"):
        plan.check_delta(5278)
    with pytest.raises(PlanError, match="below 1/N"):
        dataclasses.replace(NODE, delta=4e-3, noise_multiplier=2.0).check_delta(2708)


def test_the_statement_says_what_is_covered_and_what_is_not():
    """Sharp edge 22."""
    said = {
        kind: dataclasses.replace(plan, noise_multiplier=20.0 if plan.occurrences else 2.0).guarantee().statement
        for kind, plan in KINDS.items()
    }
    for kind, words in {
        "node": ("its features, its label and all its edges", "2 tables, one a hop", "noise of 4 times the most that one node",
                 "roster of nodes is public", "at most 10 edges a node", "a choice that ε does not cover",
                 "reads that node's own features, without noise", "in no example but its own"),
        "stars": ("at most 10 of other nodes", "own features and its neighbours', without noise", "bounded from above by RDP"),
        "edge": ("blanking one edge", "Features, labels and the roster of nodes are not protected", "cost an edge nothing"),
        "randomised_response": ("randomised response on every pair of nodes", "ε = 1/2 and δ = 0", "pure ε, which adds up"),
        "laplace": ("Laplace noise on the number of edges",),
    }.items():  # fmt: skip
        for part in words:
            assert part in said[kind], (kind, part, said[kind])
    assert "clipped" not in said["edge"]


@pytest.mark.parametrize(
    ("plan", "given_fields", "said"),
    [
        (NODE, {"max_degree": None}, "max_degree is None; give a whole number from 1 up, since unit is 'node'"),
        (EDGE, {"max_degree": 3}, "only where unit is 'node'"),
        (NODE, {"relation": "add_or_remove_one"}, "give 'zero_out_one'"),
        (EDGE, {"relation": "add_or_remove_one"}, "give 'zero_out_one'"),
        (NODE, {"sampling": "balls_in_bins"}, "nodes are drawn by 'poisson' alone"),
        (NODE, {"occurrences": 11}, "give at most 10"),
        (NODE, {"occurrences": -1}, "whole number from 0 up"),
        (NODE, {"aggregations": 1.5}, "whole number from 0 up"),
        (NODE, {"aggregation_noise": 0.0}, "finite number above 0"),
        (NODE, {"aggregations": 0}, "aggregations is 0; leave it out"),
        (NODE, {"edge_release": "laplace"}, "only where unit is 'edge'"),
        (EDGE, {"edge_release": "laplas"}, "did you mean 'laplace'"),
        (EDGE, {"edge_release": "laplace"}, "give one of them"),
        (EDGE, {"occurrences": 1}, "only where unit is 'node'"),
        (EDGE, {"clipping_norm": 1.0}, "give math.inf"),
        (EDGE, {"clipping": "automatic"}, "leave it out"),
        (EDGE, {"aggregations": 0, "noise_multiplier": 1.0}, "nothing to add the noise to"),
        (NODE, {"unit": "user", "max_degree": None, "max_examples_per_unit": 1}, "only where unit is 'node' or 'edge'"),
        (NODE, {"unit": "example"}, "max_degree is 10"),
    ],
)
def test_what_does_not_go_together_says_what_to_give(plan: PrivacyPlan, given_fields: dict[str, Any], said: str):
    """Sharp edge 21."""
    with pytest.raises(PlanError, match=re.escape(said)):
        dataclasses.replace(plan, **given_fields)


def test_an_edge_without_a_release_cannot_be_calibrated():
    with pytest.raises(PlanError, match="nothing to add the noise to"):
        dataclasses.replace(EDGE, aggregations=0).calibrate(epsilon=2.0)


def test_a_recipe_says_the_same_and_a_plan_comes_back_from_json():
    config = PrivacyConfig(
        unit="edge", relation="zero_out_one", aggregations=2, aggregation_noise=1.5, epsilon=2.0, delta=1e-5, clipping_norm=0.1
    )
    plan = PrivacyPlan.from_config(config, 30)
    assert math.isinf(plan.clipping_norm)
    assert (plan.aggregations, plan.aggregation_noise) == (2, 1.5)
    assert 1.98 < plan.guarantee().epsilon <= 2.0
    for kind in KINDS.values():
        assert from_plain(PrivacyPlan, json.loads(json.dumps(as_plain(kind))), "here") == kind
