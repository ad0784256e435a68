"""Privacy in anyone's own loop: what reaches the optimizer was clipped, noised and charged."""

import copy
import dataclasses
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.clipping import Clipper
from dptrain.errors import CheckpointError, DataError, PlanError, ProtocolError, UserError
from dptrain.ledger import Ledger
from dptrain.private import Batch, PrivateTraining
from dptrain.recipe import Performance

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0)
QUIET = dataclasses.replace(PLAN, noise_multiplier=0.0)


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


def dataset(count: int = 40) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 5, generator=generator), torch.randint(3, (count,), generator=generator))


def training(plan: PrivacyPlan = PLAN, *, data: object = None, model: nn.Module | None = None, **options) -> PrivateTraining:
    torch.manual_seed(0)
    model = model if model is not None else nn.Linear(5, 3)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.5, momentum=0.9)
    loss = per_example(F.cross_entropy)
    return make_private(model, optimizer, dataset() if data is None else data, plan, loss=loss, **options)


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def weights(private: PrivateTraining) -> Tensor:
    return torch.cat([value.detach().flatten().clone() for value in private.model.parameters()])


def run(private: PrivateTraining, until: int | None = None) -> PrivateTraining:
    for batch in private.batches(until):
        private.step(batch)
    return private


def test_the_loop_of_the_readme_trains_and_states_its_epsilon(tmp_path: Path):
    private = run(training())
    assert private.steps_taken == 6
    assert private.epsilon() == PLAN.guarantee().epsilon
    assert "one example" in private.guarantee().statement
    private.save(tmp_path)
    card = json.loads((tmp_path / "release" / "card.json").read_text())
    assert card["guarantee"]["epsilon"] == private.epsilon()


def test_epsilon_is_of_the_steps_taken_and_not_of_the_plan():
    private = run(training(), until=2)
    assert private.epsilon() == PLAN.guarantee(2).epsilon < PLAN.guarantee().epsilon


def test_no_more_steps_than_planned():
    """Sharp edge 4."""
    private = run(training())
    assert list(private.batches()) == []


def test_every_weight_moves_and_nothing_else_does():
    """Sharp edge 8."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    for value in model[0].parameters():
        value.requires_grad_(False)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    run(training(model=model, insecure_seed=0), until=1)
    for name, value in model.named_parameters():
        assert bool((value != before[name]).all()) == name.startswith("2."), name


def test_empty_batch_releases_noise_only():
    """Sharp edge 5: one update, one step counted, noise alone; the sampler draws no example here."""
    rare = dataclasses.replace(PLAN, sampling_rate=1e-9, expected_batch_size=1e-9 * 40, delta=1e-3)
    private = run(training(rare), until=3)
    assert private.steps_taken == 3
    assert private.last_counts is not None
    assert private.last_counts.examples == 0
    assert bool(torch.isfinite(weights(private)).all())
    quiet = training(dataclasses.replace(rare, noise_multiplier=0.0))
    before = weights(quiet)
    run(quiet, until=1)
    assert torch.equal(before, weights(quiet))


def test_the_sum_is_divided_by_the_expected_batch_size():
    """Sharp edge 3: half of the batch size expected, twice the step; the number drawn has no part in it."""
    moved = []
    for expected in (20.0, 10.0):
        private = training(dataclasses.replace(QUIET, expected_batch_size=expected), insecure_seed=4)
        before = weights(private)
        batch = next(private.batches())
        clipper = Clipper(private.model, per_example(F.cross_entropy), QUIET.clipping_norm)
        total = flat(clipper.sum([dataset()[batch._positions]]).gradients)
        private.step(batch)
        assert private.last_counts is not None
        assert private.last_counts.examples == len(batch._positions) not in (10, 20)
        moved.append(weights(private) - before)
        torch.testing.assert_close(moved[-1], -0.5 * total / expected)
    torch.testing.assert_close(moved[1], 2 * moved[0])


def test_neither_rate_nor_batch_size_is_derived_from_the_data():
    """Sharp edge 2: twice the examples, the same plan, the same ε, and no N in the release."""
    few, many = training(data=dataset(40)), training(data=dataset(80))
    assert run(few).epsilon() == run(many).epsilon()
    assert few.card() == many.card()


def test_result_does_not_depend_on_the_physical_batch():
    """Sharp edge 9: and there is one noise draw an update."""
    results = []
    for size in (1, 7, 1000):
        private = training(QUIET, insecure_seed=1, performance=Performance(max_physical_batch=size))
        results.append(weights(run(private)))
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[1], results[2], rtol=1e-5, atol=1e-6)
    noisy = run(training(performance=Performance(max_physical_batch=1)))
    assert noisy._noise.draws == noisy.steps_taken == 6


def test_the_noise_of_an_update_has_the_planned_size():
    """σ C over the expected batch size, in the gradient that the optimizer saw (no momentum, learning rate 1, no data)."""
    model = nn.Linear(200, 200)
    plan = dataclasses.replace(PLAN, sampling_rate=1e-9, expected_batch_size=4e-8, noise_multiplier=2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    data = TensorDataset(torch.zeros(40, 200), torch.zeros(40, dtype=torch.long))
    private = make_private(model, optimizer, data, plan, loss=per_example(F.cross_entropy))
    before = model.weight.detach().clone()
    run(private, until=1)
    moved = (model.weight.detach() - before).double() * plan.expected_batch_size
    assert float(moved.std()) == pytest.approx(2.0 * 0.5, rel=0.02)


def test_nan_examples_neither_poison_the_weights_nor_show():
    """Sharp edge 6."""
    data = dataset()
    data.tensors[0][::3] = float("nan")
    private = run(training(data=data))
    assert bool(torch.isfinite(weights(private)).all())
    assert "non_finite" not in json.dumps(private.card())


def test_a_skipped_batch_is_refused():
    private = training()
    batches = private.batches()
    private.step(next(batches))
    next(batches)
    with pytest.raises(ProtocolError, match="skipped"):
        next(batches)


def test_a_batch_from_elsewhere_is_refused():
    """Sharp edge 1: a loader's own batch has no event."""
    private = training()
    loader = DataLoader(dataset(), batch_size=8, shuffle=True)
    with pytest.raises(ProtocolError, match=r"private\.batches\(\)"):
        private.step(next(iter(loader)))
    other = next(training().batches())
    next(private.batches())
    with pytest.raises(ProtocolError):
        private.step(other)


