"""One value an example, whoever else is in the batch and however many they are.

Clipping bounds what one example contributes. That is a bound on what it *changes* only where the gradient g_i of example i
is a function of example i and the weights alone. Two things break it: a value that looks at the other examples (a batch
norm, a contrastive loss, a temperature taken from the batch), and one that looks at how many there are (a loss divided by
the batch size). Both are looked for by ordinary autograd, not by the engine: the same example, beside others; and alone.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dptrain.clipping.onepass import HALF_TOLERANCE
from dptrain.diagnosis.modules import named
from dptrain.diagnosis.patient import Call, Patient, examples_in, same_bits
from dptrain.diagnosis.result import Finding

PER_EXAMPLE = (
    "give one value an example, with reduction='none': dptrain.per_example(torch.nn.functional.cross_entropy), or "
    "F.cross_entropy(model(inputs), targets, reduction='none')"
)
SAME_SHAPE = {torch.float32: 1e-5, torch.float64: 1e-9}
"""Largest relative difference of a gradient between two batches of one shape: they go through the same arithmetic."""
ALONE = {torch.float32: 1e-2, torch.float64: 1e-6}
"""The same between an example alone and in a batch. Deep networks amplify rounding, and an activation may fall to the other
side of a kink; what looks at the batch changes more than that."""
COMPARED = 3
"""Examples that are also computed alone."""


def tolerance(patient: Patient) -> float:
    """Largest relative difference between an example alone and in a batch that rounding explains."""
    dtype = _coarsest(patient)
    return HALF_TOLERANCE if patient.computes_in_half else ALONE.get(dtype, HALF_TOLERANCE)


def _coarsest(patient: Patient) -> torch.dtype:
    return min((value.dtype for value in patient.parameters().values()), key=lambda dtype: dtype.itemsize)


def _same_shape(patient: Patient) -> float:
    return SAME_SHAPE.get(_coarsest(patient), SAME_SHAPE[torch.float32])


# -- what the loss gives ----------------------------------------------------------------------------------------------


def shape(patient: Patient) -> list[Finding]:
    """Whether the loss gives one differentiable value an example, and leaves the batch as it is."""
    handed = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, patient.batch)
    losses = patient.losses(handed)
    found = _shape_of(patient, losses, patient.examples)
    if found:
        return found
    if not losses.requires_grad or all(value is None for value in patient.gradient(losses.sum()).values()):
        what = "the loss does not depend on any trainable weight of the model that it is given"
        fix = "use the loss's own argument, `model`, not one from outside; and no torch.no_grad() or .detach() on the way"
        return [Finding(severity="error", what=what, fix=fix)]
    changed = zip(pytree.tree_leaves(handed), pytree.tree_leaves(patient.batch), strict=True)
    if any(isinstance(now, Tensor) and not same_bits(now, before) for now, before in changed):
        what = "the batch is changed in place while its loss is computed"
        return [Finding(severity="warning", what=what, fix="write x = x * 2 instead of x *= 2 for what comes from the batch")]
    return []


def alone(patient: Patient) -> list[Finding]:
    """Whether one example is enough for a value."""
    try:
        losses = patient.losses(patient.rows([0]))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        what = f"the loss cannot be computed for one example alone: {_said(error)}"
        fix = "keep the first dimension for the examples throughout; nothing may need a second example"
        return [Finding(severity="error", what=what, fix=fix)]
    return _shape_of(patient, losses, 1)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _shape_of(patient: Patient, losses: Any, examples: int) -> list[Finding]:
    if not isinstance(losses, Tensor):
        what = f"the loss gives a {type(losses).__name__}, not a tensor with one value an example"
        return [Finding(severity="error", what=what, fix=PER_EXAMPLE)]
    if tuple(losses.shape) == (examples,):
        return []
    given = f"the loss gives a tensor of shape {tuple(losses.shape)} for {examples} example{'s' if examples > 1 else ''}"
    if losses.dim() == 0 and examples > 1:
        return [Finding(severity="error", what=f"the loss gives one number, {_reduction(patient)}", fix=PER_EXAMPLE)]
    if losses.dim() == 0:
        fix = "name the dimension: .squeeze(1), not .squeeze(), which also takes away a batch of one"
    elif losses.dim() > 1 and len(losses) == examples:
        fix = "average over what follows the examples: losses.flatten(1).mean(1)"
    elif losses.dim() == 1 and losses.numel() % examples == 0:
        fix = f"sum or average over each example's own {losses.numel() // examples}: losses.view(len(inputs), -1).mean(1)"
    else:
        fix = PER_EXAMPLE
    return [Finding(severity="error", what=given, fix=fix)]


def _reduction(patient: Patient) -> str:
    """In words, what a single number is to the examples' own losses."""
    try:
        with patient.quiet():
            whole = patient.losses(patient.batch)
            alone = [patient.losses(patient.rows([i])) for i in range(patient.examples)]
        each = torch.stack([value.detach().double().mean() for value in alone])
    except Exception:  # a user's loss for one example: it need not work
        return "averaged or summed"
    for word, value in (("the mean of its examples' own", each.mean()), ("the sum of its examples' own", each.sum())):
        if torch.allclose(whole.detach().double(), value, rtol=1e-3):
            return word
    return "and not even the mean or the sum of its examples' own"


