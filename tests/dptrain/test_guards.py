"""Ways in which a stated ε was false although every gradient was clipped and noised: each is refused now."""

import copy
import dataclasses
import functools
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain import guards, make_private
from dptrain.checkpoint import load_release
from dptrain.checks import check_fresh_optimizer, check_model, released
from dptrain.data.examples import Examples
from dptrain.errors import PlanError, ProtocolError
from dptrain.guards import StateWatch, check_augment, digest, modules_of
from dptrain.private import PrivateTraining
from dptrain.recipe import Performance
from tests.dptrain.test_private import PLAN, dataset, run, training, weights

WHOLE = dataclasses.replace(PLAN, sampling_rate=1.0, expected_batch_size=40)


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


class Writer(nn.Module):
    """A linear model whose forward pass writes what it sees into one of its tensors."""

    def __init__(self, what: str, quietly: bool = False):
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.center = nn.Parameter(torch.zeros(5), requires_grad=False)
        self.register_buffer("seen", torch.full((5,), float("nan")), persistent=False)
        self.what, self.quietly, self.on = what, quietly, True

    def forward(self, inputs: Tensor) -> Tensor:
        if self.on:
            target = {"frozen": self.center, "trainable": self.linear.bias, "buffer": self.seen}[self.what]
            seen = inputs.detach().sum() * torch.ones_like(target)
            with torch.no_grad():
                target.data.copy_(seen) if self.quietly else target.copy_(seen)
        return self.linear(inputs)


def trained_by(loss: Callable[..., Tensor], model: nn.Module | None = None, **options) -> PrivateTraining:
    torch.manual_seed(0)
    model = model or nn.Linear(5, 3)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    return make_private(model, optimizer, dataset(), WHOLE, loss=loss, **options)


def written_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.parametrize("quietly", [False, True], ids=["in place", "through .data"])
@pytest.mark.parametrize(("what", "name"), [("frozen", "center"), ("trainable", "linear.bias"), ("buffer", "seen")])
def test_what_a_forward_pass_writes_into_the_model_is_never_released(what: str, name: str, quietly: bool, tmp_path: Path):
    """Sharp edge 7: also a frozen centre, a trainable weight, a buffer of NaN that is not in the state_dict; and for good."""
    model = Writer(what, quietly)
    private = trained_by(written_loss, model)
    with pytest.raises(ProtocolError, match=f"'{name}' changed"):
        run(private)
    assert private.steps_taken == 0
    model.on = False
    with pytest.raises(ProtocolError, match=name):
        private.step(next(private.batches()))
    with pytest.raises(ProtocolError, match=name):
        private.save(tmp_path)
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("what", ["frozen", "trainable", "buffer"])
def test_a_forward_pass_of_the_user_after_the_last_step_is_seen_by_save(what: str, tmp_path: Path):
    model = Writer(what)
    model.on = False
    private = run(trained_by(written_loss, model))
    private.save(tmp_path / "before")
    model.on = True
    model(torch.ones(2, 5))
    with pytest.raises(ProtocolError, match="save"):
        private.save(tmp_path / "after")
    assert not (tmp_path / "after" / "release").exists()


def test_what_was_written_before_the_first_step_is_seen():
    """The baseline is what make_private() was given."""
    model = Writer("frozen")
    model.on = False
    private = trained_by(written_loss, model)
    with torch.no_grad():
        model.center.add_(1)
    with pytest.raises(ProtocolError, match="'center' changed"):
        run(private)


