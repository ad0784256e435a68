"""Verdicts that hold for one model as for the mean over several: a word of ``evaluation.result.VERDICTS``, and why."""

from evaluation.result import Measure, Verdict


def of_attribute(
    held_out: Measure, imputation: Measure, leaked: Measure, permitted: float | None = None
) -> tuple[Verdict, str]:
    """Of an attribute inference.

    Args:
        held_out: share of people who were not trained on whose hidden value is guessed.
        imputation: the same without the model.
        leaked: how much more often members are guessed.
        permitted: the most that the plan permits ``leaked`` to be; None without a guarantee.
    """
    if leaked.low is not None and permitted is not None and leaked.low > permitted:
        return "above the plan", f"members are guessed more often by {leaked.value:.3f}, and the plan permits {permitted:.3f}"
    if leaked.low is not None and leaked.low > 0:
        return ("leak" if permitted is None else "within the plan"), "members are guessed more often than held-out people"
    if held_out.low is not None and imputation.value is not None and held_out.low > imputation.value:
        return "of the population", "as often on held-out people, beyond imputation: what the model learned of everyone"
    return "nothing beyond public", f"imputation, without the model, guesses {imputation.value or 0.0:.2f}"
