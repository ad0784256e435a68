"""SYNTHETIC results for tests of the three views: every figure here is made up, none was measured.

    result = synthetic(tmp_path)                                    # rich: three seeds, failures, missing pictures
    result = synthetic(tmp_path, budgets=(), seeds=(0,))            # no DP run at all, one seed

The pictures are written below the folder given, where the views look for them. The last budget's are left out, so that a
missing picture always occurs.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
from scipy.stats import norm

from dptrain.plan import Guarantee
from evaluation.answered import with_answer
from evaluation.exchange import exchanged
from evaluation.result import (
    AttackResult,
    AuditBound,
    AuditCheck,
    AuditResult,
    ComparisonResult,
    Curve,
    Measure,
    RunResult,
    Variant,
    Verdict,
)
from evaluation.summary import summarize, with_twins

STEP = 300
EARLIER = (100, 200)
VARIANTS: tuple[Variant, ...] = ("non_private", "clip_only", "regularized")
STRENGTH = {"non_private": 0.8, "clip_only": 0.5, "regularized": 0.65}
"""μ of a made-up Gaussian attack: the shift between the scores of members and of non-members."""
LIRA, THRESHOLD, INVERSION, ABSENT = "membership.lira", "membership.threshold", "inversion.class", "extraction.secrets"
RATE = "tpr_at_fpr_0.01"


def synthetic(
    root: Path,
    *,
    budgets: tuple[float, ...] = (8.0, 4.0, 2.0, 1.0),
    seeds: tuple[int, ...] = (0, 1, 2),
    variants: tuple[Variant, ...] = VARIANTS,
    classes: tuple[str, ...] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
    attacks: tuple[str, ...] = (THRESHOLD, LIRA, INVERSION, ABSENT),
    broken: bool = True,
    regularizers: tuple[str, ...] = (),
) -> ComparisonResult:
    """A comparison with made-up figures, and its pictures below ``root``.

    Args:
        broken: whether an attack and a model failed, and a run carries a note.
        regularizers: each in models of its own, the first one leaking most.
    """
    kinds: list[tuple[Variant, float]] = [*(("dp", epsilon) for epsilon in budgets), *((name, math.inf) for name in variants)]
    runs = with_twins(tuple(_run(root, kind, epsilon, seed, attacks, classes) for kind, epsilon in kinds for seed in seeds))
    if regularizers:
        others = [run for run in runs if run.variant != "regularized"]
        alone = [_alone(root, name, 1.1 - 0.3 * place, seed, attacks, classes)
                 for place, name in enumerate(regularizers) for seed in seeds]  # fmt: skip
        runs = with_twins((*others, *alone))
    if broken and len(runs) > 1:
        runs = (_noted(_with_failure(runs[0])), *runs[1:])
    earlier = [dataclasses.replace(run, step=step) for run in runs if run.variant == "dp" for step in EARLIER]
    result = ComparisonResult(
        name="synthetic",
        title="Synthetic digits: made-up figures for tests",
        runs=runs,
        summary=summarize(runs),
        exchanges=exchanged(runs),
        command="dptrain run synthetic --budgets 8 4 2 1 --seeds 0 1 2",
        data={
            "name": "synthetic",
            "kind": "image",
            "classes": list(classes),
            "input_shape": [1, 8, 8],
            "source": "made up by tests/evaluation/report_fixture.py",
            "fingerprint": "5f" * 32,
        },
        recipe={"model": {"name": "mlp"}, "training": {"steps": STEP}},
        versions={"dptrain": "0.1.0", "python": "3.11.9", "torch": "2.14.0"},
        not_covered=("The figures and pictures of this report.", "Attacks that were not run: finding nothing is no proof."),
        baselines=(Measure(name="majority_class", value=0.1, low=0.08, high=0.13),),
        checkpoints=tuple(earlier),
        failures=("eps=00.50/seed=0: PlanError: no noise multiplier below a million reaches ε = 0.5",) if broken else (),
    )
    return with_answer(result)


def audited(result: ComparisonResult) -> ComparisonResult:
    """The same with two made-up audits: one that finds nothing wrong at ε = 4, and one that refutes ε = 1."""
    bound = AuditBound(
        method="one run, Synthetic et al. 2002",
        epsilon=1.234,
        ceiling=5.678,
        holds_for="any mechanism",
        is_bound=True,
        canaries=1000,
        guesses=200,
        correct=150,
        comparisons=2,
        confidence=0.95,
        text="ε ≥ 1.234 (SYNTHETIC)",
    )
    estimate = dataclasses.replace(bound, method="SYNTHETIC shift", epsilon=9.876, ceiling=None, is_bound=False)
    seen = Measure(name="noise", value=0.5, low=0.49, high=0.51)
    check = AuditCheck(name="noise", stated=1.0, seen=seen, ok=False, what="SYNTHETIC: the noise is not below what is stated")
    fine = AuditResult(
        about="1000 made-up canaries",
        access="white-box",
        epsilon=3.999,
        delta=1e-4,
        relation="add_or_remove_one",
        step=STEP,
        bounds=(bound, estimate),
        how="white-box",
        budget=4.0,
        steps=STEP,
        recipe_digest="a1" * 32,
    )
    broken = dataclasses.replace(
        fine, epsilon=0.999, budget=1.0, checks=(check,), contradictions=("the noise is not what the plan states",)
    )
    return with_answer(dataclasses.replace(result, audits=(fine, broken)))


def _run(
    root: Path, variant: Variant, epsilon: float, seed: int, attacks: tuple[str, ...], classes: tuple[str, ...]
) -> RunResult:
    label = f"{f'eps={epsilon:05.2f}' if variant == 'dp' else variant}/seed={seed}"
    strength = STRENGTH.get(variant, 0.5 * epsilon / (epsilon + 4)) + 0.02 * seed
    accuracy = (0.94 if variant != "dp" else 0.94 - 0.16 / (1 + epsilon)) - 0.004 * seed
    folder = root / label / "evaluation" / f"step={STEP:06d}"
    made = [_attack(name, strength, epsilon, len(classes)) for name in attacks]
    if INVERSION in attacks and (variant != "dp" or epsilon > 1):
        _draw(folder / f"{INVERSION}.npz", len(classes), blur=0.5 / max(strength, 0.1))
    return RunResult(
        label=label,
        variant=variant,
        epsilon=epsilon,
        delta=1e-4 if variant == "dp" else None,
        seed=seed,
        step=STEP,
        steps=STEP,
        utility={"test_accuracy": accuracy, "test_accuracy_low": accuracy - 0.02, "test_accuracy_high": accuracy + 0.015},
        attacks=tuple(made),
        guarantee=_guarantee(epsilon) if variant == "dp" else None,
        plan={"clipping_norm": 1.0, "expected_batch_size": 64.0},
        recipe_digest="a1" * 32,
        split_digest="b2" * 32,
        data_fingerprint="5f" * 32,
        seconds=1.5,
    )


def _alone(
    root: Path, regularizer: str, strength: float, seed: int, attacks: tuple[str, ...], classes: tuple[str, ...]
) -> RunResult:
    """A regularized run of this strength, three points less accurate than the non-private one."""
    run = _run(root, "regularized", math.inf, seed, attacks, classes)
    made = tuple(_attack(name, strength + 0.02 * seed, math.inf, len(classes)) for name in attacks)
    utility = {name: value - 0.03 for name, value in run.utility.items()}
    label = f"regularized-{regularizer}/seed={seed}"
    return dataclasses.replace(run, label=label, regularizer=regularizer, attacks=made, utility=utility)


def _guarantee(epsilon: float) -> Guarantee:
    return Guarantee(
        epsilon=epsilon - 0.0004,
        cross_check=epsilon - 0.0019,
        delta=1e-4,
        accountant="PRV (Gopi et al. 2021), upper end",
        cross_check_accountant="PLD (Doroshenko et al. 2022), pessimistic",
        unit="example",
        relation="add_or_remove_one",
        statement=f"({epsilon:.2f}, 0.0001)-differential privacy for one example. SYNTHETIC statement: nothing was trained.",
    )


def _attack(name: str, strength: float, epsilon: float, classes: int) -> AttackResult:
    if name == ABSENT:
        return AttackResult(name=name, status="not_applicable", reason="the data are not text")
    if name == INVERSION:
        return _inversion(strength, classes)
    return _membership(name, strength * (1.0 if name == LIRA else 0.6), epsilon)


def _membership(name: str, shift: float, epsilon: float) -> AttackResult:
    """A Gaussian attack of this shift; the threshold attack's rate is refused, as with too few non-members."""
    area = float(norm.cdf(shift / math.sqrt(2)))
    ceiling = float(norm.cdf(min(epsilon, 8) / 2 / math.sqrt(2)))
    found = area - 0.025 > 0.5
    verdict: Verdict = "found nothing" if not found else "leak" if math.isinf(epsilon) else "within the plan"
    false = np.concatenate([[0.0], np.geomspace(1e-3, 1, 60)])
    rate = Measure(name=RATE, value=float(norm.cdf(shift + norm.ppf(0.01))), low=0.004, high=0.09)
    refused = Measure(name=RATE, value=None, note="refused: 300 non-members cannot resolve a false positive rate of 0.01")
    return AttackResult(
        name=name,
        status="ok",
        metric="auc",
        value=area,
        low=area - 0.025,
        high=area + 0.025,
        chance=0.5,
        permitted=None if math.isinf(epsilon) else ceiling,
        access="scores",
        paper="Synthetic et al. 2000",
        verdict=verdict,
        reason="" if found else "the interval contains 0.5",
        metrics=(rate if name == LIRA else refused,),
        permitted_metrics={} if math.isinf(epsilon) else {RATE: float(norm.cdf(min(epsilon, 8) / 2 + norm.ppf(0.01)))},
        baselines=(Measure(name="blind", value=0.503, low=0.47, high=0.536),),
        controls=(
            Measure(name="permuted", value=0.497, low=0.465, high=0.53),
            Measure(name="untrained", value=0.501, low=0.468, high=0.534),
        ),
        curve=Curve(
            false_positive_rate=tuple(false.round(6).tolist()),
            true_positive_rate=tuple(norm.cdf(shift + norm.ppf(np.clip(false, 0, 1))).round(6).tolist()),
        ),
        permitted_curve=None if math.isinf(epsilon) else _permitted(false, min(epsilon, 8) / 2),
        seconds=0.7,
    )


