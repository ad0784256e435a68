"""What a step may and may not do besides clipping each example by itself.

Every probe gives its findings, and where there are none, the promise that holds in words. The engine is run as training
runs it: through :class:`~dptrain.clipping.Clipper`, on chunks.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dptrain.clipping import Chunk, ClippedSum, Clipper, Clipping
from dptrain.clipping.onepass import VERIFIED, OnePass
from dptrain.diagnosis.losses import COMPARED, tolerance
from dptrain.diagnosis.modules import named
from dptrain.diagnosis.patient import Patient, examples_in, take
from dptrain.diagnosis.result import Finding
from dptrain.recipe import Performance


@dataclass(frozen=True)
class Outcome:
    """What one probe found."""

    findings: tuple[Finding, ...] = ()
    kept: str = ""


def clipper_for(patient: Patient, clipping: Clipping) -> Clipper:
    return Clipper(patient.model, patient.loss, clipping, Performance(layout="contiguous"))


def clipped_sum(patient: Patient, clipper: Clipper, chunk: int, batch: Any = None) -> ClippedSum:
    """Of a batch in chunks of this many."""
    batch = patient.batch if batch is None else batch
    examples = examples_in(batch)
    patient.renew()
    return clipper.sum(take(batch, range(start, min(start + chunk, examples))) for start in range(0, examples, chunk))


def flat(total: ClippedSum) -> Tensor:
    return torch.cat([value.double().flatten() for value in total.gradients.values()])


def middle_norm(patient: Patient) -> float:
    """The median length of an example's gradient: a clipping norm at which some are clipped and some are not."""
    losses = patient.losses(patient.batch)
    norms = [float(patient.flat_gradient(loss).norm()) for loss in losses[:4]]
    finite = sorted(norm for norm in norms if math.isfinite(norm) and norm > 0)
    return finite[len(finite) // 2] if finite else 1.0


# -- what is left behind ----------------------------------------------------------------------------------------------


def buffers(patient: Patient) -> Outcome:
    """Nothing but the optimizer may change the model: an ordinary step and a private one are both watched."""
    losses = patient.losses(patient.batch)
    patient.flat_gradient(losses.sum())
    return _left_behind(patient) or Outcome(kept="buffers and weights are the same to the bit after a pass forward and back")


def _left_behind(patient: Patient) -> Outcome | None:
    found = []
    for name in patient.changed_tensors():
        owner, _, key = name.rpartition(".")
        where = named(owner, _module(patient.model, owner))
        if patient.is_buffer(name):
            what = f"buffer {name!r} changed during a step: it holds a statistic of private examples without noise"
            found.append(Finding(severity="error", what=what, where=where, fix=f"make its module keep none, or remove {key}"))
        else:
            what = f"weight {name!r} changed without the optimizer, so without noise"
            found.append(Finding(severity="error", what=what, where=where, fix="change no weight in forward()"))
    for name in patient.changed_attributes():
        owner, _, key = name.rpartition(".")
        what = f"attribute {key!r} changed during a step; what is computed from private examples there carries no noise"
        fix = "keep nothing from batch to batch; where it depends on no example, all is well"
        found.append(Finding(severity="warning", what=what, where=named(owner, _module(patient.model, owner)), fix=fix))
    return Outcome(tuple(found)) if found else None


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return model


def weights(patient: Patient, clipper: Clipper) -> Outcome:
    """One step of plain SGD with the clipped sum: every trainable weight moves, and no other does."""
    unused = _unused(patient)
    total = clipped_sum(patient, clipper, patient.examples)
    behind = _left_behind(patient)
    if behind is not None and any(finding.severity == "error" for finding in behind.findings):
        return behind
    parameters = patient.parameters()
    for name, gradient in total.gradients.items():
        parameters[name].grad = gradient.to(parameters[name].dtype)
    optimizer = torch.optim.SGD(parameters.values(), lr=1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    moved = set(patient.changed_tensors())
    patient.renew()
    found = list(unused)
    still = [name for name in parameters if name not in moved and not any(name == finding.where for finding in unused)]
    if still:
        what = "takes part in the loss, and its gradient is 0 for every example of this batch: noise alone would move it"
        fix = "nothing, where that passes (LoRA's first factor at the start); else look for dead units or a wrong mask"
        found += [Finding(severity="warning", what=what, where=name, fix=fix) for name in still]
    strange = sorted(moved - parameters.keys())
    if strange:
        what = "moved, and is not trainable"
        found += [Finding(severity="error", what=what, where=name, fix="freeze it for good, or train it") for name in strange]
    frozen = sum(not value.requires_grad for value in patient.model.parameters())
    kept = f"all {len(parameters)} trainable weights moved, and no other" + (f" ({frozen} are frozen)" if frozen else "")
    return Outcome(tuple(found), "" if found else kept)


def unused(patient: Patient) -> Outcome:
    """Trainable weights that the loss never reaches."""
    return Outcome(tuple(_unused(patient)))


def _unused(patient: Patient) -> list[Finding]:
    gradients = patient.gradient(patient.losses(patient.batch).sum())
    what = "trainable, and takes no part in the loss: noise alone would move it"
    fix = "use it in forward(), or freeze it: model.get_parameter({name!r}).requires_grad_(False)"
    return [
        Finding(severity="error", what=what, where=name, fix=fix.format(name=name))
        for name, value in gradients.items()
        if value is None
    ]


# -- batches of any size, examples of any kind ------------------------------------------------------------------------


def chunks(patient: Patient, clipper: Clipper) -> Outcome:
    """The clipped sum in chunks of 1, of 2 and in one."""
    whole = flat(clipped_sum(patient, clipper, patient.examples))
    length = max(float(whole.norm()), clipper.clipping.clipping_norm)
    apart = {size: float((flat(clipped_sum(patient, clipper, size)) - whole).norm()) / length for size in (1, 2)}
    size, worst = max(apart.items(), key=lambda item: item[1])
    if not worst <= tolerance(patient):
        what = f"the clipped sum in chunks of {size} differs from that of the whole batch by {worst:.2g} of its length"
        fix = "let nothing depend on len(batch) or on the other examples"
        return Outcome((Finding(severity="error", what=what, fix=fix),))
    return Outcome(kept=f"the result does not depend on the chunk size (1, 2, {patient.examples}: within {worst:.1e})")


def empty(patient: Patient, clipper: Clipper) -> Outcome:
    """No example at all, which Poisson sampling draws now and then; and a chunk of which no example is real."""
    patient.renew()
    nobody = torch.zeros(patient.examples, dtype=torch.bool)
    for chunk in ([], [Chunk(patient.batch, real=nobody)]):
        total = clipper.sum(chunk)
        if bool(flat(total).any()) or total.counts.examples:
            what = "an empty batch does not give a sum of zeros"
            return Outcome((Finding(severity="error", what=what, fix="this is a fault of dptrain: please report the model"),))
    return Outcome(kept="an empty batch gives a sum of zeros, to which noise is added like to any other")


def poisoned(patient: Patient, clipper: Clipper) -> Outcome:
    """One example is NaN: it contributes nothing, is counted, and leaves the others' part as it was."""
    victim = patient.examples - 1
    others = [i for i in range(patient.examples) if i != victim]
    clean = clipped_sum(patient, clipper, patient.examples, patient.rows(others))
    length = max(float(flat(clean).norm()), clipper.clipping.clipping_norm)
    for what, sick in (("inputs hold NaN", _sick_inputs(patient, victim)), ("loss is NaN", _sick_loss(patient, victim))):
        if sick is None:
            continue
        try:
            total = clipped_sum(sick, clipper_for(sick, clipper.clipping), patient.examples)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            said = " ".join(str(error).split())[:160]
            text = f"an example whose {what} stops the step, which tells that it was there: {type(error).__name__}: {said}"
            return Outcome((Finding(severity="error", what=text, fix="raise nothing that depends on an example's values"),))
        if not bool(torch.isfinite(flat(total)).all()):
            return Outcome((Finding(severity="error", what=f"an example whose {what} makes the sum non-finite"),))
        if total.counts.non_finite == 0:
            continue  # the model replaces NaN: that example is like any other
        apart = float((flat(total) - flat(clean)).norm()) / length
        if total.counts.non_finite > 1 or not apart <= tolerance(patient):
            text = f"an example whose {what} changes what others contribute ({total.counts.non_finite} of them became NaN)"
            return Outcome((Finding(severity="error", what=text, fix="let no example reach another, not even by 0 · NaN"),))
    return Outcome(kept="an example with NaN contributes zero, is counted, and changes no other")


class _Sick(Patient):
    """A patient whose batch, or loss, was tampered with."""

    def __init__(self, patient: Patient, batch: Any, loss: Any):
        self.__dict__.update(patient.__dict__)
        self.batch, self.loss = batch, loss


def _sick_inputs(patient: Patient, victim: int) -> Patient | None:
    def poison(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        leaf = leaf.clone()
        leaf[victim] = math.nan
        return leaf

    leaves = [leaf for leaf in pytree.tree_leaves(patient.batch) if isinstance(leaf, Tensor)]
    if not any(leaf.is_floating_point() for leaf in leaves):
        return None
    return _Sick(patient, pytree.tree_map(poison, patient.batch), patient.loss)


def _sick_loss(patient: Patient, victim: int) -> Patient:
    device = next(iter(patient.parameters().values())).device
    factors = torch.ones(patient.examples, device=device)
    factors[victim] = math.nan
    loss = patient.loss
    return _Sick(patient, (patient.batch, factors), lambda model, pair: loss(model, pair[0]) * pair[1])


# -- the engine -------------------------------------------------------------------------------------------------------


def engine(patient: Patient, clipper: Clipper) -> Outcome:
    """Gradients of single examples, picked out of a whole chunk's pass, beside ordinary autograd on each alone."""
    del clipper  # one that shortens nothing is used
    compared = sorted({0, patient.examples // 2, patient.examples - 1})[:COMPARED]
    alone = {i: patient.flat_gradient(patient.losses(patient.rows([i]))[0]) for i in compared}
    finite = {i: value for i, value in alone.items() if bool(torch.isfinite(value).all()) and bool(value.any())}
    if not finite:
        what = "no example of this batch has a finite gradient other than 0, so the engine could not be checked"
        return Outcome((Finding(severity="warning", what=what, fix="give a batch of ordinary examples"),))
    longest = max(float(value.norm()) for value in finite.values())
    patient.renew()
    clipper = clipper_for(patient, Clipping(4 * longest))
    worst = 0.0
    for index, truth in finite.items():
        only = torch.zeros(patient.examples, dtype=torch.bool)
        only[index] = True
        mine = flat(clipper.sum([Chunk(patient.batch, real=only)]))
        worst = max(worst, float((mine - truth).norm() / truth.norm()))
    if not worst <= tolerance(patient):
        what = f"the engine's gradient of an example differs from that of autograd on it alone by {worst:.2g} of its length"
        return Outcome((Finding(severity="error", what=what, fix="keep the first dimension for the examples throughout"),))
    return Outcome(kept=f"the engine equals one example at a time (largest relative error {worst:.1e}, {len(finite)} examples)")


def unfit(patient: Patient) -> list[tuple[str, nn.Module, str]]:
    """Modules whose own weights the one-pass engine cannot serve even where nothing else is trained, and why."""
    found: dict[str, tuple[nn.Module, str]] = {}
    trainable = set(patient.parameters().values())
    first = patient.rows(range(min(VERIFIED, patient.examples)))
    try:
        for name, module in patient.model.named_modules():
            own = [value for value in module.parameters(recurse=False) if value in trainable]
            if not own or any(name.startswith(f"{parent}.") for parent in found):
                continue
            for value in trainable:
                value.requires_grad_(any(value is mine for mine in own))
            patient.renew()
            one_pass = OnePass(patient.model, patient.loss)
            one_pass(first)
            if one_pass.reason:
                found[name] = (module, one_pass.reason)
    finally:
        for value in trainable:
            value.requires_grad_(True)
    return [(name, module, reason) for name, (module, reason) in found.items()]
