"""Language models on the bench: what they are worth, what attacks see of them, and attacks that are theirs alone."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dptrain.data import load
from dptrain.data.alphabet import LABELS, START, decode, encode
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw, split_of
from dptrain.data.text import sequences, shifted
from dptrain.errors import ConfigError
from dptrain.fleet import Fleet, draw_membership, train_fleet
from dptrain.models.lstm import CharacterLSTM
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainingConfig,
    PrivacyConfig,
    Recipe,
    SplitConfig,
    TrainingConfig,
)
from dptrain.trainer import Trainer, build_model
from evaluation import EvaluationPlan, evaluate
from evaluation.access import Access, AccessError
from evaluation.analysis import Case
from evaluation.baselines import blind_scores
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable, gallery
from evaluation.membership.calibrated import CalibratedLoss
from evaluation.membership.language import (
    NEIGHBOURS,
    MinK,
    MinKPlusPlus,
    Neighbourhood,
    Reference,
    Zlib,
    compressed,
    mean_of_lowest,
    neighbour,
)
from evaluation.membership.lira import Lira, OfflineLira
from evaluation.membership.rmia import OfflineRmia, Rmia
from evaluation.membership.signal import features, log_likelihood, outputs_of, residual_scale, signal
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import ScoreError, area_under_roc
from evaluation.plan import ATTACKS
from evaluation.runner import check_plan, run_attack
from evaluation.target import Target, kind_of
from evaluation.utility import utility, without_model

TOKENS = len(LABELS)
OWN = (Zlib(), Reference(), Neighbourhood(), MinK(), MinKPlusPlus())


class Fixed(nn.Module):
    """The same logits at every place, whatever stands before."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)


def target_of(model: nn.Module, access: Access = Access.SCORES) -> Target:
    return Target(model, access, bounds=(0.0, TOKENS - 1.0), classes=TOKENS, kind="language")


def text(*rows: str) -> DataSet:
    targets = torch.stack([encode(row) for row in rows])
    return DataSet("t", shifted(targets), targets, LABELS, (0.0, TOKENS - 1.0), kind="text")


def examples_of(data: DataSet) -> LabelledExamples:
    return LabelledExamples(data.inputs, data.targets, np.arange(len(data)))


def only(letter: str, probability: float) -> Tensor:
    """Logits of a model that expects this letter with this probability, and all others alike."""
    scores = torch.full((TOKENS,), (1 - probability) / (TOKENS - 1), dtype=torch.float64)
    scores[int(encode(letter))] = probability
    return scores.log()


# -- what it is worth -----------------------------------------------------------------------------------------------


def test_a_model_that_knows_nothing_needs_as_many_bits_as_the_alphabet_has():
    data = text("abcd", "wxyz")
    next_character, bits = utility(target_of(Fixed(torch.zeros(TOKENS))), data.inputs, data.targets, data)
    assert (bits.name, bits.value) == ("bits_per_character", pytest.approx(np.log2(TOKENS)))
    assert next_character.value == 0.0


def test_bits_and_right_characters_are_means_over_places_with_intervals_over_sequences():
    """Of eight places four hold an a, which is expected with probability ¾."""
    data = text("aaab", "abcd")
    found = {item.name: item for item in utility(target_of(Fixed(only("a", 0.75))), data.inputs, data.targets, data)}
    assert found["next_character"].value == 0.5
    other = np.log2((TOKENS - 1) / 0.25)
    assert found["bits_per_character"].value == pytest.approx((4 * -np.log2(0.75) + 4 * other) / 8, rel=1e-5)
    assert found["next_character"].low is not None
    assert found["next_character"].low < 0.25


def test_without_a_model_frequencies_say_the_most():
    data = text("aaab", "abaa")
    share, bits = without_model(data.targets, data)
    assert (share.name, share.value) == ("most_frequent_character", 0.75)
    seen = np.array([7.0, 3.0]) / (8 + TOKENS)
    assert bits.value == pytest.approx(-(6 * np.log2(seen[0]) + 2 * np.log2(seen[1])) / 8)


