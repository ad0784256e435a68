"""One row a model on the HParams tab, and its figures over training steps, where the recipe keeps several checkpoints.

The parallel-coordinates view drops a row that lacks a metric or has an infinite one: only what all models share is listed, and
training without privacy has a large ε in place of infinity, which the axis names.
"""

import math

from tensorboard.plugins.hparams import summary_v2 as hparams

from evaluation.report import wording
from evaluation.report.board.events import Events
from evaluation.result import ComparisonResult, RunResult
from evaluation.summary import utilities_of

NO_PRIVACY = 64.0
"""Drawn for ε = ∞, where every budget is smaller."""
SPENT = "epsilon_spent"


def no_privacy(result: ComparisonResult) -> float:
    """What stands for ε = ∞: 64, and where budgets reach that, the next power of two beyond them."""
    largest = max((run.epsilon for run in result.runs if math.isfinite(run.epsilon)), default=0.0)
    return max(NO_PRIVACY, 2.0 ** (math.floor(math.log2(largest)) + 1)) if largest else NO_PRIVACY


def axis(result: ComparisonResult) -> str:
    return f"epsilon ({no_privacy(result):g} = no DP)"


def columns(events: Events, result: ComparisonResult) -> None:
    """Parameters and metrics, once for the comparison. The first metrics are the ones that are shown at first."""
    parameters = [
        hparams.HParam(axis(result), hparams.RealInterval(0.0, 1e6)),
        hparams.HParam("variant", hparams.Discrete(sorted({wording.variant_key(run) for run in result.runs}))),
        hparams.HParam("seed", hparams.RealInterval(0.0, 1e9)),
    ]
    names = {SPENT: f"ε spent ({no_privacy(result):g} = no DP)", "exposure/flagged": "share flagged"}
    metrics = [hparams.Metric(name, display_name=names.get(name) or wording.short_name(name)) for name in shared(result)]
    events.trials(parameters, metrics)


def row(events: Events, result: ComparisonResult, run: RunResult) -> None:
    """One model."""
    epsilon = no_privacy(result) if math.isinf(run.epsilon) else run.epsilon
    events.trial({axis(result): epsilon, "variant": wording.variant_key(run), "seed": float(run.seed)}, run.label)
    names = shared(result)
    for past in [item for item in result.checkpoints if item.label == run.label] + [run]:
        found = _metrics_of(past, no_privacy(result))
        for name in names:
            if name in found:
                events.scalar(name, found[name], past.step)


def shared(result: ComparisonResult) -> list[str]:
    """Metrics that every model has: utility and attacks' headlines, then ε spent, then the others."""
    every = [_metrics_of(run, no_privacy(result)) for run in result.runs]
    common = set.intersection(*(set(found) for found in every)) if every else set()
    names = [name for name in (every[0] if every else ()) if name in common and wording.is_rate(name)]
    first = {*wording.utility_names(result)[:1], *wording.headlines(result).values()}
    return sorted(names, key=lambda name: 0 if name in first else 1 if name == SPENT else 2)


def _metrics_of(run: RunResult, no_dp: float) -> dict[str, float]:
    """Of one checkpoint, by name; what was not measured is left out."""
    found: dict[str, float | None] = {item.name: item.value for item in utilities_of(run)}
    for attack in run.attacks:
        if attack.status == "ok":
            found[f"{attack.name}/{attack.metric}"] = attack.value
            found |= {f"{attack.name}/{item.name}": item.value for item in attack.metrics}
    if run.exposure is not None:
        found["exposure/flagged"] = run.exposure.flagged.value
        found["exposure/own_tpr_above_0.1"] = run.exposure.striking.value
    spent = math.inf if run.guarantee is None else run.guarantee.epsilon
    found[SPENT] = spent if math.isfinite(spent) else no_dp
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
