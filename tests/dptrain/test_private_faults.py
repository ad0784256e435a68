"""Ways around the account: each of these once trained more than it counted, or counted for another."""

import dataclasses
import json
import math
import signal
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.clipping import Clipper
from dptrain.errors import CheckpointError, PlanError, ProtocolError
from dptrain.ledger import Ledger
from dptrain.noise import GaussianNoise
from dptrain.private import PrivateTraining
from dptrain.recipe import Performance, Recipe
from dptrain.trainer import Trainer
from tests.dptrain.test_private import PLAN, QUIET, dataset, run, training, weights

BINS = dataclasses.replace(PLAN, sampling="balls_in_bins")


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sum_in_half_precision_moves_by_no_more_than_c(dtype: torch.dtype):
    """Kept in bfloat16, a sum of a thousand gradients moved by 4 C when one joined it."""
    model = nn.Linear(4, 1, bias=False).to(dtype)
    clipper = Clipper(model, lambda module, batch: module(batch[0])[:, 0], 1.0)
    inputs = torch.full((1200, 4), 0.5, dtype=dtype)
    for count in (1001, 1003, 1200):
        apart = clipper.sum([(inputs[:count],)]).gradients["weight"] - clipper.sum([(inputs[: count - 1],)]).gradients["weight"]
        assert apart.dtype == torch.float32
        assert float(apart.norm()) <= 1 + 1e-3
    noised = GaussianNoise(1.0).add(clipper.sum([(inputs,)]))
    assert noised.gradients["weight"].dtype == torch.float32


def test_a_half_precision_model_trains():
    private = run(training(model=nn.Linear(5, 3).bfloat16(), data=[(x.bfloat16(), y) for x, y in dataset()]))
    assert private.steps_taken == 6
    assert bool(torch.isfinite(weights(private)).all())


def test_resuming_under_way_is_refused(tmp_path: Path):
    run(training()).save(tmp_path)
    private = training()
    private.step(next(private.batches()))
    with pytest.raises(ProtocolError, match="make_private"):
        private.resume(tmp_path)
    assert private.steps_taken == 1


def test_a_step_counts_before_its_weights_move():
    """Ctrl-C inside of the optimizer, or right behind it, cannot lose a step that was released."""

    private = training()
    private.optimizer.register_step_post_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    for released in (1, 2, 3):
        before = weights(private)
        with pytest.raises(KeyboardInterrupt):
            private.step(next(private.batches()))
        assert not torch.equal(weights(private), before)
        assert private.steps_taken == released == private._noise.draws


def test_a_step_inside_of_a_step_is_refused():
    private = training()
    batch = next(iterator := private.batches())
    private.optimizer.register_step_post_hook(lambda *_: private.step(batch))
    with pytest.raises(ProtocolError, match="inside of a step"):
        private.step(batch)
    iterator.close()
    assert private.steps_taken == private._noise.draws == 1


def test_only_one_optimizer_step_passes_a_step():
    private = training()
    private.optimizer.register_step_post_hook(lambda optimizer, *_: optimizer.step())
    with pytest.raises(ProtocolError, match="called directly"):
        run(private)


def test_gradients_of_a_backward_outside_never_reach_the_weights():
    one, other = training(QUIET, insecure_seed=1), training(QUIET, insecure_seed=1)
    for private in (one, other):
        for batch in private.batches():
            if private is other:
                other.model(torch.full((1, 5), 1e6)).sum().backward()
            private.step(batch)
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("change", ["freeze", "add", "replace"])
def test_a_model_or_optimizer_that_changes_under_way_is_refused(change: str):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    private = training(model=model)
    iterator = private.batches()
    private.step(next(iterator))
    before = weights(private)
    if change == "freeze":
        model[0].requires_grad_(False)
    elif change == "add":
        private.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    else:
        model[1] = nn.Linear(4, 3)
        before = weights(private)
    with pytest.raises(PlanError, match="optimizer"):
        private.step(next(iterator))
    assert torch.equal(weights(private), before)
    assert private.steps_taken == 1


