"""The model card as a document, under the headings of Mitchell et al. 2019 ("Model Cards for Model Reporting").

    markdown(card)          # MODEL_CARD.md

A section on privacy stands before what follows from it. Names that come from data are shown as text, whatever they hold.
"""

import math
import re
from typing import Any

from dptrain.release.model_card import Figure, ModelCard
from dptrain.rounding import up


def markdown(card: ModelCard) -> str:
    """The card as a document."""
    sections = {
        "Model Details": _details(card),
        "Intended Use": _use(card),
        "Privacy": _privacy(card),
        "Factors": [
            "Nothing is known of how well the model does for groups of people or kinds of inputs: the figure below is over all "
            "held-out examples together. Noise and clipping can cost small groups more than large ones (Bagdasaryan, "
            "Poursaeed, Shmatikov 2019)."
        ],
        "Metrics": [_metrics(card)],
        "Evaluation Data": [
            "Examples of the same source that were not trained on. How many they are, and which, is not published."
        ],
        "Training Data": _training_data(card),
        "Quantitative Analyses": _analyses(card),
        "Ethical Considerations": [
            "The data may be of people. Do not use the model to find out whether somebody is in them, or to rebuild what was "
            "in them: attacks were made by the owner, and what they could find is bounded in the section on privacy alone."
        ],
        "Caveats and Recommendations": _caveats(card),
    }
    parts = [f"# {_text(card.name)}", *(f"## {title}\n\n" + "\n\n".join(lines) for title, lines in sections.items())]
    return "\n\n".join(parts) + "\n"


def _details(card: ModelCard) -> list[str]:
    about = f" ({_text(card.model['about'])})" if card.model.get("about") else ""
    versions = ", ".join(_text(f"{name} {number}") for name, number in card.versions.items())
    lines = [
        f"- Model: {_code(card.model['name'])}{about}. It can {_text(card.model['task'])}.",
        f"- Published: {card.published}.",
        f"- Training: {'differentially private' if card.delta is not None else 'not private'}, by dptrain.",
        f"- Made with: {versions or 'versions that are not stated'}.",
        "- License: none is stated here; ask whoever published it. The terms of its data are below.",
    ]
    if card.recipe_digest:
        lines.append(f"- Recipe: SHA-256 {_code(card.recipe_digest)}.")
    loading = (
        "How to load it, in Python, in the folder of this file:\n\n"
        "```python\n"
        "from pathlib import Path\n\n"
        "from dptrain.checkpoint import load_release\n\n"
        'weights, card = load_release(Path("."))  # refuses a file that is not what was published\n'
        "```\n\n"
        f"How to serve it: `dptrain serve .{f' --guard {card.guard.text}' if card.guard else ''}`. `card.json` says how the "
        "model is built and what its inputs are; nothing is unpickled."
    )
    return ["\n".join(lines), loading]


def _use(card: ModelCard) -> list[str]:
    lines = [
        _text(card.intended_use),
        "Out of scope: decisions about a single person without a human who can overrule them, and inputs of another source "
        "or outside of the bounds that are stated below.",
    ]
    if card.guard is not None:
        lines.append(
            f"**It is to be asked through a server with the guard `{card.guard.text}`.** {card.guard.statement} The guard "
            "stands before answers. Whoever holds this folder has the weights, before which no guard stands: do not hand it on."
        )
    else:
        lines.append("No guard stands before its answers: scores and weights are shown as they are.")
    return lines


def _privacy(card: ModelCard) -> list[str]:
    lines = [card.in_words]
    if card.ledger:
        lines.append(card.ledger)
    lines.append(f"Exactly: {_text(card.statement)}")
    lines.append("The guarantee does not cover:\n\n" + "\n".join(f"- {sentence}" for sentence in card.not_covered))
    return lines


def _metrics(card: ModelCard) -> str:
    names = "; ".join(sorted({figure.words for figure in card.utility})) or "none is published"
    return (
        f"Utility: {names}. Values are rounded to two decimals or digits, and their 95% intervals outwards. The privacy of the "
        "model is ε and δ, which follow from how it was trained; attacks measure it from below and prove nothing by failing."
    )


def _training_data(card: ModelCard) -> list[str]:
    data = card.data
    lines = [f"- Name: {_code(data.get('name') or 'not stated')}, {_text(data.get('kind', 'of a kind that is not stated'))}."]
    lines.append(f"- Source and terms: {_text(data.get('source', 'not stated'))}.")
    if data.get("input_shape"):
        shape = "×".join(str(size) for size in data["input_shape"])
        bounds = f", numbers from {data['bounds'][0]:g} to {data['bounds'][1]:g}" if data.get("bounds") else ""
        lines.append(f"- An input: {shape}{bounds}.")
    if data.get("features"):
        lines.append(f"- Its parts: {_text(', '.join(map(str, data['features'])))}.")
    return [
        "\n".join(lines),
        "How many examples were trained on, and which, is not published: that is what the guarantee hides.",
    ]


def _analyses(card: ModelCard) -> list[str]:
    lines = (
        ["Utility, from examples that were not trained on, without noise:\n\n" + _table(card.utility)] if card.utility else []
    )
    bounds = "; ".join(f"`{name} = {_shown(value)}`" for name, value in card.policy.bounds.items()) or "no bound"
    lines.append(
        f"The owner's policy ({bounds}) was met in all of {len(card.met)} checks: {', '.join(card.met)}. Measured figures were "
        "held by the worse end of their intervals."
    )
    if card.attacks:
        lines.append(f"Attacks that were made: {'; '.join(map(_text, card.attacks.values()))}.")
    if card.figures:
        lines.append("What they found, from members, without noise:\n\n" + _table(card.figures))
    elif card.attacks:
        lines.append("What they found is not published, since it was computed from members without noise.")
    return lines


def _table(figures: tuple[Figure, ...]) -> str:
    with_attack = any(figure.attack for figure in figures)
    head = ["attack", "what", "value", "95% interval", "verdict"] if with_attack else ["what", "value", "95% interval"]
    rows = [
        [
            *([_text(figure.attack)] if with_attack else []),
            *(_text(figure.words), f"{figure.value:g}", f"{figure.low:g} to {figure.high:g}"),
            *([figure.verdict] if with_attack else []),
        ]
        for figure in figures
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _caveats(card: ModelCard) -> list[str]:
    lines = ["- Finding nothing is not a proof: attacks that were not made, or are not known yet, may find more."]
    if math.isinf(card.epsilon):
        lines.append("- The model promises nothing to those in its data.")
    elif card.epsilon > 1:
        lines.append(
            f"- ε = {up(card.epsilon)} leaves a strong attacker much room in the worst case. Where much depends on "
            "it, ask for a model with a smaller one."
        )
    if card.monitor:
        lines.append(
            "- `monitor.json` holds thresholds for the monitor of `dptrain serve`, made from public examples. It notices mass "
            "probing; it is no guarantee."
        )
    lines.append("- A model that is published cannot be called back. Keep the ledger of its data.")
    return ["\n".join(lines)]


def _text(said: str) -> str:
    """On one line, and no Markdown of its own. What GitHub would make a link of is shown as code, of which it makes none."""
    return " ".join(_code(word) if _LINKED.search(word) else _MARKED.sub(r"\\\1", word) for word in said.split())


_LINKED = re.compile(r"://|www\.|@", re.IGNORECASE)
_MARKED = re.compile(r"([\\`*_|<>\[\]#~&])")


def _code(said: str) -> str:
    """On one line, as code, whatever it holds: between more backticks than it has in a row (CommonMark 0.31, "Code spans")."""
    line = " ".join(said.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
