"""What a model of text says in the place of made-up secrets."""

import dataclasses

from evaluation.report.wording.names import row_name
from evaluation.result import ComparisonResult, TextSample


def secrets_said(result: ComparisonResult) -> list[tuple[str, tuple[TextSample, ...]]]:
    """What the first seed of every row says in the place of some made-up secrets, everything that attacks found of each
    together."""
    rows: list[tuple[str, tuple[TextSample, ...]]] = []
    for item in result.summary:
        first = next(run for run in result.runs if run.kind == item.kind)
        merged: dict[tuple[str, str], TextSample] = {}
        for text in (text for attack in first.attacks for text in attack.texts):
            known = merged.get((text.before, text.secret), text)
            exposure = text.exposure if known.exposure is None else known.exposure
            merged[text.before, text.secret] = dataclasses.replace(known, exposure=exposure, guess=known.guess or text.guess)
        if merged:
            rows.append((row_name(item), tuple(merged.values())))
    return rows


def insertions(text: TextSample) -> str:
    """Whether a secret was trained on, and how often."""
    return f"{text.insertions}×" if text.inserted else "never"


def visible(text: str) -> str:
    """A generated text on one line, with its line breaks to be seen."""
    return text.replace("\n", "⏎")
