"""What a model is worth to whoever uses it: on held-out examples, with intervals.

Of a classifier, the share of right answers. Of a model that predicts a value, first the share of predictions within 20% of the
value (for a dose of warfarin that is what is called clinically acceptable: International Warfarin Pharmacogenetics Consortium
2009, "Estimation of the Warfarin Dose with Clinical and Pharmacogenetic Data"), then the shares that are off by more than 20%
and by more than 35%, and the mean absolute error in the value's unit. Of a value that may be negative a share says nothing, and
the share of predictions within a tenth of its public range stands there alone. Of a language model, the share of places where
the most probable character or token is the right one, and the bits it needs a character: the mean of −log₂ p of what is there.
Tokens write several characters each, or a part of one: their bits are summed and divided by the characters that the held-out
text has, so that models of different tokens compare. The first one is the headline: it is a share, and more is better.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dptrain.data.dataset import DataSet
from dptrain.data.values import Values
from dptrain.regression import fit_linear, norm_bound, statistics_plan
from evaluation.access import Access
from evaluation.metrics import ScoreError, mean, proportion
from evaluation.result import Calibration, Measure
from evaluation.target import Target

ACCURACY = "test_accuracy"
NEXT, NEXT_TOKEN, BITS = "next_character", "next_token", "bits_per_character"
WITHIN = "within_20_percent"
NEAR = "within_a_tenth_of_the_range"
ABSOLUTE_ERROR = "mean_absolute_error"
STATISTICS = "statistics_mean_absolute_error"
OFF_BY = (0.2, 0.35)
LOST = (
    "the model's outputs hold NaN or infinity: its training went astray, and no attack on it says anything; lower "
    "optimizer.learning_rate (non_private_optimizer.learning_rate for what is trained without noise)"
)
ENDS = ("_low", "_high")
"""What the names of an interval's ends add to a measure's, where a result is written as a table of numbers."""


def utility(target: Target, inputs: Tensor, targets: Tensor, data: DataSet) -> tuple[Measure, ...]:
    """The measures of a model on held-out examples, the headline first.

    Raises:
        ScoreError: its outputs are not finite: a model that was lost in training is not a safe one.
    """
    if target.kind == "language":
        return _of_language(target, inputs, targets, data)
    outputs = target.behind(Access.LOGITS).logits(inputs)
    if not np.isfinite(outputs).all():
        raise ScoreError(LOST)
    if data.value is None:
        right = int((target.labels(inputs) == targets.numpy()).sum())
        return (proportion(right, len(targets), ACCURACY),)
    predicted = data.value.decode(outputs[:, 0])
    return of_values(predicted, data.value.decode(targets.numpy()), data.value)


def _of_language(target: Target, inputs: Tensor, targets: Tensor, data: DataSet) -> tuple[Measure, ...]:
    """Intervals are over sequences, whose places depend on each other."""
    bits = -target.log_likelihoods(inputs, targets) / np.log(2)
    if not np.isfinite(bits).all():
        raise ScoreError(LOST)
    right = target.labels(inputs) == targets.numpy()
    return mean(right.mean(1), NEXT if data.tokenizer is None else NEXT_TOKEN), per_character(bits, targets, data, BITS)


def per_character(bits: Float[np.ndarray, "examples length"], targets: Tensor, data: DataSet, name: str) -> Measure:
    """Bits of each place as bits a character of the text.

    Of tokens it is a ratio of sums, R = Σ bᵢ / Σ cᵢ over sequences with bᵢ bits and cᵢ characters; its interval is that of the
    mean of R + (bᵢ − R cᵢ) / c̄ (Cochran 1977, "Sampling Techniques", chapter 6).
    """
    if data.tokenizer is None:
        return mean(bits.mean(1), name)
    spent, characters = bits.sum(1), data.tokenizer.characters(targets).double().numpy()
    ratio = spent.sum() / characters.sum()
    return mean(ratio + (spent - ratio * characters) / characters.mean(), name)


def of_values(
    predicted: Float[np.ndarray, " examples"], true: Float[np.ndarray, " examples"], value: Values
) -> tuple[Measure, ...]:
    """The measures of predictions in the value's unit."""
    error = np.abs(predicted - true)
    if not value.has_origin:
        near = int((error <= 0.1 * (value.bounds[1] - value.bounds[0])).sum())
        return proportion(near, len(true), NEAR), mean(error, ABSOLUTE_ERROR)
    relative, count = error / np.abs(true).clip(1e-12), len(true)
    shares = [proportion(int((relative <= OFF_BY[0]).sum()), count, WITHIN)]
    shares += [
        proportion(int((relative > limit).sum()), count, f"off_by_more_than_{100 * limit:.0f}_percent") for limit in OFF_BY
    ]
    return (*shares, mean(error, ABSOLUTE_ERROR))