def test_an_optimizer_with_a_past_is_refused():
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    with pytest.raises(PlanError, match="momentum"):
        make_private(model, optimizer, dataset(), PLAN, loss=per_example(F.cross_entropy))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda parameters: torch.optim.LBFGS(parameters), "several times a step"),
        (lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.1)), "lr as a tensor"),
    ],
)
def test_an_optimizer_that_cannot_be_stepped_or_saved_is_refused_at_once(optimizer, message: str):
    model = nn.Linear(5, 3)
    with pytest.raises(PlanError, match=message):
        make_private(model, optimizer(model.parameters()), dataset(), PLAN, loss=per_example(F.cross_entropy))


def test_a_second_training_of_the_same_model_is_refused():
    """Its card would state its own ε for weights on which the first one spent as well."""
    first = run(training())
    with pytest.raises(ProtocolError, match="another training"):
        run(training(model=first.model))


@pytest.mark.parametrize("plan", [PLAN, BINS])
def test_stopping_at_checkpoints_costs_nothing(plan: PrivacyPlan, tmp_path: Path):
    """Balls in bins drawn anew after each checkpoint would spend an epoch for each."""
    private = training(plan, ledger=tmp_path / "ledger.jsonl")
    for until in range(1, 7):
        run(private, until)
    assert private.epsilon() == plan.guarantee().epsilon
    assert Ledger(tmp_path / "ledger.jsonl").blocks() == [(plan, 0, 6)]


def test_a_batch_left_behind_comes_again():
    private = training()
    first = next(private.batches())
    with pytest.raises(ProtocolError, match="skipped"):
        list(private.batches())
    assert next(private.batches()) is first
    private.step(next(private.batches()))
    assert private.steps_taken == 1


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_batch_that_is_stepped_behind_its_iterator_was_announced(steps: int, tmp_path: Path):
    """Sharp edge 17. Each iterator ends before its batch is stepped, and what it leaves behind is spent all the same."""
    private = training(ledger=tmp_path / "ledger.jsonl")
    for _ in range(steps):
        batch = next(private.batches())
        assert sum(last - first for _, first, last in Ledger(tmp_path / "ledger.jsonl").blocks()) == batch.step + 1
        private.step(batch)
    assert Ledger(tmp_path / "ledger.jsonl").blocks() == [(PLAN, 0, steps)]
    run(private)
    assert Ledger(tmp_path / "ledger.jsonl").blocks() == [(PLAN, 0, 6)]


def test_a_batch_that_is_stepped_behind_a_break_was_announced(tmp_path: Path):
    private = training(ledger=tmp_path / "ledger.jsonl")
    for batch in private.batches():
        if private.steps_taken == 2:
            break
        private.step(batch)
    private.step(batch)  # pyright: ignore[reportPossiblyUnboundVariable]
    assert private.steps_taken == 3
    assert Ledger(tmp_path / "ledger.jsonl").blocks() == [(PLAN, 0, 3)]


def test_an_end_that_cannot_be_told_costs_a_warning_and_not_the_save_after_it(tmp_path: Path):
    path = tmp_path / "ledger.jsonl"
    private = training(ledger=path)
    batches = private.batches()
    private.step(next(batches))
    private.step(next(batches))
    path.write_text(path.read_text().replace("reserve", "reserved"))
    with pytest.warns(UserWarning, match="count as taken"):
        batches.close()
    private.save(tmp_path / "run")
    assert private.steps_taken == 2


def test_an_old_iterator_that_closes_late_settles_nothing(tmp_path: Path):
    private = training(ledger=tmp_path / "ledger.jsonl")
    old = private.batches(until=5)
    private.step(next(old))
    new = private.batches()
    private.step(next(new))
    old.close()
    for batch in new:
        private.step(batch)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert max(last for _, _, last in ledger.blocks()) == 6
    assert sum(last - first for _, first, last in ledger.blocks()) >= 6


