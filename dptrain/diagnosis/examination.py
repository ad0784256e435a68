"""Runs every probe on a copy of the user's own model, and says what was found.

    import dptrain

    def loss(model, batch):                     # one value an example
        inputs, targets = batch
        return F.cross_entropy(model(inputs), targets, reduction="none")

    print(dptrain.doctor(model, loss, (inputs[:8], targets[:8])))

It takes seconds. What is found on a few examples holds for these: a model that looks at other examples only on Sundays is
not caught. The engine itself therefore goes on comparing, at each new shape, while it trains.
"""

import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dptrain.checks import check_model
from dptrain.clipping import Clipper, Clipping
from dptrain.clipping.fallback import LossFunction
from dptrain.diagnosis import behaviour, losses, timing
from dptrain.diagnosis.behaviour import Outcome
from dptrain.diagnosis.modules import blocking, named, replaced, scan
from dptrain.diagnosis.patient import Patient, examples_in, take
from dptrain.diagnosis.result import Diagnosis, Finding, LayerCost, StepCost, in_bytes
from dptrain.errors import PlanError, UserError
from dptrain.plan import PrivacyPlan

PROBED, FEWEST = 8, 4
"""Examples on which behaviour is looked at, and on which it is where one pass over them is slow. The whole batch is timed."""
SLOW = 0.2
"""Seconds of CPU time for one pass over the probed examples."""


def doctor(
    model: nn.Module,
    loss: LossFunction,
    example_batch: Any,
    *,
    plan: PrivacyPlan | None = None,
    fix: bool = False,
    seconds: float = 4.0,
) -> Diagnosis:
    """Examines a model and its loss before they are trained with privacy.

    Model, buffers, random numbers and training mode stay as they are: a copy is examined, in training mode.

    Args:
        loss: ``loss(model, batch)`` gives one value an example, ``[examples]``.
        example_batch: what the loss takes, for a few examples: 8 to look at, a real batch to time. They are read and not
            accounted for, so give public or made-up ones where the report will be seen by others.
        plan: gives the clipping norm; left out, the median length of the examples' gradients is taken.
        fix: examine a copy in which BatchNorm is replaced by GroupNorm and statistics of InstanceNorm are dropped; the
            diagnosis names the changes and holds the copy as ``fixed``.
        seconds: about how long to measure times.

    Raises:
        ProtocolError: the batch holds no tensors, or fewer than two examples.
        PlanError: nothing is trainable, the model cannot be copied, or ``plan`` is not one.
    """
    if not isinstance(model, nn.Module):
        raise PlanError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if not callable(loss):
        raise PlanError(f"loss is a {type(loss).__name__}; give a function of (model, batch), such as dptrain.per_example(...)")
    if plan is not None and not isinstance(plan, PrivacyPlan):
        raise PlanError(f"plan is {plan!r}; give a PrivacyPlan, or leave it out")
    examples = examples_in(example_batch)
    check_model(model, private=False)
    about = f"{type(model).__name__}, {examples} examples of {_shapes(example_batch)}"
    blocked = blocking(model)
    if blocked:
        return Diagnosis(about=about, findings=tuple(blocked), kept=())
    some = take(example_batch, range(min(PROBED, examples)))
    own = Patient(model, loss, some)
    model, changes = replaced(model) if fix else (model, ())
    few = Patient(model, loss, some) if fix else own
    visit = _Visit(few, plan)
    with own.alive(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)  # it is measured
        visit.findings += scan(model)
        if visit.look():
            whole = Patient(few.model, few.loss, example_batch) if examples > PROBED else few
            visit.measure(whole, seconds)
        if (touched := own.touched_original()) and not any("it is given" in finding.what for finding in visit.findings):
            visit.findings.append(_outside(touched))
    return Diagnosis(
        about=about,
        findings=tuple(visit.findings),
        kept=tuple(visit.kept),
        method=visit.method,
        step=visit.step,
        layers=visit.layers,
        changes=changes,
        fixed=model if fix else None,
    )


def _shapes(batch: Any) -> str:
    leaves = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    return " and ".join(f"{list(leaf.shape[1:])} {str(leaf.dtype).removeprefix('torch.')}" for leaf in leaves[:4])


def _outside(names: list[str]) -> Finding:
    what = f"the loss changes {', '.join(names[:4])} of a model other than the one that it is given"
    return Finding(severity="error", what=what, where="the loss", fix="use the loss's own argument, `model`")


BEHAVIOUR: dict[str, Callable[[Patient, Clipper], Outcome]] = {
    "weights": behaviour.weights,
    "chunk sizes": behaviour.chunks,
    "an empty batch": behaviour.empty,
    "NaN": behaviour.poisoned,
    "the engine": behaviour.engine,
}
"""Probes of a model whose examples are known to be computed each by itself."""