def test_the_plan_cannot_be_changed_under_way():
    private = run(training(), until=2)
    with pytest.raises(AttributeError):
        private.plan = dataclasses.replace(PLAN, noise_multiplier=50.0)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_training_cannot_be_copied():
    """Sharp edge 24."""
    with pytest.raises(ProtocolError, match="same noise"):
        copy.deepcopy(training())


def test_a_batch_is_stepped_once():
    private = training()
    for batch in private.batches(1):
        private.step(batch)
        with pytest.raises(ProtocolError):
            private.step(batch)
    assert private.steps_taken == 1


def test_stepping_the_optimizer_directly_is_refused():
    private = training()
    F.cross_entropy(private.model(torch.zeros(2, 5)), torch.zeros(2, dtype=torch.long)).backward()
    before = weights(private)
    with pytest.raises(ProtocolError, match="neither clipped nor noised"):
        private.optimizer.step()
    assert torch.equal(before, weights(private))


def test_no_private_gradient_is_left_for_anyone_to_read():
    private = run(training(), until=1)
    assert all(value.grad is None for value in private.model.parameters())


def test_a_loader_in_place_of_a_data_set_is_refused():
    """Sharp edge 2: nothing is derived from a loader, and none is silently replaced."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    for source in (DataLoader(dataset(), batch_size=4), Stream()):
        with pytest.raises(DataError, match="map-style"):
            training(data=source)


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="empty"):
        training(data=TensorDataset(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)))


def test_delta_is_checked_against_the_private_number_of_examples():
    """Sharp edge 16."""
    with pytest.raises(PlanError, match="below 1/N"):
        training(dataclasses.replace(PLAN, delta=9e-4), data=dataset(2000))


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(5),
        nn.BatchNorm1d(5, affine=False),
        nn.SyncBatchNorm(5),
        nn.InstanceNorm1d(5, track_running_stats=True),
    ],
)
def test_modules_that_keep_or_mix_examples_are_refused_by_name(module: nn.Module):
    """Sharp edge 7: also without a trainable parameter of their own, also frozen."""
    module.requires_grad_(False)
    with pytest.raises(PlanError, match=r"module '0' .*Norm"):
        training(model=nn.Sequential(module, nn.Linear(5, 3)))


def test_a_buffer_that_changes_in_a_step_is_refused():
    """Sharp edge 7: un-noised statistics would be in the state_dict."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            self.seen = self.seen + 1
            return self.linear(inputs)

    private = training(model=Counts(), performance=Performance(max_physical_batch=8))
    with pytest.raises(ProtocolError, match="'seen' changed"):
        run(private, until=2)


def test_weights_missing_from_the_optimizer_are_named():
    """Sharp edge 8."""
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    with pytest.raises(PlanError, match="bias"):
        make_private(model, optimizer, dataset(), PLAN, loss=per_example(F.cross_entropy))


