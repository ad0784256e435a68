"""A published model and what is learned beside it: whose gradients are whose, what is saved, and what cannot be had."""

import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dptrain import make_private, models
from dptrain.clipping import Clipper
from dptrain.data.tokens import tokenizer_of
from dptrain.errors import CheckpointError, ConfigError, ProtocolError
from dptrain.models.hugging_face import LowRank, _base, _Held
from dptrain.optimizers import adamw
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, Recipe, RegularizationConfig
from dptrain.regularization import cross_entropy
from tests.dptrain.published import publish, save_model, save_tokenizer

LENGTH, TOKENS = 12, 330
PLAIN = RegularizationConfig()
KINDS = ["llama", "gpt2"]
Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: publish(tmp_path_factory.mktemp(kind), kind) for kind in ("llama", "gpt2")}


def lora(folder: Path, seed: int = 0, **options: Any) -> LowRank:
    torch.manual_seed(seed)
    made = models.build(ModelConfig(name="lora", pretrained=str(folder), rank=2, **options), (LENGTH,), TOKENS, PLAIN)
    assert isinstance(made, LowRank)
    return made.train()


def stirred(model: LowRank) -> LowRank:
    """With B away from 0, so that A has a gradient as well."""
    generator = torch.Generator().manual_seed(3)
    for value in model.parameters():
        value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return model


def embeddings(model: LowRank) -> nn.Embedding:
    base: Any = model._base.module
    return base.get_input_embeddings()


def batch(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randint(TOKENS, (count, LENGTH), generator=generator) for _ in range(2))
    return inputs, targets


def loss(model: nn.Module, given: Batch) -> Tensor:
    return cross_entropy(model, given, PLAIN)


def clipped_one_by_one(model: nn.Module, examples: Batch, norm: float) -> dict[str, Tensor]:
    """The sum of each example's own gradient by ordinary autograd, clipped."""
    names, values = zip(*model.named_parameters(), strict=True)
    total = {name: torch.zeros_like(value) for name, value in zip(names, values, strict=True)}
    for index in range(len(examples[0])):
        one = (examples[0][index : index + 1], examples[1][index : index + 1])
        gradients = torch.autograd.grad(loss(model, one).sum(), values)
        factor = min(1.0, norm / float(torch.cat([part.flatten() for part in gradients]).norm()))
        for name, part in zip(names, gradients, strict=True):
            total[name] += factor * part
    return total


# -- whose gradients are whose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapted", ["default", "all"])
def test_the_clipped_sum_is_that_of_each_sequence_by_itself(published: dict[str, Path], kind: str, adapted: str):
    model, examples = stirred(lora(published[kind], adapted=adapted)), batch(7)
    clipper = Clipper(model, loss, 0.05)
    found, expected = clipper.sum([examples]).gradients, clipped_one_by_one(model, examples, 0.05)
    assert clipper.method == "one pass"
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=5e-6)