class _Visit:
    """What was found so far."""

    def __init__(self, patient: Patient, plan: PrivacyPlan | None):
        self.patient, self.plan = patient, plan
        self.precise = patient
        """In float64, where that can be had."""
        self.findings: list[Finding] = []
        self.kept: list[str] = []
        self.method = ""
        self.step: StepCost | None = None
        self.layers: tuple[LayerCost, ...] = ()
        self.clipping = Clipping(1.0)
        self.draws = False
        """Whether random numbers are drawn that the probes cannot switch off."""

    def look(self) -> bool:
        """Makes the probes of behaviour; whether the engine can be measured."""
        patient, seen_before = self.patient, self._errors()
        self._note("the loss", lambda: losses.shape(patient))
        if self._errors() > seen_before or not self._leave_out_non_finite():
            return False
        before = time.process_time()
        self._try("buffers", lambda: behaviour.buffers(patient))
        if time.process_time() - before > SLOW:
            patient.keep(range(min(FEWEST, patient.examples)))
        self.precise = patient.precise()
        apart = self._note("other examples", lambda: losses.influence(self.precise))
        if apart:
            last = self.precise.examples
            self.kept.append(f"other examples do not change an example's gradient (first and last of {last})")
        with self.patient.quiet(), self.precise.quiet():
            fit = apart and not self._errors()
            if not (fit and self._note("one example alone", lambda: losses.alone(self.precise)) and self._sizes_and_kinds()):
                self._try("unused weights", lambda: behaviour.unused(self.precise))
                return False
        return True

    def _errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def _leave_out_non_finite(self) -> bool:
        """Whether two examples remain whose loss is a number: 0 · NaN would speak for the others."""
        finite = torch.isfinite(self.patient.losses(self.patient.batch).detach()).nonzero().flatten().tolist()
        if len(finite) < self.patient.examples:
            what = f"{self.patient.examples - len(finite)} of {self.patient.examples} examples have a loss that is not finite"
            severity = "note" if len(finite) >= 2 else "error"
            fix = (
                "look at these examples: each contributes zero to every step"
                if severity == "note"
                else "give ordinary examples"
            )
            self.findings.append(Finding(severity=severity, what=what, fix=fix))
            self.patient.keep(finite)
        return len(finite) >= 2

    def _sizes_and_kinds(self) -> bool:
        """Batches of any size, examples of any kind. Whether an example's gradient is its own."""
        patient = self.precise
        self._set_clipping()
        clippers = {sight: behaviour.clipper_for(sight, self.clipping) for sight in (patient, self.patient)}
        self.draws = not self._note("random numbers", lambda: losses.draws(patient))
        if self.draws:
            self._try("weights", lambda: self._seen(behaviour.weights, clippers))
            return True
        if not self._note("the batch size", lambda: losses.batch_size(patient)):
            return False
        self.kept.append("an example's loss and gradient do not depend on the size of its batch")
        for what, probe in BEHAVIOUR.items():
            self._try(what, lambda probe=probe: self._seen(probe, clippers))
        return True

    def _seen(self, probe: Callable[[Patient, Clipper], Outcome], clippers: dict[Patient, Clipper]) -> Outcome:
        """In float64; or, where the engine's way does not lead there, as the model is."""
        try:
            return probe(self.precise, clippers[self.precise])
        except Exception:
            if self.precise is self.patient:
                raise
            return probe(self.patient, clippers[self.patient])

    def measure(self, whole: Patient, seconds: float) -> None:
        """Times a step on the whole batch, and says how it is computed."""
        try:
            self.step, clipper = timing.step(whole, self.clipping, seconds)
            self.method = clipper.method
            if clipper.method != "one pass":
                self._explain_fallback(whole, clipper, self.step, seconds)
            self.layers = timing.layers(whole, clipper)
        except (UserError, RuntimeError, NotImplementedError) as error:
            self._broken("a step on the whole batch", error)

    def _explain_fallback(self, whole: Patient, clipper: Clipper, cost: StepCost, seconds: float) -> None:
        memory = cost.examples * sum(value.numel() * value.element_size() for value in whole.parameters().values())
        costs = f"; a private step takes {cost.ratio:.1f} times as long as an ordinary one and keeps {in_bytes(memory)}"
        reason = clipper.method.removeprefix("torch.func: ")
        coarse = any(value.dtype.itemsize < 4 for value in whole.parameters().values())
        with self.patient.quiet():
            culprits = [] if self.draws or coarse else list(behaviour.unfit(self.patient))
        if not culprits:
            fix = "keep dropout to nn.Dropout layers, and the first dimension for the examples throughout"
            fix = "keep weights in float32: model.float()" if coarse else fix
            self.findings.append(Finding(severity="warning", what=f"left to torch.func: {reason}{costs}", fix=fix))
            return
        names = [name for name, _, _ in culprits]
        ratio = timing.without(whole, names, self.clipping, seconds / 2)
        if ratio is not None:
            costs += f": {ratio:.1f} times as long as with this module frozen"
        fix = "register a rule for it (dptrain.clipping.register_rule), or build it from torch's own layers"
        for name, module, why in culprits[:4]:
            what = f"left to torch.func, and all other layers with it: {why}{costs}"
            self.findings.append(Finding(severity="warning", what=what, where=named(name, module), fix=fix))

    def _set_clipping(self) -> None:
        bound = self.plan.clipping_norm if self.plan is not None else torch.inf
        relation = self.plan.relation if self.plan is not None else "add_or_remove_one"
        if bound == torch.inf:
            bound = behaviour.middle_norm(self.precise)
        self.clipping = Clipping(bound, relation=relation)

    def _note(self, what: str, probe: Callable[[], Iterable[Finding]]) -> bool:
        """Whether the probe found nothing worse than a note."""
        try:
            found = list(probe())
        except Exception as error:  # the user's own code may raise anything
            self._broken(what, error)
            return False
        known = {finding.where for finding in self.findings if finding.severity == "error"} - {""}
        self.findings += [
            finding
            for finding in found
            if finding not in self.findings and (finding.where not in known or finding.where == "the loss")
        ]
        return not found

    def _try(self, what: str, probe: Callable[[], Outcome]) -> None:
        outcome = Outcome()

        def findings() -> Iterable[Finding]:
            nonlocal outcome
            outcome = probe()
            return outcome.findings

        if self._note(what, findings) and outcome.kept:
            self.kept.append(outcome.kept)

    def _broken(self, what: str, error: Exception) -> None:
        said = " ".join(str(error).split())[:300]
        text = f"{what} could not be looked at: {type(error).__name__}: {said}"
        self.findings.append(Finding(severity="error", what=text, fix="call loss(model, batch) by itself, and mend it"))
