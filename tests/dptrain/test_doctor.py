"""The doctor finds each broken promise, names where, says what to type, and leaves the patient as it was."""

import copy
import importlib
import json
import pkgutil
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dptrain
from dptrain import Diagnosis, PrivacyPlan, per_example
from dptrain.diagnosis import Finding
from dptrain.diagnosis.patient import same_bits
from dptrain.errors import PlanError, ProtocolError

LOSS = per_example(F.cross_entropy)
PLAN = PrivacyPlan(sampling_rate=0.1, expected_batch_size=8, steps=3, clipping_norm=0.5, delta=1e-5)


def batch(examples: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(examples, 5, generator=generator), torch.randint(3, (examples,), generator=generator)


def images(examples: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(examples, 1, 6, 6), torch.randint(3, (examples,))


def small(*inside: nn.Module) -> Any:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), *inside, nn.Linear(8, 3))


def examine(model: nn.Module, loss=LOSS, example_batch=None, **options) -> Diagnosis:
    return dptrain.doctor(model, loss, batch() if example_batch is None else example_batch, seconds=0.0, **options)


def only_error(diagnosis: Diagnosis) -> Finding:
    assert not diagnosis.ok
    assert len(diagnosis.errors) == 1, str(diagnosis)
    return diagnosis.errors[0]


class Each(nn.Module):
    """Does something to its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# -- the healthy ------------------------------------------------------------------------------------------------------


def test_a_healthy_model_keeps_every_promise():
    diagnosis = examine(small(nn.Dropout(0.5), nn.LayerNorm(8)))
    assert diagnosis.ok
    assert diagnosis.findings == ()
    assert diagnosis.method == "one pass"
    text = " ".join(diagnosis.kept)
    for promise in ("other examples", "to the bit", "size of its batch", "weights moved", "chunk size", "empty batch", "NaN"):
        assert promise in text
    assert "engine equals one example at a time" in text


@pytest.mark.parametrize(
    ("model", "example_batch"),
    [
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3)), images()),
        (lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)), (torch.randint(9, (5, 5)), batch(5)[1])),
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)), batch()),
    ],
    ids=["convolution", "tokens, which cannot be NaN", "in place"],
)
def test_what_is_fine_is_not_complained_of(model, example_batch):
    diagnosis = examine(model(), example_batch=example_batch)
    assert [finding for finding in diagnosis.findings if "gradient is 0" not in finding.what] == []


def test_model_random_numbers_and_mode_are_left_as_they_were():
    """Even a BatchNorm that is run forward has the same statistics afterwards, and training goes on with the same draws."""
    last = nn.Linear(64, 3)
    last.weight.grad = torch.ones(3, 64)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), last).eval()
    data = images()
    before, kept = copy.deepcopy(model.state_dict()), copy.deepcopy(data)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    examine(model, example_batch=data)
    examine(model, example_batch=data, fix=True)
    assert all(same_bits(value, before[name]) for name, value in model.state_dict().items())
    assert all(same_bits(now, then) for now, then in zip(data, kept, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert str(np.random.get_state(legacy=False)) == str(states[2])  # noqa: NPY002
    assert not any(module.training for module in model.modules())
    assert all(value.requires_grad for value in model.parameters())
    assert bool(last.weight.grad.eq(1).all())


def test_the_name_stays_a_function_whatever_was_imported():
    """A submodule of that name would take its place when it is imported; there must be none."""
    for found in pkgutil.walk_packages(dptrain.__path__, "dptrain."):
        importlib.import_module(found.name)
    from dptrain import doctor
    from dptrain.diagnosis import doctor as same

    assert dptrain.doctor is doctor is same
    assert dptrain.doctor(small(), LOSS, batch(), seconds=0.0).ok


# -- examples that look at each other ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(8),
        nn.BatchNorm1d(8, affine=False),
        nn.BatchNorm1d(8).requires_grad_(False),
        nn.BatchNorm1d(8, track_running_stats=False),
        nn.SyncBatchNorm(8),
    ],
    ids=["trained", "affine-free", "frozen", "without statistics", "synchronised"],
)
def test_batch_norm_is_named_with_its_fix(norm: nn.Module):
    """Sharp edge 7: with or without weights, trained or frozen."""
    found = only_error(examine(small(norm)))
    assert found.where == f"2 ({type(norm).__name__})"
    assert "mixes the examples" in found.what
    assert "nn.GroupNorm" in found.fix


def test_a_module_that_subtracts_the_batch_mean_is_named():
    """Sharp edge 7: found by what it does, since nothing about its type tells."""
    found = only_error(examine(small(Each(lambda x: x - x.mean(0)))))
    assert found.where == "2 (Each)"
    assert "look at each other" in found.what


def test_a_layer_that_takes_time_for_the_batch_is_named():
    class Confused(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(8, 2), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(x, x, x, need_weights=False)[0]).mean(1)

    found = only_error(examine(Confused(), example_batch=(torch.randn(6, 4, 8), batch()[1])))
    assert found.where == "attention (MultiheadAttention)"
    assert "batch_first=True" in found.fix


def test_even_a_faint_leak_is_found():
    """One part in a million of another example's values, below what float32 would show."""
    found = only_error(examine(small(Each(lambda x: x + 1e-6 * x.roll(1, 0)))))
    assert found.where == "2 (Each)"


