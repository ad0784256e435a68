"""Functions within functions are checked as all others are, though what checks them is written once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

from tests import typechecker


def defined(annotation: Any, returned: Any) -> Callable[..., Any]:
    def given(values: annotation, count: int = 3, *, other: annotation = None) -> returned:  # pyright: ignore[reportInvalidTypeForm]
        del other
        return values if count == 3 else values[0]

    return jaxtyped(given, typechecker=typechecker.checked)


def test_each_definition_is_checked_by_its_own_annotations():
    rows, numbers = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)
    square, tall = Float[Tensor, "n m"], Float[Tensor, "n"]
    for _ in range(2):
        same, less, whole = defined(square, square), defined(square, tall), defined(Int[Tensor, "n m"], Int[Tensor, "n m"])
        assert torch.equal(same(rows), rows)
        assert torch.equal(same(rows, other=rows), rows)
        assert torch.equal(whole(numbers), numbers)
        for wrong in (
            lambda same=same: same(numbers),
            lambda same=same: same(rows, "3"),
            lambda same=same: same(rows, other=torch.ones(3, 2)),
            lambda same=same: same(rows, 4),
            lambda less=less: less(rows),
            lambda whole=whole: whole(rows),
        ):
            with pytest.raises(TypeCheckError):
                wrong()


def test_what_checks_a_definition_is_written_once():
    def made() -> int:
        defined(Float[Tensor, "a b c"], Float[Tensor, "a b c"])
        return len(typechecker._made)

    assert made() == made()
    before = len(typechecker._made)
    defined(Float[Tensor, "a b"], Float[Tensor, "a b c"])
    assert len(typechecker._made) > before
