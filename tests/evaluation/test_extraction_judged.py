"""Secrets that a model knows are a leak, those that it never saw are chance, and a broken control withholds the verdict."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.data.alphabet import LABELS, encode
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.data.text import load_text
from dptrain.models.lstm import CharacterLSTM
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, Recipe, SecretsConfig, SplitConfig
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.equal_loss import Stopped
from evaluation.extraction import bound
from evaluation.extraction.attacks import ExposureAttack, GenerationAttack
from evaluation.extraction.exposure import without_insertion
from evaluation.membership import NotApplicable
from evaluation.plan import EvaluationPlan
from evaluation.result import AttackResult, Measure
from evaluation.runner import run_attack
from evaluation.secrets import SHOWN, secrets
from evaluation.summary import in_bits
from evaluation.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:delta is")
SHARES = SplitConfig(members=0.8, non_members=0.2, population=0.0, public=0.0)
PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=50, steps=10, clipping_norm=1.0, delta=1e-4, noise_multiplier=20.0)
EXPOSURE, GENERATION = ExposureAttack(candidates=200), GenerationAttack()


BOTH = (("extraction.exposure", EXPOSURE), ("extraction.generation", GENERATION))


class CountedTarget(Target):
    """Counts how often somebody takes a place before it."""

    asked = 0

    def behind(self, access: Access) -> Target:
        self.asked += 1
        return super().behind(access)


class Knows(nn.Module):
    """Says the secret that stands behind its words, with this certainty, and anything else elsewhere.

    Characters are judged by what stands in front: the model is a table from the sequence so far to the next character.
    """

    def __init__(self, known: list[tuple[str, str]], certainty: float):
        super().__init__()
        self.certainty = certainty
        self.next = {
            tuple(encode(before + secret[:place]).tolist()): int(encode(secret[place]))
            for before, secret in known
            for place in range(len(secret))
        }

    def forward(self, tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, len(LABELS))
        for row, sequence in enumerate(tokens.tolist()):
            following = self.next.get(tuple(sequence[1:]))
            if following is not None:
                logits[row, -1, following] = self.certainty
        return logits


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = tmp_path_factory.mktemp("text") / "own.txt"
    path.write_text("It was the best of times, it was the worst of times.\n" * 60)
    return load_text(
        DataConfig(name="text", path=str(path), secrets=SecretsConfig(each=6, insertions=(1, 3), formats=("pin",)))
    )


@pytest.fixture(scope="module")
def split(data: DataSet) -> Split:
    return split_of(data, SHARES, 0)


def behind(model: nn.Module) -> Target:
    return Target(model, Access.WEIGHTS, bounds=(0.0, 97.0), classes=len(LABELS), kind="language")


def ignorant() -> CharacterLSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = CharacterLSTM(len(LABELS), 8)
    with torch.no_grad():
        model.head.weight.mul_(3.0)
    return model


def case_of(data: DataSet, split: Split, model: nn.Module, plan: PrivacyPlan | None = None) -> Case:
    return Case(behind(model), behind(ignorant()), data, split, plan, EvaluationPlan(attacks=()), 0)


def known(data: DataSet, split: Split, *, inserted: bool) -> list[tuple[str, str]]:
    assert data.planted is not None
    members = set(split.members.tolist())
    return [(one.before, one.secret) for one in data.planted if (set(one.examples) <= members) == inserted]


def named(found: AttackResult, name: str) -> Measure:
    return next(item for item in (*found.metrics, *found.controls) if item.name == name)


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch):
    """PINs of three digits in place of six: a table answers no million questions."""
    from dptrain.data import secrets as planted

    short = ("0123456789",) * 3
    pattern = dataclasses.replace(planted.PATTERNS["pin"], places=short, draw=planted._each(short))
    monkeypatch.setitem(planted.PATTERNS, "pin", pattern)


@pytest.fixture
def short(few_candidates: None, tmp_path: Path) -> tuple[DataSet, Split]:
    path = tmp_path / "own.txt"
    path.write_text("It was the best of times, it was the worst of times.\n" * 60)
    own = load_text(DataConfig(name="text", path=str(path), secrets=SecretsConfig(each=6, insertions=(1, 3))))
    return own, split_of(own, SHARES, 0)


def test_secrets_that_a_model_knows_are_a_leak_with_all_bits(short: tuple[DataSet, Split]):
    data, split = short
    case = case_of(data, split, Knows(known(data, split, inserted=True), 9.0))
    found = secrets(case, "extraction.exposure", EXPOSURE)
    assert (found.metric, found.verdict) == ("exposure", "leak")
    assert found.value == pytest.approx(np.log2(1000))
    assert found.chance == pytest.approx(without_insertion(1000))
    assert named(found, "ranked_first").value == 1.0
    assert named(found, "exposure_inserted_1").value == pytest.approx(np.log2(1000))
    assert named(found, "exposure_never_inserted").value == 0.0  # every other candidate ties, and counts as ahead
    assert named(found, "exposure_sampled").value == pytest.approx(np.log2(201), abs=0.5)


def test_what_a_model_knows_is_said_and_controls_are_not(short: tuple[DataSet, Split]):
    data, split = short
    case = case_of(data, split, Knows(known(data, split, inserted=True), 9.0))
    found = secrets(case, "extraction.generation", GENERATION)
    assert (found.value, found.verdict) == (1.0, "leak")
    for name in ("recovered_greedy", "recovered_beam", "recovered_sampled", "nearly_greedy"):
        assert named(found, name).value == 1.0, name
    assert named(found, "never_inserted").value == 0.0
    assert named(found, "untrained").value == 0.0
    assert {text.said == text.secret for text in found.texts if text.inserted} == {True}
    assert {text.guess == text.secret for text in found.texts if not text.inserted} == {False}
    assert len(found.texts) == 2 * 2 * SHOWN


def test_a_model_that_knows_nothing_is_at_chance(short: tuple[DataSet, Split]):
    data, split = short
    case = case_of(data, split, ignorant())
    found = secrets(case, "extraction.exposure", EXPOSURE)
    assert found.verdict == "found nothing"
    assert found.low is not None
    assert found.low <= 1.44
    control = named(found, "never_inserted")
    assert control.low is not None
    assert control.high is not None
    assert control.low <= 1.44 <= control.high
    assert secrets(case, "extraction.generation", GENERATION).verdict == "found nothing"


def test_a_model_that_knows_the_controls_proves_nothing(short: tuple[DataSet, Split]):
    data, split = short
    every = known(data, split, inserted=True) + known(data, split, inserted=False)
    case = case_of(data, split, Knows(every, 9.0))
    for name, attack in (("extraction.exposure", EXPOSURE), ("extraction.generation", GENERATION)):
        assert secrets(case, name, attack).verdict == "withheld"


def test_a_model_without_any_preference_gives_no_signal(short: tuple[DataSet, Split]):
    data, split = short
    assert secrets(case_of(data, split, Knows([], 1.0)), "extraction.exposure", EXPOSURE).verdict == "no signal"


def test_a_plan_bounds_each_number_of_insertions_and_a_model_that_knows_all_breaks_it(short: tuple[DataSet, Split]):
    data, split = short
    case = case_of(data, split, Knows(known(data, split, inserted=True), 9.0), PLAN)
    case = dataclasses.replace(case, untrained=None)
    found = secrets(case, "extraction.generation", GENERATION)
    assert found.permitted == pytest.approx(bound.permitted_recovery(PLAN, 3, 1000))
    permitted = found.permitted_metrics
    assert permitted["recovered_inserted_1"] < permitted["recovered_greedy"] < permitted["recovered_sampled"]
    assert found.verdict == "above the plan"


def test_exposure_above_the_plan_is_said(short: tuple[DataSet, Split]):
    data, split = short
    case = case_of(data, split, Knows(known(data, split, inserted=True), 9.0), PLAN)
    found = secrets(case, "extraction.exposure", EXPOSURE)
    assert found.permitted == pytest.approx(bound.permitted_exposure(PLAN, 3, 1000))
    assert found.permitted_metrics == {"exposure_inserted_1": pytest.approx(bound.permitted_exposure(PLAN, 1, 1000))}
    assert found.verdict == "above the plan"
    loose = dataclasses.replace(PLAN, noise_multiplier=1.0)
    again = secrets(dataclasses.replace(case, plan=loose), "extraction.exposure", EXPOSURE)
    assert again.verdict == "within the plan"


@pytest.mark.parametrize("name", ["untrained", "public_only"])
def test_a_model_that_cannot_know_the_secrets_and_does_proves_nothing(short: tuple[DataSet, Split], name: str):
    data, split = short
    knows = Knows(known(data, split, inserted=True), 9.0)
    case = dataclasses.replace(case_of(data, split, knows), reference=behind(ignorant()))
    for attack, run in (("extraction.exposure", EXPOSURE), ("extraction.generation", GENERATION)):
        assert secrets(case, attack, run).verdict == "leak"
        of_it = {"untrained": "untrained", "public_only": "reference"}[name]
        broken = secrets(dataclasses.replace(case, **{of_it: behind(knows)}), attack, run)
        assert broken.verdict == "withheld"
        assert {"untrained": "fresh weights", "public_only": "public text alone"}[
            name
        ] in broken.reason or name in broken.reason


def test_what_has_seen_public_text_alone_ranks_inserted_secrets_by_chance(short: tuple[DataSet, Split]):
    data, split = short
    case = dataclasses.replace(case_of(data, split, ignorant()), reference=behind(ignorant()))
    control = named(secrets(case, "extraction.exposure", EXPOSURE), "public_only")
    assert control.low is not None
    assert control.high is not None
    assert control.low <= 1.44 <= control.high
    assert named(secrets(case, "extraction.generation", GENERATION), "public_only").value == 0.0
    bare = secrets(dataclasses.replace(case, reference=None), "extraction.exposure", EXPOSURE)
    assert "public_only" not in {item.name for item in bare.controls}


def test_what_cannot_know_the_secrets_is_asked_once_a_recipe(short: tuple[DataSet, Split]):
    """The same weights at another budget say the same; other weights, and models of no known recipe, are asked again."""
    data, split = short
    for recipe, often in ((Recipe(data=DataConfig(name="text")), 0), (None, 1)):
        fresh = CountedTarget(ignorant(), Access.WEIGHTS, bounds=(0.0, 97.0), classes=len(LABELS), kind="language")
        case = dataclasses.replace(case_of(data, split, ignorant()), recipe=recipe, untrained=fresh)
        found = []
        for again in (0, 1):
            before = fresh.asked
            found.append([named(secrets(case, name, attack), "untrained").value for name, attack in BOTH])
            assert (fresh.asked > before) == (not again or bool(often))
        assert found[0] == found[1]
        other = CountedTarget(CharacterLSTM(len(LABELS), 8), Access.WEIGHTS, bounds=(0.0, 97.0), classes=98, kind="language")
        secrets(dataclasses.replace(case, untrained=other), *BOTH[0])
        assert other.asked


def test_the_twin_at_an_equal_loss_stands_beside_with_its_loss(short: tuple[DataSet, Split], monkeypatch: pytest.MonkeyPatch):
    """It may know the secrets: it is what noise is held against, and withholds nothing."""
    data, split = short
    twin = Stopped(behind(Knows(known(data, split, inserted=True), 9.0)), 7, 160, 2.5, 2.49)
    monkeypatch.setattr("evaluation.secrets.stopped_twin", lambda case: twin if case.is_private else None)
    loose = dataclasses.replace(PLAN, noise_multiplier=1.0)
    found = secrets(case_of(data, split, ignorant(), loose), "extraction.exposure", EXPOSURE)
    control = named(found, "equal_loss")
    assert control.value == pytest.approx(np.log2(1000))
    assert "after 7 of 160 updates: 2.500 bits a character, here 2.490" in control.note
    assert control.note in found.reason
    assert found.verdict == "found nothing"
    plain = secrets(case_of(data, split, ignorant()), "extraction.exposure", EXPOSURE)
    assert "equal_loss" not in {item.name for item in plain.controls}


def test_all_repetitions_of_one_made_up_user_are_held_against_the_bound_of_one_unit(short: tuple[DataSet, Split]):
    data, split = short
    assert data.planted is not None
    users = torch.arange(len(data)) + 1000
    for number, secret in enumerate(data.planted):
        users[list(secret.examples)] = number
    plan = dataclasses.replace(PLAN, unit="user", max_examples_per_unit=4)
    owned = dataclasses.replace(data, users=users)
    case = case_of(owned, split, Knows(known(data, split, inserted=True), 9.0), plan)
    one = bound.permitted_exposure(PLAN, 1, 1000)
    found = secrets(case, "extraction.exposure", EXPOSURE)
    assert found.permitted == pytest.approx(one)
    assert found.permitted_metrics == {"exposure_inserted_1": pytest.approx(one)}
    assert secrets(case, "extraction.generation", GENERATION).permitted == bound.permitted_recovery(PLAN, 1, 1000)
    unknown = secrets(dataclasses.replace(case, data=data), "extraction.exposure", EXPOSURE)
    assert unknown.permitted == pytest.approx(bound.permitted_exposure(PLAN, 3, 1000))


def test_what_is_no_text_with_secrets_is_not_applicable(data: DataSet, split: Split):
    case = case_of(data, split, ignorant())
    bare = dataclasses.replace(data, planted=None)
    with pytest.raises(NotApplicable, match="no made-up secrets"):
        secrets(dataclasses.replace(case, data=bare), "extraction.exposure", EXPOSURE)
    classifier = Target(nn.Linear(2, 2), Access.WEIGHTS, bounds=(0.0, 1.0), classes=2)
    with pytest.raises(NotApplicable, match="no language model"):
        secrets(dataclasses.replace(case, target=classifier), "extraction.exposure", EXPOSURE)
    nobody = split_of(data, SplitConfig(members=0.5, non_members=0.5, population=0.0, public=0.0), 0)
    everyone = dataclasses.replace(nobody, members=np.arange(len(data)), non_members=np.empty(0, dtype=np.int64))
    with pytest.raises(NotApplicable, match="both kinds are needed"):
        secrets(dataclasses.replace(case, split=everyone), "extraction.exposure", EXPOSURE)


def test_the_runner_dispatches_the_family(data: DataSet, split: Split):
    case = dataclasses.replace(case_of(data, split, ignorant()), data=dataclasses.replace(data, planted=None))
    found = run_attack(case, "extraction.exposure", lambda: None)
    assert (found.status, found.name) == ("not_applicable", "extraction.exposure")
    assert "--data.secrets.each" in found.reason


def test_bits_are_told_from_shares():
    assert in_bits("exposure")
    assert in_bits("median_exposure_inserted_4")
    assert not in_bits("recovered")
    assert not in_bits("auc")