def _permitted(false: np.ndarray, shift: float) -> Curve:
    return Curve(
        false_positive_rate=tuple(false.round(6).tolist()),
        true_positive_rate=tuple(norm.cdf(shift + norm.ppf(false)).round(6).tolist()),
    )


def _inversion(strength: float, classes: int) -> AttackResult:
    share = min(1.0, 0.3 + strength)
    return AttackResult(
        name=INVERSION,
        status="ok",
        metric="identified_top1",
        value=share,
        low=max(0.0, share - 0.28),
        high=min(1.0, share + 0.24),
        chance=1 / classes,
        access="weights",
        paper="Synthetic et al. 2001",
        verdict="nothing beyond public",
        reason="the mean of public examples of the class is identified 1.00",
        metrics=(
            Measure(name="identified_top5", value=1.0, low=0.69, high=1.0),
            Measure(name="distance_to_private_mean", value=0.31, note="root mean square, input units"),
        ),
        chance_metrics={"identified_top5": min(1.0, 5 / classes)},
        judges=(Measure(name="evaluator_accuracy", value=0.961, low=0.92, high=0.98),),
        likeness_without_model=(Measure(name="public_mean/distance_to_private_mean", value=0.277),),
        baselines=(
            Measure(name="public_class_mean", value=1.0, low=0.69, high=1.0),
            Measure(name="public_sample", value=0.9, low=0.55, high=1.0),
        ),
        controls=(
            Measure(name="permuted", value=0.0, low=0.0, high=0.31),
            Measure(name="untrained", value=0.1, low=0.0, high=0.45),
        ),
        figures=(f"{INVERSION}.npz",),
        seconds=2.1,
    )


