"""One schema: what is written comes back, and a half-written or foreign file is never read."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from dptrain.errors import CheckpointError
from evaluation.result import (
    AttackResult,
    ComparisonResult,
    Curve,
    Measure,
    RunResult,
    Verdict,
    read_comparison,
    read_run,
    to_json,
    write,
)
from evaluation.summary import summarize, with_twins


def attack(auc: float, **changes) -> AttackResult:
    base = AttackResult(
        name="membership.lira", status="ok", metric="auc", value=auc, low=auc - 0.03, high=auc + 0.03, chance=0.5,
        verdict="leak" if auc > 0.53 else "found nothing", reason="" if auc > 0.53 else "the interval contains 0.5",
        metrics=(Measure(name="tpr_at_fpr_0.01", value=0.02, low=0.01, high=0.03),),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def run(variant: str, epsilon: float, seed: int, *attacks: AttackResult) -> RunResult:
    label = f"eps={epsilon:05.2f}" if variant == "dp" else variant
    return RunResult(
        label=f"{label}/seed={seed}", variant=variant, epsilon=epsilon, delta=1e-4 if variant == "dp" else None, seed=seed,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        step=60, steps=60, utility={"test_accuracy": 0.9 + 0.01 * seed, "test_accuracy_low": 0.88, "test_accuracy_high": 0.94},
        attacks=attacks,
    )  # fmt: skip


def comparison(*runs: RunResult) -> ComparisonResult:
    return ComparisonResult(
        name="test", title="A test", runs=runs, summary=summarize(runs), command="dptrain run test", data={"classes": ["a"]},
        recipe={}, versions={}, not_covered=("everything",),
    )  # fmt: skip


RUNS = (
    run("dp", 8.0, 0, attack(0.56, permitted=0.9, permitted_metrics={"tpr_at_fpr_0.01": 0.3}, verdict="within the plan")),
    run("dp", 8.0, 1, attack(0.57, permitted=0.9, permitted_metrics={"tpr_at_fpr_0.01": 0.3}, verdict="within the plan")),
    run("non_private", math.inf, 0, attack(0.60)),
    run("non_private", math.inf, 1, attack(0.61)),
    run("clip_only", math.inf, 0, attack(0.51)),
)


def test_what_is_written_comes_back(tmp_path: Path):
    result = comparison(*RUNS)
    write(result, tmp_path / "results.json")
    assert read_comparison(tmp_path / "results.json") == result
    write(RUNS[2], tmp_path / "result.json")
    again = read_run(tmp_path / "result.json")
    assert again == RUNS[2]
    assert math.isinf(again.epsilon)


def test_a_permitted_curve_comes_back_and_an_older_result_has_none(tmp_path: Path):
    bound = Curve(false_positive_rate=(0.0, 1.0), true_positive_rate=(0.1, 1.0))
    made = run("dp", 8.0, 0, attack(0.56, permitted_curve=bound))
    write(made, tmp_path / "result.json")
    assert read_run(tmp_path / "result.json").attacks[0].permitted_curve == bound
    plain = json.loads(to_json(made))
    del plain["attacks"][0]["permitted_curve"]
    (tmp_path / "older.json").write_text(json.dumps(plain))
    assert read_run(tmp_path / "older.json").attacks[0].permitted_curve is None


def test_infinity_is_a_text_since_json_has_none():
    assert '"epsilon": "inf"' in to_json(RUNS[2])


@pytest.mark.parametrize("text", ["", '{"schema": "dptrain.result/1", "runs": [', "[]", '{"schema": "other"}', "\x00"])
def test_what_is_not_a_result_is_refused_by_its_name(tmp_path: Path, text: str):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"results\.json"):
        read_comparison(path)


def test_an_unknown_key_is_refused(tmp_path: Path):
    path = tmp_path / "result.json"
    path.write_text(to_json(RUNS[0]).replace('"label"', '"lable"', 1))
    with pytest.raises(CheckpointError, match="lable"):
        read_run(path)


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ('"verdict": "within the plan"', '"verdict": "withing the plan"', "verdict of membership.lira = 'withing the plan'"),
        ('"status": "ok"', '"status": "OK"', "accepted: ok, failed, not_applicable"),
        ('"variant": "dp"', '"variant": "private"', "clip_only"),
        ('"high": 0.03', '"high": NaN', "it holds NaN"),
        ('"high": 0.03', '"high": -Infinity', "it holds -Infinity"),
        ('"high": 0.03', '"high": "0.03"', "high of tpr_at_fpr_0.01 = '0.03'; accepted: a number"),
        ('"seed": 0', '"seed": true', "accepted: a whole number"),
        ('"test_accuracy_low": 0.88', '"test_accuracy_low": [0.88]', "accepted: a number"),
        ('"permitted_metrics": {', '"chance_metrics": [], "permitted_metrics": {', "accepted: an object"),
    ],
)
def test_a_value_that_its_field_may_not_hold_is_refused(written: str, instead: str, said: str, tmp_path: Path):
    path, text = tmp_path / "result.json", to_json(RUNS[0])
    text = text.replace('"chance_metrics": {},', "")
    assert written in text
    path.write_text(text.replace(written, instead, 1))
    with pytest.raises(CheckpointError, match=r"result\.json") as refused:
        read_run(path)
    assert said in str(refused.value)


def test_whole_numbers_and_infinity_are_numbers(tmp_path: Path):
    plain = json.loads(to_json(RUNS[0]))
    plain["attacks"][0].update(value=1, permitted_metrics={"exposure": "inf"})
    (tmp_path / "result.json").write_text(json.dumps(plain))
    assert read_run(tmp_path / "result.json").attacks[0].value == 1


def test_a_missing_result_says_what_to_type(tmp_path: Path):
    with pytest.raises(CheckpointError, match="dptrain evaluate"):
        read_run(tmp_path / "gone.json")


def test_the_twin_is_the_positive_control_of_its_seed():
    """Rule 3."""
    runs = with_twins(RUNS)
    controls = {item.label: {c.name: c.value for c in item.attacks[0].controls} for item in runs}
    assert controls["eps=08.00/seed=0"] == {"non_private_twin": 0.60}
    assert controls["eps=08.00/seed=1"] == {"non_private_twin": 0.61}
    assert controls["non_private/seed=0"] == {}
    assert with_twins(runs) == runs


def test_nothing_found_on_the_twin_either_is_said():
    """Rule 3: a figure near chance without a working control shows little."""
    runs = with_twins((run("dp", 1.0, 0, attack(0.50)), run("non_private", math.inf, 0, attack(0.51))))
    assert "shows little" in runs[0].attacks[0].reason


def test_the_order_is_non_private_first_and_budgets_from_large_to_small():
    extra = run("dp", 1.0, 0, attack(0.5))
    kinds = [(item.variant, item.epsilon) for item in summarize((extra, *RUNS))]
    assert kinds == [("non_private", math.inf), ("clip_only", math.inf), ("dp", 8.0), ("dp", 1.0)]


def test_seeds_are_averaged_and_verdicts_are_of_the_mean():
    found = {(item.variant, item.epsilon): item for item in summarize(RUNS)}
    private = found["dp", 8.0]
    assert private.utility.value == pytest.approx(0.905)
    assert private.measures[0].name == "membership.lira/auc"
    assert private.measures[0].value == pytest.approx(0.565)
    assert private.permitted == {"membership.lira/auc": 0.9, "membership.lira/tpr_at_fpr_0.01": 0.3}
    assert private.verdicts == {"membership.lira": "within the plan"}
    assert found["non_private", math.inf].verdicts == {"membership.lira": "leak"}
    assert found["clip_only", math.inf].verdicts == {"membership.lira": "found nothing"}


def test_seeds_share_their_people_and_test_examples_and_not_who_is_a_member():
    """Three seeds with one figure: of members, dealt anew by coins, they know more than one; of the same twenty people not."""
    drawn = attack(0.5, name="inversion.class", metric="identified_top1", value=0.5, low=0.3, high=0.7, chance=0.05)
    named = attack(0.6, name="inversion.informed", metric="named", value=0.6, low=0.59, high=0.61, chance=0.1)
    runs = tuple(run("non_private", math.inf, seed, attack(0.5, low=0.4, high=0.6), drawn, named) for seed in range(3))
    (summary,) = summarize(runs)
    found = {measure.name: measure for measure in summary.measures}
    assert found["membership.lira/auc"].high == pytest.approx(0.5 + 0.1 / 3**0.5)
    assert found["inversion.class/identified_top1"].high == pytest.approx(0.7)
    assert found["inversion.informed/named"].high == pytest.approx(0.61)


def test_distances_and_differences_may_leave_the_range_of_shares():
    far = Measure(name="distance_to_private_mean", value=3.0, low=2.0, high=4.0)
    less = Measure(name="distance_held_out_less_member", value=-2.0, low=-3.0, high=-1.0)
    wrong = Measure(name="error_of_mean_example", value=2.0, low=1.5, high=2.5)
    alike = Measure(name="ssim_of_mean_example", value=-0.1, low=-0.2, high=0.0)
    beside = Measure(name="public_mean/distance_to_private_mean", value=5.0, low=4.0, high=6.0)
    drawn = attack(0.5, name="inversion.class", metrics=(far, less, wrong, alike), likeness_without_model=(beside,))
    (summary,) = summarize(tuple(run("non_private", math.inf, seed, drawn) for seed in range(2)))
    found = {measure.name.partition("/")[2]: measure for measure in (*summary.measures, *summary.beside)}
    assert (found[far.name].value, found[far.name].high) == (3.0, 4.0)
    assert (found[less.name].value, found[less.name].low) == (-2.0, -3.0)
    assert (found[wrong.name].high, found[alike.name].low) == (2.5, -0.2)
    assert (found[beside.name].value, found[beside.name].high) == (5.0, 6.0)


def test_a_failure_is_never_averaged_away():
    """Rule 12."""
    failed = attack(0.5, status="failed", value=None, low=None, high=None, reason="it broke", verdict="none")
    (summary,) = summarize((run("dp", 8.0, 0, attack(0.56)), run("dp", 8.0, 1, failed)))
    assert summary.verdicts == {"membership.lira": "1 of 2 failed"}
    assert summary.measures[0].value == pytest.approx(0.56)
    (alone,) = summarize((run("dp", 8.0, 0, failed),))
    assert alone.measures == ()
    assert alone.verdicts == {"membership.lira": "1 of 1 failed"}


def test_above_the_plan_on_one_seed_is_kept():
    broken = attack(0.99, permitted=0.9, verdict="above the plan")
    (summary,) = summarize((run("dp", 8.0, 0, broken), RUNS[1]))
    assert summary.verdicts["membership.lira"] == "above the plan (1 of 2 seeds)"


def test_a_seed_with_nothing_beyond_imputation_hides_no_leak_of_the_mean():
    def inferred(gap: float, verdict: Verdict) -> AttackResult:
        def measure(name: str, value: float) -> Measure:
            return Measure(name=name, value=value, low=value - 0.03, high=value + 0.03)

        return attack(
            0.7 + gap, name="attribute.map", metric="guessed", verdict=verdict, reason="",
            metrics=(measure("guessed_held_out", 0.7), measure("train_minus_held_out", gap)),
            baselines=(measure("imputation", 0.7),),
        )  # fmt: skip

    found = [inferred(0.1, "leak"), inferred(0.11, "leak"), inferred(0.09, "nothing beyond public")]
    (summary,) = summarize(tuple(run("non_private", math.inf, seed, one) for seed, one in enumerate(found)))
    assert summary.verdicts == {"attribute.map": "leak"}
