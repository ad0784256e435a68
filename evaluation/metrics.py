"""Scores in, numbers with intervals out; numpy alone.

Direction is fixed once: a higher score means "member", and members are the positive class.

    auc = area_under_roc(scores, is_member)          # DeLong interval; interval="bootstrap" for the other
    rate = rate_at(scores, is_member, 0.01)          # true positive rate at 1% false positives, Clopper–Pearson
    found = crossing(scores, is_member, plan.permitted_true_positive_rates)   # where the ROC lies above the plan, or None

Sources: DeLong, DeLong, Clarke-Pearson 1988, in the form of Sun and Xu 2014; Efron and Tibshirani 1993, "An Introduction to the
Bootstrap" (percentile interval); Clopper and Pearson 1934; Zou and Donner 2008, "Construction of confidence limits about effect
measures: a general approach"; Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions
based on paired data"; Student's t over seeds.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta, norm, rankdata
from scipy.stats import t as student

from dptrain.errors import UserError, unknown_name
from evaluation.result import Curve, Measure

Interval = Literal["delong", "bootstrap"]
Subjects = Literal["dealt anew", "the same"]
"""Whether each seed deals members and others out anew, or all seeds have the same people."""
RESAMPLES = 2000
CROSSING_RATES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.9)
"""False positive rates at which an ROC is held against what a plan permits. Low ones come close together: that is where few
examples leak, and where the curve of a plan is steep."""
LEAST_FALSE_POSITIVES = 4
"""A false positive rate is refused where fewer non-members than this would lie above its threshold: with four, the true
rate is known to a factor of about three (95%); with one it could be forty times smaller or five times larger."""


class ScoreError(UserError):
    """Scores that no figure can be computed from."""


def check_scores(scores: np.ndarray, is_member: np.ndarray) -> None:
    """Raises ScoreError where scores are NaN, not one an example, or one of the groups is empty."""
    if scores.shape != is_member.shape or scores.ndim != 1:
        raise ScoreError(f"scores have the shape {scores.shape}; there must be one an example, {is_member.shape}")
    if np.isnan(scores).any():
        raise ScoreError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    if is_member.all() or not is_member.any():
        raise ScoreError("there must be members and non-members; one of the groups is empty")


def is_constant(scores: np.ndarray) -> bool:
    """Whether every example has the same score, which tells nothing."""
    return bool(len(scores) == 0 or np.all(scores == scores[0]))


def area_under_roc(
    scores: Float[np.ndarray, " examples"],
    is_member: Bool[np.ndarray, " examples"],
    name: str = "auc",
    confidence: float = 0.95,
    interval: Interval = "delong",
) -> Measure:
    """P(score of a member > score of a non-member), ties counted half, with DeLong's interval or the bootstrap's.

    At the ends, where neither varies, the interval is that of a single miss (Clopper–Pearson on the smaller group).

    Args:
        interval: ``bootstrap`` draws members and non-members anew, each group by itself, 2,000 times from a fixed seed, and
            takes the percentiles: it needs no normal approximation, where groups are small or the AUC is close to 1.
    """
    if interval not in get_args(Interval):
        raise unknown_name("interval", interval, get_args(Interval), ScoreError)
    check_scores(scores, is_member)
    members, others = scores[is_member], scores[~is_member]
    ranks = rankdata(scores)
    inside_members, inside_others = rankdata(members), rankdata(others)
    above = (ranks[is_member] - inside_members) / len(others)
    below = 1 - (ranks[~is_member] - inside_others) / len(members)
    value = float(above.mean())
    variance = _variance(above) / len(members) + _variance(below) / len(others)
    if variance == 0 and value in (0.0, 1.0):
        fewest = min(len(members), len(others))
        edge = proportion(round(value * fewest), fewest, confidence=confidence)
        return Measure(name=name, value=value, low=edge.low, high=edge.high, confidence=confidence)
    if interval == "bootstrap":
        low, high = np.quantile(_resampled_areas(scores, is_member), [(1 - confidence) / 2, (1 + confidence) / 2])
        return Measure(name=name, value=value, low=min(float(low), value), high=max(float(high), value), confidence=confidence)
    half = float(norm.ppf(0.5 + confidence / 2) * np.sqrt(variance))
    return Measure(name=name, value=value, low=max(0.0, value - half), high=min(1.0, value + half), confidence=confidence)


def _resampled_areas(scores: np.ndarray, is_member: np.ndarray) -> Float[np.ndarray, " resamples"]:
    """AUCs of bootstrap samples. A resample is how often each example was drawn, so that scores are sorted once."""
    generator = np.random.default_rng(np.random.SeedSequence([*b"bootstrap"]))
    place = np.unique(scores, return_inverse=True)[1]
    places, areas = int(place.max()) + 1, np.empty(RESAMPLES)
    groups = [place[is_member], place[~is_member]]
    for index in range(RESAMPLES):
        drawn = (group[generator.integers(len(group), size=len(group))] for group in groups)
        members, others = (np.bincount(group, minlength=places) for group in drawn)
        below = np.cumsum(others) - others / 2
        areas[index] = members @ below / (len(groups[0]) * len(groups[1]))
    return areas


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.25


def widened(measure: Measure, confidence: float) -> Measure:
    """The same figure with its interval at a higher confidence, each end as far out as a normal distribution's would be, or
    Student's where it is a mean over few seeds."""
    if measure.value is None or measure.low is None or measure.high is None:
        return measure
    freedom = measure.degrees_of_freedom
    shape = norm if freedom is None else student(freedom)
    by = float(shape.ppf(0.5 + confidence / 2) / shape.ppf(0.5 + measure.confidence / 2))
    low, high = measure.value - by * (measure.value - measure.low), measure.value + by * (measure.high - measure.value)
    return dataclasses.replace(measure, low=low, high=high, confidence=confidence)