def test_a_gradient_that_mixes_where_no_value_does_is_found():
    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
            return gradient * (1 + ctx.saved_tensors[0].mean())

    assert "look at each other" in only_error(examine(small(Each(Through.apply)))).what


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, pair: F.cross_entropy(model(pair[0]) @ model(pair[0]).T, torch.arange(len(pair[0])), reduction="none"),
        lambda model, pair: LOSS(model, pair) / (1 + LOSS(model, pair).detach().std()),
        lambda model, pair: LOSS(model, pair) * torch.softmax(LOSS(model, pair), 0),
    ],
    ids=["contrastive", "hidden temperature", "softmax over the batch"],
)
def test_a_loss_over_the_batch_is_refused_with_the_reason(loss):
    found = only_error(examine(small(), loss))
    assert found.where == "the loss"
    assert "depends on the others" in found.what
    assert "loss of each example by itself" in found.fix


def test_nan_that_spreads_by_a_zero_factor_is_found():
    """Sharp edge 6: 0 · NaN of one example would take all others out of the sum; torch.func, to which the model is left, sees
    each example alone."""
    diagnosis = examine(small(Each(lambda x: x + 0 * x.sum(0))))
    assert any("depends on the other examples" in finding.what for finding in diagnosis.findings)


def test_an_example_that_is_not_finite_speaks_for_no_other():
    """0 · NaN in the very batch that is given must not look like a model that mixes."""
    inputs, targets = batch()
    inputs[2] = torch.nan
    diagnosis = examine(small(), example_batch=(inputs, targets))
    assert diagnosis.ok
    assert "1 of 6 examples" in diagnosis.findings[0].what
    inputs[1:] = torch.nan
    assert "5 of 6 examples" in only_error(examine(small(), example_batch=(inputs, targets))).what


def test_a_model_that_refuses_nan_is_found():
    def strict(x: Tensor) -> Tensor:
        if bool(x.isnan().any()):
            raise ValueError("NaN in the input")
        return x

    assert any("stops the step" in finding.what for finding in examine(small(Each(strict))).errors)


# -- what the loss gives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduced_loss_is_told_what_to_type(reduction: str):
    def loss(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(pair[0]), pair[1], reduction=reduction)

    found = only_error(examine(small(nn.Dropout(0.5)), loss))
    assert f"the {reduction} of its examples' own" in found.what
    assert "reduction='none'" in found.fix


def test_a_repeated_average_is_no_value_an_example():
    found = only_error(examine(small(), lambda model, pair: LOSS(model, pair).mean().expand(len(pair[0]))))
    assert "repeats one averaged value" in found.what


@pytest.mark.parametrize("divide", [lambda x: len(x), lambda x: len(x) ** 0.5], ids=["by n", "by its root"])
def test_a_loss_that_is_divided_by_the_batch_size_is_found(divide):
    """Whoever joins a batch would change everyone else's gradient, which no clipping bounds."""
    found = only_error(examine(small(), lambda model, pair: LOSS(model, pair) / divide(pair[0])))
    assert found.where == "the loss"
    assert "in a batch of 6, is" in found.what
    assert "do not divide" in found.fix


