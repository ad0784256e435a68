"""What a ledger states is shown field by field, and of these data alone."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import dptrain.ledger
from recipes import spending


@dataclass
class Account:
    """Stands in for an account of the ledger, by its public names."""

    data: str

    def statement(self) -> SimpleNamespace:
        spent = SimpleNamespace(
            unit="example", relation="add_or_remove_one", delta=1e-5, runs=2, steps=60, epsilon=3.0, largest=2.0
        )
        selected = SimpleNamespace(name="s", runs=3, distribution="geometric", mean=2.0, epsilon=4.0, delta=1e-5, chosen="a")
        return SimpleNamespace(
            data=self.data, name="mine", entries=9, runs=3, without_guarantee=1, failed=0, unfinished=0, spent=(spent,),
            selected=(selected,), only_selected=(), limit_epsilon=8.0, limit_delta=1e-5,
        )  # fmt: skip


def test_the_account_of_these_data_and_no_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dptrain.ledger, "accounts", lambda: [Account("aa"), Account("bb")], raising=False)
    (found,) = spending.shown("bb")
    assert (found.data, found.entries, found.limit_epsilon) == ("bb", 9, 8.0)
    assert (found.spent[0].epsilon, found.spent[0].largest) == (3.0, 2.0)
    assert found.selected[0].chosen == "a"
    assert spending.shown("cc") == ()
    assert spending.shown("") == ()
