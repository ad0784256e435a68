"""The model card: what is published with a model for whoever meets it, in Markdown and as a versioned JSON document.

    card = ModelCard.of(release_card, epsilon=8.0, utility=(...), policy=policy, published="2026-01-31")
    markdown(card)          # MODEL_CARD.md, see model_card_page.py
    as_plain(card)          # model_card.json

**Only public facts.** The release card is public: a plan and what follows from it. Whatever else a card says of private
examples was computed from them without noise, and ε does not cover it. So it is little, and the card says what it is:

* one figure of utility, from examples that were not trained on: its value to two decimals, its interval rounded outwards, since
  exact ones give away how many examples there were;
* that every check of the policy was met: the policy is public and a refusal publishes nothing, so all of it together tells one
  bit, that this model passed;
* what attacks found only where the owner asked for figures to be published, rounded alike.

Never in it: how many examples there are, which they are, seeds, paths, and what a user's own files are called
(:mod:`dptrain.release.names`).
"""

import math
from dataclasses import dataclass, field
from typing import Any

from dptrain.registry import MODELS
from dptrain.release.names import as_published
from dptrain.release.policy import Policy
from dptrain.release.words import in_words
from dptrain.rounding import up
from dptrain.selected import plan_of

SCHEMA = "dptrain.model_card/1"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure as it is published, rounded; see :func:`rounded`."""

    name: str
    words: str
    value: float
    low: float
    high: float
    attack: str = ""
    """Which attack found it; empty of utility."""
    verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class StatedGuard:
    """A guard as it is stated."""

    text: str
    """Such as ``top5-rounded``."""
    statement: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything that both forms say."""

    name: str
    published: str
    """The day, such as ``2026-01-31``."""
    model: dict[str, Any]
    """Its registered name, a line about it, and what it can do."""
    intended_use: str
    data: dict[str, Any]
    """Name, kind, source and terms, input shape and public bounds."""
    epsilon: float
    delta: float | None
    unit: str
    relation: str
    in_words: str
    """What is promised, for everyone."""
    statement: str
    """What is promised, exactly."""
    ledger: str
    """Why ε is not the release card's; empty where it is."""
    not_covered: tuple[str, ...]
    utility: tuple[Figure, ...]
    policy: Policy
    met: tuple[str, ...]
    """Names of the checks, all of which were met."""
    attacks: dict[str, str]
    """Which attacks were made, whatever they found: registered names and words."""
    guard: StatedGuard | None = None
    figures: tuple[Figure, ...] = ()
    """What attacks found, where it is published."""
    monitor: bool = False
    """Whether thresholds of a monitor lie beside the model."""
    recipe_digest: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    schema: str = SCHEMA

    @classmethod
    def of(
        cls, card: dict[str, Any], *, epsilon: float, not_covered: tuple[str, ...] = (), intended_use: str = "", **known: Any
    ) -> "ModelCard":
        """From the release card and what is known beside it.

        Args:
            epsilon: to be stated; where it is more than the card's, the ledger counted more.
            intended_use: in the owner's words; left out, what the model gives is said.
            known: the other fields.
        """
        card = as_published(card)
        plan = plan_of(card, "the release card")
        data, stated = card.get("data", {}), float(card["guarantee"]["epsilon"])
        more = math.isfinite(stated) and epsilon > stated + 1e-9
        ledger = (
            f"The training's ledger counts ε = {up(epsilon, 4)}, more than the {up(stated, 4)} of the weights' own updates: "
            "others were announced, and it is not known that nobody saw them."
        )
        name, task = card.get("recipe", {}).get("model", {}).get("name", "a model of the owner's own"), _task(data)
        return cls(
            name=_name(card, epsilon),
            model={"name": name, "about": MODELS.about().get(name, ""), "task": task},
            intended_use=intended_use or f"{task[0].upper()}{task[1:]}, for inputs like those that are described below.",
            data={key: data[key] for key in ("name", "kind", "source", "input_shape", "bounds", "features") if data.get(key)},
            epsilon=epsilon,
            delta=plan.delta if plan.is_private else None,
            unit=plan.unit,
            relation=plan.relation,
            in_words=in_words(plan, epsilon, steps=None if more else int(card["steps_taken"])),
            statement=card["guarantee"]["statement"],
            ledger=ledger if more else "",
            not_covered=(*not_covered, *NOT_COVERED),
            recipe_digest=str(card.get("recipe_digest", "")),
            versions=dict(card.get("versions", {})),
            **known,
        )


NOT_COVERED = (
    "This card, and the fact that the model was published: the figures here, and the checks that it passed, were computed from "
    "private examples without noise.",
    "Other models, and everything else that was computed from the same data. Each spends an ε of its own, and they add up; "
    "this card states one model's alone. That includes trainings by which learning rates, budgets and seeds were chosen.",
    "What is true of people whether or not they are in the data.",
    "Rounding in floating point, timing, and whoever can read the memory of the machine that trained.",
)
"""Whatever the unit is."""


def rounded(value: float, low: float, high: float, *, is_share: bool = True) -> tuple[float, float, float]:
    """A figure as it is published: shares to 0.01, others to two significant digits; the interval outwards."""
    scale = max(abs(low), abs(high), 1e-12)
    places = 2 if is_share else 1 - math.floor(math.log10(scale))
    unit = 10.0**places
    below, above = math.floor(low * unit + 1e-9) / unit, math.ceil(high * unit - 1e-9) / unit
    return round(value, places), round(below, max(places, 0)), round(above, max(places, 0))


def _task(data: dict[str, Any]) -> str:
    value, classes = data.get("value"), data.get("classes") or []
    if data.get("models") == "language":
        return "say what comes next at each place of a text"
    if value:
        return f"predict {value.get('name', 'a value')} in {value.get('unit') or 'its own unit'}"
    if not classes:
        return "give what its owner trained it to give"
    names = ", ".join(map(str, classes)) if len(classes) <= 20 else f"{', '.join(map(str, classes[:20]))}, ..."
    return f"say which of {len(classes)} classes an input is ({names})"


def _name(card: dict[str, Any], epsilon: float) -> str:
    model = card.get("recipe", {}).get("model", {}).get("name", "a model")
    budget = f"ε = {up(epsilon)}" if math.isfinite(epsilon) else "no guarantee"
    return f"{model} of {card.get('data', {}).get('name', 'unnamed data')}, {budget}"
