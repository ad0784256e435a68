"""Every rule of clipping bounds what one example can do, by example and by group, and the clipper states by how much."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dptrain.clipping import Chunk, ClippedSum, Clipper, Clipping
from dptrain.errors import ProtocolError
from dptrain.recipe import Performance
from tests.dptrain.test_clipping import flat

RULES = ("flat", "per_layer", "automatic")


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 6), nn.Tanh(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).double()


def rows(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = 2 * torch.randn(count, 1, 5, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (count,), generator=generator)


class Stubborn(nn.Module):
    """Computes the same as what it holds, by a function that only torch.func follows."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.hypot(self.inner(x).abs() + 1, self.scale)


def gradients(module: nn.Module, batch: Any) -> list[dict[str, Tensor]]:
    """One example at a time."""
    found = []
    parameters = dict(module.named_parameters())
    for index in range(len(batch[1])):
        one = tuple(part[index : index + 1] for part in batch)
        values = torch.autograd.grad(loss(module, one).sum(), list(parameters.values()))
        found.append(dict(zip(parameters, values, strict=True)))
    return found


def length(gradient: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in gradient.values()))


def by_hand(found: list[dict[str, Tensor]], rule: str, norm: float, stability: float = 0.01) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(value) for name, value in found[0].items()}
    layers = sorted({name.rpartition(".")[0] for name in total})
    for gradient in found:
        for name, value in gradient.items():
            layer = {key: item for key, item in gradient.items() if key.rpartition(".")[0] == name.rpartition(".")[0]}
            factor = {
                "flat": min(1.0, norm / length(gradient)),
                "per_layer": min(1.0, norm / math.sqrt(len(layers)) / length(layer)),
                "automatic": norm / (length(gradient) + stability),
            }[rule]
            total[name] += factor * value
    return total


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("norm", [0.05, 0.5, 50.0])
@pytest.mark.parametrize("stubborn", [False, True])
def test_each_rule_equals_its_formula(rule, norm: float, stubborn: bool):
    module, batch = (Stubborn(model()) if stubborn else model()), rows(7)
    clipper = Clipper(module, loss, Clipping(norm, rule))
    found = clipper.sum([tuple(part[:4] for part in batch), tuple(part[4:] for part in batch)])
    assert (clipper.method == "one pass") != stubborn
    truth = flat(by_hand(gradients(module, batch), rule, norm))
    torch.testing.assert_close(flat(found.gradients), truth, rtol=1e-10, atol=1e-10 * float(truth.norm()))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RULES), st.floats(1e-3, 1e3), st.floats(1e-4, 1e3), st.integers(0, 1000))
def test_no_example_changes_the_sum_by_more_than_the_sensitivity(rule, norm: float, scale: float, seed: int):
    """Sharp edge 12: whatever the rule, in float32 as it is used, by adding and by replacing."""
    module = model(seed).float()
    inputs, targets = rows(6, seed)
    batch = (scale * inputs.float(), targets)
    for relation, other in (("add_or_remove_one", 5), ("replace_one", 6)):
        clipper = Clipper(module, loss, Clipping(norm, rule, relation=relation))
        one = clipper.sum([tuple(part[:other] for part in batch)])
        two = clipper.sum([tuple(part[6 - other :] for part in batch)])
        if relation == "add_or_remove_one":
            two = clipper.sum([batch])
        moved = (flat(one.gradients) - flat(two.gradients)).double().norm()
        assert float(moved) <= one.sensitivity * (1 + 1e-5) + 1e-5 * norm


def test_the_clipper_states_twice_the_norm_where_an_example_is_replaced():
    """Sharp edge 12."""
    for relation, factor in (("add_or_remove_one", 1), ("zero_out_one", 1), ("replace_one", 2)):
        assert Clipper(model(), loss, Clipping(0.7, relation=relation)).sum([rows(2)]).sensitivity == 0.7 * factor


def grouped(found: list[dict[str, Tensor]], sizes: list[int]) -> list[dict[str, Tensor]]:
    averaged, start = [], 0
    for size in sizes:
        part = found[start : start + size]
        averaged.append({name: torch.stack([item[name] for item in part]).mean(0) for name in part[0]})
        start += size
    return averaged


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_group_is_averaged_and_clipped_as_one(rule, stubborn: bool):
    """Views of one example, or a user's examples: the gradient that is clipped is their mean."""
    module, batch = (Stubborn(model()) if stubborn else model()), rows(12)
    clipper = Clipper(module, loss, Clipping(0.3, rule))
    found = clipper.sum([Chunk(batch, group=3)])
    assert found.counts.examples == 4
    truth = flat(by_hand(grouped(gradients(module, batch), [3, 3, 3, 3]), rule, 0.3))
    torch.testing.assert_close(flat(found.gradients), truth, rtol=1e-10, atol=1e-10 * float(truth.norm()))


@pytest.mark.parametrize("stubborn", [False, True])
def test_groups_of_unequal_size_are_filled_with_rows_of_no_weight(stubborn: bool):
    module, batch = (Stubborn(model()) if stubborn else model()), rows(6)
    sizes = [3, 1, 2]
    take = torch.tensor([0, 1, 2, 3, 3, 3, 4, 5, 4])
    weights = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0, 0.0, 0.0, 0.5, 0.5, 0.0], dtype=torch.float64)
    filled = tuple(part[take] for part in batch)
    found = Clipper(module, loss, 0.3).sum([Chunk(filled, group=3, weights=weights)])
    truth = flat(by_hand(grouped(gradients(module, batch), sizes), "flat", 0.3))
    torch.testing.assert_close(flat(found.gradients), truth, rtol=1e-10, atol=1e-12)


