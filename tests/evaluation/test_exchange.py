"""What each row buys: differences by seed, prices only where something was paid, and DP at equal accuracy."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from evaluation.exchange import at_equal_accuracy, cost_of, exchanged, leak_of, ratio
from evaluation.metrics import difference
from evaluation.result import AttackResult, Bought, Exchange, Measure, RunResult, Variant, read_comparison, to_json
from evaluation.summary import summarize
from tests.evaluation.test_result import comparison

LIRA, RMIA = "membership.lira", "membership.rmia"


def run(
    variant: Variant, seed: int, accuracy: float, epsilon: float = math.inf, regularizer: str = "", **auc: float
) -> RunResult:
    """A model with single intervals of a thousandth, so that seeds decide."""
    attacks = tuple(
        AttackResult(
            name=f"membership.{name}", status="ok", metric="auc", value=value, low=value - 0.001, high=value + 0.001,
            metrics=(
                Measure(name="tpr_at_fpr_0.01", value=value / 5, low=value / 5 - 0.001, high=value / 5 + 0.001),
                Measure(name="tpr_at_fpr_0.001", value=value / 50, low=value / 50 - 0.001, high=value / 50 + 0.001),
                Measure(name="tpr_at_fpr_1e-06", value=None, note="refused"),
            ),
        )
        for name, value in auc.items()
    )  # fmt: skip
    return RunResult(
        label=f"{variant}{regularizer}{epsilon}/seed={seed}", variant=variant, epsilon=epsilon, regularizer=regularizer,
        seed=seed, delta=None, step=1, steps=1, attacks=attacks,
        utility={"test_accuracy": accuracy, "test_accuracy_low": accuracy - 0.001, "test_accuracy_high": accuracy + 0.001},
    )  # fmt: skip


def three(variant: Variant, accuracies: list[float], aucs: list[float], **fields) -> list[RunResult]:
    pairs = zip(accuracies, aucs, strict=True)
    return [run(variant, seed, accuracy, lira=auc, **fields) for seed, (accuracy, auc) in enumerate(pairs)]


TWINS = three("non_private", [0.91, 0.92, 0.93], [0.64, 0.65, 0.66])


def row(runs: list[RunResult], attack: int = 0) -> Bought:
    return exchanged([*TWINS, *runs])[attack].rows[0]


def test_a_row_is_held_against_the_same_seeds_and_its_interval_is_students_t():
    """Seeds differ by one point of accuracy; what is given up on each differs far less, and that alone is in the interval."""
    found = row(three("regularized", [0.899, 0.911, 0.918], [0.60, 0.62, 0.61], regularizer="dropout=0.5"))
    given_up, taken = np.array([1.1, 0.9, 1.2]), np.array([0.04, 0.03, 0.05])
    half = student.ppf(0.975, 2) / np.sqrt(3) * np.array([given_up.std(ddof=1), taken.std(ddof=1)])
    for measure, mean, wide in zip((found.accuracy_given_up, found.auc_taken), (given_up.mean(), 0.04), half, strict=True):
        assert measure.value == pytest.approx(mean)
        assert (measure.low, measure.high) == pytest.approx((mean - wide, mean + wide))
    assert (found.cost, found.leak) == ("costs accuracy", "lowers the leak")
    assert found.kind == ("regularized", math.inf, "dropout=0.5")


def test_seeds_that_agree_by_luck_do_not_make_the_interval_narrower_than_the_single_figures_allow():
    found = row(three("clip_only", [0.90, 0.91, 0.92], [0.60, 0.61, 0.62]))
    assert found.accuracy_given_up.value == pytest.approx(1.0)
    assert found.accuracy_given_up.high == pytest.approx(1.0 + 0.1 * math.sqrt(2))  # the test examples may be the same


def test_a_seed_without_a_twin_or_whose_attack_failed_is_left_out():
    runs = three("regularized", [0.90, 0.91, 0.5], [0.60, 0.61, 0.9])
    broken = AttackResult(name=LIRA, status="failed", reason="it broke")
    found = row([*runs[:2], dataclasses.replace(runs[2], attacks=(broken,)), run("regularized", 7, 0.5, lira=0.5)])
    assert found.seeds == (0, 1)
    assert found.accuracy_given_up.value == pytest.approx(1.0)


def test_the_price_is_the_ratio_with_fiellers_interval():
    """Its ends r are where u − r a is as far from 0 as √(h_u² + r² h_a²)."""
    above, below = Measure(name="u", value=0.04, low=0.02, high=0.06), Measure(name="a", value=2.0, low=1.5, high=2.5)
    found = ratio(above, below, "price")
    assert found.value == pytest.approx(0.02)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 0.02 < found.high
    for end in (found.low, found.high):
        assert (0.04 - end * 2.0) ** 2 == pytest.approx(0.02**2 + end**2 * 0.5**2)


def test_fiellers_interval_covers_the_ratio_in_95_of_100_draws():
    random, inside, draws = np.random.default_rng(0), 0, 4000
    for u, a in zip(random.normal(0.04, 0.01, draws), random.normal(2.0, 0.3, draws), strict=True):
        measures = [Measure(name="", value=x, low=x - 1.96 * s, high=x + 1.96 * s) for x, s in ((u, 0.01), (a, 0.3))]
        found = ratio(measures[0], measures[1], "price")
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.02 <= found.high
    assert inside / draws == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(
    ("accuracies", "cost"),
    [([0.911, 0.919, 0.93], "costs no accuracy that was shown"), ([0.93, 0.94, 0.95], "gains accuracy")],
)
def test_there_is_no_price_where_nothing_is_shown_to_be_paid(accuracies: list[float], cost: str):
    found = row(three("regularized", accuracies, [0.60, 0.61, 0.62]))
    assert found.cost == cost
    assert found.auc_per_point.value is None
    assert found.auc_per_point.note == cost
    assert found.leak == "lowers the leak"


def test_a_leak_that_is_raised_is_said_and_has_no_price():
    found = row(three("regularized", [0.90, 0.91, 0.92], [0.74, 0.75, 0.76]))
    assert found.auc_taken.value == pytest.approx(-0.1)
    assert found.auc_taken.low is not None
    assert found.auc_taken.low < -0.1
    assert found.leak == "raises the leak"
    assert found.auc_per_point.value is None
    assert found.auc_per_point.note == "raises the leak"


def test_one_seed_keeps_the_interval_of_its_two_figures():
    (found,) = exchanged([TWINS[0], run("regularized", 0, 0.90, lira=0.6)])[0].rows
    assert found.auc_taken.value == pytest.approx(0.04)
    assert found.auc_taken.low == pytest.approx(0.04 - 0.001 * math.sqrt(2))


def test_the_rate_is_the_lowest_that_was_resolved_everywhere():
    (exchange,) = exchanged([*TWINS, *three("clip_only", [0.9] * 3, [0.6] * 3)])
    assert exchange.rate == "tpr_at_fpr_0.001"
    assert exchange.rows[0].rate_taken.value == pytest.approx(0.65 / 50 - 0.6 / 50)


def test_attacks_stand_by_what_they_get_from_the_non_private_models():
    """Whatever they get from the rows: no row has a part in which attack is first."""
    twins = [run("non_private", seed, 0.92, lira=0.64, rmia=0.66) for seed in range(3)]
    rows = [run("regularized", seed, 0.92, lira=0.63, rmia=0.55, regularizer="relax=0.3") for seed in range(3)]
    first, second = exchanged([*twins, *rows])
    assert (first.attack, second.attack) == (RMIA, LIRA)
    assert first.rows[0].stronger == LIRA  # a defence against the one attack alone
    assert second.rows[0].stronger == ""


def test_nothing_is_exchanged_without_a_twin_or_beside_it():
    assert exchanged(TWINS) == ()
    assert exchanged(three("clip_only", [0.9] * 3, [0.6] * 3)) == ()
    assert exchanged([]) == ()


def test_the_difference_of_shares_has_the_interval_of_both():
    first, second = Measure(name="", value=0.6, low=0.57, high=0.64), Measure(name="", value=0.5, low=0.44, high=0.53)
    found = difference(first, second, "more")
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - math.hypot(0.03, 0.03))
    assert found.high == pytest.approx(0.1 + math.hypot(0.04, 0.06))


@pytest.mark.parametrize(
    ("low", "high", "cost", "leak"),
    [
        (0.1, 0.3, "costs accuracy", "lowers the leak"),
        (-0.3, -0.1, "gains accuracy", "raises the leak"),
        (0.0, 0.3, "costs no accuracy that was shown", "changes no leak that was shown"),
        (None, None, "costs no accuracy that was shown", "changes no leak that was shown"),
    ],
)
def test_an_interval_that_holds_0_shows_nothing(low: float | None, high: float | None, cost: str, leak: str):
    measure = Measure(name="", value=0.2, low=low, high=high)
    assert (cost_of(measure), leak_of(measure)) == (cost, leak)


# -- DP at equal accuracy -----------------------------------------------------------------------------------------------

BUDGETS = [
    *three("dp", [0.80, 0.80, 0.80], [0.52, 0.52, 0.52], epsilon=8.0),
    *three("dp", [0.90, 0.90, 0.90], [0.56, 0.56, 0.56], epsilon=64.0),
]


def equal(accuracy: float) -> Measure:
    rows = exchanged([*TWINS, *BUDGETS])[0].rows
    return at_equal_accuracy(accuracy, rows)


def test_dp_at_equal_accuracy_lies_on_the_line_between_two_budgets():
    found = equal(0.875)
    assert found.value == pytest.approx(0.25 * 0.52 + 0.75 * 0.56)
    assert found.note == "between ε = 8 and ε = 64"
    assert found.high is not None
    assert found.high - 0.55 == pytest.approx(0.001 / math.sqrt(3))


def test_a_row_more_accurate_than_every_budget_has_none_beside_it():
    found = equal(0.901)
    assert found.value is None
    assert found.note == "no budget of this comparison is as accurate"
    assert equal(0.90).value == pytest.approx(0.56)


def test_a_row_less_accurate_than_every_budget_stands_beside_the_nearest():
    found = equal(0.7)
    assert found.value == pytest.approx(0.52)
    assert found.note == "ε = 8, which is more accurate"


def test_rows_without_a_guarantee_stand_beside_dp_and_budgets_do_not():
    rows = exchanged([*TWINS, *three("regularized", [0.85] * 3, [0.6] * 3), *BUDGETS])[0].rows
    assert [row.variant for row in rows] == ["regularized", "dp", "dp"]
    assert rows[0].dp_at_equal_accuracy is not None
    assert rows[0].dp_at_equal_accuracy.value == pytest.approx(0.54)
    assert rows[1].dp_at_equal_accuracy is None
    alone = exchanged([*TWINS, *three("regularized", [0.85] * 3, [0.6] * 3)])[0].rows[0]
    assert alone.dp_at_equal_accuracy is not None
    assert alone.dp_at_equal_accuracy.note == "no budget was run"


# -- the schema ---------------------------------------------------------------------------------------------------------


def test_regularizers_alone_are_rows_of_their_own_in_the_order_of_the_runs():
    each = ["weight_decay=0.01", "dropout=0.5"]
    runs = [run("regularized", seed, 0.9, lira=0.6, regularizer=name) for name in each for seed in range(2)]
    assert [item.regularizer for item in summarize((*runs, *TWINS))] == ["", *each]


def test_exchanges_come_back_and_an_older_result_has_none(tmp_path: Path):
    runs = (*TWINS, *three("regularized", [0.9] * 3, [0.6] * 3, regularizer="dropout=0.5"), *BUDGETS)
    made = dataclasses.replace(comparison(*runs), exchanges=exchanged(runs))
    path = tmp_path / "results.json"
    path.write_text(to_json(made))
    again = read_comparison(path)
    assert again == made
    assert isinstance(again.exchanges[0], Exchange)
    plain = json.loads(to_json(made))
    del plain["exchanges"]
    for record in (*plain["runs"], *plain["summary"]):
        del record["regularizer"]
    path.write_text(json.dumps(plain))
    older = read_comparison(path)
    assert older.exchanges == ()
    assert {item.regularizer for item in (*older.runs, *older.summary)} == {""}
