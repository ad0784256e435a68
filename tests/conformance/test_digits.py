"""`dptrain run digits`, all but its page and its pictures: the figures that the project promises for its first recipe."""

import math

import pytest

from evaluation.report import wording
from evaluation.result import ComparisonResult, Summary
from recipes import comparison, runs
from tests.conftest import leave_undrawn, take_same_keys

LEAST_ACCURACY = {math.inf: 0.955, 8.0: 0.91, 4.0: 0.90, 2.0: 0.885, 1.0: 0.86}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ComparisonResult:
    """With the same noise in each run: of dozens of controls one in 1,000 withholds its attack's verdict by chance."""
    output = tmp_path_factory.mktemp("digits") / "run"
    whole = comparison.load("digits", ["--output", str(output)])
    with pytest.MonkeyPatch.context() as patch:
        take_same_keys(patch)
        leave_undrawn(patch)
        result = runs.run(whole, "digits", "dptrain run digits", progress=False)
    assert result is not None
    return result


def auc(summary: Summary, attack: str) -> float:
    measure = wording.find(summary, f"{attack}/auc")
    assert measure is not None
    assert measure.value is not None
    return measure.value


@pytest.mark.slow
def test_digits_keeps_its_accuracy_at_every_budget(digits: ComparisonResult):
    found = {item.epsilon: item.utility.value for item in digits.summary if item.variant in ("dp", "non_private")}
    assert set(found) == set(LEAST_ACCURACY)
    for epsilon, least in LEAST_ACCURACY.items():
        assert (found[epsilon] or 0.0) >= least, epsilon
    assert all(len(item.seeds) == 3 for item in digits.summary)


@pytest.mark.slow
def test_lira_shows_the_leak_that_the_loss_threshold_does_not(digits: ComparisonResult):
    non_private = next(item for item in digits.summary if item.variant == "non_private")
    assert auc(non_private, "membership.lira") >= 0.57
    assert auc(non_private, "membership.threshold") <= 0.54
    assert non_private.verdicts["membership.lira"] == "leak"


@pytest.mark.slow
def test_no_attack_passes_what_its_plan_permits(digits: ComparisonResult):
    """Rule 15, on the mean over three targets."""
    private = [item for item in digits.summary if item.variant == "dp"]
    assert len(private) == 4
    for item in private:
        for attack in ("membership.lira", "membership.rmia", "membership.threshold"):
            assert auc(item, attack) <= item.permitted[f"{attack}/auc"]
            assert item.verdicts[attack] in ("found nothing", "within the plan")


@pytest.mark.slow
def test_nothing_failed(digits: ComparisonResult):
    assert digits.failures == ()
    assert {attack.status for run in digits.runs for attack in run.attacks} == {"ok"}
    assert len(digits.runs) == 21