def test_rows_that_are_no_whole_groups_are_refused():
    with pytest.raises(ProtocolError, match="whole groups of 4"):
        Clipper(model(), loss, 1.0).sum([Chunk(rows(6), group=4)])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_group_that_is_not_finite_contributes_nothing(rule, stubborn: bool, poison: float):
    """Sharp edge 6: one NaN takes out its whole group, in all layers, and nobody else."""
    module, batch = (Stubborn(model()) if stubborn else model()), rows(8)
    clipper = Clipper(module, loss, Clipping(0.3, rule))
    rest = clipper.sum([Chunk(tuple(torch.cat([part[:2], part[4:]]) for part in batch), group=2)])
    batch[0][2, 0, 1, 1] = poison
    found = clipper.sum([Chunk(batch, group=2)])
    assert (found.counts.non_finite, found.counts.examples) == (1, 4)
    torch.testing.assert_close(flat(found.gradients), flat(rest.gradients), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_only_fills_a_chunk_contributes_nothing_whatever_it_holds(stubborn: bool):
    module, batch = (Stubborn(model()) if stubborn else model()), rows(6)
    real = torch.tensor([True, True, True, True, False, False])
    clipper = Clipper(module, loss, 0.3)
    without = clipper.sum([tuple(part[:4] for part in batch)])
    for filling in (0.0, 1e30, math.nan):
        batch[0][4:] = filling
        found = clipper.sum([Chunk(batch, real=real)])
        torch.testing.assert_close(flat(found.gradients), flat(without.gradients), rtol=1e-10, atol=1e-12)
        assert found.counts.examples == 4
        assert found.counts.non_finite == 0
        assert found.counts.loss == pytest.approx(without.counts.loss)
    assert found.counts.clipped == without.counts.clipped


@pytest.mark.parametrize("way", ["measured", "ghost", "instantiated", "one by one", "unfolded", "rows", "grouped"])
def test_every_way_to_the_norms_gives_the_same(way):
    """What the performance config chooses among."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 4, stride=2, padding=1), nn.Tanh(), nn.Flatten(2), nn.Linear(16, 200), nn.Tanh()]
    module = nn.Sequential(*layers, nn.Linear(200, 100), nn.Flatten(), nn.Linear(400, 3)).double()
    generator = torch.Generator().manual_seed(1)
    batch = (torch.randn(5, 2, 8, 8, generator=generator, dtype=torch.float64), torch.randint(3, (5,), generator=generator))
    clipper = Clipper(module, loss, 0.4, Performance(norms=way))
    found = clipper.sum([batch])
    assert clipper.method == "one pass"
    truth = flat(by_hand(gradients(module, batch), "flat", 0.4))
    torch.testing.assert_close(flat(found.gradients), truth, rtol=1e-10, atol=1e-10)
    folded = clipper.sum([Chunk(tuple(part[:4] for part in batch), group=2)])
    truth = flat(by_hand(grouped(gradients(module, tuple(part[:4] for part in batch)), [2, 2]), "flat", 0.4))
    torch.testing.assert_close(flat(folded.gradients), truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", ["measured", "contiguous", "channels_last"])
def test_the_layout_changes_nothing(layout):
    module, batch = model(), rows(9)
    truth = flat(by_hand(gradients(module, batch), "flat", 0.4))
    found = Clipper(module, loss, 0.4, Performance(layout=layout)).sum([batch])
    torch.testing.assert_close(flat(found.gradients), truth, rtol=1e-10, atol=1e-10)


def test_a_sum_that_may_reuse_memory_leaves_others_alone():
    clipper, batch = Clipper(model(), loss, 0.4), rows(6)
    kept: ClippedSum = clipper.sum([batch])
    before = flat(kept.gradients).clone()
    first = clipper.sum([batch], reuse=True)
    again = clipper.sum([rows(6, seed=5)], reuse=True)
    assert first.flat is not None
    assert again.flat is not None
    assert first.flat.data_ptr() == again.flat.data_ptr()
    torch.testing.assert_close(flat(kept.gradients), before, rtol=0, atol=0)


def test_half_precision_is_clipped_and_summed_in_float32():
    """Sharp edge 19: under autocast the layers' outputs are bfloat16, and norms, factors and sums are not."""
    module, batch = model().float(), rows(32)
    inputs = batch[0].float()

    def autocast(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.cross_entropy(module(batch[0]).float(), batch[1], reduction="none")

    clipper = Clipper(module, autocast, 0.3)
    for count in (31, 32):
        one, other = (clipper.sum([(inputs[:n], batch[1][:n])]) for n in (count, count - 1))
        assert clipper.method == "one pass"
        assert all(value.dtype == torch.float32 for value in one.gradients.values())
        assert float((flat(one.gradients) - flat(other.gradients)).double().norm()) <= 0.3 * (1 + 1e-5)
    exact = Clipper(module, loss, 0.3).sum([(inputs, batch[1])])
    apart = flat(clipper.sum([(inputs, batch[1])]).gradients) - flat(exact.gradients)
    assert float(apart.norm()) <= 0.05 * float(flat(exact.gradients).norm())