# -- who else is in the batch -----------------------------------------------------------------------------------------


def influence(patient: Patient) -> list[Finding]:
    """Changes all other examples; loss and gradient of the first and of the last one must not move."""
    noise = 0.0
    for kept in (0, patient.examples - 1):
        losses = patient.losses(patient.batch)
        gradient, value = patient.flat_gradient(losses[kept]), losses[kept].detach().double()
        if kept == 0:
            again = patient.losses(patient.batch)
            noise = max(_apart(patient.flat_gradient(again[kept]), gradient), _apart(again[kept].detach().double(), value))
        if noise > 1e-3:
            what = "the same batch gives other gradients when it is computed again with the same random seed"
            fix = "draw from torch's own generator, and keep nothing from call to call"
            return [Finding(severity="warning", what=f"{what}: what examples do to each other could not be seen", fix=fix)]
        for batch in _others_changed(patient.batch, kept):
            moved = patient.losses(batch)
            if not bool(torch.isfinite(moved).all()) and bool(torch.isfinite(losses).all()):
                continue  # 0 · infinity of another example is autograd's, not the model's
            apart = max(_apart(patient.flat_gradient(moved[kept]), gradient), _apart(moved[kept].detach().double(), value))
            if not apart <= max(_same_shape(patient), 10 * noise):
                return [_mixing(patient, batch, kept, apart)]
    return []


