"""A classifier of words on the bench: words are counted, and never taken for numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.data.words import BUCKETS, hashed
from dptrain.models.embedding_bag import EmbeddingBag
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, PrivacyConfig, Recipe, SplitConfig, TrainingConfig
from dptrain.trainer import Trainer
from evaluation import EvaluationPlan, evaluate
from evaluation.access import Access
from evaluation.baselines import blind_scores, counted
from evaluation.membership import Knowledge, LabelledExamples, NotApplicable
from evaluation.membership.quantile import QuantileRegression
from evaluation.metrics import area_under_roc
from evaluation.plan import ATTACKS
from evaluation.result import Measure
from evaluation.target import Target

SAID = "free entry call now win cash ok see you later at home dear love going work text mobile claim prize tomorrow"


def messages(count: int, seed: int, length: int = 12) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.stack([hashed(" ".join(generator.choice(SAID.split(), 10)), length) for _ in range(count)])


def blind(inputs: Tensor, is_member: np.ndarray) -> Measure:
    scores, scored = blind_scores(inputs, torch.zeros(len(inputs), dtype=torch.long), is_member, 2, 0)
    return area_under_roc(scores, scored, "blind")


def coins(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < 0.5


def test_tokens_are_counted():
    tokens = np.array([[3, 0, 3, 1], [0, 0, 0, 0]])
    assert counted(tokens, 4).tolist() == [[1, 1, 0, 2], [4, 0, 0, 0]]


def test_a_blind_classifier_finds_a_word_that_members_use_wherever_it_stands():
    inputs, is_member = messages(800, 1), coins(800)
    where = torch.randint(10, (800,), generator=torch.Generator().manual_seed(0))
    members = torch.from_numpy(np.flatnonzero(is_member))
    inputs[members, where[members]] = hashed("zoo", 1)
    assert (blind(inputs, is_member).low or 0.0) > 0.9


def test_a_blind_classifier_finds_that_members_write_longer_messages():
    inputs, is_member = messages(800, 1), coins(800)
    inputs[torch.from_numpy(~is_member), 6:] = 0
    assert (blind(inputs, is_member).low or 0.0) > 0.95


def test_a_blind_classifier_finds_nothing_where_coins_decided():
    found = blind(messages(800, 1), coins(800, 5))
    assert (found.low or 0.0) < 0.5 < (found.high or 0.0)


@pytest.mark.parametrize("name", ["boundary", "noise", "shift", "zlib", "min_k"])
def test_attacks_that_move_inputs_or_read_a_language_model_say_that_they_do_not_apply(name: str):
    torch.manual_seed(0)
    model = EmbeddingBag((4,), 2, torch.nn.Tanh)
    examples = LabelledExamples(messages(20, 1), torch.arange(20) % 2, np.arange(20))
    attack = ATTACKS[f"membership.{name}"]()
    with pytest.raises(NotApplicable, match="needs"):
        attack.run(Target(model, attack.access, bounds=(0.0, float(BUCKETS)), classes=2), examples, Knowledge())


def test_quantiles_are_predicted_from_counts_of_words():
    """The target is less sure where "free" is said: with that known, a member's gain of 1 shows; without, it drowns."""
    inputs, is_member = messages(1200, 2), coins(1200)
    is_member[600:] = False
    free = (inputs == hashed("free", 1)).any(1)
    odds = torch.from_numpy(np.random.default_rng(0).normal(size=1200) * 0.5 + is_member) + 8 * free
    by_message = {tuple(row.tolist()): value for row, value in zip(inputs, odds, strict=True)}

    class Known(torch.nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            ones = torch.stack([by_message[tuple(row.tolist())] for row in tokens])
            return torch.stack([torch.zeros_like(ones), ones], 1)

    targets = torch.ones(1200, dtype=torch.long)
    parts = [LabelledExamples(inputs[i], targets[i], i) for i in (np.arange(600), np.arange(600, 1200))]
    target = Target(Known(), Access.SCORES, bounds=(0.0, float(BUCKETS)), classes=2)
    found = QuantileRegression().run(target, parts[0], Knowledge(population=parts[1]))
    assert (area_under_roc(found, is_member[:600]).value or 0.0) > 0.85


SHARES = SplitConfig(members=0.5, non_members=0.3, population=0.2, public=0.0)
SMALL = Recipe(
    data=DataConfig(name="sms", sequence_length=12, split=SHARES),
    model=ModelConfig(name="embedding_bag", hidden=(4,)),
    optimizer=OptimizerConfig(name="adamw", learning_rate=0.05),
    privacy=PrivacyConfig(mechanism="none", sampling_rate=1.0, expected_batch_size=100.0),
    training=TrainingConfig(steps=15),
)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Recipe, DataSet]:
    generator, path = np.random.default_rng(0), tmp_path / "sms"
    rows = [("spam\t" if free else "ham\t") + ("free " if free else "") for free in generator.random(200) < 0.3]
    path.write_text("\n".join(row + " ".join(generator.choice(SAID.split()[1:], 10)) for row in rows))
    config = DataConfig(name="sms", path=str(path), sequence_length=12, split=SHARES)
    return Recipe(**{**vars(SMALL), "data": config}), load(config)


def test_a_classifier_of_messages_is_trained_attacked_and_measured(world: tuple[Recipe, DataSet], tmp_path: Path):
    recipe, data = world
    names = ("membership.threshold", "membership.lira", "membership.rmia")
    plan = EvaluationPlan(attacks=(*names, "inversion.class"), shadow_models=8)
    split = split_of(data, SHARES, 0)
    Trainer(recipe, data, split, seed=0, folder=tmp_path / "run", progress=False).run()
    result = evaluate(tmp_path / "run", data, plan=plan, recipe=recipe, progress=False)
    *found, inversion = result.attacks
    assert [(attack.status, attack.reason[:60]) for attack in found if attack.status != "ok"] == []
    assert (inversion.status, "these are words" in inversion.reason) == ("not_applicable", True)
    assert result.utility["test_accuracy"] > 0.8
    assert not any("not found out" in note for note in result.notes)
    assert result.exposure is not None