def test_a_mistyped_option_is_an_error():
    """Sharp edge 21: no **kwargs swallows it."""
    with pytest.raises(TypeError, match="noise_multipler"):
        PrivacyPlan(sampling_rate=0.1, expected_batch_size=1, steps=1, clipping_norm=1, delta=1e-5, noise_multipler=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="max_grad_norm"):
        training(max_grad_norm=1.0)


def test_per_example_refuses_a_reduction():
    with pytest.raises(UserError, match="reduction"):
        per_example(F.cross_entropy, reduction="mean")


def test_resume_goes_on_exactly_where_it_was_without_noise(tmp_path: Path):
    whole_rate = dataclasses.replace(QUIET, sampling_rate=1.0, expected_batch_size=40)
    straight = weights(run(training(whole_rate)))
    run(training(whole_rate), until=3).save(tmp_path)
    resumed = training(whole_rate)
    assert resumed.resume(tmp_path) == 3
    assert torch.equal(weights(run(resumed)), straight)


def test_resume_draws_fresh_noise_and_keeps_the_account(tmp_path: Path):
    """Sharp edges 17 and 24."""
    run(training(), until=3).save(tmp_path)
    ends = []
    for _ in range(2):
        resumed = training()
        resumed.resume(tmp_path)
        run(resumed)
        assert resumed.epsilon() == pytest.approx(PLAN.guarantee().epsilon)
        ends.append(weights(resumed))
    assert not torch.equal(ends[0], ends[1])


def test_resume_in_the_middle_of_an_epoch_of_bins_charges_the_epoch_again(tmp_path: Path):
    plan = dataclasses.replace(PLAN, sampling="balls_in_bins")
    run(training(plan), until=3).save(tmp_path)
    resumed = training(plan)
    resumed.resume(tmp_path)
    assert run(resumed).epsilon() > plan.guarantee().epsilon


def test_resume_under_another_plan_is_refused(tmp_path: Path):
    run(training(), until=3).save(tmp_path)
    with pytest.raises(CheckpointError, match="noise_multiplier"):
        training(dataclasses.replace(PLAN, noise_multiplier=2.0)).resume(tmp_path)


def test_adam_moments_survive_a_resume(tmp_path: Path):
    plan = dataclasses.replace(QUIET, sampling_rate=1.0, expected_batch_size=40)

    def with_adam() -> PrivateTraining:
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return make_private(model, optimizer, dataset(), plan, loss=per_example(F.cross_entropy))

    straight = weights(run(with_adam()))
    run(with_adam(), until=2).save(tmp_path)
    resumed = with_adam()
    resumed.resume(tmp_path)
    assert torch.equal(weights(run(resumed)), straight)


def test_the_ledger_announces_steps_before_they_are_taken(tmp_path: Path):
    """Sharp edge 17."""
    path = tmp_path / "ledger.jsonl"
    private = training(ledger=path)
    batches = private.batches()
    next(batches)
    assert private.steps_taken == 0
    assert Ledger(path).blocks() == [(PLAN, 0, 6)]
    batches.close()
    assert Ledger(path).blocks() == [(PLAN, 0, 1)]  # a batch that is drawn can be stepped yet


def test_two_branches_spend_twice(tmp_path: Path):
    """Sharp edge 17."""
    path = tmp_path / "ledger.jsonl"
    run(training(ledger=path), until=3).save(tmp_path)
    for _ in range(2):
        branch = training(ledger=path)
        branch.resume(tmp_path)
        run(branch)
    blocks = [(first, last) for _, first, last in Ledger(path).blocks()]
    assert blocks == [(0, 3), (3, 6), (3, 6)]
    from dptrain.accounting import epsilon_prv

    assert epsilon_prv(Ledger(path).event(), PLAN.delta) > PLAN.guarantee().epsilon


def test_nothing_secret_is_in_the_release(tmp_path: Path):
    """Sharp edges 18 and 24: no optimizer state, no generator state, no member list, no seed."""
    run(training(insecure_seed=123456), until=3).save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == ["card.json", "manifest.json", "model.safetensors"]
    card = (tmp_path / "release" / "card.json").read_text()
    assert json.loads(card)["insecure_randomness"] is True
    assert "123456" not in card
    assert b"momentum" not in (tmp_path / "release" / "model.safetensors").read_bytes()


def test_clipping_without_noise_promises_nothing():
    private = run(training(QUIET))
    assert math.isinf(private.epsilon())
    assert "No differential privacy" in private.guarantee().statement


def test_a_batch_does_not_show_who_is_in_it():
    batch = next(training().batches())
    assert isinstance(batch, Batch)
    assert repr(batch) == "Batch(step=0)"