@pytest.mark.parametrize(
    ("loss", "fix"),
    [
        (lambda model, pair: model(pair[0]).square(), "flatten(1).mean(1)"),
        (lambda model, pair: model(pair[0]).square().flatten(), "each example's own 3"),
        (lambda model, pair: LOSS(model, pair).detach(), "no torch.no_grad()"),
        (lambda model, pair: LOSS(model, pair).tolist(), "reduction='none'"),
        (lambda model, pair: model(pair[0])[:, :1].square().squeeze(), ".squeeze(1)"),
        (lambda model, pair: LOSS(model, pair[:1] + pair[2:]), "by itself"),
    ],
    ids=["matrix", "flattened", "detached", "list", "squeezed away", "raises"],
)
def test_any_other_loss_is_told_what_to_type(loss, fix: str):
    assert fix in only_error(examine(small(), loss)).fix


def test_a_loss_that_uses_another_model_is_found_and_that_model_is_left_alone():
    model = small()
    assert "model that it is given" in only_error(examine(model, lambda _, pair: LOSS(model, pair))).what
    counting = small(nn.BatchNorm1d(8))
    before = copy.deepcopy(counting.state_dict())
    assert not examine(counting, lambda _, pair: LOSS(counting, pair)).ok
    assert not examine(counting, lambda _, pair: LOSS(counting, pair), fix=True).ok
    assert all(same_bits(value, before[name]) for name, value in counting.state_dict().items())


def test_a_batch_that_is_changed_in_place_is_found():
    def loss(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        pair[0].mul_(0.5)
        return LOSS(model, pair)

    assert any("changed in place" in finding.what for finding in examine(small(), loss).findings)


# -- what a step leaves behind ----------------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Keeps something from call to call."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.calls = how, 0
        self.weight = nn.Parameter(torch.ones(8))
        self.register_buffer("seen", torch.zeros(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if self.how == "buffer":
                self.seen += 1
            elif self.how == "weight":
                self.weight.mul_(0.99)
            elif self.how == "attribute":
                self.calls += 1
            elif self.how == "new buffer":
                self.register_buffer("fresh", x.detach().mean(0))
        return x * self.weight


@pytest.mark.parametrize(
    ("how", "name"), [("buffer", "'2.seen' changed"), ("weight", "'2.weight' changed"), ("new buffer", "'2.fresh' changed")]
)
def test_what_a_step_writes_into_the_model_is_named(how: str, name: str):
    """Sharp edge 7: to the bit, also of buffers that are in no state_dict or were not there before."""
    found = [finding for finding in examine(small(Keeps(how))).errors if finding.where == "2 (Keeps)"]
    assert name in found[0].what
    assert "without noise" in found[0].what


def test_an_attribute_that_changes_is_a_warning():
    diagnosis = examine(small(Keeps("attribute")))
    assert diagnosis.ok
    assert [(finding.severity, finding.where) for finding in diagnosis.findings] == [("warning", "2 (Keeps)")]
    assert "'calls'" in diagnosis.findings[0].what


def test_an_unused_layer_is_named_and_told_to_be_frozen_or_used():
    """Sharp edge 8."""
    model = small()
    model[0].spare = nn.Linear(2, 2)
    errors = examine(model).errors
    assert [finding.where for finding in errors] == ["0.spare.weight", "0.spare.bias"]
    assert "requires_grad_(False)" in errors[0].fix
    model.get_parameter("0.spare.weight").requires_grad_(False)
    model.get_parameter("0.spare.bias").requires_grad_(False)
    assert examine(model).ok


def test_a_weight_whose_gradient_happens_to_be_zero_is_a_warning():
    """LoRA's first factor does not move at the very first step, since its second one is zero."""
    model = small()
    nn.init.zeros_(model[2].weight)
    diagnosis = examine(model)
    assert diagnosis.ok
    assert {finding.where for finding in diagnosis.findings} == {"0.weight", "0.bias"}


# -- what a type tells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "severity", "what"),
    [
        (nn.Embedding(9, 4, max_norm=1.0), "error", "without noise"),
        (nn.Embedding(9, 4, scale_grad_by_freq=True), "error", "how often"),
        (nn.Embedding(9, 4, sparse=True), "note", "is dense"),
    ],
    ids=["max_norm", "scale_grad_by_freq", "sparse"],
)
def test_options_of_an_embedding_that_matter_are_named(table: nn.Embedding, severity: str, what: str):
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(20, 3))
    diagnosis = examine(model, example_batch=(torch.randint(9, (6, 5)), batch()[1]))
    found = [finding for finding in diagnosis.findings if finding.where == "0 (Embedding)"]
    assert [finding.severity for finding in found] == [severity]
    assert what in found[0].what
    assert diagnosis.ok == (severity != "error")


def test_an_instance_norm_with_statistics_is_named():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(), nn.Linear(64, 3))
    assert only_error(examine(model, example_batch=images())).where == "1 (InstanceNorm2d)"