@pytest.mark.parametrize("positions", ["one row for all", "one row each"])
def test_gpt2_with_all_weights_trained_has_each_sequences_own_gradient(published: dict[str, Path], positions: str):
    """Its own way to ask for positions has one row for the whole batch, which breaks Opacus; here the engine sees it."""
    from transformers import AutoModelForCausalLM

    inner: Any = AutoModelForCausalLM.from_pretrained(published["gpt2"], dtype=torch.float32)
    for part in inner.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0

    class OwnScript(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, tokens: Tensor) -> Tensor:
            places = torch.arange(tokens.shape[1])
            given = {"position_ids": places.expand_as(tokens)} if positions == "one row each" else {}
            return self.inner(input_ids=tokens, use_cache=False, **given).logits

    model, examples = OwnScript().train(), batch(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vmap says that attention is slow under it
        found = Clipper(model, loss, 0.05).sum([examples]).gradients
    expected = clipped_one_by_one(model, examples, 0.05)
    assert expected["inner.transformer.wpe.weight"][:LENGTH].abs().min(1).values.max() > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


def test_before_its_first_update_it_is_the_published_model(published: dict[str, Path]):
    from transformers import AutoModelForCausalLM

    own: Any = AutoModelForCausalLM.from_pretrained(published["llama"], dtype=torch.float32)
    tokens = batch(3)[0]
    torch.testing.assert_close(lora(published["llama"])(tokens), own.eval()(input_ids=tokens).logits[..., :TOKENS])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_in_pieces_is_what_is_read_at_once(published: dict[str, Path], kind: str):
    model, tokens = stirred(lora(published[kind])).eval(), batch(5)[0]
    whole = model(tokens)
    logits, state = model.read(tokens[:, :4])
    torch.testing.assert_close(logits, whole[:, 3], rtol=1e-4, atol=1e-5)
    some = tuple(part[:, torch.tensor([3, 0, 0])] for part in state)
    logits, state = model.read(tokens[[3, 0, 0], 4:6], some)
    torch.testing.assert_close(logits, whole[[3, 0, 0], 5], rtol=1e-4, atol=1e-5)
    logits, _ = model.read(tokens[[3, 0, 0], 6:7], state)
    torch.testing.assert_close(logits, whole[[3, 0, 0], 6], rtol=1e-4, atol=1e-5)


def private(model: nn.Module, noise_multiplier: float = 1.0) -> Iterator[int]:
    """A step each time it is asked."""
    plan = PrivacyPlan(
        sampling_rate=0.5,
        expected_batch_size=8,
        steps=3,
        clipping_norm=0.5,
        delta=1e-3,
        noise_multiplier=noise_multiplier,
    )
    optimizer = adamw(model, OptimizerConfig(name="adamw", learning_rate=0.01), PLAIN)
    training = make_private(model, optimizer, list(zip(*batch(16), strict=True)), plan, loss=loss, insecure_seed=1)
    for number, drawn in enumerate(training.batches()):
        training.step(drawn)
        yield number


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_every_lora_weight_and_no_bit_of_the_base(published: dict[str, Path], kind: str):
    model = lora(published[kind])
    lora_before = {name: value.detach().clone() for name, value in model.named_parameters()}
    frozen = {name: value for name, value in model._base.module.named_parameters() if not value.requires_grad}
    before = {name: value.clone() for name, value in frozen.items()}
    assert len(list(private(model))) == 3
    for name, value in model.named_parameters():
        assert (value != lora_before[name]).all(), name
    assert len(frozen) > 10
    assert all(torch.equal(frozen[name], before[name]) for name in before)
    assert all(value.grad is None for value in frozen.values())


# -- what is saved --------------------------------------------------------------------------------------------------


def test_the_state_is_the_lora_weights_under_pefts_names_and_a_hash(published: dict[str, Path]):
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    model = stirred(lora(published["llama"]))
    settings = LoraConfig(r=2, lora_alpha=16, task_type="CAUSAL_LM")
    own: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(published["llama"]), settings)
    state = model.state_dict()
    assert set(state) == {*get_peft_model_state_dict(own), "base"}
    assert bytes(state["base"].tolist()).hex() == model.stated()["sha256"]
    set_peft_model_state_dict(own, {name: value for name, value in state.items() if name != "base"})
    tokens = batch(2)[0]
    torch.testing.assert_close(own.eval()(input_ids=tokens).logits[..., :TOKENS], model(tokens), rtol=1e-4, atol=1e-5)
    assert sum(value.numel() for value in model.parameters()) == 2 * 2 * (16 + 16 + 16 + 8)


def test_what_was_learned_beside_one_model_is_refused_beside_another(published: dict[str, Path], tmp_path: Path):
    state, other = lora(published["llama"]).state_dict(), publish(tmp_path, seed=1)
    lora(published["llama"], seed=5).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"learned beside another model than the one in .*put the same files there again"):
        lora(other).load_state_dict(state)


def test_one_changed_weight_of_the_base_makes_it_another_one(published: dict[str, Path], tmp_path: Path):
    folder = publish(tmp_path)
    first = lora(folder)
    assert first.stated()["sha256"] == lora(published["llama"]).stated()["sha256"]
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="learned beside another model"):
        lora(folder).load_state_dict(first.state_dict())


def test_copies_share_the_base_and_not_what_is_learned(published: dict[str, Path]):
    model, tokens = stirred(lora(published["llama"])), batch(2)[0]
    before = model(tokens)
    twin = copy.deepcopy(model)
    assert embeddings(twin).weight is embeddings(model).weight
    stirred(twin)
    assert not torch.allclose(twin(tokens), before)
    assert torch.equal(model(tokens), before)