def by_statistics(data: DataSet, members: Tensor, held_out: Tensor, epsilon: float, delta: float) -> Measure | None:
    """The mean absolute error of linear regression from noised sufficient statistics under the same budget, which a private
    model of small data must beat (:mod:`dptrain.regression`); None where no value is predicted from a table.

    It is fitted for this figure alone, with noise of its own, and released by nobody.

    Args:
        members, held_out: indices of examples.
    """
    if data.value is None or not data.columns:
        return None
    plan = statistics_plan(epsilon=epsilon, delta=delta, examples=len(members), norm=norm_bound(data.columns))
    fitted = fit_linear(data.inputs[members], data.targets[members], plan)
    predicted = data.value.decode(fitted.model(data.inputs[held_out])[:, 0].detach().numpy())
    return mean(np.abs(predicted - data.value.decode(data.targets[held_out].numpy())), STATISTICS)


GROUPS = 10
"""Of a calibration."""


def calibration(target: Target, inputs: Tensor, targets: Tensor, data: DataSet) -> Calibration | None:
    """True values beside predicted ones, in ten groups of equal size by prediction; None for classes, or too few examples."""
    if data.value is None or len(targets) < 2 * GROUPS:
        return None
    predicted, true = data.value.decode(target.scores(inputs)[:, 0]), data.value.decode(targets.numpy())
    groups = np.array_split(np.argsort(predicted, kind="stable"), GROUPS)
    means = [mean(true[group], "true") for group in groups]
    return Calibration(
        predicted=tuple(float(predicted[group].mean()) for group in groups),
        true=tuple(float(item.value or 0.0) for item in means),
        low=tuple(float(item.low or 0.0) for item in means),
        high=tuple(float(item.high or 0.0) for item in means),
    )


def without_model(targets: Tensor, data: DataSet) -> tuple[Measure, ...]:
    """What whoever always gives the same answer gets: the most frequent class, or the median value; of a text the most frequent
    character or token, and the bits of their frequencies (with one more of each)."""
    if data.is_language:
        counts = np.bincount(targets.flatten().numpy(), minlength=len(data.classes)) + 1.0
        unit = "character" if data.tokenizer is None else "token"
        share = mean((targets == int(counts.argmax())).double().mean(1).numpy(), f"most_frequent_{unit}")
        bits = -np.log2(counts / counts.sum())[targets.numpy()]
        return share, per_character(bits, targets, data, "frequencies_bits_per_character")
    if data.value is None:
        counts = np.bincount(targets.numpy(), minlength=len(data.classes))
        return (proportion(int(counts.max()), int(counts.sum()), "majority_class"),)
    true = data.value.decode(targets.numpy())
    found = of_values(np.full(len(true), np.median(true)), true, data.value)
    kept = [item for item in found if item.name in (WITHIN, NEAR, ABSOLUTE_ERROR)]
    return tuple(Measure(name=f"median_{item.name}", value=item.value, low=item.low, high=item.high) for item in kept)


def as_numbers(measures: tuple[Measure, ...]) -> dict[str, float]:
    """Measures with their ends as a table of numbers; the first name is the headline's."""
    found: dict[str, float] = {}
    for item in measures:
        ends = dict(zip((item.name, *(item.name + end for end in ENDS)), (item.value, item.low, item.high), strict=True))
        found |= {name: value for name, value in ends.items() if value is not None}
    return found


def as_measures(numbers: dict[str, float]) -> tuple[Measure, ...]:
    """The measures of such a table, the headline first."""
    names = [name for name in numbers if not name.endswith(ENDS)]
    return tuple(
        Measure(name=name, value=numbers[name], low=numbers.get(f"{name}_low"), high=numbers.get(f"{name}_high"))
        for name in names
    )
