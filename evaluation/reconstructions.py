"""From an inversion's reconstructions to its result: who recognises them, and what public data alone give.

The judges, and what stands beside the pictures without a model, are :mod:`evaluation.jury`'s; how near a picture comes to its
class is :mod:`evaluation.likeness`'s, for reconstructions and for what was to be had without the model alike. Nothing of either
takes part in making a reconstruction.
"""

import dataclasses
import io

import numpy as np
import torch
from torch import Tensor

from dptrain.files import write_file
from evaluation import metrics
from evaluation.analysis import Case
from evaluation.inversion.class_ import ClassInversion
from evaluation.inversion.knowledge import InversionAttack
from evaluation.inversion.recogniser import Recogniser
from evaluation.jury import DEALT, Jury, jury_of
from evaluation.likeness import likeness
from evaluation.membership import NotApplicable
from evaluation.result import AttackResult, Verdict
from evaluation.target import Target


def reconstructions(case: Case, name: str, attack: InversionAttack) -> AttackResult:
    """Runs one class inversion and judges it: how many classes the independent evaluator recognises.

    Raises:
        NotApplicable: the inputs have no public bounds to stay between, or the model predicts a value.
        DataError: a class has too few examples to judge by.
    """
    if case.data.value is not None:
        raise NotApplicable("the model predicts a value, and there is no class to draw")
    if case.data.kind != "image" and not np.isfinite(case.data.bounds).all():
        raise NotApplicable("the inputs have no public bounds")
    jury = jury_of(case.data, case.split, case.seed)
    found = _invert(case, attack, jury, case.target)
    value = jury.identified(found, "identified_top1")
    controls = ()
    if case.untrained is not None:
        controls = (jury.identified(_invert(case, attack, jury, case.untrained), "untrained"),)
    result = AttackResult(
        name=name,
        status="ok",
        metric="identified_top1",
        value=value.value,
        low=value.low,
        high=value.high,
        chance=1 / len(case.data.classes),
        access=attack.access.word,
        paper=attack.paper,
        metrics=(*jury.further(found), *likeness(found, jury.originals)),
        baselines=(*jury.accuracy, *(jury.identified(made, named) for named, made in jury.without_model.items())),
        likeness_without_model=jury.likeness_without_model,
        controls=controls,
        figures=_keep_picture(case, name, found, jury),
    )
    verdict, reason = _verdict(result, tuple(jury.without_model))
    return dataclasses.replace(result, verdict=verdict, reason=reason)


def _invert(case: Case, attack: InversionAttack, jury: Jury, target: Target) -> Tensor:
    generator = torch.Generator().manual_seed(case.seed)
    if isinstance(attack, ClassInversion):
        attack = dataclasses.replace(attack, steps=case.evaluation.inversion_steps, restarts=case.evaluation.inversion_restarts)
    found = attack.run(target.behind(attack.access), jury.known, generator)
    if not bool(torch.isfinite(found).all()):
        raise metrics.ScoreError("the reconstructions hold NaN or infinity")
    return found


def _keep_picture(case: Case, name: str, found: Tensor, jury: Jury) -> tuple[str, ...]:
    """Private pictures, reconstructions and public ones as arrays in [0, 1], for the views to draw, with what each row is."""
    if case.folder is None or case.data.kind != "image":
        return ()
    low, high = case.data.bounds
    means = jury.originals.means
    rows = {"class mean\nof members": means, "recon-\nstruction": found}
    public = jury.known.public
    if isinstance(jury.judge, Recogniser):
        rows = {"a member's\nface": _nearest(means, *jury.members), **rows}
        near = torch.cdist(jury.judge.embedding(found), jury.judge.embedding(public)).argmin(1)
        rows["nearest\npublic face"] = public[near]
    else:
        rows["public\nclass mean"] = jury.without_model["public_class_mean"]

    def picture(tensor: Tensor) -> np.ndarray:
        scaled = ((tensor - low) / (high - low)).clamp(0, 1).nan_to_num(0.5)
        return (scaled[:, 0] if scaled.shape[1] == 1 else scaled.permute(0, 2, 3, 1)).numpy()

    arrays = {"labels": np.array(list(rows))} | {f"row{at}": picture(row) for at, row in enumerate(rows.values())}
    file, content = f"{name}.npz", io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]  no array is named allow_pickle
    write_file(case.folder / file, content.getvalue())
    return (file,)


def _nearest(means: Tensor, examples: Tensor, targets: Tensor) -> Tensor:
    """The example of each class that is nearest to the class's mean."""
    found = means.clone()
    for label in range(len(means)):
        own = examples[targets == label]
        if len(own):
            found[label] = own[(own - means[label]).flatten(1).norm(dim=1).argmin()]
    return found


def _verdict(result: AttackResult, without_model: tuple[str, ...]) -> tuple[Verdict, str]:
    if result.low is None or result.chance is None or result.low <= result.chance:
        return "found nothing", "the interval contains chance"
    untrained = next((item for item in result.controls if item.name == "untrained"), None)
    if untrained is not None and untrained.low is not None and untrained.low > result.chance:
        return "withheld", f"an untrained model is identified as often as {untrained.value:.2f}: the judge is fooled"
    beside = [item for item in result.baselines if item.name in without_model and item.name not in DEALT]
    best = max(beside, key=lambda item: item.value or 0.0, default=None)
    if best is not None and best.value is not None and result.low <= best.value:
        return "nothing beyond public", f"{best.name.replace('_', ' ')}, without the model, is identified {best.value:.2f}"
    return "leak", ""
