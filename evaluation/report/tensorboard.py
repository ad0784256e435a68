"""The result as TensorBoard files below a comparison's folder: ``tensorboard --logdir runs/digits``.

* ``tradeoff/``: curves over ε (``step`` is 1000·ε; no DP is drawn at 64), as custom scalars with interval bands
* ``tradeoff/``: reconstructions on the Images tab, and how to read it all on the Text tab
* one run a model: HParams; figures over training steps, where the recipe keeps several checkpoints; and for the first seed
  the ROC on the PR tab, laid over those of the other budgets (recall stands for the false positive rate, precision for the
  true one)

TensorBoard switches all runs off where there are more than forty, so training telemetry has a log directory of its own.

Only this view's own event files, told by their suffix, are ever removed; writing twice leaves one set.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.plugins.hparams import summary_v2 as hparams
from torch.utils.tensorboard import SummaryWriter

from evaluation.report import bought, figures, wording
from evaluation.result import ComparisonResult, RunResult, Summary, TextSample
from evaluation.summary import utilities_of

SUFFIX = ".dptrain"
NO_DP = 64.0
CURVE_POINTS = 127
AXIS = "epsilon (64 = no DP)"

HOW_TO_READ = f"""
**Custom scalars**: accuracy and every attack over ε; the step is 1000·ε, and training without privacy stands at 64000. The
band is the 95% interval over seeds. A chart *permitted* shows the most that the privacy plan allows the attack beside it.

Where a recipe was audited, *audit* charts show the claimed ε, the lower bound that was shown, and the most that a perfect
attack could have shown.

**PR curves**: these are ROC curves. Read *recall* as the false positive rate and *precision* as the true positive rate. A
chart *permitted* shows the largest ROC that each privacy plan allows.

**Images**: click one to enlarge it. For each budget what members look like, the reconstructions, and what is public.

**HParams**: one row a model. Without privacy, ε is shown as 64.

