"""A guard counts as attacked only where somebody who knows it tried, and found out something."""

import dataclasses
from typing import Any

import pytest

from dptrain.release.checks import Check
from evaluation.clearance_guards import shown
from evaluation.result import AttackResult, GuardedResult, Measure, RunResult

THRESHOLD = AttackResult(
    name="membership.threshold", status="ok", metric="auc", value=0.55, low=0.5, high=0.6, verdict="found nothing"
)
ADAPTED = dataclasses.replace(THRESHOLD, name="membership.repeated")
RIGHT = Measure(name="answered_right", value=0.9, low=0.85, high=0.95)


def attacked(*through: AttackResult, **changes: Any) -> RunResult:
    """A model that was attacked without a guard, and by these through one."""
    guarded = GuardedResult(guard="top5-rounded1", utility=(RIGHT,), attacks=through)
    made = RunResult(
        label="", variant="dp", epsilon=8.0, delta=1e-4, seed=0, step=1, steps=1, utility={"test_accuracy": 0.97},
        attacks=(THRESHOLD,), guarded=(guarded,),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def guard_check(result: RunResult | None, guard: str = "top5-rounded", before: str | None = None) -> Check:
    (check,) = shown(result, before, guard).checks
    return check


def test_attacks_through_the_guard_and_what_it_answers_right_are_what_counts():
    seen = shown(attacked(THRESHOLD, ADAPTED), None, "top5-rounded")
    assert [check.verdict for check in seen.checks] == ["met"]
    assert seen.attacks == (THRESHOLD, ADAPTED)
    assert seen.utility == RIGHT
    assert "membership.repeated adapt to it" in seen.checks[0].found


@pytest.mark.parametrize(
    "through",
    [
        (),
        (THRESHOLD,),
        (THRESHOLD, dataclasses.replace(ADAPTED, status="failed", verdict="none")),
        (THRESHOLD, dataclasses.replace(ADAPTED, status="not_applicable", verdict="none")),
        (THRESHOLD, dataclasses.replace(ADAPTED, verdict="withheld")),
        (THRESHOLD, dataclasses.replace(ADAPTED, verdict="no signal")),
    ],
)
def test_a_guard_through_which_nobody_who_knows_it_found_out_anything_is_not_judged(through: tuple[AttackResult, ...]):
    found = guard_check(attacked(*through))
    assert found.verdict == "cannot be judged"
    assert "--evaluation.guards top5-rounded" in found.to_do
    assert "membership.lira or inversion.class" in found.to_do


def test_without_a_result_or_with_another_guard_nothing_is_judged():
    assert guard_check(None).verdict == "cannot be judged"
    assert guard_check(attacked(ADAPTED), "label_only").verdict == "cannot be judged"
    broken = GuardedResult(guard="top5-rounded", attacks=(ADAPTED,), reason="it cannot be fitted")
    assert "it cannot be fitted" in guard_check(attacked(guarded=(broken,))).found


def test_the_recipes_own_guard_is_held_to_the_same():
    assert guard_check(attacked(), before="top5-rounded1").verdict == "cannot be judged"
    assert guard_check(attacked(attacks=()), before="top5-rounded1").verdict == "cannot be judged"
    assert guard_check(attacked(attacks=(ADAPTED,)), before="top5-rounded1").verdict == "met"


def test_without_a_guard_attacks_behind_one_say_nothing():
    assert shown(attacked(), None, None).checks == ()
    (check,) = shown(attacked(), "label_only", None).checks
    assert check.verdict == "cannot be judged"
    assert "give --guard label_only" in check.to_do