class Centred(nn.Module):
    """A loss that remembers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        outputs = model(batch[0])
        self.mean = self.mean + batch[1].float().sum()
        return F.cross_entropy(outputs, batch[1], reduction="none")

    def losses(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self(model, batch)


def closing_over(module: nn.Module) -> Callable[..., Tensor]:
    return lambda model, batch: module(model, batch)


REMEMBERS = Centred()


def by_a_global(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return REMEMBERS(model, batch)


@pytest.mark.parametrize("way", ["module", "method", "partial", "closure", "global"])
def test_a_loss_that_remembers_private_examples_is_refused(way: str):
    centred = REMEMBERS if way == "global" else Centred()
    loss = {
        "module": centred,
        "method": centred.losses,
        "partial": functools.partial(Centred.forward, centred),
        "closure": closing_over(centred),
        "global": by_a_global,
    }[way]
    assert modules_of(loss) == [centred]
    with pytest.raises(ProtocolError, match=r"'loss\.mean' changed"):
        run(trained_by(loss))


def test_two_modules_of_one_loss_are_told_apart():
    one, two = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    two.running_mean = torch.ones(2)
    StateWatch(nn.Linear(5, 3), lambda: (one, two)).check("a test", bits=True)


def test_a_loss_that_calls_itself_is_searched_once():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], again: bool = False) -> Tensor:
        return written_loss(model, batch) if again else loss(model, batch, True)

    assert modules_of(loss) == []
    assert run(trained_by(loss), until=1).steps_taken == 1


def test_a_weight_written_quietly_late_is_seen_where_the_bits_are_compared(monkeypatch: pytest.MonkeyPatch):
    """Content written through .data has no version; what is compared every so many steps is content."""
    monkeypatch.setattr("dptrain.private.BITS_EVERY", 5)
    model = nn.Linear(5, 3)
    private = trained_by(written_loss, model)
    run(private, until=5)
    model.bias.data[0] += 1
    with pytest.raises(ProtocolError, match="'bias' changed"):
        run(private)


@pytest.mark.parametrize("layout", ["channels_last", "measured"])
def test_the_layout_of_the_engine_is_no_change(layout: Literal["channels_last", "measured"], tmp_path: Path):
    """Buffers and frozen weights, too, are laid anew; their content is what it was."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (1, 5, 5)), nn.Conv2d(1, 4, 2), nn.Conv2d(4, 2, 2), nn.Flatten(), nn.Linear(18, 3))
    model[1].requires_grad_(False)
    model.register_buffer("frame", torch.randn(1, 4, 2, 2))
    data = TensorDataset(torch.randn(40, 25), torch.randint(3, (40,)))
    private = training(WHOLE, model=model, data=data, performance=Performance(layout=layout), average=0.9)
    run(private, until=4)
    with private.averaged():
        pass
    run(private).save(tmp_path)
    assert private.steps_taken == 6


def test_a_digest_is_of_content_alone():
    value = torch.randn(2, 3, 4, 4)
    assert digest(value) == digest(value.to(memory_format=torch.channels_last))
    assert digest(torch.tensor([float("nan")])) == digest(torch.tensor([float("nan")]))
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))
    assert digest(torch.zeros(2, 3)) != digest(torch.zeros(3, 2))
    for kind in (torch.bool, torch.bfloat16, torch.complex64, torch.int64, torch.complex128):
        assert digest(torch.ones(3).to(kind)) != digest(torch.zeros(3).to(kind))
    assert digest(torch.eye(3).to_sparse()) == digest(torch.eye(3).to_sparse()) != digest(torch.ones(3, 3).to_sparse())


def test_a_buffer_replaced_twice_is_seen_although_its_address_returns():
    """Two chunks write it, and the allocator gives the second the first one's place."""
    model = nn.Linear(5, 3)
    model.register_buffer("count", torch.zeros(1))
    watch = StateWatch(model, None)
    for value in (1.0, 2.0):
        model.count = torch.full((1,), value)
    with pytest.raises(ProtocolError, match="'count' changed in a test"):
        watch.check("a test", bits=False)


# -- what is uncounted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 5])
def test_a_second_optimizer_moves_nothing_uncounted(steps: int, tmp_path: Path):
    private = run(training(), until=steps)
    other = torch.optim.SGD(private.model.parameters(), lr=0.1)
    F.cross_entropy(private.model(torch.ones(2, 5)), torch.zeros(2, dtype=torch.long)).backward()
    other.step()
    for do in (lambda: private.step(next(private.batches())), lambda: private.save(tmp_path)):
        with pytest.raises(ProtocolError, match="no second optimizer"):
            do()