def test_a_wider_type_is_one_models_own(published: dict[str, Path]):
    model, tokens = lora(published["llama"]), batch(2)[0]
    other = lora(published["llama"], seed=1).double()
    assert other(tokens).dtype == torch.float64
    assert model(tokens).dtype == torch.float32
    torch.testing.assert_close(other(tokens).float(), model(tokens), rtol=1e-4, atol=1e-5)


def test_a_base_that_writes_into_itself_is_refused_in_training(published: dict[str, Path]):
    model = lora(published["llama"])

    def remember(module: nn.Module, given: Any, output: Any) -> None:
        module.weight[0, 0] += 1  # pyright: ignore[reportOperatorIssue, reportArgumentType, reportIndexIssue]

    model._base = _Held(copy.deepcopy(model._base.module))
    embeddings(model).register_forward_hook(remember)
    with torch.no_grad(), pytest.raises(ProtocolError, match="wrote into the published model's own weights"):
        model(batch(2)[0])
    _base.cache_clear()


# -- what cannot be had ---------------------------------------------------------------------------------------------


def test_the_tokenizer_is_the_models_own():
    recipe = Recipe(model=ModelConfig(name="lora", pretrained="mine"), data=DataConfig(name="text"))
    assert recipe.data.tokenizer == "mine"
    with pytest.raises(ConfigError, match=r"tokenizer is 'other' and model.pretrained is 'mine'.*leave data.tokenizer out"):
        Recipe(model=ModelConfig(name="lora", pretrained="mine"), data=DataConfig(name="text", tokenizer="other"))


@pytest.mark.parametrize(
    ("config", "shape", "tokens", "message"),
    [
        ({"pretrained": None}, (12,), TOKENS, "model.pretrained is not given"),
        ({}, (1, 8, 8), 10, "reads sequences of tokens and the data set's inputs are 1×8×8"),
        ({}, (65,), TOKENS, "reads at most 64 tokens; give a smaller length"),
        ({}, (12,), 400, "knows 336 tokens, and the data are written in 400"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    published: dict[str, Path], config: dict[str, Any], shape: tuple[int, ...], tokens: int, message: str
):
    config = {"pretrained": str(published["llama"]), **config}
    with pytest.raises(ConfigError, match=message):
        models.build(ModelConfig(name="lora", **config), shape, tokens, PLAIN)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rank": 0}, "model.rank is 0"), ({"alpha": 0.0}, "model.alpha is 0"), ({"adapted": "most"}, "model.adapted")],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(name="lora", **options)


def test_dropout_is_refused(published: dict[str, Path]):
    config = ModelConfig(name="lora", pretrained=str(published["llama"]))
    with pytest.raises(ConfigError, match=r"regularization.dropout is 0.1, and the model lora has none"):
        models.build(config, (12,), TOKENS, RegularizationConfig(dropout=0.1))


def test_a_folder_that_lacks_a_file_is_told_which(tmp_path: Path):
    save_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks config.json \(the model's settings\)"):
        lora(tmp_path)
    save_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"lacks \*.safetensors \(its weights; its .bin files are pickles"):
        lora(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        lora(tmp_path / "gone")


def test_a_folder_with_damaged_files_is_told_so(tmp_path: Path):
    publish(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="whose model cannot be read"):
        lora(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="whose tokenizer cannot be read"):
        tokenizer_of(str(tmp_path))


@pytest.mark.parametrize("without", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_name_without_a_network_is_one_sentence_that_says_what_to_fetch(tmp_path: Path, without: dict[str, str]):
    (tmp_path / "mine.txt").write_text("To be, or not to be. " * 50)
    command = [sys.executable, "-m", "recipes.cli", "run", "lora", "--data.name", "text", "--data.path", "mine.txt"]
    command += ["--model.pretrained", "nobody/no-such-model"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**clean, "HF_HOME": str(tmp_path / "hub"), **without},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert "cannot be fetched from the Hugging Face hub" in lines[0]
    assert "hf download nobody/no-such-model --local-dir no-such-model" in lines[0]
    assert "give --model.pretrained no-such-model" in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("library", ["transformers", "peft"])
def test_a_missing_library_is_named_with_its_extra(published: dict[str, Path], library: str, monkeypatch: pytest.MonkeyPatch):
    _base.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library} is not installed; type pip install 'dptrain\[text\]'"):
        lora(published["llama"])
