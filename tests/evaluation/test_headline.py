"""The first sentence is true whatever a comparison holds, and its figures are those that were found."""

import dataclasses
import math
from pathlib import Path

import pytest

from evaluation.answered import with_answer
from evaluation.headline import ENOUGH, beyond_chance, headline, speaks_of_members
from evaluation.report import terminal, wording
from evaluation.report.wording.answer import NOTHING
from evaluation.result import AttackResult, ComparisonResult, Measure
from evaluation.summary import summarize
from tests.evaluation.report_fixture import INVERSION, LIRA, THRESHOLD, audited, synthetic

BUDGETS = (8.0, 1.0)


def small(root: Path, **given) -> ComparisonResult:
    return synthetic(root, **{"budgets": BUDGETS, "seeds": (0, 1), "attacks": (LIRA,), "broken": False, **given})


def changed(result: ComparisonResult, of) -> ComparisonResult:
    """The same with ``of(run, attack)`` in the place of each attack."""
    runs = tuple(dataclasses.replace(run, attacks=tuple(of(run, attack) for attack in run.attacks)) for run in result.runs)
    return with_answer(dataclasses.replace(result, runs=runs, summary=summarize(runs)))


def worth(result: ComparisonResult, of) -> ComparisonResult:
    """The same with the test accuracy ``of(run)``."""
    runs = []
    for run in result.runs:
        value = of(run)
        ends = {"test_accuracy_low": value - 0.02, "test_accuracy_high": value + 0.02}
        runs.append(dataclasses.replace(run, utility={"test_accuracy": value, **ends}))
    return with_answer(dataclasses.replace(result, runs=tuple(runs), summary=summarize(tuple(runs))))


def first(result: ComparisonResult) -> str:
    return wording.answer(result)[0]


def test_it_speaks_of_the_smallest_budget_that_keeps_enough(tmp_path: Path):
    result = worth(
        small(tmp_path, budgets=(8.0, 2.0, 1.0)), lambda run: {8.0: 0.94, 2.0: 0.93, 1.0: 0.7}.get(run.epsilon, 0.95)
    )
    found = result.headline
    assert found is not None
    assert found.chosen is not None
    assert (found.choice, found.chosen.epsilon) == ("the smallest that keeps enough", 2.0)
    assert found.chosen.kept is not None
    assert found.chosen.kept.value == pytest.approx(0.93 / 0.95)
    assert found.smallest is not None
    assert found.smallest.epsilon == 1.0
    assert first(result).startswith("At ε = 2 the model keeps 97.9% [")
    assert "the smallest budget, it keeps 73.7% [" in wording.answer(result)[2]


def test_the_attack_stands_beside_chance_and_the_plan_with_intervals(tmp_path: Path):
    result = small(tmp_path)
    found = result.headline
    assert found is not None
    assert found.chosen is not None
    best = found.chosen.strongest
    assert best is not None
    assert best.permitted is not None
    said = first(result)
    shown = [100 * value for value in (best.value.value, best.value.low, best.value.high) if value is not None]
    assert f"in {shown[0]:.1f}% [{shown[1]:.1f}, {shown[2]:.1f}] of cases: guessing gets 50%" in said
    assert f"the plan permits at most {100 * best.permitted:.1f}%" in said
    assert len(wording.answer(result)) <= 4


def test_where_no_budget_keeps_enough_that_is_said(tmp_path: Path):
    said = first(worth(small(tmp_path), lambda run: 0.95 if math.isinf(run.epsilon) else 0.05 * run.epsilon + 0.2))
    assert said.startswith(
        "No budget of this comparison keeps 95% by its mean: at ε = 8, where it is worth most, the model keeps"
    )


def test_accuracy_that_needs_no_model_is_not_called_kept_without_a_doubt(tmp_path: Path):
    """A model that names the most frequent class keeps most of the accuracy of one that has learned."""
    most = Measure(name="majority_class", value=0.92, low=0.9, high=0.94)
    result = worth(
        dataclasses.replace(small(tmp_path), baselines=(most,)), lambda run: 0.95 if math.isinf(run.epsilon) else 0.925
    )
    assert result.headline is not None
    assert result.headline.choice == "keeps most"
    assert "not shown to be more than always naming the most frequent class is worth" in first(result)