def test_a_language_model_that_was_lost_in_training_is_not_a_safe_one():
    data = text("abcd")
    with pytest.raises(ScoreError, match="hold NaN or infinity"):
        utility(target_of(Fixed(torch.full((TOKENS,), float("nan")))), data.inputs, data.targets, data)


# -- what an attacker sees ------------------------------------------------------------------------------------------


def lstm(seed: int = 0) -> CharacterLSTM:
    torch.manual_seed(seed)
    return CharacterLSTM(TOKENS, 12)


def test_log_likelihoods_are_those_of_the_softmax_at_each_place():
    data = text(*["In sooth I know not why I am so"] * 300)  # more than are answered at once
    model = lstm()
    target = target_of(model)
    found = target.log_likelihoods(data.inputs, data.targets)
    expected = F.log_softmax(model(data.inputs[:1]), -1).gather(-1, data.targets[:1, :, None])[..., 0]
    assert found.shape == (300, 31)
    np.testing.assert_allclose(found, expected.expand(300, -1).numpy(), rtol=1e-5)
    assert target.queries == 300


def test_the_surprise_is_that_of_a_token_that_the_model_draws():
    data = text("abab")
    mean, deviation = target_of(Fixed(only("a", 0.75))).surprise(data.inputs)
    logs = np.array([np.log(0.75), np.log(0.25 / (TOKENS - 1))])
    expected = 0.75 * logs[0] + 0.25 * logs[1]
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_allclose(deviation, np.sqrt(0.75 * 0.25) * abs(logs[0] - logs[1]), rtol=1e-6)
    flat = target_of(Fixed(torch.zeros(TOKENS))).surprise(data.inputs)
    np.testing.assert_allclose(flat[1], 0.0, atol=1e-12)


def test_who_sees_labels_alone_sees_no_likelihood():
    data = text("abab")
    for ask in (lambda t: t.log_likelihoods(data.inputs, data.targets), lambda t: t.surprise(data.inputs)):
        with pytest.raises(AccessError, match="asked for"):
            ask(target_of(Fixed(torch.zeros(TOKENS)), Access.LABEL))


def test_the_signal_of_a_sequence_is_its_mean_log_likelihood():
    logs = np.log([[0.5, 0.25, 0.5, 0.125]])
    targets = torch.zeros(1, 4, dtype=torch.long)
    assert kind_of(targets) == "language"
    assert signal(logs, targets) == pytest.approx(np.log(2) * -(1 + 2 + 1 + 3) / 4)
    assert log_likelihood(logs, targets) == pytest.approx(signal(logs, targets))
    assert residual_scale(logs, targets, np.array([True])) == 1.0
    assert features(logs, targets)[0, 1:] == pytest.approx(np.log([0.125, 0.25, 0.5]))


# -- attacks that know one signal an example ------------------------------------------------------------------------


class Numbered(nn.Module):
    """Answers the sequence whose first input is i with row i of a table: the log-probability of token 1 at each place."""

    def __init__(self, logs: Tensor):
        super().__init__()
        self.logs = nn.Parameter(logs)

    def forward(self, tokens: Tensor) -> Tensor:
        ones = self.logs[tokens[:, 0]]
        return torch.stack([torch.log(-torch.expm1(ones)), ones], -1)


def gaussian_world(gap: float, seed: int = 0) -> tuple[Target, LabelledExamples, Knowledge, np.ndarray]:
    """Six places of token 1; their mean log-probability is ease + gap · member + N(0, 1): the best AUC is Φ(gap/√2)."""
    generator = np.random.default_rng(seed)
    count, audited, models, length = 900, 600, 33, 6
    membership = draw_membership(models, count, 0.5, seed)
    membership[0, audited:] = False
    means = -12 + 2 * generator.normal(size=count) + gap * membership + generator.normal(size=membership.shape)
    each = generator.normal(size=(models, count, length)) * 0.1
    logs = np.minimum(means[..., None] + each - each.mean(-1, keepdims=True), -1e-3)
    targets = torch.ones(count, length, dtype=torch.long)
    inputs = torch.cat([torch.arange(count)[:, None], targets[:, :-1]], 1)
    parts = [LabelledExamples(inputs[i], targets[i], i) for i in (np.arange(audited), np.arange(audited, count))]
    target = Target(Numbered(torch.from_numpy(logs[0])), Access.SCORES, bounds=(0.0, 1e3), classes=2, kind="language")
    return target, parts[0], Knowledge(population=parts[1], fleet=Fleet(logs[1:], membership[1:], "d")), membership[0, :audited]