def proportion(successes: int, trials: int, name: str = "", confidence: float = 0.95) -> Measure:
    """A share with its Clopper–Pearson interval."""
    if not 0 <= successes <= trials or trials == 0:
        raise ScoreError(f"{successes} of {trials} is no share; give 0 ≤ successes ≤ trials, and at least one trial")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return Measure(name=name, value=successes / trials, low=low, high=high, confidence=confidence)


def false_positives(non_members: int, false_positive_rate: float) -> int:
    """How many non-members may lie above a threshold of this rate."""
    return int(np.floor(false_positive_rate * non_members + 1e-9))


def rate_at(
    scores: Float[np.ndarray, " examples"], is_member: Bool[np.ndarray, " examples"], false_positive_rate: float
) -> Measure:
    """True positive rate where at most this share of non-members is taken for members.

    The threshold is the smallest with which the false positives stay within the rate. Refused (value None, with a note)
    where the non-members cannot resolve the rate.
    """
    name = f"tpr_at_fpr_{false_positive_rate:g}"
    if not 0 < false_positive_rate < 1:
        raise ScoreError(f"false_positive_rate is {false_positive_rate}; give a share above 0 and below 1, such as 0.01")
    check_scores(scores, is_member)
    members, others = scores[is_member], np.sort(scores[~is_member])
    allowed = false_positives(len(others), false_positive_rate)
    if allowed < LEAST_FALSE_POSITIVES:
        note = (
            f"refused: {len(others)} non-members cannot resolve a false positive rate of {false_positive_rate:g}; "
            f"{int(np.ceil(LEAST_FALSE_POSITIVES / false_positive_rate))} are needed"
        )
        return Measure(name=name, value=None, note=note)
    threshold = others[len(others) - 1 - allowed]
    return proportion(int((members > threshold).sum()), len(members), name)


