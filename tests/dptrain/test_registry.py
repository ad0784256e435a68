"""A recipe can name things; it cannot name code."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dptrain import data, models
from dptrain.data.dataset import DataSet
from dptrain.errors import ConfigError, DataError
from dptrain.recipe import DataConfig, ModelConfig, RegularizationConfig
from dptrain.registry import DATASETS, LOSSES, MODELS, OPTIMIZERS, Builtin, Registry

REGISTRIES = {"data set": DATASETS, "model": MODELS, "loss": LOSSES, "optimizer": OPTIMIZERS}


def fresh() -> Registry[Callable[..., Any]]:
    return Registry("thing", {"join": Builtin("posixpath:join", "joins"), "gone": Builtin("no_such_module:it", "broken")})


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_builtin_entry_is_there_and_has_a_line_about_it(kind: str):
    registry = REGISTRIES[kind]
    assert registry._builtin
    for name in registry._builtin:  # what other tests registered is theirs to describe
        assert callable(registry[name])
        assert registry.about()[name]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_name_that_is_not_there_is_answered(kind: str):
    with pytest.raises(ConfigError, match=f"there is no {kind} 'os:system'; .*accepted: "):
        REGISTRIES[kind]["os:system"]


def test_a_near_name_is_offered():
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        DataConfig(name="digit")


def test_a_registered_entry_is_found_and_listed():
    registry = fresh()

    @registry.register("mine", "my own")
    def mine() -> int:
        return 7

    assert registry["mine"] is mine
    assert mine() == 7
    assert registry.names() == ["gone", "join", "mine"]
    assert registry.about()["mine"] == "my own"


@pytest.mark.parametrize("name", ["join", "mine"])
def test_a_name_is_taken_once(name: str):
    registry = fresh()
    registry.register("mine")(lambda: 1)
    with pytest.raises(ConfigError, match=f"already a thing '{name}'.*another name"):
        registry.register(name)


def test_entries_are_imported_when_they_are_asked_for():
    registry = fresh()
    registry.check("gone")
    assert registry.about()["gone"] == "broken"
    assert registry["join"]("a", "b") == "a/b"
    with pytest.raises(ModuleNotFoundError):
        registry["gone"]


def test_listing_and_reading_a_recipe_import_no_torch():
    code = (
        "import sys, dptrain, dptrain.data, dptrain.models, dptrain.recipe, dptrain.registry as r; r.DATASETS.about(); "
        "dptrain.recipe.Recipe().digest(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch):
    """What a test registers is gone after it."""
    for registry in (DATASETS, MODELS):
        monkeypatch.setattr(registry, "_added", dict(registry._added))


@pytest.mark.usefixtures("own_names")
def test_a_data_set_of_ones_own_is_loaded_by_name():
    @DATASETS.register("mine")
    def load(config: DataConfig) -> DataSet:
        return data.load(DataConfig(name="digits"))

    assert len(data.load(DataConfig(name="mine"))) == 1797


@pytest.mark.usefixtures("own_names")
def test_a_loader_that_returns_something_else_is_named():
    DATASETS.register("mine")(lambda config: ([1, 2], [0, 1]))
    with pytest.raises(DataError, match=r"'mine' returned a tuple; return a dptrain\.DataSet"):
        data.load(DataConfig(name="mine"))


@pytest.mark.usefixtures("own_names")
def test_a_model_of_ones_own_is_built_by_name():
    @MODELS.register("mine")
    def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig):
        return MODELS["linear"](input_shape, classes, config, regularization)

    assert models.build(ModelConfig(name="mine"), (4,), 2, RegularizationConfig()) is not None
