"""A published model, fine-tuned on the bench: bits a character of the text, attacks with the base as their reference."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.data.tokens import BROKEN
from dptrain.errors import CheckpointError, ConfigError
from dptrain.fleet import sequences_at_once, train_fleet
from dptrain.models.hugging_face import LowRank
from dptrain.plan import PrivacyPlan
from dptrain.qualifications import qualifications
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrivacyConfig,
    Recipe,
    SecretsConfig,
    SplitConfig,
    TrainingConfig,
)
from dptrain.trainer import Trainer, build_model
from evaluation import EvaluationPlan, evaluate
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.baselines import MOST_KINDS, blind_scores
from evaluation.extraction.tokens import CANDIDATES
from evaluation.membership import Knowledge, LabelledExamples
from evaluation.membership.language import Reference
from evaluation.metrics import mean
from evaluation.result import AttackResult
from evaluation.runner import run_attack
from evaluation.target import Target
from evaluation.utility import per_character, utility, without_model
from tests.dptrain.published import LINES, publish, save_model, save_tokenizer

MEMBERSHIP = ("threshold", "zlib", "reference", "neighbourhood", "min_k", "min_k_plus_plus")
ATTACKS = (*(f"membership.{name}" for name in MEMBERSHIP), "extraction.exposure", "extraction.generation", "inversion.class")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = publish(tmp_path_factory.mktemp("published"))
    (made / "text.txt").write_text("\n".join(lines(120)), encoding="utf-8")
    return made


def lines(count: int) -> list[str]:
    """Known words in an order that nothing tells."""
    generator = np.random.default_rng(0)
    words = sorted({word for line in LINES for word in line.split()})
    return [" ".join(generator.choice(words, size=9)) for _ in range(count)]


def recipe_of(folder: Path, **privacy) -> Recipe:
    given = {"mechanism": "none", "sampling_rate": 0.5, "expected_batch_size": 60.0, "delta": 1e-3, **privacy}
    return Recipe(
        data=DataConfig(
            name="text",
            path=str(folder / "text.txt"),
            sequence_length=32,
            secrets=SecretsConfig(each=2, insertions=(1, 4)),
            split=SplitConfig(members=0.6, non_members=0.4, population=0.0, public=0.0),
        ),
        model=ModelConfig(name="lora", pretrained=str(folder), rank=4, adapted="all"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.02),
        privacy=PrivacyConfig(**given),
        training=TrainingConfig(steps=4),
    )


@pytest.fixture(scope="module")
def data(folder: Path) -> DataSet:
    return load(recipe_of(folder).data)


class Alike(nn.Module):
    """Expects every token alike."""

    def __init__(self, tokens: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)


# -- what it is worth -----------------------------------------------------------------------------------------------


def test_bits_are_of_the_characters_that_the_text_has(data: DataSet):
    tokens = len(data.classes)
    target = Target(Alike(tokens), Access.SCORES, bounds=data.bounds, classes=tokens, kind="language")
    right, bits = utility(target, data.inputs, data.targets, data)
    characters = len("".join(data.written(row) for row in data.targets))
    assert characters > 1.2 * data.targets.numel()
    assert (right.name, bits.name) == ("next_token", "bits_per_character")
    assert bits.value == pytest.approx(data.targets.numel() * np.log2(tokens) / characters)
    assert bits.value is not None
    assert bits.low is not None
    assert bits.high is not None
    assert bits.low < bits.value < bits.high


def test_where_every_token_is_a_character_bits_and_interval_are_those_of_characters(data: DataSet):
    bits = np.random.default_rng(0).random((40, 5))
    assert data.tokenizer is not None
    singles = torch.tensor(
        [number for number, piece in enumerate(data.tokenizer.pieces) if len(piece) == 1 and piece != BROKEN]
    )
    found = per_character(bits, singles[torch.randint(len(singles), (40, 5))], data, "bits_per_character")
    of_characters = mean(bits.mean(1), "bits_per_character")
    assert found.value == pytest.approx(of_characters.value)
    assert (found.low, found.high) == pytest.approx((of_characters.low, of_characters.high))


def test_frequencies_of_tokens_are_bits_a_character_too(data: DataSet):
    share, bits = without_model(data.targets, data)
    counts = np.bincount(data.targets.flatten().numpy(), minlength=len(data.classes)) + 1.0
    spent = -np.log2(counts / counts.sum())[data.targets.numpy()].sum()
    assert share.name == "most_frequent_token"
    assert bits.value == pytest.approx(spent / len("".join(data.written(row) for row in data.targets)))


def test_as_many_sequences_are_answered_at_once_as_their_logits_fit():
    assert sequences_at_once(64, 98) == 256
    assert sequences_at_once(64, 49_152) == 5
    assert sequences_at_once(2048, 150_000) == 1


def test_a_blind_classifier_counts_many_kinds_of_tokens_by_hashes():
    tokens = torch.randint(50_000, (60, 8))
    scores, _ = blind_scores(tokens, tokens, np.arange(60) % 2 == 0, 50_000, 0)
    assert np.isfinite(scores).all()
    assert MOST_KINDS < 50_000


# -- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(folder: Path, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, made = recipe_of(folder), tmp_path_factory.mktemp("run")
    Trainer(recipe, data, split_of(data, recipe.data.split, 0), seed=0, folder=made, progress=False).run()
    return made


@pytest.fixture(scope="module")
def results(run: Path, folder: Path, data: DataSet) -> dict[str, AttackResult]:
    plan = EvaluationPlan(attacks=ATTACKS)
    found = evaluate(run, data, plan=plan, recipe=recipe_of(folder), progress=False)
    assert next(iter(found.utility)) == "next_token"
    assert 0 < found.utility["bits_per_character"] < np.log2(len(data.classes))
    return {attack.name: attack for attack in found.attacks}


def test_every_attack_on_text_runs_and_what_looks_for_pictures_says_so(results: dict[str, AttackResult]):
    status = {name: (found.status, found.reason) for name, found in results.items()}
    assert status.pop("inversion.class")[0] == "not_applicable"
    assert {kind for kind, _ in status.values()} == {"ok"}, status


def test_the_reference_is_the_base_before_anything_was_learned_beside_it(
    folder: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Target] = []

    class Looks(Reference):
        def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
            seen.append(knowledge.public_model())
            return super().run(target, examples, knowledge)

    monkeypatch.setattr("evaluation.membership.language.Reference", Looks)
    recipe, tokens = recipe_of(folder), len(data.classes)
    target = Target(Alike(tokens), Access.SCORES, bounds=data.bounds, classes=tokens, kind="language")
    case = Case(target, None, data, split_of(data, recipe.data.split, 0), None, EvaluationPlan(), 0, recipe=recipe)
    assert run_attack(case, "membership.reference", lambda: None).status == "ok"
    own: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    given = data.inputs[:3]
    torch.testing.assert_close(seen[0]._model(given), own(input_ids=given).logits[..., :tokens])


def test_exposure_of_tokens_is_by_sampling(results: dict[str, AttackResult]):
    assert results["extraction.exposure"].metric == "exposure_by_sampling"
    texts = results["extraction.generation"].texts
    assert texts
    assert all(len(text.said) <= 6 and set(text.guess) <= set("0123456789") for text in texts)


def test_what_is_released_is_lora_alone_and_its_card_names_the_base(run: Path, folder: Path):
    weights = load_file(run / "release" / "model.safetensors")
    card = json.loads((run / "release" / "card.json").read_text())
    assert all("lora_" in name or name == "base" for name in weights)
    assert card["base"] == {"pretrained": str(folder), "sha256": bytes(weights["base"].tolist()).hex()}
    assert not any(
        "lora" not in name for name in load_file(run / "private" / "checkpoint" / "state.safetensors") if "weight" in name
    )


def test_an_opened_release_answers_as_the_trained_model_does(run: Path, folder: Path, data: DataSet):
    recipe = recipe_of(folder)
    trainer = Trainer(recipe, data, split_of(data, recipe.data.split, 0), seed=0, folder=run, progress=False)
    trained = trainer.run().model.eval()
    target = Target.open(run / "release", Access.SCORES)
    torch.testing.assert_close(target._model(data.inputs[:4]), trained(data.inputs[:4]))
    untouched = build_model(recipe, data, 0)
    assert isinstance(untouched, LowRank)
    assert not torch.allclose(untouched(data.inputs[:4]), trained(data.inputs[:4]), atol=1e-3)


def test_a_release_beside_another_base_is_refused(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder that the card names holds another model now."""
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    other = publish(tmp_path, seed=1) / "model.safetensors"
    try:
        weights.write_bytes(other.read_bytes())
        with pytest.raises(CheckpointError, match="learned beside another model than the one in"):
            Target.open(run / "release", Access.SCORES)
        weights.unlink()
        with pytest.raises(ConfigError, match=r"lacks \*.safetensors"):
            Target.open(run / "release", Access.SCORES)
    finally:
        weights.write_bytes(content)