@pytest.mark.parametrize("attack", [CalibratedLoss(), Lira(), OfflineLira(), Rmia(), OfflineRmia()])
def test_attacks_with_shadow_models_find_what_can_be_found_in_a_language_model(attack: MembershipAttack):
    areas = []
    for seed in range(3):
        target, examples, knowledge, is_member = gaussian_world(1.5, seed)
        areas.append(area_under_roc(attack.run(target, examples, knowledge), is_member).value or 0.0)
    assert np.mean(areas) == pytest.approx(0.856, abs=0.03)


def test_a_threshold_finds_less_where_texts_differ_in_ease():
    target, examples, knowledge, is_member = gaussian_world(1.5)
    found = area_under_roc(LossThreshold().run(target, examples, knowledge), is_member).value
    assert found == pytest.approx(0.684, abs=0.05)


def test_nothing_is_found_where_nothing_is():
    target, examples, knowledge, is_member = gaussian_world(0.0)
    for attack in (LossThreshold(), Lira(), Rmia(), CalibratedLoss()):
        area = area_under_roc(attack.run(target, examples, knowledge), is_member)
        assert area.low is not None
        assert area.low < 0.5 < (area.high or 0.0)


OF_CLASSES = (
    "threshold_per_class", "confidence", "confidence_per_class", "entropy", "entropy_per_class", "modified_entropy",
    "modified_entropy_per_class", "bayesian", "boundary", "noise", "shift", "gradient_norm", "gradient_layers",
)  # fmt: skip


@pytest.mark.parametrize("name", OF_CLASSES)
def test_attacks_that_need_one_class_an_example_say_so(name: str):
    data = text("abcdef", "ghijkl")
    examples = examples_of(data)
    logits = np.zeros((2, 2, 6), dtype=np.float32)
    weights = {key: torch.stack([value] * 2).numpy() for key, value in lstm().state_dict().items()}
    fleet = Fleet(logits, np.eye(2, dtype=bool), "d", weights=weights, build=lstm)
    attack: MembershipAttack = ATTACKS[f"membership.{name}"]()
    with pytest.raises(NotApplicable, match="needs"):
        attack.run(target_of(lstm(), attack.access), examples, Knowledge(population=examples, fleet=fleet))


@pytest.mark.parametrize("attack", OWN)
def test_attacks_on_text_say_that_they_need_a_language_model(attack: MembershipAttack):
    target = Target(nn.Linear(3, 2), Access.SCORES, bounds=(0.0, 1.0), classes=2)
    examples = LabelledExamples(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), np.arange(4))
    with pytest.raises(NotApplicable, match="needs a language model"):
        attack.run(target, examples, Knowledge(reference=target))


# -- attacks on text: known answers ---------------------------------------------------------------------------------


def test_zlib_divides_by_the_bytes_of_the_compressed_text():
    data = text("a" * 64, "To be, or not to be, that is the question: Whether 'tis nobler i")
    sizes = compressed(data.targets, TOKENS)
    plain = [
        len(zlib.compress(row.encode(), 9))
        for row in ("a" * 64, "To be, or not to be, that is the question: Whether 'tis nobler i")
    ]
    assert sizes.tolist() == plain
    found = Zlib().run(target_of(Fixed(torch.zeros(TOKENS))), examples_of(data), Knowledge())
    assert found == pytest.approx(-np.log(TOKENS) / sizes)


def test_more_tokens_than_a_byte_holds_are_told_apart():
    tokens = torch.stack([torch.arange(64) * 256, torch.zeros(64, dtype=torch.long)])
    sizes = compressed(tokens, 50_000)
    assert sizes[0] > 2 * sizes[1]