def test_what_cannot_be_run_is_named_without_running_it():
    assert ".module" in only_error(examine(nn.DataParallel(small()))).fix
    assert "run the model once" in only_error(examine(nn.Sequential(nn.LazyLinear(3)))).fix


def test_half_precision_and_shared_weights_and_own_generators_are_told():
    half = examine(small().bfloat16(), example_batch=(batch()[0].bfloat16(), batch()[1]))
    assert "float32" in half.findings[0].fix
    tied = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    tied[2].weight = tied[0].weight
    assert [(f.severity, f.where) for f in examine(tied).findings] == [("note", "0.weight = 2.weight")]
    noisy = small()
    noisy.generator = torch.Generator()
    assert [f.severity for f in examine(noisy).findings] == ["warning"]


def test_draws_that_cannot_be_repeated_are_told():
    generator = np.random.default_rng(0)
    diagnosis = examine(small(Each(lambda x: x * float(generator.random()))))
    assert "with the same random seed" in diagnosis.findings[0].what
    assert not any("other examples do not" in promise for promise in diagnosis.kept)


def test_randomness_outside_of_dropout_layers_is_told_and_is_no_error():
    diagnosis = examine(small(Each(lambda x: F.dropout(x, 0.5))))
    assert diagnosis.ok
    assert "use nn.Dropout" in diagnosis.findings[0].fix
    assert diagnosis.step is not None


# -- replacements -----------------------------------------------------------------------------------------------------


def test_fix_replaces_batch_norm_and_gives_a_model_that_is_well():
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.weight, 2.0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(64, 3))
    diagnosis = examine(model, example_batch=images(), fix=True)
    assert diagnosis.ok, str(diagnosis)
    assert "BatchNorm2d" in diagnosis.changes[0]
    assert "GroupNorm" in diagnosis.changes[0]
    assert isinstance(model[1], nn.BatchNorm2d)
    fixed: Any = diagnosis.fixed
    assert isinstance(fixed[1], nn.GroupNorm)
    assert bool(fixed[1].weight.eq(2).all())


def test_fix_reaches_frozen_and_affine_free_norms():
    """Sharp edge 7: Opacus' own fix passes by what holds no trainable weight."""
    frozen = nn.BatchNorm1d(8).requires_grad_(False)
    diagnosis = examine(small(frozen, nn.BatchNorm1d(8, affine=False)), fix=True)
    assert diagnosis.ok, str(diagnosis)
    assert isinstance(diagnosis.fixed, nn.Sequential)
    assert [type(module) for module in diagnosis.fixed][2:4] == [nn.GroupNorm, nn.GroupNorm]
    assert not any(value.requires_grad for value in diagnosis.fixed[2].parameters())


def test_fix_does_not_silence_vectors():
    """One value a group, as Opacus' fixer has it for up to 32 features, normalises every vector to zeros."""
    diagnosis = examine(small(nn.BatchNorm1d(8)), fix=True)
    assert isinstance(diagnosis.fixed, nn.Sequential)
    with torch.no_grad():
        assert float(nn.Sequential(*list(diagnosis.fixed)[:3])(batch()[0]).std()) > 0.1


def test_fix_stops_instance_norm_from_writing_statistics():
    """Opacus' fixer turns the tracking off and leaves the buffers, which torch then still writes into."""
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(64, 3))
    diagnosis = examine(model, example_batch=images(), fix=True)
    assert diagnosis.ok, str(diagnosis)
    assert diagnosis.fixed is not None
    assert dict(diagnosis.fixed.named_buffers()) == {}


