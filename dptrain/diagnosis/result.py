"""What the doctor found: frozen, printable, and plain JSON on request.

diagnosis = dptrain.doctor(model, loss, batch)
print(diagnosis)                    # at most 100 columns
assert diagnosis.ok, diagnosis      # in a test of one's own model
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from dptrain.plain import as_plain

SCHEMA = "dptrain.diagnosis/1"
WIDTH = 100
INDENT = 10
SHORT = 2e-3
LAYERS = 12
"""As many layers are listed in the report, the dearest first."""

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    """`error`: a guarantee would be false, or training would not do what it says; `warning`: it costs, or could not be seen;
    `note`: good to know."""
    what: str
    where: str = ""
    """Module, parameter or buffer; empty where it is the whole."""
    fix: str = ""
    """What to type next."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Medians of one step's time on the given batch, measured in turn, without the optimizer's own part."""

    examples: int
    ordinary_seconds: float
    """Forward and backward pass of ordinary training."""
    private_seconds: float
    """The clipped sum and its noise."""
    torch_func_seconds: float | None = None
    """Per-example gradients by ``torch.func`` alone; none where it cannot, or was not tried."""
    clock: str = "process CPU time"

    @property
    def ratio(self) -> float:
        """How many times as long a private step takes."""
        return self.private_seconds / max(self.ordinary_seconds, 1e-12)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What clipping costs for the weights that one module holds."""

    name: str
    kind: str
    parameters: int
    kept_bytes: int
    """Memory that is held for its per-example gradients between the backward pass and the clipped sum."""
    seconds: float | None = None
    """Norms and clipped sum; none where ``torch.func`` computes all layers at once."""
    share: float | None = None
    """Of all layers' seconds."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of :func:`dptrain.doctor`."""

    about: str
    """What was examined."""
    findings: tuple[Finding, ...]
    kept: tuple[str, ...]
    """Promises that hold, as far as was seen."""
    method: str = ""
    """How per-example gradients are computed."""
    step: StepCost | None = None
    layers: tuple[LayerCost, ...] = ()
    """The dearest first."""
    changes: tuple[str, ...] = ()
    """With ``fix=True``: what was replaced by what."""
    fixed: nn.Module | None = field(default=None, repr=False, compare=False)
    """With ``fix=True``: a copy of the model with the changes in it. Its optimizer has to be built anew."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found that makes a guarantee false or a training useless."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def plain(self) -> dict[str, Any]:
        """Everything but the fixed model, as JSON can hold it."""
        fields = {name: as_plain(getattr(self, name)) for name in ("about", "findings", "kept", "method", "layers", "changes")}
        step = None if self.step is None else {**as_plain(self.step), "ratio": self.step.ratio}
        return {"schema": SCHEMA, "ok": self.ok, **fields, "step": step}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        counted = [_count(self.findings, kind) for kind in ("error", "warning", "note")]
        yield from _wrapped("doctor", f"{self.about}: {', '.join(counted)}")
        if self.fixed is not None and not self.changes:
            yield from _wrapped("changed", "nothing: no module has to be replaced")
        for change in self.changes:
            yield from _wrapped("changed", change)
        for kind in ("error", "warning", "note"):
            for finding in self.findings:
                if finding.severity == kind:
                    where = f"{finding.where}: " if finding.where else ""
                    yield from _wrapped(kind.upper() if kind == "error" else kind, where + finding.what)
                    if finding.fix:
                        yield from _wrapped("", f"→ {finding.fix}")
        for promise in self.kept:
            yield from _wrapped("ok", promise)
        if self.method:
            yield from _wrapped("engine", self.method)
        if self.step is not None:
            yield from _wrapped("step", _step_text(self.step))
        if self.layers:
            yield from _layer_lines(self.layers)


def _count(findings: tuple[Finding, ...], severity: str) -> str:
    count = sum(finding.severity == severity for finding in findings)
    return f"{count or 'no'} {severity}{'' if count == 1 else 's'}"


def _wrapped(label: str, text: str) -> list[str]:
    """Text in a column of its own behind a label."""
    first, rest = f"{label:<{INDENT}}", " " * INDENT
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent=first, subsequent_indent=rest) or [first.rstrip()]


def _step_text(step: StepCost) -> str:
    text = (
        f"a private one takes {step.ratio:.2f} times as long as an ordinary one: {_seconds(step.private_seconds)} against "
        f"{_seconds(step.ordinary_seconds)} for {step.examples} examples ({step.clock}, medians)"
    )
    if step.torch_func_seconds is not None:
        times = step.torch_func_seconds / max(step.private_seconds, 1e-12)
        text += f"; torch.func would take {times:.1f} times as long as that"
    if step.ordinary_seconds < SHORT:
        text += "; so short a step says little, so give a batch of the size that you train with"
    return text


def _layer_lines(layers: tuple[LayerCost, ...]) -> Iterator[str]:
    measured = any(layer.share is not None for layer in layers)
    title = "share of clipping" if measured else ""
    yield f"{'layers':<{INDENT}}{'':<52}{title:>18}{'memory kept':>16}"
    for layer in layers[:LAYERS]:
        name = textwrap.shorten(f"{layer.name or 'the model itself'} ({layer.kind})", 52, placeholder="…")
        share = "" if layer.share is None else f"{layer.share:.0%}"
        yield f"{'':<{INDENT}}{name:<52}{share:>18}{in_bytes(layer.kept_bytes):>16}".rstrip()
    if len(layers) > LAYERS:
        rest = layers[LAYERS:]
        share = f"{sum(layer.share or 0.0 for layer in rest):.0%}" if measured else ""
        kept = in_bytes(sum(layer.kept_bytes for layer in rest))
        yield f"{'':<{INDENT}}{f'{len(rest)} more':<52}{share:>18}{kept:>16}".rstrip()


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def in_bytes(count: int) -> str:
    """A size of memory, to be read."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