def roc(scores: Float[np.ndarray, " examples"], is_member: Bool[np.ndarray, " examples"], points: int = 150) -> Curve:
    """The ROC at up to ``points`` thresholds, denser at low false positive rates; from (0, 0) to (1, 1)."""
    check_scores(scores, is_member)
    order = np.argsort(-scores, kind="stable")
    ordered, member = scores[order], is_member[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    true = np.concatenate([[0.0], np.cumsum(member)[ends] / member.sum()])
    false = np.concatenate([[0.0], np.cumsum(~member)[ends] / (~member).sum()])
    wanted = np.concatenate([[0.0], np.geomspace(1 / (~member).sum(), 1, points - 2), [1.0]])
    # At each wanted false positive rate: the last threshold that stays within it, so that nothing is made up between.
    at = np.unique(np.searchsorted(false, wanted, side="right") - 1)
    at = np.unique(np.concatenate([at, [len(false) - 1]]))
    return Curve(
        false_positive_rate=tuple(round(float(value), 6) for value in false[at]),
        true_positive_rate=tuple(round(float(value), 6) for value in true[at]),
    )


def balanced_accuracy(
    scores: Float[np.ndarray, " examples"],
    is_member: Bool[np.ndarray, " examples"],
    calibration_scores: Float[np.ndarray, " others"],
    calibration_is_member: Bool[np.ndarray, " others"],
    confidence: float = 0.95,
) -> Measure:
    """Mean of true positive and true negative rate at the threshold that is best on other data.

    The threshold is the middle between two neighbouring calibration scores. The interval joins the Clopper–Pearson ones of the
    two rates p and q by their distances (Zou and Donner 2008): (p + q)/2 ± √((p − p_end)² + (q − q_end)²) / 2.

    Args:
        calibration_scores: of other examples, or of another model: shadow models have scores whose membership is known.

    Raises:
        ScoreError: calibration and scored examples are the same: the best threshold then is in part the luck of the draw.
    """
    check_scores(scores, is_member)
    check_scores(calibration_scores, calibration_is_member)
    if np.shares_memory(scores, calibration_scores) or np.array_equal(scores, calibration_scores):
        raise ScoreError(
            "the threshold would be fixed on the scores that it judges; give calibration scores of other examples or models"
        )
    threshold = _best_threshold(calibration_scores, calibration_is_member)
    members, others = scores[is_member], scores[~is_member]
    shares = ((int((members > threshold).sum()), len(members)), (int((others <= threshold).sum()), len(others)))
    rates = np.array([successes / trials for successes, trials in shares])
    found = [proportion(successes, trials, confidence=confidence) for successes, trials in shares]
    low, high = (np.array([getattr(rate, end) for rate in found]) for end in ("low", "high"))
    return Measure(
        name="balanced_accuracy",
        value=float(rates.mean()),
        low=float(rates.mean() - np.linalg.norm(rates - low) / 2),
        high=float(rates.mean() + np.linalg.norm(high - rates) / 2),
        confidence=confidence,
    )


def _best_threshold(scores: np.ndarray, is_member: np.ndarray) -> float:
    """Where "above" has the best balanced accuracy; the lowest of several."""
    values, place = np.unique(scores, return_inverse=True)
    members, others = (np.bincount(place[group], minlength=len(values)) for group in (is_member, ~is_member))
    gain = np.concatenate([[0.0], np.cumsum(others / others.sum() - members / members.sum())])
    at = int(gain.argmax())
    if at in (0, len(values)):
        return float(-np.inf if at == 0 else values[-1])
    low, high = float(values[at - 1]), float(values[at])
    return low + (high - low) / 2 if np.isfinite([low, high]).all() else low


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A place where an ROC lies above what a plan permits, beyond its interval."""

    false_positive_rate: float
    """That the threshold was aimed at."""
    highest: float
    """The largest false positive rate that the threshold may really have."""
    true_positive_rate: Measure
    permitted: float
    """The true positive rate that the plan permits at ``highest``."""


def crossing(
    scores: Float[np.ndarray, " examples"],
    is_member: Bool[np.ndarray, " examples"],
    permitted: Callable[[np.ndarray], Float[np.ndarray, " rates"]],
    rates: tuple[float, ...] = CROSSING_RATES,
    confidence: float = 0.95,
) -> Crossing | None:
    """Where the ROC lies above the permitted curve by more than its sampling error, at its widest; None where nowhere.

    At most 1 − confidence of the ROCs of a mechanism that keeps to its curve are taken for one that does not, over all
    ``rates`` together. For both axes are uncertain, and the argument is this. Let P be the permitted curve, which never falls,
    and let a rate aim at m = ⌊rate · n₀⌋ of n₀ non-members above the threshold τ, which is their (m + 1)-th largest score.

    1. τ was chosen on the non-members, so that "m of n₀" is no binomial draw at a fixed threshold. But the chance of a new
       non-member to lie above the (m + 1)-th largest of n₀ scores has the distribution Beta(m + 1, n₀ − m), whatever theirs
       is, and ties only make it smaller. Its quantile at 1 − γ is, letter for letter, Clopper–Pearson's upper end U of m
       successes in n₀ trials: FPR(τ) > U in at most γ of draws.
    2. Members have no part in τ. Given τ, the number of members above it is binomial with TPR(τ), and Clopper–Pearson's lower
       end L is above TPR(τ) in at most γ of draws.
    3. Where neither happens, L ≤ TPR(τ) ≤ P(FPR(τ)) ≤ P(U). So L > P(U) happens in at most 2γ of draws, and with
       γ = (1 − confidence) / (2 · number of rates) at any of the rates in at most 1 − confidence (Bonferroni).

    Which rates are looked at must be fixed before the scores are seen. Rates that mean the same m count once. TPR and FPR may
    be means over examples of different difficulty: P is concave, so the means keep to it where each example does. That
    examples count as independent is an assumption: scores of one model share its training run.

    Args:
        permitted: false positive rates to the largest true positive rates, such as ``plan.permitted_true_positive_rates``.
        confidence: that a mechanism which keeps to its curve raises no alarm.

    Raises:
        ScoreError: a rate is not inside (0, 1), or there is none.
    """
    if not rates or any(not 0 < rate < 1 for rate in rates):
        raise ScoreError(f"rates is {rates}; give shares above 0 and below 1, such as 0.01, at least one")
    check_scores(scores, is_member)
    members, others = scores[is_member], np.sort(scores[~is_member])
    by_count = {false_positives(len(others), rate): rate for rate in sorted(rates, reverse=True)}
    each = (1 - confidence) / len(by_count)  # two-sided: half of it at each end
    highest = [float(proportion(count, len(others), confidence=1 - each).high or 0.0) for count in by_count]
    tested: list[Crossing] = []
    for (count, rate), high, limit in zip(by_count.items(), highest, permitted(np.array(highest)), strict=True):
        above = int((members > others[len(others) - 1 - count]).sum())
        true = proportion(above, len(members), f"tpr_at_fpr_{rate:g}", confidence=1 - each)
        tested.append(Crossing(false_positive_rate=rate, highest=high, true_positive_rate=true, permitted=float(limit)))
    widest = max(tested, key=_excess)
    return widest if _excess(widest) > 0 else None


def _excess(place: Crossing) -> float:
    assert place.true_positive_rate.low is not None
    return place.true_positive_rate.low - place.permitted


def difference(first: Measure, second: Measure, name: str) -> Measure:
    """first − second of two shares, with the interval that their own ones allow where they are independent: its ends lie
    √(distance² + distance²) away, with the distances of the two to their own ends (Zou and Donner 2008)."""
    if first.value is None or second.value is None:
        return Measure(name=name, value=None, note=first.note or second.note)
    value = first.value - second.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Measure(name=name, value=value)
    below = float(np.hypot(first.value - first.low, second.high - second.value))
    above = float(np.hypot(first.high - first.value, second.value - second.low))
    return Measure(name=name, value=value, low=value - below, high=value + above)


def paired_difference(
    first: Bool[np.ndarray, " examples"], second: Bool[np.ndarray, " examples"], name: str, confidence: float = 0.95
) -> Measure:
    """first − second, of the shares of the same examples on which two are right, one answer an example.

    As in :func:`difference`, with what the two err on together taken off: the ends lie √(d² + e² − 2 φ d e) away, with the
    distances d and e of the two shares to their own ends (Clopper–Pearson) and the correlation φ of being right (Newcombe 1998,
    "Improved confidence intervals for the difference between binomial proportions based on paired data", method 10).
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ScoreError(f"answers have the shapes {first.shape} and {second.shape}; give one an example, of the same examples")
    shares = [proportion(int(right.sum()), len(right), confidence=confidence) for right in (first, second)]
    varied = first.std() * second.std()
    together = float(((first - first.mean()) * (second - second.mean())).mean() / varied) if varied > 0 else 0.0
    (p, low, high), (q, least, most) = ((item.value or 0.0, item.low or 0.0, item.high or 0.0) for item in shares)

    def apart(one: float, other: float) -> float:
        return float(np.sqrt(max(0.0, one**2 + other**2 - 2 * together * one * other)))

    return Measure(
        name=name,
        value=p - q,
        low=p - q - apart(p - low, most - q),
        high=p - q + apart(high - p, q - least),
        confidence=confidence,
    )


def mean(values: Float[np.ndarray, " examples"], name: str, confidence: float = 0.95) -> Measure:
    """The mean of a figure that each example has, with Student's interval; one example has none."""
    count, middle = len(values), float(np.mean(values))
    if count < 2:
        return Measure(name=name, value=middle)
    half = float(student.ppf(0.5 + confidence / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Measure(name=name, value=middle, low=middle - half, high=middle + half, confidence=confidence)


def over_seeds(
    measures: list[Measure], name: str, least: float = 0.0, most: float = 1.0, subjects: Subjects = "dealt anew"
) -> Measure:
    """The mean over seeds with a 95% interval.

    At each end the interval is the wider of Student's t over the seeds and of what the single intervals allow, each side by
    itself: near 0 and 1 they are lopsided. Seeds may agree by luck, so that t alone would not do. What single intervals allow
    is their mean distance to that end, and

    * over √seeds where each seed deals the same data set out anew, by independent coins: which examples are members, by which
      a membership figure errs, is then independent from seed to seed;
    * as it is where the figures of all seeds are of the same subjects, such as twenty people or a published test part: what one
      seed errs by, the others err by too, and three seeds do not make sixty people. So also where all seeds read one figure.

    One seed keeps its own interval. Shares, which come with intervals of their own, stay within 0 and 1; distances need not.

    Args:
        least: the least that a figure can be; −1 for the difference of two shares.
        most: the most that it can be, where single figures have intervals; infinity for what is no share.
        subjects: of whom the figures of different seeds are.
    """
    known = [measure for measure in measures if measure.value is not None]
    if not known:
        return Measure(name=name, value=None, note=measures[0].note if measures else "not measured")
    values, count = np.array([measure.value for measure in known], dtype=float), len(known)
    if count == 1:
        return Measure(name=name, value=float(values[0]), low=known[0].low, high=known[0].high)
    middle, divisor = float(values.mean()), np.sqrt(count) if subjects == "dealt anew" else 1.0
    ends = np.array([(m.value, m.low, m.high) for m in known if m.low is not None and m.high is not None], dtype=float)
    below, above = (ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 0]) if len(ends) else (np.zeros(1), np.zeros(1))
    spread = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
    below, above = (max(spread, float(side.mean() / divisor)) for side in (below, above))
    highest = most if len(ends) else np.inf
    return Measure(
        name=name,
        value=middle,
        low=max(least, middle - below),
        high=min(highest, middle + above),
        note=f"{count} seeds",
        degrees_of_freedom=count - 1,
    )
