"""Scores in, numbers with intervals out; numpy alone.

Direction is fixed once: a higher score means "member", and members are the positive class.

    auc = area_under_roc(scores, is_member)          # DeLong interval
    rate = rate_at(scores, is_member, 0.01)          # true positive rate at 1% false positives, Clopper–Pearson

Sources: DeLong, DeLong, Clarke-Pearson 1988, in the form of Sun and Xu 2014; Clopper and Pearson 1934; Student's t over
seeds.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta, norm, rankdata
from scipy.stats import t as student

from dptrain.errors import UserError
from evaluation.result import Curve, Measure

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
) -> Measure:
    """P(score of a member > score of a non-member), ties counted half, with DeLong's interval.

    At the ends, where DeLong's variance is 0, the interval is that of a single miss (Clopper–Pearson on the smaller group).
    """
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
    half = float(norm.ppf(0.5 + confidence / 2) * np.sqrt(variance))
    return Measure(name=name, value=value, low=max(0.0, value - half), high=min(1.0, value + half), confidence=confidence)


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.25


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


def over_seeds(measures: list[Measure], name: str) -> Measure:
    """The mean over seeds with a 95% interval.

    The interval is the wider of Student's t over the seeds and the mean half-width of the single intervals over √seeds:
    seeds share a data set, so that a small spread between them does not mean that the figure is known so well. One seed
    keeps its own interval. Shares, which come with intervals of their own, stay within 0 and 1; distances need not.
    """
    known = [measure for measure in measures if measure.value is not None]
    if not known:
        return Measure(name=name, value=None, note=measures[0].note if measures else "not measured")
    values = np.array([measure.value for measure in known], dtype=float)
    halves = [(m.high - m.low) / 2 for m in known if m.high is not None and m.low is not None]
    mean, count = float(values.mean()), len(values)
    half = float(np.mean(halves)) / np.sqrt(count) if halves else 0.0
    if count == 1:
        return Measure(name=name, value=mean, low=known[0].low, high=known[0].high)
    spread = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
    half = max(half, spread)
    most = 1.0 if halves else np.inf
    return Measure(name=name, value=mean, low=max(0.0, mean - half), high=min(most, mean + half), note=f"{count} seeds")