def _draw(path: Path, classes: int, blur: float) -> None:
    """Made-up pictures: a ring of another size and place for each class, and noisier ones as reconstructions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 16))
    turns = 2 * np.pi * np.arange(classes)[:, None, None] / classes
    radius = np.hypot(across - 0.3 * np.cos(turns), down - 0.3 * np.sin(turns))
    true = np.exp(-(((radius - 0.55) / 0.25) ** 2))
    noisy = np.clip(true + min(blur, 1.0) * random.normal(size=true.shape) * 0.5, 0, 1)
    public = np.clip(true * 0.8 + 0.1, 0, 1)
    labels = np.array(["class mean\nof members", "recon-\nstruction", "public\nclass mean"])
    np.savez_compressed(path, labels=labels, row0=true, row1=noisy, row2=public)


def _with_failure(run: RunResult) -> RunResult:
    attacks = [
        AttackResult(name=attack.name, status="failed", reason="ScoreError: 3 of 600 scores are NaN")
        if attack.name == LIRA
        else attack
        for attack in run.attacks
    ]
    return dataclasses.replace(run, attacks=tuple(attacks))


def _noted(run: RunResult) -> RunResult:
    return dataclasses.replace(run, notes=("Batches and noise came from a fixed seed: not a guarantee.",))