def test_the_reference_ratio_is_the_difference_of_two_mean_log_likelihoods():
    data = text("aaab", "bbbb")
    knowledge = Knowledge(reference=target_of(Fixed(torch.zeros(TOKENS))))
    found = Reference().run(target_of(Fixed(only("a", 0.75))), examples_of(data), knowledge)
    other = np.log(0.25 / (TOKENS - 1))
    assert found == pytest.approx([np.log(0.75) * 0.75 + other * 0.25 + np.log(TOKENS), other + np.log(TOKENS)], rel=1e-5)
    with pytest.raises(NotApplicable, match=r"pretraining\.steps"):
        Knowledge().check(Reference.needs)


def test_neighbours_differ_in_a_twentieth_of_the_places_and_are_shifted_alike():
    data = text(*["abcdefghij" * 6] * 400)
    inputs, targets = neighbour(data.inputs, data.targets, torch.Generator().manual_seed(0))
    assert torch.equal(inputs, shifted(targets))
    changed = targets != data.targets
    assert changed.sum(1).max() <= 3
    assert 2.0 < changed.float().sum(1).mean() < 3.0  # a tenth of what is drawn is what stood there
    assert changed.any(0).all()
    assert set(targets.unique().tolist()) == set(data.targets.unique().tolist())
    assert START not in targets


def test_the_neighbourhood_is_what_changing_some_places_costs():
    """One place in sixteen changed, from a to what the model expects less: the mean log-likelihood falls by a sixteenth."""
    data = text("a" * 16, "b" * 16)
    found = Neighbourhood().run(target_of(Fixed(only("a", 0.75))), examples_of(data), Knowledge())
    cost = np.log(0.75) - np.log(0.25 / (TOKENS - 1))
    assert found[0] == pytest.approx(cost / 16 / 2, abs=4 * cost / 16 * 0.5 / np.sqrt(NEIGHBOURS))
    assert found[0] > 0 > found[1]
    assert found == pytest.approx(Neighbourhood().run(target_of(Fixed(only("a", 0.75))), examples_of(data), Knowledge()))


def test_the_mean_of_the_lowest_takes_a_fifth_and_one_at_least():
    values = np.array([[5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0], [0.0] * 9 + [-10.0]])
    assert mean_of_lowest(values) == pytest.approx([1.5, -5.0])
    assert mean_of_lowest(values[:, :3]) == pytest.approx([1.0, 0.0])


def test_min_k_looks_at_the_least_expected_characters():
    data = text("aaaaaaaabb", "aaaaaaaaab", "aaaaaaaaaa")
    found = MinK().run(target_of(Fixed(only("a", 0.75))), examples_of(data), Knowledge())
    low, high = np.log(0.25 / (TOKENS - 1)), np.log(0.75)
    assert found == pytest.approx([low, (low + high) / 2, high], rel=1e-5)


def test_min_k_plus_plus_measures_each_place_by_what_is_to_be_expected_there():
    """Of two outcomes with p and 1 − p the standardised log-probability is √((1 − p)/p), or −√(p/(1 − p))."""
    data = text("aaaaaaaabb", "aaaaaaaaab", "aaaaaaaaaa")
    found = MinKPlusPlus().run(target_of(Fixed(only("a", 0.8))), examples_of(data), Knowledge())
    assert found == pytest.approx([-2.0, (-2.0 + 0.5) / 2, 0.5], rel=1e-4)


def test_where_one_token_alone_is_expected_min_k_plus_plus_stays_finite():
    data = text("aaaaa", "aaaab")
    found = MinKPlusPlus().run(target_of(Fixed(only("a", 1 - 1e-15))), examples_of(data), Knowledge())
    assert np.isfinite(found).all()
    assert found[0] > found[1]


# -- attacks on text: a planted leak --------------------------------------------------------------------------------

SAID = "the king of fair lords had seven ships and gold upon his sword when night came down over every tower"
WORDS = SAID.split()


