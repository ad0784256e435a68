"""From an inversion's reconstructions to its result: who recognises them, and what public data alone give.

The judges, and what stands beside the pictures without a model, are :mod:`evaluation.jury`'s; how near a picture comes to its
class is :mod:`evaluation.likeness`'s, for reconstructions and for what was to be had without the model alike. An attack that
gives a distribution a class is also judged by draws of it (:mod:`~evaluation.inversion.distribution`). Nothing of these takes
part in making a reconstruction.
"""

import dataclasses
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from dptrain.data.dataset import DataSet
from evaluation import metrics
from evaluation.analysis import Case
from evaluation.baselines import GATE
from evaluation.inversion.class_ import ClassInversion
from evaluation.inversion.distribution import COUNT, OF_DRAWS, Distributional, distribution
from evaluation.inversion.knowledge import InversionAttack
from evaluation.inversion.other_people import taught
from evaluation.inversion.recogniser import Recogniser
from evaluation.jury import DEALT, Jury, can_be_drawn, jury_of, share
from evaluation.likeness import likeness
from evaluation.membership import NotApplicable
from evaluation.pictures import keep_rows
from evaluation.result import AttackResult, Verdict
from evaluation.target import Target

Right = Bool[np.ndarray, " judged"]
"""For each class, whether the judge takes its picture for it."""
OTHER_PEOPLE = "other_people"
KNOWING_NOBODY = {"untrained": "an untrained model", OTHER_PEOPLE: "a model of other people"}
"""Negative controls."""


def reconstructions(case: Case, name: str, attack: InversionAttack) -> AttackResult:
    """Runs one class inversion and judges it: how many classes the independent evaluator recognises.

    Raises:
        NotApplicable: the inputs have no public bounds to stay between, or the model predicts a value.
        DataError: a class has too few examples to judge by.
    """
    if case.data.value is not None:
        raise NotApplicable("the model predicts a value, and there is no class to draw")
    if not can_be_drawn(case.data):
        raise NotApplicable("the inputs have no public bounds")
    jury, classes = jury_of(case.data, case.split, case.seed), len(case.data.classes)
    found = _invert(case, attack, jury, case.target)
    right, controls = jury.right(found), _controls(case, attack, jury)
    without_model = {who: jury.right(pictures) for who, pictures in jury.without_model.items()}
    value = share(right, "identified_top1")
    further = jury.further(found)
    drawn = _drawn(case, attack, jury)
    of_draws = () if drawn is None else distribution(drawn, jury.judge.labels, jury.known, jury.judged)
    verdict, reason = _verdict(right, without_model, controls, 1 / classes)
    return AttackResult(
        name=name,
        status="ok",
        metric="identified_top1",
        value=value.value,
        low=value.low,
        high=value.high,
        chance=1 / classes,
        access=attack.access.word,
        paper=attack.paper,
        verdict=verdict,
        reason=reason if len(right) == classes else "; ".join(filter(None, [reason, _not_judged(len(right), classes)])),
        metrics=(*further.values(), *likeness(found, jury.originals), *of_draws),
        chance_metrics={measure.name: first / classes for first, measure in further.items()}
        | ({} if drawn is None else {OF_DRAWS: 1 / classes}),
        judges=jury.accuracy,
        baselines=tuple(share(answers, who) for who, answers in without_model.items()),
        likeness_without_model=jury.likeness_without_model,
        controls=tuple(share(answers, who) for who, answers in controls.items()),
        figures=_keep_picture(case, name, found, drawn, jury),
        recognised=tuple(right.tolist()),
    )


def _not_judged(judged: int, classes: int) -> str:
    return f"{judged} of {classes} classes are judged, and of the others the model had no example"