def _others_changed(batch: Any, kept: int) -> list[Any]:
    """Batches in which one example is the same and the others are not."""
    examples = examples_in(batch)
    others = torch.arange(examples) != kept

    def copies(leaf: Any) -> Any:
        return leaf[[kept] * examples] if isinstance(leaf, Tensor) else leaf

    def larger(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        changed = leaf.clone()
        rows = others.to(leaf.device)
        changed[rows] = leaf[rows] * 4 if leaf.is_floating_point() else leaf[rows].roll(1, 0)
        return changed

    return [pytree.tree_map(copies, batch), pytree.tree_map(larger, batch)]


def _apart(first: Tensor, second: Tensor) -> float:
    """Relative to the second; infinite where one is not finite and the other is."""
    first, second = first.nan_to_num(1e150, 1e150, -1e150), second.nan_to_num(1e150, 1e150, -1e150)
    if torch.equal(first, second):
        return 0.0
    return float((first - second).norm() / second.norm().clamp_min(torch.finfo(torch.float32).tiny))


def _mixing(patient: Patient, batch: Any, kept: int, apart: float) -> Finding:
    """Where in the model, or in its loss, examples first meet."""
    before, losses = patient.watched(patient.batch)
    after, changed = patient.watched(batch)
    allowed = _same_shape(patient)
    module = _first_mixer(before, after, kept, allowed)
    moved = "the examples of a batch look at each other: others were changed, and one example's gradient moved by "
    moved += f"{apart:.2g} of its length" if apart < 1e6 else "no finite amount"
    consequence = ", so that no clipping bounds what one example changes"
    if module is not None:
        name = next(name for name, value in patient.model.named_modules() if value is module)
        fix = "take nothing over dimension 0: normalise over features (nn.GroupNorm, nn.LayerNorm), and give attention and "
        fix += "recurrent layers batch_first=True"
        return Finding(severity="error", what=moved + consequence, where=named(name, module), fix=fix)
    whole = bool(before) and before[-1].module is patient.model
    same_output = whole and _row_same(before[-1].outputs, after[-1].outputs, kept, allowed)
    if same_output and not _row_same([losses], [changed], kept, allowed):
        if losses.numel() > 1 and torch.allclose(losses, losses[0].expand_as(losses)):
            what = "the loss repeats one averaged value for each example"
            return Finding(severity="error", what=what, where="the loss", fix=PER_EXAMPLE)
        what = "the loss of one example depends on the others (contrastive, ranked, or scaled by the batch)" + consequence
        fix = "use a loss of each example by itself; for pairs, let a pair be the example; take scales from public data"
        return Finding(severity="error", what=what, where="the loss", fix=fix)
    fix = "take nothing over dimension 0, in the model and in its loss, nor in the backward() of a function of your own"
    return Finding(severity="error", what=moved + consequence, fix=fix)


# -- how many they are ------------------------------------------------------------------------------------------------


def draws(patient: Patient) -> list[Finding]:
    """Random numbers besides dropout's, which is off: an example alone then cannot be compared with the same one in a batch."""
    first, second = (patient.losses(patient.batch, seed).detach().double() for seed in (0, 1))
    if _apart(second, first) <= 1e-9:
        return []
    what = "model or loss draw random numbers outside of dropout layers: examples alone could not be compared with a batch"
    fix = "use nn.Dropout in place of F.dropout, which the checks can switch off; the engine takes torch.func meanwhile"
    return [Finding(severity="warning", what=what, fix=fix)]


def batch_size(patient: Patient) -> list[Finding]:
    """Loss and gradient of an example alone must be those that it has in a batch. For a model that draws nothing."""
    allowed, scales, worst = tolerance(patient), list[float](), 0.0
    losses = patient.losses(patient.batch)
    together = [(patient.flat_gradient(losses[i]), losses[i].detach().double()) for i in range(min(COMPARED, patient.examples))]
    for index, (gradient, value) in enumerate(together):
        loss = patient.losses(patient.rows([index]))[0]
        own = patient.flat_gradient(loss)
        if not bool(torch.isfinite(own).all()) or not bool(own.any()):
            continue
        worst = max(worst, _apart(gradient, own), _loss_apart(value, loss.detach().double()))
        scale = float(gradient @ own / (own @ own))
        if _apart(gradient, scale * own) <= allowed:
            scales.append(scale)
    if worst <= allowed:
        return []
    consequence = "; whoever joins the batch would change every other example's gradient"
    if scales and max(scales) - min(scales) <= allowed * max(map(abs, scales)) and abs(scales[0] - 1) > allowed:
        divided = abs(scales[0] * patient.examples - 1) <= 0.05
        by = "divided by the number of examples in the batch" if divided else f"multiplied by {scales[0]:.3g}"
        what = f"each example's loss, in a batch of {patient.examples}, is {by}{consequence}"
        fix = "do not divide: the plan divides the noisy sum by its expected batch size itself"
        return [Finding(severity="error", what=what, where="the loss", fix=fix)]
    what = f"an example's gradient alone and in a batch of {patient.examples} differ by {worst:.2g} of its length{consequence}"
    fix = "let nothing depend on len(batch), and keep the first dimension for the examples throughout"
    return [Finding(severity="error", what=what, fix=fix)]


def _loss_apart(first: Tensor, second: Tensor) -> float:
    """A loss near zero is a difference of larger numbers, so below 1 it is compared as it is."""
    return float((first - second).abs() / second.abs().clamp_min(1.0))


def _first_mixer(before: list[Call], after: list[Call], kept: int, allowed: float) -> torch.nn.Module | None:
    if [call.module for call in before] != [call.module for call in after]:
        return None
    for first, second in zip(before, after, strict=True):
        if _row_same(first.inputs, second.inputs, kept, allowed) and not _row_same(
            first.outputs, second.outputs, kept, allowed
        ):
            return first.module
    return None


def _row_same(first: list[Tensor], second: list[Tensor], kept: int, allowed: float) -> bool:
    if len(first) != len(second):
        return False
    for one, other in zip(first, second, strict=True):
        if one.dim() == 0 or other.dim() == 0 or len(one) <= kept or one.shape != other.shape:
            continue
        if not _apart(one[kept].double(), other[kept].double()) <= allowed:
            return False
    return True