def test_averaged_hides_no_foreign_step():
    private = run(training(average=0.9), until=5)
    with torch.no_grad():
        private.model.weight.add_(1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ProtocolError, match="'weight' changed"), private.averaged():
        pass


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_model_and_optimizer_are_given_once(name: str):
    private = training()
    with pytest.raises(AttributeError):
        setattr(private, name, getattr(training(), name))


def test_a_resumed_training_goes_on_and_is_watched(tmp_path: Path):
    run(training(average=0.9), until=5).save(tmp_path)
    private = training(average=0.9)
    private.resume(tmp_path)
    before = weights(private)
    run(private).save(tmp_path)
    assert not torch.equal(before, weights(private))
    with torch.no_grad():
        private.model.bias.add_(1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ProtocolError, match="'bias' changed"):
        private.save(tmp_path)


@pytest.mark.parametrize("way", ["sequential", "compile", "two heads", "frozen"])
def test_weights_of_another_training_are_known_in_any_wrapping(way: str):
    """Sharp edge 17: the second one's ε would leave out what the first one spent on the same weights."""
    backbone = nn.Linear(5, 3)
    run(training(model=backbone), until=1)
    if way == "frozen":
        backbone.requires_grad_(False)
    second = {
        "sequential": lambda: nn.Sequential(backbone),
        "compile": lambda: torch.compile(backbone),
        "two heads": lambda: nn.Sequential(backbone, nn.Linear(3, 3)),
        "frozen": lambda: nn.Sequential(backbone, nn.Linear(3, 3)),
    }[way]()
    with pytest.raises(ProtocolError, match="another training"):
        run(training(model=second), until=1)
    run(training(model=copy.deepcopy(nn.Sequential(backbone, nn.Linear(3, 3)))), until=1)


def test_a_mark_goes_with_its_parameter():
    model = nn.Linear(5, 3)
    guards.claim(model.parameters(), object())
    held = [id(value) for value in model.parameters()]
    assert all(key in guards._TRAINED_BY for key in held)
    del model
    assert not any(key in guards._TRAINED_BY for key in held)


# -- what is released -------------------------------------------------------------------------------------------------


def test_a_state_that_is_no_tensor_of_the_model_is_refused():
    class Extra(nn.Linear):
        def get_extra_state(self) -> Tensor:
            return torch.ones(1)

    with pytest.raises(PlanError, match=r"module '0' \(Extra\) .*get_extra_state"):
        training(model=nn.Sequential(Extra(5, 3)))


def test_only_parameters_and_persistent_buffers_are_released(tmp_path: Path):
    model = nn.Sequential(nn.Linear(5, 3), nn.Identity())
    model[1].register_buffer("kept", torch.ones(2))
    model[1].register_buffer("transient", torch.ones(2), persistent=False)
    assert set(released(model)) == set(model.state_dict()) == {"0.weight", "0.bias", "1.kept"}
    private = training(model=model)
    model.register_state_dict_post_hook(lambda module, state, *_: state.update(members=torch.arange(40)))
    run(private, until=1).save(tmp_path)
    assert set(load_release(tmp_path / "release")[0]) == {"0.weight", "0.bias", "1.kept"}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_weights_that_get_no_noise_in_each_part_are_refused(dtype: torch.dtype):
    model = nn.Linear(5, 3, dtype=dtype)
    with pytest.raises(PlanError, match=r"parameter 'weight' is of the type torch\.complex"):
        check_model(model, private=True)
    model.requires_grad_(False)
    check_model(nn.Sequential(model, nn.Linear(3, 3)), private=True)


def test_a_state_that_no_step_was_made_with_is_fresh():
    model = nn.Linear(5, 3)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    check_fresh_optimizer(optimizer)
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    with pytest.raises(PlanError, match="already holds state"):
        check_fresh_optimizer(optimizer)