def test_only_baselines_are_no_private_model(tmp_path: Path):
    assert first(small(tmp_path, budgets=())).startswith(
        "No model of this comparison is private: the one without privacy is right"
    )
    assert first(small(tmp_path, budgets=())).endswith("and no guarantee limits it.")
    clipped = first(small(tmp_path, budgets=(), variants=("clip_only",)))
    assert clipped.startswith("No model of this comparison is private: that of clip only is right")


def test_one_budget_alone_and_no_twin(tmp_path: Path):
    assert first(small(tmp_path, budgets=(2.0,))).startswith("At ε = 2 the model keeps ")
    alone = first(small(tmp_path, budgets=(2.0,), variants=()))
    assert "what privacy costs is not known" in alone
    assert "At ε = 1, the smallest budget, the model is right on" in first(small(tmp_path, variants=()))


def test_nothing_found_is_not_called_an_attack_that_gets_something(tmp_path: Path):
    def nothing(run, attack: AttackResult) -> AttackResult:
        return dataclasses.replace(attack, value=0.51, low=0.48, high=0.54, verdict="found nothing", metrics=())

    said = first(changed(small(tmp_path), nothing))
    assert "no attack is shown to get anything of its members: the one attack that ran (Membership, LiRA) tells" in said
    assert "without privacy it is not shown to get anything either, so that this shows little" in said

    def nothing_but_on_the_twin(run, attack: AttackResult) -> AttackResult:
        """By another figure, as the one at few false alarms."""
        return dataclasses.replace(nothing(run, attack), verdict="leak" if run.variant == "non_private" else "found nothing")

    said = first(changed(small(tmp_path), nothing_but_on_the_twin))
    assert "no attack is shown to get anything of its members" in said
    assert "shows little" not in said


def test_a_failed_attack_is_no_safety_and_neither_is_none(tmp_path: Path):
    def failed(run, attack: AttackResult) -> AttackResult:
        return AttackResult(name=attack.name, status="failed", reason="out of memory")

    assert "no attack gave a figure on it: Membership, LiRA failed" in first(changed(small(tmp_path), failed))
    assert "so that what it gives away was not measured" in first(small(tmp_path, attacks=()))


def test_a_refuted_claim_and_an_attack_above_the_plan_come_first(tmp_path: Path):
    assert first(audited(small(tmp_path))).startswith("Do not rely on what is promised below: ε = 1: a white-box audit refutes")

    def above(run, attack: AttackResult) -> AttackResult:
        return attack if run.variant != "dp" else dataclasses.replace(attack, verdict="above the plan")

    result = changed(small(tmp_path), above)
    assert first(result).startswith("Do not release these models: from eps=08.00/seed=0, eps=08.00/seed=1, eps=01.00/seed=0")
    assert "which it is shown to pass" in wording.answer(result)[1]
    assert first(result) in " ".join(terminal.render(result, 100).split())


def test_what_tells_nothing_of_members_is_not_the_strongest_attack_on_them(tmp_path: Path):
    """A class inversion that public data match as well says nothing of members, however often it succeeds."""
    result = small(tmp_path, attacks=(LIRA, INVERSION))
    found = result.headline
    assert found is not None
    assert found.non_private is not None
    assert found.non_private.strongest is not None
    assert found.non_private.strongest.attack == LIRA
    assert found.non_private.strongest.of == 2
    only = first(small(tmp_path, attacks=(INVERSION,)))
    assert "no attack is shown to get anything of its members" in only
    assert only.endswith("(nothing beyond public).")


def test_of_two_attacks_that_find_something_the_stronger_is_named(tmp_path: Path):
    found = small(tmp_path, attacks=(THRESHOLD, LIRA)).headline
    assert found is not None
    assert found.non_private is not None
    assert found.non_private.strongest is not None
    assert found.non_private.strongest.attack == LIRA


