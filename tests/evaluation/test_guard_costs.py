"""What a guard costs beyond the label: which attack is taken, and what its interval shows. All figures are made up."""

import dataclasses
import math
from pathlib import Path

import pytest

from evaluation.guard_costs import BY_MODEL, BY_SCORES, guard_costs
from evaluation.report import guards, html, terminal
from evaluation.result import (
    AttackResult,
    ComparisonResult,
    GuardCost,
    GuardedResult,
    Measure,
    RunResult,
    Variant,
    read_comparison,
    write,
)
from evaluation.summary import summarize

Figures = dict[str, float]
"""Attack to AUC."""


def attack(name: str, area: float, access: str = "scores", half: float = 0.02) -> AttackResult:
    return AttackResult(
        name=name,
        status="ok",
        metric="auc",
        value=area,
        low=area - half,
        high=area + half,
        chance=0.5,
        access=access,
        verdict="leak" if area - half > 0.5 else "found nothing",
    )


def run(variant: Variant, epsilon: float, seed: int, bare: Figures, through: dict[str, Figures]) -> RunResult:
    shown = {"label_only": "label", "top5": "top-5 with scores", "labels5": "top-5 labels in order"}
    return RunResult(
        label=f"{variant}{epsilon}/seed={seed}",
        variant=variant,
        epsilon=epsilon,
        delta=1e-4 if variant == "dp" else None,
        seed=seed,
        step=1,
        steps=1,
        utility={"test_accuracy": 0.9, "test_accuracy_low": 0.88, "test_accuracy_high": 0.92},
        attacks=tuple(attack(name, area, "weights" if "norm" in name else "scores") for name, area in bare.items()),
        guarded=tuple(
            GuardedResult(
                guard=guard,
                access=shown[guard],
                statement=f"{guard} is made up.",
                utility=(Measure(name="answered_right", value=0.9, low=0.88, high=0.92),),
                attacks=tuple(attack(name, area) for name, area in areas.items()),
            )
            for guard, areas in through.items()
        ),
    )


LEAKING = {
    "top5": {"membership.lira": 0.70, "membership.answers": 0.72},
    "labels5": {"membership.lira": 0.56, "membership.answers": 0.58},
    "label_only": {"membership.lira": 0.50, "membership.answers": 0.58},
}
TIGHT = {
    "top5": {"membership.lira": 0.53, "membership.answers": 0.51},
    "labels5": {"membership.lira": 0.51, "membership.answers": 0.51},
    "label_only": {"membership.lira": 0.52, "membership.answers": 0.50},
}
BARE = {"membership.lira": 0.74, "membership.answers": 0.73, "membership.gradient_norm": 0.76}
NOTHING = {"membership.lira": 0.52, "membership.answers": 0.51, "membership.gradient_norm": 0.51}


def runs() -> tuple[RunResult, ...]:
    return (
        *(run("non_private", math.inf, seed, BARE, LEAKING) for seed in (0, 1, 2)),
        *(run("dp", 1.0, seed, NOTHING, TIGHT) for seed in (0, 1, 2)),
    )


def cost(costs: tuple[GuardCost, ...], variant: str, guard: str, access: str = "") -> GuardCost:
    (found,) = [c for c in costs if (c.variant, c.guard) == (variant, guard) and (not access or c.access == access)]
    return found


def comparison(given: tuple[RunResult, ...]) -> ComparisonResult:
    return ComparisonResult(
        name="made up",
        title="Made up",
        runs=given,
        summary=summarize(given),
        command="dptrain run digits",
        data={"name": "made up", "classes": ["a", "b"]},
        recipe={},
        versions={},
        not_covered=("everything",),
        guard_costs=guard_costs(given),
    )