def sentences(count: int, seed: int, length: int = 40) -> Tensor:
    """Words in any order: nothing but having seen one tells it from another."""
    generator = np.random.default_rng(seed)
    return sequences("".join(" ".join(generator.choice(WORDS, 20))[:length].ljust(length, ".") for _ in range(count)), length)


def taught(model: CharacterLSTM, targets: Tensor, steps: int) -> CharacterLSTM:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(shifted(targets)).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def planted() -> tuple[Target, Target, LabelledExamples, np.ndarray]:
    """A model that began from public sentences and memorised 30 private ones, what it began from, and 60 sentences."""
    torch.manual_seed(0)
    public = taught(CharacterLSTM(TOKENS, 32), sentences(60, 1), 60)
    target = CharacterLSTM(TOKENS, 32)
    target.load_state_dict(public.state_dict())
    targets = sentences(60, 2)
    taught(target, targets[:30], 120)
    examples = LabelledExamples(shifted(targets), targets, np.arange(60))
    return target_of(target), target_of(public, Access.WEIGHTS), examples, np.arange(60) < 30


@pytest.mark.parametrize("attack", OWN)
def test_a_model_that_memorised_thirty_sentences_is_found_out(attack: MembershipAttack, planted: Any):
    target, public, examples, is_member = planted
    found = area_under_roc(attack.run(target, examples, Knowledge(reference=public)), is_member)
    assert (found.value or 0.0) > 0.9


@pytest.mark.parametrize("attack", [attack for attack in OWN if not isinstance(attack, Reference)])
def test_a_model_that_saw_none_of_them_gives_nothing_away(attack: MembershipAttack, planted: Any):
    _, public, examples, is_member = planted
    found = area_under_roc(attack.run(public.behind(Access.SCORES), examples, Knowledge()), is_member)
    assert (found.low or 0.0) < 0.5 < (found.high or 0.0)


# -- the blind baseline ---------------------------------------------------------------------------------------------


def blind(targets: Tensor, is_member: np.ndarray, seed: int = 0) -> Any:
    scores, scored = blind_scores(shifted(targets), targets, is_member, TOKENS, seed)
    return area_under_roc(scores, scored, "blind")


def test_a_blind_classifier_finds_that_members_write_another_word():
    targets, is_member = sentences(600, 3), np.random.default_rng(0).random(600) < 0.5
    targets[torch.from_numpy(is_member), 10:14] = encode("zoo ")
    assert blind(targets, is_member).low > 0.95


def test_a_blind_classifier_finds_an_order_of_characters_by_its_pairs():
    generator = np.random.default_rng(0)
    is_member = generator.random(600) < 0.5
    rows = ["ab" * 20 if member else "aabb" * 10 for member in is_member]
    assert blind(torch.stack([encode(row) for row in rows]), is_member).low > 0.95


def test_a_blind_classifier_finds_nothing_where_coins_decided():
    found = blind(sentences(600, 3), np.random.default_rng(1).random(600) < 0.5)
    assert found.low < 0.5 < found.high


# -- from training to result ----------------------------------------------------------------------------------------

SHARES = SplitConfig(members=0.4, non_members=0.4, population=0.2, public=0.0)
SMALL = Recipe(
    data=DataConfig(name="text", sequence_length=16, split=SHARES),
    model=ModelConfig(name="lstm", hidden=(8,)),
    pretraining=PretrainingConfig(steps=4, batch_size=8),
    optimizer=OptimizerConfig(name="adamw", learning_rate=0.02),
    privacy=PrivacyConfig(mechanism="none", sampling_rate=0.5, expected_batch_size=30.0),
    training=TrainingConfig(steps=6),
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, DataSet]:
    monkeypatch.setenv("HOME", str(tmp_path))
    generator = np.random.default_rng(0)
    for name in ("private", "public"):
        (tmp_path / f"{name}.txt").write_text(" ".join(generator.choice(WORDS, 500)))
    config = dataclasses.replace(SMALL.data, path=str(tmp_path / "private.txt"), public=(str(tmp_path / "public.txt"),))
    return dataclasses.replace(SMALL, data=config), load(config)