def _controls(case: Case, attack: InversionAttack, jury: Jury) -> dict[str, Right]:
    """Of people, a model of other people; else an untrained one. None where the architecture is not known."""
    if case.untrained is None:
        return {}
    if case.data.others is None:
        return {"untrained": jury.right(_invert(case, attack, jury, case.untrained))}
    control, dealt = _of_others(case.untrained, case.data, case.seed)
    right = jury.right(_invert(case, attack, jury, control))[np.isin(jury.judged, dealt)]
    return {OTHER_PEOPLE: right} if len(right) else {}


@lru_cache(maxsize=1)
def _of_others(untrained: Target, data: DataSet, seed: int) -> tuple[Target, np.ndarray]:
    """The same for every attack on a model."""
    assert data.others is not None
    return taught(untrained, data.others.inputs, data.others.groups, seed)


def _invert(case: Case, attack: InversionAttack, jury: Jury, target: Target) -> Tensor:
    generator = torch.Generator().manual_seed(case.seed)
    if isinstance(attack, ClassInversion):
        attack = dataclasses.replace(attack, steps=case.evaluation.inversion_steps, restarts=case.evaluation.inversion_restarts)
    found = attack.run(target.behind(attack.access), jury.known, generator)
    if not bool(torch.isfinite(found).all()):
        raise metrics.ScoreError("the reconstructions hold NaN or infinity")
    return found


def _drawn(case: Case, attack: InversionAttack, jury: Jury) -> Tensor | None:
    """Draws of each class, where the attack gives a distribution."""
    if not isinstance(attack, Distributional):
        return None
    return attack.samples(case.target.behind(attack.access), jury.known, COUNT, torch.Generator().manual_seed(case.seed))


def _keep_picture(case: Case, name: str, found: Tensor, drawn: Tensor | None, jury: Jury) -> tuple[str, ...]:
    """Private pictures, reconstructions and public ones as arrays in [0, 1], for the views to draw, with what each row is."""
    if case.folder is None or case.data.kind != "image":
        return ()
    means = jury.originals.means
    rows = {"class mean\nof members": means, "recon-\nstruction": found}
    if drawn is not None:
        rows["one draw"] = drawn[:, 0]
    public = jury.known.public
    if isinstance(jury.judge, Recogniser):
        rows = {"a member's\nface": _nearest(means, *jury.members), **rows}
        near = torch.cdist(jury.judge.embedding(found), jury.judge.embedding(public)).argmin(1)
        rows["nearest\npublic face"] = public[near]
    else:
        rows["public\nclass mean"] = jury.without_model["public_class_mean"]
    return keep_rows(case.folder, name, rows, case.data.bounds)


def _nearest(means: Tensor, examples: Tensor, targets: Tensor) -> Tensor:
    """The example of each class that is nearest to the class's mean."""
    found = means.clone()
    for label in range(len(means)):
        own = examples[targets == label]
        if len(own):
            found[label] = own[(own - means[label]).flatten(1).norm(dim=1).argmin()]
    return found


def _verdict(right: Right, without_model: dict[str, Right], controls: dict[str, Right], chance: float) -> tuple[Verdict, str]:
    """Of which classes are identified, by the attack, without the model, and through models that know none of them."""
    low = share(right, "").low
    if low is None or low <= chance:
        return "found nothing", "the interval contains chance"
    for who, answers in controls.items():
        least = metrics.proportion(int(answers.sum()), len(answers), confidence=GATE).low
        if least is not None and least > chance:
            return "withheld", (
                f"through {KNOWING_NOBODY[who]} {answers.mean():.2f} are identified, which chance does not explain: what the "
                "judge recognises comes by another way than through the model"
            )
    beside = {who: answers for who, answers in without_model.items() if who not in DEALT}
    best = max(beside, key=lambda who: int(beside[who].sum()), default=None)
    if best is not None:
        beyond = metrics.paired_difference(right, beside[best], "beyond").low
        if beyond is not None and beyond <= 0:
            name = best.replace("_", " ")
            return "nothing beyond public", f"{name}, without the model, is identified {beside[best].mean():.2f}"
    return "leak", ""