def test_the_strongest_attack_through_each_guard_is_held_against_the_strongest_through_the_label():
    costs = guard_costs(runs())
    top = cost(costs, "non_private", "top5")
    assert (top.attack, top.label_attack) == ("membership.answers", "membership.answers")
    assert top.value.value == pytest.approx(0.72)
    assert top.beyond_label.value == pytest.approx(0.14)
    assert top.beyond_label.low is not None
    assert top.beyond_label.low == pytest.approx(0.14 - 0.02 * 2**0.5 / 3**0.5)
    assert top.change == "costs more than the label"
    assert cost(costs, "non_private", "labels5").change == "not shown to cost more than the label"
    assert cost(costs, "non_private", "label_only").change == "is the label"


def test_no_private_row_chooses_its_own_attack():
    """LiRA has the larger figure there, and the attack is the one that is strongest without privacy."""
    top = cost(guard_costs(runs()), "dp", "top5")
    assert top.attack == "membership.answers"
    assert top.value.value == pytest.approx(0.51)
    assert top.change == "not shown to cost more than the label"


def test_without_a_guard_who_sees_scores_and_who_holds_the_model_are_two():
    costs = guard_costs(runs())
    assert cost(costs, "non_private", "", BY_SCORES).attack == "membership.lira"
    assert cost(costs, "non_private", "", BY_MODEL).attack == "membership.gradient_norm"


def test_without_the_label_there_is_nothing_to_compare_with():
    given = tuple(
        dataclasses.replace(item, guarded=tuple(g for g in item.guarded if g.guard != "label_only")) for item in runs()
    )
    top = cost(guard_costs(given), "non_private", "top5")
    assert top.value.value == pytest.approx(0.72)
    assert top.beyond_label.value is None
    assert "label_only" in top.beyond_label.note
    assert top.change == "not compared"
    assert guards.answer(comparison(given)) == []


def test_without_guards_there_are_no_costs_and_no_section(tmp_path: Path):
    given = tuple(dataclasses.replace(item, guarded=()) for item in runs())
    assert guard_costs(given) == ()
    assert guards.TITLE not in html.render(comparison(given), tmp_path)
    assert guards.TITLE not in terminal.render(comparison(given))


def drawn(guard: str, access: str, **recognised: tuple[bool, ...]) -> GuardedResult:
    attacks = tuple(
        AttackResult(
            name=f"inversion.{name}",
            status="ok",
            metric="identified_top1",
            value=sum(right) / len(right),
            low=max(0.0, sum(right) / len(right) - 0.25),
            high=min(1.0, sum(right) / len(right) + 0.25),
            chance=0.05,
            access="scores",
            recognised=right,
        )
        for name, right in recognised.items()
    )
    return GuardedResult(guard=guard, access=access, attacks=attacks)


def test_inversions_are_held_against_each_other_class_by_class():
    """Whoever recognises the same twelve classes and five more is shown to get more; as independent shares it would not be."""
    few, more = (True,) * 12 + (False,) * 8, (True,) * 18 + (False,) * 2
    (first, *_) = runs()
    through = (drawn("label_only", "label", labels=few), drawn("top5", "top-5 with scores", scores=more))
    top = cost(guard_costs((dataclasses.replace(first, guarded=through, attacks=()),)), "non_private", "top5")
    assert top.beyond_label.value == pytest.approx(0.3)
    assert top.change == "costs more than the label"
    unsaid = [tuple(dataclasses.replace(found, recognised=()) for found in item.attacks) for item in through]
    nobody_says = tuple(dataclasses.replace(item, attacks=found) for item, found in zip(through, unsaid, strict=True))
    top = cost(guard_costs((dataclasses.replace(first, guarded=nobody_says, attacks=()),)), "non_private", "top5")
    assert top.change == "not shown to cost more than the label"


