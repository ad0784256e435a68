"""What is served at one time, as a whole: model, card and guard, and the monitor that was calibrated for them.

    version = Version.of(predictor, monitor)
    version.card["epsilon_in_words"], version.card["guard"], version.card["stated_guard"]

A release that is loaded while serving becomes a version of its own or none: :data:`Renewal` chooses its guard and its monitor,
and where there is none such, the version before stays whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from dptrain.errors import CheckpointError
from dptrain.release.loading import Served
from dptrain.release.predictor import Predictor
from dptrain.release.words import in_words
from dptrain.selected import plan_of


class Decision(Protocol):
    """What a monitor decides."""

    @property
    def action(self) -> Literal["allow", "slow", "degrade", "refuse"]: ...
    @property
    def alerts(self) -> Sequence[Any]: ...
    @property
    def delay(self) -> float: ...


class Watching(Protocol):
    """What the server asks of a monitor: see :class:`dptrain.release.monitor.Monitor`."""

    def admit(self, client: str) -> Decision: ...
    def observe(
        self, client: str, inputs: np.ndarray, labels: Int[np.ndarray, " n"], margins: Float[np.ndarray, " n"]
    ) -> Decision: ...
    def statistics(self) -> dict[str, Any]: ...
    def save(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Version:
    """See the module's text."""

    predictor: Predictor
    monitor: Watching | None
    card: dict[str, Any]
    """The release card, and what the server adds to it."""

    @classmethod
    def of(cls, predictor: Predictor, monitor: Watching | None) -> "Version":
        """Raises CheckpointError where the card does not say what is promised."""
        served = predictor.served
        try:
            words = promised(served.card)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the card in {served.folder} does not say what is promised ({error}); restore it") from None
        card = {
            **served.card,
            "epsilon_in_words": words,
            "guard": {"text": predictor.guard_text, "statement": predictor.statement},
            "stated_guard": served.card.get("guard"),
            "digest": served.digest,
        }
        return cls(predictor, monitor, card)

    def kept_for(self, new: Served) -> tuple[str | None, Watching | None]:
        """This guard and this monitor, for a release that they fit.

        Raises:
            CheckpointError: it states another guard, or the monitor is for other inputs or classes.
        """
        old = self.predictor.served
        if new.stated_guard != old.stated_guard:
            raise CheckpointError(
                f"the new release states the guard {new.stated_guard}, and the one before {old.stated_guard}; start the server "
                "again with the guard that is meant"
            )
        if self.monitor is not None and new.form != old.form:
            raise CheckpointError(
                f"the new release reads {new.input_shape} and has {len(new.classes)} classes, and the monitor was calibrated "
                f"for {old.input_shape} and {len(old.classes)} classes; start the server again with a monitor of its own"
            )
        return self.predictor.guard_text, self.monitor


Renewal = Callable[[Served, Version], tuple[str | None, Watching | None]]
"""The guard and the monitor of a release that is loaded while a version is served; a UserError where it is to have none."""


def promised(card: dict[str, Any]) -> str:
    """What is promised to whom, in a paragraph; of a card without a plan, the statement alone."""
    guarantee = card.get("guarantee")
    if not isinstance(guarantee, dict) or "statement" not in guarantee:
        return "The card states no guarantee: take it that nothing is promised to anyone."
    if "plan" not in card:
        return str(guarantee["statement"])
    plan = plan_of(card, "the release card")
    return f"{in_words(plan, float(guarantee['epsilon']), steps=card.get('steps_taken'))}\n\n{guarantee['statement']}"