{wording.COMPUTED_FROM_MEMBERS}
"""


def write(result: ComparisonResult, root: Path) -> None:
    """Writes all of it below ``root``, in place of what this view wrote before."""
    for folder in (root / "tradeoff", *(root / run.label for run in result.runs)):
        for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            old.unlink()
    with _writer(root / "tradeoff") as writer:
        writer.add_text("How to read this", HOW_TO_READ)
        for exchange in result.exchanges:
            writer.add_text(f"{bought.TITLE}/{exchange.attack}", bought.markdown(exchange))
        for name, texts in wording.secrets_said(result):
            writer.add_text(f"What the models say/{name}", _said(texts))
        _curves(writer, result)
        _pictures(writer, result, root)
        if result.runs:
            _session_config(writer, result)
    for run in result.runs:
        with _writer(root / run.label) as writer:
            _session(writer, result, run)
            if run.seed == result.runs[0].seed:
                _rocs(writer, run)


def _said(texts: tuple[TextSample, ...]) -> str:
    """Made-up secrets and what the model says in their place, as a table."""
    lines = ["| before it | the secret | the model says | trained on | exposure, bits |", "|---|---|---|---|---|"]
    for text in texts:
        said = wording.visible(text.said).replace("`", "'").replace("|", "¦")
        known = f"{wording.insertions(text)} | {wording.number(text.exposure, 1)}"
        lines.append(f"| {text.before} | `{text.secret}` | `{said}` | {known} |")
    return wording.WHAT_IT_SAYS + "\n\n" + "\n".join(lines)


def _writer(folder: Path) -> SummaryWriter:
    return SummaryWriter(str(folder), filename_suffix=SUFFIX)


def step_of(epsilon: float) -> int:
    """The step at which a budget is drawn."""
    return round(1000 * (NO_DP if math.isinf(epsilon) else epsilon))


def _curves(writer: SummaryWriter, result: ComparisonResult) -> None:
    """Each measure with its ends, over the budgets and training without privacy; baselines as series of their own.

    What is permitted has charts of its own: below a Margin chart with two series TensorBoard 2.21 says "Missing Tags" for
    every run that has neither, and nothing is missing.
    """
    charts: dict[str, dict[str, list]] = {"utility": {}, "attacks": {}}
    series = {"dp": [item for item in result.summary if item.variant in ("dp", "non_private")]}
    series |= {wording.variant_key(item): [item] for item in result.summary if item.variant not in ("dp", "non_private")}
    worth = wording.utility_names(result)
    for name in (*worth, *wording.measure_names(result)):
        for variant, rows in series.items():
            tag = f"tradeoff/{name.replace('/', '_')}" + ("" if variant == "dp" else f" {variant}")
            if _series(writer, tag, name, rows):
                title = wording.measure_name(name)
                if variant == "dp" and (name in worth or wording.is_rate(name)):
                    group = "utility" if name in worth else "attacks"
                    charts[group][f"{title} over {AXIS}"] = ["Margin", [tag, f"{tag}_lo", f"{tag}_hi"]]
                    if any(name in item.permitted for item in result.summary):
                        charts[group][f"{title}, permitted, over {AXIS}"] = ["Margin", [f"{tag} permitted"] * 3]
        for item in sorted(result.summary, key=lambda item: item.epsilon):
            if name in item.permitted:
                writer.add_scalar(f"tradeoff/{name.replace('/', '_')} permitted", item.permitted[name], step_of(item.epsilon))
    charts["audits"] = _audits(writer, result)
    _guards(writer, result)
    # TensorBoard shows the charts of a group from the last to the first.
    writer.add_custom_scalars({group: dict(reversed(entries.items())) for group, entries in charts.items() if entries})


def _guards(writer: SummaryWriter, result: ComparisonResult) -> None:
    """What the strongest attack of each family gets through each guard, over the budgets; plain scalars."""
    for cost in sorted((cost for cost in result.guard_costs if cost.variant in ("dp", "non_private")), key=lambda c: c.epsilon):
        if cost.value.value is not None:
            name = (cost.guard or f"no guard, {cost.access}").replace("/", "_")
            writer.add_scalar(f"guards, {cost.family}/{name}", cost.value.value, step_of(cost.epsilon))


def _audits(writer: SummaryWriter, result: ComparisonResult) -> dict[str, list]:
    """Claimed, shown and ceiling over the budgets, by game and by the mechanisms that the bound holds for."""
    charts: dict[str, dict[str, None]] = {}
    for found in sorted(result.audits, key=lambda found: found.budget or 0.0):
        for bound in found.bounds if found.step == found.steps else ():
            if bound.is_bound and found.budget is not None:
                name = f"audit/{found.how}, {bound.holds_for}"
                for part, value in (("claimed", found.epsilon), ("shown", bound.epsilon), ("ceiling", bound.ceiling)):
                    if value is not None:
                        writer.add_scalar(f"{name} {part}", value, step_of(found.budget))
                        charts.setdefault(name, {})[f"{name} {part}"] = None
    return {f"{name} over {AXIS}": ["Multiline", list(tags)] for name, tags in charts.items()}


def _series(writer: SummaryWriter, tag: str, name: str, rows: list[Summary]) -> bool:
    drawn = False
    for item in sorted(rows, key=lambda item: item.epsilon):
        measure = wording.find(item, name)
        if measure is None or measure.value is None:
            continue
        ends = (measure.value, measure.low, measure.high)
        for suffix, value in zip(("", "_lo", "_hi"), ends, strict=True):
            writer.add_scalar(f"{tag}{suffix}", measure.value if value is None else value, step_of(item.epsilon))
        drawn = True
    return drawn


def _rocs(writer: SummaryWriter, run: RunResult) -> None:
    """Recall := false positive rate, precision := true positive rate; one tag for all runs lays them over each other."""
    for attack in run.attacks:
        for kind, curve in (("", attack.curve), (", permitted", attack.permitted_curve)):
            if curve is None:
                continue
            false, true = np.array(curve.false_positive_rate), np.array(curve.true_positive_rate)
            # The plugin orders by a threshold of its own, from which the curve runs back; it is read by its two rates alone.
            back = np.linspace(len(false) - 1, 0, CURVE_POINTS).round().astype(int)
            some = np.ones(CURVE_POINTS)  # counts are not read, but points without any are dropped
            tag = f"{attack.name}{kind} (read as ROC)"
            writer.add_pr_curve_raw(tag, some, some, some, some, true[back], false[back], run.step, CURVE_POINTS)


def _pictures(writer: SummaryWriter, result: ComparisonResult, root: Path) -> None:
    drawn = figures.calibration(result)
    if drawn is not None:
        writer.add_image("calibration", figures.as_pixels(drawn), 0, dataformats="HWC")
    seen: set[tuple[str, str]] = set()
    classes = [str(name) for name in result.data.get("classes", [])]
    for run in result.runs:
        for attack in run.attacks:
            tag = (attack.name, run.label.split("/")[0])
            if not attack.figures or tag in seen:
                continue
            seen.add(tag)
            arrays = figures.load_pictures(root, run, attack)
            if arrays is None:
                writer.add_text("/".join(tag), "The picture file is missing.")
                continue
            pixels = figures.as_pixels(figures.pictures(arrays, classes))
            writer.add_image("/".join(tag), pixels, run.step, dataformats="HWC")


# -- HParams --------------------------------------------------------------------------------------------------------


def _metrics_of(run: RunResult) -> dict[str, float]:
    found = {item.name: item.value for item in utilities_of(run) if item.value is not None}
    for attack in run.attacks:
        if attack.status == "ok" and attack.value is not None:
            found[f"{attack.name}/{attack.metric}"] = attack.value
            found |= {f"{attack.name}/{item.name}": item.value for item in attack.metrics if item.value is not None}
    return found


def _shared(result: ComparisonResult) -> list[str]:
    """Metrics that every run has: the parallel-coordinates view drops a trial that lacks one."""
    shared = set.intersection(*(set(_metrics_of(run)) for run in result.runs))
    return [name for name in _metrics_of(result.runs[0]) if name in shared and wording.is_rate(name)]


def _session_config(writer: SummaryWriter, result: ComparisonResult) -> None:
    parameters = [
        hparams.HParam(AXIS, hparams.RealInterval(0.0, 1e6)),
        hparams.HParam("variant", hparams.Discrete(sorted({wording.variant_key(run) for run in result.runs}))),
        hparams.HParam("seed", hparams.RealInterval(0.0, 1e9)),
    ]
    metrics = [hparams.Metric(name, display_name=wording.short_name(name)) for name in _shared(result)]
    _put(writer, hparams.hparams_config_pb(hparams=parameters, metrics=metrics))


def _session(writer: SummaryWriter, result: ComparisonResult, run: RunResult) -> None:
    epsilon = NO_DP if math.isinf(run.epsilon) else run.epsilon
    named = {AXIS: epsilon, "variant": wording.variant_key(run), "seed": float(run.seed)}
    _put(writer, hparams.hparams_pb(named, trial_id=run.label))
    shared = _shared(result)
    for past in [item for item in result.checkpoints if item.label == run.label] + [run]:
        found = _metrics_of(past)
        for name in shared:
            if name in found:
                writer.add_scalar(name, found[name], past.step)


def _put(writer: SummaryWriter, proto: Any) -> None:
    """A proto of tensorboard's own class, which the writer takes as it is."""
    writer._get_file_writer().add_summary(proto)