def test_an_insecure_seed_marks_what_comes_of_it_for_good(tmp_path: Path):
    private = run(training(insecure_seed=7), 3)
    assert "fixed seed" in private.guarantee().statement
    private.save(tmp_path)
    resumed = training()
    resumed.resume(tmp_path)
    run(resumed).save(tmp_path)
    assert json.loads((tmp_path / "release" / "card.json").read_text())["insecure_randomness"] is True


def test_a_resume_with_the_same_insecure_seed_repeats_no_noise(tmp_path: Path):
    steps: list[torch.Tensor] = []
    empty = dataclasses.replace(PLAN, sampling_rate=1e-12, expected_batch_size=1e-9, delta=1e-4)

    def noise_of(private: PrivateTraining) -> torch.Tensor:
        before = weights(private)
        private.step(next(private.batches()))
        return weights(private) - before

    private = training(empty, insecure_seed=7)
    steps.append(noise_of(private))
    private.save(tmp_path)
    resumed = training(empty, insecure_seed=7)
    resumed.optimizer.param_groups[0]["momentum"] = 0.0
    resumed.resume(tmp_path)
    resumed.optimizer.param_groups[0]["momentum"] = 0.0
    steps.append(noise_of(resumed))
    assert float((steps[0] - steps[1]).norm()) > 0.1 * float(steps[0].norm())


def test_a_run_is_resumed_by_its_own_recipe_and_seed_alone(tmp_path: Path):
    from dptrain import data as datasets
    from dptrain.data.split import draw

    recipe = Recipe()
    recipe = dataclasses.replace(recipe, privacy=dataclasses.replace(recipe.privacy, epsilon=8.0))
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, steps=2))
    data = datasets.load(recipe.data)
    split = draw(len(data), recipe.data.split, 0)
    Trainer(recipe, data, split, seed=0, folder=tmp_path, progress=False).run()
    other = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, learning_rate=0.5))
    with pytest.raises(CheckpointError, match="another recipe"):
        Trainer(other, data, split, seed=0, folder=tmp_path, progress=False).run()
    with pytest.raises(CheckpointError, match="another seed"):
        Trainer(recipe, data, split, seed=1, folder=tmp_path, progress=False).run()
    Trainer(recipe, data, split, seed=0, folder=tmp_path, progress=False).run()


def test_the_published_digest_does_not_confirm_a_path():
    recipe = Recipe()
    moved = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path="/home/ann/clinic"))
    assert moved.digest() == recipe.digest()


def test_what_vmap_cannot_follow_is_said_in_a_sentence():
    class Branching(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) if float(input.sum()) > 0 else super().forward(-input)

    with pytest.raises(ProtocolError, match=r"Branching.*branch on no tensor|depends on the other examples"):
        run(training(model=Branching(5, 3), performance=Performance()))


@pytest.mark.parametrize("value", ["1e-5", None, True])
def test_a_plan_takes_numbers(value: object):
    with pytest.raises(PlanError, match=r"delta is .*; give a number"):
        dataclasses.replace(PLAN, delta=value)  # pyright: ignore[reportArgumentType]