def test_the_answer_says_what_rounding_takes_from_estimated_gradients_and_from_the_search():
    (first, *_) = runs()
    most, few = (True,) * 18 + (False,) * 2, (True,) + (False,) * 19
    bare = drawn("", "", estimated_gradient=most).attacks
    through = (drawn("label_only", "label", labels=few), drawn("rounded", "scores", estimated_gradient=few, scores=most))
    said = guards.answer(comparison((dataclasses.replace(first, attacks=bare, guarded=through),)))
    assert said[-1] == (
        "Rounding (rounded; non-private) leaves inversion by estimated gradients 0.050 [0.000, 0.300] of the classes, of 0.900 "
        "[0.650, 1.000] without it, the differences being taken over as wide a distance as what is shown asks for; the search "
        "without gradients gets 0.900 [0.650, 1.000] through the same guard."
    )


SCORED = {"top5": {"membership.lira": 0.70}, "label_only": {"membership.lira": 0.50, "membership.answers": 0.58}}


def test_whoever_sees_more_has_what_the_label_gives_away():
    """An attack adapted to labels gets more from them than any other from scores; who sees scores has their labels too."""
    bare, weak = {"membership.lira": 0.55}, {"membership.lira": 0.52, "membership.answers": 0.57}
    label = {"membership.lira": 0.5, "membership.answers": 0.68}
    costs = guard_costs([run("non_private", math.inf, seed, bare, {"top5": weak, "label_only": label}) for seed in range(3)])
    for guard in ("", "top5"):
        found = cost(costs, "non_private", guard)
        assert (found.attack, found.behind) == ("membership.answers", "label_only")
        assert found.value.value == pytest.approx(0.68)
        assert found.change == "not shown to cost more than the label"


def test_less_than_the_label_is_said_of_guards_alone_that_do_not_give_it_away():
    """The attack is chosen elsewhere, and gets less on this row; the label is shown all the same."""
    given = [run("non_private", math.inf, seed, BARE, LEAKING) for seed in range(3)]
    label = {"membership.answers": 0.60}
    given += [run("dp", 1.0, seed, NOTHING, {"top5": {"membership.answers": 0.51}, "label_only": label}) for seed in range(3)]
    found = cost(guard_costs(given), "dp", "top5")
    assert found.beyond_label.high is not None
    assert found.beyond_label.high < 0
    assert found.change == "not shown to cost more than the label"
    noisy = [
        dataclasses.replace(
            item, guarded=tuple(dataclasses.replace(g, guard=g.guard.replace("top5", "noisy_max8")) for g in item.guarded)
        )
        for item in given
    ]
    assert cost(guard_costs(noisy), "dp", "noisy_max8").change == "costs less than the label"


def released_behind_the_label(bare: Figures, through: dict[str, Figures]) -> list[RunResult]:
    given = [run("non_private", math.inf, seed, bare, through) for seed in range(3)]
    return [dataclasses.replace(item, release_guard="label_only") for item in given]


def test_whoever_holds_the_weights_is_not_the_label_where_the_release_shows_labels():
    costs = guard_costs(released_behind_the_label({"membership.lira": 0.5, "membership.gradient_norm": 0.76}, SCORED))
    found = cost(costs, "non_private", "label_only", BY_MODEL)
    assert found.change == "costs more than the label"
    assert found.attack == "membership.gradient_norm"


def test_a_guard_of_the_release_keeps_the_attacks_that_adapted_to_it():
    costs = guard_costs(released_behind_the_label({"membership.lira": 0.50}, SCORED))
    found = cost(costs, "non_private", "label_only")
    assert (found.attack, found.access, found.change) == ("membership.answers", "label", "is the label")
    top = cost(costs, "non_private", "top5")
    assert top.beyond_label.value == pytest.approx(0.70 - 0.58)


def test_an_attack_that_ran_on_one_lucky_seed_is_not_the_strongest():
    lucky = {"membership.lira": 0.70, "membership.answers": 0.72}
    given = [
        run(
            "non_private", math.inf, seed, BARE, {"top5": SCORED["top5"] if seed else lucky, "label_only": SCORED["label_only"]}
        )
        for seed in range(3)
    ]
    found = cost(guard_costs(given), "non_private", "top5")
    assert (found.attack, found.seeds) == ("membership.lira", (0, 1, 2))


