"""A served model behind its guard: from what was sent to what is shown.

    predictor = Predictor.of(Served.load(folder), "top5-rounded", key=secret, most=256)
    batches = predictor.form.read(body, "application/json")
    given = predictor.answer(batches)
    given.answers       # [{"label": "7", "top": [{"label": "7", "score": 0.9}, ...], "refused": false}]
    given.labels        # of the model itself, for a monitor, which is not behind the guard

What is shown stands in an order that only what is shown decides: scores that a guard has made equal are listed in the order of
the classes, so that the list does not tell which was larger. An answer that is no number is not given.

A guard of classes stands before classification and before what comes next in a text; a value can be rounded, and no more. A
guard that would have to be fitted on members is refused: they are not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.errors import ConfigError
from dptrain.release.guard import Answers, Guard, Logits, Owner, fitted, needs_members, parse, scores_of
from dptrain.release.loading import Served
from dptrain.release.reading import Form

CHUNK = 1024
"""Examples that the model is given at once."""
MOST_SHOWN = 256
"""Classes of one answer, the most probable ones: a tokenizer has tens of thousands."""


@dataclass(frozen=True, eq=False)
class Given:
    """Answers, and what a monitor is told of them."""

    answers: list[dict[str, Any]]
    labels: Int[np.ndarray, " examples"]
    """The model's own most probable class; of a value 0; −1 where the answer is refused."""
    margins: Float[np.ndarray, " examples"]
    """How much more probable it is than the next one; NaN of a value."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """One whole version of what is served: model, guard, and what they read."""

    served: Served
    form: Form
    guard_text: str | None
    guard: Guard | None
    decimals: int | None
    """Of a value, to how many it is rounded."""

    @classmethod
    def of(cls, served: Served, guard_text: str | None, key: bytes, most: int) -> "Predictor":
        """Raises ConfigError where the guard is not one for such a model, or cannot be made without its members."""
        form = Form.of(served, most)
        if guard_text is not None and needs_members(guard_text):
            raise ConfigError(
                f"the guard {guard_text!r} is fitted on members, which a server does not hold; give another one, such as "
                "top5-rounded"
            )
        if served.kind == "regression":
            return cls(served, form, guard_text, None, None if guard_text is None else _decimals(guard_text))
        owner = Owner(
            outputs=lambda inputs: _logits(served, inputs),
            input_shape=served.input_shape,
            bounds=served.bounds,
            classes=len(served.classes),
            key=key,
            model=served.digest,
        )
        guard = None if guard_text is None else fitted(guard_text, owner)
        return cls(served, form, guard_text, guard, None)

    @property
    def statement(self) -> str:
        """What the guard does and does not do."""
        if self.guard is not None:
            return self.guard.statement()
        if self.decimals is not None:
            return f"Values are rounded to {self.decimals} decimals. That is no privacy guarantee."
        return "There is no guard: every answer is shown whole."

    def answer(self, batches: Sequence[Tensor], degrade: bool = False) -> Given:
        """Of every example, in order.

        Args:
            degrade: shows no more than the label of what the guard shows, to a client that a monitor takes for a prober.
        """
        parts = [self._batch(batch, degrade) for batch in batches]
        return Given(
            [answer for part in parts for answer in part.answers],
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.margins for part in parts]),
        )

    def _batch(self, inputs: Tensor, degrade: bool) -> Given:
        logits = _logits(self.served, inputs)
        if self.served.value is not None:
            return self._values(logits[:, 0], np.isfinite(logits[:, 0]))
        scores, sound = scores_of(logits)
        shown = Answers.of(scores).refusing(~sound) if self.guard is None else self.guard.answers(inputs, logits)
        best = np.sort(scores, 1)[:, ::-1]
        margins = best[:, 0] - best[:, 1] if best.shape[1] > 1 else np.full(len(best), np.nan)
        answers = [self._shown(shown, row, degrade) for row in range(len(inputs))]
        refused = np.array([answer["refused"] for answer in answers])
        return Given(answers, np.where(refused, -1, scores.argmax(1)), margins)

    def _values(self, outputs: Float[np.ndarray, " examples"], sound: np.ndarray) -> Given:
        value: Any = self.served.value
        decoded = value.decode(np.where(sound, outputs, 0.0))
        if self.decimals is not None:
            decoded = np.round(decoded, self.decimals) + 0.0
        answers = [
            {"value": float(one) if ok else None, "refused": not ok} for one, ok in zip(decoded, sound.tolist(), strict=True)
        ]
        return Given(answers, np.where(sound, 0, -1), np.full(len(outputs), np.nan))

    def _shown(self, answers: Answers, row: int, label_only: bool) -> dict[str, Any]:
        """One example's answer."""
        if answers.refused[row]:
            return _refused()
        names, scores = self.served.classes, answers.scores[row]
        label = int(answers.labels[row])
        if label_only or answers.shows == "label":
            return {"label": names[label], "top": [{"label": names[label]}], "refused": False}
        order = np.arange(len(scores)) if answers.shown is None else answers.shown[row]
        if answers.shows == "ranks":
            return {"label": names[label], "top": [{"label": names[one]} for one in order[:MOST_SHOWN]], "refused": False}
        order = np.sort(order)
        order = order[np.argsort(-scores[order], kind="stable")][:MOST_SHOWN]
        top = [{"label": names[one], "score": float(scores[one])} for one in order]
        return {"label": names[label], "top": top, "refused": False}


def _decimals(guard_text: str) -> int:
    """Of the one guard that a value may have."""
    parts = parse(guard_text)
    if len(parts) != 1 or parts[0].name != "rounded":
        raise ConfigError(
            f"the guard is {guard_text!r}, and the model predicts a value, which can be rounded alone; give rounded, or "
            "rounded2 for two decimals"
        )
    return 1 if parts[0].number is None else int(parts[0].number)


def _refused() -> dict[str, Any]:
    return {"label": None, "top": [], "refused": True}


def _logits(served: Served, inputs: Tensor) -> Logits:
    """The model's own outputs; of a sequence, of what comes after its last place."""
    with torch.inference_mode():
        parts = [served.model(part) for part in inputs.split(CHUNK)]
        outputs = torch.cat([part[:, -1] if served.kind == "language" else part for part in parts])
    return outputs.double().numpy()