def test_fix_leaves_alone_what_is_fine_and_replaces_what_is_shared_once():
    norm = nn.BatchNorm1d(8)
    model = small(norm, nn.Linear(8, 8), norm, nn.LayerNorm(8))
    fixed = examine(model, fix=True).fixed
    assert isinstance(fixed, nn.Sequential)
    assert isinstance(fixed[2], nn.GroupNorm)
    assert fixed[2] is fixed[4]
    assert isinstance(fixed[5], nn.LayerNorm)
    healthy = examine(small(), fix=True)
    assert healthy.changes == ()
    assert "changed   nothing" in str(healthy)


def test_fix_of_a_model_that_is_a_norm_itself():
    diagnosis = examine(nn.BatchNorm1d(5), lambda model, pair: (model(pair[0]) - 1).pow(4).sum(1), fix=True)
    assert diagnosis.ok, str(diagnosis)
    assert isinstance(diagnosis.fixed, nn.GroupNorm)


# -- what it costs ----------------------------------------------------------------------------------------------------


class Window(nn.Module):
    """A convolution by hand, which no rule knows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x[:, None], self.weight, padding=1)[:, 0]


def test_the_module_that_is_left_to_torch_func_is_named_with_its_price():
    diagnosis = examine(small(Window()))
    assert diagnosis.ok
    assert diagnosis.method.startswith("torch.func: ")
    (found,) = diagnosis.findings
    assert (found.severity, found.where) == ("warning", "2 (Window)")
    assert "conv1d" in found.what
    assert "times as long as with this module frozen" in found.what
    assert "register_rule" in found.fix
    assert all(layer.share is None and layer.kept_bytes > 0 for layer in diagnosis.layers)


def test_every_layer_has_its_share_of_the_cost():
    diagnosis = examine(small(nn.LayerNorm(8)), example_batch=batch(32))
    assert diagnosis.step is not None
    assert diagnosis.step.examples == 32
    assert diagnosis.step.ratio == diagnosis.step.private_seconds / diagnosis.step.ordinary_seconds
    assert {layer.name for layer in diagnosis.layers} == {"0", "2", "3"}
    assert sum(layer.share or 0 for layer in diagnosis.layers) == pytest.approx(1)
    seconds = [layer.seconds or 0.0 for layer in diagnosis.layers]
    assert seconds == sorted(seconds, reverse=True)
    by_name = {layer.name: layer for layer in diagnosis.layers}
    # factors of a linear layer over one position (32 · (5 + 8) floats), its bias' gradients (32 · 8), norms of both (float64)
    assert by_name["0"].kept_bytes == 4 * 32 * (5 + 8 + 8) + 2 * 8 * 32
    assert by_name["0"].parameters == 48


# -- the report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [small(nn.BatchNorm1d(8)), small(Window()), small(Keeps("buffer"))])
def test_the_report_fits_a_terminal_and_names_every_finding(model: nn.Module):
    diagnosis = examine(model)
    text = str(diagnosis)
    assert max(len(line) for line in text.splitlines()) <= 100
    for finding in diagnosis.findings:
        assert finding.where in text
    assert json.loads(json.dumps(diagnosis.plain()))["ok"] == diagnosis.ok


# -- what cannot be examined ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "example_batch", "error", "message"),
    [
        (small(), ["text"], ProtocolError, "without tensors"),
        (small(), batch(1), ProtocolError, "at least 2"),
        (small(), (batch()[0], batch(5)[1]), ProtocolError, "5, 6 rows"),
        (small(), (batch()[0], torch.tensor(1.0)), ProtocolError, "first dimension"),
        (small().requires_grad_(False), batch(), PlanError, "no trainable parameter"),
        ("model", batch(), PlanError, "torch.nn.Module"),
    ],
    ids=["no tensors", "one example", "rows differ", "a plain number", "all frozen", "no model"],
)
def test_wrong_input_is_refused_with_the_reason(model, example_batch, error, message: str):
    with pytest.raises(error, match=message):
        examine(model, example_batch=example_batch)


def test_a_model_that_cannot_be_copied_is_refused():
    model = small()
    model.cached = model[0].weight * 2  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(PlanError, match=r"cannot be copied .* copy\.deepcopy"):
        examine(model)


def test_a_plan_gives_the_clipping_norm_and_nothing_else_is_taken_for_one():
    assert examine(small(), plan=PLAN).ok
    with pytest.raises(PlanError, match="give a PrivacyPlan"):
        examine(small(), plan=1.0)
