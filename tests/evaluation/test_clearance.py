"""How a policy's bounds are held: by the worse end of an interval, by every attack of the family, and never by silence."""

import dataclasses
import math

import pytest

from dptrain.release.checks import Check
from dptrain.release.policy import Policy
from evaluation.clearance_bounds import of_bounds
from evaluation.result import AttackResult, Exposure, Measure, RunResult

LIRA = AttackResult(
    name="membership.lira",
    status="ok",
    metric="auc",
    value=0.55,
    low=0.52,
    high=0.58,
    verdict="within the plan",
    metrics=(Measure(name="tpr_at_fpr_0.01", value=0.02, low=0.01, high=0.04),),
)
EXPOSURE = AttackResult(
    name="extraction.exposure",
    status="ok",
    metric="exposure",
    value=3.0,
    low=2.0,
    high=4.0,
    verdict="within the plan",
    metrics=(Measure(name="exposure_inserted_1", value=1.0, low=0.5, high=9.0),),
)
LINK = AttackResult(
    name="link.posteriors",
    status="ok",
    metric="auc",
    value=0.9,
    low=0.88,
    high=0.92,
    verdict="found nothing",
    metrics=(Measure(name="auc_in_graph", value=0.52, low=0.48, high=0.56),),
)


def held(policy: Policy, *attacks: AttackResult, utility: Measure | None = None, result: RunResult | None = None) -> Check:
    (check,) = of_bounds(result, attacks, utility, policy, "dptrain evaluate runs/mine")
    return check


@pytest.mark.parametrize(
    ("policy", "attack"),
    [
        (Policy(maximum_auc=0.57), LIRA),
        (Policy(maximum_tpr=0.03), LIRA),
        (Policy(maximum_exposure=5.0), EXPOSURE),
        (Policy(maximum_link_auc=0.55), LINK),
    ],
)
def test_a_value_below_a_bound_does_not_pass_with_an_interval_that_reaches_above(policy: Policy, attack: AttackResult):
    assert held(policy, attack).verdict == "not met"
    (name, most), *_ = policy.bounds.items()
    wider = dataclasses.replace(policy, **{name: 1.0 if most < 1 else 10.0})
    assert held(wider, attack).verdict == "met"


def test_links_are_held_by_edges_in_the_graph_and_not_by_what_similar_nodes_show():
    assert held(Policy(maximum_link_auc=0.6), LINK).verdict == "met"


def test_the_worst_attack_of_the_family_decides():
    worse = dataclasses.replace(LIRA, name="membership.rmia", high=0.8)
    found = held(Policy(maximum_auc=0.6), LIRA, worse)
    assert found.verdict == "not met"
    assert "membership.rmia up to 0.800" in found.found
    assert "membership.lira" not in found.found


@pytest.mark.parametrize("verdict", ["withheld", "no signal"])
def test_an_attack_that_shows_nothing_does_not_meet_a_bound(verdict):
    silent = dataclasses.replace(LIRA, verdict=verdict, reason="a control is not at chance")
    assert held(Policy(maximum_auc=0.6), silent).verdict == "cannot be judged"
    assert held(Policy(maximum_auc=0.6), silent, LIRA).verdict == "met"
    assert held(Policy(maximum_auc=0.57), dataclasses.replace(silent, high=0.9), LIRA).verdict == "not met"


@pytest.mark.parametrize(
    "attack",
    [
        dataclasses.replace(LIRA, metrics=()),
        dataclasses.replace(LIRA, metrics=(Measure(name="tpr_at_fpr_0.01", value=None, note="too few non-members"),)),
        dataclasses.replace(LIRA, metrics=(Measure(name="tpr_at_fpr_0.01", value=0.01),)),
        dataclasses.replace(LIRA, status="failed"),
        dataclasses.replace(LIRA, status="not_applicable"),
    ],
)
def test_a_figure_that_is_not_known_leaves_the_bound_unjudged(attack: AttackResult):
    found = held(Policy(maximum_tpr=0.5), attack)
    assert found.verdict == "cannot be judged"
    assert "leave maximum_tpr out of the policy" in found.to_do


def test_one_attack_without_the_figure_is_not_hidden_behind_another():
    other = dataclasses.replace(LIRA, name="membership.rmia", metrics=())
    found = held(Policy(maximum_tpr=0.5), LIRA, other)
    assert found.verdict == "cannot be judged"
    assert "membership.rmia" in found.found


@pytest.mark.parametrize(
    "ends",
    [
        {"high": math.nan},
        {"low": math.nan},
        {"value": math.nan},
        {"high": math.inf},
        {"high": -1.0},
        {"low": -1.0},
        {"value": 0.9},
        {"low": None},
    ],
)
def test_an_interval_that_no_figure_has_meets_no_bound(ends: dict[str, float]):
    """NaN is above no bound, and −1 is below every one."""
    other = dataclasses.replace(LIRA, name="membership.rmia")
    found = held(Policy(maximum_auc=1.0), dataclasses.replace(LIRA, **ends), other)
    assert found.verdict == "cannot be judged"
    assert "membership.lira" in found.found
    measure = dataclasses.replace(Measure(name="test_accuracy", value=0.55, low=0.52, high=0.58), **ends)
    assert held(Policy(minimum_utility=0.0), utility=measure).verdict == "cannot be judged"


def test_exposure_in_bits_may_lie_above_1():
    assert held(Policy(maximum_exposure=9.0), EXPOSURE).verdict == "met"


def test_utility_is_held_by_its_lower_end():
    found = Measure(name="test_accuracy", value=0.93, low=0.90, high=0.95)
    assert held(Policy(minimum_utility=0.92), utility=found).verdict == "not met"
    assert held(Policy(minimum_utility=0.90), utility=found).verdict == "met"
    assert held(Policy(minimum_utility=0.5), utility=dataclasses.replace(found, low=None)).verdict == "cannot be judged"


def test_shadow_models_are_counted_where_they_were_used():
    none = Measure(name="share", value=0.0)
    spread = Exposure(
        examples=10, models=32, false_positive_rate=0.1, false_discovery_rate=0.05, flagged=none, striking=none,
        striking_by_chance=0.0, levels=(), share_above=(), share_by_chance=(), largest_by_chance=0.1,
    )  # fmt: skip
    result = RunResult(
        label="", variant="dp", epsilon=8.0, delta=1e-4, seed=0, step=1, steps=1, utility={}, attacks=(), exposure=spread
    )
    assert held(Policy(minimum_shadow_models=32), result=result).verdict == "met"
    assert held(Policy(minimum_shadow_models=33), result=result).verdict == "not met"


def test_without_bounds_nothing_is_held():
    assert list(of_bounds(None, (LIRA,), None, Policy(), "")) == []
