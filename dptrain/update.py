"""One released step: a noised sum with what it cost, the only thing that reaches an optimizer.

    clipper = Clipper(model, loss, Clipping.of(plan), divisor=plan.expected_batch_size)
    update = Update.of(noise.add(clipper.sum(chunks)), event=plan.event(step + 1, step))
    with update.in_gradients(model):
        optimizer.step()

The types carry the protocol. A :class:`~dptrain.clipping.ClippedSum` has no noise, and an :class:`Update` cannot be built from
it; nor can one be built without the event by which the accountant counts it, and an event that promises something cannot
stand beside a sum without noise. So whoever holds an update holds noise and price together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dptrain.clipping import ClippedSum
from dptrain.errors import ProtocolError
from dptrain.noise import NoisedSum

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_BUILT_BY_OF = object()


@dataclass(frozen=True, eq=False)
class Update:
    """A noised sum, over the expected batch size, and its price; made by :meth:`of` alone."""

    gradients: dict[str, Tensor]
    """Parameter name to what the optimizer sees."""
    event: "DpEvent"
    """What releasing it costs, as the sampler states it."""
    standard_deviation: float
    """Of the noise in each coordinate. Public."""
    _built: object = field(init=False, repr=False, default=None)

    @classmethod
    def of(cls, noised: NoisedSum, *, event: "DpEvent") -> "Update":
        """The update of a noised sum; the sum's memory becomes the update's.

        Raises:
            ProtocolError: the sum was clipped and not noised, or the event is none or belongs to another noise.
        """
        from dp_accounting import DpEvent, NonPrivateDpEvent, NoOpDpEvent

        if isinstance(noised, ClippedSum):
            raise ProtocolError(
                "this sum was clipped and not noised, so it cannot be released; call noise.add(clipped_sum) first, and give "
                "what it returns"
            )
        if not isinstance(noised, NoisedSum) or not noised.is_genuine:
            raise ProtocolError(
                f"this {type(noised).__name__} was not made by a noise; give what noise.add(clipped_sum) returns"
            )
        if not isinstance(event, DpEvent):
            raise ProtocolError(
                f"the event is {event!r}, so nothing would count this release; give what the plan states, such as "
                "plan.event(step + 1, step)"
            )
        counted = _noise_of(event)
        nothing = isinstance(event, NonPrivateDpEvent) or (isinstance(event, NoOpDpEvent) and noised.standard_deviation == 0)
        if noised.standard_deviation == 0 and not nothing:
            raise ProtocolError(f"the sum holds no noise and the event says {event}; without noise it is NonPrivateDpEvent()")
        if not nothing and counted != {noised.noise_multiplier}:
            raise ProtocolError(
                f"the noise of this sum is {noised.noise_multiplier:g} times its sensitivity and the event counts "
                f"{', '.join(f'{value:g}' for value in sorted(counted)) or 'none'}; give the event of the same plan"
            )
        update = cls(noised.gradients, event, noised.standard_deviation)
        object.__setattr__(update, "_built", _BUILT_BY_OF)
        return update

    @contextmanager
    def in_gradients(self, model: nn.Module) -> Iterator[None]:
        """While it lasts, ``.grad`` of the model's trainable parameters is this update; afterwards, and before, nothing."""
        if self._built is not _BUILT_BY_OF:
            raise ProtocolError("this Update was made by hand; an Update is built by Update.of(noised_sum, event=...)")
        parameters: dict[str, Any] = dict(model.named_parameters())
        try:
            for name, parameter in parameters.items():
                gradient = self.gradients.get(name)
                parameter.grad = None if gradient is None else gradient.to(parameter.dtype)
            yield
        finally:
            for parameter in parameters.values():
                parameter.grad = None


def _noise_of(event: Any) -> set[float]:
    """Every noise multiplier that an event counts."""
    inner = [getattr(event, "event", None), *getattr(event, "events", ())]
    found = {value for part in inner if part is not None for value in _noise_of(part)}
    own = getattr(event, "noise_multiplier", None)
    return found if own is None else found | {float(own)}