# -- augmentation -----------------------------------------------------------------------------------------------------

Pair = tuple[Tensor, Tensor]


def mixup(batch: Pair) -> Pair:
    order = torch.randperm(len(batch[0]))
    return 0.7 * batch[0] + 0.3 * batch[0][order], batch[1]


def standardised(batch: Pair) -> Pair:
    return (batch[0] - batch[0].mean(0)) / (batch[0].std(0) + 1e-3), batch[1]


def sometimes_rolled(batch: Pair) -> Pair:
    return (batch[0] + batch[0].roll(1, 0) if random.random() < 0.5 else batch[0]), batch[1]


def labels_mixed(batch: Pair) -> Pair:
    return batch[0], batch[1].flip(0)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("augment", [mixup, standardised, sometimes_rolled, labels_mixed])
def test_an_augmentation_in_which_examples_look_at_each_other_is_refused(augment, views: int):
    with pytest.raises(PlanError, match="augment each row by itself"):
        training(augment=augment, views=views)


@pytest.mark.parametrize("augment", [lambda batch: (batch[0][1:], batch[1][1:]), lambda batch: (batch[0].sum(), batch[1])])
def test_an_augmentation_gives_as_many_rows(augment):
    with pytest.raises(PlanError, match="augment was given"):
        training(augment=augment)


def jittered(batch: Pair) -> Pair:
    shift = torch.randn(len(batch[0]), 1) + float(np.random.rand()) + random.random()  # noqa: NPY002
    batch[0].add_(shift)
    return batch


def seed_all() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_an_augmentation_of_each_row_by_itself_is_tried_and_leaves_no_trace(count: int):
    """Neither in the examples, nor in the user's generators."""
    data = dataset(count)
    data.tensors[0][0, 0] = float("nan")
    before = [tensor.clone() for tensor in data.tensors]
    seed_all()
    check_augment(jittered, Examples(data), 2)
    drawn = float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002
    seed_all()
    assert drawn == (float(torch.rand(1)), float(np.random.rand()), random.random())  # noqa: NPY002
    assert all(digest(one) == digest(other) for one, other in zip(before, data.tensors, strict=True))


def test_an_augmentation_of_text_and_pictures_by_name_is_tried():
    rows = [{"text": f"row {index}", "picture": torch.full((2,), float(index))} for index in range(20)]
    check_augment(lambda batch: {**batch, "text": [text.upper() for text in batch["text"]]}, Examples(rows), 2)
    with pytest.raises(PlanError, match="augment each row by itself"):
        check_augment(lambda batch: {**batch, "text": batch["text"][::-1]}, Examples(rows), 2)


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_the_same_people_in_another_order_are_other_examples():
    """Ranks of one training draw by position."""
    data = dataset()
    assert Examples(data).facts == Examples(dataset()).facts
    assert Examples(data).facts != Examples(data, np.arange(40)[::-1]).facts
    order = torch.arange(39, -1, -1)
    assert Examples(data).facts != Examples(TensorDataset(*(tensor[order] for tensor in data.tensors))).facts


def test_the_statement_assumes_that_examples_do_not_look_at_each_other():
    statement = run(training(), until=1).guarantee().statement
    assert "examples do not look at each other, in model, loss and augmentation" in statement


def test_a_draw_that_was_cut_off_is_not_drawn_again(tmp_path: Path):
    """Sharp edge 1: another batch in its place is not what the plan drew; and what was released can still be saved."""
    private = run(training(), until=2)

    def cut_off():
        raise KeyboardInterrupt
        yield

    private._stream = cut_off()
    with pytest.raises(KeyboardInterrupt):
        next(private.batches())
    with pytest.raises(ProtocolError, match=r"save\(\).*resume\(\)"):
        next(private.batches())
    private.save(tmp_path)
    resumed = training()
    assert resumed.resume(tmp_path) == 2
    assert run(resumed).steps_taken == 6
