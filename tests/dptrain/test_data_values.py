"""A value to predict: encoded by public bounds alone, and decoded to where it came from."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dptrain.data.dataset import DataSet
from dptrain.data.values import Values
from dptrain.errors import ConfigError, DataError
from dptrain.recipe import Recipe, RegularizationConfig, TrainingConfig
from dptrain.regularization import squared_error
from dptrain.trainer import build_training, check_loss

DOSE = Values("dose", "mg a week", (0.0, 400.0), scale="square_root")


def data(targets: torch.Tensor | None = None, value: Values | None = DOSE, classes: tuple[str, ...] = ()) -> DataSet:
    inputs = torch.linspace(-0.5, 0.5, 24).view(12, 2)
    return DataSet(
        "doses", inputs, torch.linspace(-0.5, 0.5, 12) if targets is None else targets, classes, (-0.5, 0.5), value=value
    )


def test_the_square_root_scale_has_its_known_values():
    assert DOSE.encode(np.array([0.0, 100.0, 400.0])).tolist() == [-0.5, 0.0, 0.5]
    assert DOSE.decode(np.array([-0.5, 0.0, 0.5])).tolist() == [0.0, 100.0, 400.0]
    assert DOSE.decode(np.array([-0.7])).tolist() == [0.0]  # no negative dose


@given(st.floats(2.0, 320.0), st.sampled_from(["linear", "square_root"]))
def test_decoding_is_the_inverse_of_encoding(value: float, scale):
    kept = Values("dose", "mg", (2.0, 320.0), scale)
    encoded = kept.encode(np.array([value]))
    assert abs(encoded[0]) <= 0.5
    assert kept.decode(encoded)[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Values("dose", "mg", (3.0, 3.0)), "give two finite numbers, the lower first"),
        (lambda: Values("dose", "mg", (-1.0, 3.0), "square_root"), "below 0 there is no square root; give scale 'linear'"),
        (lambda: Values("dose", "mg", (0.0, 3.0), "square"), "did you mean 'square_root'"),  # pyright: ignore[reportArgumentType]
        (lambda: DOSE.encode(np.array([5.0, 401.0, np.nan])), "lies outside its public bounds .* in 2 examples"),
        (lambda: data(classes=("no", "yes")), "give either classes or a value"),
        (lambda: data(value=None), "give either classes or a value"),
        (lambda: data(torch.full((12,), 35.0)), "encode values with Values.encode"),
        (lambda: data(torch.zeros(12, dtype=torch.long)), "encode values with Values.encode"),
    ],
)
def test_what_cannot_be_a_value_is_answered(make, said: str):
    with pytest.raises((DataError, ConfigError), match=said):
        make()


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_one_output_learns_a_line():
    doses = data()
    recipe = Recipe(training=TrainingConfig(loss="squared_error", steps=200))
    recipe = dataclasses.replace(
        recipe, privacy=dataclasses.replace(recipe.privacy, mechanism="none", expected_batch_size=12.0)
    )
    training = build_training(recipe, doses, np.arange(12), 0)
    for batch in training.batches():
        training.step(batch)
    with torch.no_grad():
        assert float((training.model.eval()(doses.inputs)[:, 0] - doses.targets).abs().max()) < 0.02


def test_a_loss_for_classes_is_refused_where_a_value_is_predicted_and_the_other_way_round():
    with pytest.raises(
        ConfigError, match=r"training.loss is 'cross_entropy' .* the value 'dose' to predict; give 'squared_error'"
    ):
        check_loss(Recipe(), data())
    with pytest.raises(ConfigError, match="has 2 classes to predict; give 'cross_entropy'"):
        check_loss(
            Recipe(training=TrainingConfig(loss="squared_error")),
            data(torch.zeros(12, dtype=torch.long), None, ("no", "yes")),
        )
    student = Recipe(training=TrainingConfig(loss="squared_error"), regularization=RegularizationConfig(distillation=3))
    with pytest.raises(ConfigError, match="this model predicts a value; leave it out"):
        check_loss(student, data())
    with pytest.raises(ConfigError, match="no classes to spread it over"):
        squared_error(torch.nn.Linear(2, 1), (data().inputs, data().targets), RegularizationConfig(label_smoothing=0.1))
