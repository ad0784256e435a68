"""A row is called worse than another only where both differences are shown."""

import dataclasses
import math
from pathlib import Path

from evaluation.answered import with_answer
from evaluation.pareto import differences, fronts
from evaluation.result import AttackResult, ComparisonResult, Front
from evaluation.summary import summarize
from tests.evaluation.report_fixture import INVERSION, LIRA, THRESHOLD, synthetic


def rows(root: Path, given: dict[float, tuple[float, float]], half: float = 0.01, seeds: tuple[int, ...] = (0, 1, 2)) -> Front:
    """The front of rows with this accuracy and AUC, by their ε (infinity is the non-private one)."""
    budgets = tuple(epsilon for epsilon in given if math.isfinite(epsilon))
    result = synthetic(root, budgets=budgets, seeds=seeds, variants=("non_private",), attacks=(LIRA,), broken=False)
    runs = []
    for run in result.runs:
        accuracy, auc = given[run.epsilon]
        attack = AttackResult(
            name=LIRA, status="ok", metric="auc", value=auc, low=auc - half, high=auc + half, chance=0.5, verdict="leak"
        )
        utility = {"test_accuracy": accuracy, "test_accuracy_low": accuracy - half, "test_accuracy_high": accuracy + half}
        runs.append(dataclasses.replace(run, utility=utility, attacks=(attack,)))
    (front,) = fronts(tuple(runs), summarize(tuple(runs)))
    return front


def places(front: Front) -> dict[float, str]:
    return {point.epsilon: point.place for point in front.points}


def test_what_is_worth_less_and_gives_away_more_is_shown_to_be_worse(tmp_path: Path):
    found = rows(tmp_path, {math.inf: (0.95, 0.8), 8.0: (0.7, 0.9), 1.0: (0.6, 0.55)})
    assert places(found) == {math.inf: "on the front", 8.0: "shown to be worse", 1.0: "on the front"}
    assert [found.points[at].epsilon for at in found.points[1].worse_than] == [math.inf]


def test_a_trade_off_has_no_loser(tmp_path: Path):
    found = rows(tmp_path, {math.inf: (0.95, 0.8), 8.0: (0.9, 0.7), 1.0: (0.8, 0.6)})
    assert set(places(found).values()) == {"on the front"}


def test_better_means_within_their_intervals_settle_nothing(tmp_path: Path):
    found = rows(tmp_path, {math.inf: (0.95, 0.80), 8.0: (0.94, 0.81)}, half=0.05)
    assert places(found) == {math.inf: "on the front", 8.0: "behind it by the means alone"}
    assert found.points[1].worse_than == ()


def test_one_difference_shown_is_not_enough(tmp_path: Path):
    found = rows(tmp_path, {math.inf: (0.95, 0.80), 8.0: (0.70, 0.805)}, half=0.02)
    assert places(found)[8.0] == "behind it by the means alone"


def test_equal_rows_are_both_on_the_front(tmp_path: Path):
    assert set(places(rows(tmp_path, {math.inf: (0.9, 0.7), 8.0: (0.9, 0.7)})).values()) == {"on the front"}


def test_differences_are_taken_over_shared_seeds(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(8.0,), seeds=(0, 1), variants=("non_private",), attacks=(LIRA,), broken=False)
    (front,) = fronts(result.runs, result.summary)
    worth, leak = differences(front.points[0], front.points[1], "auc", result.runs)
    expected = [front.points[place].utility.value or 0.0 for place in (0, 1)]
    assert worth.value is not None
    assert abs(worth.value - (expected[0] - expected[1])) < 1e-9
    assert leak.note == "2 seeds"
    apart = tuple(dataclasses.replace(run, seed=run.seed + 10 * (run.variant == "dp")) for run in result.runs)
    _, by_means = differences(front.points[0], front.points[1], "auc", apart)
    assert by_means.note == ""


def test_each_row_has_the_attack_that_is_strongest_on_it_and_baselines_are_rows(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(8.0,), seeds=(0,), attacks=(THRESHOLD, LIRA, INVERSION), broken=False)
    by_family = {front.family: front for front in result.fronts}
    assert set(by_family) == {"membership", "inversion"}
    assert result.fronts[0].family == "membership"
    assert {point.attack for point in by_family["membership"].points} == {LIRA}
    assert {point.variant for point in by_family["membership"].points} == {"dp", "non_private", "clip_only", "regularized"}


def test_one_row_has_no_front(tmp_path: Path):
    result = synthetic(tmp_path, budgets=(), seeds=(0,), variants=("non_private",), broken=False)
    assert result.fronts == ()


def test_a_row_without_a_figure_is_left_out(tmp_path: Path):
    def failed(result: ComparisonResult) -> ComparisonResult:
        runs = tuple(
            run if run.variant != "dp"
            else dataclasses.replace(run, attacks=(AttackResult(name=LIRA, status="failed", reason="no"),))
            for run in result.runs
        )  # fmt: skip
        return with_answer(dataclasses.replace(result, runs=runs, summary=summarize(runs)))

    result = failed(synthetic(tmp_path, budgets=(8.0,), seeds=(0,), attacks=(LIRA,), broken=False))
    assert {point.variant for point in result.fronts[0].points} == {"non_private", "clip_only", "regularized"}