def of_another_metric(name: str, value: float, metric: str, access: str) -> AttackResult:
    return dataclasses.replace(attack(f"inversion.{name}", value, access), metric=metric)


def test_figures_of_unlike_metrics_are_not_subtracted():
    (first, *_) = runs()
    label = GuardedResult(
        guard="label_only", access="label", attacks=(of_another_metric("labels", 0.2, "identified_top1", "label"),)
    )
    informed = of_another_metric("informed", 0.9, "named", "weights")
    prior = of_another_metric("prior", 0.6, "identified_top1", "gradients")
    both = dataclasses.replace(first, attacks=(informed, prior), guarded=(label,))
    found = cost(guard_costs([both]), "non_private", "", BY_MODEL)
    assert (found.attack, found.beyond_label.value) == ("inversion.prior", pytest.approx(0.4))
    (found,) = [item for item in guard_costs([dataclasses.replace(both, attacks=(informed,))]) if item.access == BY_MODEL]
    assert (found.attack, found.behind) == ("inversion.labels", "label_only")
    elsewhere = dataclasses.replace(label, guard="memguard0.5", access="scores", attacks=(informed,))
    (found,) = [
        item for item in guard_costs([dataclasses.replace(both, guarded=(label, elsewhere))]) if item.guard == "memguard0.5"
    ]
    assert (found.attack, found.behind) == ("inversion.labels", "label_only")


def test_the_report_says_whether_any_membership_attack_knew_of_the_guards():
    assert guards.SHADOWED in guards.about(comparison(runs()))
    unaware = [run("non_private", math.inf, 0, {"membership.lira": 0.7}, {"top5": {"membership.threshold": 0.6}})]
    said = guards.about(comparison(tuple(unaware)))
    assert guards.NOT_SHADOWED in said
    assert "hadow models stood" not in said
    (first, *_) = runs()
    drawn_only = dataclasses.replace(first, guarded=(drawn("top5", "top-5 with scores", scores=(True,) * 20),))
    assert "hadow" not in guards.about(comparison((drawn_only,)))


def test_a_guard_that_failed_on_one_seed_counts_on_the_others():
    first, *others = runs()
    broken = GuardedResult(
        guard="top5",
        reason="broke",
        attacks=(AttackResult(name="membership.answers", status="failed", reason="broke"),),
    )
    given = (dataclasses.replace(first, guarded=(broken, *first.guarded[1:])), *others)
    assert cost(guard_costs(given), "non_private", "top5").seeds == (1, 2)
    assert any("broke" in sentence for sentence in guards.failures(comparison(given)))


def test_the_answer_says_what_scores_cost_beyond_the_label_and_where_that_is_not_shown():
    (sentence,) = guards.answer(comparison(runs()))
    assert sentence == (
        "Showing top-5 with scores (top5) instead of the label alone gives 0.140 [0.124, 0.156] (non-private) of AUC to the "
        "strongest membership attack; not shown for DP, ε = 1."
    )


def test_every_view_shows_the_same_table(tmp_path: Path):
    result = comparison(runs())
    (table,) = guards.tables(result)
    assert [row.guard for row in table.rows] == ["no guard", "no guard", "top5", "labels5", "label_only"]
    page, text = html.render(result, tmp_path), terminal.render(result, width=120)
    for shown in (page, text):
        assert guards.TITLE in shown
        assert "0.720 [0.708, 0.732]" in shown
        assert "not shown: " in shown
    assert "top5 is made up." in page


def test_a_comparison_with_guards_comes_back_from_its_file(tmp_path: Path):
    result = comparison(runs())
    write(result, tmp_path / "results.json")
    assert read_comparison(tmp_path / "results.json") == result
