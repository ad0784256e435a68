"""An error says what was given, what is accepted, and the next thing to type."""

import pytest

from dptrain import errors
from dptrain.errors import ConfigError, DataError, UserError, nearest, unknown_name


@pytest.mark.parametrize("kind", ["ConfigError", "DataError", "PlanError", "CheckpointError", "ProtocolError"])
def test_every_error_is_a_value_error_for_scripts_and_a_user_error_for_the_command_line(kind: str):
    error = getattr(errors, kind)
    assert issubclass(error, UserError)
    assert issubclass(error, ValueError)


@pytest.mark.parametrize(
    ("given", "accepted", "answer"),
    [
        ("mlpp", ["mlp", "cnn"], "mlp"),
        ("Adge", ["Age", "Gender"], "Age"),
        ("transformer", ["mlp", "cnn"], None),
        ("", ["mlp"], None),
        ("mlp", [], None),
    ],
)
def test_nearest_offers_what_is_close_and_nothing_else(given: str, accepted: list[str], answer: str | None):
    assert nearest(given, accepted) == answer


def test_an_unknown_name_is_repeated_and_answered():
    error = unknown_name("model", "mpl", ["cnn", "mlp"])
    assert isinstance(error, ConfigError)
    assert str(error) == "there is no model 'mpl'; did you mean 'mlp'? accepted: cnn, mlp"


def test_a_far_name_gets_the_list_and_no_guess():
    message = str(unknown_name("model", "resnet", ["mlp", "cnn"]))
    assert "did you mean" not in message
    assert message.endswith("accepted: cnn, mlp")


def test_the_kind_of_error_is_the_callers():
    assert isinstance(unknown_name("column", "adge", ["age"], DataError), DataError)


def test_names_may_come_from_anything_that_can_be_walked_once():
    assert "did you mean 'mlp'?" in str(unknown_name("model", "mpl", iter(["mlp", "cnn"])))
