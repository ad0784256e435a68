"""A policy says what it holds, and a typo in it is never taken for no bound."""

from pathlib import Path

import pytest

from dptrain.errors import ConfigError
from dptrain.release.policy import DEFAULT, Policy, read


def test_a_file_is_read_as_it_says(tmp_path: Path):
    path = tmp_path / "policy.toml"
    path.write_text('maximum_epsilon = 8\nmaximum_tpr = 0.05\nrequired_attacks = ["membership.lira"]\nrequire_audit = true\n')
    found = read(path)
    assert found == Policy(maximum_epsilon=8.0, maximum_tpr=0.05, required_attacks=("membership.lira",), require_audit=True)
    assert set(found.bounds) == {"maximum_epsilon", "maximum_tpr", "required_attacks", "require_audit"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("maximum_epsilom = 8", "did you mean 'maximum_epsilon'"),
        ("[bounds]\nmaximum_epsilon = 8", "unknown key 'bounds'"),
        ("maximum_tpr = 1.5", "give a share from 0 to 1"),
        ("maximum_tpr = true", "maximum_tpr = True; give a number"),
        ("maximum_epsilon = nan", "give a number"),
        ("maximum_epsilon = -1", "give a number from 0 up"),
        ("maximum_delta = 1.0", "below 1"),
        ('required_attacks = "membership.lira"', "a list of names"),
        ("minimum_shadow_models = 3.5", "a whole number"),
        ("require_audit = 1", "true or false"),
        ('ledger_above_card = "stat"', "did you mean 'state'"),
        ("maximum_epsilon = ", "is not TOML"),
    ],
)
def test_what_is_no_policy_is_refused_in_a_sentence(text: str, said: str, tmp_path: Path):
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        read(tmp_path / "policy.toml")


def test_a_missing_file_is_not_the_default(tmp_path: Path):
    with pytest.raises(ConfigError, match="leave --policy out"):
        read(tmp_path / "gone.toml")


def test_the_default_bounds_epsilon_and_no_attack():
    assert DEFAULT.bounds == {"maximum_epsilon": 10.0}