def test_a_fleet_of_language_models_keeps_the_log_likelihood_of_each_place(world: tuple[Recipe, DataSet]):
    recipe, data = world
    fleet = train_fleet(recipe, data, models=3, rate=0.5, keep_weights=True, progress=False)
    assert fleet.logits.shape == (3, *data.targets.shape)
    target = target_of(fleet.model(1))
    np.testing.assert_allclose(fleet.logits[1], outputs_of(target, data.inputs, data.targets), atol=1e-5)


def test_a_language_model_is_trained_attacked_and_measured(world: tuple[Recipe, DataSet], tmp_path: Path):
    recipe, data = world
    attacks = ("threshold", "lira", "rmia", "confidence", "zlib", "reference", "neighbourhood", "min_k", "min_k_plus_plus")
    plan = EvaluationPlan(attacks=tuple(f"membership.{name}" for name in attacks), shadow_models=12)
    split = split_of(data, recipe.data.split, 0)
    Trainer(recipe, data, split, seed=0, folder=tmp_path / "run", progress=False).run()
    result = evaluate(tmp_path / "run", data, plan=plan, recipe=recipe, progress=False)
    status = {attack.name.partition(".")[2]: (attack.status, attack.reason) for attack in result.attacks}
    assert status.pop("confidence")[0] == "not_applicable"
    assert {name: found[0] for name, found in status.items()} == dict.fromkeys(status, "ok"), status
    assert next(iter(result.utility)) == "next_character"
    assert 0 < result.utility["bits_per_character"] < np.log2(TOKENS)
    assert result.attacks[0].baselines[0].name == "blind"
    assert not any("not found out" in note for note in result.notes)
    shown = gallery.load(tmp_path / "run" / "private" / gallery.name_of(6))
    said = [(repr(decode(data.targets[index]))[1:-1],) for index in shown.index]
    assert list(shown.cells) == said


def test_without_public_text_there_is_no_reference(world: tuple[Recipe, DataSet], tmp_path: Path):
    recipe, data = world
    recipe = dataclasses.replace(recipe, pretraining=PretrainingConfig())
    plan = EvaluationPlan(attacks=("membership.reference",))
    Trainer(recipe, data, draw(len(data), SHARES, 0), seed=0, folder=tmp_path / "run", progress=False).run()
    (found,) = evaluate(tmp_path / "run", data, plan=plan, recipe=recipe, progress=False).attacks
    assert (found.status, "pretraining.steps" in found.reason) == ("not_applicable", True)


def test_the_reference_is_what_the_target_began_from(world: tuple[Recipe, DataSet], monkeypatch: pytest.MonkeyPatch):
    recipe, data = world
    seen: list[Target] = []

    class Looks(Reference):
        def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
            seen.append(knowledge.public_model())
            return super().run(target, examples, knowledge)

    monkeypatch.setattr("evaluation.membership.language.Reference", Looks)
    target, split = target_of(lstm()), draw(len(data), SHARES, 0)
    case = Case(target, None, data, split, None, EvaluationPlan(), 0, recipe=recipe)
    assert run_attack(case, "membership.reference", lambda: None).status == "ok"
    began = build_model(recipe, data, 5).state_dict()
    assert all(torch.equal(value, began[name]) for name, value in seen[0].weights().items())


def test_a_reference_that_breaks_costs_no_other_attack_its_result(
    world: tuple[Recipe, DataSet], monkeypatch: pytest.MonkeyPatch
):
    recipe, data = world

    def broken(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("evaluation.runner.build_model", broken)
    case = Case(target_of(lstm()), None, data, draw(len(data), SHARES, 0), None, EvaluationPlan(), 0, recipe=recipe)
    status = [run_attack(case, f"membership.{name}", lambda: None).status for name in ("reference", "zlib")]
    assert status == ["failed", "ok"]


def test_a_guard_of_one_class_an_example_does_not_stand_before_a_language_model(world: tuple[Recipe, DataSet]):
    with pytest.raises(ConfigError, match=r"release\.guard is 'memguard'.*what comes next at each place"):
        check_plan(EvaluationPlan(attacks=("membership.zlib",)), world[1], "memguard")