@pytest.mark.slow
def test_without_noise_a_fine_tuned_model_tells_what_it_was_told_and_under_a_plan_it_does_not(tmp_path: Path):
    """The positive control of exposure and generation in tokens: a base of random weights, wide enough to learn by heart."""
    folder = tmp_path / "published"
    folder.mkdir()
    save_tokenizer(folder)
    save_model(folder, width=64, spread=0.1)
    (folder / "text.txt").write_text("\n".join(lines(120)), encoding="utf-8")
    found: dict[str, dict[str, AttackResult]] = {}
    private = {"mechanism": "gaussian", "epsilon": 8.0, "clipping_norm": 0.5}
    for name, steps, privacy in (("none", 300, {}), ("8", 20, private)):
        recipe = dataclasses.replace(
            recipe_of(folder, **privacy),
            model=ModelConfig(name="lora", pretrained=str(folder), rank=16, adapted="all"),
            optimizer=OptimizerConfig(name="adamw", learning_rate=0.01),
            training=TrainingConfig(steps=steps),
        )
        recipe = dataclasses.replace(
            recipe, data=dataclasses.replace(recipe.data, secrets=SecretsConfig(each=4, insertions=(1, 16)))
        )
        data, run = load(recipe.data), tmp_path / name
        split = split_of(data, recipe.data.split, 0)
        Trainer(recipe, data, split, seed=0, folder=run, insecure_seed=1, progress=False).run()
        plan = EvaluationPlan(attacks=("extraction.exposure", "extraction.generation"))
        attacks = evaluate(run, data, plan=plan, recipe=recipe, progress=False).attacks
        found[name] = {attack.name: attack for attack in attacks}
    told, kept = found["none"], found["8"]
    assert told["extraction.exposure"].value == pytest.approx(np.log2(CANDIDATES + 1))
    assert told["extraction.exposure"].verdict == "leak"
    assert told["extraction.generation"].value == 1.0
    assert kept["extraction.exposure"].value is not None
    assert kept["extraction.exposure"].value < 8  # by chance in one of 256
    assert kept["extraction.generation"].value == 0.0


def test_shadow_models_are_trained_beside_the_same_base(folder: Path, data: DataSet):
    fleet = train_fleet(recipe_of(folder), data, models=2, rate=0.5, steps=2, progress=False)
    assert fleet.logits.shape == (2, *data.targets.shape)
    assert (fleet.logits <= 0).all()
    assert not np.allclose(fleet.logits[0], fleet.logits[1])


def test_a_private_run_says_what_it_does_not_promise(folder: Path, data: DataSet):
    recipe = recipe_of(folder)
    plan = PrivacyPlan(sampling_rate=0.5, expected_batch_size=60, steps=4, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0)
    said = " ".join(qualifications(recipe, plan, build_model(recipe, data, 0), data))
    assert "it promises nothing of an example that also stood in the text" in said


def test_data_in_characters_are_refused_by_a_model_of_tokens(folder: Path):
    recipe = recipe_of(folder)
    characters = load(dataclasses.replace(recipe.data, tokenizer=None))
    with pytest.raises(ConfigError, match=r"is not written in them; choose --data.name text or shakespeare"):
        build_model(recipe, characters, 0)