def test_what_is_no_plan_or_no_seed_is_refused():
    with pytest.raises(PlanError, match="PrivacyPlan"):
        training("eps8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(PlanError, match="insecure_seed is -1"):
        training(insecure_seed=-1)


def test_a_delta_beyond_the_accountant_is_one_sentence():
    plan = PrivacyPlan(sampling_rate=0.01, expected_batch_size=10, steps=2000, clipping_norm=1.0, delta=1e-14)
    with pytest.raises(PlanError, match=r"delta|δ"):
        assert math.isfinite(plan.calibrate(epsilon=1).noise_multiplier)


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(5, 3)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_momentum_of_other_gradients_does_not_get_in():
    """Loaded before the first step, or written between two."""
    model, optimizer = parts()
    private = make_private(model, optimizer, dataset(), PLAN, loss=per_example(F.cross_entropy))
    other, plain = parts()
    other(torch.ones(2, 5)).sum().backward()
    plain.step()
    optimizer.load_state_dict(plain.state_dict())
    before = weights(private)
    with pytest.raises(ProtocolError, match="state of SGD"):
        private.step(next(private.batches()))
    assert torch.equal(weights(private), before)
    assert private.steps_taken == 0
    model, optimizer = parts()
    private = make_private(model, optimizer, dataset(), PLAN, loss=per_example(F.cross_entropy))
    for batch in private.batches(2):
        private.step(batch)
    next(iter(optimizer.state.values()))["momentum_buffer"].add_(1.0)
    with pytest.raises(ProtocolError, match="state of SGD"):
        run(private)


@pytest.mark.parametrize("steps", [1, 4])
def test_layers_may_be_set_free_and_frozen_under_way(steps: int):
    lower, upper = nn.Linear(5, 4), nn.Linear(4, 3)
    model = nn.Sequential(lower, nn.Tanh(), upper)
    lower.requires_grad_(False)
    optimizer = torch.optim.SGD(upper.parameters(), lr=0.1)
    private = make_private(model, optimizer, dataset(), PLAN, loss=per_example(F.cross_entropy))
    for batch in private.batches(steps):
        private.step(batch)
    first = lower.weight.clone()
    lower.requires_grad_(True)
    optimizer.add_param_group({"params": list(lower.parameters())})
    for batch in private.batches(steps + 1):
        private.step(batch)
    assert not torch.equal(lower.weight, first)
    run(private)
    assert private.steps_taken == PLAN.steps


class Center:
    """A loss with weights of its own."""

    def __init__(self) -> None:
        self.center = torch.zeros(3, requires_grad=True)
        self.own = torch.optim.SGD([self.center], lr=0.1)

    def __call__(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (model(batch[0]) - self.center.detach()).square().sum(1)


def test_weights_that_a_loss_object_learns_are_seen():
    center = Center()
    model, optimizer = parts()
    private = make_private(model, optimizer, dataset(), PLAN, loss=center)
    batches = private.batches()
    private.step(next(batches))
    (model(torch.ones(4, 5)) - center.center).square().sum().backward()
    center.own.step()
    with pytest.raises(ProtocolError, match=r"'loss\.center'"):
        private.step(next(batches))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": torch.relu}, "model is a builtin"),
        ({"optimizer": None}, "optimizer is None; give a torch.optim optimizer"),
        ({"loss": None}, "loss is None; give a function"),
        ({"loss": nn.CrossEntropyLoss()}, "per_example"),
        ({"loss": F.cross_entropy}, r"dptrain\.per_example\(cross_entropy\)"),
        ({"augment": 3}, "augment is a int"),
        ({"performance": {}}, "performance is a dict"),
    ],
)
def test_what_cannot_be_trained_with_is_said_before_anything_is_read(changed: dict[str, object], said: str):
    model, optimizer = parts()
    given = {"model": model, "optimizer": optimizer, "loss": per_example(F.cross_entropy)} | changed
    with pytest.raises(PlanError, match=said):
        make_private(given.pop("model"), given.pop("optimizer"), dataset(), PLAN, **given)  # pyright: ignore[reportArgumentType]


def test_a_loss_that_gives_a_number_is_told_what_to_give():
    model, optimizer = parts()
    private = make_private(model, optimizer, dataset(), PLAN, loss=lambda module, batch: 0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ProtocolError, match="gave a float"):
        run(private)


def test_a_ledger_may_be_named_by_a_text(tmp_path: Path):
    model, optimizer = parts()
    run(make_private(model, optimizer, dataset(), PLAN, loss=per_example(F.cross_entropy), ledger=str(tmp_path / "a.jsonl")))
    assert (tmp_path / "a.jsonl").exists()
