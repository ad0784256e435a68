"""What a private step costs beside an ordinary one, and which layers cost it.

All ways are run in turn, so that a busy machine slows all of them alike, and the median of each counts. On a CPU the clock
is the process's own CPU time; on an accelerator the wall clock, once the queue has run dry.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from dptrain.clipping import Clipper, Clipping
from dptrain.clipping.contributions import Contribution
from dptrain.clipping.fallback import PerExampleGradients, squares_of
from dptrain.clipping.onepass import OnePass
from dptrain.diagnosis.patient import Patient
from dptrain.diagnosis.result import LayerCost, StepCost
from dptrain.errors import UserError
from dptrain.noise import GaussianNoise

LEAST_ROUNDS = 2
MOST_ROUNDS = 9
PASSES = 3
"""Over which each layer's part is the median."""
LONG = 1.0
"""Seconds above which ``torch.func`` is not run a second time."""
TOO_MUCH_MEMORY = 1 << 30
"""Bytes of per-example gradients for which ``torch.func`` is not tried."""


class Clock:
    """Seconds of work for one device."""

    def __init__(self, device: torch.device):
        self._device = device
        self.name = "process CPU time" if device.type == "cpu" else "wall clock"

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.process_time() if self._device.type == "cpu" else time.perf_counter()


def medians(ways: Mapping[str, Callable[[], object]], clock: Clock, seconds: float) -> dict[str, float]:
    """Median seconds of each way, run in turn until the time is spent, twice at least; each was run before."""
    end = time.perf_counter() + seconds
    times: dict[str, list[float]] = {name: [] for name in ways}
    for taken in range(MOST_ROUNDS):
        if taken >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name, way in ways.items():
            before = clock.now()
            way()
            times[name].append(clock.now() - before)
    return {name: statistics.median(values) for name, values in times.items()}


def step(patient: Patient, clipping: Clipping, seconds: float) -> tuple[StepCost, Clipper]:
    """The cost of a step on the patient's whole batch, and the clipper that took it."""
    clock = Clock(next(iter(patient.parameters().values())).device)
    patient.renew()
    clipper, noise = Clipper(patient.model, patient.loss, clipping), GaussianNoise(1.0)
    parameters = list(patient.parameters().values())

    def ordinary() -> None:
        torch.autograd.grad(patient.loss(patient.model, patient.batch).mean(), parameters, allow_unused=True)

    def private() -> None:
        noise.add(clipper.sum([patient.batch], reuse=True))

    ways: dict[str, Callable[[], object]] = {"ordinary": ordinary, "private": private}
    ordinary()
    private()  # decides between the ways to the norms, once for all
    first = _torch_func_seconds(patient, clock) if clipper.method == "one pass" else None
    if first is not None and first < LONG:
        ways["torch.func"] = lambda: _torch_func(patient)
    found = medians(ways, clock, seconds)
    cost = StepCost(
        examples=patient.examples,
        ordinary_seconds=found["ordinary"],
        private_seconds=found["private"],
        torch_func_seconds=found.get("torch.func", first),
        clock=clock.name,
    )
    return cost, clipper


def _torch_func(patient: Patient) -> Tensor:
    gradients, _ = PerExampleGradients(patient.model, patient.loss)(dict(patient.parameters()), patient.batch)
    return squares_of(gradients)


def _torch_func_seconds(patient: Patient, clock: Clock) -> float | None:
    """Of one run; none where it cannot."""
    size = sum(value.numel() * value.element_size() for value in patient.parameters().values())
    if size * patient.examples > TOO_MUCH_MEMORY:
        return None
    before = clock.now()
    try:
        _torch_func(patient)
    except (UserError, RuntimeError, NotImplementedError):
        return None
    return clock.now() - before


def without(patient: Patient, names: list[str], clipping: Clipping, seconds: float) -> float | None:
    """How many times as long a private step takes with these modules' own weights as with them frozen; none where nothing
    else is trained."""
    modules = [patient.model.get_submodule(name) for name in names]
    stubborn = [value for module in modules for value in module.parameters(recurse=False) if value.requires_grad]
    if len(stubborn) == len(patient.parameters()):
        return None
    clock = Clock(stubborn[0].device)
    whole = Clipper(patient.model, patient.loss, clipping)
    whole.sum([patient.batch])
    rest = Clipper(patient.model, patient.loss, clipping)

    def frozen() -> None:
        for value in stubborn:
            value.requires_grad_(False)
        try:
            rest.sum([patient.batch])
        finally:
            for value in stubborn:
                value.requires_grad_(True)

    frozen()
    found = medians({"whole": lambda: whole.sum([patient.batch]), "frozen": frozen}, clock, seconds)
    return found["whole"] / max(found["frozen"], 1e-12)


def layers(patient: Patient, clipper: Clipper) -> tuple[LayerCost, ...]:
    """What each module's own trainable weights cost, the dearest first."""
    seconds, kept = _one_pass_costs(patient, clipper) if clipper.method == "one pass" else ({}, {})
    modules = dict(patient.model.named_modules())
    found: dict[str, list[str]] = {}
    for name in patient.parameters():
        found.setdefault(name.rpartition(".")[0], []).append(name)
    total = sum(seconds.values())
    costs = []
    for owner, names in found.items():
        numel = sum(patient.parameters()[name].numel() for name in names)
        whole = patient.examples * sum(_bytes(patient.parameters()[name]) for name in names)
        spent = sum(seconds.get(name, 0.0) for name in names) if seconds else None
        costs.append(
            LayerCost(
                name=owner,
                kind=type(modules[owner]).__name__ if owner in modules else "",
                parameters=numel,
                kept_bytes=sum(kept.get(name, 0) for name in names) if seconds else whole,
                seconds=spent,
                share=spent / total if spent is not None and total > 0 else None,
            )
        )
    return tuple(sorted(costs, key=lambda cost: (-(cost.seconds or 0.0), -cost.kept_bytes, cost.name)))


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _one_pass_costs(patient: Patient, clipper: Clipper) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds for norms and sum, and bytes that are kept for them, by parameter."""
    parameters = patient.parameters()
    clock = Clock(next(iter(parameters.values())).device)
    rounds: list[dict[str, float]] = []
    kept: dict[str, int] = {}
    spent: dict[str, float] = {}

    @contextmanager
    def observe(name: str) -> Iterator[None]:
        before = clock.now()
        yield
        spent[name] = spent.get(name, 0.0) + clock.now() - before

    one_pass = OnePass(patient.model, patient.loss, clipper.choice, observe)
    for _ in range(PASSES):
        spent.clear()
        patient.renew()
        done = one_pass(patient.batch)
        if done is None:
            return {}, {}
        factors = torch.ones(done.examples, device=done.losses.device)
        for name, part in done.contributions.items():
            kept[name] = _held(part)
            total = torch.empty_like(parameters[name])
            with observe(name), torch.no_grad():
                part.squared_norms()
                part.add_to(total, factors, True)
        rounds.append(dict(spent))
    return {name: statistics.median(spent.get(name, 0.0) for spent in rounds) for name in kept}, kept


def _held(part: Contribution) -> int:
    tensors = {value.untyped_storage().data_ptr(): value for value in vars(part).values() if isinstance(value, Tensor)}
    return sum(_bytes(value) for value in tensors.values())
