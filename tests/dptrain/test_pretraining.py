"""Public text first: one and the same beginning for all models, made once, and from nothing that is private."""

import dataclasses
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from dptrain import pretraining
from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.errors import ConfigError, DataError
from dptrain.pretraining import pretrained
from dptrain.recipe import DataConfig, ModelConfig, PretrainingConfig, Recipe
from dptrain.trainer import build_model

RECIPE = Recipe(
    model=ModelConfig(name="lstm", hidden=(16,)), pretraining=PretrainingConfig(steps=30, batch_size=8, learning_rate=0.02)
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and nothing remembered."""
    monkeypatch.setenv("HOME", str(tmp_path))
    pretraining._MADE.clear()
    return tmp_path


def text(folder: Path, private: str = "the cat sat on the mat. ", public: str = "the dog sat on the log. ") -> DataSet:
    (folder / "private.txt").write_text(private * 20)
    (folder / "public.txt").write_text(public * 40)
    known = (str(folder / "public.txt"),) if public else ()
    return load(DataConfig(name="text", path=str(folder / "private.txt"), public=known, sequence_length=16))


def cached(home: Path) -> list[Path]:
    return sorted((home / ".cache" / "dptrain" / "pretrained").glob("*"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_model_of_a_recipe_begins_with_the_same_weights(tmp_path: Path):
    data = text(tmp_path)
    assert same(build_model(RECIPE, data, 0).state_dict(), build_model(RECIPE, data, 7).state_dict())
    scratch = dataclasses.replace(RECIPE, pretraining=PretrainingConfig())
    assert not same(build_model(scratch, data, 0).state_dict(), build_model(scratch, data, 7).state_dict())


def test_the_public_text_was_learned(tmp_path: Path):
    data = text(tmp_path)
    assert data.others is not None
    assert data.others.targets is not None
    model = build_model(RECIPE, data, 0)
    loss = F.cross_entropy(model(data.others.inputs).flatten(0, 1), data.others.targets.flatten())
    assert float(loss.detach()) < 0.7 * math.log(data.outputs)


def test_nothing_private_enters_the_weights(tmp_path: Path):
    made = pretrained(RECIPE, text(tmp_path), progress=False)
    pretraining._MADE.clear()
    for path in cached(tmp_path):
        path.unlink()
    assert same(made, pretrained(RECIPE, text(tmp_path, private="zebras are not in it: "), progress=False))


def test_pretraining_leaves_the_callers_randomness_alone(tmp_path: Path):
    data = text(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    pretrained(RECIPE, data, progress=False)
    assert torch.equal(torch.rand(4), expected)


def test_weights_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = text(tmp_path)
    made = pretrained(RECIPE, data, progress=False)
    assert len(cached(tmp_path)) == 1

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(pretraining, "_train", never)
    assert same(pretrained(RECIPE, data, progress=False), made)
    pretraining._MADE.clear()
    assert same(pretrained(RECIPE, data, progress=False), made)


@pytest.mark.parametrize(
    "change",
    [
        {"pretraining": PretrainingConfig(steps=2)},
        {"model": ModelConfig(name="lstm", hidden=(12,))},
    ],
)
def test_other_options_make_other_weights(tmp_path: Path, change: dict):
    data = text(tmp_path)
    made = pretrained(RECIPE, data, progress=False)
    assert not same(made, pretrained(dataclasses.replace(RECIPE, **change), data, progress=False))
    assert len(cached(tmp_path)) == 2


def test_another_public_text_makes_other_weights(tmp_path: Path):
    made = pretrained(RECIPE, text(tmp_path), progress=False)
    assert not same(made, pretrained(RECIPE, text(tmp_path, public="a bird in the hand. "), progress=False))


def test_only_some_models_are_remembered(tmp_path: Path):
    data = text(tmp_path)
    for steps in range(1, pretraining.KEPT + 3):
        pretrained(dataclasses.replace(RECIPE, pretraining=PretrainingConfig(steps=steps)), data, progress=False)
    assert len(pretraining._MADE) == pretraining.KEPT


def test_without_public_text_it_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"pretraining\.steps is 30 and.*no public text.*--data\.public"):
        build_model(RECIPE, text(tmp_path, public=""), 0)


@pytest.mark.parametrize("damage", ["cut", "changed", "other weights"])
def test_a_cache_file_that_holds_something_else_is_not_read(tmp_path: Path, damage: str):
    data = text(tmp_path)
    made = pretrained(RECIPE, data, progress=False)
    (path,) = cached(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "changed":
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(safetensors.torch.save({name: value + 1 for name, value in made.items()}))
    pretraining._MADE.clear()
    assert same(pretrained(RECIPE, data, progress=False), made)


@pytest.mark.parametrize("options", [{"steps": -1}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": math.inf}])
def test_options_that_cannot_be_are_refused(options: dict):
    with pytest.raises(ConfigError, match="pretraining"):
        PretrainingConfig(**options)