def test_of_two_attacks_that_find_nothing_the_one_nearest_to_being_shown_is_named(tmp_path: Path):
    """Two classes out of two are a share of 1, with an interval from 0.16: that is no more than an AUC of 0.54 from 0.48."""

    def nothing(run, attack: AttackResult) -> AttackResult:
        found = (1.0, 0.158, 1.0, 0.5) if attack.name == INVERSION else (0.54, 0.48, 0.6, 0.5)
        named = dict(zip(("value", "low", "high", "chance"), found, strict=True))
        return dataclasses.replace(attack, **named, verdict="found nothing", metrics=())

    shown = changed(small(tmp_path, attacks=(INVERSION, LIRA)), nothing).headline
    assert shown is not None
    assert shown.chosen is not None
    assert shown.chosen.strongest is not None
    assert shown.chosen.strongest.attack == LIRA


def test_values_texts_columns_and_links_are_said_in_their_units(tmp_path: Path):
    def as_metric(
        name: str,
        metric: str,
        value: float,
        chance: float = 0.5,
        permitted: float | None = None,
        metrics: tuple[Measure, ...] = (),
    ) -> str:
        def of(run, attack: AttackResult) -> AttackResult:
            return AttackResult(
                name=name, status="ok", metric=metric, value=value, low=value - 0.01, high=value + 0.01, chance=chance,
                verdict="leak", metrics=metrics, permitted=permitted if run.variant == "dp" else None,
            )  # fmt: skip

        return first(changed(small(tmp_path), of))

    bits = as_metric("extraction.exposure", "exposure", 9.0, chance=1.44, permitted=12.5)
    assert "down by 9.0 [9.0, 9.0] bits: one that was never seen has 1.4, and the plan permits at most 12.5" in bits
    edges = Measure(name="auc_in_graph", value=0.6, low=0.58, high=0.62)
    linked = as_metric("link.posteriors", "auc", 0.95, metrics=(edges,))
    assert "tells which of two edges stood in the graph that was trained on in 60.0% [58.0, 62.0] of cases" in linked
    assert "no limit of the plan, which hides one example, on it is known" in linked


def test_a_predicted_value_is_not_called_accuracy(tmp_path: Path):
    result = small(tmp_path)
    runs = tuple(
        dataclasses.replace(run, utility={"within_20_percent": 0.5, "mean_absolute_error": 8.0}) for run in result.runs
    )
    said = wording.answer(with_answer(dataclasses.replace(result, runs=runs, summary=summarize(runs), baselines=())))
    assert "keeps 100.0% [100.0, 100.0] of the predictions within 20% that it has without privacy" in said[0]
    assert "within 20% of the true value on 50.0% [50.0, 50.0] of held-out examples" in said[1]


def test_nothing_trained_and_a_file_of_before(tmp_path: Path):
    result = small(tmp_path)
    assert wording.answer(with_answer(dataclasses.replace(result, runs=(), summary=()))) == [NOTHING]
    assert "type `dptrain report RUN --format html`" in first(dataclasses.replace(result, headline=None))


@pytest.mark.parametrize(
    ("value", "chance", "metric", "expected"),
    [(0.5, 0.5, "auc", 0.0), (0.75, 0.5, "auc", 0.5), (0.4, 0.5, "auc", 0.0), (0.55, 0.1, "identified_top1", 0.5),
     (3.0, 1.0, "exposure", 0.75), (0.5, 1.0, "named", 0.0)],
)  # fmt: skip
def test_beyond_chance_has_known_values(value: float, chance: float, metric: str, expected: float):
    assert beyond_chance(value, chance, metric) == pytest.approx(expected)


def test_without_chance_nothing_is_beyond_it():
    assert beyond_chance(0.9, None, "auc") is None
    assert speaks_of_members(AttackResult(name="attribute.map", status="ok", metric="guessed", chance=0.4)) == (
        "train_minus_held_out", 0.0,
    )  # fmt: skip


def test_the_choice_is_said_to_be_a_look_at_private_data(tmp_path: Path):
    result = small(tmp_path)
    assert "a look at private data of its own" in wording.choice(result)
    assert f"at least {100 * ENOUGH:g}%" in wording.choice(result)
    assert wording.choice(small(tmp_path, budgets=(2.0,))) == ""


def test_no_summary_no_headline():
    assert headline((), ()).choice == "nothing trained"
